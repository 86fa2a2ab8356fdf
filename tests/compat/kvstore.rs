//! etcd's `kvstore_test.go`: what the store writes, keeps and finds again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use revtree::{Db, Error, Options, Outcome};

use crate::support::{
    Change, Random, Row, Through, at, commit_at, history, memory, range as read, refusal, retained,
    row, rows,
};

/// The sum that etcd's HashKV makes of records given as bytes: revision key and value of each.
fn sum(records: &[(&str, &str)]) -> u32 {
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = (0..hex.len()).step_by(2);
        digits
            .map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap())
            .collect()
    };
    records.iter().fold(crc32c::crc32c(b"key"), |sum, record| {
        let sum = crc32c::crc32c_append(sum, &bytes(record.0));
        crc32c::crc32c_append(sum, &bytes(record.1))
    })
}

/// TestStoreRev: the revision goes up by one with each put.
#[test]
fn rev() {
    let db = memory();
    for n in 1..=3u64 {
        db.put("foo", "bar").unwrap();
        assert_eq!(db.rev().get(), n + 1);
        assert_eq!(db.read().unwrap().store_rev().get(), n + 1);
    }
}

/// TestStorePut: the very bytes of a record: 17 bytes of revision, then the message. (A store's own
/// format is another; the hash sums etcd's.)
#[test]
fn put() {
    let db = memory();
    commit_at(&db, 2, &[Change::Put("d", "x")]);
    // 2.0 and d, created and changed at 2, version 1, x.
    let first = (
        "00000000000000025f0000000000000000",
        "0a01641002180220012a0178",
    );
    assert_eq!(db.hash_by_rev(0).unwrap().hash, sum(&[first]));
    let mut txn = db.write().unwrap();
    txn.put("a", "").unwrap();
    txn.put_with_lease("d", "y", revtree::LeaseId(7)).unwrap();
    txn.commit().unwrap();
    // 3.0: an empty value is left out; 3.1: create stays, version 2, lease 7 at the end.
    let second = ("00000000000000035f0000000000000000", "0a0161100318032001");
    let third = (
        "00000000000000035f0000000000000001",
        "0a01641002180320022a01793007",
    );
    assert_eq!(
        db.hash_by_rev(0).unwrap().hash,
        sum(&[first, second, third])
    );
    assert_eq!(db.hash_by_rev(2).unwrap().hash, sum(&[first]));
}

/// TestStoreRange: of a range with a limit only the records up to it are read. Shown with a damaged
/// record behind the limit, which only an unlimited read meets, and passes.
#[test]
fn range() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    for (key, value) in [
        ("a", "the first"),
        ("b", "to be damaged"),
        ("c", "the last"),
    ] {
        db.put(key, value).unwrap();
    }
    db.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let found = bytes.windows(13).position(|part| part == b"to be damaged");
    bytes[found.unwrap()] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let db = Db::open(&path).unwrap();
    let view = db.read().unwrap();
    let first = view.range(..).limit(1).collect().unwrap();
    assert_eq!(rows(&first), [row("a", "the first", 2, 2, 1)]);
    assert_eq!((first.count, first.more), (3, true));
    let all: Vec<_> = view.range(..).iter().collect();
    assert_eq!(all.len(), 3);
    assert!(matches!(all[1], Err(Error::Corrupt { .. })));
    assert_eq!(all[2].as_ref().unwrap().value(), b"the last");
}

/// TestStoreDeleteRange: a tombstone is 18 bytes of revision and a message of the key alone.
#[test]
fn delete_range() {
    let db = memory();
    commit_at(&db, 2, &[Change::Put("d", "x")]);
    let deleted = db.delete_range("d".."e").unwrap();
    assert_eq!((deleted.count, deleted.revision.get()), (1, 3));
    let put = (
        "00000000000000025f0000000000000000",
        "0a01641002180220012a0178",
    );
    let tombstone = ("00000000000000035f000000000000000074", "0a0164");
    assert_eq!(db.hash_by_rev(0).unwrap().hash, sum(&[put, tombstone]));
}

/// TestStoreCompact: what the compaction does not keep is gone, what is above it stays, and the compact
/// revision is known at once. (etcd's marks of a scheduled and a finished compaction are one commit here.)
#[test]
fn compact() {
    let db = memory();
    commit_at(&db, 2, &[Change::Put("foo", "1"), Change::Put("bar", "1")]);
    commit_at(&db, 3, &[Change::Put("foo", "2")]);
    commit_at(&db, 4, &[Change::Put("foo", "3")]);
    let work = db.compact(3).unwrap();
    assert_eq!(work.revision(), Some(3.into()));
    assert_eq!(db.compact_rev(), Some(3.into()));
    assert_eq!(work.wait(), Outcome::Done);
    assert_eq!(retained(&db), ["+2.1", "+3.0", "+4.0"]);
    let gone = revtree::ChangeId::new(2.into(), 0);
    let view = db.read().unwrap();
    assert!(matches!(view.change(gone), Err(Error::RevisionNotFound(id)) if id == gone));
}

