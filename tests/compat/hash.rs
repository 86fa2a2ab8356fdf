//! etcd's `hash_test.go`: HashKV at a revision, and the hashes that compactions leave.

use revtree::{Db, HashKv, Revision};

use crate::support::memory;

/// etcd's history for its pinned hashes: who writes depends on the number, which is the value.
fn write_some(db: &Db, from: u64, count: u64) {
    for i in from..=from + count {
        let key = match (i % 142, i % 71, i % 7) {
            (30, _, _) => "zenek",
            (_, 30, _) => "xavery",
            (_, _, 0) => "alice",
            (_, _, 1) => "bob",
            (_, _, 2) => "celine",
            (_, _, 3) => "dominik",
            (_, _, 4) => "eve",
            (_, _, 5) => "frederica",
            _ => "gorge",
        };
        db.put(key, i.to_string()).unwrap();
    }
}

/// What the table has: hash, compact revision (−1: never compacted), revision.
fn numbers(hash: &HashKv) -> (u32, i64, u64) {
    let compact = hash
        .compact_revision
        .map_or(-1, |rev| i64::try_from(rev.get()).unwrap());
    (hash.hash, compact, hash.revision.get())
}

/// Writes, hashes at `rev_of` the step and compacts there, as often as etcd's test does.
fn check_pinned(expected: &[(u32, i64, u64)], rev_of: impl Fn(&Db, u64, u64) -> u64) {
    let db = memory();
    let steps = (0..1210).step_by(71).map(|from| (from, 71));
    let mut found = Vec::new();
    for (from, count) in steps.chain([(1278, 1210)]) {
        write_some(&db, from, count);
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
    let expected = [
        (4_082_599_214, -1, 35),
        (2_279_933_401, 35, 106),
        (3_284_231_217, 106, 177),
        (126_286_495, 177, 248),
        (900_108_730, 248, 319),
        (2_475_485_232, 319, 390),
        (1_226_296_507, 390, 461),
        (2_503_661_030, 461, 532),
        (4_155_130_747, 532, 603),
        (106_915_399, 603, 674),
        (406_914_006, 674, 745),
        (1_882_211_381, 745, 816),
        (806_177_088, 816, 887),
        (664_311_366, 887, 958),
        (1_496_914_449, 958, 1029),
        (2_434_525_091, 1029, 1100),
        (3_988_652_253, 1100, 1171),
        (1_122_462_288, 1171, 1242),
        (724_436_716, 1242, 1883),
    ];
    check_pinned(&expected, |_, from, count| from + count / 2);
}

/// TestHashByRevValueLastRevision: etcd's pinned sums at the current revision, asked for as 0.
#[test]
fn hash_by_rev_value_last_revision() {
    let expected = [
        (1_913_897_190, -1, 73),
        (224_860_069, 73, 145),
        (1_565_167_519, 145, 217),
        (1_566_261_620, 217, 289),
        (2_037_173_024, 289, 361),
        (691_659_396, 361, 433),
        (2_713_730_748, 433, 505),
        (3_919_322_507, 505, 577),
        (769_967_540, 577, 649),
        (2_909_194_793, 649, 721),
        (1_576_921_157, 721, 793),
        (4_067_701_532, 793, 865),
        (2_226_384_237, 865, 937),
        (2_923_408_134, 937, 1009),
        (2_680_329_256, 1009, 1081),
        (1_546_717_673, 1081, 1153),
        (2_713_657_846, 1153, 1225),
        (1_046_575_299, 1225, 1297),
        (2_017_735_779, 1297, 2508),
    ];
    check_pinned(&expected, |db, _, _| db.rev().get());
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
