//! Snapshots of every shape become stores, also those of which etcd has not finished something.

use std::sync::{Arc, Mutex};

use revtree::{ChangeId, Db, Error, EventKind, IgnoreKey, Options, Revision};
use revtree_test_bbolt::{
    Contents, Freelist, History, Metas, Options as Shape, Tombstones, VECTOR_A_HASHES, key_value,
    revision_key, vector_a, vector_a_snapshot, write,
};

use crate::damage::sound;
use crate::snapshot::{Folder, assert_same_answers, changes, imported, range_at};

/// What the `meta` bucket says of compactions differs between an unfinished and a finished one.
const FINISHED: [IgnoreKey<'static>; 1] = [IgnoreKey {
    table: "meta",
    key: b"finishedCompactRev",
}];

pub(crate) fn snapshot_of(contents: &Contents) -> Vec<u8> {
    write(&Shape::default(), contents).file().to_vec()
}

/// Goal: page sizes, trees and lists of every shape give the same store.
#[test]
fn every_shape() {
    let plain = Shape::default();
    let shapes = [
        Shape {
            page_bytes: 1024,
            ..plain.clone()
        },
        Shape {
            page_bytes: 16_384,
            ..plain.clone()
        },
        Shape {
            page_bytes: 65_536,
            ..plain.clone()
        },
        Shape {
            elements_max: Some(2),
            ..plain.clone()
        },
        Shape {
            elements_max: Some(4),
            inline: false,
            ..plain.clone()
        },
        Shape {
            freelist: Freelist::Kept,
            free_pages: 3,
            ..plain.clone()
        },
        Shape {
            metas: Metas::Live,
            txid: 11,
            slack_pages: 5,
            hash: false,
            ..plain.clone()
        },
        Shape {
            metas: Metas::Live,
            txid: 12,
            ..plain.clone()
        },
        Shape {
            hash: false,
            ..plain.clone()
        },
    ];
    for (compacted, hashes) in VECTOR_A_HASHES {
        let compacted = u64::try_from(compacted).ok();
        let image = vector_a_snapshot(&plain, compacted);
        let (_folder, expected_report, expected) = imported(image.file());
        for shape in &shapes {
            let image = vector_a_snapshot(shape, compacted);
            let (_folder, report, db) = imported(image.file());
            assert_eq!(report.sha256_checked, shape.hash, "{shape:?}");
            assert_eq!(report.records, expected_report.records, "{shape:?}");
            assert_eq!(report.rows, expected_report.rows, "{shape:?}");
            assert_same_answers(&db, &expected, &format!("{shape:?}"));
            let hash = (db.hash(&[]).unwrap(), expected.hash(&[]).unwrap());
            assert_eq!(hash.0, hash.1, "{shape:?}");
            for &(rev, hash) in hashes {
                assert_eq!(db.hash_by_rev(rev).unwrap().hash, hash, "{shape:?}");
            }
        }
    }
}

/// Goal: values with overflow pages, unknown buckets, empty ones, odd rows: all come out as they are.
#[test]
fn odd_contents() {
    let mut history = vector_a();
    let lens = [0, 1, 4000, 4064, 4065, 70_000, 1_500_000];
    for len in lens {
        history.begin().put(b"long", &vec![7; len], i64::MIN);
    }
    let mut contents = history.contents();
    contents.create("nothing in it");
    contents.put("from the future", b"", b"the empty key");
    contents.put("from the future", b"\xff\x00", &[1; 9000]);
    contents.put("meta", b"storageVersion", b"3.6.0");
    contents.put("meta", b"unknown", b"kept");
    let (_folder, report, db) = imported(&snapshot_of(&contents));
    assert_eq!(report.storage_version.as_deref(), Some("3.6.0"));
    assert_eq!(report.tables, 11);
    assert_eq!((report.applied.index, report.applied.term), (17, 2));
    let view = db.read().unwrap();
    for (bucket, rows) in contents.buckets() {
        let name = str::from_utf8(bucket).unwrap();
        if name == "key" {
            continue;
        }
        assert!(view.tables().any(|table| table == name), "{name}");
        let table = view.table(name);
        let found = table.iter().map(Result::unwrap);
        assert!(
            found.eq(rows
                .iter()
                .map(|(k, v)| (k.clone().into(), v.clone().into()))),
            "{name}"
        );
    }
    for (rev, len) in (13..).zip(lens) {
        let found = db.read_at(rev).unwrap();
        let record = found.get("long").unwrap().unwrap();
        assert_eq!((record.value_len(), record.lease().0), (len, i64::MIN));
    }
}

