//! etcd's `kvstore_compaction_test.go` and `store_test.go`, and its issues about compaction.

use revtree::{Applied, Db, Error, Options, Outcome, Revision};

use crate::support::{
    Change, at, change_of, commit_at, history, memory, refusal, retained, row, rows,
};

/// TestScheduleCompaction: what remains after compacting at each revision: of each key the newest put, and
/// everything above.
#[test]
fn schedule_compaction() {
    use Change::{Delete, Put};
    let build = || {
        let db = memory();
        commit_at(&db, 2, &[Put("foo", "1")]);
        commit_at(&db, 3, &[Put("foo", "2"), Put("bar", "1")]);
        commit_at(&db, 4, &[Put("foo", "3")]);
        commit_at(&db, 5, &[Delete("foo")]);
        commit_at(&db, 6, &[Put("baz", "1")]);
        db
    };
    let table: [(u64, &[&str]); 6] = [
        (1, &["+2.0", "+3.0", "+3.1", "+4.0", "-5.0", "+6.0"]),
        (2, &["+2.0", "+3.0", "+3.1", "+4.0", "-5.0", "+6.0"]),
        (3, &["+3.0", "+3.1", "+4.0", "-5.0", "+6.0"]),
        (4, &["+3.1", "+4.0", "-5.0", "+6.0"]),
        (5, &["+3.1", "-5.0", "+6.0"]),
        (6, &["+3.1", "+6.0"]),
    ];
    for (rev, expected) in table {
        let db = build();
        assert_eq!(db.compact(rev).unwrap().wait(), Outcome::Done);
        assert_eq!(retained(&db), expected, "compacted at {rev}");
    }
    // One after the other they leave the same.
    let db = build();
    for (rev, expected) in table {
        let _ = db.compact(rev).unwrap().wait();
        assert_eq!(retained(&db), expected, "compacted at {rev} in turn");
    }
}

/// TestCompactAllAndRestore: the last key is deleted, everything compacted, the store opened again: the
/// revision is what it was, and reading at it works.
#[test]
fn compact_all_and_restore() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    for value in ["bar", "bar1", "bar2"] {
        db.put("foo", value).unwrap();
    }
    db.delete("foo").unwrap();
    let rev = db.rev();
    assert_eq!(db.compact(rev).unwrap().wait(), Outcome::Done);
    db.close().unwrap();
    let db = Db::open(&path).unwrap();
    assert_eq!(db.rev(), rev);
    let found = db.read_at(rev).unwrap().range("foo").collect().unwrap();
    assert_eq!((rows(&found), found.revision), (vec![], rev));
}

/// A store at revision 4 that was compacted at `rev`, opened again `crashed` or after a close.
fn compacted_and_reopened(rev: u64, crashed: bool) -> Option<u64> {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let db = Db::open(&path).unwrap();
    for value in ["1", "2", "3"] {
        db.put("foo", value).unwrap();
    }
    db.compact(rev).unwrap();
    if crashed {
        std::fs::copy(&path, &copy).unwrap();
    } else {
        db.close().unwrap();
        std::fs::rename(&path, &copy).unwrap();
    }
    let db = Db::open(&copy).unwrap();
    db.compact_rev().map(revtree::Revision::get)
}

/// TestScheduledCompact: the mark of a compaction survives a crash right behind it, also 0 and 1.
#[test]
fn scheduled_compact() {
    for rev in [0, 1, 4] {
        assert_eq!(compacted_and_reopened(rev, true), Some(rev));
    }
}

