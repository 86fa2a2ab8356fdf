//! etcd's tests of snapshots and defragmentation: a whole store, copied while it goes on.

use revtree::{Db, Error, Options, Snapshot};

use crate::support::{Through, memory, range as read, rows};

/// Writes a snapshot to a file. (`save` of a store in memory stays in memory.)
fn write(snapshot: &Snapshot, path: &std::path::Path) {
    let file = std::fs::File::create(path).unwrap();
    snapshot.write_to(file).unwrap();
}

/// A store with overwritten and deleted keys, compacted at its current revision.
fn compacted() -> Db {
    let db = memory();
    for n in 0..300u32 {
        db.put(format!("k{:02}", n % 60), vec![b'x'; 500]).unwrap();
    }
    for n in 0..30u32 {
        db.delete(format!("k{n:02}")).unwrap();
    }
    let _ = db.compact(db.rev()).unwrap().wait();
    db
}

/// TestKVSnapshot: a snapshot's file has the same keys at the same revision.
#[test]
fn kv_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot");
    let db = memory();
    for (key, value) in [("foo", "bar"), ("foo1", "bar1"), ("foo2", "bar2")] {
        db.put(key, value).unwrap();
    }
    let snapshot = db.snapshot().unwrap();
    // What comes later is not in it.
    db.put("foo", "later").unwrap();
    write(&snapshot, &path);
    let copy = Db::open(&path).unwrap();
    assert_eq!(copy.rev().get(), 4);
    let all = |db: &Db| rows(&read(db, Through::Store, (..).into(), 4, 0).unwrap());
    assert_eq!(all(&copy), all(&db));
}

/// TestBackendSnapshot: what a snapshot writes, of a length known before, opens as a store of its own.
#[test]
fn backend_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot");
    let db = memory();
    db.put("foo", "bar").unwrap();
    let snapshot = db.snapshot().unwrap();
    let mut bytes = Vec::new();
    let written = snapshot.write_to(&mut bytes).unwrap();
    assert_eq!((written, bytes.len() as u64), (snapshot.len(), written));
    std::fs::write(&path, bytes).unwrap();
    let copy = Db::open(&path).unwrap();
    assert_eq!(copy.get("foo").unwrap().unwrap().value, "bar");
    assert_eq!(copy.put("foo", "on").unwrap().get(), 3);
}

/// TestBackendDefrag: a copy has the same hash, none of what was compacted away, and can be written. (etcd
/// stops everything and swaps the copy in; here that is a snapshot and a restore.)
#[test]
fn backend_defrag() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("copy");
    let db = compacted();
    write(&db.snapshot().unwrap(), &path);
    let copy = Db::open(&path).unwrap();
    assert_eq!(copy.hash(&[]).unwrap(), db.hash(&[]).unwrap());
    let (before, after) = (db.check().unwrap().records, copy.check().unwrap().records);
    assert!(after < before, "{after} of {before} records");
    assert_eq!(copy.put("k00", "again").unwrap(), db.rev().next());
}

/// TestVerifyHashKVAfterCompactAndDefrag: a member that was compacted and copied agrees with one that was
/// compacted only, at every revision to come.
#[test]
fn verify_hash_kv_after_compact_and_defrag() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("copy");
    let db = compacted();
    write(&db.snapshot().unwrap(), &path);
    let copy = Db::open(&path).unwrap();
    let compacted = db.compact_rev().unwrap().get();
    for n in 0..5 {
        db.put("k01", n.to_string()).unwrap();
        copy.put("k01", n.to_string()).unwrap();
    }
    for rev in compacted + 1..=db.rev().get() {
        assert_eq!(copy.hash_by_rev(rev).unwrap(), db.hash_by_rev(rev).unwrap());
    }
}

/// TestMaintenanceSnapshotContentDigest: etcd appends a digest, so that a damaged snapshot is found. Here
/// every part has its checksums: a byte that was changed in a value is found by a check, and where it lies.
#[test]
fn maintenance_snapshot_content_digest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot");
    let db = memory();
    db.put("foo", "a value to be damaged").unwrap();
    let mut bytes = Vec::new();
    db.snapshot().unwrap().write_to(&mut bytes).unwrap();
    let place = bytes
        .windows(13)
        .position(|part| part == b"to be damaged")
        .unwrap();
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let copy = Options::new().read_only().open(&path).unwrap();
    assert!(!copy.check().unwrap().is_clean());
    assert!(matches!(copy.get("foo"), Err(Error::Corrupt { .. })));
}
