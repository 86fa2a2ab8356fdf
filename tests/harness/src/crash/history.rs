//! One history on a simulated disk, run beside the oracle: which states a crash may leave, and when.
//!
//! Every accepted commit leaves a state. Each operation of the history ends at some operation of the
//! disk; up to there its commit may be on disk, and from there on it has been acknowledged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revtree::storage::sim::{Call, FaultPlan, SimDisk, SimOptions};
use revtree::{Durability, Options, ReadMode};
use revtree_format::Revision;

use super::ops::{cleaning, writes};
use crate::apply::{Surroundings, apply};
use crate::model::{Subject, first_difference};
use crate::op::Op;
use crate::oracle::Oracle;
use crate::outcome::Outcome;
use crate::random::Random;
use crate::state::State;
use crate::subject::Store;

/// The store's name on each disk.
pub const STORE: &str = "store";

/// Address space of one store: many are opened, and none grows beyond.
const STORE_BYTES_MAX: u64 = 1 << 27;

/// Operations of a history about space besides.
const CLEANING_OPS: usize = 25;

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How durable a commit is.
    pub durability: Durability,
    /// Log bytes between two checkpoints.
    pub checkpoint_bytes: u64,
    /// How reads reach the file.
    pub read_mode: ReadMode,
}

impl Setup {
    /// Some setup.
    #[must_use]
    pub fn draw(random: &mut Random) -> Setup {
        let durabilities = [
            Durability::Sync,
            Durability::Sync,
            Durability::Flushed,
            batched(1000),
            batched(3),
        ];
        Setup {
            durability: *random.pick(&durabilities),
            checkpoint_bytes: *random.pick(&[1, 2 << 10, 10 << 10, 40 << 10, 1 << 20]),
            read_mode: *random.pick(&[ReadMode::Map, ReadMode::Map, ReadMode::Pread]),
        }
    }

    /// The same with another way to read.
    #[must_use]
    pub fn reading_by(self, read_mode: ReadMode) -> Setup {
        Setup { read_mode, ..self }
    }

    /// Opens the store on this disk, or makes it.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open(self, disk: &SimDisk) -> revtree::Result<Store> {
        let options = self.options(disk);
        Store::open(Path::new(STORE), move || options.clone())
    }

    /// Opens the store at `path` on this disk for reading only.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_read_only(self, disk: &SimDisk, path: &Path) -> revtree::Result<Store> {
        let options = self.options(disk).read_only();
        Store::open(path, move || options.clone())
    }

    /// Opens the store on this disk if it is at this revision at least.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_expecting(self, disk: &SimDisk, rev: Revision) -> revtree::Result<Store> {
        let options = self.options(disk).expect_at_least(rev);
        Store::open(Path::new(STORE), move || options.clone())
    }

    /// The options of a store on this disk.
    #[must_use]
    pub fn options(self, disk: &SimDisk) -> Options {
        Options::new()
            .disk(Arc::new(disk.clone()))
            .durability(self.durability)
            .segment_bytes(64 << 10)
            .store_bytes_max(STORE_BYTES_MAX)
            .checkpoint_bytes(self.checkpoint_bytes)
            .read_mode(self.read_mode)
    }

    /// Whether every accepted commit survives the end of the process.
    #[must_use]
    pub fn survives_kill(self) -> bool {
        matches!(self.durability, Durability::Sync | Durability::Flushed)
    }
}

/// Durable by and by: after so many changes, and never by the clock.
pub(crate) const fn batched(changes: u32) -> Durability {
    Durability::Batched {
        changes,
        interval: Duration::from_secs(1000),
    }
}

/// Where the disk and the states were when an operation of the history ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// Operations of the disk.
    pub end: u64,
    /// The newest accepted state.
    pub accepted: usize,
    /// The newest state that a power cut may not take.
    pub durable: usize,
}