/// TestFinishedCompact: the compact revision survives a close, also 0, 1 and the largest there can be; a
/// store that was never compacted has none.
#[test]
fn finished_compact() {
    for rev in [0, 1, 4] {
        assert_eq!(compacted_and_reopened(rev, false), Some(rev));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let last = Revision::new(i64::MAX.unsigned_abs() - 1);
    let importer = Db::importer(&path, Options::new()).unwrap();
    let db = importer
        .finish(last, Some(last), Applied::default())
        .unwrap();
    assert_eq!((db.rev(), db.compact_rev()), (last, Some(last)));
    db.close().unwrap();
    let db = Db::open(&path).unwrap();
    assert_eq!((db.rev(), db.compact_rev()), (last, Some(last)));
    // There is no revision for another change; nothing is lost by asking.
    assert!(matches!(
        db.put("a", ""),
        Err(Error::LimitReached {
            what: "revision",
            ..
        })
    ));
    assert_eq!(db.rev(), last);
    assert_eq!(memory().compact_rev(), None);
    assert_eq!(memory().read().unwrap().first_rev(), None);
}

/// etcd's bug with a delete and a put of one key in one revision, compacted just there: it kept only the
/// tombstone, so the next read was fatal. Both are kept here.
#[test]
fn delete_then_put_in_one_revision() {
    use Change::{Delete, Put};
    let db = memory();
    commit_at(&db, 2, &[Put("foo", "1")]);
    commit_at(&db, 3, &[Delete("foo"), Put("foo", "2")]);
    commit_at(&db, 4, &[Put("other", "")]);
    let hash = db.hash_by_rev(3).unwrap().hash;
    let _ = db.compact(3).unwrap().wait();
    assert_eq!(retained(&db), ["-3.0", "+3.1", "+4.0"]);
    let found = db.read_at(3).unwrap().range("foo").collect().unwrap();
    assert_eq!(rows(&found), [row("foo", "2", 3, 3, 1)]);
    assert_eq!(at(&db, "foo", 4).unwrap(), Some((3, 3, 1)));
    // Taken before the compaction it was another sum: the first put was there.
    assert_eq!(db.hash_by_rev(3).unwrap().hash, hash);
    let _ = db.compact(4).unwrap().wait();
    assert_eq!(retained(&db), ["+3.1", "+4.0"]);
    assert_eq!(at(&db, "foo", 4).unwrap(), Some((3, 3, 1)));
}

/// Issue 17780: a compaction that was interrupted, with a tombstone as the newest record: the revision
/// must not go back on restart.
#[test]
fn issue_17780_revision_after_interrupted_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let (path, crashed) = (dir.path().join("store"), dir.path().join("crashed"));
    let db = Db::open(&path).unwrap();
    for n in 0..10 {
        db.put(format!("foo{n}"), "").unwrap();
    }
    for n in 0..10 {
        db.delete(format!("foo{n}")).unwrap();
    }
    assert_eq!(db.rev().get(), 21);
    db.compact(21).unwrap();
    std::fs::copy(&path, &crashed).unwrap();
    let mut reopened = Db::open(&crashed).unwrap();
    for _ in 0..2 {
        assert_eq!(reopened.rev().get(), 21);
        assert_eq!(reopened.compact_rev(), Some(21.into()));
        reopened.close().unwrap();
        reopened = Db::open(&crashed).unwrap();
    }
    assert_eq!(reopened.put("foo", "").unwrap().get(), 22);
}

/// Issue 18089: a delete exactly at the compact revision is still there for who follows from it, and
/// goes with the next compaction.
#[test]
fn issue_18089_tombstone_at_compact_revision() {
    use Change::{Delete, Put};
    let db = memory();
    commit_at(&db, 2, &[Put("a", "")]);
    commit_at(&db, 3, &[Delete("a")]);
    commit_at(&db, 4, &[Put("b", "")]);
    let _ = db.compact(3).unwrap().wait();
    let view = db.read().unwrap();
    let from_there: Vec<_> = view
        .changes(.., 3.into()..=4.into())
        .unwrap()
        .map(|event| change_of(&event.unwrap()))
        .collect();
    assert_eq!(from_there, ["-3.0", "+4.0"]);
    let _ = db.compact(4).unwrap().wait();
    assert_eq!(retained(&db), ["+4.0"]);
    assert_eq!(history(&db, "a"), [""; 0]);
}

/// Issue 19179: a key of which only the tombstone at the compact revision is left, after a reopen: it does
/// not exist, its delete is still told, and it can be made again.
#[test]
fn issue_19179_lone_tombstone_after_reopen() {
    use Change::{Delete, Put};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    commit_at(&db, 2, &[Put("a", "")]);
    commit_at(&db, 3, &[Delete("a")]);
    let _ = db.compact(3).unwrap().wait();
    db.close().unwrap();
    let db = Db::open(&path).unwrap();
    assert_eq!(at(&db, "a", 3).unwrap(), None);
    assert_eq!(retained(&db), ["-3.0"]);
    assert_eq!(db.delete("a").unwrap().count, 0);
    assert_eq!(db.read().unwrap().range(..).count().unwrap(), 0);
    commit_at(&db, 4, &[Put("a", "again")]);
    assert_eq!(at(&db, "a", 4).unwrap(), Some((4, 4, 1)));
    assert_eq!(refusal(db.read_at(2)), "compacted");
}
