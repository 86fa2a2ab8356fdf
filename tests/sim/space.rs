//! What is left on a disk or in a store is used before a write is refused, and what is kept for upkeep suffices.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revtree::storage::sim::{Mask, SimDisk, SimOptions};
use revtree::storage::{Access, Disk, LockByte, LockMode};
use revtree::{Db, Durability, Error, Options};

use crate::recovery::Garbage;

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

/// What the store takes on its disk, and some more bytes, are all that there is. How much that is.
fn leave(disk: &SimDisk, more: u64) -> u64 {
    let store = disk.open(Path::new("store"), Access::ReadOnly).unwrap();
    let capacity = store.allocated_bytes().unwrap() + more;
    disk.set_capacity(Some(capacity));
    capacity
}

/// All that is in the store, which is sound.
fn count(db: &Db) -> u64 {
    assert!(db.check().unwrap().is_clean());
    db.read().unwrap().range(..).count().unwrap()
}

/// A disk with a store in which most segments are free: what no sync had covered was written again at its end.
fn with_free_segments(segment: u64, puts: u64) -> SimDisk {
    let disk = SimDisk::new(SimOptions::default());
    let options = || Options::new().durability(lazy()).segment_bytes(segment);
    let db = open(&disk, options());
    fill_to(&db, puts);
    let killed = disk.kill(disk.operations());
    drop(db);
    open(&killed, options()).close().unwrap();
    killed
}

/// C-6: what the writer had kept is there for recovery whatever else the disk has left: a few blocks that are enough
/// for a fresh segment, and not for the copy. Killed again and again, also inside recovery, which may have cut
/// the file (C-4), nothing is lost.
#[test]
fn a_full_disk_with_a_little_left_can_be_recovered() {
    for left in (16..=60).step_by(4).map(|kib| kib << 10) {
        for (segment, durability) in [
            (64 << 10, Durability::Sync),
            (256 << 10, Durability::Flushed),
            (4 << 20, Durability::Sync),
        ] {
            let full = Full::new(segment, durability, 3000);
            let what = format!("{}, {left} bytes left", full.what);
            let killed = full.disk.kill(full.disk.operations());
            let capacity = leave(&killed, left);
            drop(full.db);
            let before = killed.operations();
            let options = || full.options.clone().disk(Arc::new(killed.clone()));
            let db = options().open("store").expect(&what);
            assert!(!db.recovery().clean, "{what}");
            assert_eq!(count(&db), full.count, "{what}");
            let file_bytes = db.stats().file_bytes;
            let len = killed.bytes(Path::new("store")).unwrap().len() as u64;
            assert_eq!(file_bytes, len, "{what}");
            let after = killed.operations();
            drop(db);
            if left != 32 << 10 {
                continue;
            }
            let lost = || Mask::new(Vec::new(), false, false);
            let kept = || Mask::new(Vec::new(), true, true);
            for operation in before..=after {
                let what = format!("{what}, operation {operation} of {before}..={after}");
                let images = [
                    killed.kill(operation),
                    killed.image(operation, &mut lost()),
                    killed.image(operation, &mut kept()),
                    killed.image(operation, &mut Garbage),
                ];
                for (n, image) in images.into_iter().enumerate() {
                    image.set_capacity(Some(capacity));
                    let options = full.options.clone().disk(Arc::new(image));
                    let db = options.open("store").expect(&what);
                    // A power cut takes what was never synced.
                    let least = if n == 0 || durability == Durability::Sync {
                        full.count
                    } else {
                        0
                    };
                    assert!(count(&db) >= least, "{what}, image {n}");
                    db.compact(db.rev()).expect(&what);
                    db.close().expect(&what);
                }
            }
        }
    }
}

