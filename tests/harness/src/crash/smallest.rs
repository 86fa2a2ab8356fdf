//! The smallest history that fails as a crashed one did: of it fewer operations, with less in them, opened in
//! the plainest way, and of the pending writes as few on disk as it takes.
//!
//! An image fails *as* another one when what is said of it begins with the same words. Each candidate is crashed
//! everywhere, so a failure that needs luck may stay larger than it has to be.

use std::cell::{Cell, RefCell};

use revtree::storage::sim::{Choice, PendingSector, Survival};
use revtree::{Durability, ReadMode};

use super::history::{History, Setup};
use super::{CrashSummary, Crashes, Failure, How, Reach};
use crate::op::Op;
use crate::quiet::quietly;
use crate::random::Random;
use crate::shrink::shrink;
use crate::simpler::simpler;

/// How often a history is run again, and how many images that may be in all: a minute or so.
const RUNS_MAX: usize = 2000;
const IMAGES_MAX: u64 = 200_000;
/// Chances with which an image is looked at, until it fails again.
const CHANCES: u64 = 8;

/// A history that is to be crashed.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    pub(super) ops: Vec<Op>,
    pub(super) random: Random,
    pub(super) reach: Reach,
    /// Runs it on a disk: [`History::of`].
    pub(super) run: fn(u64, Setup, Vec<Op>) -> Result<History, String>,
}

/// How a case fails.
struct Failed {
    /// `None`: before any crash.
    crash: Option<Failure>,
    error: String,
    /// How many operations of the history matter.
    ops: usize,
    described: String,
}

impl Case {
    /// Runs it, and crashes it everywhere.
    pub(super) fn crash(&self) -> Result<CrashSummary, String> {
        self.try_crash()
            .0
            .map_err(|failed| format!("{}\n{}", failed.says(), quietly(|| self.smallest(&failed))))
    }

    /// The same, without making anything smaller; and how many images that were.
    fn try_crash(&self) -> (Result<CrashSummary, Failed>, u64) {
        let history = match (self.run)(self.seed, self.setup, self.ops.clone()) {
            Ok(history) => history,
            Err(error) => {
                let failed = Failed {
                    crash: None,
                    error,
                    ops: self.ops.len(),
                    described: String::new(),
                };
                return (Err(failed), 0);
            }
        };
        let mut crashes = Crashes::new(&history, self.random.clone(), self.reach);
        let outcome = crashes.all().map_err(|failure| Failed {
            error: failure.error.clone(),
            ops: history.operations_begun(failure.operation),
            described: history.describe(failure.operation),
            crash: Some(failure),
        });
        let images = crashes.summary.images;
        (outcome.map(|()| crashes.summary), images)
    }

    /// Makes the history smaller, and says what is left of it.
    fn smallest(&self, failed: &Failed) -> String {
        let words = first_words(&failed.error);
        let images = Cell::new(0);
        let last = RefCell::new(None);
        let fails = |case: &Case| {
            if images.get() >= IMAGES_MAX {
                return None;
            }
            let (outcome, tried) = case.try_crash();
            images.set(images.get() + tried);
            let found = outcome
                .err()
                .filter(|found| first_words(&found.error) == words)?;
            let ops = found.ops;
            *last.borrow_mut() = Some(found);
            Some(ops)
        };
        let mut best = self.clone();
        best.ops.truncate(failed.ops);
        for setup in plainer(best.setup) {
            let plain = Case {
                setup,
                ..best.clone()
            };
            if let Some(ops) = fails(&plain) {
                best = plain;
                best.ops.truncate(ops);
            }
        }
        let shrunk = shrink(&best.ops, RUNS_MAX, simpler, |ops| {
            let ops = ops.to_vec();
            fails(&Case {
                ops,
                ..best.clone()
            })
        });
        best.ops = shrunk.items;
        let setup = best.setup;
        let mut text = format!(
            "the smallest history found that fails so, after {} runs and {} images:\n    {setup:?}\n",
            shrunk.runs,
            images.get()
        );
        for (number, op) in best.ops.iter().enumerate() {
            text += &format!("    {number}: {op:?}\n");
        }
        // As it is, if nothing smaller fails.
        let found = last.into_inner();
        let found = found.as_ref().unwrap_or(failed);
        text += &format!("  which ends so: {}", found.error);
        if let Some(crash) = &found.crash {
            text += &format!("\n  after operation {} of the disk, ", crash.operation);
            text += &match &crash.how {
                How::Killed => "by a kill".to_owned(),
                How::OldBlocks => "with old blocks".to_owned(),
                How::Cut(cut) => best.fewest(crash.operation, &mut *cut.choice(), words),
            };
            for line in found
                .described
                .lines()
                .filter(|line| line.contains("disk "))
            {
                text += &format!("\n{line}");
            }
        }
        text
    }

