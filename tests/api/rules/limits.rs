//! The limits of keys, values, transactions and tables: what is at one is stored, what is over it is
//! refused by name, and nothing of it is written.

use std::sync::{Mutex, MutexGuard, PoisonError};

use revtree::{Db, Error, KeyRange, Options, Revision};

use super::memory;

const KEY_BYTES_MAX: usize = 65_535;
const VALUE_BYTES_MAX: usize = 256 << 20;
const CHANGES_MAX: u64 = 1_000_000;
const TRANSACTION_BYTES_MAX: usize = 1 << 30;

/// Held by tests that take about a gigabyte of memory: one at a time.
fn gigabyte() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keys and values of no byte, of every byte, and of the longest length a key may have.
#[test]
fn any_bytes_are_keys_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let every: Vec<u8> = (0..=255).collect();
    let long = vec![0xff; KEY_BYTES_MAX];
    let keys: [&[u8]; 7] = [b"", b"\0", b"\0\0", &every, b"\xff", b"\xff\xff", &long];
    let db = Db::open(&path).unwrap();
    for (n, key) in keys.iter().enumerate() {
        let value = if n % 2 == 0 { &[][..] } else { &every };
        db.put(key, value).unwrap();
    }
    db.close().unwrap();
    let db = Db::open(&path).unwrap();
    let view = db.read().unwrap();
    let found = view.range(..).collect().unwrap();
    let stored: Vec<&[u8]> = found.kvs.iter().map(|kv| &kv.key[..]).collect();
    assert_eq!(stored, keys);
    for (n, key) in keys.iter().enumerate() {
        let record = view.get(key).unwrap().unwrap();
        assert_eq!(record.value(), if n % 2 == 0 { &[][..] } else { &every });
        assert_eq!(record.version(), 1);
    }
    // The empty key is a key, not the absence of one.
    assert_eq!(view.range("").count().unwrap(), 1);
    assert_eq!(view.range(KeyRange::prefix("")).count().unwrap(), 7);
    assert_eq!(view.range(KeyRange::prefix(b"\xff")).count().unwrap(), 3);
    assert_eq!(db.delete("").unwrap().count, 1);
    assert!(db.get("").unwrap().is_none());
    assert_eq!(db.delete(&long).unwrap().count, 1);
    // A key longer than a key can be does not exist; asking is no error.
    let longer = vec![0xff; KEY_BYTES_MAX + 1];
    assert!(db.get(&longer).unwrap().is_none());
    assert_eq!(db.delete(&longer).unwrap().count, 0);
    assert_eq!(db.read().unwrap().range(&longer[..]..).count().unwrap(), 0);
}

/// One over a limit is a typed error, and the store is as before.
#[test]
fn one_over_a_limit_writes_nothing() {
    let db = memory();
    db.put("a", "1").unwrap();
    let hash = db.hash(&[]).unwrap();
    let long = vec![1; KEY_BYTES_MAX + 1];
    let huge = vec![0; VALUE_BYTES_MAX + 1];
    let over = |result: revtree::Result<_>| match result {
        Err(Error::KeyTooLong { len, max }) => (len, max, "key"),
        Err(Error::ValueTooLong { len, max }) => (len, max, "value"),
        other => panic!("{other:?}"),
    };
    let (key, value) = (KEY_BYTES_MAX as u64, VALUE_BYTES_MAX as u64);
    assert_eq!(over(db.put(&long, "")), (key + 1, key, "key"));
    assert_eq!(over(db.put("a", &huge)), (value + 1, value, "value"));
    let mut txn = db.write().unwrap();
    txn.put("b", "1").unwrap();
    assert_eq!(over(txn.put(&long, "")), (key + 1, key, "key"));
    assert_eq!(over(txn.put("b", &huge)), (value + 1, value, "value"));
    // The transaction is as before the refused put.
    assert_eq!(txn.changes().len(), 1);
    assert_eq!(txn.get("b").unwrap().unwrap().value(), b"1");
    drop(txn);
    assert_eq!(db.hash(&[]).unwrap(), hash);
    assert_eq!(db.rev().get(), 2);
}

