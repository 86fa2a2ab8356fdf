//! `HashKV` by the rules of etcd, on top of the checksum: equal to every recorded number.

use std::collections::{BTreeMap, BTreeSet};

use revtree_format::etcd::{
    HashKv, HashKvFeeder, HashKvPart, KeyValue, MetaBucket, RevisionKey, bucket,
};
use revtree_format::{ChangeId, Revision};
use revtree_test_bbolt::{
    History, Options, Tombstones, VECTOR_A_HASHES, VECTOR_B_LAST, VECTOR_B_MIDDLE, vector_a,
    vector_a_snapshot, vector_b_key, vector_b_steps, write,
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
    for pinned in [VECTOR_B_MIDDLE, VECTOR_B_LAST] {
        let mut history = History::new();
        for ((first, count), (hash, compact, revision)) in vector_b_steps().zip(pinned) {
            for i in first..=first + count {
                history
                    .begin()
                    .put(vector_b_key(i).as_bytes(), i.to_string().as_bytes(), 0);
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
