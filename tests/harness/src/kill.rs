//! Processes that end in the middle of their writing, again and again on one store in real files.
//!
//! The process is this program again. Five campaigns end it: `kill` at a random moment by its parent, in
//! the n-th call of a kind through the storage seam, or at a system call by a tracer, if there is one;
//! `power` at such a moment too, with the power of the filesystem under it; `inject` lets a system call fail
//! or end it, by the tracer, and `calls` each one of a short life in turn; `memory` lets an allocation fail. Then the
//! parent opens the store for reading, then it or a copy for writing, and it must be the model of the
//! log at one entry: not before the last one told, with nothing invented. Where only the copy was
//! repaired, the next process recovers the store, and may be killed while it does.
//!
//! What a kill does not show is durability: the page cache outlives the process. That is for `power`, and
//! for [`crash`](mod@crate::crash).

use std::path::{Path, PathBuf};
use std::time::Duration;

use revtree::{Error, Options, ReadMode};

use crate::campaign::Tally;
use crate::random::Random;
use crate::subject::Store;

mod check;
mod child;
mod disk;
mod each;
mod entry;
mod medium;
mod plan;
mod process;
mod shutdown;
mod starve;

pub use each::{CALL_PARTS_MAX, calls};
pub use medium::{FileSystem, power_can_be_cut, with_own_mounts};
pub use starve::Allocator;

use check::Expected;
use medium::Medium;
use plan::{Campaign, End, Life};
use process::{Process, TRACER};

/// Processes of one history, and of one store in the campaign that only kills.
const LIVES: u64 = 12;
/// The variable that makes the program the process that is killed: campaign, seed, life, path.
const CHILD: &str = "REVTREE_KILL_CHILD";

/// Becomes the process that is killed, if this program was started as one. To be called first.
///
/// # Panics
///
/// When the variable says what no parent says.
pub fn live_if_told() {
    let Ok(told) = std::env::var(CHILD) else {
        return;
    };
    let mut words = told.splitn(4, ' ');
    let campaign = words.next().and_then(Campaign::named);
    let mut number = || words.next()?.parse().ok();
    let (seed, life) = (number(), number());
    let (Some(campaign), Some(seed), Some(life), Some(path)) = (campaign, seed, life, words.next())
    else {
        panic!("{CHILD}={told}");
    };
    child::live(campaign, seed, life, Path::new(path))
}

/// Kills the processes of one store, and looks at it after each.
///
/// # Errors
///
/// The first store that lost something or is wrong, and where its files are kept.
pub fn kill(seed: u64) -> Result<Tally, String> {
    history(Campaign::Kill, seed, None)
}

/// Cuts the power of a filesystem under the processes of its stores.
///
/// # Errors
///
/// As [`kill`].
pub fn power(seed: u64, fs: FileSystem) -> Result<Tally, String> {
    history(Campaign::Power, seed, Some(Medium::make(fs, seed)?))
}

/// Lets system calls of the processes fail, or end them.
///
/// # Errors
///
/// As [`kill`].
pub fn inject(seed: u64) -> Result<Tally, String> {
    history(Campaign::Inject, seed, None)
}

/// Why no system call can be made to fail here, if none can.
///
/// # Errors
///
/// What is missing, in one line.
pub fn calls_can_fail() -> Result<(), String> {
    if *TRACER {
        Ok(())
    } else {
        Err("strace is not there, or may not trace".to_owned())
    }
}

/// Lets allocations of the processes fail. For a program with [`Allocator`].
///
/// # Errors
///
/// As [`kill`].
pub fn memory(seed: u64) -> Result<Tally, String> {
    history(Campaign::Starve, seed, None)
}

fn history(campaign: Campaign, seed: u64, medium: Option<Medium>) -> Result<Tally, String> {
    let mut kills = Kills::new(campaign, seed, medium)?;
    for number in 0..LIVES {
        if let Err(error) = kills.life(number) {
            let life = Life::draw(campaign, seed, number);
            let says = format!("{error}\n  after life {number} of seed {seed}: {life:?}");
            return Err(kills.keep(&says));
        }
    }
    Ok(kills.tally)
}

struct Kills {
    campaign: Campaign,
    seed: u64,
    random: Random,
    /// A directory of its own.
    dir: tempfile::TempDir,
    /// Where the stores lie.
    folder: PathBuf,
    path: PathBuf,
    /// The filesystem, if it is one of our own.
    medium: Option<Medium>,
    expected: Expected,
    tally: Tally,
}

impl Kills {
    fn new(campaign: Campaign, seed: u64, medium: Option<Medium>) -> Result<Kills, String> {
        let dir = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
        Ok(Kills {
            campaign,
            seed,
            random: Random::new(seed ^ 0x0C1D),
            folder: (medium.as_ref()).map_or_else(|| dir.path().to_owned(), Medium::folder),
            dir,
            path: PathBuf::new(),
            medium,
            expected: Expected::new(seed),
            tally: Tally::default(),
        })
    }

    /// Keeps the files, and says where.
    fn keep(&mut self, error: &str) -> String {
        self.dir.disable_cleanup(true);
        let kept = self.dir.path();
        if let Some(medium) = &self.medium {
            medium.keep(kept);
        }
        format!("{error}\n  kept in {}", kept.display())
    }

