//! The atomics of the lock-free parts: the standard ones, or loom's when its model checker runs.
//!
//! Apart so that one name serves both. `--cfg loom` swaps them; code that wants to be checked by
//! loom takes its atomics from here and nowhere else.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