/// C-6: below the limit of the store, too, compactions leave room for a close.
#[test]
fn compactions_of_a_full_store_leave_room_for_its_close() {
    let disk = SimDisk::new(SimOptions::default());
    let options = || {
        Options::new()
            .segment_bytes(64 << 10)
            .store_bytes_max(1 << 20)
    };
    let db = open(&disk, options());
    let mut puts = 0;
    let error = loop {
        match db.put(format!("k{puts}"), vec![0; 10]) {
            Ok(_) => puts += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::StoreFull { .. }), "{error}");
    let mut compactions = 0;
    while db.compact(compactions + 1).is_ok() {
        compactions += 1;
    }
    eprintln!("{puts} puts, {compactions} compactions");
    assert!(compactions >= 16, "{compactions}");
    db.close().unwrap();
    let db = open(&disk, options());
    assert!(db.recovery().clean);
    assert_eq!(count(&db), puts);
    db.close().unwrap();
}

/// C-6: a free segment with holes that the disk cannot fill does not keep the others from being used.
#[test]
fn a_hole_that_cannot_be_filled_hides_no_free_segment() {
    const SEGMENT: u64 = 64 << 10;
    let disk = with_free_segments(SEGMENT, 200);
    let options = || Options::new().segment_bytes(SEGMENT);
    let free = open(&disk, options()).stats().free_bytes;
    assert!(free > 20 * SEGMENT, "{free} bytes are free");
    let store = disk.open(Path::new("store"), Access::ReadWrite).unwrap();
    // The nearest, which is taken first; the first of all holds the head of before.
    store.punch(SEGMENT, SEGMENT).unwrap();
    drop(store);
    leave(&disk, 20 << 10);
    let db = open(&disk, options());
    let known = count(&db);
    let more = fill(&db, "more", 3000);
    // But for that one, the ends of the others, and what is kept.
    assert!(more * 4096 > free / 2, "{more} puts into {free} bytes");
    assert_eq!(count(&db), known + more);
    db.close().unwrap();
}

/// C-6: recovery goes on in another segment. What is left of one in the middle of the file cannot be cut off for it.
#[test]
fn what_a_segment_in_the_middle_has_left_is_not_kept_for_recovery() {
    const SEGMENT: u64 = 1 << 20;
    let disk = with_free_segments(SEGMENT, 700);
    // Enough for the last segment to be filled, behind which there are those in the middle.
    let len = disk.bytes(Path::new("store")).unwrap().len() as u64;
    leave(&disk, len.next_multiple_of(SEGMENT) - len);
    let db = open(&disk, Options::new());
    let (known, free) = (count(&db), db.stats().free_bytes);
    let more = fill(&db, "more", 3000);
    // But for what is kept for the cleaner.
    let free = free - 2 * SEGMENT;
    assert!(more * 3000 > free / 3, "{more} puts into {free} bytes");
    // What the close gives back goes to others; in the segment there is room.
    db.close().unwrap();
    leave(&disk, 0);
    let db = open(&disk, Options::new());
    let more = more + fill(&db, "again", 3000);
    let killed = disk.kill(disk.operations());
    drop(db);
    leave(&killed, 0);
    let db = open(&killed, Options::new());
    assert_eq!(count(&db), known + more);
    db.compact(db.rev()).unwrap();
    db.close().unwrap();
}

/// C-6: a value that is longer than a segment is copied to the end of the file, whatever is free in it.
#[test]
fn free_segments_are_no_room_for_the_copy_of_a_long_value() {
    const SEGMENT: u64 = 64 << 10;
    let disk = with_free_segments(SEGMENT, 400);
    leave(&disk, 2 << 20);
    let options = || {
        let options = Options::new().durability(Durability::Flushed);
        options.segment_bytes(SEGMENT)
    };
    let db = open(&disk, options());
    let known = count(&db);
    let more = fill(&db, "more", 100_000);
    assert!(more > 2, "{more} puts");
    let killed = disk.kill(disk.operations());
    drop(db);
    leave(&killed, 0);
    let db = open(&killed, options());
    assert!(!db.recovery().clean);
    assert_eq!(count(&db), known + more);
    db.compact(db.rev()).unwrap();
    db.close().unwrap();
}

