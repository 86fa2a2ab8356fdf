//! What threads meet at: the standard library's atomics and locks, or loom's or shuttle's when one of them
//! chooses the schedule.
//!
//! Apart so that one name serves all. `--cfg loom` swaps them for models of single hand-overs, in all orders
//! and with all values; `--cfg shuttle` for whole stores, in many orders drawn by chance (`tests/shuttle`).
//! Code that wants to be checked takes them from here and nowhere else. It must not know what is handed over.

#![expect(
    clippy::disallowed_types,
    reason = "the names of the locks; who may use them is decided where they are used"
)]

#[cfg(shuttle)]
mod stepped;
#[cfg(loom)]
mod swap;

use std::sync::PoisonError;

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread, thread_local,
};
#[cfg(loom)]
pub(crate) use std::thread_local;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread, thread_local,
};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use arc_swap::ArcSwap;
#[cfg(shuttle)]
pub(crate) use stepped::ArcSwap;
#[cfg(loom)]
pub(crate) use swap::ArcSwap;

/// Locks, also when a thread panicked while it held the lock, so that one panic does not become two: for what
/// is whole between any two steps. What is not goes through the engine's `lock_whole`.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on a condition variable, as [`lock`] locks.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits while the condition holds, but no longer than this. Under loom no time passes: a model in which only
/// the clock would end a wait has lost a wake-up. Under shuttle chance decides whether it passes, so that both
/// are met, and a wake-up that is lost is lost in half of the schedules.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn wait_while_for<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    time: std::time::Duration,
    condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    let waited = condvar.wait_timeout_while(guard, time, condition);
    waited.unwrap_or_else(PoisonError::into_inner).0
}
#[cfg(loom)]
pub(crate) fn wait_while_for<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    _time: std::time::Duration,
    mut condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    while condition(&mut guard) {
        guard = wait(condvar, guard);
    }
    guard
}
#[cfg(shuttle)]
pub(crate) fn wait_while_for<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    _time: std::time::Duration,
    mut condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    use shuttle::rand::Rng;
    // Drawn once: in half of the waits all the time there is passes at the first look, in the others none.
    let no_time_passes = shuttle::rand::thread_rng().r#gen::<bool>();
    while condition(&mut guard) && no_time_passes {
        guard = wait(condvar, guard);
    }
    guard
}

/// Explores every order of a model's threads, and every value that its atomics may have, with at most so
/// many preemptions; `LOOM_MAX_PREEMPTIONS` overrides that.
#[cfg(all(test, loom))]
pub(crate) fn model(preemptions: usize, explore: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 20_000;
    builder.check(explore);
}
