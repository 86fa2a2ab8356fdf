//! What readers see: a revision, and the state that belongs to it.
//!
//! # Thread safety
//! Published by the holder of the append lock; read by anybody, without a lock.
//!
//! # Invariants
//! The state is stored before the revision and loaded after it. So whoever sees a revision sees its state or a
//! newer one, which says itself from which revision on it holds. The revision runs ahead of the state
//! when nothing but the revision has changed.

use std::sync::Arc;

use revtree_format::Revision;

use super::State;
use crate::sync::{ArcSwap, AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Published {
    state: ArcSwap<State>,
    rev: AtomicU64,
}

impl Published {
    pub(super) fn new(state: State) -> Published {
        Published {
            rev: AtomicU64::new(state.rev.get()),
            state: ArcSwap::from_pointee(state),
        }
    }

    /// The revision that readers see.
    pub(super) fn rev(&self) -> Revision {
        // Acquire: pairs with the Release of `publish`, so the state stored before it is seen, and the
        // records.
        Revision::new(self.rev.load(Ordering::Acquire))
    }

    /// The compact revision that readers see.
    pub(super) fn compact_rev(&self) -> Option<Revision> {
        self.state.load().compact
    }

    /// The revision with what belongs to it.
    pub(super) fn both(&self) -> (Revision, Arc<State>) {
        let rev = self.rev();
        let state = self.state.load_full();
        (rev.max(state.rev), state)
    }

    /// For the holder of the append lock.
    pub(super) fn publish(&self, state: &State) {
        let seen = self.state.load();
        let changed = seen.applied != state.applied
            || seen.compact != state.compact
            || !seen.tables.same(&state.tables);
        drop(seen);
        if changed {
            self.state.store(Arc::new(state.clone()));
        }
        self.rev.fetch_max(state.rev.get(), Ordering::AcqRel);
    }
}
