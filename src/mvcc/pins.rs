//! Which revisions are being read: what the cleaner must leave alone (SPEC.md, X-1).
//!
//! # Thread safety
//! A slot is taken by a compare-and-swap and given back by a store; no lock, and no line is shared but
//! among readers that take neighbouring slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use revtree_format::Revision;

use crate::metrics::OpenViews;
use crate::pager::Growing;

/// All pins of a store.
#[derive(Debug)]
pub(crate) struct Pins {
    slots: Growing<Slot>,
    /// Slots below this have been used.
    used: AtomicUsize,
    counted: OpenViews,
}

/// 0 when free, else the pinned revision + 1; a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot(AtomicU64);

/// A pinned revision, until dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Arc<Pins>,
    slot: usize,
}

impl Pins {
    pub(crate) fn new(counted: OpenViews) -> Pins {
        Pins {
            counted,
            slots: Growing::new(),
            used: AtomicUsize::new(0),
        }
    }

    /// Pins a revision. The caller checks the compact revision again afterwards: the cleaner looks at
    /// the pins after it has raised that, so one of both sees the other (SeqCst on both sides).
    pub(crate) fn pin(self: &Arc<Pins>, rev: Revision) -> Pin {
        let mark = rev.get().saturating_add(1);
        let mut slot = 0;
        loop {
            let free = &self.slots.make(slot).0;
            if free.load(Ordering::Relaxed) == 0
                && free
                    .compare_exchange(0, mark, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
            {
                break;
            }
            slot += 1;
        }
        self.used.fetch_max(slot + 1, Ordering::SeqCst);
        self.counted.opened();
        Pin {
            pins: Arc::clone(self),
            slot,
        }
    }

    /// Number of pins and the oldest pinned revision.
    pub(crate) fn oldest(&self) -> (u64, Option<Revision>) {
        let used = self.used.load(Ordering::SeqCst);
        let marks = (0..used)
            .filter_map(|slot| self.slots.get(slot))
            .map(|slot| slot.0.load(Ordering::SeqCst))
            .filter(|mark| *mark > 0);
        marks.fold((0, None), |(count, oldest), mark| {
            let rev = Revision::new(mark - 1);
            (
                count + 1,
                Some(oldest.map_or(rev, |oldest: Revision| oldest.min(rev))),
            )
        })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(slot) = self.pins.slots.get(self.slot) {
            slot.0.store(0, Ordering::Release);
            self.pins.counted.closed();
        }
    }
}
