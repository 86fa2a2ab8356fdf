//! `arc_swap::ArcSwap` as shuttle sees it: each load and each store is a step, between which others may run.
//!
//! The crate itself has no steps, so it would hide all that comes between two of its operations. Shuttle runs
//! one thread at a time and knows no weak memory, so what is stored may stand behind any lock.

use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use shuttle::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct ArcSwap<T> {
    /// Never held while another thread runs.
    stored: RwLock<Arc<T>>,
    step: AtomicBool,
}

/// What was loaded.
pub(crate) struct Loaded<T>(Arc<T>);

impl<T> Deref for Loaded<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T> ArcSwap<T> {
    pub(crate) fn new(value: Arc<T>) -> ArcSwap<T> {
        ArcSwap {
            stored: RwLock::new(value),
            step: AtomicBool::new(false),
        }
    }

    pub(crate) fn from_pointee(value: T) -> ArcSwap<T> {
        ArcSwap::new(Arc::new(value))
    }

    pub(crate) fn load(&self) -> Loaded<T> {
        Loaded(self.load_full())
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.step.load(Ordering::SeqCst);
        Arc::clone(&self.stored.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        drop(self.swap(value));
    }

    pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
        self.step.store(true, Ordering::SeqCst);
        let mut stored = self.stored.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *stored, value)
    }
}
