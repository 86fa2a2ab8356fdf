//! etcd's `backend` package: rows that can be read back, before and after they are durable.
//!
//! A bucket that etcd overwrites is a side table here; the bucket of revisions is the keys.

use std::collections::BTreeMap;
use std::time::Duration;

use revtree::{Applied, Db, Durability, KeyRange, Options, ReadView, WriteTxn};

use crate::support::memory;

/// A store whose commits wait in memory for a sync that does not come by itself.
fn lazy(path: &std::path::Path) -> Db {
    let durability = Durability::Batched {
        changes: u32::MAX,
        interval: Duration::from_secs(100_000),
    };
    Options::new().durability(durability).open(path).unwrap()
}

type Pairs = Vec<(String, String)>;

fn pairs(expected: &[(&str, &str)]) -> Pairs {
    expected
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// All rows of a side table.
fn table(view: &ReadView, name: &str) -> Pairs {
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let rows = view.table(name).iter().map(|row| {
        let (key, value) = row.unwrap();
        (text(key), text(value))
    });
    rows.collect()
}

/// The keys of a range with their values.
fn keys(range: revtree::Range<'_>) -> Pairs {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let records = range.iter().map(|record| {
        let record = record.unwrap();
        (text(record.key()), text(record.value()))
    });
    records.collect()
}

/// TestBackendClose: closing ends at once what runs in the background, and keeps what was written.
#[test]
fn close() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = lazy(&path);
    db.put("foo", "bar").unwrap();
    // The sync would come in a day: closing does not wait for it.
    db.close().unwrap();
    assert_eq!(
        Db::open(&path).unwrap().get("foo").unwrap().unwrap().value,
        "bar"
    );
}

/// TestBackendBatchIntervalCommit: without anybody asking, a commit is durable after the interval.
#[test]
fn batch_interval_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let durability = Durability::Batched {
        changes: u32::MAX,
        interval: Duration::from_millis(1),
    };
    let db = Options::new().durability(durability).open(&path).unwrap();
    let rev = db.put("foo", "bar").unwrap();
    while db.durable_rev() < rev {
        std::thread::yield_now();
    }
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(
        Db::open(&copy).unwrap().get("foo").unwrap().unwrap().value,
        "bar"
    );
}

/// TestBackendWriteback: reads see what is not flushed yet: the last value of what was overwritten,
/// intervals, and limits.
#[test]
fn writeback() {
    let dir = tempfile::tempdir().unwrap();
    let db = lazy(&dir.path().join("store"));
    for (key, value) in [
        ("abc", "bar"),
        ("def", "baz"),
        ("overwrite", "1"),
        ("overwrite", "2"),
    ] {
        db.put(key, value).unwrap();
    }
    assert!(db.durable_rev() < db.rev());
    let check = |db: &Db| {
        let view = db.read().unwrap();
        let table: [(KeyRange, usize, Pairs); 6] = [
            ("overwrite".into(), 9, pairs(&[("overwrite", "2")])),
            (("def".."deg").into(), 9, pairs(&[("def", "baz")])),
            (
                ("abc".."deg").into(),
                9,
                pairs(&[("abc", "bar"), ("def", "baz")]),
            ),
            (("abc".."deg").into(), 1, pairs(&[("abc", "bar")])),
            (("abc".."abd").into(), 9, pairs(&[("abc", "bar")])),
            (("aba".."abc").into(), 9, vec![]),
        ];
        for (range, limit, expected) in table {
            assert_eq!(
                keys(view.range(range.clone()).limit(limit)),
                expected,
                "{range:?}"
            );
        }
    };
    check(&db);
    db.sync().unwrap();
    assert_eq!(db.durable_rev(), db.rev());
    check(&db);
}