/// A value of the longest length is stored and read back, with both read modes and after a reopen.
#[test]
fn the_longest_value() {
    let _one = gigabyte();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    // No piece of it equals another, so that one in the wrong place is seen.
    let mut value = vec![0; VALUE_BYTES_MAX];
    for (n, piece) in (1u64..).zip(value.chunks_exact_mut(4096)) {
        piece[..8].copy_from_slice(&n.to_be_bytes());
    }
    let db = Db::open(&path).unwrap();
    db.put("a", "before").unwrap();
    db.put("k", &value).unwrap();
    db.put("z", "behind").unwrap();
    assert!(db.read().unwrap().get("k").unwrap().unwrap().value() == value);
    db.close().unwrap();
    for mode in [revtree::ReadMode::Map, revtree::ReadMode::Pread] {
        let db = Options::new().read_mode(mode).open(&path).unwrap();
        let view = db.read().unwrap();
        // Not assert_eq: nobody wants to see them.
        assert!(view.get("k").unwrap().unwrap().value() == value);
        assert_eq!(view.get("z").unwrap().unwrap().value(), b"behind");
        assert_eq!(view.range(..).count().unwrap(), 3);
    }
}

/// A transaction of a hundred thousand puts is one revision, all or nothing, also after a crash.
#[test]
fn a_transaction_of_a_hundred_thousand_puts() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let db = Db::open(&path).unwrap();
    let mut txn = db.write().unwrap();
    for n in 0..100_000u32 {
        txn.put(format!("k{:05}", n % 50_000), n.to_string())
            .unwrap();
    }
    assert_eq!(txn.range(..).count().unwrap(), 50_000);
    let commit = txn.commit().unwrap();
    assert_eq!((commit.revision.get(), commit.changes), (2, 100_000));
    let check = |db: &Db| {
        let view = db.read().unwrap();
        assert_eq!(
            (view.rev().get(), view.range(..).count().unwrap()),
            (2, 50_000)
        );
        for n in [0, 1, 49_999] {
            let record = view.get(format!("k{n:05}")).unwrap().unwrap();
            assert_eq!(record.value(), (n + 50_000).to_string().as_bytes());
            assert_eq!((record.version(), record.create_revision().get()), (2, 2));
        }
        let changes = view.changes(.., 2.into()..=2.into()).unwrap();
        let subs = changes.map(|event| event.unwrap().id.sub);
        assert!(subs.eq(0..100_000));
    };
    check(&db);
    std::fs::copy(&path, &copy).unwrap();
    let hash = db.hash_by_rev(0).unwrap();
    db.close().unwrap();
    for path in [path, copy] {
        let db = Db::open(path).unwrap();
        check(&db);
        assert_eq!(db.hash_by_rev(0).unwrap(), hash);
    }
}

/// A transaction of a million changes commits. One more change is refused, and also a range of two where
/// there is room for one; nothing of what was refused is there.
#[test]
fn a_transaction_of_a_million_changes() {
    let db = memory();
    db.put("a", "1").unwrap();
    db.put("b", "1").unwrap();
    let hash = db.hash_by_rev(0).unwrap();
    let full = |result: revtree::Result<()>| match result {
        Err(Error::TransactionTooLarge { what, max }) => {
            assert_eq!((what, max), ("changes", CHANGES_MAX));
        }
        other => panic!("{other:?}"),
    };
    let fill = || {
        let mut txn = db.write().unwrap();
        for n in 1..CHANGES_MAX {
            txn.put((n % 1000).to_be_bytes(), n.to_be_bytes()).unwrap();
        }
        full(txn.delete_range(KeyRange::from("a"..)).map(drop));
        assert_eq!(txn.changes().len() as u64, CHANGES_MAX - 1);
        assert_eq!(txn.range("a"..).count().unwrap(), 2);
        txn.put("last", "").unwrap();
        full(txn.put("over", "").map(drop));
        full(txn.put("last", "over").map(drop));
        full(txn.delete("a").map(drop));
        txn
    };
    // Given up at the limit: nothing has been written.
    drop(fill());
    assert_eq!(db.rev(), Revision::new(3));
    assert_eq!(db.hash_by_rev(0).unwrap(), hash);
    let commit = fill().commit().unwrap();
    assert_eq!((commit.revision.get(), commit.changes), (4, CHANGES_MAX));
    let view = db.read().unwrap();
    assert_eq!(view.range(..).count().unwrap(), 1000 + 3);
    assert!(view.get("over").unwrap().is_none());
    assert_eq!(view.get("last").unwrap().unwrap().value(), b"");
    let last = view.get(999u64.to_be_bytes()).unwrap().unwrap();
    assert_eq!(
        (last.value(), last.version()),
        (&999_999u64.to_be_bytes()[..], 1000)
    );
    let changes = view.changes(.., commit.revision..=commit.revision).unwrap();
    assert_eq!(changes.count() as u64, CHANGES_MAX);
}

