//! What is left on a disk or in a store is used before a write is refused.

use std::sync::Arc;
use std::time::Duration;

use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{Db, Durability, Error, Options};

fn open(disk: &SimDisk, options: Options) -> Db {
    options.disk(Arc::new(disk.clone())).open("store").unwrap()
}

/// The file is allocated in steps of an eighth of it. When a step does not fit the disk, what a commit needs
/// still may.
#[test]
fn the_last_of_a_disk_is_used() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new());
    for n in 0..350 {
        db.put(format!("k{n}"), vec![0; 10_000]).unwrap();
    }
    let left = 150_000;
    disk.set_capacity(Some(db.stats().allocated_bytes + left));
    let mut more = 0;
    let error = loop {
        match db.put(format!("more {more}"), vec![0; 10_000]) {
            Ok(_) => more += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert!(more >= 8, "{more} puts into {left} bytes");
    disk.set_capacity(None);
    db.put("after", "1").unwrap();
}

/// Free segments are room for writes, also where the file has reached its limit.
#[test]
fn a_store_with_free_segments_is_not_full() {
    const MAX: u64 = 1 << 20;
    let disk = SimDisk::new(SimOptions::default());
    let lazy = Durability::Batched {
        changes: u32::MAX,
        interval: Duration::from_secs(100_000),
    };
    let options = || {
        let options = Options::new().durability(lazy).segment_bytes(64 << 10);
        options.store_bytes_max(MAX)
    };
    let db = open(&disk, options());
    for n in 0..50 {
        db.put(format!("k{n}"), vec![0; 10_000]).unwrap();
    }
    // What no sync has covered is written again, and its segments are free from the next open on.
    let killed = disk.kill(disk.operations());
    drop(db);
    open(&killed, options()).close().unwrap();
    let db = open(&killed, options());
    let free = db.stats().free_bytes;
    assert!(free > 400_000, "{free} bytes are free");
    let mut more = 0;
    let error = loop {
        match db.put(format!("more {more}"), vec![0; 10_000]) {
            Ok(_) => more += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::StoreFull { .. }), "{error}");
    assert!(more * 11_000 > free, "{more} puts into {free} bytes");
    assert!(!db.stats().poisoned);
    db.close().unwrap();
    let db = open(&killed, options());
    assert_eq!(db.read().unwrap().range(..).count().unwrap(), 50 + more);
}
