//! etcd's `index_test.go` and `key_index_test.go`: what its key index answers, asked of a store.
//!
//! etcd gives its index revisions of any number; here the store makes them, with filler keys between.

use std::collections::BTreeMap;

use revtree::{Db, KeyRange};

use crate::support::Change::{Delete, Put};
use crate::support::{Change, at, change_of, commit_at, history, keys, memory, refusal, retained};

/// TestIndexGet: a key put at 2 and 4 and deleted at 6, around each of them.
#[test]
fn get() {
    let db = memory();
    commit_at(&db, 2, &[Put("foo", "")]);
    commit_at(&db, 4, &[Put("foo", "")]);
    commit_at(&db, 6, &[Delete("foo")]);
    let expected = [
        (1, None),
        (2, Some((2, 2, 1))),
        (3, Some((2, 2, 1))),
        (4, Some((4, 2, 2))),
        (5, Some((4, 2, 2))),
        (6, None),
    ];
    for (rev, expected) in expected {
        assert_eq!(at(&db, "foo", rev).unwrap(), expected, "at {rev}");
    }
}

/// TestIndexRange: the forms of a range, each with limits: keys and their revisions, and the total count.
#[test]
fn range() {
    let db = memory();
    let all = ["foo", "foo1", "foo2"];
    for (rev, key) in (2u64..).zip(all) {
        commit_at(&db, rev, &[Put(key, "")]);
    }
    let table: [(KeyRange, &[&str]); 11] = [
        ("foo".into(), &["foo"]),
        ("doo".into(), &[]),
        ("fop".into(), &[]),
        (("foo".."foo1").into(), &all[..1]),
        (("foo".."foo2").into(), &all[..2]),
        (("foo".."fop").into(), &all),
        (("foo1".."fop").into(), &all[1..]),
        (("foo2".."fop").into(), &all[2..]),
        (("foo3".."fop").into(), &[]),
        (("fop".."foo").into(), &[]),
        (KeyRange::at_least("foo1"), &all[1..]),
    ];
    let view = db.read().unwrap();
    for (range, expected) in table {
        for limit in 1..5 {
            let found = view.range(range.clone()).limit(limit).collect().unwrap();
            let cut = &expected[..limit.min(expected.len())];
            assert_eq!(keys(&found), cut, "{range:?} limit {limit}");
            assert_eq!(found.count, expected.len() as u64, "{range:?}");
            for kv in &found.kvs {
                let place = all.iter().position(|key| kv.key == key).unwrap();
                assert_eq!(kv.mod_revision.get(), place as u64 + 2);
            }
            let reversed = view.range(range.clone()).reverse().limit(limit);
            let mut from_behind = expected.to_vec();
            from_behind.reverse();
            from_behind.truncate(limit);
            assert_eq!(keys(&reversed.collect().unwrap()), from_behind);
        }
    }
}

/// TestIndexTombstone: after a delete the key is not found, and a second delete finds nothing.
#[test]
fn tombstone() {
    let db = memory();
    commit_at(&db, 2, &[Put("foo", "")]);
    commit_at(&db, 3, &[Delete("foo")]);
    assert_eq!(at(&db, "foo", 3).unwrap(), None);
    assert_eq!(db.delete("foo").unwrap().count, 0);
    assert_eq!(history(&db, "foo"), ["+2.0", "-3.0"]);
}

/// Six puts of three keys, one a revision: foo 2 7, foo1 3 6, foo2 4 5.
fn six_puts() -> Db {
    let db = memory();
    let order = ["foo", "foo1", "foo2", "foo2", "foo1", "foo"];
    for (rev, key) in (2u64..).zip(order) {
        commit_at(&db, rev, &[Put(key, "")]);
    }
    db
}

/// What a range has at a revision: the mod revisions in key order, and the total count.
fn revisions(db: &Db, keys: KeyRange, rev: u64, limit: usize) -> (Vec<u64>, u64) {
    let view = db.read_at(rev).unwrap();
    let found = view.range(keys).limit(limit).collect().unwrap();
    let revisions = found.kvs.iter().map(|kv| kv.mod_revision.get());
    (revisions.collect(), found.count)
}

