//! The plan of a killed process's life: how it opens, what it does, and what kills it.
//!
//! Drawn from the seed and the life's number, by the parent and by the child, so that nothing but
//! these two numbers is handed over. When exactly a kill from outside comes is not planned: that is
//! its point.

use std::path::Path;
use std::sync::Arc;

use revtree::storage::Disk;
use revtree::{Durability, Options, ReadMode};

use super::LIVES;
use super::disk::{Call, Side};
use super::entry::{After, Entry};
use crate::crash::batched;
use crate::random::Random;

use Fault::{Error, Errors, Kill, Nothing};

/// Which campaign a life belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Campaign {
    /// The process is killed; what it wrote stays in the page cache.
    Kill,
    /// The power is cut under its filesystem, too: what no sync covers is lost.
    Power,
    /// A system call fails, or kills the process.
    Inject,
    /// An allocation fails.
    Starve,
    /// Each system call in turn fails, or kills the process.
    Each,
}

/// What kills the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The parent, after so many acknowledgements and so many microseconds.
    Parent { acks: u64, micros: u64 },
    /// The process itself, in its n-th call of a kind to the disk.
    Call { call: Call, side: Side, nth: u64 },
    /// The tracer, at the n-th system call of a name in one of its threads; or it makes this call fail.
    Trace {
        name: &'static str,
        nth: u64,
        fault: Fault,
    },
    /// Nothing but that the n-th allocation fails, or all from there on.
    Starve { nth: u64, sticky: bool },
    /// Its own end: the tracer only writes down its calls.
    Written,
}

/// What the tracer does at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process is killed inside the call.
    Kill,
    /// The call does nothing and gives this error.
    Error(&'static str),
    /// The same for every later one.
    Errors(&'static str),
    /// The call does nothing and says so: it wrote or read no byte.
    Nothing,
}

impl Fault {
    /// As the tracer is told.
    pub(super) fn injection(self, name: &str, nth: u64) -> String {
        match self {
            Fault::Kill => format!("inject={name}:signal=KILL:when={nth}"),
            Fault::Error(error) => format!("inject={name}:error={error}:when={nth}"),
            Fault::Errors(error) => format!("inject={name}:error={error}:when={nth}+"),
            Fault::Nothing => format!("inject={name}:retval=0:when={nth}"),
        }
    }
}

/// System calls on files, each with what it may say.
const INJECTED: [(&str, &[Fault]); 16] = [
    (
        "pwrite64",
        &[
            Error("EIO"),
            Error("ENOSPC"),
            Error("EINTR"),
            Nothing,
            Errors("EIO"),
            Errors("ENOSPC"),
            Error("EDQUOT"),
            Error("EFBIG"),
            Kill,
        ],
    ),
    (
        "fdatasync",
        &[Error("EIO"), Error("ENOSPC"), Errors("EIO"), Kill],
    ),
    (
        "fallocate",
        &[
            Error("ENOSPC"),
            Errors("ENOSPC"),
            Error("EIO"),
            Error("EINTR"),
            Errors("EOPNOTSUPP"),
            Kill,
        ],
    ),
    (
        "openat",
        &[Error("EIO"), Error("EMFILE"), Error("ENOSPC"), Kill],
    ),
    (
        "pread64",
        &[Error("EIO"), Error("EINTR"), Errors("EIO"), Nothing, Kill],
    ),
    (
        "fsync",
        &[Error("EIO"), Error("ENOSPC"), Errors("EIO"), Kill],
    ),
    ("pwrite64", &[Error("EIO"), Error("ENOSPC"), Nothing, Kill]),
    (
        "mmap",
        &[Error("ENOMEM"), Errors("ENOMEM"), Error("EAGAIN"), Kill],
    ),
    (
        "ftruncate",
        &[Error("EIO"), Error("ENOSPC"), Errors("EIO"), Kill],
    ),
    ("fdatasync", &[Error("EIO"), Kill]),
    ("rename", &[Error("EIO"), Error("ENOSPC"), Kill]),
    ("statx", &[Error("EIO"), Error("ENOMEM"), Kill]),
    ("fcntl", &[Error("ENOLCK"), Errors("ENOLCK"), Kill]),
    ("flock", &[Error("ENOLCK"), Error("EINTR"), Kill]),
    ("madvise", &[Error("ENOMEM"), Errors("EINVAL"), Kill]),
    ("renameat2", &[Error("EIO"), Error("ENOSPC"), Kill]),
];

/// System calls that the tracer kills in: those on files, and what is around them.
const TRACED: [&str; 20] = [
    "pwrite64",
    "fdatasync",
    "fsync",
    "fallocate",
    "openat",
    "mmap",
    "write",
    "pwrite64",
    "fdatasync",
    "futex",
    "fcntl",
    "flock",
    "renameat2",
    "pread64",
    "close",
    "rename",
    "munmap",
    "madvise",
    "statx",
    "clone3",
];

/// One life.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) campaign: Campaign,
    pub(super) end: End,
    pub(super) durability: Durability,
    checkpoint_bytes: u64,
    read_mode: ReadMode,
    pub(super) threads: u64,
    /// Times that it opens the store, and entries that it applies each time.
    pub(super) stages: u64,
    pub(super) entries: u64,
    /// It restores a snapshot of its own at some entries, or at the first.
    pub(super) restores: bool,
}

