//! Power cuts in histories of several threads: what any of them was told is there afterwards.
//!
//! Threads write and read until they have done, or until the disk fails under them. The disk has written
//! down all that was asked of it, and each call of a thread knows how much that was before it began and when
//! it had its answer. So the power can be cut afterwards, at any operation, as if it had been then: a call
//! whose answer was there by that operation has been answered, one that had not begun has left nothing, and
//! of all others either is right. What is recovered must be the writes up to one revision, exactly:
//!
//! * no less than what a durable answer said, and, under `Sync`, than what any read had shown;
//! * no more than what had been asked for;
//! * with a compact revision that somebody asked for, and not before one that was answered or seen.
//!
//! The history itself is checked first, as those without a crash are. The seed does not bring back which
//! thread came first: what is needed to look at a failure is written into files.

use std::path::{Path, PathBuf};

use revtree::storage::sim::{Call as DiskCall, FaultPlan, Mask, Sampled, SimDisk};
use revtree::{Db, Durability};

use super::history::{STORE, Setup, end_process};
use crate::campaign::Tally;
use crate::histories::check::{Checked, check, shows, told};
use crate::histories::record::{Answer, Call, Content, Entry, text};
use crate::histories::replay::{FIRST, Replay};
use crate::histories::run::{self, Plan, plain, run};
use crate::histories::{ORDER, disk, open};
use crate::random::Random;

/// The moments of a history at which the power is cut.
const MOMENTS: usize = 12;
/// Calls of all threads of a history.
const CALLS: (usize, usize) = (60, 200);

/// Runs a history of a seed and cuts the power at some of its moments.
///
/// # Errors
///
/// What is wrong with the history, or what was lost, and the files that show it.
pub fn threads(seed: u64) -> Result<Tally, String> {
    let mut random = Random::new(seed ^ 0x7_4EAD5);
    let history = History::run(seed, &mut random)?;
    let mut tally = Tally {
        operations: history.entries.len() as u64,
        kinds: [("calls began beside another one", history.overlapping)].into(),
        ..Tally::default()
    };
    if history.has_failed {
        tally.kinds.insert("histories whose disk failed", 1);
    }
    let mut moments: Vec<u64> = (0..MOMENTS)
        .map(|_| history.first + random.below(history.last - history.first + 1))
        .collect();
    // In order, the disk is replayed once.
    moments.sort_unstable();
    for moment in moments {
        for cut in Cut::draw(history.disk.pending(moment), &mut random) {
            tally.units += 1;
            *tally.kinds.entry(cut.kind()).or_default() += 1;
            let image = cut.of(&history.disk, moment);
            history
                .recover(&image, moment, &cut, &mut random)
                .map_err(|error| {
                    let files = history.keep(seed, moment, &cut);
                    let setup = history.setup;
                    format!(
                        "{error}\n  {setup:?}, {cut:?} after operation {moment}\n  {files}\n{ORDER}"
                    )
                })?;
        }
    }
    Ok(tally)
}

/// What happens to the disk at a moment.
#[derive(Clone, Debug)]
enum Cut {
    /// The process ends; all that it wrote is there.
    Kill,
    /// These sectors arrive.
    Mask(Mask),
    /// Chance, with garbage and torn sectors.
    Sampled(u64),
}

impl Cut {
    /// Some of all that may happen with so many sectors on their way.
    fn draw(sectors: usize, random: &mut Random) -> Vec<Cut> {
        let mut masks = vec![vec![false; sectors]];
        if sectors > 0 {
            let odd = random.index(sectors);
            masks.push(vec![true; sectors]);
            masks.push((0..sectors).map(|n| n != odd).collect());
            masks.push((0..sectors).map(|n| n <= odd).collect());
            masks.push((0..sectors).map(|_| random.once_in(2)).collect());
        }
        let mut cuts = vec![Cut::Kill];
        for new in masks {
            let (lengths, names) = (random.once_in(2), random.once_in(2));
            cuts.push(Cut::Mask(Mask::new(new, lengths, names)));
        }
        cuts.extend((0..2).map(|_| Cut::Sampled(random.bits())));
        cuts
    }

    fn kind(&self) -> &'static str {
        match self {
            Cut::Kill => "after a kill",
            _ => "after a power cut",
        }
    }

    fn of(&self, disk: &SimDisk, moment: u64) -> SimDisk {
        match self {
            Cut::Kill => disk.kill(moment),
            Cut::Mask(mask) => disk.image(moment, &mut mask.clone()),
            Cut::Sampled(seed) => disk.image(moment, &mut Sampled::new(*seed)),
        }
    }
}

