//! Goal: whatever happens on the way, there is a whole store under its name, or nothing.
//!
//! Over the simulated disk: see its fault model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use revtree_test_bbolt::{Options as Shape, vector_a, write};

use super::{ImportReport, import_etcd};
use crate::error::{Error, Result};
use crate::options::{Create, Options};
use crate::sys::Disk;
use crate::sys::sim::{Call, FaultPlan, SimDisk, SimOptions};

const SNAPSHOT: &str = "snapshot.db";
const STORE: &str = "store";

/// A disk with a snapshot on it, larger than some segments and checkpoints.
fn disk() -> SimDisk {
    let mut history = vector_a();
    for n in 0..30u8 {
        history.begin().put(&[n % 7], &vec![n; 9000], 0);
    }
    let image = write(&Shape::default(), &history.contents());
    let disk = SimDisk::new(SimOptions::default());
    disk.put_bytes(Path::new(SNAPSHOT), image.file());
    disk
}

fn options(disk: &SimDisk) -> Options {
    Options {
        disk: Some(Arc::new(disk.clone())),
        threads: false,
        ..Options::new()
            .segment_bytes(64 << 10)
            .checkpoint_bytes(50_000)
    }
}

fn import(disk: &SimDisk) -> Result<ImportReport> {
    import_etcd(Path::new(SNAPSHOT), Path::new(STORE), options(disk))
}

/// Opens what has the store's name and reads it through.
fn check(disk: &SimDisk, hash: u32, what: &str) {
    let options = options(disk).create(Create::Never);
    let db = options
        .open(STORE)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(db.recovery().clean, "{what}");
    assert_eq!(db.rev().get(), 42, "{what}");
    assert_eq!(db.hash_by_rev(0).unwrap().hash, hash, "{what}");
    let check = db.check().unwrap();
    assert!(check.is_clean(), "{what}: {:?}", check.damage);
}

fn exists(disk: &SimDisk) -> bool {
    disk.exists(Path::new(STORE)).unwrap()
}

/// The hash that all must have.
fn expected() -> u32 {
    let disk = disk();
    import(&disk).unwrap();
    let db = options(&disk).open(STORE).unwrap();
    db.hash_by_rev(0).unwrap().hash
}

#[test]
fn a_power_cut_leaves_all_or_nothing() {
    let disk = disk();
    import(&disk).unwrap();
    let hash = expected();
    let (mut with, mut without) = (0, 0);
    for operation in 0..=disk.operations() {
        for (what, image) in disk.images(operation, 2).take(50) {
            if exists(&image) {
                check(&image, hash, &what);
                with += 1;
            } else {
                without += 1;
                if without % 40 == 1 && image.exists(Path::new(SNAPSHOT)).unwrap() {
                    import(&image).unwrap_or_else(|error| panic!("{what}, again: {error}"));
                    check(&image, hash, &what);
                }
            }
        }
        if exists(&disk.kill(operation)) {
            check(&disk.kill(operation), hash, "killed");
        }
    }
    assert!(with > 0 && without > 100, "{with} with, {without} without");
}

#[test]
fn a_failing_call_leaves_nothing() {
    let calls = [
        Call::Open,
        Call::CreateNew,
        Call::Rename,
        Call::SyncDirectory,
        Call::ReadAt,
        Call::WriteAt,
        Call::SyncData,
        Call::SyncAll,
        Call::Allocate,
    ];
    let hash = expected();
    for call in calls {
        let counted = disk();
        import(&counted).unwrap();
        let count = counted.count(call);
        assert!(count > 0, "{call:?}");
        for nth in 1..=count {
            let what = format!("{call:?} number {nth}");
            let disk = disk();
            disk.fail(FaultPlan::once(call, nth, 5));
            match import(&disk) {
                // A call that only helps.
                Ok(_) => check(&disk, hash, &what),
                // The last one is after the rename: the store is there and whole.
                Err(_) if call == Call::SyncDirectory && nth == count => {
                    check(&disk, hash, &what);
                }
                Err(error) => {
                    assert!(!matches!(error, Error::Import { .. }), "{what}: {error}");
                    assert_eq!(disk.paths(), [PathBuf::from(SNAPSHOT)], "{what}");
                    import(&disk).unwrap_or_else(|error| panic!("{what}, again: {error}"));
                    check(&disk, hash, &what);
                }
            }
        }
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let mut failed = 0;
    for room in (8 << 10..1 << 20).step_by(50_000) {
        let disk = disk();
        let used = disk.bytes(Path::new(SNAPSHOT)).unwrap().len() as u64;
        disk.set_capacity(Some(used.next_multiple_of(4096) + room));
        if let Err(error) = import(&disk) {
            assert!(
                matches!(
                    error,
                    Error::NoSpace { .. } | Error::Io { .. } | Error::Poisoned { .. }
                ),
                "{error}"
            );
            assert_eq!(disk.paths(), [PathBuf::from(SNAPSHOT)], "{error}");
            failed += 1;
        }
        disk.set_capacity(None);
        if !exists(&disk) {
            import(&disk).unwrap();
        }
    }
    assert!(failed > 2);
}