/// TestConcurrentReadTx: a read sees every write that ended before it, whether flushed or not.
#[test]
fn concurrent_read_tx() {
    let dir = tempfile::tempdir().unwrap();
    let db = lazy(&dir.path().join("store"));
    for (key, value) in [("abc", "ABC"), ("overwrite", "1")] {
        let mut txn = db.write().unwrap();
        txn.table("rows")
            .unwrap()
            .put(key.as_bytes(), value.as_bytes())
            .unwrap();
        txn.put(key, value).unwrap();
        txn.commit().unwrap();
    }
    let mut txn = db.write().unwrap();
    for (key, value) in [("def", "DEF"), ("overwrite", "2")] {
        txn.table("rows")
            .unwrap()
            .put(key.as_bytes(), value.as_bytes())
            .unwrap();
        txn.put(key, value).unwrap();
    }
    txn.commit().unwrap();
    let expected = pairs(&[("abc", "ABC"), ("def", "DEF"), ("overwrite", "2")]);
    let view = db.read().unwrap();
    assert_eq!(
        (table(&view, "rows"), keys(view.range(..))),
        (expected.clone(), expected)
    );
}

/// TestBackendWritebackForEach: all rows come in the order of their keys, those that are durable and those
/// that are not, between each other.
#[test]
fn writeback_for_each() {
    let dir = tempfile::tempdir().unwrap();
    let db = lazy(&dir.path().join("store"));
    let write = |names: &[&str]| {
        let mut txn = db.write().unwrap();
        for name in names {
            txn.table("rows")
                .unwrap()
                .put(name.as_bytes(), b"x")
                .unwrap();
            txn.put(name, "x").unwrap();
        }
        txn.commit().unwrap();
    };
    write(&["a1", "c3", "e5"]);
    db.sync().unwrap();
    write(&["f6", "b2", "d4"]);
    let in_order = ["a1", "b2", "c3", "d4", "e5", "f6"].map(|name| (name, "x"));
    let view = db.read().unwrap();
    assert_eq!(table(&view, "rows"), pairs(&in_order));
    assert_eq!(keys(view.range(..)), pairs(&in_order));
    db.sync().unwrap();
    let view = db.read().unwrap();
    assert_eq!(table(&view, "rows"), pairs(&in_order));
    assert_eq!(keys(view.range(..)), pairs(&in_order));
}

/// TestBatchTxPut: a row is read back in the transaction that put it, and after its commit.
#[test]
fn batch_tx_put() {
    let db = memory();
    let mut txn = db.write().unwrap();
    txn.table("rows").unwrap().put(b"foo", b"bar").unwrap();
    txn.put("foo", "bar").unwrap();
    assert_eq!(
        txn.table("rows").unwrap().get(b"foo").unwrap().unwrap(),
        "bar"
    );
    assert_eq!(txn.get("foo").unwrap().unwrap().value(), b"bar");
    assert!(
        db.read()
            .unwrap()
            .table("rows")
            .get(b"foo")
            .unwrap()
            .is_none()
    );
    txn.commit().unwrap();
    let view = db.read().unwrap();
    assert_eq!(view.table("rows").get(b"foo").unwrap().unwrap(), "bar");
    assert_eq!(view.get("foo").unwrap().unwrap().value(), b"bar");
}

/// TestBatchTxRange: single keys, intervals, limits and misses inside a write transaction.
#[test]
fn batch_tx_range() {
    let db = memory();
    let all = [("foo", "bar"), ("foo1", "bar1"), ("foo2", "bar2")];
    // Two are there before, one is of the transaction itself.
    db.put("foo", "bar").unwrap();
    db.put("foo2", "bar2").unwrap();
    let mut txn = db.write().unwrap();
    txn.put("foo1", "bar1").unwrap();
    type Row<'a> = (KeyRange, usize, &'a [(&'a str, &'a str)]);
    let table: [Row<'_>; 9] = [
        ("foo".into(), 9, &all[..1]),
        ("doo".into(), 9, &[]),
        (("foo".."foo1").into(), 9, &all[..1]),
        (("foo".."foo3").into(), 9, &all),
        (("foo".."foo3").into(), 1, &all[..1]),
        (("foo".."foo3").into(), 2, &all[..2]),
        (("foo".."foo3").into(), 4, &all),
        (("goo".."goo3").into(), 9, &[]),
        (("fo".."foo").into(), 9, &[]),
    ];
    for (range, limit, expected) in table {
        assert_eq!(
            keys(txn.range(range.clone()).limit(limit)),
            pairs(expected),
            "{range:?}"
        );
    }
}