    /// What has to be on disk after the power cut, for the same to be said of it.
    fn fewest(&self, operation: u64, choice: &mut dyn Choice, words: &str) -> String {
        let Ok(history) = (self.run)(self.seed, self.setup, self.ops.clone()) else {
            return "by a power cut".to_owned();
        };
        let mut all = Recorded {
            choice,
            parts: Vec::new(),
            asked: 0,
        };
        drop(history.disk.image(operation, &mut all));
        let all = all.parts;
        let fails = |parts: &[Part]| {
            let fails = |chance| {
                let mut crashes = Crashes::new(&history, Random::new(chance), self.reach);
                let mut these = These { parts, asked: 0 };
                let error = crashes.cut(operation, &mut these).err();
                error.is_some_and(|error| first_words(&error) == words)
            };
            (0..CHANCES).any(fails).then_some(parts.len())
        };
        if fails(&all).is_none() {
            return format!(
                "by a power cut, with some luck, which leaves {}",
                list(&all)
            );
        }
        let shrunk = shrink(&all, RUNS_MAX, Part::simpler, fails);
        format!("by a power cut which leaves {}", list(&shrunk.items))
    }
}

impl Failed {
    /// All that is known of it.
    fn says(&self) -> String {
        let Some(crash) = &self.crash else {
            return self.error.clone();
        };
        let how = match &crash.how {
            How::Cut(cut) => cut.to_string(),
            How::Killed => "killed".to_owned(),
            How::OldBlocks => "old blocks".to_owned(),
        };
        format!(
            "{}\n  after operation {} of the disk: {how}\n  {}",
            self.error, crash.operation, self.described
        )
    }
}

/// The first words of what is said of a failure, before any number or value.
pub(super) fn first_words(error: &str) -> &str {
    let line = error.lines().next().unwrap_or_default();
    let end = line.find(|c: char| c.is_ascii_digit() || "{[(\"".contains(c));
    line[..end.unwrap_or(line.len())].trim_end()
}

/// Plainer ways to open the store: each changes one thing.
pub(super) fn plainer(setup: Setup) -> Vec<Setup> {
    let mut plainer = Vec::new();
    if setup.read_mode != ReadMode::Map {
        plainer.push(setup.reading_by(ReadMode::Map));
    }
    if setup.durability != Durability::Sync {
        plainer.push(Setup {
            durability: Durability::Sync,
            ..setup
        });
    }
    plainer
}

/// A pending change that has reached the disk: the one that was asked for as the `place`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    place: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Sector {
        file: u64,
        sector: u64,
        survival: Survival,
    },
    /// The newest length but so many.
    Length {
        file: u64,
        of: usize,
        nth: usize,
    },
    Names {
        of: usize,
        first: usize,
    },
}

impl Part {
    /// Whole sectors for torn ones, garbage and older writes.
    fn simpler(&self) -> Vec<Part> {
        let What::Sector {
            file,
            sector,
            survival,
        } = self.what
        else {
            return Vec::new();
        };
        if survival == Survival::New {
            return Vec::new();
        }
        let survival = Survival::New;
        vec![Part {
            what: What::Sector {
                file,
                sector,
                survival,
            },
            ..*self
        }]
    }
}

/// Says what has reached the disk.
fn list(parts: &[Part]) -> String {
    if parts.is_empty() {
        return "nothing that no sync covers".to_owned();
    }
    let part = |part: &Part| match part.what {
        What::Sector {
            file,
            sector,
            survival,
        } => {
            let at = sector * 512;
            match survival {
                Survival::New => format!("the 512 bytes at {at} of file {file}"),
                other => format!("the 512 bytes at {at} of file {file} ({other:?})"),
            }
        }
        What::Length { file, of, nth } => format!("length {nth} of {of} of file {file}"),
        What::Names { of, first } => format!("{first} of {of} changes of names"),
    };
    let parts: Vec<String> = parts.iter().map(part).collect();
    format!("of what no sync covers {}", parts.join(", "))
}

