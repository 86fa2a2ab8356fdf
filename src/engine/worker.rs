//! The one background thread of a `Batched` store: it syncs after n changes or t milliseconds, and
//! writes checkpoints.
//!
//! It holds the engine weakly between two rounds, so it never keeps a store open.

#![expect(clippy::disallowed_types, reason = "the worker sleeps")]

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Engine, lock};

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
        wakers: Arc<Mutex<Vec<Waker>>>,
    ) -> std::io::Result<Worker> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("revtree-sync".into())
            .spawn(move || run(&theirs, &engine, interval, &wakers))?;
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

fn run(shared: &Shared, engine: &Weak<Engine>, interval: Duration, wakers: &Mutex<Vec<Waker>>) {
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
        // A failure poisons the store, which the next write tells.
        let _ = engine.sync_all();
        let waiting = std::mem::take(&mut *lock(wakers));
        waiting.into_iter().for_each(Waker::wake);
        let _ = engine.maintain();
    }
}