/// A history that has been run.
#[derive(Debug)]
pub struct History {
    /// Its seed.
    pub seed: u64,
    /// How the store was opened.
    pub setup: Setup,
    /// The operations.
    pub ops: Vec<Op>,
    /// The disk; what it did after the last mark is no part of the history.
    pub disk: SimDisk,
    /// After opening, and after each operation.
    pub marks: Vec<Mark>,
    /// Every accepted state, the empty store first.
    pub states: Vec<State>,
    /// Bytes of segments that it has freed.
    pub freed_bytes: u64,
}

impl History {
    /// How the history of a seed opens the store, and its operations.
    pub(super) fn drawn(seed: u64, count: usize) -> (Setup, Vec<Op>) {
        let mut random = Random::new(seed ^ 0x0D15C);
        let setup = Setup::draw(&mut random);
        // One in eight is about space, and longer: several segments have to fill up.
        let ops = match seed % 8 {
            7 => cleaning(seed, count + CLEANING_OPS),
            _ => {
                let mut ops = writes(seed, count);
                ops.iter_mut()
                    .filter(|_| random.once_in(40))
                    .for_each(|op| *op = Op::Reclaim);
                ops
            }
        };
        (setup, ops)
    }

    /// Runs these operations; the seed is for the disk.
    ///
    /// # Errors
    ///
    /// When the store answers other than the oracle, without any fault.
    pub fn of(seed: u64, setup: Setup, ops: Vec<Op>) -> Result<History, String> {
        let disk = SimDisk::new(SimOptions {
            seed,
            ..SimOptions::default()
        });
        let mut store = setup
            .open(&disk)
            .map_err(|error| format!("seed {seed}: cannot make the store: {error}"))?;
        let mut oracle = Oracle::new().keep_states();
        let mut around = Surroundings::default();
        let mut mark = Mark {
            end: disk.operations(),
            ..Mark::default()
        };
        let mut marks = vec![mark];
        // The first state of the content that is in place.
        let mut content = 0;
        for (number, op) in ops.iter().enumerate() {
            around.facts = oracle.numbers();
            let expected = apply(&mut oracle, op, &around);
            let found = apply(&mut store, op, &around);
            if let Some(answer) = first_difference::<Store>(&expected, &found) {
                return Err(format!(
                    "seed {seed}, {setup:?}: operation {number}, {op:?}: expected {:?}, found {:?}",
                    expected.get(answer),
                    found.get(answer)
                ));
            }
            around.after(op, &expected);
            mark.accepted = oracle.states().len() - 1;
            if replaces(op, &expected) {
                content = mark.accepted;
            }
            if setup.durability == Durability::Sync || makes_durable(op, &expected) {
                mark.durable = mark.accepted;
            }
            let durable_rev = store.db().durable_rev();
            mark.durable = mark
                .durable
                .max(content + known_by(&oracle.states()[content..], durable_rev));
            mark.end = disk.operations();
            marks.push(mark);
        }
        let states = oracle.states().to_vec();
        let freed_bytes = store.freed_bytes();
        end_process(store, &disk);
        Ok(History {
            freed_bytes,
            seed,
            setup,
            ops,
            disk,
            marks,
            states,
        })
    }

