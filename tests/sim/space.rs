//! What is left on a disk or in a store is used before a write is refused.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{Db, Durability, Error, Options};

fn open(disk: &SimDisk, options: Options) -> Db {
    options.disk(Arc::new(disk.clone())).open("store").unwrap()
}

/// Puts until the disk is full; how many there were.
fn fill(db: &Db, prefix: &str, len: usize) -> u64 {
    let mut count = 0;
    loop {
        match db.put(format!("{prefix}/{count:05}"), vec![0; len]) {
            Ok(_) => count += 1,
            Err(Error::NoSpace { .. }) => return count,
            Err(error) => panic!("{error}"),
        }
        assert!(count < 1_000_000, "the disk has no end");
    }
}

/// The file is allocated in steps of an eighth of it. When a step does not fit the disk, what a commit needs
/// still may.
#[test]
fn the_last_of_a_disk_is_used() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new());
    fill_to(&db, 350);
    let left = 150_000;
    disk.set_capacity(Some(db.stats().allocated_bytes + left));
    let more = fill(&db, "more", 10_000);
    assert!(more >= 8, "{more} puts into {left} bytes");
    disk.set_capacity(None);
    db.put("after", "1").unwrap();
}

fn fill_to(db: &Db, count: u64) {
    for n in 0..count {
        db.put(format!("k{n}"), vec![0; 10_000]).unwrap();
    }
}

/// A store that changes have filled its disk with.
struct Full {
    disk: SimDisk,
    options: Options,
    durability: Durability,
    db: Db,
    /// Length of the values, and how many there are.
    len: usize,
    count: u64,
    what: String,
}

impl Full {
    const CAPACITY: u64 = 3 << 20;

    fn new(segment: u64, durability: Durability, len: usize) -> Full {
        let disk = SimDisk::new(SimOptions::default());
        let options = Options::new().durability(durability).segment_bytes(segment);
        let db = open(&disk, options.clone());
        disk.set_capacity(Some(Full::CAPACITY));
        let count = fill(&db, "first", len);
        let what = format!("{segment} {durability:?} {len}: {count} puts");
        eprintln!("{what}");
        Full {
            disk,
            options,
            durability,
            db,
            len,
            count,
            what,
        }
    }

    /// Small and large segments, each durability, short and long values.
    fn all() -> impl Iterator<Item = Full> {
        let stores = [
            (64 << 10, Durability::Sync),
            (4 << 20, Durability::Sync),
            (64 << 10, Durability::Flushed),
            (1 << 20, lazy()),
        ];
        let each = |(segment, durability)| [10, 3000, 50_000].map(|len| (segment, durability, len));
        let each = stores.into_iter().flat_map(each);
        each.map(|(segment, durability, len)| Full::new(segment, durability, len))
    }
}

/// On a disk that changes have filled, where no byte is free, upkeep still has what was kept for it: compactions,
/// a close, an open behind it; and so again and again.
#[test]
fn a_full_disk_can_be_compacted_and_closed() {
    for full in Full::all() {
        let Full {
            disk,
            options,
            db,
            len,
            mut count,
            what,
            ..
        } = full;
        assert!(db.stats().allocated_bytes > 2 << 20, "{what}");
        for n in 1..=6u64 {
            db.compact(n).expect(&what);
        }
        db.close().expect(&what);
        for again in 0..5u64 {
            let db = open(&disk, options.clone());
            count += fill(&db, &format!("again {again}"), len);
            db.compact(7 + again).expect(&what);
            assert_eq!(db.read().unwrap().range(..).count().unwrap(), count);
            assert!(db.check().unwrap().is_clean(), "{what}");
            db.close().expect(&what);
        }
        disk.set_capacity(None);
        let db = open(&disk, options.clone());
        assert!(db.recovery().clean, "{what}");
        db.put("after", "1").unwrap();
    }
}

/// The same after a kill: what was kept is in the file, and recovery finds it.
#[test]
fn a_full_disk_can_be_recovered() {
    for full in Full::all() {
        let Full {
            mut disk,
            options,
            durability,
            mut db,
            len,
            mut count,
            what,
        } = full;
        for round in 0..2u64 {
            // What is not written is lost by a kill.
            if matches!(durability, Durability::Batched { .. }) {
                db.sync().expect(&what);
            }
            let killed = disk.kill(disk.operations());
            killed.set_capacity(Some(Full::CAPACITY));
            drop(db);
            db = open(&killed, options.clone());
            assert_eq!(
                db.read().unwrap().range(..).count().unwrap(),
                count,
                "{what}"
            );
            assert!(!db.recovery().clean, "{what}");
            db.compact(round + 1).expect(&what);
            count += fill(&db, &format!("round {round}"), len);
            disk = killed;
        }
        db.close().expect(&what);
    }
}

fn lazy() -> Durability {
    Durability::Batched {
        changes: u32::MAX,
        interval: Duration::from_secs(100_000),
    }
}