/// TestStoreRestore: compact revision, puts and a tombstone are found again: revision 5, and the key is
/// what it was at each revision.
#[test]
fn restore() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    commit_at(&db, 4, &[Change::Put("foo", "bar")]);
    commit_at(&db, 5, &[Change::Delete("foo")]);
    let _ = db.compact(3).unwrap().wait();
    db.close().unwrap();
    let db = Db::open(&path).unwrap();
    assert_eq!((db.rev().get(), db.compact_rev()), (5, Some(3.into())));
    assert_eq!(history(&db, "foo"), ["+4.0", "-5.0"]);
    assert_eq!(at(&db, "foo", 3).unwrap(), None);
    assert_eq!(at(&db, "foo", 4).unwrap(), Some((4, 4, 1)));
    assert_eq!(at(&db, "foo", 5).unwrap(), None);
    assert_eq!(refusal(db.read_at(2)), "compacted");
}

/// TestRestoreDelete: random puts and deletes survive a reopen: exactly the keys that were put last live.
#[test]
fn restore_delete() {
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        // Small segments, and a checkpoint after a few commits: what a tiny restore chunk is for.
        let options = || {
            Options::new()
                .segment_bytes(64 << 10)
                .checkpoint_bytes(8 << 10)
                .durability(revtree::Durability::Flushed)
        };
        let db = options().open(&path).unwrap();
        let mut alive = BTreeMap::new();
        for n in 0..200 {
            let key = format!("foo-{}", random.below(20));
            if random.below(2) == 0 {
                db.put(&key, n.to_string()).unwrap();
                alive.insert(key, n.to_string());
            } else {
                let deleted = db.delete(&key).unwrap().count == 1;
                assert_eq!(deleted, alive.remove(&key).is_some(), "seed {seed}");
            }
        }
        let rev = db.rev();
        db.close().unwrap();
        let db = options().open(&path).unwrap();
        assert_eq!(db.rev(), rev);
        for n in 0..20 {
            let key = format!("foo-{n}");
            let value = db.get(&key).unwrap().map(|kv| kv.value);
            let expected = alive.get(&key).map(|value| value.clone().into());
            assert_eq!(value, expected, "seed {seed}, {key}");
        }
        assert_eq!(
            db.read().unwrap().range(..).count().unwrap(),
            alive.len() as u64
        );
    }
}

/// TestRestoreContinueUnfinishedCompaction: a compaction that the process did not live to finish is
/// finished by the next open. (Its one commit decides it; what it may remove is the next open's work.)
#[test]
fn restore_continue_unfinished_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let (path, crashed) = (dir.path().join("store"), dir.path().join("crashed"));
    let db = Db::open(&path).unwrap();
    for value in ["0", "1", "2"] {
        db.put("foo", value).unwrap();
    }
    let _work = db.compact(3).unwrap();
    // What a kill at this very moment leaves.
    std::fs::copy(&path, &crashed).unwrap();
    let db = Db::open(&crashed).unwrap();
    assert_eq!(db.compaction().wait(), Outcome::Done);
    assert_eq!(db.compact_rev(), Some(3.into()));
    for rev in [1, 2] {
        let found = read(&db, Through::Store, "foo".into(), rev, 0);
        assert_eq!(refusal(found), "compacted");
    }
    assert_eq!(retained(&db), ["+3.0", "+4.0"]);
    assert_eq!(at(&db, "foo", 3).unwrap(), Some((3, 2, 2)));
}

/// TestHashKVWhenCompacting: hashes at one revision taken while compactions go on: for each compact
/// revision there is one.
#[test]
fn hash_kv_when_compacting() {
    let (last, first_compact) = (1000u64, 950u64);
    let db = memory();
    for n in 2..=last {
        db.put("foo", format!("bar{n}")).unwrap();
    }
    let hashes = Mutex::new(BTreeMap::<_, BTreeSet<u32>>::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let found = db.hash_by_rev(last).unwrap();
                    let mut hashes = hashes.lock().unwrap();
                    let seen = hashes.entry(found.compact_revision).or_default();
                    seen.insert(found.hash);
                    drop(hashes);
                    if found.compact_revision == Some((last - 1).into()) {
                        break;
                    }
                }
            });
        }
        for rev in first_compact..last {
            let _ = db.compact(rev).unwrap().wait();
        }
    });
    for (compacted, seen) in hashes.into_inner().unwrap() {
        assert_eq!(seen.len(), 1, "compacted at {compacted:?}: {seen:?}");
    }
}

