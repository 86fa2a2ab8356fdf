//! Commits awaited by tasks: `Submitted` is a future that needs no particular runtime.
//!
//! The executor here is the smallest one: a queue of tasks, one thread that polls.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use revtree::{Db, Durability, Options};

use super::gate::PATIENCE;

struct Task {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    ready: Sender<Arc<Task>>,
}

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        let ready = self.ready.clone();
        let _ = ready.send(self);
    }
}

struct Executor {
    ready: Receiver<Arc<Task>>,
    sender: Sender<Arc<Task>>,
    running: usize,
}

impl Executor {
    fn new() -> Executor {
        let (sender, ready) = channel();
        Executor {
            ready,
            sender,
            running: 0,
        }
    }

    fn spawn(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        let task = Arc::new(Task {
            future: Mutex::new(Some(Box::pin(future))),
            ready: self.sender.clone(),
        });
        self.running += 1;
        self.sender.send(task).unwrap();
    }

    /// Polls whoever is woken until all have ended; a lost wake-up fails the test.
    fn run(mut self) {
        while self.running > 0 {
            let task = self.ready.recv_timeout(PATIENCE).expect("nobody was woken");
            let waker = Waker::from(Arc::clone(&task));
            let mut slot = task.future.lock().unwrap();
            let Some(future) = slot.as_mut() else {
                continue;
            };
            if future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
            {
                *slot = None;
                self.running -= 1;
            }
        }
    }
}

/// Waits for what a thread of the store is to do.
fn eventually(what: &str, done: impl Fn() -> bool) {
    let mut waited = Duration::ZERO;
    while !done() {
        std::thread::sleep(Duration::from_millis(1));
        waited += Duration::from_millis(1);
        assert!(waited < PATIENCE, "{what}");
    }
}

fn put(db: &Db, key: &str) -> revtree::Submitted {
    let mut txn = db.write().unwrap();
    txn.put(key, "x".repeat(100)).unwrap();
    txn.submit().unwrap()
}

/// Many tasks on one thread each write and await again and again: all are woken, all is durable and
/// visible when a task goes on, and syncs are shared.
#[test]
fn tasks_share_syncs_and_are_all_woken() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new().open(dir.path().join("store")).unwrap();
    let mut executor = Executor::new();
    let (tasks, rounds) = (200, 10);
    for n in 0..tasks {
        let db = db.clone();
        executor.spawn(async move {
            for round in 0..rounds {
                let submitted = put(&db, &format!("{n}/{round}"));
                let rev = submitted.revision();
                let commit = submitted.await.unwrap();
                assert_eq!(commit.revision, rev);
                assert!(commit.durable);
                assert!(db.rev() >= rev && db.durable_rev() >= rev);
            }
        });
    }
    executor.run();
    let stats = db.stats();
    eprintln!(
        "{} commits of {tasks} tasks: {} syncs, at most {} a sync",
        stats.commits, stats.syncs, stats.group_max
    );
    assert_eq!(stats.commits, tasks * rounds);
    assert!(stats.syncs < stats.commits / 2, "{}", stats.syncs);
    assert!(stats.group_max > 1 && stats.group_max <= tasks);
    db.close().unwrap();
}

/// What is submitted before anybody waits is one group: one sync.
#[test]
fn what_is_submitted_together_is_one_group() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new().open(dir.path().join("store")).unwrap();
    let submitted: Vec<_> = (0..500).map(|n| put(&db, &n.to_string())).collect();
    assert_eq!(db.rev().get(), 1);
    let mut executor = Executor::new();
    for future in submitted {
        executor.spawn(async move {
            assert!(future.await.unwrap().durable);
        });
    }
    executor.run();
    let stats = db.stats();
    assert_eq!((stats.syncs, stats.group_max), (1, 500));
    assert_eq!(db.rev().get(), 501);
}

/// A future that is dropped takes nothing back, and waiters of both kinds share one store.
#[test]
fn futures_threads_and_dropped_futures_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Options::new().open(&path).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let db = db.clone();
            std::thread::spawn(move || {
                for n in 0..100 {
                    db.put(format!("thread {t}/{n}"), "x").unwrap();
                }
            })
        })
        .collect();
    let mut executor = Executor::new();
    for t in 0..20 {
        let db = db.clone();
        executor.spawn(async move {
            for n in 0..20 {
                let submitted = put(&db, &format!("task {t}/{n}"));
                if n % 3 == 0 {
                    drop(submitted);
                } else {
                    submitted.await.unwrap();
                }
            }
        });
    }
    executor.run();
    for thread in threads {
        thread.join().unwrap();
    }
    db.close().unwrap();
    let db = Options::new().open(&path).unwrap();
    assert_eq!(db.read().unwrap().range(..).count().unwrap(), 800);
}

