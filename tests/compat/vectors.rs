//! Histories whose hashes a real etcd computed, made through the door and imported.

use revtree::{Db, HashKv, KeyRange, LeaseId, Options, Revision};
use revtree_test_bbolt::{
    Pinned, Step, VECTOR_A, VECTOR_A_HASHES, VECTOR_B_LAST, VECTOR_B_MIDDLE, vector_a_snapshot,
    vector_b_key, vector_b_steps,
};

use crate::snapshot::imported;

fn in_memory() -> Db {
    Options::new().open_in_memory().unwrap()
}

/// The history of vector A.
pub(crate) fn vector_a() -> Db {
    let db = in_memory();
    for steps in VECTOR_A {
        let mut txn = db.write().unwrap();
        for step in steps {
            match *step {
                Step::Put(key, value, lease) => {
                    txn.put_with_lease(key, value, LeaseId(lease)).unwrap();
                }
                Step::Delete(key) => assert_eq!(txn.delete(key).unwrap().count, 1),
                Step::DeleteFrom(key, count) => {
                    let deleted = txn.delete_range(KeyRange::at_least(key)).unwrap();
                    assert_eq!(deleted.count, count);
                }
            }
        }
        txn.commit().unwrap();
    }
    assert_eq!(db.rev().get(), 12);
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
fn vector_b(middle: bool, expected: &[Pinned]) {
    let db = in_memory();
    let mut found = Vec::new();
    let mut hashes = Vec::new();
    for (from, count) in vector_b_steps() {
        for i in from..=from + count {
            db.put(vector_b_key(i), i.to_string()).unwrap();
        }
        let at = if middle {
            Revision::new(from + count / 2)
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
    }
    assert_eq!(found, expected);
    assert_eq!(db.compaction_hashes(), hashes[hashes.len() - 10..]);
}

/// Goal: vector B, hashed and compacted half way through each step.
#[test]
fn vector_b_middle() {
    vector_b(true, &VECTOR_B_MIDDLE);
}

/// Goal: vector B, hashed and compacted at the end of each step.
#[test]
fn vector_b_last() {
    vector_b(false, &VECTOR_B_LAST);
}
