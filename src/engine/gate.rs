//! The checkpoint lock, which closes to those that come in passing.

#![expect(clippy::disallowed_types, reason = "one checkpoint at a time")]

use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, lock};

/// A lock of which `retire` ends the passing use.
#[derive(Debug)]
pub(super) struct Gate<T> {
    inside: Mutex<T>,
    /// Release when it is set, Acquire when it is asked for in passing; under the lock, which orders both, it
    /// is certain.
    retired: AtomicBool,
}

impl<T> Gate<T> {
    pub(super) fn new(inside: T) -> Gate<T> {
        Gate {
            inside: Mutex::new(inside),
            retired: AtomicBool::new(false),
        }
    }

    /// Waits for the lock, also when retired.
    pub(super) fn enter(&self) -> MutexGuard<'_, T> {
        lock(&self.inside)
    }

    /// The lock, unless somebody has it or the gate is retired.
    pub(super) fn try_enter(&self) -> Option<MutexGuard<'_, T>> {
        let inside = self.inside.try_lock().ok()?;
        // Looked at under the lock, for which `retire` waits.
        (!self.is_retired()).then_some(inside)
    }

    /// Whoever has the lock is waited for; in passing nobody gets it any more.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        drop(self.enter());
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}
