//! The lessor's hooks: when they come, that they cannot write, and what a panic in one leaves behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use revtree::{Db, Error, LeaseId, Lessor, Options, WeakDb};

/// What a hook does besides being written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Nothing,
    /// Tries to write.
    Write,
    /// Panics in the hook of this name.
    Panic(&'static str),
}

/// Writes down each call.
struct Log {
    calls: Mutex<Vec<String>>,
    act: Mutex<Act>,
    store: Mutex<Option<WeakDb>>,
}

impl Log {
    fn new(act: Act) -> Arc<Log> {
        Arc::new(Log {
            calls: Mutex::default(),
            act: Mutex::new(act),
            store: Mutex::default(),
        })
    }

    fn called(&self, hook: &'static str, call: String) {
        self.calls.lock().unwrap().push(call);
        let act = *self.act.lock().unwrap();
        let store = self.store.lock().unwrap().clone();
        match (act, store.and_then(|store| store.upgrade())) {
            (Act::Panic(name), _) if name == hook => panic!("in {hook}"),
            (Act::Write, Some(db)) => refuses_every_write(db),
            _ => {}
        }
    }

    /// The calls since the last time, without those that only ask.
    fn take(&self) -> Vec<String> {
        let mut calls = std::mem::take(&mut *self.calls.lock().unwrap());
        calls.retain(|call| call.starts_with(['+', '-']));
        calls
    }

    fn set(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }
}

impl Lessor for Log {
    fn opened(&self, db: WeakDb) {
        *self.store.lock().unwrap() = Some(db);
        self.called("opened", "opened".into());
    }

    fn exists(&self, lease: LeaseId) -> bool {
        self.called("exists", format!("exists {}", lease.0));
        lease.0 < 100
    }

    fn lease_of(&self, key: &[u8]) -> Option<LeaseId> {
        self.called("lease_of", format!("lease_of {}", key.escape_ascii()));
        None
    }

    fn attach(&self, lease: LeaseId, key: &[u8]) {
        self.called("attach", format!("+{} {}", lease.0, key.escape_ascii()));
    }

    fn detach(&self, lease: LeaseId, key: &[u8]) {
        self.called("detach", format!("-{} {}", lease.0, key.escape_ascii()));
    }
}

/// Every verb that writes is refused here, at once; reads go on.
fn refuses_every_write(db: Db) {
    fn refused<T>(what: &str, result: revtree::Result<T>) {
        assert!(matches!(result, Err(Error::InCallback)), "{what}");
    }
    refused("put", db.put("x", "1"));
    refused("delete", db.delete("x"));
    refused("delete_range", db.delete_range(..));
    refused("write", db.write().map(|_| ()));
    refused("try_write", db.try_write().map(|_| ()));
    refused("write_at_index", db.write_at_index(99).map(|_| ()));
    refused("raise_consistent_index", db.raise_consistent_index(99));
    refused("compact", db.compact(1));
    db.get("x").unwrap();
    db.read().unwrap().range(..).count().unwrap();
    refused("close", db.close());
}

fn open(log: &Arc<Log>) -> Db {
    let lessor = Arc::clone(log);
    Options::new().lessor(lessor).open_in_memory().unwrap()
}

fn put(db: &Db, key: &str, lease: i64) -> revtree::Result<()> {
    let mut txn = db.write()?;
    txn.put_with_lease(key, "v", LeaseId(lease))?;
    txn.commit().map(|_| ())
}

/// Attach and detach come at commit, in the order of the changes, only when the lease changes; an abort
/// calls nothing; a lease that the lessor does not know is refused.
#[test]
fn hooks_tell_what_was_committed() {
    let log = Log::new(Act::Nothing);
    let db = open(&log);
    put(&db, "a", 1).unwrap();
    assert_eq!(log.take(), ["+1 a"]);
    put(&db, "a", 1).unwrap();
    assert_eq!(log.take(), [""; 0]);
    put(&db, "a", 2).unwrap();
    assert_eq!(log.take(), ["-1 a", "+2 a"]);
    db.put("a", "v").unwrap();
    assert_eq!(log.take(), ["-2 a"]);
    let mut txn = db.write().unwrap();
    txn.put_with_lease("b", "v", LeaseId(3)).unwrap();
    txn.put_with_lease("a", "v", LeaseId(4)).unwrap();
    txn.delete("b").unwrap();
    assert_eq!(log.take(), [""; 0]);
    txn.commit().unwrap();
    assert_eq!(log.take(), ["+3 b", "+4 a", "-3 b"]);
    let mut txn = db.write().unwrap();
    txn.put_with_lease("c", "v", LeaseId(5)).unwrap();
    drop(txn);
    assert_eq!(log.take(), [""; 0]);
    assert!(matches!(
        put(&db, "d", 100),
        Err(Error::LeaseNotFound(LeaseId(100)))
    ));
    db.delete("a").unwrap();
    assert_eq!(log.take(), ["-4 a"]);
}

