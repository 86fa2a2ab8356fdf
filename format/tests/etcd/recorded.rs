//! Snapshots of real servers: everything in them is read, and says what the servers said.

use revtree_format::LeaseId;
use revtree_format::etcd::{
    Bbolt, HASH_BYTES, KeyValue, Lease, MetaBucket, RevisionKey, SnapshotLayout, bucket, lease_key,
};
use revtree_test_fixtures::{Event, EventBatch, EventKind, Fixture, Kv, all};
use sha2::{Digest, Sha256};

use crate::support::{Walked, database_of, pairs_of, walk};

fn each(check: impl Fn(&Fixture, &Walked)) {
    for fixture in all() {
        let walked = walk(database_of(&fixture.snapshot))
            .unwrap_or_else(|error| panic!("{}: {error}", fixture.name));
        check(&fixture, &walked);
    }
}

/// Goal: the trailing hash is recognised, and covers exactly the database.
#[test]
fn trailing_hash_is_that_of_the_database() {
    for fixture in all() {
        let layout = SnapshotLayout::of(fixture.snapshot.len() as u64).expect("a snapshot");
        assert!(layout.has_hash, "{}", fixture.name);
        let database = database_of(&fixture.snapshot);
        assert_eq!(
            fixture.snapshot.len() - database.len(),
            usize::try_from(HASH_BYTES).unwrap()
        );
        assert_eq!(
            fixture.snapshot[database.len()..],
            Sha256::digest(database)[..]
        );
    }
}

/// Goal: the meta page is understood: snapshots keep no free list and end at the high-water mark.
#[test]
fn meta_page_describes_the_file() {
    for fixture in all() {
        let database = Bbolt::open(database_of(&fixture.snapshot)).expect("a database");
        let meta = database.meta();
        assert_eq!((meta.page_bytes, meta.page, meta.freelist), (4096, 0, None));
        let bytes = meta.high_water * u64::from(meta.page_bytes);
        assert_eq!(
            bytes,
            database.into_pages().len() as u64,
            "{}",
            fixture.name
        );
    }
}

/// Goal: every bucket that etcd creates is listed, in order.
#[test]
fn all_buckets_are_listed() {
    each(|fixture, walked| {
        let names: Vec<_> = walked
            .iter()
            .map(|(name, _)| str::from_utf8(name).unwrap())
            .collect();
        let expected = [
            "alarm",
            "auth",
            "authRoles",
            "authUsers",
            "cluster",
            "key",
            "lease",
            "members",
            "members_removed",
            "meta",
        ];
        assert_eq!(names, expected, "{}", fixture.name);
    });
}

/// Goal: the `meta` bucket gives the compact revision and the index of the log.
#[test]
fn meta_bucket_gives_the_compact_revision() {
    each(|fixture, walked| {
        let mut meta = MetaBucket::default();
        for (key, value) in pairs_of(walked, bucket::META) {
            meta.accept(&key, &value).expect("known values");
        }
        let compact = meta.compact_revision().map(|revision| revision.get());
        assert_eq!(compact, fixture.meta.compact_revision, "{}", fixture.name);
        assert_eq!(
            meta.scheduled_compact, meta.finished_compact,
            "{}",
            fixture.name
        );
        assert!(
            meta.consistent_index
                .is_some_and(|index| index >= fixture.meta.revision - 1)
        );
        assert_eq!(
            meta.term.is_some(),
            fixture.name.contains("3.5"),
            "{}",
            fixture.name
        );
        assert_eq!(
            meta.conf_state.is_some(),
            fixture.name.contains("3.5"),
            "{}",
            fixture.name
        );
        assert_eq!(meta.storage_version, None, "{}", fixture.name);
    });
}

/// Goal: every lease is read, and encodes to the bytes it came from.
#[test]
fn leases_are_those_that_were_granted() {
    each(|fixture, walked| {
        let pairs = pairs_of(walked, bucket::LEASE);
        let mut ids = Vec::new();
        for (key, value) in &pairs {
            let lease = Lease::parse(key, value).expect("a lease");
            assert_eq!(lease.to_vec(), *value, "{}", fixture.name);
            assert_eq!(lease_key(lease.id)[..], key[..], "{}", fixture.name);
            assert!(lease.ttl_s > 0);
            ids.push(lease.id);
        }
        let granted: Vec<_> = fixture.meta.leases.iter().map(|&id| LeaseId(id)).collect();
        assert_eq!(ids, granted, "{}", fixture.name);
    });
}

/// Goal: revision keys and records encode to exactly the bytes that etcd wrote.
#[test]
fn records_encode_to_the_same_bytes() {
    each(|fixture, walked| {
        let pairs = pairs_of(walked, bucket::KEY);
        assert!(
            pairs.len() > 250,
            "{} has {} records",
            fixture.name,
            pairs.len()
        );
        for (raw_key, raw_value) in &pairs {
            let key = RevisionKey::parse(raw_key).expect("a revision key");
            assert_eq!(key.encode().as_ref(), raw_key);
            let kv = KeyValue::decode(raw_value).expect("a record");
            assert_eq!(
                kv.to_vec(),
                *raw_value,
                "{} at {}",
                fixture.name,
                key.change
            );
            assert_eq!(kv.encoded_len(), raw_value.len());
            match key.is_tombstone {
                true => assert_eq!(kv, KeyValue::tombstone(kv.key)),
                false => assert_eq!(kv.modified, key.change.main),
            }
        }
        let (last, _) = pairs.last().expect("records");
        let last = RevisionKey::parse(last).expect("a revision key");
        assert_eq!(
            last.change.main.get(),
            fixture.meta.revision,
            "{}",
            fixture.name
        );
    });
}

/// Goal: the records above the compact revision are the events that a watch saw, field by field.
#[test]
fn records_are_the_watched_events() {
    each(|fixture, walked| {
        let mut batches: Vec<EventBatch> = Vec::new();
        for (raw_key, raw_value) in &pairs_of(walked, bucket::KEY) {
            let key = RevisionKey::parse(raw_key).expect("a revision key");
            let revision = key.change.main.get();
            if revision <= fixture.meta.compact_revision.unwrap_or(0) {
                continue;
            }
            if batches
                .last()
                .is_none_or(|batch| batch.revision != revision)
            {
                batches.push(EventBatch {
                    revision,
                    events: Vec::new(),
                });
            }
            let events = &mut batches.last_mut().expect("pushed").events;
            assert_eq!(key.change.sub, events.len() as u64, "subs have no gaps");
            events.push(event(key, &KeyValue::decode(raw_value).expect("a record")));
        }
        assert_eq!(batches, fixture.events, "{}", fixture.name);
    });
}

fn event(key: RevisionKey, kv: &KeyValue<'_>) -> Event {
    Event {
        kind: if key.is_tombstone {
            EventKind::Delete
        } else {
            EventKind::Put
        },
        kv: Kv {
            key: kv.key.to_vec(),
            create: kv.create.get(),
            modified: key.change.main.get(),
            version: kv.version,
            lease: kv.lease.0,
            value_sha256: Sha256::digest(kv.value).into(),
        },
    }
}
