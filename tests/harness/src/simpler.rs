//! What may stand in the place of an operation when a failing history is made smaller: the same with less in it.

use crate::model::{Begin, Finish};
use crate::op::{Blob, Op, Step, When};

/// Simpler operations, the simplest first.
pub(crate) fn simpler(op: &Op) -> Vec<Op> {
    match op {
        Op::Put(key, value) => {
            let values = shorter(*value).into_iter();
            values.map(|value| Op::Put(key.clone(), value)).collect()
        }
        Op::Txn(begin, steps, finish) => transactions(*begin, steps, *finish),
        Op::RaiseIndex(index) if *index > 1 => vec![Op::RaiseIndex(1), Op::RaiseIndex(index / 2)],
        Op::Compact(when) if *when != When::Back(0) => vec![Op::Compact(When::Back(0))],
        Op::Hold(slot, Some(_)) => vec![Op::Hold(*slot, None)],
        _ => Vec::new(),
    }
}

/// A transaction of one put is a put; else one without some steps, with simpler ones, or that just commits.
fn transactions(begin: Begin, steps: &[Step], finish: Finish) -> Vec<Op> {
    let mut ops = Vec::new();
    let txn = |steps: Vec<Step>| Op::Txn(begin, steps, finish);
    match steps {
        [Step::Put(key, value, _)] => ops.push(Op::Put(key.clone(), *value)),
        [Step::Delete(key)] => ops.push(Op::Delete(key.clone())),
        _ => {}
    }
    if steps.len() > 3 {
        let (first, second) = steps.split_at(steps.len() / 2);
        ops.extend([txn(second.to_vec()), txn(first.to_vec())]);
    }
    ops.extend((0..steps.len()).map(|place| {
        let mut fewer = steps.to_vec();
        fewer.remove(place);
        txn(fewer)
    }));
    for (place, step) in steps.iter().enumerate() {
        ops.extend(simpler_steps(step).into_iter().map(|step| {
            let mut steps = steps.to_vec();
            steps[place] = step;
            txn(steps)
        }));
    }
    if begin != Begin::Write {
        ops.push(Op::Txn(Begin::Write, steps.to_vec(), finish));
    }
    if finish == Finish::Submit {
        ops.push(Op::Txn(begin, steps.to_vec(), Finish::Commit));
    }
    ops
}

fn simpler_steps(step: &Step) -> Vec<Step> {
    match step {
        Step::Put(key, value, lease) => {
            let values = shorter(*value).into_iter();
            values
                .map(|value| Step::Put(key.clone(), value, *lease))
                .collect()
        }
        Step::PutRow(table, key, value) => {
            let values = shorter(*value).into_iter();
            values
                .map(|value| Step::PutRow(table, key.clone(), value))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Shorter values of the same bytes: none, one, half of them.
fn shorter(value: Blob) -> Vec<Blob> {
    let lens = [0, 1, value.len / 2, value.len - value.len / 8];
    let shorter = lens.into_iter().filter(|len| *len < value.len);
    shorter.map(|len| Blob { len, ..value }).collect()
}

#[cfg(test)]
mod tests {
    use super::simpler;
    use crate::generate;
    use crate::op::Op;

    /// Whoever takes one simpler operation after the other comes to an end, whatever the choice.
    #[test]
    fn ends() {
        for (n, op) in generate(3, 2000).into_iter().enumerate() {
            let mut op: Op = op;
            let mut taken = 0;
            while let Some(next) = simpler(&op)
                .into_iter()
                .nth(n % 3)
                .or_else(|| simpler(&op).pop())
            {
                assert_ne!(next, op);
                op = next;
                taken += 1;
                assert!(taken < 2000, "{op:?}");
            }
        }
    }
}
