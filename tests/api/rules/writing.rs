//! One writer, turns, aborts, savepoints, comparisons.

use std::sync::Mutex;

use revtree::{Applied, Error, Expect, KeyRange, LeaseId, Revision};

use super::{memory, waiting};

/// Writers get their turns in the order in which they came, also when the last holder asks again at once.
#[test]
fn turns_are_first_come_first_served() {
    let db = memory();
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let holder = db.write().unwrap();
        for n in 0..5 {
            let (db, order) = (&db, &order);
            waiting(scope, move || {
                let mut txn = db.write().unwrap();
                order.lock().unwrap().push(n);
                txn.put("turn", n.to_string()).unwrap();
                txn.commit().unwrap();
            });
        }
        drop(holder);
        // Everybody else came before.
        let _txn = db.write().unwrap();
        order.lock().unwrap().push(5);
    });
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(db.rev().get(), 6);
}

/// `try_write` does not wait: `None` while a transaction is open, in whatever thread.
#[test]
fn try_write_does_not_wait() {
    let db = memory();
    let txn = db.write().unwrap();
    assert!(db.try_write().unwrap().is_none());
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(db.try_write().unwrap().is_none()));
    });
    drop(txn);
    let mut txn = db.try_write().unwrap().unwrap();
    txn.put("a", "1").unwrap();
    assert_eq!(txn.commit().unwrap().revision.get(), 2);
}

/// An abort leaves no trace that can be read back.
#[test]
fn abort_leaves_no_trace() {
    let db = memory();
    db.put("a", "1").unwrap();
    db.raise_consistent_index(3).unwrap();
    let hash = db.hash(&[]).unwrap();
    for abort in [drop as fn(revtree::WriteTxn), revtree::WriteTxn::abort] {
        let mut txn = db.write().unwrap();
        txn.put("a", "2").unwrap();
        txn.put_with_lease("b", "1", LeaseId(7)).unwrap();
        txn.delete_range(..).unwrap();
        txn.put("c", vec![0; 300_000]).unwrap();
        txn.table("rows").unwrap().put(b"k", b"v").unwrap();
        txn.set_applied(Applied { index: 9, term: 9 });
        abort(txn);
        let view = db.read().unwrap();
        assert_eq!((db.rev().get(), view.rev().get()), (2, 2));
        assert_eq!(db.consistent_index(), Applied { index: 3, term: 0 });
        assert_eq!(view.range(..).count().unwrap(), 1);
        assert_eq!(view.get("a").unwrap().unwrap().value(), b"1");
        assert!(view.get("b").unwrap().is_none());
        assert_eq!(view.tables().count(), 0);
        assert_eq!(db.hash(&[]).unwrap(), hash);
    }
    // Neither revision nor version were used up.
    assert_eq!(db.put("a", "2").unwrap().get(), 3);
    assert_eq!(db.get("a").unwrap().unwrap().version, 2);
}

/// A transaction without a change makes no revision; one that changes only a table or the index makes none
/// either, but saves them.
#[test]
fn revisions_are_for_changes_of_keys() {
    let db = memory();
    let commit = db.write().unwrap().commit().unwrap();
    assert_eq!((commit.revision.get(), commit.changes), (1, 0));
    let mut txn = db.write().unwrap();
    txn.delete("missing").unwrap();
    assert_eq!(txn.commit().unwrap().revision.get(), 1);
    let mut txn = db.write().unwrap();
    txn.table("rows").unwrap().put(b"k", b"v").unwrap();
    txn.set_applied(Applied { index: 4, term: 2 });
    let commit = txn.commit().unwrap();
    assert_eq!((commit.revision.get(), commit.changes), (1, 0));
    assert_eq!(db.consistent_index(), Applied { index: 4, term: 2 });
    assert_eq!(
        db.read().unwrap().table("rows").get(b"k").unwrap().unwrap(),
        "v"
    );
}

