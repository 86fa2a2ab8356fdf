//! Open, put, commit, reopen, read at a revision.

use revtree::{Db, Durability, Options};

#[test]
fn values_survive_a_reopen_and_old_revisions_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let db = Db::open(&path).unwrap();
        for n in 0..100u32 {
            db.put(format!("k{}", n % 10), n.to_string()).unwrap();
        }
        assert_eq!(db.rev().get(), 101);
        db.close().unwrap();
    }
    let db = Db::open(&path).unwrap();
    assert!(db.recovery().clean);
    assert_eq!(db.rev().get(), 101);
    for rev in 2..=101u64 {
        let view = db.read_at(rev).unwrap();
        let n = rev - 2;
        let record = view.get(format!("k{}", n % 10)).unwrap().unwrap();
        assert_eq!(record.value(), n.to_string().as_bytes());
        assert_eq!(view.range(..).count().unwrap(), (n + 1).min(10));
    }
    db.put("k0", "again").unwrap();
    assert_eq!(db.get("k0").unwrap().unwrap().version, 11);
}

#[test]
fn a_store_that_was_not_closed_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let copy = dir.path().join("copy");
    let db = Db::open(&path).unwrap();
    for n in 0..50u32 {
        db.put(format!("k{n}"), vec![7; 3000]).unwrap();
    }
    std::fs::copy(&path, &copy).unwrap();
    let other = Db::open(&copy).unwrap();
    assert!(!other.recovery().clean);
    assert_eq!(other.rev().get(), 51);
    assert_eq!(other.read().unwrap().range(..).count().unwrap(), 50);
    other.put("x", "y").unwrap();
    other.close().unwrap();
    let other = Db::open(&copy).unwrap();
    assert!(other.recovery().clean);
    assert_eq!(other.get("x").unwrap().unwrap().value, "y");
    drop(db);
}

#[test]
fn many_segments_and_large_values() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = || {
        Options::new()
            .segment_bytes(64 << 10)
            .checkpoint_bytes(256 << 10)
            .durability(Durability::Batched {
                changes: 100,
                interval: std::time::Duration::from_millis(5),
            })
    };
    let db = options().open(&path).unwrap();
    for n in 0..2000u64 {
        db.put(format!("k{}", n % 333), value(n)).unwrap();
    }
    let hash = db.hash_by_rev(0).unwrap();
    db.close().unwrap();
    let db = options().open(&path).unwrap();
    assert_eq!(db.hash_by_rev(0).unwrap(), hash);
    for rev in (2..=2001u64).step_by(13) {
        let n = rev - 2;
        let view = db.read_at(rev).unwrap();
        let record = view.get(format!("k{}", n % 333)).unwrap().unwrap();
        assert_eq!(record.value(), value(n));
    }
    let events = db.read().unwrap().history("k5").unwrap().count();
    assert_eq!(events, 6);
}

/// The value of put `n`: now and then one that needs a long segment.
fn value(n: u64) -> Vec<u8> {
    let len = if n.is_multiple_of(97) {
        200_000
    } else {
        n % 700
    };
    let byte = n.to_le_bytes()[0];
    (0..len).map(|_| byte).collect()
}
