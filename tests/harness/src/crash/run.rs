//! One history on a disk on which a call fails, or that is full.
//!
//! It goes on as long as the store does. Whatever fails says so with a type: *poisoned*, and then nothing
//! is written any more, reads go on, and what is in doubt is one accepted state; or not, and then nothing
//! has happened. At the end the faults are over, and what was acknowledged has to be there: after a power
//! cut, on the same machine, and after a power cut behind that.

use std::collections::BTreeMap;

use bytes::Bytes;
use revtree::storage::sim::{Call, FaultPlan, SimDisk};
use revtree::{Durability, Error};

use super::history::{Setup, end_process, known_by, makes_durable, replaces, state_of};
use super::ops::everything;
use crate::answer::Refusal;
use crate::apply::{Surroundings, apply};
use crate::model::{Subject, first_difference};
use crate::op::{Eyes, Op};
use crate::oracle::Oracle;
use crate::outcome::Outcome;
use crate::random::Random;
use crate::subject::Store;

mod afterwards;

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Nothing,
    Call(FaultPlan),
    /// So many bytes are its space.
    Full(u64),
}

impl Fault {
    /// Puts it on a disk.
    pub(super) fn begin(self, disk: &SimDisk) {
        match self {
            Fault::Nothing => {}
            Fault::Call(plan) => disk.fail(plan),
            Fault::Full(bytes) => disk.set_capacity(Some(bytes)),
        }
    }

    /// Nothing fails but for want of space: the store has to go on.
    fn is_want_of_space(self) -> bool {
        match self {
            Fault::Nothing => false,
            Fault::Call(plan) => plan.call == Call::Allocate && plan.errno == ENOSPC,
            Fault::Full(_) => true,
        }
    }

    /// A write or sync: behind it nobody knows what is on the disk.
    fn leaves_doubt(self) -> bool {
        let Fault::Call(plan) = self else {
            return false;
        };
        matches!(plan.call, Call::WriteAt | Call::SyncData | Call::SyncAll)
    }

    /// A call that reads need too.
    fn ends_reads(self) -> Option<FaultPlan> {
        match self {
            Fault::Call(plan) if matches!(plan.call, Call::ReadAt | Call::Show) => Some(plan),
            _ => None,
        }
    }
}

/// What a history did when nothing failed: whether it is worth its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The longest that the store's file was, in bytes.
    pub file_bytes: u64,
    /// The most checkpoints between an open and a close.
    pub checkpoints: u64,
    /// Times that the store was closed and opened.
    pub reopened: u64,
    /// Times that a snapshot took the content's place.
    pub restored: u64,
    /// Calls that the disk has written down.
    pub operations: u64,
}

impl Seen {
    fn see(&mut self, store: &Store) {
        let stats = store.db().stats();
        self.file_bytes = self.file_bytes.max(stats.file_bytes);
        self.checkpoints = self.checkpoints.max(stats.checkpoints);
    }
}

/// `ENOSPC` and `EIO`.
pub(super) const ENOSPC: i32 = 28;
pub(super) const EIO: i32 = 5;

/// One run of a history on a disk with a fault.
pub(super) struct Run<'d> {
    setup: Setup,
    disk: &'d SimDisk,
    fault: Fault,
    random: Random,
    oracle: Oracle,
    around: Surroundings,
    /// The first state of the content in place.
    content: usize,
    /// The newest state that has been acknowledged, and the newest that a power cut may not take.
    acknowledged: usize,
    durable: usize,
    /// Operations done.
    pub(super) done: usize,
    pub(super) seen: Seen,
    /// Calls of the harness that looks.
    looks: BTreeMap<Call, u64>,
}