/// The consistent index never goes down, whoever asks for it.
#[test]
fn consistent_index_only_rises() {
    let db = memory();
    assert_eq!(db.raise_consistent_index(5).unwrap().index, 5);
    assert_eq!(db.raise_consistent_index(4).unwrap().index, 5);
    let mut txn = db.write().unwrap();
    txn.set_applied(Applied { index: 2, term: 7 });
    txn.commit().unwrap();
    assert_eq!(db.consistent_index(), Applied { index: 5, term: 7 });
    assert!(db.write_at_index(5).unwrap().is_none());
    // A refused entry has given the turn back.
    assert!(db.write_at_index(6).unwrap().is_some());
    assert!(db.write_at_index(6).unwrap().is_some());
}

/// A savepoint takes back keys, deletes, tables and index, and what came before it stays.
#[test]
fn savepoints() {
    let db = memory();
    db.put("old", "1").unwrap();
    let mut txn = db.write().unwrap();
    txn.put("a", "1").unwrap();
    txn.table("rows").unwrap().put(b"k", b"1").unwrap();
    let savepoint = txn.savepoint();
    txn.put("a", "2").unwrap();
    txn.put("b", "1").unwrap();
    txn.delete_range(..).unwrap();
    txn.put("a", "3").unwrap();
    txn.table("rows").unwrap().put(b"k", b"2").unwrap();
    txn.table("more").unwrap().put(b"k", b"1").unwrap();
    txn.set_applied(Applied { index: 8, term: 1 });
    let later = txn.savepoint();
    txn.roll_back_to(savepoint).unwrap();
    let keys: Vec<_> = txn
        .range(..)
        .iter()
        .map(|record| record.unwrap().to_key_value())
        .map(|kv| (kv.key, kv.value, kv.version))
        .collect();
    assert_eq!(
        keys,
        [("a".into(), "1".into(), 1), ("old".into(), "1".into(), 1)]
    );
    assert_eq!(txn.range(..).count().unwrap(), 2);
    assert_eq!(txn.changes().len(), 1);
    assert_eq!(txn.table("rows").unwrap().get(b"k").unwrap().unwrap(), "1");
    // What was taken back cannot be gone back to; the same point can, again.
    assert!(matches!(
        txn.roll_back_to(later),
        Err(Error::LimitReached { .. })
    ));
    txn.put("c", "1").unwrap();
    txn.roll_back_to(savepoint).unwrap();
    let commit = txn.commit().unwrap();
    assert_eq!((commit.revision.get(), commit.changes), (3, 1));
    let view = db.read().unwrap();
    assert_eq!(view.tables().collect::<Vec<_>>(), ["rows"]);
    assert_eq!(db.consistent_index(), Applied::default());
    assert_eq!(view.range(..).count().unwrap(), 2);
}

/// A savepoint of a transaction that went back and on again is not mistaken for one on the new way.
#[test]
fn a_savepoint_of_another_way_is_refused() {
    let db = memory();
    let mut txn = db.write().unwrap();
    let begin = txn.savepoint();
    txn.put("a", "1").unwrap();
    txn.table("rows").unwrap().put(b"k", b"1").unwrap();
    let old_way = txn.savepoint();
    txn.roll_back_to(begin).unwrap();
    txn.put("b", "1").unwrap();
    txn.put("c", "1").unwrap();
    txn.table("other").unwrap().put(b"k", b"1").unwrap();
    txn.table("other").unwrap().put(b"l", b"1").unwrap();
    assert!(matches!(
        txn.roll_back_to(old_way),
        Err(Error::LimitReached { .. })
    ));
    txn.commit().unwrap();
    let view = db.read().unwrap();
    assert_eq!(view.range(..).count().unwrap(), 2);
    assert_eq!(view.tables().collect::<Vec<_>>(), ["other"]);
}

