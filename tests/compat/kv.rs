//! etcd's `kv_test.go`: the black-box tests of the key-value interface, plain and in a transaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use revtree::{Db, KeyRange};

use crate::support::{
    Row, Through, change_of, delete, leased, memory, put, range as read, refusal, row, row_of, rows,
};

/// foo, foo1, foo2 at revisions 2, 3, 4.
fn three_keys() -> (Db, Vec<Row>) {
    let db = memory();
    let mut all = Vec::new();
    for (n, (key, value)) in [("foo", "bar"), ("foo1", "bar1"), ("foo2", "bar2")]
        .into_iter()
        .enumerate()
    {
        let rev = n as u64 + 2;
        assert_eq!(db.put(key, value).unwrap().get(), rev);
        all.push(row(key, value, rev, rev, 1));
    }
    (db, all)
}

fn check_range(through: Through) {
    let (db, all) = three_keys();
    let between =
        |start: &str, end: &str| KeyRange::from_etcd(start.as_bytes(), Some(end.as_bytes()));
    let single = |key: &str| KeyRange::from_etcd(key.as_bytes(), None);
    let table = [
        // Nothing there: single, and as an interval before and behind.
        (single("doo"), 0..0),
        (between("doo", "foo"), 0..0),
        (between("fooo", "g"), 0..0),
        // An end at or before the start is empty.
        (between("foo", "foo"), 0..0),
        (between("foo2", "foo"), 0..0),
        // One key, by name and as an interval.
        (single("foo"), 0..1),
        (between("foo", "foo1"), 0..1),
        // All, some at the start, some in the middle.
        (between("foo", "foo3"), 0..3),
        (between("foo", "foo2"), 0..2),
        (between("foo1", "foo3"), 1..3),
        // From a key on, and the whole space.
        (KeyRange::from_etcd(b"foo1", Some(b"")), 1..3),
        (KeyRange::from_etcd(b"", Some(b"")), 0..3),
    ];
    for (keys, expected) in table {
        let found = read(&db, through, keys.clone(), 0, 0).unwrap();
        assert_eq!(rows(&found), all[expected.clone()], "{keys:?}");
        assert_eq!(found.revision.get(), 4, "{keys:?}");
        assert_eq!(found.count, expected.len() as u64, "{keys:?}");
        assert!(!found.more);
    }
}

/// TestKVRange: the forms of a range, hit and missed; the result's revision is the store's.
#[test]
fn range() {
    check_range(Through::Store);
}

/// TestKVTxnRange: the same inside a write transaction.
#[test]
fn txn_range() {
    check_range(Through::Txn);
}

fn check_range_rev(through: Through) {
    let (db, all) = three_keys();
    for (rev, expected) in [(0, 3), (2, 1), (3, 2), (4, 3), (1, 0)] {
        let found = read(&db, through, ("foo".."foo3").into(), rev, 0).unwrap();
        assert_eq!(rows(&found), all[..expected], "at {rev}");
        assert_eq!(found.revision.get(), 4, "at {rev}");
    }
}

/// TestKVRangeRev: an old revision shows the keys of its time, and the result says the current revision.
#[test]
fn range_rev() {
    check_range_rev(Through::Store);
}

/// TestKVTxnRangeRev: the same inside a write transaction.
#[test]
fn txn_range_rev() {
    check_range_rev(Through::Txn);
}

fn check_range_bad_rev(through: Through) {
    let (db, _) = three_keys();
    db.compact(4).unwrap();
    for (rev, expected) in [
        (0, "ok"),
        (1, "compacted"),
        (2, "compacted"),
        (3, "compacted"),
        (4, "ok"),
        (5, "future"),
        (100, "future"),
    ] {
        let found = read(&db, through, ("foo".."foo3").into(), rev, 0);
        assert_eq!(refusal(found), expected, "at {rev}");
        if let Through::Store = through {
            assert_eq!(refusal(db.read_at(rev)), expected, "a view at {rev}");
        }
    }
}

/// TestKVRangeBadRev: below the compact revision compacted, above the current one future, at both ok.
#[test]
fn range_bad_rev() {
    check_range_bad_rev(Through::Store);
}

