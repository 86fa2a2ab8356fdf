//! Histories whose hashes a real etcd computed, made through the door and imported.

use revtree::{Db, HashKv, KeyRange, LeaseId, Options, Revision};
use revtree_test_bbolt::{VECTOR_A_HASHES, VECTOR_A_LEASE, vector_a_snapshot};

use crate::snapshot::imported;

fn in_memory() -> Db {
    Options::new().open_in_memory().unwrap()
}

/// The history of vector A; in main 9 a key is deleted and put again.
pub(crate) fn vector_a() -> Db {
    let db = in_memory();
    db.put("a", "1").unwrap();
    db.put("b", "").unwrap();
    db.put("c", [0x00, 0xff].repeat(100)).unwrap();
    let mut txn = db.write().unwrap();
    txn.put_with_lease("a", "2", LeaseId(VECTOR_A_LEASE))
        .unwrap();
    txn.commit().unwrap();
    let mut txn = db.write().unwrap();
    txn.put("d", "x").unwrap();
    txn.put("a", "3").unwrap();
    txn.delete("b").unwrap();
    txn.commit().unwrap();
    db.delete("a").unwrap();
    db.put(b"\x00\x01k", "bin").unwrap();
    let mut txn = db.write().unwrap();
    let deleted = txn.delete_range(KeyRange::at_least("c")).unwrap();
    assert_eq!(deleted.count, 2);
    txn.put("d", "reborn").unwrap();
    txn.commit().unwrap();
    db.put("a", "back").unwrap();
    db.delete("a").unwrap();
    assert_eq!(db.put("e", "last").unwrap().get(), 12);
    db
}

fn assert_hashes(db: &Db, compacted: i64, hashes: &[(u64, u32)]) {
    let compact_revision = u64::try_from(compacted).ok().map(Revision::new);
    for &(rev, hash) in hashes {
        let revision = Revision::new(rev);
        let expected = HashKv::clone(&db.hash_by_rev(rev).unwrap());
        assert_eq!(expected.revision, revision);
        // At the compact revision the hash of the compaction itself comes first, if it is known.
        if Some(revision) != compact_revision {
            assert_eq!(expected.compact_revision, compact_revision);
            assert_eq!(expected.hash, hash, "compacted at {compacted}, at {rev}");
        }
    }
}

/// Goal: vector A through the door, never compacted and compacted at 6 and at 8.
#[test]
fn vector_a_through_the_door() {
    for (compacted, hashes) in VECTOR_A_HASHES {
        let db = vector_a();
        if let Ok(rev) = u64::try_from(compacted) {
            let before = db.hash_by_rev(rev).unwrap();
            db.compact(rev).unwrap();
            assert_eq!(db.compaction_hashes(), [before]);
            assert_eq!(db.hash_by_rev(rev).unwrap(), before);
        }
        assert_hashes(&db, compacted, hashes);
    }
}

/// Goal: the same after a reopen, which forgets the compaction's hash: also at the compact revision.
#[test]
fn vector_a_reopened() {
    let compactions = [(6, 1_569_834_837), (8, 523_955_963)];
    for (compacted, at_compacted) in compactions {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let source = vector_a();
        let mut importer = Db::importer(&path, Options::new()).unwrap();
        for event in crate::snapshot::changes(&source, 2, 12) {
            crate::importer::give(&mut importer, &event).unwrap();
        }
        let end = importer.finish(source.rev(), None, source.consistent_index());
        let db = end.unwrap();
        db.compact(compacted).unwrap();
        db.close().unwrap();
        let db = Db::open(&path).unwrap();
        assert!(db.compaction_hashes().is_empty());
        assert_eq!(db.hash_by_rev(compacted).unwrap().hash, at_compacted);
    }
}

/// Goal: snapshots of vector A have its hashes, also at the compact revision.
#[test]
fn vector_a_imported() {
    for (compacted, hashes) in VECTOR_A_HASHES {
        let compacted_at = u64::try_from(compacted).ok();
        let image = vector_a_snapshot(&revtree_test_bbolt::Options::default(), compacted_at);
        let (_folder, report, db) = imported(image.file());
        assert_eq!(report.compact_revision, compacted_at.map(Revision::new));
        for &(rev, hash) in hashes {
            let found = db.hash_by_rev(rev).unwrap();
            assert_eq!(found.hash, hash, "compacted at {compacted}, at {rev}");
            assert_eq!(found.compact_revision, report.compact_revision);
        }
    }
}

/// Vector B: the pinned test of etcd's own repository.
fn vector_b(middle: bool, expected: &[(u32, i64, u64)]) {
    const NAMES: [&str; 7] = [
        "alice",
        "bob",
        "celine",
        "dominik",
        "eve",
        "frederica",
        "gorge",
    ];
    let db = in_memory();
    let mut found = Vec::new();
    let mut hashes = Vec::new();
    let mut step = |from: usize, count: usize| {
        for i in from..=from + count {
            let key = match (i % 142, i % 71) {
                (30, _) => "zenek",
                (_, 30) => "xavery",
                _ => NAMES[i % 7],
            };
            db.put(key, i.to_string()).unwrap();
        }
        let at = if middle {
            Revision::new((from + count / 2) as u64)
        } else {
            db.rev()
        };
        let hash = db.hash_by_rev(at).unwrap();
        let compacted = hash
            .compact_revision
            .map_or(-1, |rev| i64::try_from(rev.get()).expect("small"));
        found.push((hash.hash, compacted, hash.revision.get()));
        hashes.push(hash);
        db.compact(at).unwrap();
        // What the compaction is remembered by is the hash from just before it.
        assert_eq!(db.compaction_hashes().last(), Some(&hash));
        assert_eq!(db.hash_by_rev(at).unwrap(), hash);
    };
    for from in (0..1210).step_by(71) {
        step(from, 71);
    }
    step(1278, 1210);
    assert_eq!(found, expected);
    assert_eq!(db.compaction_hashes(), hashes[hashes.len() - 10..]);
}

/// Goal: vector B, hashed and compacted half way through each step.
#[test]
fn vector_b_middle() {
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
        (1_496_914_449, 958, 1_029),
        (2_434_525_091, 1_029, 1_100),
        (3_988_652_253, 1_100, 1_171),
        (1_122_462_288, 1_171, 1_242),
        (724_436_716, 1_242, 1_883),
    ];
    vector_b(true, &expected);
}

/// Goal: vector B, hashed and compacted at the end of each step.
#[test]
fn vector_b_last() {
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
        (2_923_408_134, 937, 1_009),
        (2_680_329_256, 1_009, 1_081),
        (1_546_717_673, 1_081, 1_153),
        (2_713_657_846, 1_153, 1_225),
        (1_046_575_299, 1_225, 1_297),
        (2_017_735_779, 1_297, 2_508),
    ];
    vector_b(false, &expected);
}