/// After an open each living key with a lease is attached, before the store is handed out.
#[test]
fn hooks_after_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    for (key, lease) in [("a", 1), ("b", 2), ("c", 3)] {
        put(&db, key, lease).unwrap();
    }
    db.delete("b").unwrap();
    db.put("c", "none").unwrap();
    put(&db, "d", -4).unwrap();
    db.close().unwrap();
    let log = Log::new(Act::Write);
    let db = Options::new().lessor(log.clone()).open(&path).unwrap();
    assert_eq!(*log.calls.lock().unwrap(), ["+1 a", "+-4 d", "opened"]);
    assert!(
        log.store
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .upgrade()
            .is_some()
    );
    drop(db);
    // What a lessor keeps does not keep the store open.
    assert!(
        log.store
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .upgrade()
            .is_none()
    );
    Db::open(&path).unwrap();
}

/// A write from inside any hook is refused with `InCallback`; nothing waits for itself.
#[test]
fn a_write_inside_a_hook_is_refused() {
    let log = Log::new(Act::Write);
    let db = open(&log);
    put(&db, "a", 1).unwrap();
    put(&db, "a", 2).unwrap();
    db.put("a", "v").unwrap();
    put(&db, "a", 3).unwrap();
    db.delete("a").unwrap();
    // Every hook was there.
    let calls = log.calls.lock().unwrap();
    for hook in ["opened", "exists", "lease_of", "+", "-"] {
        assert!(calls.iter().any(|call| call.starts_with(hook)), "{hook}");
    }
    assert_eq!(db.rev().get(), 6);
    drop(calls);
    // Outside of the hooks this thread may write again.
    db.put("b", "v").unwrap();
}

/// A panic in a hook at commit: the commit stands, the panic goes on in the caller's thread, the next
/// write has its turn, and nothing is poisoned.
#[test]
fn a_panic_in_a_hook_leaves_the_commit() {
    let writes: [fn(&Db); 4] = [
        |db| put(db, "k", 2).unwrap(),
        |db| {
            db.put("k", "v").unwrap();
        },
        |db| {
            db.delete("k").unwrap();
        },
        |db| {
            let mut txn = db.write().unwrap();
            txn.put_with_lease("k", "v", LeaseId(3)).unwrap();
            let _ = txn.submit();
        },
    ];
    for hook in ["lease_of", "detach"] {
        for write in writes {
            let log = Log::new(Act::Nothing);
            let db = open(&log);
            put(&db, "k", 1).unwrap();
            log.set(Act::Panic(hook));
            let caught = catch_unwind(AssertUnwindSafe(|| write(&db))).unwrap_err();
            assert_eq!(*caught.downcast::<String>().unwrap(), format!("in {hook}"));
            log.set(Act::Nothing);
            assert_eq!((db.rev().get(), db.durable_rev().get()), (3, 3), "{hook}");
            let kept = db.read().unwrap().history("k").unwrap().count();
            assert_eq!(kept, 2, "{hook}");
            assert!(db.try_write().unwrap().is_some());
            put(&db, "k", 9).unwrap();
            assert_eq!(db.rev().get(), 4);
            assert_eq!(log.take().last().unwrap(), "+9 k");
            db.close().unwrap();
        }
    }
}

/// One panic in the middle of a transaction with several leases: the other keys are still told.
#[test]
fn a_panic_in_a_hook_does_not_hide_the_others() {
    let log = Log::new(Act::Panic("detach"));
    let db = open(&log);
    put(&db, "a", 1).unwrap();
    let mut txn = db.write().unwrap();
    txn.delete("a").unwrap();
    txn.put_with_lease("b", "v", LeaseId(2)).unwrap();
    log.take();
    catch_unwind(AssertUnwindSafe(|| txn.commit())).unwrap_err();
    assert_eq!(log.take(), ["-1 a", "+2 b"]);
    assert_eq!(db.rev().get(), 3);
}