impl Run<'_> {
    pub(super) fn new(seed: u64, setup: Setup, disk: &SimDisk, fault: Fault) -> Run<'_> {
        fault.begin(disk);
        Run {
            setup,
            disk,
            fault,
            random: Random::new(seed),
            oracle: Oracle::new().keep_states(),
            around: Surroundings::default(),
            content: 0,
            acknowledged: 0,
            durable: 0,
            done: 0,
            seen: Seen::default(),
            looks: BTreeMap::new(),
        }
    }

    fn newest(&self) -> usize {
        self.oracle.states().len() - 1
    }

    /// Opens, does all operations, closes; ends where the store ends.
    pub(super) fn history(&mut self, ops: &[Op]) -> Result<(), String> {
        let opened = self.setup.open(self.disk);
        let Some(mut store) = self.opened(opened)? else {
            return Ok(());
        };
        for op in ops {
            let next = if matches!(op, Op::Reopen) {
                self.reopen(store, op)?
            } else {
                self.change(store, op)?
            };
            let Some(next) = next else {
                return Ok(());
            };
            store = next;
            self.done += 1;
            if matches!(self.fault, Fault::Nothing) {
                self.look(|run| run.seen.see(&store));
            }
        }
        self.close(store)?;
        self.seen.operations = self.disk.operations();
        Ok(())
    }

    /// What an open gives; a failure must be a failure of the machine, not of the file.
    fn opened(&self, opened: revtree::Result<Store>) -> Result<Option<Store>, String> {
        match opened {
            Ok(store) => Ok(Some(store)),
            Err(Error::Io { .. } | Error::NoSpace { .. } | Error::Poisoned { .. }) => Ok(None),
            Err(error) => Err(format!("wrong: open says {error:?}")),
        }
    }

    fn close(&mut self, store: Store) -> Result<(), String> {
        match store.close() {
            Ok(()) => self.durable = self.newest(),
            Err(Error::Io { .. } | Error::NoSpace { .. } | Error::Poisoned { .. }) => {}
            Err(error) => return Err(format!("wrong: close says {error:?}")),
        }
        Ok(())
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
        self.look(|run| {
            if store.db().stats().poisoned {
                run.poisoned(store, op, &text)
            } else {
                run.unharmed(store, op, &text)
            }
        })
    }

    /// Whether it happened is not known. Nothing is written any more, and reads go on.
    fn poisoned(&mut self, mut store: Store, op: &Op, text: &str) -> Result<Option<Store>, String> {
        if self.fault.is_want_of_space() {
            return Err(format!("wrong: a full disk poisons: {text}"));
        }
        if !["CommitUnknown", "Poisoned", "Io {"]
            .iter()
            .any(|kind| text.contains(kind))
        {
            return Err(format!("wrong: an unexpected error: {text}"));
        }
        let least = self.acknowledged;
        let happened = apply(&mut self.oracle, op, &self.around);
        self.around.after(op, &happened);
        let key = Bytes::from_static(b"later");
        let later = store.put(&key, &key);
        if !format!("{later:?}").contains("Poisoned") {
            return Err(format!("wrong: after {text} a put gives {later:?}"));
        }
        let state = state_of(&mut store)?;
        if !self.oracle.states()[least..].contains(&state) {
            return Err(format!("lost: after {text} reads see {state:?}"));
        }
        self.views(&mut store, op)?;
        if self.random.once_in(2) {
            end_process(store, self.disk);
        } else {
            match store.close() {
                Err(Error::Poisoned { .. }) => {}
                other => return Err(format!("wrong: after {text} close says {other:?}")),
            }
        }
        Ok(None)
    }

    /// Nothing happened, and the store goes on.
    fn unharmed(&mut self, mut store: Store, op: &Op, text: &str) -> Result<Option<Store>, String> {
        if !["NoSpace", "StoreFull", "Io {"]
            .iter()
            .any(|kind| text.contains(kind))
        {
            return Err(format!("wrong: an unexpected error: {text}"));
        }
        let own_file = !matches!(op, Op::Snapshot(_) | Op::Restore(_));
        if self.fault.leaves_doubt() && own_file {
            return Err(format!("wrong: not poisoned after {text}"));
        }
        let state = state_of(&mut store)?;
        match op {
            Op::Snapshot(slot) => self.around.forget_snapshot(*slot),
            // Who restores what is there already is not told apart from who has not: then the old file may be in
            // place, and what was not durable in it still is not.
            Op::Restore(slot) if self.oracle.states().last() == Some(&state) => {
                self.around.forget_snapshot(*slot);
            }
            Op::Restore(slot) => {
                // Restoring may be done, and only the copy that the harness keeps has failed.
                let before = self.oracle.clone();
                let happened = apply(&mut self.oracle, op, &self.around);
                if self.oracle.states().last() == Some(&state) {
                    self.around.after(op, &happened);
                    self.acknowledge(op, &happened, &store);
                } else {
                    self.oracle = before;
                }
                self.around.forget_snapshot(*slot);
            }
            _ => {}
        }
        if self.oracle.states().last() != Some(&state) {
            return Err(format!("wrong: {text}, and yet {state:?}"));
        }
        self.views(&mut store, op)?;
        drop(store.lease_calls());
        Ok(Some(store))
    }

    /// The views held are exact, whatever has failed; all but the one that this operation was to open.
    fn views(&mut self, store: &mut Store, op: &Op) -> Result<(), String> {
        let slots: Vec<u8> = self.around.held().collect();
        for slot in slots {
            if matches!(op, Op::Hold(opening, _) if *opening == slot) {
                continue;
            }
            let read = Op::Read(Eyes::Held(slot), everything());
            let expected = apply(&mut self.oracle, &read, &self.around);
            let found = apply(store, &read, &self.around);
            if expected != found {
                return Err(format!(
                    "wrong: the view {slot} sees {found:?}, not {expected:?}"
                ));
            }
        }
        Ok(())
    }

    /// How many calls of this kind the history has made, without those of the harness that looks at it.
    pub(super) fn made(&self, call: Call) -> u64 {
        self.disk.count(call) - self.looks.get(&call).copied().unwrap_or(0)
    }

    /// Looks at the store: nothing fails meanwhile, and no call counts.
    fn look<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        let reads = [Call::ReadAt, Call::Show];
        let before = reads.map(|call| self.disk.count(call));
        let waiting = self.fault.ends_reads().map(|plan| FaultPlan {
            // 0 is a plan that is over.
            nth: match plan.nth.saturating_sub(self.made(plan.call)) {
                0 => u64::from(plan.sticky),
                left => left,
            },
            ..plan
        });
        if waiting.is_some() {
            self.disk.clear_faults();
        }
        let seen = look(self);
        for (call, before) in reads.into_iter().zip(before) {
            *self.looks.entry(call).or_default() += self.disk.count(call) - before;
        }
        if let Some(plan) = waiting.filter(|plan| plan.nth > 0) {
            self.disk.fail(plan);
        }
        seen
    }

    fn acknowledge(&mut self, op: &Op, expected: &[Outcome], store: &Store) {
        self.acknowledged = self.newest();
        if replaces(op, expected) {
            self.content = self.newest();
            self.seen.restored += 1;
        }
        if self.setup.durability == Durability::Sync || makes_durable(op, expected) {
            self.durable = self.acknowledged;
        }
        let states = &self.oracle.states()[self.content..];
        let known = self.content + known_by(states, store.db().durable_rev());
        self.durable = self.durable.max(known);
    }

    /// Closes and opens, either of which may fail.
    fn reopen(&mut self, store: Store, op: &Op) -> Result<Option<Store>, String> {
        let happened = apply(&mut self.oracle, op, &self.around);
        self.around.after(op, &happened);
        self.close(store)?;
        let opened = self.setup.open(self.disk);
        let Some(mut store) = self.opened(opened)? else {
            return Ok(None);
        };
        let found = self.look(|run| run.find(&mut store, run.same_boot()))?;
        // Opening makes durable what it shows.
        if found < self.newest() {
            end_process(store, self.disk);
            return Ok(None);
        }
        self.seen.reopened += 1;
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