/// TestIndexRevision: revisions come in the order of keys, and a limit caps them.
#[test]
fn revision() {
    let db = six_puts();
    let none = usize::MAX;
    let table: [(KeyRange, u64, usize, &[u64]); 8] = [
        ("foo".into(), 7, none, &[7]),
        ("foo".into(), 2, none, &[2]),
        (("foo".."foo3").into(), 7, none, &[7, 6, 5]),
        (("foo".."foo3").into(), 5, none, &[2, 3, 5]),
        (("foo".."foo3").into(), 4, none, &[2, 3, 4]),
        (("foo".."foo3").into(), 6, 2, &[2, 6]),
        (("foo1".."foo3").into(), 7, 1, &[6]),
        (("foo3".."foo4").into(), 7, none, &[]),
    ];
    for (keys, rev, limit, expected) in table {
        let found = revisions(&db, keys.clone(), rev, limit).0;
        assert_eq!(found, expected, "{keys:?} at {rev}, limit {limit}");
    }
}

/// TestIndexRevisionsWithTotalCount: the total count next to a capped list. (etcd can be asked to leave
/// the total out; here it is always there.)
#[test]
fn revisions_with_total_count() {
    let db = six_puts();
    for (rev, limit, capped, total) in [(7, 1, 1, 3), (7, 3, 3, 3), (3, 1, 1, 2), (2, 5, 1, 1)] {
        let (found, count) = revisions(&db, ("foo".."foo3").into(), rev, limit);
        assert_eq!((found.len(), count), (capped, total), "at {rev}");
        let view = db.read_at(rev).unwrap();
        assert_eq!(
            view.range("foo".."foo3").limit(limit).count().unwrap(),
            total
        );
    }
}