impl Life {
    /// The life of that number in the history of a seed.
    pub(super) fn draw(campaign: Campaign, seed: u64, life: u64) -> Life {
        if campaign == Campaign::Each {
            return Each::planned(life);
        }
        let mut random = Random::new(seed ^ (life + 1).wrapping_mul(0xA076_1D64_78BD_642F));
        let stages = if random.once_in(3) { 2 } else { 1 };
        let entries = *random.pick(&[5, 20, 40, 80]);
        let making = life.is_multiple_of(campaign.lives_of_a_store());
        let end = match random.below(8) {
            0..3 => End::Parent {
                acks: random.below(entries * stages),
                micros: random.below(3000),
            },
            3 if campaign == Campaign::Kill => End::Trace {
                name: TRACED[usize::try_from((seed + life) % 20).expect("below 20")],
                nth: {
                    let bits = *random.pick(&[0, 2, 5]);
                    number(&mut random, bits)
                },
                fault: Kill,
            },
            _ => Life::in_call(seed, life, making, &mut random),
        };
        // What only opening, closing and restoring call needs a life with these.
        let rare = matches!(end, End::Call { call, .. } if call.is_rare());
        let (stages, entries) = if rare { (2, 20) } else { (stages, entries) };
        let drawn = Life {
            campaign,
            end,
            durability: *random.pick(&[
                Durability::Sync,
                Durability::Sync,
                Durability::Flushed,
                Durability::Flushed,
                batched(5),
            ]),
            checkpoint_bytes: *random.pick(&[1, 4 << 10, 16 << 10, 64 << 10, 1 << 20]),
            read_mode: *random.pick(&[ReadMode::Map, ReadMode::Map, ReadMode::Pread]),
            threads: 1 + random.below(4),
            stages,
            entries,
            restores: rare || random.once_in(4),
        };
        match campaign {
            Campaign::Inject | Campaign::Starve => {
                drawn.of_failures(seed, life, making, &mut random)
            }
            _ => drawn,
        }
    }

