//! What closing waits for, what it leaves usable, and what the last handle does without asking.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use revtree::{Create, Db, Durability, Error, Options};

use super::{memory, waiting};

fn store() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    (dir, path)
}

fn lazy() -> Options {
    Options::new().durability(Durability::Batched {
        changes: u32::MAX,
        interval: std::time::Duration::from_secs(100_000),
    })
}

fn is_locked_by_us(path: &Path) -> bool {
    match Db::open(path) {
        Ok(_) => false,
        Err(Error::Locked {
            by_this_process, ..
        }) => by_this_process,
        Err(other) => panic!("{other}"),
    }
}

/// `close` waits for the write transaction in flight, whose commit stands.
#[test]
fn close_waits_for_the_write_transaction() {
    let (_dir, path) = store();
    let db = Db::open(&path).unwrap();
    let mut txn = db.write().unwrap();
    let closed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = db.clone();
        let closing = waiting(scope, || {
            other.close().unwrap();
            closed.store(true, Ordering::SeqCst);
        });
        assert!(!closed.load(Ordering::SeqCst), "it did not wait");
        txn.put("a", "1").unwrap();
        assert_eq!(txn.commit().unwrap().revision.get(), 2);
        closing.join().unwrap();
    });
    drop(db);
    let db = Db::open(&path).unwrap();
    assert!(db.recovery().clean);
    assert_eq!(db.get("a").unwrap().unwrap().value, "1");
}

/// Who waits for the turn while the store is closed gets `Closed`.
#[test]
fn a_waiting_writer_is_told_of_the_close() {
    let db = memory();
    let txn = db.write().unwrap();
    std::thread::scope(|scope| {
        let closing = waiting(scope, || db.clone().close());
        let writing = waiting(scope, || db.put("a", "1"));
        drop(txn);
        closing.join().unwrap().unwrap();
        assert!(matches!(writing.join().unwrap(), Err(Error::Closed)));
    });
}

/// After a close every verb of every other clone answers `Closed`.
#[test]
fn other_clones_get_closed() {
    fn closed<T>(what: &str, result: revtree::Result<T>) {
        match result {
            Err(Error::Closed) => {}
            Err(other) => panic!("{what}: {other}"),
            Ok(_) => panic!("{what} still works"),
        }
    }
    let db = memory();
    db.put("a", "1").unwrap();
    let other = db.clone();
    other.close().unwrap();
    closed("get", db.get("a"));
    closed("put", db.put("a", "2"));
    closed("delete", db.delete("a"));
    closed("delete_range", db.delete_range(..));
    closed("read", db.read());
    closed("read_at", db.read_at(2));
    closed("write", db.write());
    closed("try_write", db.try_write());
    closed("write_at_index", db.write_at_index(7));
    closed("raise_consistent_index", db.raise_consistent_index(7));
    closed("sync", db.sync());
    closed("compact", db.compact(2));
    closed("hash", db.hash(&[]));
    closed("hash_by_rev", db.hash_by_rev(0));
    closed("check", db.check());
    closed("close", db.close());
}

/// Views stay exact after the close, whatever is asked of them; the file stays locked until the last one
/// is gone.
#[test]
fn views_outlive_the_close() {
    let (_dir, path) = store();
    let db = Db::open(&path).unwrap();
    for n in 0..500 {
        db.put(format!("k{n:03}"), vec![b'x'; 1000]).unwrap();
    }
    db.delete("k000").unwrap();
    let (view, old) = (db.read().unwrap(), db.read_at(10).unwrap());
    let records = db.read().unwrap().into_range("k1".."k2");
    db.put("k100", "later").unwrap();
    db.close().unwrap();
    assert_eq!(view.range(..).count().unwrap(), 499);
    for record in view.range(..) {
        assert_eq!(record.unwrap().value(), [b'x'; 1000]);
    }
    assert_eq!(old.range(..).collect().unwrap().kvs.len(), 9);
    assert_eq!(view.range(..).at(5).unwrap().count().unwrap(), 4);
    assert_eq!(view.history("k000").unwrap().count(), 2);
    assert_eq!(
        view.changes(.., 2.into()..=view.rev()).unwrap().count(),
        501
    );
    for kept in [true, false] {
        assert!(is_locked_by_us(&path));
        if kept {
            drop((view.clone(), old.clone()));
        }
    }
    drop((view, old));
    assert!(is_locked_by_us(&path));
    assert!(
        records
            .map(Result::unwrap)
            .all(|kv| kv.value == vec![b'x'; 1000])
    );
    assert_eq!(
        Db::open(&path).unwrap().get("k100").unwrap().unwrap().value,
        "later"
    );
}

