//! The one background thread of a `Batched` store: it syncs after n changes or t milliseconds, and
//! writes checkpoints.
//!
//! It holds the engine weakly between two rounds, so it never keeps a store open.

#![expect(clippy::disallowed_types, reason = "the worker sleeps")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Engine, lock};
use crate::error::Error;

/// A task that waits for a sync.
#[derive(Debug)]
pub(crate) struct Waiting {
    waker: Waker,
    /// Why the first sync that was begun for it ended without it.
    failed: OnceLock<Error>,
}

impl Waiting {
    pub(crate) fn new(waker: Waker) -> Arc<Waiting> {
        Arc::new(Waiting {
            waker,
            failed: OnceLock::new(),
        })
    }

    pub(crate) fn failed(&self) -> Option<&Error> {
        self.failed.get()
    }

    pub(crate) fn wake(&self) {
        self.waker.wake_by_ref();
    }
}

/// The tasks that wait.
pub(crate) type WaitingTasks = Arc<Mutex<Vec<Arc<Waiting>>>>;

/// Wakes and ends the thread.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<WorkerState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct WorkerState {
    /// There are changes that are not synced.
    dirty: bool,
    /// A sync is due now.
    due: bool,
    ended: bool,
}

impl Worker {
    /// Starts the thread, which syncs at the latest `interval` after [`Worker::changed`].
    /// Tasks whose commits wait are woken after each sync.
    pub(crate) fn start(
        engine: Weak<Engine>,
        interval: Duration,
        tasks: WaitingTasks,
    ) -> std::io::Result<Worker> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("revtree-sync".into())
            .spawn(move || run(&theirs, &engine, interval, &tasks))?;
        Ok(Worker {
            shared,
            thread: Some(thread),
        })
    }

    /// There are changes to be synced within the interval, or at once when `due`.
    pub(crate) fn changed(&self, due: bool) {
        let mut state = lock(&self.shared.state);
        let wake = !state.dirty || (due && !state.due);
        state.dirty = true;
        state.due |= due;
        drop(state);
        if wake {
            self.shared.wake.notify_one();
        }
    }

    /// Ends the thread and waits for it.
    pub(crate) fn end(&mut self) {
        lock(&self.shared.state).ended = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // The last handle of a store can be dropped by this very thread.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(
    shared: &Shared,
    engine: &Weak<Engine>,
    interval: Duration,
    tasks: &Mutex<Vec<Arc<Waiting>>>,
) {
    loop {
        let mut state = lock(&shared.state);
        while !state.dirty && !state.ended {
            state = shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if !state.due && !state.ended {
            let waited = shared
                .wake
                .wait_timeout_while(state, interval, |state| !state.due && !state.ended);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.ended {
            return;
        }
        (state.dirty, state.due) = (false, false);
        drop(state);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        // Those that ask while the sync goes on may not be in it: they are woken to look, and have asked
        // for another.
        let asked = std::mem::take(&mut *lock(tasks));
        // Most failures poison the store, which the next write tells; without room it may go on, but who
        // waits for this sync is told as if it had made it itself.
        let synced = going_on(|| engine.sync_accepted());
        if let Some(Err(error)) = synced {
            for task in &asked {
                let _ = task.failed.set(error.clone());
            }
        }
        let late = std::mem::take(&mut *lock(tasks));
        for task in asked.iter().chain(&late) {
            going_on(|| task.wake());
        }
        going_on(|| engine.maintain());
    }
}

/// A waker is its task's code, and may panic; a sync or a checkpoint that does has poisoned the store, or will.
/// The thread goes on in any case: somebody else waits for it.
fn going_on<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