    /// The life with calls or allocations that fail: it opens the store again behind each error.
    fn of_failures(self, seed: u64, life: u64, making: bool, random: &mut Random) -> Life {
        let end = if self.campaign == Campaign::Inject {
            let turn = seed.wrapping_mul(7) + life;
            let mut turn = usize::try_from(turn % INJECTED.len() as u64).expect("below it");
            if making && random.once_in(2) {
                // Only a store that is made gets its name so.
                turn = INJECTED.len() - 1;
            }
            let (name, faults) = INJECTED[turn];
            let bits = match name {
                "pwrite64" => *random.pick(&[0, 2, 4]),
                "pread64" | "fdatasync" => *random.pick(&[0, 1, 3]),
                _ => *random.pick(&[0, 0, 1]),
            };
            End::Trace {
                name,
                nth: number(random, bits),
                fault: *random.pick(faults),
            }
        } else {
            let bits = *random.pick(&[4, 8, 10, 12, 14]);
            End::Starve {
                nth: number(random, bits),
                sticky: random.once_in(4),
            }
        };
        // The tracer stops each thread, and counts the calls of each.
        let threads = match self.campaign {
            Campaign::Inject if !random.once_in(3) => 1,
            _ => self.threads,
        };
        Life {
            end,
            threads,
            stages: 3,
            entries: self.entries.min(12),
            // What only a restore calls is called soon.
            restores: random.once_in(2),
            ..self
        }
    }

    /// Every kind of call and side in turn, over lives and over seeds.
    fn in_call(seed: u64, life: u64, making: bool, random: &mut Random) -> End {
        let ways = Call::ways();
        let turn = (seed.wrapping_mul(17) + life) % ways.len() as u64;
        let way = ways[usize::try_from(turn).expect("below their number")];
        // The first life makes the file.
        let (call, side) = if making {
            let making = [Call::RenameNew, Call::CreateNew, Call::SyncDirectory];
            let side = *random.pick(&[Side::Before, Side::After]);
            (*random.pick(&making), side)
        } else {
            way
        };
        // Many of them in the first calls: while it opens, which is a recovery but for the first time.
        let bits = match call {
            Call::Write | Call::Read => *random.pick(&[0, 2, 4, 6]),
            Call::SyncData => *random.pick(&[0, 2, 4]),
            Call::Allocate | Call::Show => *random.pick(&[0, 2]),
            _ => *random.pick(&[0, 1]),
        };
        let nth = number(random, bits);
        End::Call { call, side, nth }
    }

    /// How it opens the store, and how the parent does.
    pub(super) fn options(&self) -> Options {
        Options::new()
            .segment_bytes(64 << 10)
            .store_bytes_max(1 << 30)
            .durability(self.durability)
            .checkpoint_bytes(self.checkpoint_bytes)
            .read_mode(self.read_mode)
    }

    /// The same on that disk.
    pub(super) fn open(&self, disk: Arc<dyn Disk>, path: &Path) -> revtree::Result<revtree::Db> {
        self.options().disk(disk).open(path)
    }

    /// A life that restores does so after one of so many entries.
    pub(super) fn restores_every(&self) -> u64 {
        match self.campaign {
            Campaign::Kill | Campaign::Power => 16,
            Campaign::Inject | Campaign::Starve => 8,
            Campaign::Each => 4,
        }
    }

    /// Whether a commit of its own durability survives what ends it.
    pub(super) fn survives(&self) -> bool {
        match (self.durability, self.campaign) {
            (Durability::Sync, _) => true,
            (Durability::Flushed, campaign) => campaign != Campaign::Power,
            _ => false,
        }
    }

    /// Whether a call of the store may fail so, as what ends this life makes calls fail.
    pub(super) fn tolerates(&self, error: &revtree::Error) -> bool {
        use revtree::Error;
        let of_machine = matches!(
            error,
            Error::Io { .. }
                | Error::NoSpace { .. }
                | Error::Poisoned { .. }
                | Error::CommitUnknown { .. }
                | Error::Closed
        );
        match self.campaign {
            Campaign::Kill => false,
            // ext4 is read-only after a cut.
            Campaign::Power => of_machine || matches!(error, Error::ReadOnly),
            Campaign::Inject | Campaign::Each => of_machine,
            Campaign::Starve => of_machine || matches!(error, Error::OutOfMemory { .. }),
        }
    }

    /// Whether a process of this life may have been ended by that signal.
    pub(super) fn ends_by(&self, signal: i32) -> bool {
        const ABRT: i32 = 6;
        const BUS: i32 = 7;
        const KILL: i32 = 9;
        match self.campaign {
            Campaign::Kill | Campaign::Inject | Campaign::Each => signal == KILL,
            // A page of the map that the filesystem cannot read any more.
            Campaign::Power => signal == KILL || (signal == BUS && self.read_mode == ReadMode::Map),
            Campaign::Starve => signal == KILL || signal == ABRT,
        }
    }
}