/// TestKVTxnRangeBadRev: the same inside a write transaction.
#[test]
fn txn_range_bad_rev() {
    check_range_bad_rev(Through::Txn);
}

fn check_range_limit(through: Through) {
    let (db, all) = three_keys();
    for (limit, expected) in [(0, 3), (1, 1), (2, 2), (3, 3), (100, 3)] {
        let found = read(&db, through, ("foo".."foo3").into(), 0, limit).unwrap();
        assert_eq!(rows(&found), all[..expected], "limit {limit}");
        assert_eq!((found.count, found.revision.get()), (3, 4), "limit {limit}");
        assert_eq!(found.more, expected < 3, "limit {limit}");
    }
}

/// TestKVRangeLimit: a limit cuts the records and never the count.
#[test]
fn range_limit() {
    check_range_limit(Through::Store);
}

/// TestKVTxnRangeLimit: the same inside a write transaction.
#[test]
fn txn_range_limit() {
    check_range_limit(Through::Txn);
}

fn check_put_multiple_times(through: Through) {
    let db = memory();
    for n in 0..10u64 {
        let lease = i64::try_from(n).unwrap() + 1;
        assert_eq!(put(&db, through, "foo", "bar", lease).get(), n + 2);
        let found = read(&db, through, "foo".into(), 0, 0).unwrap();
        let expected = leased(row("foo", "bar", 2, n + 2, n + 1), lease);
        assert_eq!(rows(&found), [expected]);
    }
}

/// TestKVPutMultipleTimes: mod revision and version go up, create revision stays, the lease is the last.
#[test]
fn put_multiple_times() {
    check_put_multiple_times(Through::Store);
}

/// TestKVTxnPutMultipleTimes: the same with a transaction for each put.
#[test]
fn txn_put_multiple_times() {
    check_put_multiple_times(Through::Txn);
}

fn check_delete_range(through: Through) {
    let table: [(KeyRange, u64, u64); 6] = [
        ("foo".into(), 1, 5),
        (("foo".."foo1").into(), 1, 5),
        (("foo".."foo2").into(), 2, 5),
        (("foo".."foo3").into(), 3, 5),
        (("foo3".."foo8").into(), 0, 4),
        (("foo3".."foo3").into(), 0, 4),
    ];
    for (keys, count, rev) in table {
        let (db, _) = three_keys();
        assert_eq!(delete(&db, through, keys.clone()), (count, rev), "{keys:?}");
        assert_eq!(db.rev().get(), rev);
        assert_eq!(db.read().unwrap().range(..).count().unwrap(), 3 - count);
    }
}

/// TestKVDeleteRange: number of keys deleted; the revision goes up only when there are any.
#[test]
fn delete_range() {
    check_delete_range(Through::Store);
}

/// TestKVTxnDeleteRange: the same inside a write transaction.
#[test]
fn txn_delete_range() {
    check_delete_range(Through::Txn);
}

fn check_delete_multiple_times(through: Through) {
    let db = memory();
    db.put("foo", "bar").unwrap();
    assert_eq!(delete(&db, through, "foo".into()), (1, 3));
    for _ in 0..10 {
        assert_eq!(delete(&db, through, "foo".into()), (0, 3));
    }
    assert_eq!(db.rev().get(), 3);
}

/// TestKVDeleteMultipleTimes: deleting what is deleted does nothing and makes no revision.
#[test]
fn delete_multiple_times() {
    check_delete_multiple_times(Through::Store);
}

/// TestKVTxnDeleteMultipleTimes: the same inside a write transaction.
#[test]
fn txn_delete_multiple_times() {
    check_delete_multiple_times(Through::Txn);
}

fn check_put_with_same_lease(through: Through) {
    let db = memory();
    for n in 1..=2u64 {
        assert_eq!(put(&db, through, "foo", "bar", 1).get(), n + 1);
        let found = read(&db, through, "foo".into(), 0, 0).unwrap();
        assert_eq!(rows(&found), [leased(row("foo", "bar", 2, n + 1, n), 1)]);
    }
}

/// TestKVPutWithSameLease: the same lease again keeps it; the version goes up.
#[test]
fn put_with_same_lease() {
    check_put_with_same_lease(Through::Store);
}

