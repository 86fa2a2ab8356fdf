//! Under loom only: tells when something freed is looked at, or freed while looked at.
//!
//! Loom cannot see a plain read of freed memory. So what epochs protect carries a canary: readers
//! check it, the one that frees buries the object instead, which stays allocated.

use std::sync::atomic::{AtomicBool, Ordering};

/// Alive until it is buried. The cell lets loom find a burial that no order separates from a
/// check; the flag finds a check that comes after.
#[derive(Debug)]
pub(super) struct Canary {
    order: loom::cell::UnsafeCell<()>,
    buried: AtomicBool,
}

impl Canary {
    pub(super) fn new() -> Canary {
        Canary {
            order: loom::cell::UnsafeCell::new(()),
            buried: AtomicBool::new(false),
        }
    }

    pub(super) fn check(&self) {
        self.order.with(|_| ());
        assert!(
            !self.buried.load(Ordering::Relaxed),
            "looked at after it was freed"
        );
    }
}

/// Instead of freeing `object`.
pub(super) fn bury<T>(object: Box<T>, canary: impl FnOnce(&T) -> &Canary) {
    let object = Box::leak(object);
    let canary = canary(object);
    canary.order.with_mut(|_| ());
    assert!(!canary.buried.swap(true, Ordering::Relaxed), "freed twice");
}
