//! Recorded histories: what is imported answers as the server did that wrote it.
//!
//! The servers refuse HashKV at the compact revision itself, newer ones and this crate answer it (see
//! the fixtures' README).

use std::collections::{BTreeMap, BTreeSet};

use revtree::{
    Db, Error, Event, EventKind, KeyRange, KeyValue, LeaseId, Options, Revision, Start, Update,
};
use revtree_format::etcd::{Bbolt, SnapshotLayout};
use revtree_test_fixtures::{EventKind as FixtureKind, Fixture, Kv, all};
use sha2::{Digest, Sha256};

use crate::snapshot::{changes, imported, range_at};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the server said of a pair.
fn as_recorded(kv: &KeyValue) -> Kv {
    Kv {
        key: kv.key.to_vec(),
        create: kv.create_revision.get(),
        modified: kv.mod_revision.get(),
        version: kv.version,
        lease: kv.lease.0,
        value_sha256: Sha256::digest(&kv.value).into(),
    }
}

fn event_as_recorded(event: &Event) -> (FixtureKind, Kv) {
    let kind = match event.kind {
        EventKind::Put => FixtureKind::Put,
        EventKind::Delete => FixtureKind::Delete,
    };
    (kind, as_recorded(&event.kv))
}

/// The buckets of the file, by the reader of the format crate.
fn buckets(snapshot: &[u8]) -> BTreeMap<String, Rows> {
    let layout = SnapshotLayout::of(snapshot.len() as u64).unwrap();
    let end = usize::try_from(layout.database_bytes).unwrap();
    let database = Bbolt::open(&snapshot[..end]).unwrap();
    let mut all = BTreeMap::new();
    for bucket in database.buckets().unwrap() {
        let mut rows = Rows::new();
        let mut cursor = database.cursor(&bucket);
        while let Some(pair) = cursor.next().unwrap() {
            rows.insert(pair.key.to_vec(), pair.value.to_vec());
        }
        all.insert(String::from_utf8(bucket.name().to_vec()).unwrap(), rows);
    }
    all
}

fn check(fixture: &Fixture, db: &Db, when: &str) {
    let name = format!("{} {when}", fixture.name);
    let meta = &fixture.meta;
    assert_eq!(db.rev().get(), meta.revision, "{name}");
    let compacted = db.compact_rev().map(Revision::get);
    assert_eq!(compacted, meta.compact_revision, "{name}");
    check_ranges(fixture, db, &name);
    check_events(fixture, db, &name);
    check_watch(fixture, db, &name);
    check_hashes(fixture, db, &name);
    check_tables(fixture, db, &name);
}

fn check_ranges(fixture: &Fixture, db: &Db, name: &str) {
    for answer in &fixture.ranges {
        let found: Vec<Kv> = range_at(db, answer.revision)
            .iter()
            .map(as_recorded)
            .collect();
        assert_eq!(found, answer.kvs, "{name} at {}", answer.revision);
        // One by one, from a view at the revision.
        let view = db.read_at(answer.revision).unwrap();
        for expected in &answer.kvs {
            let kv = view.get(&expected.key).unwrap().unwrap().to_key_value();
            assert_eq!(&as_recorded(&kv), expected, "{name} at {}", answer.revision);
        }
    }
}

fn check_events(fixture: &Fixture, db: &Db, name: &str) {
    let first = fixture.meta.compact_revision.map_or(2, |rev| rev + 1);
    let mut found: BTreeMap<u64, Vec<(FixtureKind, Kv)>> = BTreeMap::new();
    let mut by_key: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for event in changes(db, first, fixture.meta.revision) {
        let (kind, kv) = event_as_recorded(&event);
        *by_key.entry(kv.key.clone()).or_default() += 1;
        let of_revision = found.entry(event.id.main.get()).or_default();
        assert_eq!(event.id.sub, of_revision.len() as u64, "{name}");
        of_revision.push((kind, kv));
    }
    let expected: BTreeMap<u64, Vec<(FixtureKind, Kv)>> = fixture
        .events
        .iter()
        .map(|batch| {
            let events = batch.events.iter();
            let events = events.map(|event| (event.kind, event.kv.clone()));
            (batch.revision, events.collect())
        })
        .collect();
    assert_eq!(found, expected, "{name}");
    let view = db.read().unwrap();
    for (key, count) in by_key {
        let history = view.history(&key).unwrap().map(Result::unwrap);
        let above = history.filter(|event| event.id.main.get() >= first).count();
        assert_eq!(above, count, "{name}: history of {}", key.escape_ascii());
    }
}

