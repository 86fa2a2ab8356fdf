//! A store compacts of its own accord, by a policy (SPEC.md, K-13).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use revtree::{
    Cleaner, Db, Durability, Error, Options, Outcome, Retain, Revision, Start, Update, WeakDb,
};

const SEGMENT: u64 = 64 << 10;

fn options(retain: Retain) -> Options {
    let options = Options::new().segment_bytes(SEGMENT).retain(retain);
    options.checkpoint_bytes(1).durability(Durability::Flushed)
}

/// A policy that is a function.
fn since(answer: impl Fn() -> u64 + Send + Sync + 'static) -> Retain {
    Retain::Since(Arc::new(move || Revision::new(answer())))
}

fn until(holds: impl Fn() -> bool) {
    while !holds() {
        thread::yield_now();
    }
}

/// Writes about a tenth of a segment.
fn write(db: &Db) -> Revision {
    db.put("key", [7; 6500]).unwrap()
}

/// Without a thread the policy is asked by `reclaim`, and keeps exactly what it says; a number of revisions that the
/// store does not have is all of them.
#[test]
fn reclaim_asks() {
    let db = options(Retain::Revisions(10)).cleaner(Cleaner::Manual);
    let db = db.open_in_memory().unwrap();
    for _ in 0..9 {
        write(&db);
        db.reclaim().unwrap();
        assert_eq!(db.compact_rev(), None);
    }
    for _ in 0..50 {
        write(&db);
    }
    assert_eq!((db.rev().get(), db.compact_rev()), (60, None));
    db.reclaim().unwrap();
    assert_eq!(db.compact_rev(), Some(50.into()));
    assert!(db.read_at(50).is_ok());
    let before = db.stats().commits;
    db.reclaim().unwrap();
    assert_eq!(db.stats().commits, before, "nothing to do");
    let none = options(Retain::Revisions(0)).cleaner(Cleaner::Manual);
    let none = none.open_in_memory().unwrap();
    write(&none);
    none.reclaim().unwrap();
    assert_eq!(none.compact_rev(), Some(none.rev()));
    let all = options(Retain::All).cleaner(Cleaner::Manual);
    let all = all.open_in_memory().unwrap();
    write(&all);
    all.reclaim().unwrap();
    assert_eq!(all.compact_rev(), None);
}

/// Answers that no store can follow do nothing, whoever asks; nor does a panic.
#[test]
fn silly_answers_do_nothing() {
    let answer = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&answer);
    let policy = since(move || match told.load(Ordering::SeqCst) {
        99 => panic!("on purpose"),
        answer => answer,
    });
    let db = options(policy).cleaner(Cleaner::Manual);
    let db = db.open_in_memory().unwrap();
    for _ in 0..9 {
        write(&db);
    }
    assert_eq!(db.rev().get(), 10);
    let answers = [
        (0, None),
        (1, None),
        (11, None),
        (u64::MAX, None),
        (99, None),
        (4, Some(4)),
        (3, Some(4)),
        (4, Some(4)),
        (u64::MAX, Some(4)),
        (99, Some(4)),
        (10, Some(10)),
    ];
    for (told, compact) in answers {
        answer.store(told, Ordering::SeqCst);
        db.reclaim().unwrap();
        assert_eq!(db.compact_rev(), compact.map(Revision::new), "{told}");
    }
    assert_eq!(db.put("a", "1").unwrap().get(), 11);
}

/// The thread asks at the open and as log is written, not for every put; it never keeps less than it should; and a
/// policy that has panicked is asked again.
#[test]
fn the_thread_asks_now_and_then() {
    for in_memory in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (asked, rev) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(1)));
        let (counted, current) = (Arc::clone(&asked), Arc::clone(&rev));
        let policy = since(move || {
            assert!(counted.fetch_add(1, Ordering::SeqCst) > 2, "on purpose");
            current.load(Ordering::SeqCst).saturating_sub(20)
        });
        let db = if in_memory {
            options(policy).open_in_memory()
        } else {
            options(policy).open(dir.path().join("store"))
        };
        let db = db.unwrap();
        until(|| asked.load(Ordering::SeqCst) == 1);
        let mut puts = 0;
        while db.compact_rev().is_none_or(|compact| compact.get() < 100) {
            puts += 1;
            rev.store(write(&db).get(), Ordering::SeqCst);
            let compact = db.compact_rev();
            assert!(compact.is_none_or(|compact| compact.get() + 20 <= db.rev().get()));
        }
        let asked = asked.load(Ordering::SeqCst);
        // Ten puts are a segment of log, and what the cleaner writes is a part of the log.
        assert!(asked > 3 && asked < 3 + puts / 3, "{asked} for {puts} puts");
        assert!(db.read_at(db.compact_rev().unwrap()).is_ok());
        db.close().unwrap();
    }
}

