//! Epochs: what keeps a node or table alive while some reader may still look at it.
//!
//! Apart because the crate has exactly one collector, its own. The default collector of
//! `crossbeam_epoch` is shared with every other crate of the process, and any of them could hold a
//! pin for minutes; ours is pinned only inside a call or a chunk. This file knows nothing of what
//! is reclaimed.

use std::sync::Arc;

use crossbeam_epoch::{Collector, LocalHandle};

use crate::sync::{AtomicBool, Ordering};

/// A pin of the crate's collector: what was reachable when it was made stays allocated while it
/// lives. Only [`pin`] makes one, so it is never a pin of some other collector.
#[derive(Debug)]
pub(crate) struct Guard(crossbeam_epoch::Guard);

impl Guard {
    /// Runs `reclaim` once no pin of now is left. The caller has made its object unreachable.
    pub(super) fn defer(&self, reclaim: impl FnOnce() + Send + 'static) {
        self.0.defer(reclaim);
    }

    /// Hands this thread's deferred work to all threads and runs what is already due.
    pub(super) fn flush(&self) {
        self.0.flush();
    }
}

/// A moment, which is past once no pin of then is left.
#[derive(Debug)]
pub(crate) struct Moment(Arc<AtomicBool>);

impl Moment {
    /// This moment: who pins later finds what was done before it.
    pub(crate) fn now() -> Moment {
        let past = Arc::new(AtomicBool::new(false));
        let guard = pin();
        let told = Arc::clone(&past);
        // Release: pairs with the Acquire of `is_past`, so what those pins have read is behind who sees it.
        guard.defer(move || told.store(true, Ordering::Release));
        guard.flush();
        Moment(past)
    }

    /// Whether it is past. Brings it nearer: epochs go on only where somebody asks.
    pub(crate) fn is_past(&self) -> bool {
        let is_past = || self.0.load(Ordering::Acquire);
        // Two epochs have to pass, and a turn of the collector's for what was deferred.
        for _ in 0..EPOCHS_TO_PASS {
            if is_past() {
                break;
            }
            pin().flush();
        }
        is_past()
    }
}

/// How often the collector is asked to go on; each call takes it at most one epoch further.
const EPOCHS_TO_PASS: usize = 4;

/// Pins this thread: cheap (one store and one fence), may be nested, must be short.
pub(crate) fn pin() -> Guard {
    // A thread that is ending may have dropped its handle already; it gets one for this pin.
    let pinned = HANDLE.try_with(LocalHandle::pin);
    Guard(pinned.unwrap_or_else(|_| collector().register().pin()))
}

#[cfg(not(any(loom, shuttle)))]
fn collector() -> &'static Collector {
    static COLLECTOR: std::sync::OnceLock<Collector> = std::sync::OnceLock::new();
    COLLECTOR.get_or_init(Collector::new)
}

#[cfg(not(any(loom, shuttle)))]
thread_local! {
    static HANDLE: LocalHandle = collector().register();
}

// Loom and shuttle need their own statics, which they empty after each execution of a model.
#[cfg(loom)]
fn collector() -> &'static Collector {
    loom::lazy_static! {
        static ref COLLECTOR: Collector = Collector::new();
    }
    &COLLECTOR
}

#[cfg(loom)]
loom::thread_local! {
    static HANDLE: LocalHandle = collector().register();
}

#[cfg(shuttle)]
fn collector() -> &'static Collector {
    shuttle::lazy_static! {
        static ref COLLECTOR: Collector = Collector::new();
    }
    &COLLECTOR
}

#[cfg(shuttle)]
shuttle::thread_local! {
    static HANDLE: LocalHandle = collector().register();
}