/// Revision, kind and pair.
type Change = (u64, FixtureKind, Kv);

/// What a watcher is given of the past.
fn watched(db: &Db, keys: impl Into<KeyRange>, start: Start) -> Vec<Change> {
    let mut stream = db.watch(keys, start).unwrap();
    let mut found = Vec::new();
    while let Some(response) = stream.try_recv().unwrap() {
        let Update::Events(events) = response.update else {
            panic!("{:?}", response.update)
        };
        for event in &events {
            let (kind, kv) = event_as_recorded(event);
            found.push((event.id.main.get(), kind, kv));
        }
        let last = found.last().map(|(rev, ..)| *rev);
        assert!(last <= Some(response.revision.get()));
    }
    found
}

/// A watcher from behind the compact revision on is given what etcd's was; one from the oldest on is given
/// what is left of the compact revision too.
fn check_watch(fixture: &Fixture, db: &Db, name: &str) {
    let compact = fixture.meta.compact_revision;
    let recorded: Vec<Change> = fixture
        .events
        .iter()
        .flat_map(|batch| {
            let events = batch.events.iter();
            events.map(|event| (batch.revision, event.kind, event.kv.clone()))
        })
        .collect();
    let at_compact: Vec<Change> = compact.map_or(Vec::new(), |compact| {
        let events = changes(db, compact, compact);
        let change = |event: &Event| {
            let (kind, kv) = event_as_recorded(event);
            (compact, kind, kv)
        };
        events.iter().map(change).collect()
    });
    let check = |keys: KeyRange, has: &dyn Fn(&[u8]) -> bool| {
        let of_keys = |all: &[Change]| {
            let all = all.iter().filter(|(_, _, kv)| has(&kv.key));
            all.cloned().collect::<Vec<_>>()
        };
        let mut expected = of_keys(&recorded);
        let first = Revision::new(compact.map_or(1, |compact| compact + 1));
        let found = watched(db, keys.clone(), Start::At(first));
        assert_eq!(found, expected, "{name}: {keys:?}");
        expected.splice(..0, of_keys(&at_compact));
        let found = watched(db, keys.clone(), Start::Oldest);
        assert_eq!(found, expected, "{name}: {keys:?} from the oldest on");
    };
    check(KeyRange::all(), &|_| true);
    let keys: BTreeSet<&[u8]> = recorded.iter().map(|(_, _, kv)| &kv.key[..]).collect();
    let prefixes = keys
        .iter()
        .flat_map(|key| [1, 2, 4].map(|len| &key[..len.min(key.len())]));
    for prefix in prefixes.collect::<BTreeSet<_>>() {
        check(KeyRange::prefix(prefix), &|key| key.starts_with(prefix));
    }
    for key in keys {
        check(KeyRange::single(key), &|other| other == key);
    }
}

fn check_hashes(fixture: &Fixture, db: &Db, name: &str) {
    for answer in &fixture.hashes {
        let found = db.hash_by_rev(answer.revision);
        match answer.hash {
            Some(expected) => {
                let found = found.unwrap();
                let compacted = found.compact_revision.map(|rev| i64::try_from(rev.get()));
                assert_eq!(
                    (found.hash, compacted.map_or(-1, Result::unwrap)),
                    (expected.hash, expected.compact_revision),
                    "{name} at {}",
                    answer.revision
                );
            }
            None if Some(answer.revision) == fixture.meta.compact_revision => {
                assert_eq!(found.unwrap().revision.get(), answer.revision, "{name}");
            }
            None => assert!(
                matches!(found, Err(Error::Compacted { .. })),
                "{name} at {}: {found:?}",
                answer.revision
            ),
        }
    }
}

