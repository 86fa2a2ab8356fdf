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
    let before = db.read().unwrap().range(..).count().unwrap();
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
    let count = db.read().unwrap().range(..).count().unwrap();
    assert_eq!(count, before + more);
}

/// In a segment that is used again there is room up to its end, also where the file is longer than it may
/// become: the rest of it is as free as it was before it was taken.
#[test]
fn a_segment_used_again_is_filled() {
    const SEGMENT: u64 = 64 << 10;
    let disk = SimDisk::new(SimOptions::default());
    let lazy = Durability::Batched {
        changes: u32::MAX,
        interval: Duration::from_secs(100_000),
    };
    let options = |max| {
        let options = Options::new().durability(lazy).segment_bytes(SEGMENT);
        options.store_bytes_max(max)
    };
    let db = open(&disk, options(1 << 20));
    for n in 0..50 {
        db.put(format!("k{n}"), vec![0; 10_000]).unwrap();
    }
    let killed = disk.kill(disk.operations());
    drop(db);
    open(&killed, options(1 << 20)).close().unwrap();
    // The limit is now half a segment below the file's length, without what is free.
    let db = open(&killed, options(1 << 20));
    let (free, length) = (db.stats().free_bytes, db.stats().file_bytes);
    assert!(free > 2 * SEGMENT, "{free} bytes are free");
    drop(db);
    let units = length.div_ceil(SEGMENT);
    let db = open(&killed, options(units * SEGMENT - SEGMENT / 2));
    let mut more = 0u64;
    while db.put(format!("more {more}"), vec![0; 1000]).is_ok() {
        more += 1;
    }
    // All of it but the half segment, and what headers take.
    eprintln!("{more} puts into {free} bytes");
    assert!(
        more * 1100 + SEGMENT * 3 / 4 > free,
        "{more} puts into {free} bytes"
    );
}
