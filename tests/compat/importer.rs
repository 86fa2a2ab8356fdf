//! The importer of single records: what it takes, what it refuses, and what is there afterwards.

use revtree::{
    Applied, ChangeId, Db, Error, Event, EventKind, Importer, KeyRange, KeyValue, LeaseId, Options,
    Revision,
};
use tempfile::TempDir;

use crate::snapshot::{assert_same_answers, changes, range_at};
use crate::vectors::vector_a;

fn id(main: u64, sub: u64) -> ChangeId {
    ChangeId::new(Revision::new(main), sub)
}

fn kv(key: &str, create: u64, modified: u64, version: u64) -> KeyValue {
    let value = format!("{key} at {modified}").into();
    let key = key.to_owned().into();
    let (create, modified) = (Revision::new(create), Revision::new(modified));
    KeyValue::new(key, value, create, modified, version, LeaseId::NONE)
}

fn begin(folder: &TempDir, options: Options) -> Importer {
    Db::importer(folder.path().join("store"), options).unwrap()
}

fn finish(importer: Importer, current: u64, compacted: Option<u64>) -> revtree::Result<Db> {
    let compacted = compacted.map(Revision::new);
    importer.finish(Revision::new(current), compacted, Applied::default())
}

fn files(folder: &TempDir) -> usize {
    std::fs::read_dir(folder.path()).unwrap().count()
}

/// Gives an event of another store to an importer.
pub(crate) fn give(importer: &mut Importer, event: &Event) -> revtree::Result<()> {
    match event.kind {
        EventKind::Put => importer.put(event.id, &event.kv),
        EventKind::Delete => importer.delete(event.id, &event.kv.key),
    }
}

/// Gives all that another store has.
fn copy(from: &Db, folder: &TempDir, options: Options) -> Importer {
    let mut importer = begin(folder, options);
    for event in changes(from, 2, from.rev().get()) {
        give(&mut importer, &event).unwrap();
    }
    importer
}

/// Goal: a copy of a store, change by change, answers as the store does.
#[test]
fn copies_vector_a() {
    for compacted in [None, Some(0), Some(1), Some(5), Some(6), Some(9), Some(12)] {
        let source = vector_a();
        let folder = tempfile::tempdir().unwrap();
        let importer = copy(&source, &folder, Options::new());
        let db = finish(importer, 12, compacted).unwrap();
        // The source forgets nothing of a compaction but its hash's compact revision: see `hashes`.
        if let Some(rev) = compacted {
            source.compact(rev).unwrap();
        }
        let what = format!("compacted at {compacted:?}");
        let (from, to) = (compacted.unwrap_or(1).max(1) + 1, 12);
        for rev in from..=to {
            assert_eq!(
                db.hash_by_rev(rev).unwrap(),
                source.hash_by_rev(rev).unwrap(),
                "{what}"
            );
            assert_eq!(range_at(&db, rev), range_at(&source, rev), "{what}");
        }
        assert!(db.check().unwrap().is_clean(), "{what}");
        assert_eq!(files(&folder), 1);
    }
}