/// A panic while the lessor is asked for a lease: the transaction is as before and can go on.
#[test]
fn a_panic_in_exists_leaves_the_transaction() {
    let log = Log::new(Act::Panic("exists"));
    let db = open(&log);
    let mut txn = db.write().unwrap();
    txn.put("a", "1").unwrap();
    let put = catch_unwind(AssertUnwindSafe(|| {
        txn.put_with_lease("b", "1", LeaseId(1))
    }));
    assert!(put.is_err());
    assert_eq!(txn.changes().len(), 1);
    assert_eq!(txn.commit().unwrap().changes, 1);
    assert!(db.get("b").unwrap().is_none());
}

/// A panic in a hook while a store is opened: the open fails with it, and the file is free again.
#[test]
fn a_panic_while_opening_frees_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    put(&db, "a", 1).unwrap();
    db.close().unwrap();
    for hook in ["attach", "opened"] {
        let log = Log::new(Act::Panic(hook));
        let opened = catch_unwind(|| Options::new().lessor(log).open(&path).map(|_| ()));
        assert!(opened.is_err(), "{hook}");
        let db = Db::open(&path).unwrap();
        assert_eq!(db.get("a").unwrap().unwrap().lease, LeaseId(1));
        db.close().unwrap();
    }
}

/// A write from inside a report of progress is refused too: a restore loads in the writer's turn.
#[test]
fn a_write_inside_a_report_of_progress_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let store = Arc::new(Mutex::new(None::<WeakDb>));
    let told = Arc::new(Mutex::new(0));
    let (inner, count) = (Arc::clone(&store), Arc::clone(&told));
    let options = Options::new().on_progress(move |_| {
        let db = inner.lock().unwrap().as_ref().and_then(WeakDb::upgrade);
        if let Some(db) = db {
            // Only those that would not wait for ever are tried where the rule does not hold.
            assert!(matches!(db.try_write(), Err(Error::InCallback)));
            refuses_every_write(db);
            *count.lock().unwrap() += 1;
        }
    });
    let db = options.open(&path).unwrap();
    db.put("a", "1").unwrap();
    // A copy of a store that was not closed has no index run: its records are read, and reported.
    std::fs::copy(&path, &copy).unwrap();
    *store.lock().unwrap() = Some(db.downgrade());
    db.restore(&copy).unwrap();
    assert!(*told.lock().unwrap() > 0);
    assert_eq!(db.put("a", "2").unwrap().get(), 3);
}

/// A lessor with an opinion of its own is asked for it only when there is a key that may hold a lease.
#[test]
fn a_new_key_holds_no_lease() {
    #[derive(Default)]
    struct Stubborn(Mutex<Vec<String>>);
    impl Lessor for Stubborn {
        fn lease_of(&self, _: &[u8]) -> Option<LeaseId> {
            Some(LeaseId(7))
        }

        fn attach(&self, lease: LeaseId, _: &[u8]) {
            self.0.lock().unwrap().push(format!("+{}", lease.0));
        }

        fn detach(&self, lease: LeaseId, _: &[u8]) {
            self.0.lock().unwrap().push(format!("-{}", lease.0));
        }
    }
    let lessor = Arc::new(Stubborn::default());
    let db = Options::new()
        .lessor(lessor.clone())
        .open_in_memory()
        .unwrap();
    let told = || std::mem::take(&mut *lessor.0.lock().unwrap());
    db.put("a", "1").unwrap();
    assert_eq!(told(), [""; 0]);
    put(&db, "b", 7).unwrap();
    assert_eq!(told(), ["+7"]);
    put(&db, "b", 7).unwrap();
    assert_eq!(told(), [""; 0]);
    let mut txn = db.write().unwrap();
    txn.delete("b").unwrap();
    txn.put_with_lease("b", "1", LeaseId(7)).unwrap();
    txn.commit().unwrap();
    assert_eq!(told(), ["-7", "+7"]);
    db.put("b", "1").unwrap();
    assert_eq!(told(), ["-7"]);
}
