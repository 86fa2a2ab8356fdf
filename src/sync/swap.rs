//! `arc_swap::ArcSwap` as loom sees it: a pointer stored with Release and loaded with Acquire.
//!
//! The crate itself is not made for loom. What it promises (a load sees all that came before the store of
//! what it sees) is what this has; what it does beyond, on its own SeqCst operations, nothing may rest on,
//! and a model that does fails here. All that was ever stored is kept until the end.

use std::ops::Deref;
use std::sync::{Arc, RwLock};

use loom::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct ArcSwap<T> {
    /// Never held while another thread of the model runs.
    stored: RwLock<Vec<Arc<T>>>,
    newest: AtomicUsize,
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
            stored: RwLock::new(vec![value]),
            newest: AtomicUsize::new(0),
        }
    }

    pub(crate) fn from_pointee(value: T) -> ArcSwap<T> {
        ArcSwap::new(Arc::new(value))
    }

    pub(crate) fn load(&self) -> Loaded<T> {
        Loaded(self.load_full())
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.stored(self.newest.load(Ordering::Acquire))
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        self.swap(value);
    }

    pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
        let number = {
            let mut stored = self.stored.write().expect("nobody panics with it");
            stored.push(value);
            stored.len() - 1
        };
        self.stored(self.newest.swap(number, Ordering::AcqRel))
    }

    fn stored(&self, number: usize) -> Arc<T> {
        Arc::clone(&self.stored.read().expect("nobody panics with it")[number])
    }
}