/// The bucket `key` without these records.
fn without(contents: &Contents, gone: &[(Vec<u8>, Vec<u8>)]) -> Contents {
    let mut left = Contents::new();
    for (bucket, rows) in contents.buckets() {
        let name = str::from_utf8(bucket).unwrap();
        left.create(name);
        for (key, value) in rows {
            if name != "key" || !gone.iter().any(|(dead, _)| dead == key) {
                left.put(name, key, value);
            }
        }
    }
    left
}

/// Goal: a compaction that was accepted is completed, wherever it was interrupted: the store is the one
/// that the finished compaction gives.
#[test]
fn unfinished_compactions() {
    for at in 0..=12 {
        let mut finished = vector_a();
        finished.compact(at, Tombstones::KeepAtCompaction);
        let finished = finished.contents();
        let (_folder, expected_report, expected) = imported(&snapshot_of(&finished));
        let mut unfinished = vector_a().contents();
        unfinished.schedule_compaction(at);
        let records = |contents: &Contents| -> Vec<(Vec<u8>, Vec<u8>)> {
            let pairs = contents.pairs("key");
            pairs.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
        };
        let kept = records(&finished);
        let mut dead = records(&unfinished);
        dead.retain(|record| !kept.contains(record));
        // It removes in order of revisions.
        for removed in 0..=dead.len() {
            let what = format!("compacted at {at}, {removed} removed");
            let contents = without(&unfinished, &dead[..removed]);
            let (_folder, report, db) = imported(&snapshot_of(&contents));
            assert_eq!(report.records, expected_report.records, "{what}");
            assert_eq!(
                report.records_compacted,
                (dead.len() - removed) as u64,
                "{what}"
            );
            assert_same_answers(&db, &expected, &what);
            let hash = (
                db.hash(&FINISHED).unwrap(),
                expected.hash(&FINISHED).unwrap(),
            );
            assert_eq!(hash.0, hash.1, "{what}");
        }
        for (compacted, hashes) in VECTOR_A_HASHES {
            for &(rev, hash) in hashes.iter().filter(|_| u64::try_from(compacted) == Ok(at)) {
                assert_eq!(expected.hash_by_rev(rev).unwrap().hash, hash);
            }
        }
    }
}

/// Goal: a second compaction interrupted behind a finished one; the finished one counts alone if the
/// other is older.
#[test]
fn two_compactions() {
    let mut history = vector_a();
    history.compact(6, Tombstones::KeepAtCompaction);
    let mut contents = history.contents();
    contents.schedule_compaction(11);
    let (_folder, report, db) = imported(&snapshot_of(&contents));
    history.compact(11, Tombstones::KeepAtCompaction);
    let (_folder, _, expected) = imported(&snapshot_of(&history.contents()));
    assert!(report.records_compacted > 0);
    assert_same_answers(&db, &expected, "6, then 11");
    assert_eq!(
        changes(&db, 11, 12).len(),
        2,
        "the delete at 11 and the put at 12"
    );
}

/// A history of few keys with many lives.
fn random_history(seed: u64) -> History {
    let mut state = seed;
    let mut below = |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut history = History::new();
    let mut alive = [false; 6];
    for n in 0..60u64 {
        history.begin();
        for _ in 0..=below(3) {
            let key = usize::try_from(below(6)).unwrap();
            let name = [b'a' + u8::try_from(key).unwrap()];
            if alive[key] && below(3) == 0 {
                history.delete(&name);
                alive[key] = false;
            } else {
                history.put(&name, n.to_string().as_bytes(), 0);
                alive[key] = true;
            }
        }
    }
    history
}

/// Goal: etcd's compaction before the import, one completed by it, and our own after it, agree.
#[test]
fn compacted_before_while_and_after() {
    for seed in 0..12 {
        let what = format!("seed {seed}");
        let history = random_history(seed);
        let at = 2 + seed * 5;
        let mut finished = history.clone();
        finished.compact(at, Tombstones::KeepAtCompaction);
        let (_folder, _, before) = imported(&snapshot_of(&finished.contents()));
        let mut contents = history.contents();
        contents.schedule_compaction(at);
        let (_folder, _, meanwhile) = imported(&snapshot_of(&contents));
        let (folder, _, db) = imported(&snapshot_of(&history.contents()));
        let at_compact = range_at(&db, at);
        db.compact(at).unwrap();
        // A reopen forgets the compaction's own hash.
        db.close().unwrap();
        let after = folder.open();
        assert_eq!(range_at(&before, at), at_compact, "{what}");
        assert_same_answers(&meanwhile, &before, &what);
        assert_same_answers(&after, &before, &what);
        let ignored = [
            FINISHED[0],
            IgnoreKey {
                table: "meta",
                key: b"scheduledCompactRev",
            },
        ];
        let hash = |db: &Db| db.hash(&ignored).unwrap().hash;
        assert_eq!(
            [hash(&meanwhile), hash(&after)],
            [hash(&before); 2],
            "{what}"
        );
    }
}

