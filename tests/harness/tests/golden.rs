//! The oracle against numbers that a real etcd computed, so that what is compared with the oracle
//! is compared with etcd.

use bytes::Bytes;
use revtree_format::{ChangeId, LeaseId, Revision};
use revtree_harness::answer::{HashKv, Refusal};
use revtree_harness::model::{Begin, Finish, RangeQuery, Reader, Subject};
use revtree_harness::{Keys, Oracle};
use revtree_test_bbolt::{
    Pinned, Step, VECTOR_A, VECTOR_A_HASHES, VECTOR_B_LAST, VECTOR_B_MIDDLE, vector_b_key,
    vector_b_steps,
};

fn rev(n: u64) -> Revision {
    Revision::new(n)
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// The history of vector A, in which main 9 deletes a key and puts it again.
fn vector_a() -> Oracle {
    let mut oracle = Oracle::new();
    for steps in VECTOR_A {
        oracle.begin(Begin::Write).unwrap();
        for step in steps {
            match *step {
                Step::Put(key, value, lease) => {
                    let (key, value) = (Bytes::from_static(key), Bytes::from_static(value));
                    oracle.txn_put(&key, &value, LeaseId(lease)).unwrap();
                }
                Step::Delete(key) => {
                    let deleted = oracle.txn_delete(&Bytes::from_static(key)).unwrap();
                    assert_eq!(deleted.count, 1);
                }
                Step::DeleteFrom(key, count) => {
                    let keys = Keys::AtLeast(Bytes::from_static(key));
                    assert_eq!(oracle.txn_delete_range(&keys).unwrap().count, count);
                }
            }
        }
        oracle.finish(Finish::Commit).unwrap();
    }
    assert_eq!(oracle.numbers().current, rev(12));
    oracle
}

/// Vector A: every row, those at the compact revision by the newer rule, by which it can be hashed.
#[test]
fn hash_by_rev_of_vector_a() {
    let check = |compact: Option<u64>, expected: &[(u64, u32)]| {
        let mut oracle = vector_a();
        if let Some(compact) = compact {
            oracle.compact(rev(compact)).unwrap();
            // The remembered hash of the compaction would come first; a reopening forgets it.
            oracle.reopen().unwrap();
        }
        for (revision, hash) in expected {
            let compact_revision = compact.map(rev);
            let expected = HashKv {
                hash: *hash,
                revision: rev(*revision),
                compact_revision,
            };
            assert_eq!(oracle.hash_by_rev(rev(*revision)), Ok(expected));
        }
        assert_eq!(oracle.hash_by_rev(rev(0)), oracle.hash_by_rev(rev(12)));
        let future = Refusal::Future {
            requested: rev(13),
            current: rev(12),
        };
        assert_eq!(oracle.hash_by_rev(rev(13)), Err(future));
    };
    for (compact, hashes) in VECTOR_A_HASHES {
        check(u64::try_from(compact).ok(), hashes);
    }
    // Nothing lies at or before these.
    let whole = &VECTOR_A_HASHES[0].1[11..];
    check(Some(0), whole);
    check(Some(1), whole);
}

/// The records that a real etcd had on its disk after compacting vector A at 8.
#[test]
fn records_after_compaction() {
    let mut oracle = vector_a();
    oracle.compact(rev(8)).unwrap();
    let show =
        |(id, tombstone): &(ChangeId, bool)| format!("{id}{}", if *tombstone { "t" } else { "" });
    let found: Vec<String> = oracle.record_ids().iter().map(show).collect();
    assert_eq!(
        found,
        [
            "4.0", "6.0", "8.0", "9.0t", "9.1t", "9.2", "10.0", "11.0t", "12.0"
        ]
    );
    let compacted = Refusal::Compacted {
        requested: rev(7),
        compacted: rev(8),
    };
    assert_eq!(oracle.hash_by_rev(rev(7)), Err(compacted));
}

/// A key deleted and put again in the revision that is compacted keeps its value (etcd loses it).
#[test]
fn delete_then_put_at_the_compact_revision() {
    let mut oracle = vector_a();
    oracle.compact(rev(9)).unwrap();
    let d = oracle.peek(&bytes("d")).unwrap().unwrap();
    assert_eq!((d.create, d.modified, d.version), (rev(9), rev(9), 1));
    assert_eq!(&d.value[..], b"reborn");
}

/// Vector B: the pinned test of etcd's own repository; `middle` hashes half way, else the end.
fn vector_b(middle: bool, expected: &[Pinned]) {
    let mut oracle = Oracle::new();
    let mut found = Vec::new();
    for (from, count) in vector_b_steps() {
        for i in from..=from + count {
            let (key, value) = (bytes(vector_b_key(i)), Bytes::from(i.to_string()));
            oracle.put(&key, &value).unwrap();
        }
        let at = if middle {
            rev(from + count / 2)
        } else {
            oracle.numbers().current
        };
        let hash = oracle.hash_by_rev(at).unwrap();
        let compact = hash
            .compact_revision
            .map_or(-1, |rev| i64::try_from(rev.get()).unwrap());
        found.push((hash.hash, compact, hash.revision.get()));
        oracle.compact(at).unwrap();
        // What the compaction computed while it scanned is the hash from just before it.
        assert_eq!(oracle.compaction_hashes().unwrap().last(), Some(&hash));
        assert_eq!(oracle.hash_by_rev(at), Ok(hash));
    }
    assert_eq!(found, expected);
    let remembered = oracle.compaction_hashes().unwrap();
    let expected: Vec<u64> = found[found.len() - 10..]
        .iter()
        .map(|hash| hash.2)
        .collect();
    let revisions: Vec<u64> = remembered.iter().map(|hash| hash.revision.get()).collect();
    assert_eq!(revisions, expected);
}

/// Vector B, hashed half way through each step.
#[test]
fn hash_by_rev_of_vector_b_middle() {
    vector_b(true, &VECTOR_B_MIDDLE);
}

/// Vector B, hashed at the end of each step.
#[test]
fn hash_by_rev_of_vector_b_last() {
    vector_b(false, &VECTOR_B_LAST);
}

/// The set that a compaction keeps holds tombstones at its revision and a hash's does not; where
/// nothing is alive this is the difference between dropping garbage and not.
#[test]
fn compaction_hash_where_nothing_is_alive() {
    let mut oracle = Oracle::new();
    oracle.put(&bytes("a"), &bytes("1")).unwrap();
    oracle.compact(rev(2)).unwrap();
    oracle.delete(&bytes("a")).unwrap();
    let before = oracle.hash_by_rev(rev(3)).unwrap();
    oracle.compact(rev(3)).unwrap();
    let stored = oracle.hash_by_rev(rev(3)).unwrap();
    assert_eq!(stored.compact_revision, before.compact_revision);
    assert_ne!(stored.hash, before.hash);
}

/// Reading at every revision of vector A gives the same before and after a compaction there.
#[test]
fn reads_at_the_compact_revision_stay() {
    for compact in 1..=12 {
        let mut oracle = vector_a();
        let all = |at: u64| RangeQuery {
            keys: Keys::All,
            at: Some(rev(at)),
            limit: None,
            reverse: false,
            keys_only: false,
        };
        let before: Vec<_> = (compact..=12)
            .map(|at| oracle.range(Reader::Now, &all(at)).unwrap())
            .collect();
        oracle.compact(rev(compact)).unwrap();
        let after: Vec<_> = (compact..=12)
            .map(|at| oracle.range(Reader::Now, &all(at)).unwrap())
            .collect();
        assert_eq!(before, after, "compacted at {compact}");
    }
}
