//! `HashKV` by the rules of etcd, on top of the checksum: equal to every recorded number.

use std::collections::{BTreeMap, BTreeSet};

use revtree_format::etcd::{
    HashKv, HashKvFeeder, HashKvPart, KeyValue, MetaBucket, RevisionKey, bucket,
};
use revtree_format::{ChangeId, Revision};
use revtree_test_bbolt::{
    History, Options, Tombstones, VECTOR_A_HASHES, vector_a, vector_a_snapshot, write,
};
use revtree_test_fixtures::all;

use crate::support::{database_of, pairs_of, walk};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The records that etcd hashes at `revision` when `compact` (−1 = never) is compacted.
fn hashed(pairs: &Pairs, revision: u64, compact: i64) -> Pairs {
    let mut newest: BTreeMap<&[u8], RevisionKey> = BTreeMap::new();
    let parsed: Vec<_> = pairs
        .iter()
        .map(|(key, value)| {
            let key = RevisionKey::parse(key).expect("a revision key");
            (key, KeyValue::decode(value).expect("a record"))
        })
        .collect();
    for (key, kv) in &parsed {
        if key.change.main.get() <= revision {
            newest.insert(kv.key, *key);
        }
    }
    let keep: BTreeSet<RevisionKey> = newest
        .into_values()
        .filter(|key| !key.is_tombstone)
        .collect();
    let compact = u64::try_from(compact).ok();
    let is_hashed = |key: &RevisionKey| {
        let main = key.change.main.get();
        let was_compacted = compact.is_some_and(|compact| main <= compact);
        let at_compaction = compact == Some(main) && key.is_tombstone;
        let dropped = was_compacted && !keep.is_empty() && !keep.contains(key);
        main <= revision && !dropped && !at_compaction
    };
    let hashed = parsed
        .iter()
        .zip(pairs)
        .filter(|((key, _), _)| is_hashed(key));
    hashed.map(|(_, pair)| pair.clone()).collect()
}

/// The hash in one go over raw bytes; and asserts that encoding again, and any split into parts,
/// gives the same.
fn hash_kv(pairs: &Pairs, revision: u64, compact: i64) -> u32 {
    let records = hashed(pairs, revision, compact);
    let mut whole = HashKv::new();
    let mut encoded = HashKv::new();
    for (key, value) in &records {
        whole.pair(key, value);
        let key = RevisionKey::parse(key).expect("a revision key");
        encoded.record(key, &KeyValue::decode(value).expect("a record"));
    }
    assert_eq!(whole, encoded, "at {revision}");
    let mut fed = HashKvFeeder::new();
    for (key, value) in &records {
        let key = RevisionKey::parse(key).expect("a revision key");
        fed.record(key, &KeyValue::decode(value).expect("a record"));
    }
    let mut joined = HashKv::new();
    joined.join(&fed.finish());
    assert_eq!(joined, whole, "fed, at {revision}");
    for parts in [1, 2, 7] {
        let mut joined = HashKv::new();
        joined.join(&HashKvPart::new());
        for chunk in records.chunks(records.len().div_ceil(parts).max(1)) {
            let mut part = HashKvPart::new();
            let mut rest = HashKvPart::new();
            let (front, back) = chunk.split_at(chunk.len() / 2);
            front.iter().for_each(|(key, value)| part.pair(key, value));
            back.iter().for_each(|(key, value)| rest.pair(key, value));
            part.join(&rest);
            joined.join(&part);
        }
        assert_eq!(joined, whole, "{parts} parts at {revision}");
    }
    whole.finish()
}