/// C-6: records are no rows of side tables. A large one asks for itself and what is kept for its copy.
#[test]
fn a_large_change_asks_for_no_more_than_its_copy() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new());
    db.put("a", "1").unwrap();
    disk.set_capacity(Some(34 << 20));
    db.put("large", vec![1; 8 << 20]).unwrap();
    let mut txn = db.write().unwrap();
    txn.table("t")
        .unwrap()
        .put(b"row", &vec![1; 8 << 20])
        .unwrap();
    // As a row it would be written by a checkpoint as well, by two at the worst.
    let error = txn.commit().unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    db.close().unwrap();
}

/// C-6: a close that has no room for the key index leaves nothing behind the head, also where the segment table is just
/// long enough for its chunk to find room and its directory none: the next open is a clean one.
#[test]
fn a_close_without_room_for_the_index_leaves_nothing() {
    let options = || Options::new().segment_bytes(64 << 10);
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, options());
    // One in each segment, of which the table has an entry of 16 bytes: a block of them.
    for puts in 1..=256 {
        db.put(format!("k{puts}"), vec![0; 60_000]).unwrap();
        if puts < 240 {
            continue;
        }
        // The checkpoint of a recovery has no index. Behind it the file has no block.
        let killed = disk.kill(disk.operations());
        let recovered = open(&killed, options());
        let ahead = killed.kill(killed.operations());
        drop(recovered);
        let bytes = ahead.bytes(Path::new("store")).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
        let end = end.next_multiple_of(4096);
        for (blocks, is_read) in (0..6).flat_map(|blocks| [(blocks, false), (blocks, true)]) {
            let what = format!("{puts} puts, {blocks} blocks left, read: {is_read}");
            let full = ahead.kill(0);
            full.truncate(Path::new("store"), end).unwrap();
            leave(&full, blocks * 4096);
            let db = open(&full, options());
            // Beside a reader the file is not cut: what is left behind the head stays.
            let reader = full.open(Path::new("store"), Access::ReadOnly).unwrap();
            if is_read {
                let locked = reader.try_lock_byte(LockByte::Readers, LockMode::Shared);
                assert!(locked.unwrap());
            }
            db.close().expect(&what);
            drop(reader);
            let db = open(&full, options());
            assert!(db.recovery().clean, "{what}");
            assert_eq!(db.stats().keys, puts, "{what}");
        }
    }
}

/// C-4: what an open cuts off does not vouch for anything. A large transaction is killed between its frames, which say
/// that what lies before had been synced; who reads then is shown no more than behind a kill inside the recovery.
#[test]
fn a_kill_in_a_recovery_takes_back_nothing_that_was_shown() {
    let disk = SimDisk::new(SimOptions::default());
    let options = || Options::new().segment_bytes(1 << 20);
    let flushed = || options().durability(Durability::Flushed);
    let db = open(&disk, flushed());
    for n in 0..3 {
        db.put(format!("{n}"), "1").unwrap();
        db.sync().unwrap();
    }
    let before = disk.operations();
    let mut txn = db.write().unwrap();
    for n in 0..8 {
        txn.put(format!("long {n}"), vec![7; 100_000]).unwrap();
    }
    txn.commit().unwrap();
    let shown = |disk: &SimDisk| open(disk, options().read_only()).rev();
    let mut vouched = 0;
    for operation in before..disk.operations() {
        let killed = disk.kill(operation);
        let rev = shown(&killed);
        vouched += u64::from(rev.get() == 4 && killed.bytes(Path::new("store")).is_some());
        let begun = killed.operations();
        let recovered = killed.kill(begun);
        drop(open(&recovered, options()));
        for step in begun..=recovered.operations() {
            let again = recovered.kill(step);
            assert!(shown(&again) >= rev, "killed at {operation}, and at {step}");
        }
    }
    assert!(vouched > 0);
}
