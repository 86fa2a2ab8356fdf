//! Histories in which a call fails: the nth of its kind, once or from then on, with a part done or
//! nothing; and histories on a disk that is full.
//!
//! No failure may panic, give a wrong answer, or lose what was acknowledged: not for who reads on, not for
//! who opens the same file again on the same machine, and not when the power fails after that.
//!
//! In short histories every single call fails, in each way; in long ones a sample does.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use revtree::storage::sim::{Call, FaultPlan, SimDisk, SimOptions};
use revtree::{Durability, ReadMode};

use super::history::{Setup, batched};
use super::ops::{short, writes};
use super::run::{EIO, ENOSPC, Fault, Run, Seen};
use super::smallest::{first_words, plainer};
use crate::op::Op;
use crate::quiet::quietly;
use crate::random::Random;
use crate::shrink::shrink;
use crate::simpler::simpler;

/// Operations of a short history's own: thirteen more are in each.
const SHORT_OPS: usize = 14;
/// Operations of a long one.
const LONG_OPS: usize = 60;
/// Calls of one kind that fail in a long one.
const SAMPLES: u64 = 8;

/// How often a history that fails is run again to make it smaller.
const RUNS_MAX: usize = 5000;

/// All kinds of calls.
const CALLS: [Call; 15] = [
    Call::Open,
    Call::CreateNew,
    Call::Rename,
    Call::Remove,
    Call::SyncDirectory,
    Call::ReadAt,
    Call::WriteAt,
    Call::SyncData,
    Call::SyncAll,
    Call::Allocate,
    Call::SetLen,
    Call::Punch,
    Call::StartWriteback,
    Call::Show,
    Call::Lock,
];

/// What a kind of call is called in a summary, and whether the disk writes it down.
fn kind(call: Call) -> (&'static str, bool) {
    // Without a wild card: a new kind has to be put here, and into the list above.
    match call {
        Call::Open => ("opens", false),
        Call::CreateNew => ("creations", true),
        Call::Rename => ("renames", true),
        Call::Remove => ("removals", true),
        Call::SyncDirectory => ("directory syncs", true),
        Call::ReadAt => ("reads", false),
        Call::WriteAt => ("writes", true),
        Call::SyncData => ("data syncs", true),
        Call::SyncAll => ("full syncs", true),
        Call::Allocate => ("allocations", true),
        Call::SetLen => ("lengths", true),
        Call::Punch => ("holes", true),
        Call::StartWriteback => ("writebacks", false),
        Call::Show => ("mappings", false),
        Call::Lock => ("locks", false),
    }
}

/// Which calls failed, in how many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultSummary {
    /// How many different calls were made to fail, by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Runs of the history: several for each call, and those on a full disk.
    pub runs: u64,
    /// What the history did when nothing failed.
    pub seen: Seen,
}

/// Runs the short history of a seed once for each call that it makes and each way in which it can fail.
///
/// # Errors
///
/// The first run that answers wrongly or loses something, and a call that none of them reached.
pub fn every_call(seed: u64) -> Result<FaultSummary, String> {
    let mut random = Random::new(seed ^ 0xE7E27);
    let setup = Setup {
        // Eight seeds have every durability with both ways to read.
        durability: DURABILITIES[usize::from(seed.to_le_bytes()[0] % 4)],
        checkpoint_bytes: *random.pick(&[1, 2 << 10, 10 << 10, 40 << 10]),
        read_mode: if seed % 8 < 4 {
            ReadMode::Map
        } else {
            ReadMode::Pread
        },
    };
    let history = FaultyHistory {
        seed,
        setup,
        ops: short(seed, SHORT_OPS),
    };
    let (_, calls, seen) = history.count()?;
    let mut summary = FaultSummary {
        seen,
        ..FaultSummary::default()
    };
    let (mut made, mut written_down) = (0, 0);
    for call in CALLS {
        let (name, is_written_down) = kind(call);
        for nth in 1..=calls[&call] {
            for plan in ways(call, nth) {
                history.stands(Fault::Call(plan))?;
                summary.runs += 1;
            }
            *summary.kinds.entry(name).or_default() += 1;
            written_down += u64::from(is_written_down);
        }
        made += calls[&call];
    }
    // Twice from elsewhere: by the disk's counts and by its log, to see that none was left out.
    if summary.kinds.values().sum::<u64>() != made || written_down != seen.operations {
        return Err(format!(
            "wrong: of {made} calls, {} of them in the log, failed {:?}",
            seen.operations, summary.kinds
        ));
    }
    Ok(summary)
}

