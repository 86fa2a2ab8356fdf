//! Which revisions are being read: what the cleaner must leave alone (SPEC.md, X-1).
//!
//! # Thread safety
//! A slot is taken by a compare-and-swap and given back by a store; no lock, and no line is shared but
//! among readers that take neighbouring slots.
//!
//! # Why a view and the cleaner cannot miss each other
//! A view stores its pin, fences, and looks at the compact revision; the cleaner raises the compact
//! revision, fences, and looks at the pins. Fences (SeqCst) have one order. If the view's comes first, what
//! comes behind the cleaner's sees the slot, and that it counts (`used`); if the cleaner's does, what comes
//! behind the view's sees the new compact revision, and the view is refused or begins there. Both fences are
//! here, before and behind the pins, so that this rests on nobody else's orderings: with Release and Acquire
//! alone both could look before either store arrives, and neither see the other.

use std::sync::Arc;

use revtree_format::Revision;

use crate::metrics::OpenViews;
use crate::pager::Growing;
use crate::sync::{AtomicU64, AtomicUsize, Ordering, fence};

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
    /// the pins after it has raised that, so one of both sees the other.
    pub(crate) fn pin(self: &Arc<Pins>, rev: Revision) -> Pin {
        let mark = rev.get().saturating_add(1);
        let mut slot = 0;
        loop {
            let free = &self.slots.make(slot).0;
            if free.load(Ordering::Relaxed) == 0
                && free
                    .compare_exchange(0, mark, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                break;
            }
            slot += 1;
        }
        self.used.fetch_max(slot + 1, Ordering::Relaxed);
        // Pairs with that of `oldest`.
        fence(Ordering::SeqCst);
        self.counted.opened();
        Pin {
            pins: Arc::clone(self),
            slot,
        }
    }

    /// Number of pins and the oldest pinned revision.
    pub(crate) fn oldest(&self) -> (u64, Option<Revision>) {
        // Pairs with that of `pin`.
        fence(Ordering::SeqCst);
        let used = self.used.load(Ordering::Relaxed);
        let marks = (0..used)
            .filter_map(|slot| self.slots.get(slot))
            // Acquire: pairs with the Release of a pin's end, so what its view has read is behind us.
            .map(|slot| slot.0.load(Ordering::Acquire))
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