/// A transaction has room for a gigabyte to the byte, and is as before when a put does not fit.
#[test]
fn a_transaction_that_is_too_large() {
    let _one = gigabyte();
    let db = memory();
    let value = vec![0; VALUE_BYTES_MAX];
    let mut txn = db.write().unwrap();
    for key in ["a", "b", "c"] {
        txn.put(key, &value).unwrap();
    }
    let too_large = |result: revtree::Result<Revision>| matches!(result, Err(Error::TransactionTooLarge { what: "bytes", max }) if max == TRANSACTION_BYTES_MAX as u64);
    let rest = TRANSACTION_BYTES_MAX - 3 * (VALUE_BYTES_MAX + 1) - 1;
    assert!(too_large(txn.put("d", &value)));
    assert!(too_large(txn.put("d", &value[..rest + 1])));
    assert_eq!(txn.changes().len(), 3);
    assert!(txn.get("d").unwrap().is_none());
    txn.put("d", &value[..rest]).unwrap();
    assert!(too_large(txn.put("", "1")));
    assert!(too_large(txn.put("e", "")));
    // A key and a value of no byte take no room.
    txn.put("", "").unwrap();
    drop(txn);
    assert_eq!(db.rev(), Revision::new(1));
    assert_eq!(db.read().unwrap().range(..).count().unwrap(), 0);
}

/// Tables have limits too: of names, keys, rows, and of all rows together, also for rows that one
/// transaction overwrites again and again.
#[test]
fn tables_have_limits() {
    let db = memory();
    let mut txn = db.write().unwrap();
    let limit = |result: revtree::Result<()>| matches!(result, Err(Error::LimitReached { .. }));
    for name in ["", "key", &"n".repeat(256)] {
        assert!(limit(txn.table(name).map(|_| ())), "{name}");
    }
    let mut table = txn.table(&"n".repeat(255)).unwrap();
    table.put(b"", b"").unwrap();
    let long = table.put(&[1; KEY_BYTES_MAX + 1], b"");
    assert!(matches!(long, Err(Error::KeyTooLong { max: 65_535, .. })));
    let huge = table.put(b"k", &vec![0; (16 << 20) + 1]);
    assert!(matches!(huge, Err(Error::ValueTooLong { max, .. }) if max == 16 << 20));
    table.put(&[1; KEY_BYTES_MAX], b"").unwrap();
    let row = vec![0; 16 << 20];
    for key in 0..3u8 {
        txn.table("rows").unwrap().put(&[key], &row).unwrap();
    }
    assert!(limit(txn.table("rows").unwrap().put(&[3], &row)));
    txn.commit().unwrap();
    let view = db.read().unwrap();
    assert_eq!(view.table("rows").iter().count(), 3);
    assert_eq!(view.table(&"n".repeat(255)).iter().count(), 2);
}

/// What is written of deleted rows counts too: a transaction that puts and deletes rows has an end.
#[test]
fn a_transaction_of_too_many_rows() {
    let _one = gigabyte();
    let db = memory();
    let key = vec![1; KEY_BYTES_MAX];
    let mut txn = db.write().unwrap();
    let mut table = txn.table("rows").unwrap();
    let mut pairs = 0;
    let error = loop {
        match table.put(&key, b"").and_then(|()| table.delete(&key)) {
            Ok(deleted) => assert!(deleted),
            Err(error) => break error,
        }
        pairs += 1;
    };
    assert!(matches!(
        error,
        Error::TransactionTooLarge { what: "bytes", .. }
    ));
    // A header, the lengths, the name, the key; a multiple of eight.
    assert_eq!(pairs, (1 << 30) / (2 * 65_560));
}

