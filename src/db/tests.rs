//! Syncs that end without success, and closes beside other work: with the store's own thread over the
//! simulated disk, which the door does not offer.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use revtree_format::IndexLeaf;

use crate::engine::IndexRun;
use crate::error::{Error, Result};
use crate::mvcc::{Commit, Store, Submitted};
use crate::options::{Cleaner, CleanerOptions, Durability, Options};
use crate::stats::Outcome;
use crate::sys::sim::{SimDisk, SimOptions};

/// Wakes a thread, and counts.
struct Unpark {
    thread: Thread,
    calls: AtomicU32,
}

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.thread.unpark();
    }
}

/// Polls until it is ready; fails instead of waiting or being woken for ever.
fn block_on(submitted: Submitted) -> Result<Commit> {
    let unpark = Arc::new(Unpark {
        thread: thread::current(),
        calls: AtomicU32::new(0),
    });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut submitted = pin!(submitted);
    loop {
        let woken = unpark.calls.load(Ordering::Relaxed);
        if let Poll::Ready(result) = submitted.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        assert!(woken < 100, "it is woken for nothing, again and again");
        while unpark.calls.load(Ordering::Relaxed) == woken {
            thread::park_timeout(Duration::from_secs(60));
        }
    }
}

/// A store on a full disk, of which upkeep has taken all, too, up to the end of a segment; and a commit whose
/// group needs another one to end in.
fn without_room() -> (crate::Db, SimDisk, Submitted) {
    for more in 0..20 {
        let disk = SimDisk::new(SimOptions::default());
        disk.set_capacity(Some(10 * SEGMENT));
        let db = small_segments(&disk).open("store").expect("an empty disk");
        let mut txn = db.write().expect("nobody else writes");
        txn.require_sync();
        txn.put("k", "1").expect("a legal value");
        let submitted = txn.submit().expect("there is room for it");
        for len in [16_000 + 32 * more, 4000, 1000, 250, 60, 8] {
            while append_lost(&db, len) {}
        }
        match db.sync() {
            Ok(_) => {}
            Err(Error::NoSpace { .. }) => return (db, disk, submitted),
            Err(other) => panic!("{other}"),
        }
    }
    panic!("nothing fills a segment");
}

const SEGMENT: u64 = 64 << 10;

fn small_segments(disk: &SimDisk) -> Options {
    let mut options = Options::new()
        .disk(Arc::new(disk.clone()))
        .durability(Durability::Flushed)
        .segment_bytes(64 << 10);
    options.threads = true;
    options
}