/// Runs the long history of a seed with some of its calls failing, and on full disks.
///
/// # Errors
///
/// As [`every_call`].
pub fn some_calls(seed: u64) -> Result<FaultSummary, String> {
    let mut random = Random::new(seed ^ 0xFA017);
    let setup = Setup::draw(&mut random);
    let history = FaultyHistory {
        seed,
        setup,
        ops: writes(seed, LONG_OPS),
    };
    let (disk, calls, seen) = history.count()?;
    let mut summary = FaultSummary {
        seen,
        ..FaultSummary::default()
    };
    let files = disk.paths();
    let space: usize = files
        .iter()
        .filter_map(|path| disk.bytes(path))
        .map(|bytes| bytes.len())
        .sum();
    for _ in 0..SAMPLES {
        let capacity = random.below(space as u64 + 20_000);
        history.stands(Fault::Full(capacity))?;
        summary.runs += 1;
    }
    for call in CALLS {
        let count = calls[&call];
        let chosen = (0..SAMPLES.min(count)).map(|_| 1 + random.below(count));
        for nth in chosen.collect::<BTreeSet<u64>>() {
            let plan = *random.pick(&ways(call, nth));
            history.stands(Fault::Call(plan))?;
            summary.runs += 1;
            *summary.kinds.entry(kind(call).0).or_default() += 1;
        }
    }
    Ok(summary)
}

/// Runs these operations with one call failing: the `nth` of its kind, counted round and round among those that
/// they make, in the `way`-th of the ways in which it can. Without a call of this kind nothing fails.
///
/// # Errors
///
/// As [`every_call`].
pub(crate) fn one_call(
    setup: Setup,
    ops: Vec<Op>,
    (call, nth, way): (usize, usize, usize),
) -> Result<(), String> {
    let history = FaultyHistory {
        seed: 0,
        setup,
        ops,
    };
    let (_, calls, _) = history.count()?;
    let call = CALLS[call % CALLS.len()];
    let Some(nth) = (nth as u64).checked_rem(calls[&call]) else {
        return Ok(());
    };
    let ways = ways(call, 1 + nth);
    let fault = Fault::Call(ways[way % ways.len()]);
    history
        .fails(fault)
        .map_err(|failed| history.says(fault, &failed))
}

/// The durabilities that short histories have by turns.
pub(crate) const DURABILITIES: [Durability; 4] = [
    Durability::Sync,
    Durability::Flushed,
    batched(1000),
    batched(3),
];

/// Every way in which a call can fail.
fn ways(call: Call, nth: u64) -> Vec<FaultPlan> {
    let errors: &[i32] = match call {
        // Of an allocation both are expected; a write into allocated space should not want any.
        Call::Allocate | Call::CreateNew => &[EIO, ENOSPC],
        _ => &[EIO],
    };
    let has_parts = matches!(
        call,
        Call::WriteAt | Call::SyncData | Call::SyncAll | Call::Allocate
    );
    let mut plans = Vec::new();
    for errno in errors {
        for plan in [
            FaultPlan::once(call, nth, *errno),
            FaultPlan::sticky(call, nth, *errno),
        ] {
            plans.push(plan);
            if has_parts {
                plans.push(plan.short());
            }
        }
    }
    plans
}

/// A history that is run again and again.
struct FaultyHistory {
    seed: u64,
    setup: Setup,
    ops: Vec<Op>,
}

impl FaultyHistory {
    fn disk(&self) -> SimDisk {
        SimDisk::new(SimOptions {
            seed: self.seed,
            ..SimOptions::default()
        })
    }

    /// Runs it without any fault; the disk then knows how many calls it makes.
    fn count(&self) -> Result<(SimDisk, BTreeMap<Call, u64>, Seen), String> {
        let disk = self.disk();
        let mut run = Run::new(self.seed, self.setup, &disk, Fault::Nothing);
        let describe = |error| format!("{error}\n  seed {}, {:?}, no fault", self.seed, self.setup);
        run.history(&self.ops).map_err(describe)?;
        let calls = CALLS.map(|call| (call, run.made(call)));
        let seen = run.seen;
        Ok((disk, BTreeMap::from(calls), seen))
    }

