//! Histories in which a call fails: the nth of its kind, once or from then on, with a part done or
//! nothing; and histories on a disk that is full.
//!
//! No failure may panic, give a wrong answer, or lose what was acknowledged: not for who reads on, not for
//! who opens the same file again on the same machine, and not when the power fails after that.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use revtree::Durability;
use revtree::storage::sim::{Call, FaultPlan, Mask, Sampled, SimDisk, SimOptions};

use super::CrashSummary;
use super::history::{Setup, end_process, state_of, writes};
use crate::answer::Refusal;
use crate::apply::{Surroundings, apply};
use crate::model::{Subject, first_difference};
use crate::op::Op;
use crate::oracle::Oracle;
use crate::outcome::Outcome;
use crate::random::Random;
use crate::subject::Store;

/// Operations of one history.
const HISTORY_OPS: usize = 25;

/// The calls that change something; reads fail in none of these.
const CALLS: [Call; 9] = [
    Call::CreateNew,
    Call::Rename,
    Call::SyncDirectory,
    Call::WriteAt,
    Call::SyncData,
    Call::SyncAll,
    Call::Allocate,
    Call::SetLen,
    Call::Show,
];

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Call(FaultPlan),
    /// So many bytes are its space.
    Full(u64),
}

/// Runs the history of a seed once per call that it makes, each time with this call failing; and on
/// full disks. The images counted are runs.
///
/// # Errors
///
/// The first run that answers wrongly or loses something.
pub fn faults(seed: u64) -> Result<CrashSummary, String> {
    let mut random = Random::new(seed ^ 0xFA017);
    let setup = Setup::draw(&mut random);
    let ops = writes(seed, HISTORY_OPS);
    let disk = new_disk(seed);
    let mut summary = CrashSummary::default();
    // Counts the calls, and the space.
    Run::new(seed, setup, &disk).run(&ops)?;
    let space: usize = disk
        .paths()
        .iter()
        .filter_map(|path| disk.bytes(path))
        .map(|b| b.len())
        .sum();
    let mut faults: Vec<Fault> = (0..12)
        .map(|_| Fault::Full(random.below(space as u64 + 20_000)))
        .collect();
    for call in CALLS {
        let count = disk.count(call);
        let step = 1 + count / 24;
        let mut nth = 1 + random.below(step);
        while nth <= count {
            // EIO, and where space is taken ENOSPC.
            let errno = if call == Call::Allocate { 28 } else { 5 };
            let plan = if random.once_in(2) {
                FaultPlan::once(call, nth, errno)
            } else {
                FaultPlan::sticky(call, nth, errno)
            };
            let plan = if random.once_in(2) {
                plan.short()
            } else {
                plan
            };
            faults.push(Fault::Call(plan));
            nth += step;
        }
    }
    for fault in faults {
        summary.images += 1;
        let disk = new_disk(seed);
        match fault {
            Fault::Call(plan) => disk.fail(plan),
            Fault::Full(bytes) => disk.set_capacity(Some(bytes)),
        }
        let mut run = Run::new(seed, setup, &disk);
        run.only_space = match fault {
            Fault::Call(plan) => plan.errno == 28,
            Fault::Full(_) => true,
        };
        let result = catch_unwind(AssertUnwindSafe(|| run.run(&ops)));
        result
            .unwrap_or_else(|_| Err("wrong: panicked".to_owned()))
            .map_err(|error| {
                let shown: String = ops
                    .iter()
                    .enumerate()
                    .take(run.done + 1)
                    .map(|(number, op)| format!("    {number}: {op:?}\n"))
                    .collect();
                format!(
                    "{error}\n  seed {seed}, {setup:?}, {fault:?}, in operation {}\n{shown}",
                    run.done
                )
            })?;
    }
    Ok(summary)
}

fn new_disk(seed: u64) -> SimDisk {
    SimDisk::new(SimOptions {
        seed,
        ..SimOptions::default()
    })
}

/// One run of a history on a disk with a fault.
struct Run<'d> {
    setup: Setup,
    disk: &'d SimDisk,
    random: Random,
    oracle: Oracle,
    around: Surroundings,
    /// The newest state that has been acknowledged, and the newest that a power cut may not take.
    acknowledged: usize,
    durable: usize,
    /// Operations done.
    done: usize,
    /// Nothing fails but for want of space: the store has to go on.
    only_space: bool,
}