/// TestKVTxnPutWithSameLease: the same with a transaction for each put.
#[test]
fn txn_put_with_same_lease() {
    check_put_with_same_lease(Through::Txn);
}

/// TestKVOperationInSequence: each put and delete is one revision; after a delete a key begins anew.
#[test]
fn operation_in_sequence() {
    let db = memory();
    for n in 0..10u64 {
        let base = n * 2 + 1;
        assert_eq!(db.put("foo", "bar").unwrap().get(), base + 1);
        let found = read(&db, Through::Store, "foo".into(), base + 1, 0).unwrap();
        assert_eq!(rows(&found), [row("foo", "bar", base + 1, base + 1, 1)]);
        assert_eq!(found.revision.get(), base + 1);
        assert_eq!(delete(&db, Through::Store, "foo".into()), (1, base + 2));
        let found = read(&db, Through::Store, "foo".into(), base + 2, 0).unwrap();
        assert_eq!((rows(&found), found.revision.get()), (vec![], base + 2));
    }
}

/// TestKVTxnBlockWriteOperations: a put or delete of the store waits while a write transaction is open.
#[test]
fn txn_block_write_operations() {
    let operations: [fn(&Db) -> u64; 2] = [
        |db| db.put("foo", "other").unwrap().get(),
        |db| db.delete("foo").unwrap().revision.get(),
    ];
    for operation in operations {
        let db = memory();
        let mut txn = db.write().unwrap();
        txn.put("foo", "bar").unwrap();
        let (done, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
        let thread = std::thread::spawn({
            let (db, done, begun) = (db.clone(), Arc::clone(&done), Arc::clone(&begun));
            move || {
                begun.wait();
                let rev = operation(&db);
                done.store(true, Ordering::SeqCst);
                rev
            }
        });
        begun.wait();
        for _ in 0..1000 {
            std::thread::yield_now();
            assert!(!done.load(Ordering::SeqCst), "it did not wait");
        }
        assert_eq!(txn.commit().unwrap().revision.get(), 2);
        // It came after the transaction, on top of it.
        assert_eq!(thread.join().unwrap(), 3);
    }
}

/// TestKVTxnNonBlockRange: reads do not wait for an open write transaction, nor see it.
#[test]
fn txn_non_block_range() {
    let db = memory();
    db.put("foo", "bar").unwrap();
    let mut txn = db.write().unwrap();
    txn.put("foo", "other").unwrap();
    // All of this in the thread that holds the transaction: waiting would be for ever.
    let found = read(&db, Through::Store, "foo".into(), 0, 0).unwrap();
    assert_eq!(rows(&found), [row("foo", "bar", 2, 2, 1)]);
    assert_eq!(row_of(&db.get("foo").unwrap().unwrap()).1, "bar");
    txn.commit().unwrap();
    assert_eq!(row_of(&db.get("foo").unwrap().unwrap()).1, "other");
}

/// TestKVTxnOperationInSequence: puts, reads and deletes of one transaction share one revision, each seen
/// by the next; every change is kept with its sub.
#[test]
fn txn_operation_in_sequence() {
    let db = memory();
    for n in 0..10u64 {
        let rev = n + 2;
        let mut txn = db.write().unwrap();
        assert_eq!(txn.range("foo").at(rev).unwrap_err().kind(), {
            revtree::ErrorKind::AskDifferently
        });
        assert_eq!(txn.put("foo", "bar").unwrap().get(), rev);
        let found = txn.range("foo").at(rev).unwrap().collect().unwrap();
        assert_eq!(rows(&found), [row("foo", "bar", rev, rev, 1)]);
        assert_eq!(found.revision.get(), rev);
        // Also when it asks for an older revision the result says where the transaction is.
        let found = txn.range("foo").at(rev - 1).unwrap().collect().unwrap();
        assert_eq!((rows(&found), found.revision.get()), (vec![], rev));
        let deleted = txn.delete("foo").unwrap();
        assert_eq!((deleted.count, deleted.revision.get()), (1, rev));
        let found = txn.range("foo").at(rev).unwrap().collect().unwrap();
        assert_eq!((rows(&found), found.revision.get()), (vec![], rev));
        assert_eq!(txn.rev().get(), rev - 1);
        assert_eq!(txn.commit().unwrap().revision.get(), rev);
        let view = db.read().unwrap();
        let changes = view.changes(.., rev.into()..=rev.into()).unwrap();
        let changes: Vec<_> = changes.map(|event| change_of(&event.unwrap())).collect();
        assert_eq!(changes, [format!("+{rev}.0"), format!("-{rev}.1")]);
    }
}

/// TestKVCompactReserveLastValue: after a compaction the newest value at its revision is still there.
#[test]
fn compact_reserve_last_value() {
    let db = memory();
    db.put("foo", "bar0").unwrap();
    db.put("foo", "bar1").unwrap();
    db.delete("foo").unwrap();
    db.put("foo", "bar2").unwrap();
    let expected = [
        vec![row("foo", "bar0", 2, 2, 1)],
        vec![row("foo", "bar1", 2, 3, 2)],
        vec![],
        vec![row("foo", "bar2", 5, 5, 1)],
    ];
    for (n, expected) in (0u64..).zip(expected) {
        let _ = db.compact(n + 1).unwrap().wait();
        let found = read(&db, Through::Store, "foo".into(), n + 2, 0).unwrap();
        assert_eq!(rows(&found), expected, "after compacting at {}", n + 1);
    }
}

/// TestKVCompactBad: 0 and 1 may be compacted once on any store; at or below is compacted, above future.
#[test]
fn compact_bad() {
    let (db, _) = three_keys();
    for (rev, expected) in [
        (0, "ok"),
        (1, "ok"),
        (1, "compacted"),
        (0, "compacted"),
        (4, "ok"),
        (5, "future"),
        (100, "future"),
    ] {
        assert_eq!(refusal(db.compact(rev)), expected, "compact at {rev}");
    }
    assert_eq!(db.compact_rev().unwrap().get(), 4);
}

/// TestKVHash: the same operations on new stores give the same hash of the whole store.
#[test]
fn hash() {
    let hashes: Vec<u32> = (0..3)
        .map(|_| {
            let db = memory();
            db.put("foo0", "bar0").unwrap();
            db.put("foo1", "bar0").unwrap();
            db.hash(revtree::DEFAULT_IGNORES).unwrap().hash
        })
        .collect();
    assert_eq!(hashes, [hashes[0]; 3]);
}

/// TestKVRestore: four histories read the same at every revision after a reopen, with as many live keys.
#[test]
fn restore() {
    let histories: [fn(&Db); 4] = [
        // Overwritten.
        |db| {
            db.put("foo", "bar0").unwrap();
            db.put("foo", "bar1").unwrap();
            db.put("foo", "bar2").unwrap();
            put(db, Through::Store, "foo2", "leased", 3);
        },
        // Deleted and made again.
        |db| {
            db.put("foo", "bar0").unwrap();
            db.delete("foo").unwrap();
            db.put("foo", "bar1").unwrap();
        },
        // Compacted.
        |db| {
            db.put("foo", "bar0").unwrap();
            db.put("foo", "bar1").unwrap();
            let _ = db.compact(1).unwrap().wait();
        },
        // Only a tombstone is left of a key.
        |db| {
            db.put("foo", "bar0").unwrap();
            db.put("foo2", "bar1").unwrap();
            db.delete("foo").unwrap();
            let _ = db.compact(4).unwrap().wait();
        },
    ];
    type Answer = (&'static str, Vec<Row>, u64);
    let read_all = |db: &Db| -> Vec<Answer> {
        let reads = (0..10).map(|rev| {
            let found = read(db, Through::Store, ("a".."z").into(), rev, 0);
            match found {
                Ok(found) => ("ok", rows(&found), found.count),
                Err(error) => (refusal(Err::<(), _>(error)), vec![], 0),
            }
        });
        reads.collect()
    };
    for (n, history) in histories.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let db = Db::open(&path).unwrap();
        history(&db);
        let before = (db.rev(), db.compact_rev(), read_all(&db));
        db.close().unwrap();
        let db = Db::open(&path).unwrap();
        let after = (db.rev(), db.compact_rev(), read_all(&db));
        assert_eq!(after, before, "history {n}");
    }
}