/// Appends a page that nobody reads; whether there was room.
fn append_lost(db: &crate::Db, len: usize) -> bool {
    match db.store().engine.append_lost_page(len) {
        Ok(()) => true,
        Err(Error::NoSpace { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A segment table that fits no segment begins two with its own frames: the one between it and the head is
/// known to nothing but the chain, so the head stays before them (B-86). Else it would be free for the next
/// changes.
#[test]
fn a_table_of_several_segments() {
    const UNITS: usize = 4050;
    let disk = SimDisk::new(SimOptions::default());
    let db = small_segments(&disk).open("store").expect("an empty disk");
    db.put("k", "1").expect("a legal value");
    // The rest of its segment holds the other pages of a close, and not the table's first chunk.
    append_lost(&db, UNITS * (64 << 10) - 4096 - 128 - 20_000);
    db.close().expect("the disk is whole");
    let changed = |db: &crate::Db| {
        for n in 0..18u8 {
            let record = db.get([n]).expect("readable").expect("it was put");
            assert_eq!(record.value, vec![n; 10_000]);
        }
        assert!(db.check().expect("readable").is_clean());
    };
    let db = small_segments(&disk).open("store").expect("it was closed");
    assert!(db.stats().file_bytes > UNITS as u64 * SEGMENT);
    for n in 0..18u8 {
        db.put([n], vec![n; 10_000]).expect("a legal value");
    }
    changed(&db);
    let killed = disk.kill(disk.operations());
    drop(db);
    changed(&small_segments(&killed).open("store").expect("all is there"));
}

/// Commits in the middle of a checkpoint.
struct Commits<'a>(&'a crate::Db);

impl IndexRun for Commits<'_> {
    fn dump(&self, visit: &mut dyn FnMut(&IndexLeaf) -> Result<()>) -> Result<()> {
        self.0.put("beside", "1")?;
        self.0.store().dump(visit)
    }
}

/// The frames behind a head that stays before a checkpoint's pages are durable with their padding: a file that ends
/// in it has been cut (C-23), and where the padding ends it is whole.
#[test]
fn a_file_cut_in_the_padding_of_its_last_frame() {
    let disk = SimDisk::new(SimOptions::default());
    let db = small_segments(&disk).open("store").expect("an empty disk");
    db.put("k", "1").expect("a legal value");
    let engine = &db.store().engine;
    engine
        .checkpoint(Some(&Commits(&db)))
        .expect("there is room");
    let killed = disk.kill(disk.operations());
    let path = std::path::Path::new("store");
    let bytes = killed.bytes(path).expect("it was made");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("a frame") + 1;
    let whole = end.next_multiple_of(4096);
    // The last frame has a header and no body, and may end with zeros.
    let padding = whole - (end + 64);
    for len in [whole - padding, whole - 1, whole, whole + 1] {
        let cut = SimDisk::new(SimOptions::default());
        cut.put_bytes(path, &bytes[..len]);
        match small_segments(&cut).open("store") {
            Ok(db) => {
                assert!(len >= whole, "{len} of {whole} bytes");
                assert!(db.get("beside").expect("readable").is_some());
            }
            Err(Error::Corrupt { .. }) => assert!(len < whole, "{len} of {whole} bytes"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The error that `wait` gives; there is no room, but nothing is lost.
fn check_refused(result: Result<Commit>) {
    let error = result.expect_err("there is no room");
    assert!(
        matches!(&error, Error::CommitUnknown { revision, cause }
            if revision.get() == 2 && cause.to_string().contains("no space")),
        "{error}"
    );
}

/// A sync that finds no room does not poison: the task that waits for it is told, and does not ask for ever.
#[test]
fn a_task_is_told_of_a_full_disk() {
    let (_db, _disk, submitted) = without_room();
    check_refused(submitted.wait());
    let (db, disk, submitted) = without_room();
    check_refused(block_on(submitted));
    disk.set_capacity(None);
    assert_eq!(db.sync().expect("there is room again").get(), 2);
    assert!(db.get("k").expect("readable").is_some());
}

/// Nor does it after a close that failed, behind which nobody syncs any more; and once there is room, it is
/// what syncs.
#[test]
fn a_task_is_told_of_a_failed_close() {
    let (db, disk, submitted) = without_room();
    db.clone().close().expect_err("there is no room");
    check_refused(block_on(submitted));
    drop((db, disk));
    let (db, disk, submitted) = without_room();
    db.clone().close().expect_err("there is no room");
    disk.set_capacity(None);
    assert!(block_on(submitted).expect("there is room again").durable);
}

/// Looks, during the close's own checkpoint, whether another may begin behind it.
struct Looks<'a> {
    store: &'a Store,
    none_begins: &'a AtomicBool,
}

impl IndexRun for Looks<'_> {
    fn dump(&self, visit: &mut dyn FnMut(&IndexLeaf) -> Result<()>) -> Result<()> {
        // We are inside the close's checkpoint: who asks now may get its turn right behind it.
        let none_begins = self.store.engine.is_retired();
        self.none_begins.store(none_begins, Ordering::SeqCst);
        self.store.dump(visit)
    }
}

/// A thread whose commit is due for a checkpoint does not write one behind that of a close.
#[test]
fn no_checkpoint_is_begun_behind_a_close() {
    let disk = SimDisk::new(SimOptions::default());
    let mut options = Options::new().disk(Arc::new(disk.clone()));
    // Always due.
    options.checkpoint_bytes = 0;
    let db = options.clone().open("store").expect("an empty disk");
    let store = db.store();
    let made = || db.stats().checkpoints;
    let before = made();
    db.put("a", "1").expect("nobody else writes");
    assert!(made() > before, "none was due");
    // Whoever comes while a close goes on, and has not seen its end yet.
    store.engine.retire();
    let before = made();
    store.engine.maintain().expect("the disk is whole");
    assert_eq!(made(), before);
    drop((store, db));

    let db = options.open("store").expect("it was closed");
    db.put("a", "2").expect("nobody else writes");
    let store = db.store();
    let none_begins = AtomicBool::new(false);
    let run = Looks {
        store: &store,
        none_begins: &none_begins,
    };
    store.engine.close(&run).expect("the disk is whole");
    assert!(none_begins.load(Ordering::SeqCst));
}

/// K-11: what has been counted as dead is in the file, with where the count ended, so that an open goes on from there.
#[test]
fn what_is_counted_is_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = || Options::new().segment_bytes(64 << 10);
    // One that counts, and finds nothing worth its while.
    let idle = Cleaner::Paced(CleanerOptions::new().dead_percent(100));
    let db = options().cleaner(idle).open(&path).unwrap();
    for n in 0..2000u32 {
        db.put((n % 50).to_le_bytes(), vec![1; 300]).unwrap();
    }
    let compacted = db.rev();
    assert_eq!(db.compact(compacted).unwrap().wait(), Outcome::Done);
    for n in 0..200u32 {
        db.put((n % 50).to_le_bytes(), vec![2; 300]).unwrap();
    }
    let counted = |db: &crate::Db| {
        let engine = &db.store().engine;
        (engine.counted_dead().unwrap(), engine.used_bytes().unwrap())
    };
    let (up_to, (used, dead)) = counted(&db);
    assert_eq!(up_to, compacted);
    assert!(dead > 1950 * 300 && dead < 1951 * 500, "{dead} of {used}");
    db.close().unwrap();
    for _ in 0..3 {
        let db = options().cleaner(Cleaner::Manual).open(&path).unwrap();
        let (up_to, (used, again)) = counted(&db);
        assert_eq!(up_to, compacted);
        // Of each segment a share: to a byte or two.
        assert!(again.abs_diff(dead) <= 2 * (used >> 16), "{dead} {again}");
        db.close().unwrap();
    }
}
