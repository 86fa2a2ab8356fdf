//! When a commit is seen, when it is durable, and how it is waited for.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use revtree::{Applied, Commit, Db, Durability, Options, Submitted};

fn open(durability: Durability) -> Db {
    Options::new()
        .durability(durability)
        .open_in_memory()
        .unwrap()
}

/// Commits that are durable when somebody asks.
const LAZY: Durability = Durability::Batched {
    changes: u32::MAX,
    interval: Duration::from_secs(100_000),
};

fn submit(db: &Db, value: &str) -> Submitted {
    let mut txn = db.write().unwrap();
    txn.put("k", value).unwrap();
    txn.submit().unwrap()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread: all the runtime that is needed.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// `Sync`: accepted is not visible; a transaction builds on it all the same; once `wait` returns it is seen.
#[test]
fn sync_commits_are_seen_when_durable() {
    let db = open(Durability::Sync);
    let first = submit(&db, "1");
    assert_eq!(first.revision().get(), 2);
    assert_eq!((db.rev().get(), db.durable_rev().get()), (1, 1));
    assert!(db.get("k").unwrap().is_none());
    let mut txn = db.write().unwrap();
    assert_eq!(txn.rev().get(), 2);
    assert_eq!(txn.get("k").unwrap().unwrap().value(), b"1");
    assert_eq!(txn.base().rev().get(), 2);
    txn.put("k", "2").unwrap();
    let second = txn.submit().unwrap();
    let commit = second.wait().unwrap();
    assert_eq!((commit.revision.get(), commit.durable), (3, true));
    assert_eq!((db.rev().get(), db.durable_rev().get()), (3, 3));
    // The sync of the second was the first's too.
    assert!(first.wait().unwrap().durable);
    assert_eq!(db.read().unwrap().get("k").unwrap().unwrap().value(), b"2");
}

/// `Flushed` and `Batched`: visible at once, durable later.
#[test]
fn other_commits_are_seen_at_once() {
    for durability in [LAZY, Durability::Flushed] {
        let db = open(durability);
        let submitted = submit(&db, "1");
        assert_eq!(db.rev().get(), 2);
        assert_eq!(db.get("k").unwrap().unwrap().value, "1");
        assert_eq!(db.durable_rev().get(), 1);
        assert!(!submitted.wait().unwrap().durable);
        assert_eq!(db.sync().unwrap().get(), 2);
        assert_eq!(db.durable_rev().get(), 2);
    }
}

/// `require_sync` makes one commit of a batched store durable, and hides it until then; the commits before
/// it are durable with it.
#[test]
fn a_commit_may_ask_for_more() {
    let db = open(LAZY);
    db.put("k", "1").unwrap();
    let mut txn = db.write().unwrap();
    txn.put("k", "2").unwrap();
    txn.require_sync();
    let submitted = txn.submit().unwrap();
    assert_eq!((db.rev().get(), db.durable_rev().get()), (2, 1));
    assert!(submitted.wait().unwrap().durable);
    assert_eq!((db.rev().get(), db.durable_rev().get()), (3, 3));
}

/// A commit behind a `Sync` commit in flight is not seen before that one.
#[test]
fn order_of_visibility() {
    let db = open(LAZY);
    let mut txn = db.write().unwrap();
    txn.put("k", "1").unwrap();
    txn.require_sync();
    let first = txn.submit().unwrap();
    let second = submit(&db, "2");
    assert_eq!(db.rev().get(), 1);
    // When the later one's wait returns both are there.
    second.wait().unwrap();
    assert_eq!(db.rev().get(), 3);
    assert!(db.durable_rev().get() >= 2);
    assert!(first.wait().unwrap().durable);
}

/// What belongs to a commit besides its keys is seen with it: index, tables, compact revision.
#[test]
fn the_rest_of_a_commit_is_seen_with_it() {
    let db = open(Durability::Sync);
    let mut txn = db.write().unwrap();
    txn.put("k", "1").unwrap();
    txn.set_applied(Applied { index: 3, term: 1 });
    txn.table("rows").unwrap().put(b"a", b"1").unwrap();
    let submitted = txn.submit().unwrap();
    assert_eq!(db.consistent_index(), Applied::default());
    assert_eq!(db.read().unwrap().tables().count(), 0);
    let before = db.read().unwrap();
    submitted.wait().unwrap();
    assert_eq!(db.consistent_index(), Applied { index: 3, term: 1 });
    assert_eq!(
        db.read().unwrap().table("rows").get(b"a").unwrap().unwrap(),
        "1"
    );
    // A view that was open keeps its own.
    assert!(before.table("rows").get(b"a").unwrap().is_none());
}

/// When a commit has returned, every later read sees it, in whatever thread.
#[test]
fn a_later_read_sees_a_commit_that_returned() {
    let db = open(Durability::Sync);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for n in 0..200u64 {
                    let rev = db.put(format!("k{thread}"), n.to_string()).unwrap();
                    let view = db.read().unwrap();
                    assert!(view.rev() >= rev);
                    let found = view.get(format!("k{thread}")).unwrap().unwrap();
                    assert_eq!((found.mod_revision(), found.version()), (rev, n + 1));
                }
            });
        }
    });
    assert_eq!(db.rev().get(), 801);
}