/// A store may be told its largest size: it is full then, by name; what was there can be read, and the
/// store compacted, closed and opened.
#[test]
fn a_store_may_be_full() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let open = || {
        let options = Options::new()
            .segment_bytes(64 << 10)
            .store_bytes_max(1 << 20);
        options.open(&path).unwrap()
    };
    let mut db = open();
    let mut stored = 0u64;
    let error = loop {
        match db.put(format!("k{stored}"), vec![0; 10_000]) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, Error::StoreFull { max, .. } if max == 1 << 20),
        "{error}"
    );
    assert_eq!(error.kind(), revtree::ErrorKind::TryLater);
    assert!(stored > 10);
    let rev = stored + 1;
    for compact in 2..5u64 {
        assert_eq!(db.rev().get(), rev);
        let found = db.read().unwrap().range(..).collect().unwrap();
        assert_eq!(found.kvs.len() as u64, stored);
        let refused = db.put("k", vec![0; 100_000]);
        assert!(matches!(refused, Err(Error::StoreFull { .. })));
        db.compact(compact).unwrap();
        db.close().unwrap();
        db = open();
        assert!(db.recovery().clean);
        assert_eq!(db.compact_rev(), Some(compact.into()));
    }
    // A larger limit makes room.
    db.close().unwrap();
    let db = Options::new().store_bytes_max(2 << 20).open(&path).unwrap();
    assert_eq!(db.put("k", vec![0; 100_000]).unwrap().get(), rev + 1);
}

/// The limit counts bytes: it holds inside a segment too, and what it allows can be used.
#[test]
fn a_limit_inside_a_segment() {
    for max in [64 << 10, 1 << 20, (1 << 20) + 4096, 6 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let db = Options::new().store_bytes_max(max).open(&path).unwrap();
        let mut stored = 0u64;
        let error = loop {
            match db.put(format!("k{stored}"), vec![0; 3000]) {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::StoreFull { .. }), "{error}");
        // A commit is a block here; besides there are the superblocks, and some blocks for what ends a group.
        assert!(
            stored * 4096 + (40 << 10) > max,
            "{stored} puts with a limit of {max}"
        );
        db.close().unwrap();
        // Without what was kept for it, and with the little that a close writes.
        let len = std::fs::metadata(&path).unwrap().len();
        assert!(
            len <= max + max / 32 + (48 << 10),
            "{len} bytes with a limit of {max}"
        );
        let db = Options::new().store_bytes_max(max).open(&path).unwrap();
        assert!(db.recovery().clean);
        assert_eq!(db.read().unwrap().range(..).count().unwrap(), stored);
    }
}

/// A limit below the size that a store has already: it is full, and all else goes on.
#[test]
fn a_store_may_be_larger_than_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = || Options::new().segment_bytes(64 << 10);
    let db = options().open(&path).unwrap();
    for n in 0..400u64 {
        db.put(format!("k{n}"), vec![1; 10_000]).unwrap();
    }
    db.close().unwrap();
    let small = || options().store_bytes_max(1 << 20).open(&path).unwrap();
    for compact in 2..4u64 {
        let db = small();
        assert_eq!(db.read().unwrap().range(..).count().unwrap(), 400);
        let refused = db.put("k", vec![0; 100_000]);
        assert!(matches!(refused, Err(Error::StoreFull { .. })));
        db.compact(compact).unwrap();
        db.close().unwrap();
    }
    let db = options().open(&path).unwrap();
    assert!(db.recovery().clean);
    assert_eq!(db.compact_rev(), Some(3.into()));
}

/// Every number may be asked for as a revision.
#[test]
fn the_last_number_is_a_future_revision() {
    let db = Options::new().open_in_memory().unwrap();
    for rev in [2, u64::MAX - 1, u64::MAX] {
        let refused = db.read_at(rev).map(|_| ());
        assert!(matches!(refused, Err(Error::FutureRevision { .. })));
        assert!(matches!(
            db.compact(rev).map(|_| ()),
            Err(Error::FutureRevision { .. })
        ));
        assert!(matches!(
            db.hash_by_rev(rev).map(|_| ()),
            Err(Error::FutureRevision { .. })
        ));
    }
}