/// Three keys over twenty revisions; two are made again within revision 10.
const HISTORY: [(u64, &[Change<'static>]); 14] = [
    (2, &[Put("foo", "")]),
    (3, &[Put("foo1", "")]),
    (4, &[Put("foo2", "")]),
    (5, &[Put("foo2", "")]),
    (6, &[Delete("foo")]),
    (7, &[Put("foo1", "")]),
    (8, &[Delete("foo1")]),
    (9, &[Delete("foo2")]),
    (10, &[Put("foo", ""), Put("foo1", "")]),
    (12, &[Put("foo2", ""), Put("foo1", "")]),
    (14, &[Delete("foo1"), Delete("foo2")]),
    (15, &[Put("foo2", "")]),
    (18, &[Delete("foo")]),
    (20, &[Put("foo", "")]),
];

/// What the rule leaves of [`HISTORY`] when compacted at `compact`: of each key the newest put at or
/// before it, tombstones just there, and all above.
fn survivors(compact: u64) -> Vec<String> {
    let mut newest = BTreeMap::new();
    for (rev, changes) in HISTORY.iter().filter(|(rev, _)| *rev <= compact) {
        for (sub, change) in changes.iter().enumerate() {
            let (Put(key, _) | Delete(key)) = *change;
            newest.insert(key, (*rev, sub));
        }
    }
    let mut all = Vec::new();
    for (rev, changes) in HISTORY {
        for (sub, change) in changes.iter().enumerate() {
            let (sign, kept) = match *change {
                Put(key, _) => ('+', newest.get(key) == Some(&(rev, sub))),
                Delete(_) => ('-', rev == compact),
            };
            if rev > compact || kept {
                all.push(format!("{sign}{rev}.{sub}"));
            }
        }
    }
    all
}

/// TestIndexCompactAndKeep: at every revision, compacting there, on the way through all, in jumps and at
/// once: the same is left, and every later read is as before.
#[test]
fn compact_and_keep() {
    let build = || {
        let db = memory();
        for (rev, changes) in HISTORY {
            commit_at(&db, rev, changes);
        }
        db
    };
    let read_from = |db: &Db, from: u64| -> Vec<_> {
        let cells = (from..=20).flat_map(|rev| ["foo", "foo1", "foo2"].map(|key| (rev, key)));
        cells.map(|(rev, key)| at(db, key, rev).unwrap()).collect()
    };
    let untouched = build();
    for jump in [1, 3, 7, 20] {
        let db = build();
        for rev in (1..=20).filter(|rev| rev % jump == 0) {
            let _ = db.compact(rev).unwrap().wait();
            assert_eq!(retained(&db), survivors(rev), "at {rev} by {jump}");
            assert_eq!(read_from(&db, rev), read_from(&untouched, rev));
            let below = refusal(db.read_at(rev - 1));
            assert_eq!(below, if rev == 1 { "ok" } else { "compacted" });
        }
    }
    for rev in 1..=20 {
        let db = build();
        let _ = db.compact(rev).unwrap().wait();
        assert_eq!(retained(&db), survivors(rev), "at {rev} at once");
    }
}

/// TestRestoreTombstone: of a key only the tombstone is left: it is never found, stays for its own
/// revision, is gone after the next compaction, and new puts begin anew.
#[test]
fn restore_tombstone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    commit_at(&db, 3, &[Put("foo", "")]);
    commit_at(&db, 4, &[Delete("foo")]);
    commit_at(&db, 6, &[Put("other", "")]);
    let _ = db.compact(4).unwrap().wait();
    db.close().unwrap();
    let db = Db::open(&path).unwrap();
    for rev in 4..=6 {
        assert_eq!(at(&db, "foo", rev).unwrap(), None, "at {rev}");
    }
    assert_eq!(history(&db, "foo"), ["-4.0"]);
    assert_eq!(db.delete("foo").unwrap().count, 0);
    let _ = db.compact(5).unwrap().wait();
    assert_eq!(history(&db, "foo"), [""; 0]);
    commit_at(&db, 7, &[Put("foo", "")]);
    commit_at(&db, 8, &[Put("foo", "")]);
    assert_eq!(at(&db, "foo", 8).unwrap(), Some((8, 7, 2)));
    assert_eq!(at(&db, "foo", 6).unwrap(), None);
}

/// One key with three lives: 2 4 −6, 8 10 −12, 14 15.1 −16; and revision 17 for others.
fn three_generations() -> Db {
    let db = memory();
    for rev in [2, 4, 8, 10, 14] {
        if rev == 8 || rev == 14 {
            commit_at(&db, rev - 2, &[Delete("foo")]);
        }
        commit_at(&db, rev, &[Put("foo", "")]);
    }
    commit_at(&db, 15, &[Put("before", ""), Put("foo", "")]);
    commit_at(&db, 16, &[Delete("foo")]);
    commit_at(&db, 17, &[Put("other", "")]);
    db
}

/// TestKeyIndexGet: revision, create revision and version at each revision, after compacting at 4.
#[test]
fn key_index_get() {
    let db = three_generations();
    let _ = db.compact(4).unwrap().wait();
    let expected = [
        (17, None),
        (16, None),
        (15, Some((15, 14, 2))),
        (14, Some((14, 14, 1))),
        (13, None),
        (12, None),
        (11, Some((10, 8, 2))),
        (10, Some((10, 8, 2))),
        (9, Some((8, 8, 1))),
        (8, Some((8, 8, 1))),
        (7, None),
        (6, None),
        (5, Some((4, 2, 2))),
        (4, Some((4, 2, 2))),
    ];
    for (rev, expected) in expected {
        assert_eq!(at(&db, "foo", rev).unwrap(), expected, "at {rev}");
    }
    for rev in 1..4 {
        assert_eq!(refusal(at(&db, "foo", rev)), "compacted", "at {rev}");
    }
}

/// TestKeyIndexSince: the changes of a key from a revision on. (etcd's index gives the last of each
/// revision; here, as to its watchers, all of them are given.)
#[test]
fn key_index_since() {
    let db = three_generations();
    let since = |rev: u64| -> Vec<String> {
        let view = db.read().unwrap();
        let changes = view.changes("foo", rev.into()..=view.rev()).unwrap();
        changes.map(|event| change_of(&event.unwrap())).collect()
    };
    let all = [
        "+2.0", "+4.0", "-6.0", "+8.0", "+10.0", "-12.0", "+14.0", "+15.1", "-16.0",
    ];
    let first = [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9];
    for (rev, first) in (0u64..).zip(first) {
        assert_eq!(since(rev), all[first..], "since {rev}");
    }
    commit_at(&db, 18, &[Put("foo", "1"), Put("foo", "2")]);
    assert_eq!(since(17), ["+18.0", "+18.1"]);
}

/// TestKeyIndexPut: a second put of a key keeps its create revision and raises its version.
#[test]
fn key_index_put() {
    let db = memory();
    commit_at(&db, 5, &[Put("foo", "")]);
    assert_eq!(at(&db, "foo", 5).unwrap(), Some((5, 5, 1)));
    commit_at(&db, 7, &[Put("foo", "")]);
    assert_eq!(at(&db, "foo", 7).unwrap(), Some((7, 5, 2)));
    assert_eq!(history(&db, "foo"), ["+5.0", "+7.0"]);
}

/// TestKeyIndexRestore: a key whose early puts are compacted away is found again as it was, and goes on.
#[test]
fn key_index_restore() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    commit_at(&db, 5, &[Put("foo", "")]);
    commit_at(&db, 7, &[Put("foo", "")]);
    let _ = db.compact(7).unwrap().wait();
    db.close().unwrap();
    let db = Db::open(&path).unwrap();
    assert_eq!(at(&db, "foo", 7).unwrap(), Some((7, 5, 2)));
    assert_eq!(history(&db, "foo"), ["+7.0"]);
    commit_at(&db, 8, &[Put("foo", "")]);
    assert_eq!(at(&db, "foo", 8).unwrap(), Some((8, 5, 3)));
}

