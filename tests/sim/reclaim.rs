//! Reclaiming on a disk that is full, and on one that fails: nothing is lost, and later it goes on.

use std::sync::Arc;

use revtree::storage::sim::{Call, FaultPlan, SimDisk, SimOptions};
use revtree::{Cleaner, Db, Durability, Error, Options};

const SEGMENT: u64 = 64 << 10;

fn open(disk: &SimDisk) -> Db {
    let options = Options::new().segment_bytes(SEGMENT);
    options.disk(Arc::new(disk.clone())).open("store").unwrap()
}

/// Every tenth record of many segments is live.
fn scatter(db: &Db) {
    for n in 0..900u64 {
        let key = if n % 10 == 0 { n } else { 10_000 + n % 7 };
        db.put(format!("{key:06}"), vec![n.to_le_bytes()[0]; 900])
            .unwrap();
    }
    db.compact(db.rev()).unwrap();
}

fn check(db: &Db, what: &str) {
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.damage);
    for n in (0..900u64).step_by(10) {
        let kv = db.get(format!("{n:06}")).unwrap();
        assert_eq!(
            kv.expect(what).value,
            vec![n.to_le_bytes()[0]; 900],
            "{what}"
        );
    }
}

/// However little room there is, reclaiming says so or does what it can, and all that is there stays. With room it
/// goes on where it was.
#[test]
fn on_a_full_disk_nothing_is_lost() {
    for left in (0..40).map(|n| n * 8192) {
        let what = format!("{left} bytes left");
        let disk = SimDisk::new(SimOptions::default());
        let db = open(&disk);
        scatter(&db);
        disk.set_capacity(Some(db.stats().allocated_bytes + left));
        match db.reclaim() {
            Ok(_) | Err(Error::NoSpace { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        check(&db, &what);
        db.put("more", "1").unwrap_or_default();
        check(&db, &what);
        disk.set_capacity(None);
        let done = db.reclaim().unwrap();
        assert_eq!(done.held_bytes, 0, "{what}");
        check(&db, &what);
        assert!(
            db.stats().file_bytes < 12 * SEGMENT,
            "{what}: {:?}",
            db.stats()
        );
        db.close().unwrap();
        check(&open(&disk), &what);
    }
}

/// A call that fails once poisons as in any write, or is told; an open behind it finds everything.
#[test]
fn behind_a_failed_call_everything_is_there() {
    for call in [Call::WriteAt, Call::SyncData, Call::Allocate, Call::SetLen] {
        for nth in 1..12 {
            let what = format!("{call:?} {nth}");
            let disk = SimDisk::new(SimOptions::default());
            let db = open(&disk);
            scatter(&db);
            disk.fail(FaultPlan::once(call, nth, 5));
            let failed = db.reclaim().is_err();
            disk.clear_faults();
            for n in (0..900u64).step_by(10) {
                let kv = db.get(format!("{n:06}")).unwrap();
                assert_eq!(kv.expect(&what).value.len(), 900, "{what}");
            }
            drop(db);
            let db = open(&disk);
            check(&db, &what);
            db.reclaim().unwrap();
            check(&db, &what);
            if !failed {
                continue;
            }
            assert!(
                db.stats().file_bytes < 14 * SEGMENT,
                "{what} {:?}",
                db.stats()
            );
        }
    }
}

/// Where changes have filled the disk hardly a segment is wholly dead: what is kept for the cleaner is enough to begin
/// with, and what it gives back is enough for all else; also behind a kill, and again and again.
#[test]
fn a_full_disk_can_be_cleaned() {
    for (segment, durability, len) in [
        (SEGMENT, Durability::Sync, 900),
        (SEGMENT, Durability::Flushed, 5000),
        (2 * SEGMENT, Durability::Sync, 2000),
        (4 * SEGMENT, Durability::Flushed, 900),
        // A segment is more than all else that is kept.
        (16 * SEGMENT, Durability::Sync, 20_000),
    ] {
        let capacity = 40 * segment;
        let options = Options::new().durability(durability);
        let options = options.segment_bytes(segment).cleaner(Cleaner::Manual);
        let mut disk = SimDisk::new(SimOptions::default());
        let open = |disk: &SimDisk| {
            let options = options.clone().disk(Arc::new(disk.clone()));
            options.open("store").unwrap()
        };
        let mut db = open(&disk);
        disk.set_capacity(Some(capacity));
        let (mut newest, mut count) = ([0; 60], 0);
        for round in 0..5 {
            let what = format!("{segment} {durability:?} {len}, round {round}");
            let fresh = count;
            let full = loop {
                let key = (count * 31 + count / 60 * 7) % 60;
                match db.put(format!("{key:03}"), value(count, len)) {
                    Ok(_) => newest[key] = count,
                    Err(full) => break full,
                }
                count += 1;
            };
            assert!(matches!(full, Error::NoSpace { .. }), "{what}: {full}");
            assert!(count - fresh > 80, "{what}: {fresh} to {count}");
            if round % 2 == 1 {
                let killed = disk.kill(disk.operations());
                killed.set_capacity(Some(capacity));
                drop(db);
                db = open(&killed);
                disk = killed;
            }
            db.compact(db.rev()).unwrap();
            let done = db.reclaim().unwrap();
            assert!(done.freed_bytes > 8 * segment, "{what}: {done:?}");
            for (key, n) in newest.iter().enumerate() {
                let kv = db.get(format!("{key:03}")).unwrap().expect(&what);
                assert_eq!(kv.value, value(*n, len), "{what}: {key}");
            }
            assert!(db.check().unwrap().is_clean(), "{what}");
        }
        db.close().unwrap();
    }
}

/// A kill anywhere in the cleaning of a full disk: a run that is in no tree yet is given back, and one that is has
/// replaced more than it takes.
#[test]
fn a_kill_inside_the_cleaning_of_a_full_disk() {
    let options = Options::new()
        .segment_bytes(SEGMENT)
        .cleaner(Cleaner::Manual);
    let disk = SimDisk::new(SimOptions::default());
    let open = |disk: &SimDisk| {
        let options = options.clone().disk(Arc::new(disk.clone()));
        options.open("store").unwrap()
    };
    let db = open(&disk);
    let capacity = 40 * SEGMENT;
    disk.set_capacity(Some(capacity));
    let (mut newest, mut count) = ([0; 60], 0);
    while db
        .put(format!("{:03}", count * 31 % 60), value(count, 900))
        .is_ok()
    {
        newest[count * 31 % 60] = count;
        count += 1;
    }
    db.compact(db.rev()).unwrap();
    let before = disk.operations();
    assert!(db.reclaim().unwrap().freed_bytes > 8 * SEGMENT);
    let after = disk.operations();
    assert!(after - before > 30, "{before} to {after}");
    for operation in before..=after {
        let what = format!("{operation} of {before} to {after}");
        let killed = disk.kill(operation);
        killed.set_capacity(Some(capacity));
        let db = open(&killed);
        let check = || {
            assert!(db.check().unwrap().is_clean(), "{what}");
            for (key, n) in newest.iter().enumerate() {
                let kv = db.get(format!("{key:03}")).unwrap().expect(&what);
                assert_eq!(kv.value, value(*n, 900), "{what}: {key}");
            }
        };
        check();
        db.reclaim().unwrap();
        for n in 0..80 {
            db.put("more", value(n, 900)).expect(&what);
        }
        check();
        db.close().unwrap();
    }
}

fn value(n: usize, len: usize) -> Vec<u8> {
    let mut value = vec![0; len];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value
}
