//! The oracle against numbers that a real etcd computed, so that what is compared with the oracle
//! is compared with etcd.

use bytes::Bytes;
use revtree_format::{ChangeId, LeaseId, Revision};
use revtree_harness::answer::{HashKv, Refusal};
use revtree_harness::model::{Begin, Finish, RangeQuery, Reader, Subject};
use revtree_harness::{Keys, Oracle};

const LEASE: LeaseId = LeaseId(7_587_862_094_443);

fn rev(n: u64) -> Revision {
    Revision::new(n)
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// The history of vector A, in which main 9 deletes a key and puts it again.
fn vector_a() -> Oracle {
    let mut oracle = Oracle::new();
    let mut txn = |steps: &dyn Fn(&mut Oracle)| {
        oracle.begin(Begin::Write).unwrap();
        steps(&mut oracle);
        oracle.finish(Finish::Commit).unwrap();
    };
    let put = |oracle: &mut Oracle, key: &'static str, value: &'static str| {
        oracle
            .txn_put(&bytes(key), &bytes(value), LeaseId::NONE)
            .unwrap();
    };
    let delete = |oracle: &mut Oracle, key: &'static str| {
        assert_eq!(oracle.txn_delete(&bytes(key)).unwrap().count, 1);
    };
    txn(&|o| put(o, "a", "1"));
    txn(&|o| put(o, "b", ""));
    txn(&|o| {
        let value = Bytes::from([0, 0xFF].repeat(100));
        o.txn_put(&bytes("c"), &value, LeaseId::NONE).unwrap();
    });
    txn(&|o| {
        o.txn_put(&bytes("a"), &bytes("2"), LEASE).unwrap();
    });
    txn(&|o| {
        put(o, "d", "x");
        put(o, "a", "3");
        delete(o, "b");
    });
    txn(&|o| delete(o, "a"));
    txn(&|o| put(o, "\x00\x01k", "bin"));
    txn(&|o| {
        assert_eq!(
            o.txn_delete_range(&Keys::AtLeast(bytes("c")))
                .unwrap()
                .count,
            2
        );
        put(o, "d", "reborn");
    });
    txn(&|o| put(o, "a", "back"));
    txn(&|o| delete(o, "a"));
    txn(&|o| put(o, "e", "last"));
    assert_eq!(oracle.numbers().current, rev(12));
    oracle
}

/// Vector A: every row. The last two rows are the newer rule, by which the compact revision itself
/// can be hashed.
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
    let uncompacted = [
        (1, 1_084_519_789),
        (2, 2_587_454_935),
        (3, 2_496_657_716),
        (4, 1_543_131_607),
        (5, 3_443_527_744),
        (6, 2_028_030_389),
        (7, 4_231_545_613),
        (8, 1_089_918_727),
        (9, 4_178_312_705),
        (10, 232_134_794),
        (11, 2_524_539_072),
        (12, 2_532_792_950),
    ];
    check(None, &uncompacted);
    check(Some(0), &[(12, 2_532_792_950)]);
    check(Some(1), &[(12, 2_532_792_950)]);
    let at_6 = [
        (7, 1_748_219_419),
        (8, 3_368_539_584),
        (9, 2_370_538_030),
        (10, 2_986_598_664),
        (11, 1_707_725_061),
        (12, 2_488_629_843),
    ];
    check(Some(6), &at_6);
    let at_8 = [
        (9, 3_428_953_269),
        (10, 2_813_935_665),
        (11, 1_449_204_629),
        (12, 550_080_578),
    ];
    check(Some(8), &at_8);
    check(Some(6), &[(6, 1_569_834_837)]);
    check(Some(8), &[(8, 523_955_963)]);
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
fn vector_b(middle: bool, expected: &[(u32, i64, u64)]) {
    let mut oracle = Oracle::new();
    let mut found = Vec::new();
    let mut step = |oracle: &mut Oracle, from: u64, count: u64| {
        for i in from..=from + count {
            let key = match (i % 142, i % 71, i % 7) {
                (30, _, _) => "zenek",
                (_, 30, _) => "xavery",
                (_, _, day) => {
                    let names = [
                        "alice",
                        "bob",
                        "celine",
                        "dominik",
                        "eve",
                        "frederica",
                        "gorge",
                    ];
                    names[usize::try_from(day).unwrap()]
                }
            };
            oracle
                .put(&bytes(key), &Bytes::from(i.to_string()))
                .unwrap();
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
    };
    for from in (0..1210).step_by(71) {
        step(&mut oracle, from, 71);
    }
    step(&mut oracle, 1278, 1210);
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
    vector_b(
        true,
        &[
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
        ],
    );
}

/// Vector B, hashed at the end of each step.
#[test]
fn hash_by_rev_of_vector_b_last() {
    vector_b(
        false,
        &[
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
        ],
    );
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
