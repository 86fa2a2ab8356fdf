//! Which revisions are being read, and since when: what the cleaner must leave alone (SPEC.md, X-1, X-5).
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
//!
//! # Eras
//! What the cleaner has moved away begins a new era: no way leads to the old bytes for whoever begins in it. A pin
//! has the number of the era in which it was made, or of an older one: the number is read before the pin can be
//! seen. So once no pin of an older era is left, no view knows a position there. A pin that is not seen when the
//! cleaner looks was stored behind its fence, and finds the new ways as it would find a new compact revision.
//!
//! # Ends
//! A pin may end by itself, when the store is beyond a revision: its revision is not kept from then on, the
//! memory of its era is until it is dropped. It says so once it is made, so who looks sees it without an end or with
//! its own. Who sees that of an earlier pin in this place has fenced before this pin did, and what it does is known
//! to this pin, as if it had not seen it.

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
    era: AtomicU64,
    counted: OpenViews,
}

/// One pin, or place for one; a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    /// 0 when free, else the pinned revision + 1.
    mark: AtomicU64,
    /// The era in which it was made, or one before. Who looks between the mark and this meets that of an earlier pin
    /// in this place, whatever that is: its fence comes before this pin's, which so finds the new ways only.
    era: AtomicU64,
    /// It has ended when the store is above this revision.
    until: AtomicU64,
}

/// What is pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pinned {
    /// Number of pins, and of those that have ended.
    pub(crate) pins: u64,
    pub(crate) ended: u64,
    /// The oldest revision of those that have not.
    pub(crate) oldest: Option<Revision>,
}

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
            era: AtomicU64::new(0),
        }
    }

    /// Pins a revision. The caller checks the compact revision again afterwards: the cleaner looks at
    /// the pins after it has raised that, so one of both sees the other.
    pub(crate) fn pin(self: &Arc<Pins>, rev: Revision) -> Pin {
        let mark = rev.get().saturating_add(1);
        // Acquire: pairs with the Release of `begin_era`, so that the ways of that era are known.
        let era = self.era.load(Ordering::Acquire);
        let mut slot = 0;
        loop {
            let place = self.slots.make(slot);
            let free = &place.mark;
            if free.load(Ordering::Relaxed) == 0
                && free
                    .compare_exchange(0, mark, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                place.era.store(era, Ordering::Relaxed);
                place.until.store(u64::MAX, Ordering::Relaxed);
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

    /// What was found up to now is not found any more: whoever begins behind this call begins in the era that it
    /// gives.
    pub(crate) fn begin_era(&self) -> u64 {
        self.era.fetch_add(1, Ordering::Release) + 1
    }

    /// Whether no pin is left from before `era`.
    pub(crate) fn are_since(&self, era: u64) -> bool {
        // Pairs with that of `pin`.
        fence(Ordering::SeqCst);
        let used = self.used.load(Ordering::Relaxed);
        (0..used)
            .filter_map(|slot| self.slots.get(slot))
            // Acquire: as in `oldest`.
            .all(|slot| {
                slot.mark.load(Ordering::Acquire) == 0 || slot.era.load(Ordering::Relaxed) >= era
            })
    }

    /// What is pinned in a store that is at `current`, which has been read before.
    pub(crate) fn look(&self, current: Revision) -> Pinned {
        // Pairs with that of `pin`; and with that of a reader, who so sees no lower revision than `current` when it
        // meets what is done behind this.
        fence(Ordering::SeqCst);
        let used = self.used.load(Ordering::Relaxed);
        let mut pinned = Pinned::default();
        for slot in (0..used).filter_map(|slot| self.slots.get(slot)) {
            // Acquire: pairs with the Release of a pin's end, so what its view has read is behind us.
            let mark = slot.mark.load(Ordering::Acquire);
            if mark == 0 {
                continue;
            }
            pinned.pins += 1;
            if current.get() > slot.until.load(Ordering::Relaxed) {
                pinned.ended += 1;
                continue;
            }
            let rev = Revision::new(mark - 1);
            pinned.oldest = Some(pinned.oldest.map_or(rev, |oldest| oldest.min(rev)));
        }
        pinned
    }
}

impl Pin {
    /// It ends when the store is above this revision. Once, and who reads by it asks for that behind each read.
    pub(crate) fn end_behind(&self, until: Revision) {
        if let Some(slot) = self.pins.slots.get(self.slot) {
            slot.until.store(until.get(), Ordering::Relaxed);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(slot) = self.pins.slots.get(self.slot) {
            slot.mark.store(0, Ordering::Release);
            self.pins.counted.closed();
        }
    }
}
