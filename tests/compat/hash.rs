//! etcd's `hash_test.go`: HashKV at a revision, and the hashes that compactions leave.

use revtree::{Db, HashKv, Revision};
use revtree_test_bbolt::{Pinned, VECTOR_B_LAST, VECTOR_B_MIDDLE, vector_b_key, vector_b_steps};

use crate::support::memory;

/// What the table has: hash, compact revision (−1: never compacted), revision.
fn numbers(hash: &HashKv) -> (u32, i64, u64) {
    let compact = hash
        .compact_revision
        .map_or(-1, |rev| i64::try_from(rev.get()).unwrap());
    (hash.hash, compact, hash.revision.get())
}

/// Writes, hashes at `rev_of` the step and compacts there, as often as etcd's test does.
fn check_pinned(expected: &[Pinned], rev_of: impl Fn(&Db, u64, u64) -> u64) {
    let db = memory();
    let mut found = Vec::new();
    for (from, count) in vector_b_steps() {
        for i in from..=from + count {
            db.put(vector_b_key(i), i.to_string()).unwrap();
        }
        let rev = rev_of(&db, from, count);
        let hash = db.hash_by_rev(rev).unwrap();
        found.push(numbers(&hash));
        let _ = db.compact(rev).unwrap().wait();
    }
    assert_eq!(found, expected);
}

/// TestHashByRevValue: etcd's pinned sums at a revision half way through what is written each time.
#[test]
fn hash_by_rev_value() {
    check_pinned(&VECTOR_B_MIDDLE, |_, from, count| from + count / 2);
}

/// TestHashByRevValueLastRevision: etcd's pinned sums at the current revision, asked for as 0.
#[test]
fn hash_by_rev_value_last_revision() {
    check_pinned(&VECTOR_B_LAST, |db, _, _| db.rev().get());
}

/// TestCompactionHash: the hash that a compaction leaves is the one asked for just before, over many
/// cycles with deletes; a store that has not compacted agrees before the first.
#[test]
fn compaction_hash() {
    let db = memory();
    let mut written = 0u64;
    for cycle in 1..=20u64 {
        while db.rev().get() <= cycle * 71 {
            written += 1;
            if written.is_multiple_of(67) {
                db.delete(format!("k{}", written % 10)).unwrap();
            } else {
                db.put(format!("k{}", written % 10), written.to_string())
                    .unwrap();
            }
        }
        let stop = cycle * 71;
        let before = db.hash_by_rev(stop).unwrap();
        let _ = db.compact(stop).unwrap().wait();
        assert_eq!(db.hash_by_rev(stop).unwrap(), before, "at {stop}");
        assert_eq!(db.compaction_hashes().last(), Some(&before), "at {stop}");
        // What is above is summed without what the compaction dropped.
        let above = db.hash_by_rev(0).unwrap();
        assert_eq!(above.compact_revision, Some(stop.into()));
        assert_ne!(above.hash, before.hash);
    }
}

/// H-5, the one case in which a compaction does not leave the hash from just before it: nothing lives at its
/// revision, but a tombstone lies there. etcd's compaction keeps that one, so its keep set is not empty;
/// the keep set of HashKV is, which etcd takes for "keep all".
#[test]
fn compaction_hash_where_all_is_deleted() {
    let db = memory();
    db.put("a", "1").unwrap();
    db.put("a", "2").unwrap();
    let _ = db.compact(3).unwrap().wait();
    db.delete("a").unwrap();
    let before = db.hash_by_rev(4).unwrap();
    assert_eq!(numbers(&before), (573_317_793, 3, 4));
    assert_eq!(db.hash_by_rev(0).unwrap(), before);
    let _ = db.compact(4).unwrap().wait();
    let left = db.hash_by_rev(4).unwrap();
    assert_eq!(numbers(&left), (1_922_329_996, 3, 4));
    assert_eq!(db.compaction_hashes().last(), Some(&left));
    // One revision later, without a tombstone at the compact revision, they are the same again.
    let db = memory();
    db.put("a", "1").unwrap();
    db.put("a", "2").unwrap();
    let _ = db.compact(3).unwrap().wait();
    db.delete("a").unwrap();
    db.put("b", "1").unwrap();
    db.delete("b").unwrap();
    db.put("c", "1").unwrap();
    let before = db.hash_by_rev(7).unwrap();
    let _ = db.compact(7).unwrap().wait();
    assert_eq!(db.hash_by_rev(7).unwrap(), before);
}

/// A store that was compacted at each of these revisions, and what it hashed just before each.
fn compacted_at(revs: std::ops::RangeInclusive<u64>) -> (Db, Vec<HashKv>) {
    let db = memory();
    for n in 0..=*revs.end() {
        db.put("foo", n.to_string()).unwrap();
    }
    let mut hashes = Vec::new();
    for rev in revs {
        hashes.push(db.hash_by_rev(rev).unwrap());
        let _ = db.compact(rev).unwrap().wait();
    }
    (db, hashes)
}

/// TestHasherStore: ten compactions are remembered, and answered as they were, also below the compact
/// revision; a reopen forgets them.
#[test]
fn hasher_store() {
    let (db, hashes) = compacted_at(2..=11);
    assert_eq!(db.compaction_hashes(), hashes);
    for hash in &hashes {
        assert_eq!(db.hash_by_rev(hash.revision).unwrap(), *hash);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    db.put("foo", "").unwrap();
    let _ = db.compact(2).unwrap().wait();
    assert_eq!(db.compaction_hashes().len(), 1);
    db.close().unwrap();
    assert_eq!(Db::open(&path).unwrap().compaction_hashes(), []);
}

/// TestHasherStoreFull: of eleven the one with the smallest revision is dropped, and is compacted from
/// then on. (That an older one is never taken in cannot be asked: compactions only go up.)
#[test]
fn hasher_store_full() {
    let (db, hashes) = compacted_at(2..=12);
    assert_eq!(db.compaction_hashes(), hashes[1..]);
    let dropped = db.hash_by_rev(Revision::new(2));
    assert_eq!(crate::support::refusal(dropped), "compacted");
    assert!(db.hash_by_rev(3).is_ok());
}