impl Run<'_> {
    fn new(seed: u64, setup: Setup, disk: &SimDisk) -> Run<'_> {
        Run {
            setup,
            disk,
            random: Random::new(seed),
            oracle: Oracle::new().keep_states(),
            around: Surroundings::default(),
            acknowledged: 0,
            durable: 0,
            done: 0,
            only_space: false,
        }
    }

    fn newest(&self) -> usize {
        self.oracle.states().len() - 1
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), String> {
        let opened = self.setup.open(self.disk);
        let Ok(mut store) = opened else {
            return self.reopened();
        };
        for op in ops {
            let next = if matches!(op, Op::Reopen) {
                self.reopen(store, op)?
            } else {
                self.change(store, op)?
            };
            let Some(next) = next else {
                return self.reopened();
            };
            store = next;
            self.done += 1;
        }
        end_process(store, self.disk);
        self.reopened()
    }

    /// Does one operation; gives the store back unless it has failed for good.
    fn change(&mut self, mut store: Store, op: &Op) -> Result<Option<Store>, String> {
        self.around.facts = self.oracle.numbers();
        let found = apply(&mut store, op, &self.around);
        let failure = found.iter().find_map(|outcome| match outcome.refusal() {
            Some(Refusal::Other(text)) => Some(text.clone()),
            _ => None,
        });
        let Some(text) = failure else {
            let expected = apply(&mut self.oracle, op, &self.around);
            if let Some(answer) = first_difference::<Store>(&expected, &found) {
                return Err(format!(
                    "wrong: expected {:?}, found {:?}",
                    expected.get(answer),
                    found.get(answer)
                ));
            }
            self.around.after(op, &expected);
            self.acknowledge(op, &expected, &store);
            return Ok(Some(store));
        };
        if text.contains("NoSpace") || text.contains("StoreFull") {
            // Nothing happened, and the store goes on.
            let facts = store.facts().map_err(|error| format!("{error:?}"))?;
            if facts != self.oracle.numbers() {
                return Err(format!("wrong: {text}, and yet {facts:?}"));
            }
            drop(store.lease_calls());
            return Ok(Some(store));
        }
        if !["CommitUnknown", "Poisoned", "Io {"]
            .iter()
            .any(|kind| text.contains(kind))
        {
            return Err(format!("wrong: an unexpected error: {text}"));
        }
        if self.only_space {
            return Err(format!("wrong: a full disk gives {text}"));
        }
        // Whether it happened is not known. Nothing is written any more, and reads go on.
        let least = self.acknowledged;
        apply(&mut self.oracle, op, &self.around);
        let key = Bytes::from_static(b"later");
        let later = store.put(&key, &key);
        if !format!("{later:?}").contains("Poisoned") {
            return Err(format!("wrong: after {text} a put gives {later:?}"));
        }
        let state = state_of(&mut store)?;
        if !self.oracle.states()[least..].contains(&state) {
            return Err(format!("lost: after {text} reads see {state:?}"));
        }
        end_process(store, self.disk);
        Ok(None)
    }

    fn acknowledge(&mut self, op: &Op, expected: &[Outcome], store: &Store) {
        self.acknowledged = self.newest();
        let compacted = matches!(op, Op::Compact(_)) && !expected.iter().any(Outcome::refused);
        if self.setup.durability == Durability::Sync || matches!(op, Op::Sync) || compacted {
            self.durable = self.acknowledged;
        }
        let durable_rev = store.db().durable_rev();
        let states = self.oracle.states();
        let known = states.partition_point(|state| state.current < durable_rev);
        self.durable = self.durable.max(known);
    }

    /// Closes and opens, either of which may fail.
    fn reopen(&mut self, store: Store, op: &Op) -> Result<Option<Store>, String> {
        apply(&mut self.oracle, op, &self.around);
        let closed = store.close();
        if closed.is_ok() {
            self.durable = self.newest();
        }
        let Ok(mut store) = self.setup.open(self.disk) else {
            return Ok(None);
        };
        let found = self.find(&mut store, self.same_boot())?;
        // Opening makes durable what it shows.
        if found < self.newest() {
            end_process(store, self.disk);
            return Ok(None);
        }
        (self.durable, self.acknowledged) = (found, found);
        drop(store.lease_calls());
        Ok(Some(store))
    }

    /// The oldest state that the next open on this machine may show.
    fn same_boot(&self) -> usize {
        if self.setup.survives_kill() {
            self.acknowledged
        } else {
            self.durable
        }
    }

    /// The faults are over. First the power fails: what was durable is there. Then, instead, the same
    /// machine opens the file, and after that the power fails.
    fn reopened(&mut self) -> Result<(), String> {
        self.disk.clear_faults();
        self.disk.set_capacity(None);
        for _ in 0..4 {
            let image = self.cut();
            let mut store = self
                .setup
                .open(&image)
                .map_err(|error| format!("wrong: after a power cut: {error}"))?;
            self.find(&mut store, self.durable)?;
            end_process(store, &image);
        }
        let mut store = self
            .setup
            .open(self.disk)
            .map_err(|error| format!("wrong: opened again: {error}"))?;
        let found = self.find(&mut store, self.same_boot())?;
        let (key, value) = (Bytes::from_static(b"after"), Bytes::from_static(b"faults"));
        for _ in 0..4 {
            let image = self.cut();
            let mut store = self
                .setup
                .open(&image)
                .map_err(|error| format!("wrong: opened, then a power cut: {error}"))?;
            let again = self.find(&mut store, found)?;
            if again != found {
                return Err(format!(
                    "wrong: state {again} after state {found} was shown by an open"
                ));
            }
            store
                .put(&key, &value)
                .map_err(|error| format!("wrong: {error:?}"))?;
            store.close().map_err(|error| format!("wrong: {error}"))?;
        }
        store
            .put(&key, &value)
            .map_err(|error| format!("wrong: {error:?}"))?;
        store.close().map_err(|error| format!("wrong: {error}"))
    }

    /// A power cut now.
    fn cut(&mut self) -> SimDisk {
        let operation = self.disk.operations();
        let sectors = self.disk.pending(operation);
        let metadata = self.random.once_in(2);
        match self.random.below(4) {
            0 => self.disk.image(
                operation,
                &mut Mask::new(vec![false; sectors], metadata, metadata),
            ),
            1 => self.disk.image(
                operation,
                &mut Mask::new(vec![true; sectors], metadata, metadata),
            ),
            _ => self
                .disk
                .image(operation, &mut Sampled::new(self.random.bits())),
        }
    }

    /// Which accepted state the store shows, from `least` on.
    fn find(&self, store: &mut Store, least: usize) -> Result<usize, String> {
        let state = state_of(store).map_err(|error| format!("wrong: {error}"))?;
        let states = self.oracle.states();
        let found = states.iter().rposition(|known| *known == state);
        match found {
            Some(found) if found >= least => Ok(found),
            Some(found) => Err(format!(
                "lost: state {found} is there, {least} was acknowledged"
            )),
            None => Err(format!("wrong: no accepted state: {state:?}")),
        }
    }
}