/// What was written by many short lives of a store is not kept for ever: an open asks.
#[test]
fn an_open_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Options::new().open(&path).unwrap();
    for n in 0..30 {
        db.put("a", n.to_string()).unwrap();
    }
    db.close().unwrap();
    let reader = options(Retain::Revisions(5))
        .read_only()
        .open(&path)
        .unwrap();
    assert_eq!(reader.compact_rev(), None);
    assert!(matches!(reader.reclaim(), Err(Error::ReadOnly)));
    drop(reader);
    let db = options(Retain::Revisions(5)).open(&path).unwrap();
    until(|| db.compact_rev() == Some(26.into()));
    db.close().unwrap();
    let db = Options::new().open(&path).unwrap();
    assert_eq!(db.compact_rev(), Some(26.into()));
}

/// The function may read its store, and it cannot write to it, nor wait for what its own thread does.
#[test]
fn the_function_may_read_and_not_write() {
    let store: Arc<OnceLock<WeakDb>> = Arc::default();
    let seen = Arc::new(AtomicBool::new(false));
    let (its_store, has_seen) = (Arc::clone(&store), Arc::clone(&seen));
    let db = options(since(move || {
        let Some(db) = its_store.get().and_then(WeakDb::upgrade) else {
            return 0;
        };
        assert!(matches!(db.put("x", "1"), Err(Error::InCallback)));
        assert!(matches!(db.compact(2), Err(Error::InCallback)));
        assert!(matches!(db.reclaim(), Err(Error::InCallback)));
        assert!(matches!(db.write(), Err(Error::InCallback)));
        assert!(matches!(db.clone().close(), Err(Error::InCallback)));
        assert!(!db.stats().sizes_unknown && db.check().unwrap().is_clean());
        let _ = db.compaction().wait();
        db.sync().unwrap();
        has_seen.store(true, Ordering::SeqCst);
        db.rev().get()
    }));
    let db = db.open_in_memory().unwrap();
    store.set(db.downgrade()).ok().unwrap();
    while db.compact_rev().is_none_or(|compact| compact.get() < 50) {
        write(&db);
    }
    assert!(seen.load(Ordering::SeqCst));
    assert_eq!(db.compaction().wait(), Outcome::Done);
    db.close().unwrap();
}

/// Whoever holds the writer's turn may wait for the cleaner, close, or let the last handle go, while the thread is
/// in line for the turn.
#[test]
fn nobody_waits_for_ever() {
    for round in 0..60 {
        let (asked, answer) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, told) = (Arc::clone(&asked), Arc::clone(&answer));
        let db = options(since(move || {
            let answer = told.load(Ordering::SeqCst);
            counted.fetch_add(1, Ordering::SeqCst);
            answer
        }));
        let db = db.open_in_memory().unwrap();
        until(|| asked.load(Ordering::SeqCst) == 1);
        while db.rev().get() < 5 {
            write(&db);
        }
        db.compact(3).unwrap();
        answer.store(5, Ordering::SeqCst);
        while asked.load(Ordering::SeqCst) == 1 && db.rev().get() < 60 {
            write(&db);
        }
        // From here on the thread is in line, or will be.
        let txn = db.write().unwrap();
        if round % 2 == 0 {
            let _ = db.compaction().wait();
        }
        match round % 4 {
            0 | 1 => thread::scope(|scope| {
                let closing = scope.spawn(|| db.clone().close().unwrap());
                if round % 3 == 0 {
                    thread::yield_now();
                }
                drop(txn);
                closing.join().unwrap();
                assert!(matches!(db.get("key"), Err(Error::Closed)));
            }),
            2 => {
                drop(db);
                drop(txn);
            }
            _ => {
                drop(txn);
                until(|| db.compact_rev() == Some(5.into()));
            }
        }
    }
}

/// A restore gives the handle another content, which is kept by the same policy; what was wanted for the old content
/// is not done to the new one.
#[test]
fn a_restored_store_is_kept_by_the_same_policy() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved");
    let answer = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&answer);
    let policy = since(move || told.load(Ordering::SeqCst));
    let db = options(policy).open(dir.path().join("store")).unwrap();
    for _ in 0..10 {
        write(&db);
    }
    db.snapshot().unwrap().save(&saved).unwrap();
    for _ in 0..30 {
        write(&db);
    }
    answer.store(30, Ordering::SeqCst);
    while db.compact_rev().is_none() {
        write(&db);
    }
    db.restore(&saved).unwrap();
    assert_eq!((db.rev().get(), db.compact_rev()), (11, None));
    answer.store(7, Ordering::SeqCst);
    while db.compact_rev().is_none() {
        write(&db);
    }
    assert_eq!(db.compact_rev(), Some(7.into()));
}

/// A watcher that only comes late is given what it was waiting for, as beside a compaction that is called.
#[test]
fn watchers_that_wait_miss_nothing() {
    let db = options(Retain::Revisions(0)).cleaner(Cleaner::Manual);
    let db = db.open_in_memory().unwrap();
    let mut stream = db.watch("key", Start::Now).unwrap();
    for _ in 0..5 {
        write(&db);
    }
    db.reclaim().unwrap();
    assert_eq!(db.compact_rev(), Some(6.into()));
    let mut seen = 0;
    while seen < 5 {
        match stream.recv().unwrap().update {
            Update::Events(events) => seen += events.len(),
            other => panic!("{other:?}"),
        }
    }
}