/// Goal: thousands of changes of few and of many keys, over many segments and checkpoints.
#[test]
fn copies_a_long_history() {
    let source = Options::new()
        .durability(revtree::Durability::Flushed)
        .open_in_memory()
        .unwrap();
    let mut state = 5_u64;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for n in 0..3000 {
        let mut txn = source.write().unwrap();
        for _ in 0..1 + next(3) {
            let many = next(2) * 1000;
            let key = format!("key {}", next(9 + many));
            let len = usize::try_from(if n % 500 == 7 { 90_000 } else { next(300) }).unwrap();
            match next(4) {
                0 => drop(txn.delete(&key).unwrap()),
                _ => drop(
                    txn.put_with_lease(&key, vec![7; len], LeaseId(n % 3))
                        .unwrap(),
                ),
            }
        }
        txn.commit().unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let options = || {
        Options::new()
            .segment_bytes(64 << 10)
            .checkpoint_bytes(100_000)
    };
    let importer = copy(&source, &folder, options());
    let db = finish(importer, source.rev().get(), None).unwrap();
    let check = db.check().unwrap();
    assert!(check.is_clean(), "{:?}", check.damage);
    for rev in (1..=source.rev().get()).step_by(71) {
        assert_eq!(
            db.hash_by_rev(rev).unwrap(),
            source.hash_by_rev(rev).unwrap()
        );
        assert_eq!(range_at(&db, rev), range_at(&source, rev), "at {rev}");
    }
    for n in 0..9 {
        let key = format!("key {n}");
        let history = |db: &Db| {
            let view = db.read().unwrap();
            let events = view.history(&key).unwrap();
            events.map(|event| event.unwrap().id).collect::<Vec<_>>()
        };
        assert_eq!(history(&db), history(&source));
    }
    // It goes on, is compacted and reopened as any other.
    db.put("key 1", "on").unwrap();
    db.compact(2000).unwrap();
    db.close().unwrap();
    let db = options().open(folder.path().join("store")).unwrap();
    assert!(db.check().unwrap().is_clean());
    source.put("key 1", "on").unwrap();
    source.compact(2000).unwrap();
    for rev in (2001..=source.rev().get()).step_by(97) {
        assert_eq!(range_at(&db, rev), range_at(&source, rev), "at {rev}");
        assert_eq!(
            db.hash_by_rev(rev).unwrap(),
            source.hash_by_rev(rev).unwrap()
        );
    }
}

/// Goal: keys whose first records were compacted away: any version, a delete, and gaps everywhere.
#[test]
fn first_records_of_any_kind() {
    let folder = tempfile::tempdir().unwrap();
    let mut importer = begin(&folder, Options::new());
    importer.put(id(1, 0), &kv("one", 1, 1, 1)).unwrap();
    importer.put(id(50, 3), &kv("old", 10, 50, 7)).unwrap();
    importer.delete(id(60, 0), b"gone").unwrap();
    importer.put(id(60, 9), &kv("gone", 60, 60, 1)).unwrap();
    importer.put(id(70, 0), &kv("old", 10, 70, 8)).unwrap();
    importer.delete(id(1 << 40, 0), b"old").unwrap();
    importer.delete(id((1 << 40) + 1, 0), b"old").unwrap();
    importer
        .put(id(1 << 50, 0), &kv("old", 1 << 50, 1 << 50, 1))
        .unwrap();
    importer
        .put(
            id((1 << 60) + 1, 0),
            &kv("old", 1 << 50, (1 << 60) + 1, 1 << 62),
        )
        .unwrap();
    let db = finish(importer, 1 << 61, Some(60)).unwrap();
    assert_eq!(db.rev().get(), 1 << 61);
    let at = |key: &str, rev: u64| {
        let view = db.read_at(rev).unwrap();
        view.get(key).unwrap().map(|record| record.version())
    };
    assert_eq!((at("old", 60), at("old", 70)), (Some(7), Some(8)));
    assert_eq!((at("old", 1 << 41), at("old", 1 << 50)), (None, Some(1)));
    assert_eq!(at("old", 0), Some(1 << 62));
    assert_eq!((at("gone", 60), at("one", 60)), (Some(1), Some(1)));
    let events: Vec<_> = changes(&db, 60, 70).iter().map(|event| event.id).collect();
    assert_eq!(events, [id(60, 0), id(60, 9), id(70, 0)]);
    assert!(db.check().unwrap().is_clean());
    assert_eq!(db.put("old", "next").unwrap().get(), (1 << 61) + 1);
}

/// Goal: nothing but a revision, tables and an index: an empty store that is raised.
#[test]
fn no_records_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut importer = begin(&folder, Options::new());
    importer.table_put("t", b"", b"").unwrap();
    let applied = Applied { index: 9, term: 2 };
    let db = importer.finish(Revision::new(77), Some(Revision::new(77)), applied);
    let db = db.unwrap();
    assert_eq!(
        (db.rev().get(), db.compact_rev()),
        (77, Some(Revision::new(77)))
    );
    assert_eq!(db.consistent_index(), applied);
    db.close().unwrap();
    let db = Db::open(folder.path().join("store")).unwrap();
    assert_eq!(db.consistent_index(), applied);
    let view = db.read().unwrap();
    assert_eq!(view.table("t").get(b"").unwrap().unwrap(), "");
    assert_eq!(view.range(KeyRange::all()).count().unwrap(), 0);
    assert_eq!(db.put("a", "1").unwrap().get(), 78);
}

/// Goal: what does not fit is refused with its place, and the importer goes on as if it was not given.
#[test]
fn refusals_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut importer = begin(&folder, Options::new());
    importer.put(id(5, 1), &kv("a", 3, 5, 2)).unwrap();
    importer.delete(id(6, 0), b"b").unwrap();
    let max = revtree_format::limits::REVISION_MAX;
    let puts = [
        (id(6, 0), kv("c", 6, 6, 1), "the id before"),
        (id(5, 7), kv("c", 5, 5, 1), "a lower id"),
        (id(0, 0), kv("c", 0, 0, 1), "revision 0"),
        (
            id(max + 1, 0),
            kv("c", max + 1, max + 1, 1),
            "too high a revision",
        ),
        (id(7, 1 << 32), kv("c", 7, 7, 1), "too high a place"),
        (id(7, 0), kv("c", 6, 6, 1), "another mod revision"),
        (id(7, 0), kv("c", 8, 7, 1), "created later"),
        (id(7, 0), kv("c", 0, 7, 1), "never created"),
        (id(7, 0), kv("c", 7, 7, 0), "version 0"),
        (id(7, 0), kv("c", 7, 7, u64::MAX), "no such version"),
        (id(7, 0), kv("a", 3, 7, 2), "the version before"),
        (id(7, 0), kv("a", 4, 7, 3), "another generation"),
        (id(7, 0), kv("a", 7, 7, 1), "a generation without a delete"),
        (id(7, 0), kv("b", 5, 7, 1), "created before its delete"),
    ];
    for (id, kv, what) in &puts {
        let error = importer.put(*id, kv).unwrap_err();
        assert!(
            matches!(error, Error::Import { offset: 2, .. }),
            "{what}: {error}"
        );
    }
    let error = importer.delete(id(6, 0), b"c").unwrap_err();
    assert!(matches!(error, Error::Import { .. }), "{error}");
    let long = vec![0; 65_536];
    let error = importer.delete(id(7, 0), &long).unwrap_err();
    assert!(matches!(error, Error::KeyTooLong { .. }), "{error}");
    let error = importer.table_put("", b"", b"").unwrap_err();
    assert!(matches!(error, Error::LimitReached { .. }), "{error}");
    let error = importer.table_put("key", b"", b"").unwrap_err();
    assert!(matches!(error, Error::LimitReached { .. }), "{error}");
    let error = importer.table_put("t", &long, b"").unwrap_err();
    assert!(matches!(error, Error::KeyTooLong { .. }), "{error}");
    importer.put(id(7, 0), &kv("a", 3, 7, 3)).unwrap();
    let db = finish(importer, 7, None).unwrap();
    let found: Vec<_> = changes(&db, 1, 7).iter().map(|event| event.id).collect();
    assert_eq!(found, [id(5, 1), id(6, 0), id(7, 0)]);
    assert_eq!(db.read().unwrap().tables().count(), 0);
}

