//! The one background thread of a `Batched` store: it syncs after n changes or t milliseconds, and
//! writes checkpoints.
//!
//! It holds the engine weakly between two rounds, so it never keeps a store open. [`Background`] is what the
//! store keeps of it: the thread, made when it is first needed, and the tasks that wait for a sync.

#![expect(clippy::disallowed_types, reason = "the worker sleeps")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use super::Engine;
use crate::error::{Error, Result};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, lock, wait, wait_while_for};

/// What the thread does.
pub(crate) trait Upkeep: Send + Sync + 'static {
    /// Everything accepted before is durable when this returns.
    fn sync_accepted(&self) -> Result<()>;

    /// Writes a checkpoint if one is due.
    fn maintain(&self) -> Result<()>;

    /// Nothing is begun in passing any more.
    fn retire(&self);

    fn is_retired(&self) -> bool;
}

impl Upkeep for Engine {
    fn sync_accepted(&self) -> Result<()> {
        Engine::sync_accepted(self)
    }

    fn maintain(&self) -> Result<()> {
        Engine::maintain(self)
    }

    fn retire(&self) {
        Engine::retire(self);
    }

    fn is_retired(&self) -> bool {
        Engine::is_retired(self)
    }
}

/// A task that waits for a sync.
#[derive(Debug)]
pub(crate) struct Waiting {
    waker: Waker,
    /// Why the first sync that was begun for it ended without it.
    failed: OnceLock<Error>,
}

impl Waiting {
    fn new(waker: Waker) -> Arc<Waiting> {
        Arc::new(Waiting {
            waker,
            failed: OnceLock::new(),
        })
    }

    fn failed(&self) -> Option<&Error> {
        self.failed.get()
    }

    fn wake(&self) {
        self.waker.wake_by_ref();
    }
}

/// The tasks that wait.
type WaitingTasks = Arc<Mutex<Vec<Arc<Waiting>>>>;

/// The thread of a store, if it has one, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Background {
    worker: Mutex<Option<Worker>>,
    tasks: WaitingTasks,
}

/// What a task waits for.
pub(crate) trait Awaited {
    type Outcome;

    /// What is known without waiting.
    fn look(&self) -> Option<Self::Outcome>;

    /// What it is when the sync that was asked for has failed.
    fn failed(&self, error: Error) -> Self::Outcome;
}

impl Background {
    /// Calls the thread, which is made when it is missing; `false` when the system gives none, or the store
    /// is being closed. Whoever makes it, it keeps the interval of the store.
    pub(crate) fn call(
        &self,
        engine: &Arc<impl Upkeep>,
        interval: Duration,
        call: impl FnOnce(&Worker),
    ) -> bool {
        let mut worker = lock(&self.worker);
        // `end` says so before it takes the lock, so it ends whatever is made here.
        if worker.is_none() && !engine.is_retired() {
            let engine = Arc::downgrade(engine);
            *worker = Worker::start(engine, interval, Arc::clone(&self.tasks)).ok();
        }
        worker.as_ref().map(call).is_some()
    }

    /// Calls the thread if there is one.
    pub(crate) fn call_running(&self, call: impl FnOnce(&Worker)) -> bool {
        lock(&self.worker).as_ref().map(call).is_some()
    }

    /// Looks whether what is awaited has come; else the waker is called when that may have changed, once the
    /// thread has been called. `waiting` is what the last look left, by which this one sees that the sync it
    /// asked for has failed.
    pub(crate) fn look<A: Awaited>(
        &self,
        awaited: &A,
        waiting: &mut Option<Arc<Waiting>>,
        waker: &Waker,
    ) -> Option<A::Outcome> {
        let outcome = awaited.look();
        if outcome.is_some() {
            return outcome;
        }
        if let Some(error) = waiting.as_ref().and_then(|waiting| waiting.failed()) {
            return Some(awaited.failed(error.clone()));
        }
        let task = Waiting::new(waker.clone());
        lock(&self.tasks).push(Arc::clone(&task));
        *waiting = Some(task);
        // Looked at again: the sync may have ended between the look and the push.
        awaited.look()
    }

    /// Wakes all tasks.
    pub(crate) fn wake(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.iter().for_each(|task| task.wake());
    }

    /// Ends the thread, if there is one; none is made any more, nor a checkpoint begun in passing.
    pub(crate) fn end(&self, engine: &impl Upkeep) {
        engine.retire();
        let worker = lock(&self.worker).take();
        drop(worker);
        self.wake();
    }
}

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
    fn start(
        engine: Weak<impl Upkeep>,
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
    fn end(&mut self) {
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
    engine: &Weak<impl Upkeep>,
    interval: Duration,
    tasks: &Mutex<Vec<Arc<Waiting>>>,
) {
    loop {
        let mut state = lock(&shared.state);
        while !state.dirty && !state.ended {
            state = wait(&shared.wake, state);
        }
        if !state.due && !state.ended {
            let idle = |state: &mut WorkerState| !state.due && !state.ended;
            state = wait_while_for(&shared.wake, state, interval, idle);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::ThreadId;

    use super::*;

    const LONG: Duration = Duration::from_secs(100_000);

    /// Notes which thread syncs it.
    #[derive(Default)]
    struct Noted {
        synced_by: Mutex<Vec<ThreadId>>,
        retired: AtomicBool,
    }

    impl Upkeep for Noted {
        fn sync_accepted(&self) -> Result<()> {
            lock(&self.synced_by).push(std::thread::current().id());
            Ok(())
        }

        fn maintain(&self) -> Result<()> {
            Ok(())
        }

        fn retire(&self) {
            self.retired.store(true, Ordering::SeqCst);
        }

        fn is_retired(&self) -> bool {
            self.retired.load(Ordering::SeqCst)
        }
    }

    impl Noted {
        fn wait_for(&self, syncs: usize) {
            for _ in 0..60_000 {
                if lock(&self.synced_by).len() >= syncs {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("sync {syncs} did not come");
        }
    }

    /// One thread serves all calls; what is due is synced at once, what is not waits for its interval; an end waits for
    /// the thread, and no other is made.
    #[test]
    fn one_thread_until_the_end() {
        let engine = Arc::new(Noted::default());
        let background = Background::default();
        for syncs in 1..4 {
            assert!(background.call(&engine, LONG, |worker| worker.changed(true)));
            engine.wait_for(syncs);
        }
        assert!(background.call_running(|worker| worker.changed(false)));
        std::thread::sleep(Duration::from_millis(30));
        let synced_by = lock(&engine.synced_by).clone();
        assert_eq!(synced_by, [synced_by[0]; 3]);
        background.end(&*engine);
        // The thread has the tasks in common with us.
        assert_eq!(Arc::strong_count(&background.tasks), 1);
        assert!(engine.is_retired());
        assert!(!background.call(&engine, LONG, |worker| worker.changed(true)));
        assert!(!background.call_running(|_| ()));
    }

    /// The thread goes with what is kept of it.
    #[test]
    fn a_thread_ends_with_its_store() {
        let engine = Arc::new(Noted::default());
        let background = Background::default();
        let short = Duration::from_millis(1);
        assert!(background.call(&engine, short, |worker| worker.changed(false)));
        engine.wait_for(1);
        let tasks = Arc::clone(&background.tasks);
        drop(background);
        assert_eq!(Arc::strong_count(&tasks), 1);
    }
}
