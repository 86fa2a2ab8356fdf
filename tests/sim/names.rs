//! The store's name in its directory: what is acknowledged must not hang on a name that a power cut
//! takes back. Both stories were found by failing every call of a history.

use std::path::Path;

use revtree::storage::sim::{Call, FaultPlan, Mask, SimDisk, SimOptions};
use revtree::{Db, Error, Options};

const STORE: &str = "store";

fn open(disk: &SimDisk) -> revtree::Result<Db> {
    let disk = std::sync::Arc::new(disk.clone());
    let options = Options::new().disk(disk).store_bytes_max(1 << 27);
    options.segment_bytes(64 << 10).open(STORE)
}

/// The disk after a power cut that takes all it may.
fn cut(disk: &SimDisk) -> SimDisk {
    let now = disk.operations();
    let sectors = disk.pending(now);
    disk.image(now, &mut Mask::new(vec![false; sectors], false, false))
}

/// A creation that fails, or is killed, between the rename and the directory's sync leaves a store under a
/// name that is not durable. The next open used to find it there and to acknowledge commits in it, which a
/// power cut then took away with the name. Now a writable open syncs the directory first.
#[test]
fn a_creation_cut_short_leaves_no_name_in_doubt() {
    let disk = SimDisk::new(SimOptions::default());
    disk.fail(FaultPlan::once(Call::SyncDirectory, 1, 5));
    assert!(matches!(open(&disk), Err(Error::Io { .. })));
    assert!(disk.paths().iter().any(|path| path == Path::new(STORE)));
    let db = open(&disk).unwrap();
    db.put("a", "acknowledged").unwrap();
    let after = open(&cut(&disk)).unwrap();
    assert_eq!(after.get("a").unwrap().unwrap().value, "acknowledged");
}

/// A creation whose rename fails says so, leaves nothing, and is made by the next open. Only a name that is taken means
/// that somebody else was first.
#[test]
fn a_creation_that_gets_no_name() {
    let disk = SimDisk::new(SimOptions::default());
    disk.fail(FaultPlan::once(Call::Rename, 1, 5));
    let error = open(&disk).unwrap_err();
    let told = matches!(
        error,
        Error::Io {
            what: "create the store",
            ..
        }
    );
    assert!(told, "{error:?}");
    assert!(disk.paths().is_empty());
    open(&disk).unwrap().put("a", "1").unwrap();
}

/// A restore whose directory cannot be synced leaves the new content in place, and the name in doubt. It
/// used to go on taking commits, which a power cut took away by bringing the old file back. Now it takes no
/// writes before the store has been opened again.
#[test]
fn a_restore_with_its_name_in_doubt_takes_no_writes() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk).unwrap();
    db.put("a", "saved").unwrap();
    db.snapshot().unwrap().save("saved").unwrap();
    db.put("a", "newer").unwrap();
    // The first sync is that of the open of the new file, the second that of its new name.
    disk.fail(FaultPlan::once(Call::SyncDirectory, 2, 5));
    assert!(matches!(db.restore("saved"), Err(Error::Io { .. })));
    assert_eq!(db.get("a").unwrap().unwrap().value, "saved");
    assert!(matches!(db.put("a", "lost"), Err(Error::Poisoned { .. })));
    let after = open(&cut(&disk)).unwrap();
    assert_eq!(after.get("a").unwrap().unwrap().value, "newer");
    assert!(matches!(db.close(), Err(Error::Poisoned { .. })));
    let db = open(&disk).unwrap();
    db.put("b", "acknowledged").unwrap();
    let after = open(&cut(&disk)).unwrap();
    assert_eq!(after.get("a").unwrap().unwrap().value, "saved");
    assert_eq!(after.get("b").unwrap().unwrap().value, "acknowledged");
}