/// Nothing is written: ready at once.
#[test]
fn an_empty_commit_is_ready_at_once() {
    let db = Options::new().open_in_memory().unwrap();
    let mut submitted = std::pin::pin!(db.write().unwrap().submit().unwrap());
    let polled = submitted
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(commit)) if commit.changes == 0));
}

/// The thread that serves futures also keeps the interval of a `Batched` store, whoever made it start.
#[test]
fn a_future_before_the_first_batch_does_not_stretch_the_interval() {
    let dir = tempfile::tempdir().unwrap();
    let durability = Durability::Batched {
        changes: 1_000_000,
        interval: Duration::from_millis(5),
    };
    let options = Options::new().durability(durability);
    let db = options.open(dir.path().join("store")).unwrap();
    let mut txn = db.write().unwrap();
    txn.put("first", "durable").unwrap();
    txn.require_sync();
    let submitted = txn.submit().unwrap();
    let mut executor = Executor::new();
    executor.spawn(async move {
        assert!(submitted.await.unwrap().durable);
    });
    executor.run();
    let rev = db.put("second", "batched").unwrap();
    eventually("the interval has passed many times", || {
        db.durable_rev() >= rev
    });
}

/// A batch is synced when it has so many changes, long before its interval ends, and so is the next one.
#[test]
fn a_batch_is_synced_when_it_is_full() {
    let durability = Durability::Batched {
        changes: 3,
        interval: Duration::from_secs(100_000),
    };
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().durability(durability);
    let db = options.open(dir.path().join("store")).unwrap();
    for batch in 0..3 {
        let synced = db.stats().syncs;
        for _ in 0..2 {
            db.put("a", "1").unwrap();
        }
        assert_eq!(db.stats().syncs, synced, "batch {batch} is not full");
        let rev = db.put("a", "1").unwrap();
        eventually("the batch is full", || db.durable_rev() >= rev);
        eventually("it is told", || db.stats().syncs == synced + 1);
    }
    // The thread has looked for one behind each sync.
    assert_eq!(db.stats().checkpoints, 0);
}

/// Checkpoints are written however commits are waited for: by threads after a future was awaited once,
/// and by futures that find their commit settled.
#[test]
fn checkpoints_are_written_whoever_waits() {
    let dir = tempfile::tempdir().unwrap();
    for (name, durability) in [("sync", Durability::Sync), ("flushed", Durability::Flushed)] {
        let open = |end: &str| {
            let options = Options::new().durability(durability);
            let options = options.checkpoint_bytes(64 << 10);
            options
                .open(dir.path().join(format!("{name} {end}")))
                .unwrap()
        };
        let await_one = |db: &Db, n: u32| {
            let submitted = put(db, &n.to_string());
            let mut executor = Executor::new();
            executor.spawn(async move {
                submitted.await.unwrap();
            });
            executor.run();
        };
        let db = open("threads");
        await_one(&db, 0);
        let before = db.stats().checkpoints;
        for n in 0..1000 {
            db.put(n.to_string(), "x".repeat(100)).unwrap();
        }
        eventually("no checkpoint by threads", || {
            db.stats().checkpoints > before
        });
        let db = open("futures");
        for n in 0..1000 {
            await_one(&db, n);
        }
        eventually("no checkpoint by futures", || db.stats().checkpoints > 0);
    }
}

/// The waker of a task that panics when it is called.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Panics>) {
        panic!("a waker that is meant to panic");
    }
}

/// Wakers are called by the thread that syncs for tasks. One that panicked used to end this thread: nobody else
/// was woken, now or later, without an error anywhere.
#[test]
fn a_waker_that_panics_takes_nobody_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new().open(dir.path().join("store")).unwrap();
    for round in 0..3 {
        let mut panics = Box::pin(put(&db, &format!("panics/{round}")));
        let waker = Waker::from(Arc::new(Panics));
        let polled = panics.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let mut executor = Executor::new();
        let waits = put(&db, &format!("waits/{round}"));
        executor.spawn(async move {
            assert!(waits.await.unwrap().durable);
        });
        executor.run();
        let mut executor = Executor::new();
        executor.spawn(async move {
            assert!(panics.await.unwrap().durable);
        });
        executor.run();
    }
    db.close().unwrap();
}
