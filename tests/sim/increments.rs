//! Increments on a disk that crashes or fails: all of one or nothing (SPEC.md, S-12).

use std::sync::Arc;

use revtree::storage::sim::{Call, FaultPlan, Mask, SimDisk, SimOptions};
use revtree::{Db, Error, Options, Revision};

const STORE: &str = "store";

fn open(disk: &SimDisk, path: &str) -> revtree::Result<Db> {
    let options = Options::new().disk(Arc::new(disk.clone()));
    let options = options.store_bytes_max(1 << 27).checkpoint_bytes(64 << 10);
    options.segment_bytes(64 << 10).open(path)
}

/// A store on a disk of its own, what its source became since, and the hashes of both.
struct Story {
    disk: SimDisk,
    db: Db,
    increment: Vec<u8>,
    states: [(Revision, u32); 2],
}

fn state(db: &Db) -> (Revision, u32) {
    (db.rev(), db.hash(&[]).unwrap().hash)
}

fn story() -> Story {
    let disk = SimDisk::new(SimOptions::default());
    let source = open(&disk, "source").unwrap();
    let value = |n: u32| vec![u8::try_from(n % 200).unwrap(); 3000];
    for n in 0..30 {
        source.put(format!("{}", n % 10), value(n)).unwrap();
    }
    source.snapshot().unwrap().save(STORE).unwrap();
    let db = open(&disk, STORE).unwrap();
    let before = state(&db);
    for n in 30..50 {
        source.put(format!("{}", n % 12), value(n)).unwrap();
    }
    source.delete("3").unwrap();
    source.compact(source.rev().get() - 4).unwrap();
    let mut increment = Vec::new();
    let snapshot = source.snapshot().unwrap();
    snapshot.write_since(db.rev(), &mut increment).unwrap();
    let states = [before, state(&source)];
    source.close().unwrap();
    Story {
        disk,
        db,
        increment,
        states,
    }
}

/// The power is cut at every operation of the disk, and takes all that it may, or nothing, or names and lengths
/// alone.
#[test]
fn a_power_cut_leaves_all_or_nothing() {
    let Story {
        disk,
        db,
        increment,
        states,
    } = story();
    let from = disk.operations();
    db.apply_increment(&increment[..]).unwrap();
    assert_eq!(state(&db), states[1]);
    let to = disk.operations();
    let mut found = [0, 0];
    for at in from..=to {
        for (kept, lengths, names) in [
            (false, false, false),
            (true, true, true),
            (false, true, true),
            (true, false, false),
        ] {
            let sectors = disk.pending(at);
            let mut mask = Mask::new(vec![kept; sectors], lengths, names);
            let after = open(&disk.image(at, &mut mask), STORE).unwrap();
            let now = state(&after);
            let which = states.iter().position(|state| *state == now);
            let which = which.unwrap_or_else(|| panic!("{now:?} at {at}"));
            assert!(after.check().unwrap().is_clean());
            assert!(at < to || which == 1, "it was acknowledged");
            found[which] += 1;
        }
    }
    assert!(found[0] > 10 && found[1] > 0, "{found:?}");
}

/// Every call fails once, in one way: the increment is there or not at all, and what is acknowledged afterwards
/// stays.
#[test]
fn a_call_that_fails_leaves_all_or_nothing() {
    let mut failed = 0;
    for call in [
        Call::WriteAt,
        Call::SyncData,
        Call::SyncAll,
        Call::Rename,
        Call::SyncDirectory,
        Call::Allocate,
    ] {
        for nth in 1.. {
            let Story {
                disk,
                db,
                increment,
                states,
            } = story();
            let before = disk.count(call);
            disk.fail(FaultPlan::once(call, nth, 5));
            let applied = db.apply_increment(&increment[..]);
            let is_over = disk.count(call) - before < nth;
            disk.clear_faults();
            let now = state(&db);
            assert!(states.contains(&now), "{call:?} {nth}: {now:?}");
            match applied {
                Ok(rev) => assert_eq!((rev, now), (states[1].0, states[1])),
                Err(Error::Io { .. } | Error::Poisoned { .. } | Error::CommitUnknown { .. }) => {
                    failed += 1;
                }
                Err(error) => panic!("{call:?} {nth}: {error}"),
            }
            let put = db.put("behind", "it");
            drop(db);
            let after = open(&disk, STORE).unwrap();
            if let Ok(rev) = put {
                assert_eq!(after.rev(), rev, "{call:?} {nth}");
            } else {
                assert!(states.contains(&state(&after)), "{call:?} {nth}");
            }
            assert!(after.check().unwrap().is_clean());
            if is_over {
                break;
            }
        }
    }
    assert!(failed > 10, "{failed}");
}