    /// Runs it with this fault; what goes wrong is told, and the smallest history found in which it does.
    fn stands(&self, fault: Fault) -> Result<(), String> {
        self.fails(fault).map_err(|failed| {
            let smallest = quietly(|| self.smallest(fault, &failed));
            format!("{}\n{smallest}", self.says(fault, &failed))
        })
    }

    /// Runs it with this fault.
    fn fails(&self, fault: Fault) -> Result<(), Failed> {
        let disk = self.disk();
        let mut run = Run::new(self.seed, self.setup, &disk, fault);
        let result = catch_unwind(AssertUnwindSafe(|| {
            run.history(&self.ops)?;
            if let Fault::Call(plan) = fault
                && run.made(plan.call) < plan.nth
            {
                return Err("wrong: another history, which does not reach the call".to_owned());
            }
            run.afterwards()
        }));
        let result = result.unwrap_or_else(|_| Err("wrong: panicked".to_owned()));
        let done = run.done;
        result.map_err(|error| Failed { error, done })
    }

    fn says(&self, fault: Fault, Failed { error, done }: &Failed) -> String {
        let (seed, setup) = (self.seed, self.setup);
        let ops = self.ops.iter().enumerate().take(done + 1);
        let shown: String = ops
            .map(|(number, op)| format!("    {number}: {op:?}\n"))
            .collect();
        format!("{error}\n  seed {seed}, {setup:?}, {fault:?}, in operation {done}\n{shown}")
    }

    /// Makes the history smaller for as long as the same goes wrong when some call of the kind fails in this way.
    fn smallest(&self, fault: Fault, failed: &Failed) -> String {
        let words = first_words(&failed.error);
        let mut runs = 0;
        let mut last = None;
        let mut fails = |history: FaultyHistory, faults: &[Fault]| {
            let found = faults.iter().find_map(|fault| {
                runs += 1;
                let failed = history.fails(*fault).err()?;
                (runs <= RUNS_MAX && first_words(&failed.error) == words)
                    .then_some((*fault, failed))
            })?;
            let ops = history.ops.len().min(found.1.done + 1);
            last = Some((history, found));
            Some(ops)
        };
        let mut setup = self.setup;
        let ops = &self.ops[..self.ops.len().min(failed.done + 1)];
        let with = |setup, ops: &[Op]| FaultyHistory {
            seed: self.seed,
            setup,
            ops: ops.to_vec(),
        };
        for plain in plainer(setup) {
            let history = with(plain, ops);
            let faults = history.like(fault);
            if fails(history, &faults).is_some() {
                setup = plain;
            }
        }
        let shrunk = shrink(ops, RUNS_MAX, simpler, |ops| {
            let history = with(setup, ops);
            let faults = history.like(fault);
            fails(history, &faults)
        });
        let head = "the smallest history found in which the same goes wrong";
        match last {
            Some((mut history, (fault, failed))) => {
                history.ops = shrunk.items;
                format!(
                    "{head}, after {runs} runs: {}",
                    history.says(fault, &failed)
                )
            }
            None => format!("{head}, after {runs} runs, is this one"),
        }
    }

    /// The same fault in each call of its kind that this history makes; or the disk with room for less and less.
    fn like(&self, fault: Fault) -> Vec<Fault> {
        match fault {
            Fault::Nothing => vec![fault],
            Fault::Full(bytes) => (0..16)
                .map(|n| Fault::Full(bytes - bytes / 16 * n))
                .collect(),
            Fault::Call(plan) => {
                let counted = catch_unwind(AssertUnwindSafe(|| self.count()));
                let Ok(Ok((_, calls, _))) = counted else {
                    return Vec::new();
                };
                let plans = (1..=calls[&plan.call]).map(|nth| FaultPlan { nth, ..plan });
                plans.map(Fault::Call).collect()
            }
        }
    }
}

/// What went wrong, and how many operations had been done.
#[derive(Debug)]
struct Failed {
    error: String,
    done: usize,
}