/// TestBatchTxDelete: a deleted row is gone in the transaction and after its commit.
#[test]
fn batch_tx_delete() {
    let db = memory();
    let mut txn = db.write().unwrap();
    txn.table("rows").unwrap().put(b"foo", b"bar").unwrap();
    assert!(txn.table("rows").unwrap().delete(b"foo").unwrap());
    assert!(txn.table("rows").unwrap().get(b"foo").unwrap().is_none());
    assert!(!txn.table("rows").unwrap().delete(b"foo").unwrap());
    txn.commit().unwrap();
    assert_eq!(table(&db.read().unwrap(), "rows"), []);
}

/// TestBatchTxCommit: what a sync returned for is in the file.
#[test]
fn batch_tx_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let db = lazy(&path);
    let mut txn = db.write().unwrap();
    txn.table("rows").unwrap().put(b"foo", b"bar").unwrap();
    txn.commit().unwrap();
    db.sync().unwrap();
    std::fs::copy(&path, &copy).unwrap();
    let view = Db::open(&copy).unwrap().read().unwrap();
    assert_eq!(table(&view, "rows"), pairs(&[("foo", "bar")]));
}

/// TestBatchTxBatchLimitCommit: with a limit of one change each commit becomes durable by itself.
#[test]
fn batch_tx_batch_limit_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let durability = Durability::Batched {
        changes: 1,
        interval: Duration::from_secs(100_000),
    };
    let db = Options::new().durability(durability).open(&path).unwrap();
    let rev = db.put("foo", "bar").unwrap();
    while db.durable_rev() < rev {
        std::thread::yield_now();
    }
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(
        Db::open(&copy).unwrap().get("foo").unwrap().unwrap().value,
        "bar"
    );
}

/// Writes in one transaction, and compares what it reads itself, keys and rows, with what is read after
/// the commit and after a sync.
fn check_match(before: &[&str], write: impl Fn(&mut WriteTxn), expected: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let db = lazy(&dir.path().join("store"));
    let mut txn = db.write().unwrap();
    for name in before {
        put(&mut txn, "rows", name, "before");
    }
    txn.commit().unwrap();
    let mut txn = db.write().unwrap();
    write(&mut txn);
    let own = keys(txn.range(..));
    let mut own_rows = BTreeMap::new();
    for (name, _) in expected {
        let value = txn.table("rows").unwrap().get(name.as_bytes()).unwrap();
        own_rows.insert((*name).to_owned(), value);
    }
    txn.commit().unwrap();
    assert_eq!(own, pairs(expected));
    for _ in 0..2 {
        let view = db.read().unwrap();
        assert_eq!(keys(view.range(..)), own);
        assert_eq!(table(&view, "rows"), own);
        for (name, value) in &own_rows {
            assert_eq!(&view.table("rows").get(name.as_bytes()).unwrap(), value);
        }
        db.sync().unwrap();
    }
}

/// Puts a key and a row of the same name.
fn put(txn: &mut WriteTxn, table: &str, name: &str, value: &str) {
    txn.put(name, value).unwrap();
    let mut rows = txn.table(table).unwrap();
    rows.put(name.as_bytes(), value.as_bytes()).unwrap();
}

fn delete(txn: &mut WriteTxn, table: &str, name: &str) {
    assert_eq!(txn.delete(name).unwrap().count, 1);
    assert!(txn.table(table).unwrap().delete(name.as_bytes()).unwrap());
}

/// TestRangeAfterDeleteMatch: after a delete reader and writer agree.
#[test]
fn range_after_delete_match() {
    check_match(
        &["a", "b"],
        |txn| delete(txn, "rows", "a"),
        &[("b", "before")],
    );
}

/// TestRangeAfterUnorderedKeyWriteMatch: keys written in no order come in order, for both.
#[test]
fn range_after_unordered_key_write_match() {
    let unordered = |txn: &mut WriteTxn| {
        for name in ["foo5", "foo2", "foo1", "foo3", "foo"] {
            put(txn, "rows", name, "x");
        }
    };
    let ordered = ["foo", "foo1", "foo2", "foo3", "foo5"].map(|name| (name, "x"));
    check_match(&[], unordered, &ordered);
}

