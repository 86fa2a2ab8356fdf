//! Crashes after every operation of a disk: each image is reopened and must be one accepted state.
//!
//! An image that is older than what was acknowledged is *lost*; one that is no accepted state, or that
//! cannot be opened or read, is *wrong*. Recovery is crashed again, three deep. [`world`] does the same
//! with *all* histories of a few transactions and *all* that a power cut may leave of them, [`threads()`] with
//! histories of several threads.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use revtree::storage::sim::{Choice, Cut, EXHAUSTIVE_SECTORS_MAX, Mask, SimDisk};

use crate::keys::Keys;
use crate::model::{RangeQuery, Reader, Subject};
use crate::random::Random;
use crate::state::State;

mod beside;
mod faults;
mod history;
mod old;
mod ops;
mod run;
mod smallest;
mod threads;
mod worlds;

use beside::Beside;

pub(crate) use faults::{DURABILITIES, one_call};
pub use faults::{FaultSummary, every_call, some_calls};
pub(crate) use history::batched;
pub use history::{History, Mark, STORE, Setup, end_process, state_of};
pub use ops::{cleaning, short, writes};
pub use run::Seen;
use smallest::Case;
pub use threads::threads;
pub use worlds::{WORLDS_MAX, world};

/// What the crashes of a campaign did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashSummary {
    /// Disks that were reopened.
    pub images: u64,
    /// The same by what made them, and how many of them were also opened in the other ways.
    pub kinds: BTreeMap<&'static str, u64>,
}

impl CrashSummary {
    fn count(&mut self, kind: &'static str) {
        *self.kinds.entry(kind).or_default() += 1;
    }
}

/// Which of the disks that a power cut may leave are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All where few sectors are pending; else corners, and some by chance.
    Some,
    /// All.
    Every,
}

/// Operations of one history: at least, and how many more at the most.
const HISTORY_OPS: (usize, usize) = (15, 45);
/// Crashes inside crashes.
const DEPTH_MAX: usize = 3;
/// After every so many operations, blocks come back as they were, and superblocks are lost.
const OLD_BLOCKS_IN: u64 = 12;
/// All that a reader sees.
const ALL: RangeQuery = RangeQuery {
    keys: Keys::All,
    at: None,
    limit: None,
    reverse: false,
    keys_only: false,
};
/// Up to so many sectors, all subsets are tried at every operation.
const SECTORS_ALL: usize = 3;

/// Crashes the history of a seed after each operation of its disk, and reopens what that leaves.
///
/// # Errors
///
/// The first image that is lost or wrong, and the smallest history found with one like it.
pub fn crash(seed: u64) -> Result<CrashSummary, String> {
    let mut random = Random::new(seed);
    let length = HISTORY_OPS.0 + random.index(HISTORY_OPS.1);
    let (setup, ops) = History::drawn(seed, length);
    Case {
        seed,
        setup,
        ops,
        random,
        reach: Reach::Some,
        run: History::of,
    }
    .crash()
}

/// An image that is lost or wrong.
#[derive(Debug)]
struct Failure {
    error: String,
    /// After which operation of the disk.
    operation: u64,
    how: How,
}

/// What made an image.
#[derive(Clone, Debug)]
enum How {
    Cut(Cut),
    Killed,
    OldBlocks,
}

struct Crashes<'h> {
    history: &'h History,
    random: Random,
    reach: Reach,
    summary: CrashSummary,
}

/// What a reopened disk may be.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// The oldest state, and the newest.
    now: (usize, usize),
    /// The same after a power cut inside the recovery.
    cut: (usize, usize),
}