/// A choice that notes what it has kept.
struct Recorded<'c> {
    choice: &'c mut dyn Choice,
    parts: Vec<Part>,
    asked: usize,
}

impl Recorded<'_> {
    fn note(&mut self, kept: Option<What>) {
        let place = self.asked;
        self.asked += 1;
        self.parts.extend(kept.map(|what| Part { place, what }));
    }
}

impl Choice for Recorded<'_> {
    fn sector(&mut self, pending: &PendingSector) -> Survival {
        let survival = self.choice.sector(pending);
        let (file, sector) = (pending.file, pending.sector);
        self.note((survival != Survival::Old).then_some(What::Sector {
            file,
            sector,
            survival,
        }));
        survival
    }

    fn length(&mut self, file: u64, of: usize) -> usize {
        let nth = self.choice.length(file, of);
        self.note((nth > 0).then_some(What::Length { file, of, nth }));
        nth
    }

    fn names(&mut self, of: usize) -> usize {
        let first = self.choice.names(of);
        self.note((first > 0).then_some(What::Names { of, first }));
        first
    }
}

/// The choice of these parts and of nothing else.
struct These<'p> {
    parts: &'p [Part],
    asked: usize,
}

impl These<'_> {
    fn next(&mut self) -> Option<What> {
        let place = self.asked;
        self.asked += 1;
        let found = self.parts.iter().find(|part| part.place == place);
        found.map(|part| part.what)
    }
}

impl Choice for These<'_> {
    fn sector(&mut self, _: &PendingSector) -> Survival {
        match self.next() {
            Some(What::Sector { survival, .. }) => survival,
            _ => Survival::Old,
        }
    }

    fn length(&mut self, _: u64, _: usize) -> usize {
        match self.next() {
            Some(What::Length { nth, .. }) => nth,
            _ => 0,
        }
    }

    fn names(&mut self, _: usize) -> usize {
        match self.next() {
            Some(What::Names { first, .. }) => first,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use revtree::Durability;

    use super::super::history::{History, Setup};
    use super::super::{HISTORY_OPS, Reach};
    use super::{Case, first_words};
    use crate::op::Op;
    use crate::random::Random;

    /// A store that syncs nothing before it acknowledges, and a checker that believes it does.
    fn not_synced(seed: u64, setup: Setup, ops: Vec<Op>) -> Result<History, String> {
        let lazy = Setup {
            durability: Durability::Flushed,
            ..setup
        };
        History::of(seed, lazy, ops).map(History::promising_sync)
    }

    /// The lines of the smallest history in a report.
    fn smallest(report: &str) -> Vec<&str> {
        let lines = report
            .lines()
            .skip_while(|line| !line.starts_with("the smallest"));
        let shown = lines.skip(2).take_while(|line| line.starts_with("    "));
        shown.collect()
    }

    /// A commit that is lost in a long history is lost in one of an operation or two, and the report says what was
    /// on disk. The same seed finds the same again.
    #[test]
    fn a_lost_commit_shrinks_to_its_put() {
        let mut least = usize::MAX;
        for seed in 0..2 {
            let (setup, ops) = History::drawn(seed, HISTORY_OPS.0 + HISTORY_OPS.1);
            let case = Case {
                seed,
                setup,
                ops,
                random: Random::new(seed),
                reach: Reach::Some,
                run: not_synced,
            };
            let report = case.crash().unwrap_err();
            assert!(report.starts_with("lost: "), "{report}");
            let shown = smallest(&report);
            assert!((1..=3).contains(&shown.len()), "{report}");
            least = least.min(shown.len());
            assert!(report.contains("which ends so: lost: "), "{report}");
            assert!(report.contains("by a power cut which leaves "), "{report}");
            if seed == 0 {
                assert_eq!(case.crash().unwrap_err(), report);
            }
        }
        assert_eq!(least, 1);
    }

    /// Failures are told apart by their words, not by their numbers.
    #[test]
    fn failures_alike() {
        let lost = "lost: state 3 (revision 9) is there, 4 to 5 are allowed\n  more";
        assert_eq!(first_words(lost), "lost: state");
        assert_eq!(first_words("wrong: panicked"), "wrong: panicked");
        assert_eq!(first_words(""), "");
    }
}
