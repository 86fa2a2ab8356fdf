//! How much memory an input takes: bytes that are held at once, counted by the allocator (F19).
//!
//! A program that wants the bound kept names [`Counting`] its global allocator; in others nothing is counted,
//! and the bound holds of itself. The whole process is counted, because a store has threads, so inputs are
//! measured one at a time.

#![expect(
    unsafe_code,
    reason = "an allocator that counts is an unsafe trait; it passes every call on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes allocated and not freed, and the most there were since a measurement began.
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// The most that any input took beyond twice its file, in this process.
static MOST: AtomicUsize = AtomicUsize::new(0);

/// What an input may take beside twice its file.
pub const BESIDE_MAX: usize = 16 << 20;

/// The system's allocator, with what it holds counted.
#[derive(Debug)]
pub struct Counting;

fn more(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    PEAK.fetch_max(held, Ordering::Relaxed);
}

fn fewer(bytes: usize) {
    HELD.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as above. Not by `alloc`: zeros of the system's are not touched, and cost nothing.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        fewer(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        more(new_size);
        fewer(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Whether this program counts.
#[must_use]
pub fn is_counted() -> bool {
    HELD.load(Ordering::Relaxed) > 0
}

/// The most that an input took beyond twice its file.
#[must_use]
pub fn most() -> usize {
    MOST.load(Ordering::Relaxed)
}

/// Runs `input` alone in the process, if it is counted.
pub(super) fn alone<T>(input: impl FnOnce() -> T) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = is_counted().then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    input()
}

/// Does something with a file of so many bytes, which may take twice as many and [`BESIDE_MAX`]. For who runs
/// [`alone`].
pub(super) fn bounded<T>(
    file_bytes: usize,
    take: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let taken = take()?;
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let beside = peak.saturating_sub(2 * file_bytes);
    MOST.fetch_max(beside, Ordering::Relaxed);
    if beside > BESIDE_MAX {
        return Err(format!(
            "wrong: {peak} bytes of memory at once for a file of {file_bytes}"
        ));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::{BESIDE_MAX, alone, bounded, is_counted};

    #[global_allocator]
    static COUNTED: super::Counting = super::Counting;

    #[test]
    fn an_excess_is_seen_though_it_is_given_back() {
        assert!(is_counted());
        let take = |bytes: usize| {
            alone(|| {
                bounded(1000, || {
                    Ok(std::hint::black_box(Vec::<u8>::with_capacity(bytes)).capacity())
                })
            })
        };
        take(1 << 20).unwrap();
        take(BESIDE_MAX + 2000 + (64 << 20)).unwrap_err();
    }
}
