//! Bytes that are shared with the store, and copies that are not.

use revtree::{Db, LeaseId, Options, ReadMode};

fn fill(db: &Db) {
    let mut txn = db.write().unwrap();
    txn.put_with_lease("small", "value", LeaseId(3)).unwrap();
    txn.put("large", vec![9; 300_000]).unwrap();
    txn.put("empty", "").unwrap();
    txn.commit().unwrap();
}

/// `share`, `to_key_value` and `unpinned` are the same key and value, in both read modes.
#[test]
fn shares_and_copies_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let db = Options::new().read_mode(mode).open(&path).unwrap();
        fill(&db);
        let view = db.read().unwrap();
        for record in view.range(..) {
            let record = record.unwrap();
            let (shared, copied) = (record.share(), record.to_key_value());
            assert_eq!(shared, copied);
            assert_eq!(shared.unpinned(), copied);
            assert_eq!(record.clone().share(), shared);
            assert_eq!(shared.value.len(), record.value_len());
            assert_eq!(shared.key, record.key());
        }
        let shared: Vec<_> = view.clone().into_range(..).map(Result::unwrap).collect();
        let copied = view.range(..).collect().unwrap().kvs;
        assert_eq!(shared, copied);
    }
}

/// Shared bytes are exact after overwriting, deleting, compacting and a thousand later commits; `stats`
/// counts them while they live.
#[test]
fn shared_bytes_do_not_change() {
    let db = Options::new()
        .segment_bytes(64 << 10)
        .open_in_memory()
        .unwrap();
    fill(&db);
    let counted = || db.stats().shared_handles;
    assert_eq!(counted(), 0);
    let shared: Vec<_> = {
        let view = db.read().unwrap();
        view.range(..)
            .into_iter()
            .map(|record| record.unwrap().share())
            .collect()
    };
    let expected: Vec<_> = shared.iter().map(revtree::KeyValue::unpinned).collect();
    assert_eq!(counted(), 3);
    let copies = shared.clone();
    for n in 0..1000u32 {
        db.put("small", n.to_string()).unwrap();
    }
    db.delete_range(..).unwrap();
    let _ = db.compact(db.rev()).unwrap().wait();
    db.close().unwrap();
    assert_eq!(shared, expected);
    drop(shared);
    assert_eq!(copies, expected);
}

/// A record of an open transaction is the transaction's own copy: it lives on after an abort.
#[test]
fn pending_records_are_copies() {
    let db = super::memory();
    let mut txn = db.write().unwrap();
    txn.put("a", "1").unwrap();
    let kv = txn.get("a").unwrap().unwrap().share();
    drop(txn);
    assert_eq!((kv.value.as_ref(), kv.version), (&b"1"[..], 1));
    assert!(db.get("a").unwrap().is_none());
}
