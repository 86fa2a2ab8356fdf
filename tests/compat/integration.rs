//! etcd's integration, e2e and robustness tests, as far as the storage decides them.

use revtree::{Db, Error, Expect, Outcome};

use crate::support::{Change, commit_at, memory, refusal};

/// TestV3CompactCurrentRev: compacting at the current revision keeps the current state readable, and
/// refuses everything before.
#[test]
fn compact_current_rev() {
    let db = memory();
    for value in ["1", "2", "3"] {
        db.put("foo", value).unwrap();
    }
    let rev = db.rev();
    assert_eq!(db.compact(rev).unwrap().wait(), Outcome::Done);
    assert_eq!(db.get("foo").unwrap().unwrap().value, "3");
    assert_eq!(
        db.read_at(rev)
            .unwrap()
            .get("foo")
            .unwrap()
            .unwrap()
            .value(),
        b"3"
    );
    assert_eq!(refusal(db.read_at(rev.get() - 1)), "compacted");
    assert_eq!(refusal(db.compact(rev)), "compacted");
    assert_eq!(db.put("foo", "4").unwrap(), rev.next());
}

/// TestV3HashRestart: the hash of the whole store, and the hash at a revision, are the same after a restart.
#[test]
fn hash_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    for n in 0..100 {
        db.put(format!("k{}", n % 7), n.to_string()).unwrap();
    }
    db.delete("k3").unwrap();
    let _ = db.compact(50).unwrap().wait();
    let hashes = |db: &Db| {
        (
            db.hash(revtree::DEFAULT_IGNORES).unwrap(),
            db.hash_by_rev(0).unwrap(),
        )
    };
    let before = hashes(&db);
    db.close().unwrap();
    assert_eq!(hashes(&Db::open(&path).unwrap()), before);
}

/// The history of etcd's HashKV tests over a cluster: puts, deletes, and compactions asked for later.
fn write_history(db: &Db) {
    for round in 0..5u64 {
        for key in 0..4 {
            db.put(format!("key{key}"), format!("value{round}"))
                .unwrap();
        }
        db.delete(format!("key{}", round % 4)).unwrap();
    }
}

/// Two members with the same history, one of which was restarted between each step: their hashes at every
/// revision that can be asked for.
fn check_members_agree(history: impl Fn(&Db), compactions: &[u64]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("restarted");
    let (one, mut other) = (memory(), Db::open(&path).unwrap());
    history(&one);
    history(&other);
    let mut from = 1;
    for rev in [0].iter().chain(compactions) {
        if *rev > 0 {
            let before = one.hash_by_rev(*rev).unwrap();
            for db in [&one, &other] {
                assert_eq!(db.compact(*rev).unwrap().wait(), Outcome::Done);
                // What the compaction remembers is what was hashed just before.
                assert_eq!(db.hash_by_rev(*rev).unwrap(), before);
            }
            from = *rev + 1;
        }
        other.close().unwrap();
        other = Db::open(&path).unwrap();
        for at in from..=one.rev().get() {
            assert_eq!(
                one.hash_by_rev(at).unwrap(),
                other.hash_by_rev(at).unwrap(),
                "at {at}"
            );
        }
    }
}

/// TestVerifyHashKVAfterCompact: members agree at every revision, before and after a compaction.
#[test]
fn verify_hash_kv_after_compact() {
    for rev in [2, 7, 13, 26] {
        check_members_agree(write_history, &[rev]);
    }
}

/// TestVerifyHashKVAfterTwoCompactsOnTombstone: two compactions, each exactly at a delete.
#[test]
fn verify_hash_kv_after_two_compacts_on_tombstone() {
    // The deletes are at 6, 11, 16, 21, 26.
    for deletes in [[6, 11], [6, 16], [11, 21]] {
        check_members_agree(write_history, &deletes);
    }
}

/// TestVerifyHashKVAfterCompactOnLastTombstone: the compaction is at a delete that is the newest change.
#[test]
fn verify_hash_kv_after_compact_on_last_tombstone() {
    check_members_agree(write_history, &[26]);
    let all_deleted = |db: &Db| {
        write_history(db);
        db.delete_range(..).unwrap();
    };
    check_members_agree(all_deleted, &[27]);
}

/// TestV3RangeStream: a range that is read slowly stays at the revision it began with.
#[test]
fn range_stream_pins_its_revision() {
    let db = memory();
    for n in 0..1000 {
        db.put(format!("{n:04}"), "old").unwrap();
    }
    let mut records = db.read().unwrap().into_range(..);
    for n in 0..1000 {
        if n % 100 == 0 {
            db.delete_range(format!("{:04}", n + 50)..).unwrap();
            db.put(format!("{n:04}"), "new").unwrap();
            db.put(format!("{n:04}a"), "new").unwrap();
        }
        let kv = records.next().unwrap().unwrap();
        assert_eq!(kv.key, format!("{n:04}"));
        assert_eq!((kv.value, kv.mod_revision.get()), ("old".into(), n + 2));
    }
    assert!(records.next().is_none());
}

/// TestV3RangeStreamCompacted: etcd ends a range with an error when its revision is compacted away
/// midway. Here what was begun is finished, exactly; what begins later below is refused.
#[test]
fn range_stream_compacted_midway() {
    let db = memory();
    for n in 0..1000 {
        db.put(format!("{n:04}"), "old").unwrap();
    }
    let view = db.read().unwrap();
    let rev = view.rev();
    let mut records = view.clone().into_range(..);
    assert_eq!(records.by_ref().take(10).count(), 10);
    for n in 0..1000 {
        db.put(format!("{n:04}"), "new").unwrap();
    }
    assert_eq!(db.compact(db.rev()).unwrap().wait(), Outcome::Done);
    let rest: Vec<_> = records.map(|kv| kv.unwrap().value).collect();
    assert_eq!(rest, vec!["old"; 990]);
    assert_eq!(view.get("0000").unwrap().unwrap().value(), b"old");
    assert_eq!(refusal(db.read_at(rev)), "compacted");
    // The view itself is exact; asking it for another revision is asking anew.
    assert_eq!(refusal(view.range(..).at(rev.get() - 1)), "compacted");
}

/// Issue 18667: a transaction that fails half-way leaves nothing: no revision, no key, no index, no row.
#[test]
fn issue_18667_failed_transaction_leaves_nothing() {
    let db = memory();
    commit_at(&db, 2, &[Change::Put("foo", "1")]);
    db.raise_consistent_index(5).unwrap();
    let hash = db.hash(&[]).unwrap();
    let apply = |db: &Db| -> revtree::Result<()> {
        let mut txn = db.write_at_index(6)?.unwrap();
        txn.put("foo", "2")?;
        txn.table("rows")?.put(b"a", b"1")?;
        txn.delete_range("f".."g")?;
        txn.require("foo", Expect::Exists)?;
        txn.commit()?;
        Ok(())
    };
    let failed = apply(&db);
    assert!(matches!(failed, Err(Error::Conflict { found: None, .. })));
    assert_eq!(db.hash(&[]).unwrap(), hash);
    assert_eq!((db.rev().get(), db.consistent_index().index), (2, 5));
    assert_eq!(db.read().unwrap().tables().count(), 0);
    assert_eq!(db.put("foo", "3").unwrap().get(), 3);
}