/// Goal: the hash of the empty store is etcd's, and the checksum is CRC-32C by its check value.
#[test]
fn empty_store_has_the_known_hash() {
    assert_eq!(HashKv::new().finish(), 1_084_519_789);
    assert_eq!(HashKv::default(), HashKv::new());
    let mut part = HashKvPart::new();
    part.pair(b"1234", b"56789");
    let mut check = HashKvPart::new();
    check.pair(b"", b"123456789");
    assert_eq!(part, check);
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

/// Goal: real servers answered these hashes for these files.
#[test]
fn recorded_hashes_are_equal() {
    let mut compared = 0;
    for fixture in all() {
        let walked = walk(database_of(&fixture.snapshot)).expect("a good file");
        let pairs = pairs_of(&walked, bucket::KEY);
        let mut meta = MetaBucket::default();
        for (key, value) in pairs_of(&walked, bucket::META) {
            meta.accept(&key, &value).expect("known values");
        }
        let compact = meta
            .compact_revision()
            .map_or(-1, |revision| revision.get().cast_signed());
        for answer in &fixture.hashes {
            let Some(recorded) = answer.hash else {
                assert_eq!(answer.revision.cast_signed(), compact, "{}", fixture.name);
                continue;
            };
            assert_eq!(recorded.compact_revision, compact, "{}", fixture.name);
            let revision = if answer.revision == 0 {
                fixture.meta.revision
            } else {
                answer.revision
            };
            let hash = hash_kv(&pairs, revision, compact);
            assert_eq!(hash, recorded.hash, "{} at {revision}", fixture.name);
            compared += 1;
        }
    }
    assert_eq!(compared, 44, "every recorded hash was compared");
}

/// Goal: the golden history has its hashes: uncompacted, compacted, and with the compaction
/// accepted but not begun, which must make no difference.
#[test]
fn vector_a_has_its_hashes() {
    for (compact, hashes) in VECTOR_A_HASHES {
        let compacted = u64::try_from(compact).ok();
        let image = vector_a_snapshot(&Options::default(), compacted);
        let done = pairs_of(&walk(image.database()).expect("a good file"), bucket::KEY);
        let mut contents = vector_a().contents();
        if let Some(revision) = compacted {
            contents.schedule_compaction(revision);
        }
        let image = write(&Options::default(), &contents);
        let pending = pairs_of(&walk(image.database()).expect("a good file"), bucket::KEY);
        assert_eq!(pending.len(), 15);
        for &(revision, hash) in hashes {
            assert_eq!(
                hash_kv(&done, revision, compact),
                hash,
                "{compact} {revision} done"
            );
            assert_eq!(
                hash_kv(&pending, revision, compact),
                hash,
                "{compact} {revision} pending"
            );
        }
    }
}

/// Goal: the newer rule for tombstones leaves every hash as it was.
#[test]
fn kept_tombstones_do_not_change_hashes() {
    let (compact, hashes) = VECTOR_A_HASHES[1];
    let mut history = vector_a();
    history.compact(6, Tombstones::KeepAtCompaction);
    assert!(
        history
            .changes()
            .iter()
            .any(|change| change.is_tombstone && change.main == 6)
    );
    let image = write(&Options::default(), &history.contents());
    let pairs = pairs_of(&walk(image.database()).expect("a good file"), bucket::KEY);
    for &(revision, hash) in hashes {
        assert_eq!(hash_kv(&pairs, revision, compact), hash, "{revision}");
    }
}

/// Goal: etcd's own pinned hashes over alternating puts and compactions.
#[test]
fn vector_b_has_its_hashes() {
    type Pinned = [(u32, i64, u64); 19];
    const MID: Pinned = [
        (4082599214, -1, 35),
        (2279933401, 35, 106),
        (3284231217, 106, 177),
        (126286495, 177, 248),
        (900108730, 248, 319),
        (2475485232, 319, 390),
        (1226296507, 390, 461),
        (2503661030, 461, 532),
        (4155130747, 532, 603),
        (106915399, 603, 674),
        (406914006, 674, 745),
        (1882211381, 745, 816),
        (806177088, 816, 887),
        (664311366, 887, 958),
        (1496914449, 958, 1029),
        (2434525091, 1029, 1100),
        (3988652253, 1100, 1171),
        (1122462288, 1171, 1242),
        (724436716, 1242, 1883),
    ];
    const LAST: Pinned = [
        (1913897190, -1, 73),
        (224860069, 73, 145),
        (1565167519, 145, 217),
        (1566261620, 217, 289),
        (2037173024, 289, 361),
        (691659396, 361, 433),
        (2713730748, 433, 505),
        (3919322507, 505, 577),
        (769967540, 577, 649),
        (2909194793, 649, 721),
        (1576921157, 721, 793),
        (4067701532, 793, 865),
        (2226384237, 865, 937),
        (2923408134, 937, 1009),
        (2680329256, 1009, 1081),
        (1546717673, 1081, 1153),
        (2713657846, 1153, 1225),
        (1046575299, 1225, 1297),
        (2017735779, 1297, 2508),
    ];
    for pinned in [MID, LAST] {
        let mut history = History::new();
        let steps = (0..18).map(|step| (step * 71, 71)).chain([(1278, 1210)]);
        for ((first, count), (hash, compact, revision)) in steps.zip(pinned) {
            for i in first..=first + count {
                history
                    .begin()
                    .put(pick(i).as_bytes(), i.to_string().as_bytes(), 0);
            }
            let contents = history.contents();
            let pairs = contents
                .pairs("key")
                .map(|(k, v)| (k.to_vec(), v.to_vec()))
                .collect();
            assert_eq!(hash_kv(&pairs, revision, compact), hash, "at {revision}");
            history.compact(revision, Tombstones::KeepAtCompaction);
        }
    }
}

fn pick(i: u64) -> &'static str {
    const NAMES: [&str; 7] = [
        "alice",
        "bob",
        "celine",
        "dominik",
        "eve",
        "frederica",
        "gorge",
    ];
    match i {
        _ if i % 142 == 30 => "zenek",
        _ if i % 71 == 30 => "xavery",
        _ => NAMES[usize::try_from(i % 7).expect("below seven")],
    }
}

/// Goal: pieces are joined at any border: values far below, at and above the length that is fed at once.
#[test]
fn a_feeder_gives_what_feeding_each_record_gives() {
    let mut whole = HashKvPart::new();
    let mut fed = HashKvFeeder::new();
    for (n, len) in (1u64..).zip([
        0_usize, 1, 511, 24_575, 24_576, 24_577, 3, 100_000, 8_191, 0, 20_000, 20_000,
    ]) {
        let value: Vec<u8> = (0u8..251).cycle().skip(len % 251).take(len).collect();
        let revision = RevisionKey {
            change: ChangeId::new(Revision::new(n), 0),
            is_tombstone: false,
        };
        let kv = KeyValue {
            value: &value,
            ..KeyValue::tombstone(b"key")
        };
        whole.record(revision, &kv);
        fed.record(revision, &kv);
        assert_eq!(fed.clone().finish(), whole, "after {n}");
    }
}
