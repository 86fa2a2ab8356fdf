//! Reclaiming on a disk that is full, and on one that fails: nothing is lost, and later it goes on.

use std::sync::Arc;

use revtree::storage::sim::{Call, FaultPlan, SimDisk, SimOptions};
use revtree::{Db, Error, Options};

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