/// A submitted commit is a future that needs no runtime, under every durability.
#[test]
fn a_submitted_commit_is_a_future() {
    for durability in [Durability::Sync, Durability::Flushed, LAZY] {
        let db = open(durability);
        let commit: Commit = block_on(submit(&db, "1")).unwrap();
        assert_eq!((commit.revision.get(), commit.changes), (2, 1));
        assert_eq!(commit.durable, durability == Durability::Sync);
        assert_eq!(db.rev().get(), 2);
        // Many at a time, awaited in any order.
        let many: Vec<Submitted> = (0..50).map(|n| submit(&db, &n.to_string())).collect();
        for submitted in many.into_iter().rev() {
            block_on(submitted).unwrap();
        }
        assert_eq!(db.rev().get(), 52);
        // One that changed nothing is ready at once.
        let nothing = db.write().unwrap().submit().unwrap();
        assert_eq!(block_on(nothing).unwrap().changes, 0);
    }
}

/// A future that waits while the store is closed gets its answer: the close made it durable.
#[test]
fn a_future_survives_the_close() {
    let db = open(Durability::Sync);
    let submitted = submit(&db, "1");
    db.close().unwrap();
    assert!(block_on(submitted).unwrap().durable);
}

/// Only one sync for commits that wait together.
#[test]
fn commits_share_a_sync() {
    let db = open(Durability::Sync);
    let before = db.stats().syncs;
    let many: Vec<Submitted> = (0..100).map(|n| submit(&db, &n.to_string())).collect();
    for submitted in many {
        assert!(submitted.wait().unwrap().durable);
    }
    assert_eq!(db.stats().syncs - before, 1);
}

/// A commit that changed nothing has read accepted commits: when it returns they are seen, so that its
/// revision can be read and what it found is not taken back.
#[test]
fn a_commit_of_nothing_waits_for_what_it_read() {
    let db = open(Durability::Sync);
    let submitted = submit(&db, "1");
    let deleted = db.delete("missing").unwrap();
    assert_eq!((deleted.count, deleted.revision.get()), (0, 2));
    assert_eq!(db.read_at(deleted.revision).unwrap().rev().get(), 2);
    submitted.wait().unwrap();
    let _submitted = submit(&db, "2");
    let commit = db.write().unwrap().commit().unwrap();
    assert_eq!((commit.revision.get(), commit.durable), (3, true));
    assert_eq!(db.rev().get(), 3);
    // In a store that syncs later it waits only when it is asked to, or behind one that was.
    let db = open(LAZY);
    db.put("k", "1").unwrap();
    assert!(!db.write().unwrap().commit().unwrap().durable);
    let mut txn = db.write().unwrap();
    txn.require_sync();
    assert!(txn.commit().unwrap().durable);
    assert_eq!(db.durable_rev().get(), 2);
}