/// TestRangeAfterAlternatingBucketWriteMatch: writing two tables in turn mixes nothing up.
#[test]
fn range_after_alternating_bucket_write_match() {
    let db = memory();
    let mut txn = db.write().unwrap();
    for n in 0..4 {
        let (name, value) = (format!("k{n}"), format!("v{n}"));
        let name_of_table = if n % 2 == 0 { "even" } else { "odd" };
        put(&mut txn, name_of_table, &name, &value);
    }
    txn.commit().unwrap();
    let view = db.read().unwrap();
    assert_eq!(table(&view, "even"), pairs(&[("k0", "v0"), ("k2", "v2")]));
    assert_eq!(table(&view, "odd"), pairs(&[("k1", "v1"), ("k3", "v3")]));
    assert_eq!(keys(view.range(..)).len(), 4);
}

/// TestRangeAfterOverwriteMatch: the last value counts, for both.
#[test]
fn range_after_overwrite_match() {
    let overwrite = |txn: &mut WriteTxn| {
        for value in ["1", "2", "3"] {
            put(txn, "rows", "foo", value);
        }
        put(txn, "rows", "a", "1");
    };
    check_match(&["foo"], overwrite, &[("a", "1"), ("foo", "3")]);
}

/// TestRangeAfterOverwriteAndDeleteMatch: overwritten, deleted and put again.
#[test]
fn range_after_overwrite_and_delete_match() {
    let write = |txn: &mut WriteTxn| {
        put(txn, "rows", "foo", "2");
        put(txn, "rows", "bar", "1");
        delete(txn, "rows", "foo");
        delete(txn, "rows", "bar");
        put(txn, "rows", "bar", "2");
    };
    check_match(&["foo"], write, &[("bar", "2")]);
}

/// The consistent index is in the file exactly when the data of its entry is: at each cut of a store that
/// was killed, both or none. (What etcd has its pre-commit hook for.)
#[test]
fn applied_index_with_data() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let db = Db::open(&path).unwrap();
    for index in 1..=20u64 {
        let mut txn = db.write_at_index(index).unwrap().unwrap();
        txn.set_applied(Applied { index, term: 2 });
        if index % 3 != 0 {
            txn.put("last", index.to_string()).unwrap();
        }
        txn.table("raft")
            .unwrap()
            .put(b"last", index.to_string().as_bytes())
            .unwrap();
        txn.commit().unwrap();
        std::fs::copy(&path, &copy).unwrap();
        let crashed = Db::open(&copy).unwrap();
        assert_eq!(crashed.consistent_index(), Applied { index, term: 2 });
        let view = crashed.read().unwrap();
        assert_eq!(table(&view, "raft"), pairs(&[("last", &index.to_string())]));
        let newest = if index % 3 == 0 { index - 1 } else { index };
        let value = newest.to_string();
        assert_eq!(view.get("last").unwrap().unwrap().value(), value.as_bytes());
        assert!(crashed.write_at_index(index).unwrap().is_none());
    }
    // An aborted entry leaves neither.
    let mut txn = db.write_at_index(21).unwrap().unwrap();
    txn.put("last", "21").unwrap();
    drop(txn);
    assert_eq!(db.consistent_index().index, 20);
    assert_eq!(db.get("last").unwrap().unwrap().value, "20");
}

/// Rows of any bytes, as etcd's server keeps them in its small buckets, survive commit and reopen.
#[test]
fn side_table_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let rows: [(&str, &[u8], &[u8]); 7] = [
        ("meta", b"confState", b"{\"voters\":[1,2]}"),
        ("meta", b"storageVersion", b"3.6.0"),
        (
            "lease",
            &[0, 0, 6, 0xe6, 0xaf, 0xd3, 0x22, 0x6b],
            &[0x08, 0xeb],
        ),
        ("auth", b"authEnabled", &[1]),
        ("authUsers", b"root", &[0xff, 0, 0xfe]),
        ("authRoles", b"root", b""),
        ("alarm", &[0], b""),
    ];
    let db = Db::open(&path).unwrap();
    let mut txn = db.write().unwrap();
    for (table, key, value) in rows {
        txn.table(table).unwrap().put(key, value).unwrap();
    }
    txn.commit().unwrap();
    assert_eq!(db.rev().get(), 1);
    db.close().unwrap();
    let view = Db::open(&path).unwrap().read().unwrap();
    for (table, key, value) in rows {
        assert_eq!(view.table(table).get(key).unwrap().unwrap(), value);
    }
    let names: Vec<_> = view.tables().collect();
    assert_eq!(
        names,
        ["alarm", "auth", "authRoles", "authUsers", "lease", "meta"]
    );
}