/// TestHashKVWithCompactedAndFutureRevisions: below the compact revision compacted, at it ok, above the
/// current one future.
#[test]
fn hash_kv_with_compacted_and_future_revisions() {
    let db = memory();
    for n in 0..9 {
        db.put("foo", n.to_string()).unwrap();
    }
    let _ = db.compact(8).unwrap().wait();
    for (rev, expected) in [
        (7, "compacted"),
        (8, "ok"),
        (9, "ok"),
        (10, "ok"),
        (11, "future"),
    ] {
        assert_eq!(refusal(db.hash_by_rev(rev)), expected, "at {rev}");
    }
}

/// TestHashKVZeroRevision: 0 is the newest revision.
#[test]
fn hash_kv_zero_revision() {
    let db = memory();
    for n in 0..9 {
        db.put("foo", n.to_string()).unwrap();
    }
    let _ = db.compact(5).unwrap().wait();
    let (zero, last) = (db.hash_by_rev(0).unwrap(), db.hash_by_rev(10).unwrap());
    assert_eq!(zero, last);
    assert_eq!(
        (zero.revision.get(), zero.compact_revision),
        (10, Some(5.into()))
    );
}

/// TestTxnPut: a hundred transactions one after the other get the revisions 2 to 101.
#[test]
fn txn_put() {
    let db = memory();
    for rev in 2..=101u64 {
        let mut txn = db.write().unwrap();
        assert_eq!(txn.put("foo", "bar").unwrap().get(), rev);
        assert_eq!(txn.commit().unwrap().revision.get(), rev);
    }
}

/// TestConcurrentReadNotBlockingWrite: an open read keeps its view, lets the write go on, and a new read
/// sees it.
#[test]
fn concurrent_read_not_blocking_write() {
    let db = memory();
    db.put("foo", "bar").unwrap();
    let before = db.read().unwrap();
    db.put("foo", "newBar").unwrap();
    let after = db.read().unwrap();
    let read =
        |view: &revtree::ReadView| -> Vec<Row> { rows(&view.range("foo").collect().unwrap()) };
    assert_eq!(read(&after), [row("foo", "newBar", 2, 3, 2)]);
    assert_eq!(read(&before), [row("foo", "bar", 2, 2, 1)]);
    // And a write that is open does not disturb a read that begins and ends meanwhile.
    let mut txn = db.write().unwrap();
    txn.put("foo", "third").unwrap();
    assert_eq!(read(&db.read().unwrap()), read(&after));
    txn.commit().unwrap();
}

/// TestConcurrentReadTxAndWrite: a hundred writers and a hundred readers: each read is exactly what had
/// been committed when it began.
#[test]
fn concurrent_read_tx_and_write() {
    let db = memory();
    // What was committed, by revision: written under the same turn as the store.
    let committed = Mutex::new(vec![Vec::<Row>::new(); 2]);
    std::thread::scope(|scope| {
        for n in 0..100u64 {
            let (db, committed) = (&db, &committed);
            scope.spawn(move || {
                let mut txn = db.write().unwrap();
                let mut random = Random::new(n);
                let mut state = committed.lock().unwrap().last().unwrap().clone();
                for _ in 0..=random.below(5) {
                    let key = format!("k{}", random.below(30));
                    let value = format!("{n}");
                    let rev = txn.put(&key, &value).unwrap().get();
                    let old = state.iter().find(|row| row.0 == key);
                    let (create, version) = old.map_or((rev, 1), |row| (row.2, row.4 + 1));
                    state.retain(|row| row.0 != key);
                    state.push(row(&key, &value, create, rev, version));
                }
                state.sort();
                // Before the commit: afterwards the next writer may already be here.
                committed.lock().unwrap().push(state);
                txn.commit().unwrap();
            });
            scope.spawn(move || {
                let before = db.rev();
                let view = db.read().unwrap();
                assert!(view.rev() >= before);
                let rev = usize::try_from(view.rev().get()).unwrap();
                let found = rows(&view.range(..).collect().unwrap());
                let expected = committed.lock().unwrap()[rev].clone();
                assert_eq!(found, expected, "at {rev}");
            });
        }
    });
    assert_eq!(db.rev().get(), 101);
}
