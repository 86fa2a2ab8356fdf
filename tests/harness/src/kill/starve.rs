//! An allocator whose n-th allocation fails, once it is told so.
//!
//! It is that of the campaigns' program; in all other processes of it, it passes every call on.

#![expect(
    unsafe_code,
    reason = "an allocator is an unsafe trait; it passes calls on or gives null"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

static STARVES: AtomicBool = AtomicBool::new(false);
/// Fails for good once it has.
static STICKY: AtomicBool = AtomicBool::new(false);
static LEFT: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, until `starve`.
#[derive(Clone, Copy, Debug)]
pub struct Allocator<A>(pub A);

/// From now on the `nth` allocation of this process fails, and all behind it if it is `sticky`.
pub(super) fn starve(nth: u64, sticky: bool) {
    LEFT.store(nth.cast_signed(), Ordering::SeqCst);
    STICKY.store(sticky, Ordering::SeqCst);
    STARVES.store(true, Ordering::SeqCst);
}

/// Whether it has failed.
pub(super) fn has_starved() -> bool {
    STARVES.load(Ordering::SeqCst) && LEFT.load(Ordering::SeqCst) <= 0
}

fn fails() -> bool {
    if !STARVES.load(Ordering::Relaxed) {
        return false;
    }
    let left = LEFT.fetch_sub(1, Ordering::Relaxed);
    left == 1 || (left < 1 && STICKY.load(Ordering::Relaxed))
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments, or gives null, which
// says that there is no memory and leaves what was allocated before.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Allocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return null_mut();
        }
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return null_mut();
        }
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if fails() {
            return null_mut();
        }
        // SAFETY: as above.
        unsafe { self.0.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}