fn check_tables(fixture: &Fixture, db: &Db, name: &str) {
    let mut expected = buckets(&fixture.snapshot);
    expected.remove("key").expect("a bucket of records");
    let view = db.read().unwrap();
    let mut found = BTreeMap::new();
    for table in view.tables() {
        let rows: Rows = view
            .table(table)
            .iter()
            .map(Result::unwrap)
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        found.insert(table.to_owned(), rows);
    }
    assert_eq!(found, expected, "{name}");
    let leases: Vec<i64> = found["lease"]
        .keys()
        .map(|id| i64::from_be_bytes(id.as_slice().try_into().unwrap()))
        .collect();
    assert_eq!(leases, fixture.meta.leases, "{name}");
    let index = u64::from_be_bytes(
        found["meta"][&b"consistent_index"[..]][..]
            .try_into()
            .unwrap(),
    );
    assert_eq!(db.consistent_index().index, index, "{name}");
    let term = found["meta"].get(&b"term"[..]);
    let term = term.map_or(0, |term| u64::from_be_bytes(term[..].try_into().unwrap()));
    assert_eq!(db.consistent_index().term, term, "{name}");
}

/// Goal: each snapshot gives the recorded answers, at once and after reopening in each way.
#[test]
fn answers() {
    for fixture in all() {
        let (folder, report, db) = imported(&fixture.snapshot);
        assert_eq!(report.revision.get(), fixture.meta.revision);
        assert_eq!(report.keys, fixture.meta.keys_now as u64);
        assert_eq!(report.applied, db.consistent_index());
        let version = fixture.name.starts_with("etcd-3.5").then_some("3.5");
        assert_eq!(report.storage_version.as_deref(), version);
        assert!(report.sha256_checked);
        check(&fixture, &db, "imported");
        db.close().unwrap();
        let db = folder.open();
        check(&fixture, &db, "reopened");
        db.close().unwrap();
        let db = Options::new().read_only().open(folder.store()).unwrap();
        check(&fixture, &db, "read only");
    }
}

/// Goal: small segments, checkpoints at every turn and reads into buffers change no answer.
#[test]
fn answers_of_a_store_in_small_pieces() {
    let fixture = revtree_test_fixtures::load("etcd-3.5-compacted");
    let folder = crate::snapshot::Folder::with(&fixture.snapshot);
    let options = || {
        Options::new()
            .segment_bytes(64 << 10)
            .checkpoint_bytes(10 << 10)
            .read_mode(revtree::ReadMode::Pread)
    };
    Db::import_etcd(folder.snapshot(), folder.store(), options()).unwrap();
    let db = options().open(folder.store()).unwrap();
    assert!(db.check().unwrap().is_clean());
    check(&fixture, &db, "in small pieces");
}

/// Goal: the hash of everything is etcd's: all buckets in order, names, keys and values.
#[test]
fn hash_of_the_whole_store() {
    for fixture in all() {
        let mut crc = 0;
        for (name, rows) in buckets(&fixture.snapshot) {
            crc = crc32c::crc32c_append(crc, name.as_bytes());
            for (key, value) in rows {
                crc = crc32c::crc32c_append(crc, &key);
                crc = crc32c::crc32c_append(crc, &value);
            }
        }
        let (_folder, _, db) = imported(&fixture.snapshot);
        assert_eq!(db.hash(&[]).unwrap().hash, crc, "{}", fixture.name);
    }
}

/// Goal: the history goes on where the server left it.
#[test]
fn writes_go_on() {
    for fixture in all() {
        let (_folder, _, db) = imported(&fixture.snapshot);
        let before = range_at(&db, 0);
        let (first, last) = (&before[0], before.last().unwrap());
        let next = fixture.meta.revision + 1;
        let mut txn = db.write().unwrap();
        txn.put_with_lease(&first.key, "more", LeaseId(7)).unwrap();
        txn.delete(&last.key).unwrap();
        assert_eq!(txn.commit().unwrap().revision.get(), next);
        let kv = db.get(&first.key).unwrap().unwrap();
        assert_eq!(kv.version, first.version + 1);
        assert_eq!(kv.create_revision, first.create_revision);
        assert_eq!(db.put(&last.key, "again").unwrap().get(), next + 1);
        assert_eq!(db.get(&last.key).unwrap().unwrap().version, 1);
        assert_eq!(range_at(&db, next - 1), before);
        db.compact(next).unwrap();
        let at_compact = range_at(&db, next);
        assert_eq!(at_compact.len(), before.len() - 1);
        let view = db.read().unwrap();
        let all = view.range(KeyRange::all()).count().unwrap();
        assert_eq!(all, before.len() as u64);
        assert!(db.check().unwrap().is_clean());
    }
}
