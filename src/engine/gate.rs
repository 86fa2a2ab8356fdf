//! The checkpoint lock, which closes to those that come in passing.

#![expect(clippy::disallowed_types, reason = "one checkpoint at a time")]

use std::sync::TryLockError;

use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// Somebody panicked under the lock, and what it guards is half-done.
#[derive(Debug)]
pub(super) struct Broken;

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
    pub(super) fn enter(&self) -> Result<MutexGuard<'_, T>, Broken> {
        self.inside.lock().map_err(|_panicked| Broken)
    }

    /// The lock, unless somebody has it or the gate is retired.
    pub(super) fn try_enter(&self) -> Result<Option<MutexGuard<'_, T>>, Broken> {
        match self.inside.try_lock() {
            // Looked at under the lock, for which `retire` waits.
            Ok(inside) => Ok((!self.is_retired()).then_some(inside)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Poisoned(_)) => Err(Broken),
        }
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