/// Goal: a bumped snapshot is at the higher revision, all below is compacted, and there is no key more.
#[test]
fn bumped_revision() {
    let mut contents = vector_a().contents();
    let bumped = contents.bump_revision(1_000_000);
    let (_folder, report, db) = imported(&snapshot_of(&contents));
    assert_eq!((db.rev().get(), bumped), (1_000_012, 1_000_012));
    assert_eq!(db.compact_rev(), Some(Revision::new(bumped)));
    assert_eq!((report.records, report.keys), (3, 3));
    let keys: Vec<_> = range_at(&db, bumped).into_iter().map(|kv| kv.key).collect();
    assert_eq!(keys, [&b"\x00\x01k"[..], b"d", b"e"]);
    assert!(db.get("").unwrap().is_none());
    assert!(changes(&db, bumped, bumped).is_empty());
    assert!(matches!(
        db.read_at(bumped - 1),
        Err(Error::Compacted { .. })
    ));
    assert!(matches!(
        db.read_at(bumped + 1),
        Err(Error::FutureRevision { .. })
    ));
    // What HashKV counts is the source without the mark.
    let mut history = vector_a();
    history.compact(12, Tombstones::Drop);
    let mut unmarked = history.contents();
    unmarked.finish_compaction(bumped);
    let (_folder, _, expected) = imported(&snapshot_of(&unmarked));
    assert_same_answers(&db, &expected, "without the mark");
    assert_eq!(db.put("e", "on").unwrap().get(), bumped + 1);
    assert_eq!(db.get("e").unwrap().unwrap().version, 2);

    // It ran on for a while, and was bumped again.
    let put = key_value(b"later", bumped + 5, bumped + 5, 1, b"", 0);
    contents.put("key", &revision_key(bumped + 5, 0, false), &put);
    let again = contents.bump_revision(10);
    let (_folder, report, db) = imported(&snapshot_of(&contents));
    assert_eq!((again, db.rev().get()), (bumped + 15, bumped + 15));
    assert_eq!(report.keys, 4);
    let later = db.get("later").unwrap().unwrap();
    assert_eq!(later.mod_revision.get(), bumped + 5);
}

/// Goal: a bucket without records is a store at revision 1, or where its compaction was.
#[test]
fn no_records() {
    let (_folder, report, db) = imported(&snapshot_of(&Contents::etcd()));
    assert_eq!((db.rev().get(), db.compact_rev()), (1, None));
    assert_eq!((report.records, report.keys), (0, 0));
    assert_eq!(db.hash_by_rev(0).unwrap().hash, 1_084_519_789);
    let mut contents = Contents::etcd();
    contents.finish_compaction(0);
    let (_folder, _, db) = imported(&snapshot_of(&contents));
    assert_eq!(
        (db.rev().get(), db.compact_rev()),
        (1, Some(Revision::new(0)))
    );
    contents.finish_compaction(90);
    let (_folder, _, db) = imported(&snapshot_of(&contents));
    assert_eq!(
        (db.rev().get(), db.compact_rev()),
        (90, Some(Revision::new(90)))
    );
    assert_eq!(db.put("a", "1").unwrap().get(), 91);
}

/// Goal: a key of which only the delete is left is gone, its event is seen, and it can live again.
#[test]
fn tombstone_first() {
    let mut history = History::new();
    history.begin().put(b"k", b"1", 0);
    history.begin().delete(b"k");
    history.begin().put(b"other", b"", 0);
    history.compact(3, Tombstones::KeepAtCompaction);
    let (_folder, report, db) = imported(&snapshot_of(&history.contents()));
    assert_eq!((report.records, report.keys), (2, 1));
    assert!(db.get("k").unwrap().is_none());
    assert!(db.read_at(3).unwrap().get("k").unwrap().is_none());
    let events = changes(&db, 3, 4);
    let first = &events[0];
    assert_eq!((first.id.main.get(), first.kind), (3, EventKind::Delete));
    assert_eq!(db.put("k", "2").unwrap().get(), 5);
    let kv = db.get("k").unwrap().unwrap();
    assert_eq!((kv.version, kv.create_revision.get()), (1, 5));
    assert_eq!(db.read().unwrap().history("k").unwrap().count(), 2);
    db.compact(4).unwrap();
    assert_eq!(db.read().unwrap().history("k").unwrap().count(), 1);
}