    /// How many operations of the disk belong to it.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.end)
    }

    /// How many operations had begun after so many of the disk.
    pub(super) fn operations_begun(&self, operations: u64) -> usize {
        let done = self.marks.partition_point(|mark| mark.end <= operations);
        self.ops.len().min(done)
    }

    /// As if all that was accepted had been synced: for a test of who looks for what is lost.
    #[cfg(test)]
    pub(super) fn promising_sync(mut self) -> History {
        for mark in &mut self.marks {
            mark.durable = mark.accepted;
        }
        self
    }

    /// The states that a power cut after so many operations of the disk may leave: from the first to
    /// the second.
    #[must_use]
    pub fn after_power_cut(&self, operations: u64) -> (usize, usize) {
        let done = self.marks.partition_point(|mark| mark.end <= operations);
        let last = self.marks.len() - 1;
        let least = done.checked_sub(1).map_or(0, |n| self.marks[n].durable);
        (least, self.marks[done.min(last)].accepted)
    }

    /// The states that the end of the process may leave.
    #[must_use]
    pub fn after_kill(&self, operations: u64) -> (usize, usize) {
        let done = self.marks.partition_point(|mark| mark.end <= operations);
        let (least, most) = self.after_power_cut(operations);
        match done.checked_sub(1) {
            Some(n) if self.setup.survives_kill() => (self.marks[n].accepted, most),
            _ => (least, most),
        }
    }

    /// The operation of the disk at which the file came that was in place after so many; `None` while one
    /// takes another's place.
    #[must_use]
    pub fn content_since(&self, operations: u64) -> Option<u64> {
        let done = self.marks.partition_point(|mark| mark.end <= operations);
        let replaces = |op: &Op| matches!(op, Op::Restore(_));
        if done > 0 && self.ops.get(done - 1).is_some_and(replaces) {
            return None;
        }
        let before = self.ops.get(..done.saturating_sub(1))?;
        let last = before.iter().rposition(replaces);
        Some(last.map_or(0, |n| self.marks[n + 1].end))
    }

    /// The operations up to the one that was in flight, for a report.
    #[must_use]
    pub fn describe(&self, operations: u64) -> String {
        let shown = self.operations_begun(operations);
        let mut text = format!("seed {}, {:?}\n", self.seed, self.setup);
        for (number, op) in self.ops[..shown].iter().enumerate() {
            let mark = self.marks[number + 1];
            text += &format!("    {number}: {op:?} -> {mark:?}\n");
        }
        for number in operations.saturating_sub(8)..operations + 3 {
            if let Some(line) = self.disk.describe(number + 1) {
                text += &format!("    disk {}: {line}\n", number + 1);
            }
        }
        text
    }
}

/// Whether all that was accepted before is durable after this operation, whatever the store's durability.
pub(super) fn makes_durable(op: &Op, outcomes: &[Outcome]) -> bool {
    match op {
        Op::Sync | Op::Reopen => true,
        Op::Compact(_) | Op::Reclaim => !outcomes.iter().any(Outcome::refused),
        Op::Restore(_) => replaces(op, outcomes),
        _ => false,
    }
}

/// Whether another content is in place after this operation.
pub(super) fn replaces(op: &Op, outcomes: &[Outcome]) -> bool {
    matches!(
        (op, outcomes.first()),
        (Op::Restore(_), Some(Outcome::Unit(Ok(()))))
    )
}

/// Of the states of one content, the first that a store may show which calls this revision durable.
pub(super) fn known_by(states: &[State], durable: Revision) -> usize {
    states.partition_point(|state| state.current < durable)
}

/// Ends a store as the end of its process does: nothing more reaches the disk.
pub fn end_process<S>(store: S, disk: &SimDisk) {
    for call in [
        Call::WriteAt,
        Call::SyncData,
        Call::SyncAll,
        Call::Allocate,
        Call::SetLen,
    ] {
        disk.fail(FaultPlan::sticky(call, 1, 5));
    }
    drop(store);
    disk.clear_faults();
}

/// Everything the store shows.
///
/// # Errors
///
/// When it cannot be read.
pub fn state_of(store: &mut Store) -> Result<State, String> {
    store
        .state()
        .map_err(|error| format!("cannot be read: {error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Histories about space do what they are for: segments are freed in most of them, with each way to read.
    #[test]
    fn cleaning_histories_free_segments() {
        let (mut freed, mut histories) = (0, 0);
        for seed in (7..120).step_by(8) {
            let (setup, ops) = History::drawn(seed, 30);
            let history = History::of(seed, setup, ops).unwrap();
            histories += 1;
            freed += u64::from(history.freed_bytes > 0);
        }
        assert!(2 * freed > histories, "{freed} of {histories}");
    }
}