/// A history that has been run and is right.
struct History {
    setup: Setup,
    disk: SimDisk,
    /// Operations of the disk when the threads began, and when they had ended.
    first: u64,
    last: u64,
    has_failed: bool,
    entries: Vec<Entry>,
    replay: Replay,
    overlapping: u64,
}

/// What a recovered store must be.
#[derive(Debug)]
struct Bounds<'h> {
    /// The lowest revision, and who was told of it.
    least: (u64, Option<&'h Entry>),
    /// The highest.
    most: u64,
    /// The lowest compact revision, and who was told of it; 0: none.
    compacted: (u64, Option<&'h Entry>),
}

impl History {
    fn run(seed: u64, random: &mut Random) -> Result<History, String> {
        let mut setup = Setup::draw(random);
        if random.once_in(6) {
            // The timer syncs, too.
            setup.durability = Durability::Batched {
                changes: 1000,
                interval: std::time::Duration::from_millis(1),
            };
        }
        let threads = 2 + random.index(5);
        let writers = (1 + random.index(threads)).max(2);
        let calls = CALLS.0 + random.index(CALLS.1 - CALLS.0);
        let plan = Plan {
            writers,
            readers: threads - writers,
            calls: calls / threads,
            keys: 2 + random.index(30),
            value_bytes_max: *random.pick(&[30, 300, 3000]),
        };
        let disk = disk(seed);
        let db = open(setup, &disk)
            .map_err(|error| format!("wrong: the store cannot be made: {error}"))?;
        let first = disk.operations();
        let fails = random.once_in(3);
        if fails {
            disk.fail(fault(random));
        }
        let operations = || disk.operations();
        let entries = run(&db, setup.durability, plan, seed, &operations);
        let last = disk.operations();
        let has_failed = fails && db.stats().poisoned;
        end_process(db, &disk);
        if let Some(failed) = entries.iter().find(|entry| entry.failed() && !has_failed) {
            return Err(format!("wrong: nothing was to fail: {failed:?}"));
        }
        let checked = check(&entries);
        let Checked {
            replay,
            overlapping,
        } = checked
            .map_err(|wrong| format!("wrong: {wrong}\n{setup:?}\n{}\n{ORDER}", text(&entries)))?;
        Ok(History {
            setup,
            disk,
            first,
            last,
            has_failed,
            entries,
            replay,
            overlapping,
        })
    }

    /// What the threads had been told, and what they had asked, at this operation of the disk.
    fn bounds(&self, moment: u64, cut: &Cut) -> Bounds<'_> {
        let killed = matches!(cut, Cut::Kill);
        let durability = self.setup.durability;
        // Whether all that was visible stays.
        let visible_stays =
            durability == Durability::Sync || killed && durability == Durability::Flushed;
        let mut bounds = Bounds {
            least: (FIRST, None),
            most: FIRST,
            compacted: (0, None),
        };
        for entry in &self.entries {
            if let Some(wrote) = entry.changed()
                && entry.disk_before <= moment
            {
                bounds.most = bounds.most.max(wrote.rev);
            }
            if entry.disk_after > moment {
                continue;
            }
            let stays = match &entry.answer {
                Answer::Wrote(wrote) if wrote.sure && (wrote.durable || visible_stays) => wrote.rev,
                Answer::Done(rev) => *rev,
                Answer::One(Some(kv)) if visible_stays => kv.modified,
                Answer::Kvs(rev, _) | Answer::Events(rev, _) | Answer::Future(rev)
                    if visible_stays =>
                {
                    *rev
                }
                _ => FIRST,
            };
            if stays > bounds.least.0 {
                bounds.least = (stays, Some(entry));
            }
            let compacted = match (&entry.call, &entry.answer) {
                (Call::Compact(rev), Answer::Done(_)) => *rev,
                (_, Answer::Compacted(rev)) => *rev,
                _ => 0,
            };
            if compacted > bounds.compacted.0 {
                bounds.compacted = (compacted, Some(entry));
            }
        }
        bounds
    }

    /// Opens what a cut has left, and compares.
    fn recover(
        &self,
        image: &SimDisk,
        moment: u64,
        cut: &Cut,
        random: &mut Random,
    ) -> Result<(), String> {
        let db = open(self.setup, image).map_err(|error| format!("wrong: {error}"))?;
        let bounds = self.bounds(moment, cut);
        let rev = db.rev().get();
        if rev < bounds.least.0 {
            return Err(format!("lost: {rev} is there, and not {:?}", bounds.least));
        }
        if rev > bounds.most {
            return Err(format!("wrong: {rev} is there, {} was asked", bounds.most));
        }
        let compacted = db.compact_rev().map_or(0, revtree::Revision::get);
        if compacted < bounds.compacted.0 {
            let told = bounds.compacted;
            return Err(format!("lost: compacted at {compacted}, and not {told:?}"));
        }
        let asked = |entry: &Entry| {
            entry.disk_before <= moment
                && entry.call == Call::Compact(compacted)
                && matches!(entry.answer, Answer::Done(_) | Answer::Unknown)
        };
        if compacted > 0 && !self.entries.iter().any(asked) {
            return Err(format!("wrong: nobody compacted at {compacted}"));
        }
        self.compare(&db, rev, compacted)?;
        if random.once_in(16) {
            let report = db
                .check()
                .map_err(|error| format!("wrong: no check: {error}"))?;
            if !report.is_clean() {
                return Err(format!("wrong: the check finds {:?}", report.damage));
            }
        }
        if random.once_in(8) {
            // What an open has shown is durable.
            let again = image.image(image.operations(), &mut Sampled::new(random.bits()));
            let db = open(self.setup, &again).map_err(|error| format!("wrong: again: {error}"))?;
            if db.rev().get() != rev {
                return Err(format!("lost: {} after {rev} had been shown", db.rev()));
            }
            self.compare(&db, rev, compacted)?;
            end_process(db, &again);
        }
        if random.once_in(4) {
            let next = db.put("after", "crash");
            let next = next.map_err(|error| format!("wrong: no put: {error}"))?;
            if next.get() != rev + 1 {
                return Err(format!("wrong: {next} comes after {rev}"));
            }
        }
        end_process(db, image);
        Ok(())
    }

    /// All keys at the revision, and all changes up to it, are those of the history.
    fn compare(&self, db: &Db, rev: u64, compacted: u64) -> Result<(), String> {
        let unread = |error| format!("wrong: cannot be read: {error}");
        let view = db.read().map_err(unread)?;
        let all = view.range(..).collect().map_err(unread)?;
        let kvs: Vec<_> = all.kvs.iter().map(plain).collect();
        let wrong = |wrong| format!("wrong: recovered at {rev}: {wrong}");
        shows(&self.replay, &"the recovered store", rev, ("", "~"), &kvs).map_err(wrong)?;
        let from = compacted.max(FIRST + 1);
        if from > rev {
            return Ok(());
        }
        match run::told(&view, from).map_err(unread)? {
            Answer::Events(_, events) => told(
                self.replay.events(from, rev),
                &events,
                &"the recovered store",
            )
            .map_err(wrong),
            other => Err(format!("wrong: {other:?}")),
        }
    }

    /// Writes what shows a failure into files: the store before it was opened, what the threads did, and what
    /// the disk did.
    fn keep(&self, seed: u64, moment: u64, cut: &Cut) -> String {
        let folder = folder();
        let file = |end: &str| folder.join(format!("crash-threads-{seed}.{end}"));
        let image = cut.of(&self.disk, moment);
        let mut texts = format!("{:?}, {cut:?} after operation {moment}\n", self.setup);
        texts += &text(&self.entries);
        for operation in 1..=self.last {
            if let Some(line) = self.disk.describe(operation) {
                texts += &format!("  disk {operation}: {line}\n");
            }
        }
        let newest: Option<&Content> = self.replay.at(self.replay.newest());
        texts += &format!("  at the end: {newest:?}\n");
        let bytes = image.bytes(Path::new(STORE)).unwrap_or_default();
        let kept = std::fs::write(file("store"), bytes)
            .and_then(|()| std::fs::write(file("history"), texts));
        match kept {
            Ok(()) => format!("kept in {} and .history", file("store").display()),
            Err(error) => format!("nothing could be kept: {error}"),
        }
    }
}

/// Where builds are: two folders above this program.
fn folder() -> PathBuf {
    let ours = std::env::current_exe().ok();
    let target = ours.as_deref().and_then(|path| path.ancestors().nth(2));
    target.map_or_else(std::env::temp_dir, Path::to_owned)
}

/// A write or a sync that fails under the threads.
fn fault(random: &mut Random) -> FaultPlan {
    const EIO: i32 = 5;
    let call = *random.pick(&[DiskCall::SyncData, DiskCall::WriteAt]);
    let nth = 1 + random.below(40);
    let plan = if random.once_in(2) {
        FaultPlan::once(call, nth, EIO)
    } else {
        FaultPlan::sticky(call, nth, EIO)
    };
    if random.once_in(2) {
        plan.short()
    } else {
        plan
    }
}
