//! Leaves operations out of a history for as long as it still shows a difference.

use crate::op::Op;

/// How many runs shrinking may take; a history that is not yet minimal is still shown.
const RUNS_MAX: usize = 600;

/// A shorter history that still fails. `fails` runs one and says which operation differed, if any;
/// `number` is the one that differed in `ops`.
pub(crate) fn shrink(
    ops: &[Op],
    number: usize,
    mut fails: impl FnMut(&[Op]) -> Option<usize>,
) -> Vec<Op> {
    let mut runs = 0;
    let mut fails = |ops: &[Op]| {
        if runs < RUNS_MAX {
            runs += 1;
            fails(ops)
        } else {
            None
        }
    };
    let mut best = ops[..ops.len().min(number + 1)].to_vec();
    // Whole operations, in pieces that get smaller, then one by one for as long as that helps; each
    // success also cuts what follows it.
    let mut piece = best.len() / 2;
    while piece > 0 {
        let before = best.len();
        let mut from = 0;
        while from < best.len() {
            let to = best.len().min(from + piece);
            let shorter: Vec<Op> = best[..from].iter().chain(&best[to..]).cloned().collect();
            match fails(&shorter) {
                Some(number) => best = cut(shorter, number),
                None => from = to,
            }
        }
        if piece > 1 || best.len() == before {
            piece /= 2;
        }
    }
    // Then single steps of transactions.
    let mut place = 0;
    while place < best.len() {
        let mut step = 0;
        while let Some(shorter) = without_step(&best, place, step) {
            match fails(&shorter) {
                Some(number) => best = cut(shorter, number),
                None => step += 1,
            }
        }
        place += 1;
    }
    best
}

fn cut(mut ops: Vec<Op>, number: usize) -> Vec<Op> {
    ops.truncate(number + 1);
    ops
}

fn without_step(ops: &[Op], place: usize, step: usize) -> Option<Vec<Op>> {
    let Some(Op::Txn(_, steps, _)) = ops.get(place) else {
        return None;
    };
    if step >= steps.len() {
        return None;
    }
    let mut shorter = ops.to_vec();
    if let Op::Txn(_, steps, _) = &mut shorter[place] {
        steps.remove(step);
    }
    Some(shorter)
}