/// Goal: what etcd's own lost put leaves (SEMANTICS §4.5) is taken: a delete at the compact revision,
/// then the second version of a generation whose first is missing.
#[test]
fn lost_put_at_the_compact_revision() {
    let mut contents = Contents::etcd();
    let key = |main, sub, dead| revision_key(main, sub, dead);
    contents.put("key", &key(5, 0, true), &key_value(b"k", 0, 0, 0, b"", 0));
    contents.put("key", &key(7, 0, false), &key_value(b"k", 5, 7, 2, b"v", 0));
    contents.put("key", &key(8, 0, true), &key_value(b"k", 0, 0, 0, b"", 0));
    contents.put("key", &key(9, 0, true), &key_value(b"k", 0, 0, 0, b"", 0));
    contents.finish_compaction(5);
    let (_folder, _, db) = imported(&snapshot_of(&contents));
    let version = |rev: u64| {
        db.read_at(rev)
            .unwrap()
            .get("k")
            .unwrap()
            .map(|r| r.version())
    };
    let versions = [version(5), version(6), version(7), version(8), version(9)];
    assert_eq!(versions, [None, None, Some(2), None, None]);
    assert_eq!(changes(&db, 5, 9).len(), 4);
}

/// Goal: limits of the tables are looked at before anything is written. The folder of the target does
/// not exist, so the first thing written would be another error.
#[test]
fn table_limits_come_first() {
    let mut buckets = Vec::new();
    let mut contents = vector_a().contents();
    for n in 0..68u8 {
        contents.put("authUsers", &[n], &vec![n; 1 << 20]);
    }
    buckets.push((snapshot_of(&contents), "side tables would pass"));
    let mut contents = vector_a().contents();
    contents.put("alarm", b"k", &vec![7; (16 << 20) + 1]);
    buckets.push((snapshot_of(&contents), "the value has 16777217 bytes"));
    let mut contents = vector_a().contents();
    contents.put("alarm", &vec![7; 65_536], b"");
    buckets.push((snapshot_of(&contents), "the key has 65536 bytes"));
    let mut contents = vector_a().contents();
    contents.create(&"n".repeat(256));
    buckets.push((snapshot_of(&contents), "name"));
    let mut contents = vector_a().contents();
    contents.create("");
    buckets.push((snapshot_of(&contents), "name"));
    let mut contents = vector_a().contents();
    contents.create("zzz not UTF-8");
    let mut image = write(&Shape::default(), &contents);
    let at = image
        .file()
        .windows(3)
        .position(|bytes| bytes == b"zzz")
        .unwrap();
    image.overwrite(at, b"\xff\xfe");
    image.rehash();
    buckets.push((image.file().to_vec(), "not named in UTF-8"));
    for (file, what) in buckets {
        let folder = Folder::with(&file);
        let nowhere = folder.path().join("missing").join("store");
        let error = Db::import_etcd(folder.snapshot(), nowhere, Options::new()).unwrap_err();
        assert!(matches!(error, Error::Import { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// Goal: a file that has the name stays, and is looked for before the snapshot is.
#[test]
fn existing_target() {
    let folder = Folder::with(b"");
    std::fs::write(folder.store(), b"mine").unwrap();
    let error = Db::import_etcd(folder.path().join("none"), folder.store(), Options::new());
    let kind = |error: Error| match error {
        Error::Io { cause, .. } => cause.kind(),
        other => panic!("{other}"),
    };
    assert_eq!(kind(error.unwrap_err()), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(folder.store()).unwrap(), b"mine");
    let missing = folder.path().join("none");
    let error = Db::import_etcd(&missing, folder.path().join("new"), Options::new());
    assert_eq!(kind(error.unwrap_err()), std::io::ErrorKind::NotFound);
    let error = Db::import_etcd(
        &missing,
        folder.path().join("new"),
        Options::new().read_only(),
    );
    assert!(error.is_err());
    assert_eq!(folder.others(), ["store"]);
}

/// Goal: progress is told, ends at its total, and never goes back.
#[test]
fn progress() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let folder = Folder::with(sound().file());
    let options = Options::new().on_progress(move |progress| {
        log.lock()
            .unwrap()
            .push((progress.what, progress.done, progress.total));
    });
    let report = Db::import_etcd(folder.snapshot(), folder.store(), options).unwrap();
    let told = told.lock().unwrap();
    let end = sound().database().len() as u64;
    assert!(told.contains(&("snapshot bytes hashed", end, Some(end))));
    let records = report.records + report.records_compacted;
    assert_eq!(
        told.last(),
        Some(&("records imported", records, Some(records)))
    );
    for pair in told.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        assert!(pair[0].1 < pair[1].1);
    }
    assert!(report.bytes_read >= end);
}

/// Goal: ids are etcd's, sub by sub.
#[test]
fn change_ids() {
    let (_folder, _, db) = imported(vector_a_snapshot(&Shape::default(), None).file());
    let ids: Vec<ChangeId> = changes(&db, 9, 9).iter().map(|event| event.id).collect();
    let nine = |sub| ChangeId::new(Revision::new(9), sub);
    assert_eq!(ids, [nine(0), nine(1), nine(2)]);
}
