//! The leaves since the newest checkpoint, listed in memory.
//!
//! # Thread safety
//! One writer (the holder of the append lock) calls `begin` and `extend`; readers take no lock.
//!
//! # Invariants
//! An entry's fields are stored before `len` counts it (Release, paired with the Acquire of `len()`),
//! and only `extent` changes afterwards: number of records and bytes in one word, so that a reader
//! sees both of one moment. The records below that number were published before (see `Region`).

use revtree_format::{ChangeId, LeafRun, Position, Revision};

use crate::pager::Growing;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// A list of leaves that grows at its end while others read it.
#[derive(Debug)]
pub(crate) struct Tail {
    entries: Growing<Entry>,
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Entry {
    main: AtomicU64,
    sub: AtomicU64,
    position: AtomicU64,
    segment_use: AtomicU64,
    /// Records in the upper half, bytes in the lower.
    extent: AtomicU64,
}

impl Tail {
    pub(crate) fn new() -> Tail {
        Tail {
            entries: Growing::new(),
            len: AtomicUsize::new(0),
        }
    }

    /// Number of leaves; those below it can be read.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// A new leaf of one record of `len` bytes.
    pub(crate) fn begin(&self, first: ChangeId, position: Position, segment_use: u64, len: u32) {
        let n = self.len.load(Ordering::Relaxed);
        let entry = self.entries.make(n);
        entry.main.store(first.main.get(), Ordering::Relaxed);
        entry.sub.store(first.sub, Ordering::Relaxed);
        entry.position.store(position.0, Ordering::Relaxed);
        entry.segment_use.store(segment_use, Ordering::Relaxed);
        entry
            .extent
            .store(1 << 32 | u64::from(len), Ordering::Relaxed);
        self.len.store(n + 1, Ordering::Release);
    }

    /// A leaf that is complete.
    pub(crate) fn push(&self, leaf: LeafRun) {
        self.begin(leaf.first, leaf.position, leaf.segment_use, leaf.len);
        let n = self.len.load(Ordering::Relaxed);
        let extent = u64::from(leaf.records) << 32 | u64::from(leaf.len);
        self.entry(n - 1).extent.store(extent, Ordering::Release);
    }

    /// One more record of `len` bytes in the newest leaf.
    pub(crate) fn extend(&self, len: u32) {
        let n = self.len.load(Ordering::Relaxed);
        let entry = self.entry(n - 1);
        let extent = entry.extent.load(Ordering::Relaxed);
        entry
            .extent
            .store(extent + (1 << 32) + u64::from(len), Ordering::Release);
    }

    /// Leaf `n`, which is below `len`.
    pub(crate) fn get(&self, n: usize) -> LeafRun {
        let entry = self.entry(n);
        let extent = entry.extent.load(Ordering::Acquire);
        LeafRun {
            first: first(entry),
            position: Position(entry.position.load(Ordering::Relaxed)),
            segment_use: entry.segment_use.load(Ordering::Relaxed),
            len: u32::try_from(extent & u64::from(u32::MAX)).expect("masked"),
            records: u32::try_from(extent >> 32).expect("shifted"),
        }
    }

    /// The first change of leaf `n`.
    pub(crate) fn first_of(&self, n: usize) -> ChangeId {
        first(self.entry(n))
    }

    /// How many leaves begin at or before `id`.
    pub(crate) fn leaves_up_to(&self, id: ChangeId) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.first_of(middle) <= id {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn entry(&self, n: usize) -> &Entry {
        self.entries
            .get(n)
            .expect("below len, which counts only entries made")
    }
}

fn first(entry: &Entry) -> ChangeId {
    let main = Revision::new(entry.main.load(Ordering::Relaxed));
    ChangeId::new(main, entry.sub.load(Ordering::Relaxed))
}