/// Shared bytes alone keep the file locked, and stay what they were.
#[test]
fn shared_bytes_outlive_the_close() {
    let (_dir, path) = store();
    let db = Db::open(&path).unwrap();
    db.put("a", vec![7; 5000]).unwrap();
    let shared = db.read().unwrap().get("a").unwrap().unwrap().share();
    let (event, copied) = {
        let view = db.read().unwrap();
        let event = view.history("a").unwrap().next().unwrap().unwrap();
        (event, view.get("a").unwrap().unwrap().to_key_value())
    };
    db.close().unwrap();
    assert!(is_locked_by_us(&path));
    assert_eq!(shared.value, vec![7; 5000]);
    let part = shared.value.slice(10..20);
    drop(shared);
    assert!(is_locked_by_us(&path));
    drop(event);
    assert!(is_locked_by_us(&path));
    assert_eq!(part, vec![7; 10]);
    drop(part);
    // A copy pins nothing.
    Db::open(&path).unwrap().put("a", "other").unwrap();
    assert_eq!(copied.value, vec![7; 5000]);
}

/// Dropping the last handle closes the store: nothing has to be replayed, and no commit is lost.
#[test]
fn dropping_the_last_handle_closes() {
    let (_dir, path) = store();
    for n in 0..5u64 {
        let options = if n % 2 == 0 { Options::new() } else { lazy() };
        let db = options.open(&path).unwrap();
        assert!(db.recovery().clean);
        assert_eq!(db.rev().get(), n + 1);
        let clone = db.clone();
        drop(db);
        clone.put("n", n.to_string()).unwrap();
    }
}

/// A commit that was submitted is not lost with its handle, nor with the store's.
#[test]
fn dropping_does_not_undo_a_submitted_commit() {
    let (_dir, path) = store();
    let db = Db::open(&path).unwrap();
    let mut txn = db.write().unwrap();
    txn.put("a", "1").unwrap();
    drop(txn.submit().unwrap());
    let mut txn = db.write().unwrap();
    txn.put("b", "1").unwrap();
    let submitted = txn.submit().unwrap();
    drop(db);
    assert!(submitted.wait().unwrap().durable);
    let db = Options::new().create(Create::Never).open(&path).unwrap();
    assert_eq!(
        (
            db.rev().get(),
            db.read().unwrap().range(..).count().unwrap()
        ),
        (3, 2)
    );
}

/// The write transaction in flight is part of the store: it can be committed after the last handle is gone,
/// which closes the store then.
#[test]
fn a_write_transaction_outlives_the_last_handle() {
    let (_dir, path) = store();
    let db = Db::open(&path).unwrap();
    let weak = db.downgrade();
    let mut txn = db.write().unwrap();
    drop(db);
    txn.put("a", "1").unwrap();
    assert!(is_locked_by_us(&path));
    let commit = txn.commit().unwrap();
    assert_eq!((commit.revision.get(), commit.durable), (2, true));
    assert!(weak.upgrade().is_none());
    let db = Db::open(&path).unwrap();
    assert!(db.recovery().clean);
    assert_eq!(db.get("a").unwrap().unwrap().value, "1");
    // Given up, it closes as well.
    let txn = db.write().unwrap();
    drop(db);
    drop(txn);
    assert!(Db::open(&path).unwrap().recovery().clean);
}

/// Nothing of a closed store is left to do: it opens clean, also when nothing was ever written.
#[test]
fn an_untouched_store_closes_clean() {
    let (_dir, path) = store();
    for _ in 0..3 {
        let db = Db::open(&path).unwrap();
        assert!(db.recovery().clean);
        assert_eq!(db.rev().get(), 1);
        db.close().unwrap();
    }
}