impl Campaign {
    const ALL: [(Campaign, &str); 5] = [
        (Campaign::Kill, "kill"),
        (Campaign::Power, "power"),
        (Campaign::Inject, "inject"),
        (Campaign::Starve, "memory"),
        (Campaign::Each, "calls"),
    ];

    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        let mut all = Campaign::ALL.iter();
        all.find(|(campaign, _)| *campaign == self)
            .map_or("", |(_, name)| name)
    }

    /// The campaign of that name.
    pub(super) fn named(name: &str) -> Option<Campaign> {
        let found = Campaign::ALL.iter().find(|(_, of)| *of == name)?;
        Some(found.0)
    }

    /// After so many lives a new store is made.
    pub(super) fn lives_of_a_store(self) -> u64 {
        match self {
            Campaign::Kill => LIVES,
            // Whatever a creation meets is met often.
            Campaign::Power | Campaign::Inject | Campaign::Starve | Campaign::Each => 4,
        }
    }
}

/// A life each of whose calls is hit in turn: on one thread, so that it is the same each time. It makes the store
/// or finds one that was not closed, and closes it, opens it again, compacts it and restores a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Each {
    pub(super) number: u64,
    pub(super) finds_a_store: bool,
    durability: Durability,
    checkpoint_bytes: u64,
    read_mode: ReadMode,
    entries: u64,
}

impl Each {
    /// Two short ones, and longer ones in every durability.
    pub(super) const LIVES: u64 = 8;
    /// The number of a life that is before another one.
    const BEFORE: u64 = 100;

    /// The life of that number.
    pub(super) fn number(number: u64) -> Each {
        let is_short = number < 2;
        Each {
            number,
            finds_a_store: number % 2 == 1,
            durability: match number {
                0..4 => Durability::Sync,
                4 | 5 => Durability::Flushed,
                _ => batched(5),
            },
            checkpoint_bytes: match number % 3 {
                0 => 1,
                1 => 16 << 10,
                _ => 4 << 10,
            },
            read_mode: if (number / 2).is_multiple_of(2) {
                ReadMode::Map
            } else {
                ReadMode::Pread
            },
            entries: if is_short { 3 } else { 8 },
        }
    }

    /// What the child is told to live.
    fn planned(number: u64) -> Life {
        if number >= Each::BEFORE {
            Each::number(number - Each::BEFORE).before()
        } else {
            Each::number(number).life(End::Written)
        }
    }

    /// The first log with a compaction among the entries of this life, of more than nothing.
    pub(super) fn seed(&self) -> u64 {
        let before = if self.finds_a_store { self.entries } else { 0 };
        let compacts = |seed: &u64| {
            let mut entries = before + 1..=before + 2 * self.entries;
            entries.any(
                |n| matches!(Entry::of(*seed, n, 0).after, After::Compact(kept) if kept + 2 < n),
            )
        };
        (1000 * self.number..).find(compacts).unwrap_or_default()
    }

    /// The life itself.
    pub(super) fn life(&self, end: End) -> Life {
        Life {
            campaign: Campaign::Each,
            end,
            durability: self.durability,
            checkpoint_bytes: self.checkpoint_bytes,
            read_mode: self.read_mode,
            threads: 1,
            stages: 2,
            entries: self.entries,
            restores: true,
        }
    }

    /// The life that leaves the store that this one finds: it does not close it.
    pub(super) fn before(&self) -> Life {
        Life {
            stages: 1,
            restores: false,
            ..self.life(End::Written)
        }
    }

    /// The number of [`Each::before`].
    pub(super) fn number_before(&self) -> u64 {
        Each::BEFORE + self.number
    }
}

/// From 1 to two to the `bits`.
fn number(random: &mut Random, bits: u32) -> u64 {
    1 + random.below(1 << bits)
}