impl Crashes<'_> {
    fn new(history: &History, random: Random, reach: Reach) -> Crashes<'_> {
        Crashes {
            history,
            random,
            reach,
            summary: CrashSummary::default(),
        }
    }

    fn all(&mut self) -> Result<(), Failure> {
        for operation in 0..=self.history.operations() {
            let failure = |how: How| {
                move |error| Failure {
                    error,
                    operation,
                    how,
                }
            };
            let disk = self.history.disk.clone();
            for cut in self.cuts(&disk, operation) {
                self.summary.count("after a power cut");
                self.cut(operation, &mut *cut.choice())
                    .map_err(failure(How::Cut(cut)))?;
            }
            let cut = self.history.after_power_cut(operation);
            let now = self.history.after_kill(operation);
            let killed = disk.kill(operation);
            self.summary.count("after a kill");
            self.guarded(|crashes| crashes.check(&killed, Allowed { now, cut }, 0))
                .map_err(failure(How::Killed))?;
            if self.random.once_in(OLD_BLOCKS_IN) {
                self.guarded(|crashes| crashes.old_blocks(&disk, operation))
                    .map_err(failure(How::OldBlocks))?;
            }
        }
        Ok(())
    }

    /// Checks what this power cut leaves.
    fn cut(&mut self, operation: u64, choice: &mut dyn Choice) -> Result<(), String> {
        let cut = self.history.after_power_cut(operation);
        let image = self.history.disk.image(operation, choice);
        self.guarded(|crashes| crashes.check(&image, Allowed { now: cut, cut }, 0))
    }

    /// Some of the power cuts after this operation.
    fn cuts(&mut self, disk: &SimDisk, operation: u64) -> Vec<Cut> {
        let sectors = disk.pending(operation);
        let all = sectors <= SECTORS_ALL || sectors <= 8 && self.random.once_in(40);
        let every = self.reach == Reach::Every && sectors <= EXHAUSTIVE_SECTORS_MAX;
        if all || every {
            return disk.cuts(operation, 3).collect();
        }
        let mut cuts = Vec::new();
        let mut masks = vec![vec![false; sectors], vec![true; sectors]];
        for _ in 0..3 {
            let odd = self.random.index(sectors);
            masks.push((0..sectors).map(|n| n != odd).collect());
            masks.push((0..sectors).map(|n| n <= odd).collect());
            masks.push((0..sectors).map(|n| n > odd).collect());
            masks.push((0..sectors).map(|_| self.random.once_in(2)).collect());
        }
        for new in masks {
            let (lengths, names) = (self.random.once_in(2), self.random.once_in(2));
            cuts.push(Cut::Subset(Mask::new(new, lengths, names)));
        }
        cuts.extend((0..6).map(|_| Cut::Sampled(self.random.bits())));
        cuts
    }

    /// Checks an image; a panic is an error like others.
    fn guarded(
        &mut self,
        check: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let check = || check(self);
        catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err("wrong: panicked".to_owned()))
    }

    /// Reopens a disk, compares, and goes on with it.
    fn check(&mut self, disk: &SimDisk, allowed: Allowed, depth: usize) -> Result<(), String> {
        self.summary.images += 1;
        let before = disk.operations();
        let setup = self.history.setup;
        let wrong = |error: &dyn std::fmt::Display| format!("wrong: {error}");
        let look = self.random.once_in(6);
        let beside = look.then(|| Beside::look(self.history, disk)).transpose()?;
        let mut store = setup.open(disk).map_err(|error| wrong(&error))?;
        let found = self.find(&mut store, allowed.now)?;
        if let Some(beside) = &beside {
            self.summary.count("opened in other ways, too");
            beside.compare(self.history, disk, &store, found)?;
        }
        let opened = disk.operations();
        if depth < DEPTH_MAX && self.random.once_in(12) {
            self.nested(disk, before, opened, allowed, found, depth)?;
        }
        if self.random.once_in(2) {
            // It goes on: a put is there after a clean close.
            let (key, value) = (Bytes::from_static(b"after"), Bytes::from_static(b"crash"));
            let held = store.range(Reader::Now, &ALL);
            store
                .hold(0, None)
                .map_err(|error| wrong(&format!("{error:?}")))?;
            let rev = store
                .put(&key, &value)
                .map_err(|error| wrong(&format!("{error:?}")))?;
            if rev != self.history.states[found].current.next() {
                return Err(format!("wrong: the next revision is {rev}"));
            }
            let expected = state_of(&mut store)?;
            // Nor does what is there depend on the space that it takes: looked at now and then, since it costs as much
            // as all the rest.
            if self.random.once_in(6) {
                store
                    .reclaim()
                    .map_err(|error| wrong(&format!("{error:?}")))?;
                let report = store.db().check().map_err(|error| wrong(&error))?;
                if let Some(damage) = report.damage.first() {
                    return Err(format!("wrong: damaged after reclaiming: {damage}"));
                }
            }
            // What a view sees of the recovered state stays as it was.
            if store.range(Reader::Held(0), &ALL) != held {
                return Err("wrong: a view sees what was put after it".to_owned());
            }
            store.close().map_err(|error| wrong(&error))?;
            let mut store = setup.open(disk).map_err(|error| wrong(&error))?;
            if !store.db().recovery().clean {
                return Err("wrong: not clean after a close".to_owned());
            }
            if state_of(&mut store)? != expected {
                return Err("wrong: another state after a clean close".to_owned());
            }
            end_process(store, disk);
        } else {
            end_process(store, disk);
        }
        Ok(())
    }

    /// Crashes the recovery that has just been done, at some of its operations.
    fn nested(
        &mut self,
        disk: &SimDisk,
        before: u64,
        opened: u64,
        allowed: Allowed,
        found: usize,
        depth: usize,
    ) -> Result<(), String> {
        for _ in 0..4 {
            let operation = before + self.random.below(opened - before + 1);
            // Recovery is complete at its end: what it showed stays.
            let cut = if operation == opened {
                (found, found)
            } else {
                allowed.cut
            };
            let now = if operation == opened {
                (found, found)
            } else {
                allowed.now
            };
            let cuts = self.cuts(disk, operation);
            let chosen = self.random.index(cuts.len());
            if let Some(which) = cuts.get(chosen) {
                let image = disk.image(operation, &mut *which.choice());
                self.summary.count("after a power cut in a recovery");
                self.check(&image, Allowed { now: cut, cut }, depth + 1)
                    .map_err(|error| {
                        let calls = recovery(disk, before..=opened);
                        format!("{error}\n  in recovery, after its operation {operation} of {before}..{opened}: {which}{calls}")
                    })?;
            }
            self.summary.count("after a kill in a recovery");
            self.check(&disk.kill(operation), Allowed { now, cut }, depth + 1)
                .map_err(|error| {
                    let calls = recovery(disk, before..=opened);
                    format!("{error}\n  in recovery, killed after its operation {operation} of {before}..{opened}{calls}")
                })?;
        }
        Ok(())
    }

    /// Which accepted state the store shows.
    fn find(
        &self,
        store: &mut crate::subject::Store,
        (least, most): (usize, usize),
    ) -> Result<usize, String> {
        let state = state_of(store).map_err(|error| format!("wrong: {error}"))?;
        let states = &self.history.states;
        if let Some(found) = (least..=most).rev().find(|n| states[*n] == state) {
            return Ok(found);
        }
        if let Some(found) = states.iter().position(|known| *known == state) {
            return Err(format!(
                "lost: state {found} (revision {}) is there, {least} to {most} are allowed",
                state.current
            ));
        }
        Err(self.no_accepted_state(&state))
    }

    /// What is said of a state that no commit has left.
    fn no_accepted_state(&self, state: &State) -> String {
        let mut states = self.history.states.iter().rev();
        let near = states.find(|known| known.current == state.current);
        format!(
            "wrong: no accepted state: {state:?}\n  the accepted one of that revision: {near:?}"
        )
    }
}

/// What a recovery asked of its disk, for a report.
fn recovery(disk: &SimDisk, operations: RangeInclusive<u64>) -> String {
    let lines = operations.filter_map(|n| Some(format!("\n    {n}: {}", disk.describe(n)?)));
    lines.collect()
}
