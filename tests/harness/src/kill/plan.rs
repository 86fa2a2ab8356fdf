//! The plan of a killed process's life: how it opens, what it does, and what kills it.
//!
//! Drawn from the seed and the life's number, by the parent and by the child, so that nothing but
//! these two numbers is handed over. When exactly a kill from outside comes is not planned: that is
//! its point.

use std::path::Path;
use std::sync::Arc;

use revtree::storage::Disk;
use revtree::{Durability, Options, ReadMode};

use super::disk::{Call, Side};
use crate::crash::batched;
use crate::random::Random;

/// What kills the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The parent, after so many acknowledgements and so many microseconds.
    Parent { acks: u64, micros: u64 },
    /// The process itself, in its n-th call of a kind to the disk.
    Call { call: Call, side: Side, nth: u64 },
    /// The tracer, at the n-th system call of a name in one of its threads.
    Trace { name: &'static str, nth: u64 },
}

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
    pub(super) fn draw(seed: u64, life: u64) -> Life {
        let mut random = Random::new(seed ^ (life + 1).wrapping_mul(0xA076_1D64_78BD_642F));
        let stages = if random.once_in(3) { 2 } else { 1 };
        let entries = *random.pick(&[5, 20, 40, 80]);
        let end = match random.below(8) {
            0..3 => End::Parent {
                acks: random.below(entries * stages),
                micros: random.below(3000),
            },
            3 => End::Trace {
                name: TRACED[usize::try_from((seed + life) % 20).expect("below 20")],
                nth: {
                    let bits = *random.pick(&[0, 2, 5]);
                    number(&mut random, bits)
                },
            },
            _ => Life::in_call(seed, life, &mut random),
        };
        // What only opening, closing and restoring call needs a life with these.
        let rare = matches!(end, End::Call { call, .. } if call.is_rare());
        let (stages, entries) = if rare { (2, 20) } else { (stages, entries) };
        Life {
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
        }
    }

    /// Every kind of call and side in turn, over lives and over seeds.
    fn in_call(seed: u64, life: u64, random: &mut Random) -> End {
        let ways = Call::ways();
        let turn = (seed.wrapping_mul(17) + life) % ways.len() as u64;
        let way = ways[usize::try_from(turn).expect("below their number")];
        // The first life makes the file.
        let (call, side) = if life == 0 {
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

    /// Whether a commit of its own durability survives the end of the process.
    pub(super) fn survives_kill(&self) -> bool {
        matches!(self.durability, Durability::Sync | Durability::Flushed)
    }
}

/// From 1 to two to the `bits`.
fn number(random: &mut Random, bits: u32) -> u64 {
    1 + random.below(1 << bits)
}