/// TestKeyIndexTombstone: a delete ends a generation, the next put begins one; deleting a key without a
/// living generation finds nothing.
#[test]
fn key_index_tombstone() {
    let db = memory();
    commit_at(&db, 5, &[Put("foo", "")]);
    commit_at(&db, 7, &[Delete("foo")]);
    assert_eq!(db.delete("foo").unwrap().count, 0);
    commit_at(&db, 8, &[Put("foo", "")]);
    commit_at(&db, 9, &[Put("foo", "")]);
    assert_eq!(at(&db, "foo", 9).unwrap(), Some((9, 8, 2)));
    commit_at(&db, 15, &[Delete("foo")]);
    assert_eq!(at(&db, "foo", 15).unwrap(), None);
    assert_eq!(db.delete("foo").unwrap().count, 0);
    assert_eq!(db.delete("never made").unwrap().count, 0);
    assert_eq!(db.rev().get(), 15);
}

/// TestKeyIndexCompactAndKeep: compacting at each revision keeps a tombstone at its own revision only; what
/// is hashed there (etcd's keep set) has no tombstone.
#[test]
fn key_index_compact_and_keep() {
    let all = [
        "+2.0", "+4.0", "-6.0", "+8.0", "+10.0", "-12.0", "+14.0", "+15.1", "-16.0",
    ];
    // The first that is left, for the compact revisions 1 to 17.
    let first = [0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 4, 5, 6, 6, 7, 8, 9];
    let in_turn = three_generations();
    for (rev, first) in (1u64..).zip(first) {
        let db = three_generations();
        let _ = db.compact(rev).unwrap().wait();
        assert_eq!(history(&db, "foo"), all[first..], "compacted at {rev}");
        let _ = in_turn.compact(rev).unwrap().wait();
        assert_eq!(history(&in_turn, "foo"), all[first..], "in turn at {rev}");
        let (one, other) = (db.hash_by_rev(0).unwrap(), in_turn.hash_by_rev(0).unwrap());
        // The compaction at the current revision is remembered with the one before, which differs.
        if rev < 17 {
            assert_eq!(one, other, "at {rev}");
        }
    }
}

/// TestKeyIndexCompactOnFurtherRev: compacting far behind the last put keeps it.
#[test]
fn key_index_compact_on_further_rev() {
    let db = memory();
    commit_at(&db, 2, &[Put("foo", "")]);
    commit_at(&db, 3, &[Put("foo", "")]);
    commit_at(&db, 9, &[Put("other", "")]);
    let _ = db.compact(8).unwrap().wait();
    assert_eq!(history(&db, "foo"), ["+3.0"]);
    assert_eq!(at(&db, "foo", 8).unwrap(), Some((3, 2, 2)));
}

/// TestKeyIndexFindGeneration: which life of a key a revision falls into: none between them, and none at
/// the revision of a delete.
#[test]
fn key_index_find_generation() {
    let db = three_generations();
    for rev in 1..=17 {
        let expected = match rev {
            2..=5 => Some(2),
            8..=11 => Some(8),
            14..=15 => Some(14),
            _ => None,
        };
        let created = at(&db, "foo", rev).unwrap().map(|found| found.1);
        assert_eq!(created, expected, "at {rev}");
    }
}