/// What `require` accepts: a missing key has revision and version 0 and no value, as in etcd.
#[test]
fn expectations() {
    let db = memory();
    db.put("k", "1").unwrap();
    db.put("k", "2").unwrap();
    let (two, three, zero) = (Revision::new(2), Revision::new(3), Revision::new(0));
    let table = [
        // What is expected; whether it holds of k (created at 2, changed at 3, version 2), of nothing.
        (Expect::Missing, false, true),
        (Expect::Exists, true, false),
        (Expect::ModRevision(three), true, false),
        (Expect::ModRevision(two), false, false),
        (Expect::ModRevision(zero), false, true),
        (Expect::CreateRevision(two), true, false),
        (Expect::CreateRevision(zero), false, true),
        (Expect::Version(2), true, false),
        (Expect::Version(0), false, true),
        (Expect::Value(b"2"), true, false),
        (Expect::Value(b"1"), false, false),
        (Expect::Value(b""), false, false),
    ];
    let mut txn = db.write().unwrap();
    for (expect, of_key, of_nothing) in table {
        assert_eq!(txn.require("k", expect).is_ok(), of_key, "{expect:?}");
        assert_eq!(
            txn.require("none", expect).is_ok(),
            of_nothing,
            "{expect:?}"
        );
    }
    match txn.require("k", Expect::Missing) {
        Err(Error::Conflict { key, found }) => {
            assert_eq!(key, "k");
            assert_eq!(found.unwrap().value, "2");
        }
        other => panic!("{other:?}"),
    }
    // The transaction's own changes count.
    txn.put("none", "1").unwrap();
    txn.delete("k").unwrap();
    txn.require("none", Expect::ModRevision(Revision::new(4)))
        .unwrap();
    txn.require("k", Expect::Missing).unwrap();
    txn.require("k", Expect::Version(0)).unwrap();
}

/// The changes of an open transaction, in order; a delete has its key and the revision only.
#[test]
fn changes_of_a_transaction() {
    let db = memory();
    db.put("b", "1").unwrap();
    db.put("a", "1").unwrap();
    let mut txn = db.write().unwrap();
    txn.put_with_lease("c", "1", LeaseId(5)).unwrap();
    txn.delete_range(KeyRange::all()).unwrap();
    let told: Vec<_> = txn
        .changes()
        .iter()
        .map(|event| {
            let kv = &event.kv;
            let id = (event.id.main.get(), event.id.sub);
            (
                id,
                kv.key.clone(),
                kv.version,
                kv.lease.0,
                kv.mod_revision.get(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ((4, 0), "c".into(), 1, 5, 4),
            ((4, 1), "a".into(), 0, 0, 4),
            ((4, 2), "b".into(), 0, 0, 4),
            ((4, 3), "c".into(), 0, 0, 4),
        ]
    );
    txn.commit().unwrap();
    // The same as history tells.
    let view = db.read().unwrap();
    let events = view.changes(.., 4.into()..=4.into()).unwrap();
    let written: Vec<_> = events.map(|event| event.unwrap().kv.key).collect();
    assert_eq!(written, ["c", "a", "b", "c"]);
}

/// The consistent index is a part of what savepoints are about: a later savepoint cannot bring back an index
/// that was taken back.
#[test]
fn a_savepoint_does_not_bring_an_index_back() {
    let db = memory();
    let mut txn = db.write_at_index(1).unwrap().unwrap();
    let first = txn.savepoint();
    txn.set_applied(Applied { index: 5, term: 2 });
    let second = txn.savepoint();
    txn.set_applied(Applied { index: 6, term: 2 });
    txn.roll_back_to(second).unwrap();
    txn.roll_back_to(first).unwrap();
    assert!(matches!(
        txn.roll_back_to(second),
        Err(Error::LimitReached { .. })
    ));
    txn.set_applied(Applied { index: 3, term: 1 });
    assert!(txn.roll_back_to(second).is_err());
    txn.roll_back_to(first).unwrap();
    txn.commit().unwrap();
    assert_eq!(db.consistent_index(), Applied { index: 1, term: 0 });
}
