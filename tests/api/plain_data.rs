//! The feature `serde`: each public type that is plain data goes out and comes back equal.

use std::time::Duration;

use revtree::{
    Applied, ChangeId, Commit, Create, DEFAULT_IGNORES, Db, Deleted, Durability, ErrorKind, Event,
    EventKind, KeyRange, KeyValue, LeaseId, Options, Outcome, Prev, Progress, ReadMode, Revision,
    Stats, WatchId,
};
use serde_json::{Value, from_value, json, to_value};

/// Out and back; gives what was between.
fn round_trip<T>(value: &T) -> Value
where
    T: serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let shown = to_value(value).unwrap();
    let back: T = from_value(shown.clone()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{value:?}"));
    // Through text too: numbers and bytes are the same there.
    let text = serde_json::to_string(value).unwrap();
    let back: T = serde_json::from_str(&text).unwrap();
    assert_eq!(to_value(&back).unwrap(), shown);
    shown
}

fn key_value() -> KeyValue {
    let key = vec![b'a', 0xff].into();
    KeyValue::new(key, "1".into(), 3.into(), 7.into(), 2, LeaseId(-5))
}

/// A store with two puts and a delete.
fn store() -> Db {
    let db = Options::new().open_in_memory().unwrap();
    db.put("a", "1").unwrap();
    db.put("a", "2").unwrap();
    db.delete("a").unwrap();
    db
}

#[test]
fn ids_are_plain_numbers() {
    assert_eq!(round_trip(&Revision::new(u64::MAX)), json!(u64::MAX));
    assert_eq!(round_trip(&LeaseId(-1)), json!(-1));
    assert_eq!(round_trip(&WatchId::ALL), json!(-1));
    let id = ChangeId::new(Revision::new(9), 2);
    assert_eq!(round_trip(&id), json!({ "main": 9, "sub": 2 }));
    let applied = Applied { index: 5, term: 2 };
    assert_eq!(round_trip(&applied), json!({ "index": 5, "term": 2 }));
}

#[test]
fn a_key_value_has_its_bytes_and_numbers() {
    let shown = round_trip(&key_value());
    let expected = json!({
        "key": [97, 255],
        "value": [49],
        "create_revision": 3,
        "mod_revision": 7,
        "version": 2,
        "lease": -5,
    });
    assert_eq!(shown, expected);
    assert_eq!(from_value::<KeyValue>(shown).unwrap(), key_value());
    // Where text stands for bytes, its UTF-8 is taken.
    let mut text = expected;
    text["value"] = json!("one");
    assert_eq!(from_value::<KeyValue>(text).unwrap().value, "one");
}

#[test]
fn events_come_back_with_what_was_before() {
    let view = store().read().unwrap();
    let events: Vec<Event> = view.history("a").unwrap().map(Result::unwrap).collect();
    assert_eq!(events.len(), 3);
    for event in &events {
        round_trip(event);
    }
    let shown = to_value(&events[2]).unwrap();
    assert_eq!(shown["kind"], json!("Delete"));
    assert_eq!(shown["prev"]["Value"]["value"], json!([50]));
    round_trip(&EventKind::Put);
    for prev in [
        Prev::NotAsked,
        Prev::None,
        Prev::Compacted,
        Prev::Value(key_value()),
    ] {
        round_trip(&prev);
    }
}

#[test]
fn answers_come_back_equal() {
    let db = store();
    round_trip(&db.hash(DEFAULT_IGNORES).unwrap());
    let hash = round_trip(&db.hash_by_rev(0).unwrap());
    assert_eq!(hash["compact_revision"], Value::Null);
    db.compact(3).unwrap();
    assert_eq!(
        round_trip(&db.hash_by_rev(0).unwrap())["compact_revision"],
        json!(3)
    );
    round_trip(&db.recovery());
    round_trip(&db.read().unwrap().range(..).limit(1).collect().unwrap());
    let deleted: Deleted = db.delete("a").unwrap();
    assert_eq!(round_trip(&deleted), json!({ "count": 0, "revision": 4 }));
    let mut txn = db.write().unwrap();
    txn.put("b", "1").unwrap();
    let commit: Commit = txn.commit().unwrap();
    let expected = json!({ "revision": 5, "changes": 1, "durable": true });
    assert_eq!(round_trip(&commit), expected);
    let stats = db.stats();
    let shown = round_trip(&stats);
    assert_eq!(shown["revision"], json!(5));
    assert_eq!(from_value::<Stats>(shown).unwrap(), stats);
    // What an older version did not know yet is 0.
    let old: Stats = from_value(json!({ "keys": 3 })).unwrap();
    assert_eq!((old.keys, old.syncs, old.oldest_view), (3, 0, None));
}