    /// One process from its start to what it leaves.
    fn life(&mut self, number: u64) -> Result<(), String> {
        let life = Life::draw(self.campaign, self.seed, number);
        let lives = self.campaign.lives_of_a_store();
        if number.is_multiple_of(lives) {
            self.path = self.folder.join(format!("store{}", number / lives));
            self.expected = Expected::new(self.seed);
        }
        let acknowledged = self.expected.acks;
        let mut process = Process::start(self.seed, number, &life, &self.path)?;
        let mut cut = false;
        if let End::Parent { acks, micros } = life.end {
            // In the middle of making the store, or of what is done with one.
            let making = self.medium.is_some() && number.is_multiple_of(lives);
            if !making || self.random.once_in(3) {
                self.beside(&mut process, &life, acks)?;
            }
            // Somewhere in what it does next, and no matter where.
            std::thread::sleep(Duration::from_micros(micros));
            for line in process.said() {
                self.expected.hear(&line)?;
            }
            cut = self.medium.is_some();
            self.cut()?;
            process.kill()?;
        }
        let mut lines = Vec::new();
        while let Some(line) = process.next() {
            if cut {
                self.expected.hear_after_the_cut(&line)?;
            } else {
                self.expected.hear(&line)?;
            }
            lines.push(line);
        }
        let signal = process.died(&life)?;
        if let Some(medium) = &mut self.medium {
            medium.cut()?;
            medium.mount_again()?;
        }
        let heard = |word: &str| lines.iter().any(|line| line.starts_with(word));
        let kind = match life.end {
            End::Parent { .. } => "at a random moment",
            _ if heard("spared") => "when its work was done",
            End::Call { call, .. } => call.name(),
            End::Trace { .. } if !*TRACER => "when its work was done (there is no tracer)",
            End::Trace { name, .. } if self.campaign == Campaign::Inject => name,
            End::Trace { .. } => "at a system call, traced",
            End::Written => "when its work was done",
            End::Starve { .. } if heard("error") => "an error",
            End::Starve { .. } if signal == 9 => "done without it",
            End::Starve { .. } => "the end of the process",
        };
        self.tally.units += 1;
        *self.tally.kinds.entry(kind).or_default() += 1;
        self.expected.all_heard()?;
        self.look(&life)?;
        self.tally.acknowledged += self.expected.acks - acknowledged;
        self.expected.all_heard()
    }

    /// Cuts the power, if it is our own.
    fn cut(&self) -> Result<(), String> {
        self.medium.as_ref().map_or(Ok(()), Medium::cut)
    }

    /// Hears so many acknowledgements, and meets the living process as a second opener.
    fn beside(&mut self, process: &mut Process, life: &Life, acks: u64) -> Result<(), String> {
        let mut heard = 0;
        let mut open = false;
        while !open || heard < acks {
            let Some(line) = process.next() else {
                return Err("wrong: the process ended before it was killed".to_owned());
            };
            self.expected.hear(&line)?;
            heard += u64::from(line.starts_with("ack"));
            open |= line.starts_with("at");
            if line.starts_with("error") {
                return Err(format!(
                    "wrong: before anything failed the process said {line}"
                ));
            }
            if line == "spared" {
                break;
            }
            // It has the store until it is killed, unless it closes it in between.
            if line.starts_with("at") && life.stages == 1 {
                self.is_locked(life)?;
            }
        }
        if life.stages == 1 {
            self.is_locked(life)?;
        }
        if self.random.once_in(2) {
            // A file that is closed, or replaced, while the reader opens it has no living writer.
            let beside = if life.restores || life.stages > 1 {
                Expected::check_beside
            } else {
                Expected::check
            };
            self.open_and_check(&self.path.clone(), &life.options().read_only(), beside)?;
        }
        Ok(())
    }

    fn is_locked(&self, life: &Life) -> Result<(), String> {
        match life.options().open(&self.path) {
            Err(Error::Locked {
                by_this_process: false,
                ..
            }) => Ok(()),
            Err(error) => Err(format!("wrong: a second opener got {error:?}")),
            Ok(_) => Err("wrong: a second opener got the store".to_owned()),
        }
    }

    /// Opens what the dead process left: for reading, which repairs nothing, then it or its copy for
    /// writing.
    fn look(&mut self, life: &Life) -> Result<(), String> {
        if !self.path.exists() {
            return if self.expected.opened {
                Err("lost: the store is gone".to_owned())
            } else {
                Ok(())
            };
        }
        // The name is given to a whole store.
        self.expected.opened = true;
        let (path, options) = (self.path.clone(), life.options());
        let bytes = || std::fs::read(&path).map_err(|error| error.to_string());
        let before = bytes()?;
        self.open_and_check(&path, &options.clone().read_only(), Expected::check_known)?;
        if bytes()? != before {
            return Err("wrong: a read-only open wrote".to_owned());
        }
        match self.random.below(4) {
            // Left for the next process to repair, or to be killed while it does.
            0 | 1 => {
                let copy = path.with_extension("copy");
                std::fs::write(&copy, before).map_err(|error| error.to_string())?;
                self.open_and_check(&copy, &options, Expected::check)
            }
            which => {
                let read_mode = [ReadMode::Map, ReadMode::Pread][usize::from(which == 3)];
                self.open_and_check(&path, &options.read_mode(read_mode), Expected::check)?;
                self.expected.repaired();
                Ok(())
            }
        }
    }

    fn open_and_check(
        &mut self,
        path: &Path,
        options: &Options,
        check: fn(&mut Expected, &mut Store) -> Result<(), String>,
    ) -> Result<(), String> {
        let options = options.clone();
        let mut store = Store::open(path, move || options.clone())
            .map_err(|error| format!("wrong: it cannot be opened: {error} ({error:?})"))?;
        check(&mut self.expected, &mut store)?;
        store
            .close()
            .map_err(|error| format!("wrong: it cannot be closed: {error:?}"))
    }
}