/// Free segments are room for writes, also where the file has reached its limit.
#[test]
fn a_store_with_free_segments_is_not_full() {
    const MAX: u64 = 1 << 20;
    let disk = SimDisk::new(SimOptions::default());
    let options = || {
        let options = Options::new().durability(lazy()).segment_bytes(64 << 10);
        options.store_bytes_max(MAX)
    };
    let db = open(&disk, options());
    fill_to(&db, 50);
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
    let options = |max| {
        let options = Options::new().durability(lazy()).segment_bytes(SEGMENT);
        options.store_bytes_max(max)
    };
    let db = open(&disk, options(1 << 20));
    fill_to(&db, 50);
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

/// A reader process may look at what the newest checkpoint no longer names: free segments are used when it has
/// gone, and not before.
#[test]
fn no_free_segment_is_used_beside_a_reader() {
    let disk = SimDisk::new(SimOptions::default());
    let options = || Options::new().durability(lazy()).segment_bytes(64 << 10);
    let db = open(&disk, options());
    fill_to(&db, 50);
    let killed = disk.kill(disk.operations());
    drop(db);
    open(&killed, options()).close().unwrap();
    let reader = open(&killed, options().read_only());
    let db = open(&killed, options());
    let free = db.stats().free_bytes;
    assert!(free > 0, "nothing is free");
    fill_to(&db, 30);
    assert_eq!(db.stats().free_bytes, free);
    drop(reader);
    fill_to(&db, 30);
    assert!(db.stats().free_bytes < free);
}

/// No write makes the file longer: its blocks were asked for before (C-4), by commits, checkpoints and recovery.
#[test]
fn no_write_extends_the_file() {
    let disk = SimDisk::new(SimOptions::default());
    let options = || Options::new().segment_bytes(64 << 10);
    let values = |db: &Db| {
        for (n, len) in (0u64..).zip([10, 3000, 70_000, 20_000, 200_000, 10, 40_000, 50_000]) {
            db.put(format!("{len}"), vec![0; len]).unwrap();
            if n % 3 == 0 {
                db.compact(db.rev()).unwrap();
            }
        }
    };
    let db = open(&disk, options());
    values(&db);
    let killed = disk.kill(disk.operations());
    db.close().unwrap();
    values(&open(&disk, options()));
    let db = open(&killed, options());
    values(&db);
    let again = killed.kill(killed.operations());
    drop(db);
    open(&again, options()).close().unwrap();
    for disk in [disk, killed, again] {
        let mut writes = 0;
        for number in 1..=disk.operations() {
            let what = disk.describe(number).unwrap();
            let Some(rest) = what.strip_prefix("write ") else {
                continue;
            };
            let mut words = rest.split(' ');
            let bytes: u64 = words.next().unwrap().parse().unwrap();
            let at: u64 = words.nth(2).unwrap().parse().unwrap();
            let before = disk.kill(number - 1);
            // A store gets its name with its slots in place.
            if let Some(file) = before.bytes(Path::new("store")) {
                assert!(at + bytes <= file.len() as u64, "{what} of {}", file.len());
                writes += 1;
            }
        }
        assert!(writes > 4);
    }
}

/// Small groups write zeros ahead into blocks that were never written (C-32): a few times a segment, in each segment.
#[test]
fn zeros_are_written_ahead_of_small_groups() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new().segment_bytes(1 << 20));
    for n in 0..700 {
        db.put(format!("{n}"), "1").unwrap();
    }
    // An eighth of a segment at once.
    let zeros = (1..=disk.operations()).filter(|number| {
        let what = disk.describe(*number).unwrap();
        what.starts_with("write 131072 bytes")
    });
    let zeros = zeros.count();
    assert!((17..=24).contains(&zeros), "{zeros} times");
}

/// What is kept grows with the leaves that no checkpoint has: each small commit is one, and a page's entry at the close.
#[test]
fn the_pages_of_many_leaves_fit_a_full_disk() {
    let disk = SimDisk::new(SimOptions::default());
    let options = || {
        let options = Options::new().durability(Durability::Flushed);
        options.segment_bytes(64 << 10)
    };
    let db = open(&disk, options());
    disk.set_capacity(Some(2 * Full::CAPACITY));
    let mut count = 0_u64;
    let full = loop {
        match db.put(count.to_be_bytes(), "1") {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        // No sync but the newest two leaves anything to be copied.
        if count.is_multiple_of(100) {
            db.sync().unwrap();
        }
    };
    assert!(matches!(full, Error::NoSpace { .. }), "{full}");
    assert!(count > 12_000, "{count} leaves");
    db.close().unwrap();
    disk.set_capacity(None);
    let db = open(&disk, options());
    assert!(db.recovery().clean);
    assert_eq!(db.read().unwrap().range(..).count().unwrap(), count);
}