#[test]
fn choices_come_back_equal() {
    round_trip(&Durability::Sync);
    round_trip(&Durability::Flushed);
    round_trip(&Durability::Batched {
        changes: 10_000,
        interval: Duration::from_millis(1500),
    });
    round_trip(&ReadMode::Pread);
    round_trip(&Create::Never);
    round_trip(&Outcome::Superseded);
    round_trip(&ErrorKind::TryLater);
    for (range, expected) in [
        (KeyRange::single("a"), json!({ "Single": [97] })),
        (KeyRange::at_least("a"), json!({ "AtLeast": [97] })),
        (KeyRange::between("a", ""), json!({ "Between": [[97], []] })),
    ] {
        assert_eq!(round_trip(&range), expected);
        assert_eq!(from_value::<KeyRange>(expected).unwrap(), range);
    }
    for range in [KeyRange::all(), KeyRange::prefix([1, 0xff])] {
        round_trip(&range);
    }
}

#[test]
fn import_reports_come_back_equal() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("snapshot");
    let fixture = revtree_test_fixtures::load("etcd-3.5-compacted");
    std::fs::write(&snapshot, &fixture.snapshot).unwrap();
    let store = dir.path().join("store");
    let report = Db::import_etcd(&snapshot, &store, Options::new()).unwrap();
    let shown = round_trip(&report);
    assert_eq!(shown["records"], json!(report.records));
}

#[test]
fn reports_and_progress_only_go_out() {
    let report = store().check().unwrap();
    let shown = to_value(&report).unwrap();
    assert_eq!(
        (&shown["records"], &shown["damage"]),
        (&json!(3), &json!([]))
    );
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = std::sync::Arc::clone(&told);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let db = Db::open(&path).unwrap();
        db.put("a", "1").unwrap();
        // Not closed, so that the next open has something to tell.
        std::fs::copy(&path, dir.path().join("copy")).unwrap();
    }
    let options = Options::new().on_progress(move |progress: Progress| {
        tell.lock().unwrap().push(to_value(progress).unwrap());
    });
    drop(options.open(dir.path().join("copy")).unwrap());
    let told = told.lock().unwrap();
    let what: Vec<_> = told.iter().map(|told| &told["what"]).collect();
    assert!(what.contains(&&json!("records loaded")), "{what:?}");
}

/// What is shown of handles and records names them, and nothing of their contents.
#[test]
fn handles_are_shown_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let db = revtree::Db::open(dir.path().join("named so")).unwrap();
    db.put("a key", "a secret").unwrap();
    let view = db.read().unwrap();
    let record = view.get("a key").unwrap().unwrap();
    let shown = format!("{db:?} {view:?} {record:?}");
    for part in ["named so", "a key", "value_len: 8", "version: 1"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
}

/// Rows of a table say how many are left.
#[test]
fn rows_are_counted() {
    let db = store();
    let mut txn = db.write().unwrap();
    for n in 0..3 {
        txn.table("counted").unwrap().put(&[n], b"row").unwrap();
    }
    txn.commit().unwrap();
    let view = db.read().unwrap();
    let mut rows = view.table("counted").iter();
    for left in (0..=3).rev() {
        assert_eq!((rows.len(), rows.size_hint()), (left, (left, Some(left))));
        assert_eq!(rows.next_back().is_some(), left > 0);
    }
}