/// Goal: an end that does not fit leaves nothing, nor does giving up.
#[test]
fn no_store_without_a_proper_end() {
    let folder = tempfile::tempdir().unwrap();
    let ends = [(4, None), (0, None), (u64::MAX, None), (5, Some(6))];
    for (current, compacted) in ends {
        let mut importer = begin(&folder, Options::new());
        importer.put(id(5, 0), &kv("a", 5, 5, 1)).unwrap();
        assert!(!folder.path().join("store").exists());
        let error = finish(importer, current, compacted).unwrap_err();
        assert!(matches!(error, Error::Import { .. }), "{error}");
        assert_eq!(files(&folder), 0);
    }
    drop(begin(&folder, Options::new()));
    assert_eq!(files(&folder), 0);
}

/// Goal: a file that has the name keeps it, whenever it came.
#[test]
fn never_in_place_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let exists = |error: &Error| matches!(error, Error::Io { cause, .. } if cause.kind() == std::io::ErrorKind::AlreadyExists);
    let (mut first, second) = (
        begin(&folder, Options::new()),
        begin(&folder, Options::new()),
    );
    first.put(id(2, 0), &kv("a", 2, 2, 1)).unwrap();
    let db = finish(first, 2, None).unwrap();
    let error = finish(second, 2, None).unwrap_err();
    assert!(exists(&error), "{error}");
    assert_eq!(files(&folder), 1);
    db.close().unwrap();
    let error = Db::importer(folder.path().join("store"), Options::new()).unwrap_err();
    assert!(exists(&error), "{error}");
    let error = Db::importer(folder.path().join("other"), Options::new().read_only());
    assert!(matches!(error, Err(Error::ReadOnly)));
    let db = Db::open(folder.path().join("store")).unwrap();
    assert_eq!(db.get("a").unwrap().unwrap().value, "a at 2");
}

/// Goal: rows at their limit are taken, also where a segment is smaller than a row.
#[test]
fn longest_rows() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options::new().segment_bytes(64 << 10);
    let mut importer = begin(&folder, options());
    let (key, value) = (vec![1; 65_535], vec![2; 16 << 20]);
    importer.put(id(2, 0), &kv("a", 2, 2, 1)).unwrap();
    for table in ["one", "two", "three"] {
        importer.table_put(table, &key, &value).unwrap();
        importer.table_put(table, b"", b"").unwrap();
    }
    let error = importer.table_put("four", b"", &value).unwrap_err();
    assert!(matches!(error, Error::LimitReached { .. }), "{error}");
    importer.put(id(3, 0), &kv("a", 2, 3, 2)).unwrap();
    finish(importer, 3, None).unwrap().close().unwrap();
    let db = options().open(folder.path().join("store")).unwrap();
    let view = db.read().unwrap();
    assert_eq!(view.tables().collect::<Vec<_>>(), ["one", "three", "two"]);
    for table in ["one", "two", "three"] {
        let found = view.table(table).get(&key).unwrap().unwrap();
        assert!(found == value, "{table}");
    }
    assert_eq!(db.get("a").unwrap().unwrap().version, 2);
    assert!(db.check().unwrap().is_clean());
}

/// Goal: an importer can be fed by another thread than the one that made it.
#[test]
fn importers_are_sent() {
    fn check<T: Send + 'static>() {}
    check::<Importer>();
}

/// Goal: two copies of one history are the same store to whoever asks.
#[test]
fn copies_agree() {
    let source = vector_a();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one_db = finish(copy(&source, &one, Options::new()), 20, Some(8)).unwrap();
    let small = Options::new().segment_bytes(64 << 10).checkpoint_bytes(1);
    let two_db = finish(copy(&source, &two, small), 20, Some(8)).unwrap();
    assert_same_answers(&one_db, &two_db, "large and small pieces");
}
