//! Two activities at one moment that a test chooses: the sync of a commit and that of a checkpoint, a
//! commit and somebody else's sync, an open beside a recovery, a close, a check.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use revtree::storage::sim::{Call as SimCall, FaultPlan, Mask, SimDisk, SimOptions};
use revtree::storage::{LockByte, LockMode};
use revtree::{Create, Db, Durability, Error, Options, Submitted};

use super::gate::PATIENCE;
use super::hooks::{Call, HookDisk, Stage, on};

/// Long enough for a thread to come where it can come.
const A_WHILE: Duration = Duration::from_millis(300);

fn options(disk: &HookDisk) -> Options {
    Options::new().disk(Arc::new(disk.clone()))
}

fn named<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::Builder::new().name(name.into()).spawn(run).unwrap()
}

/// The disk, on which the first sync by the thread of this name reaches stage 1, waits for 2, and does `then`.
fn sync_waits(
    disk: &SimDisk,
    stage: &Stage,
    name: &'static str,
    patience: Duration,
    then: impl Fn() + Send + Sync + 'static,
) -> HookDisk {
    let stage = stage.clone();
    HookDisk::new(disk, move |call| {
        if matches!(call, Call::SyncBegins) && on(name) && stage.reach(1) {
            stage.wait(2, patience);
            then();
        }
    })
}

/// A store with a commit whose sync waits, as [`sync_waits`] says, and one that is accepted meanwhile; the sync goes on.
fn two_commits(
    hooked: &HookDisk,
    stage: &Stage,
) -> (Db, thread::JoinHandle<revtree::Result<()>>, Submitted) {
    let db = options(hooked).open("store").unwrap();
    let putting = db.clone();
    let first = named("first", move || putting.put("a", "1").map(|_| ()));
    stage.wait(1, PATIENCE);
    let mut txn = db.write().unwrap();
    txn.put("b", "2").unwrap();
    let second = txn.submit().unwrap();
    stage.reach(2);
    (db, first, second)
}

/// The disk after a power cut that loses whatever it may.
fn after_power_cut(disk: &SimDisk) -> SimDisk {
    disk.image(disk.operations(), &mut Mask::new(Vec::new(), true, true))
}

/// The kernel tells of a page that it could not write once for each open file, to whoever syncs it
/// first. A commit whose own sync says yes beside a checkpoint's that says no may be lost.
#[test]
fn no_commit_is_acknowledged_beside_a_failed_sync_of_a_checkpoint() {
    let disk = SimDisk::new(SimOptions::default());
    let stage = Stage::default();
    let hooked = {
        let (disk, stage) = (disk.clone(), stage.clone());
        HookDisk::new(&disk.clone(), move |call| match call {
            Call::WriteBegins(offset)
                if on("checkpoint") && offset < 16 << 10 && stage.reach(1) =>
            {
                stage.wait(2, PATIENCE);
            }
            Call::SyncBegins if on("commit") => {
                stage.reach(2);
                stage.wait(3, A_WHILE);
            }
            Call::SyncBegins if on("checkpoint") && stage.has(2) => {
                disk.fail(FaultPlan::once(SimCall::SyncData, 1, 5));
            }
            Call::SyncEnded if on("checkpoint") && stage.has(2) => {
                stage.reach(3);
            }
            _ => {}
        })
    };
    let db = options(&hooked).checkpoint_bytes(1).open("store").unwrap();
    db.put("a", "1").unwrap();
    let first = db.clone();
    let checkpoint = named("checkpoint", move || first.put("a", "2").map(|_| ()));
    stage.wait(1, PATIENCE);
    let second = db.clone();
    let commit = named("commit", move || second.put("b", "2").map(|_| ()));
    checkpoint.join().unwrap().unwrap();
    let acknowledged = commit.join().unwrap().is_ok();
    assert!(matches!(db.put("c", "3"), Err(Error::Poisoned { .. })));
    let image = after_power_cut(&disk);
    let db = Options::new().disk(Arc::new(image)).open("store").unwrap();
    let kept = db.get("b").unwrap().is_some();
    assert!(kept || !acknowledged, "an acknowledged commit is lost");
}

/// While a checkpoint is written, the leaves that it will adopt lie beside those of later commits: a walk over changes
/// meets both, from either end, and what is in pages already.
#[test]
fn changes_beside_a_checkpoint_from_both_ends() {
    let disk = SimDisk::new(SimOptions::default());
    let stage = Stage::default();
    let hooked = {
        let stage = stage.clone();
        HookDisk::new(&disk, move |call| match call {
            Call::WriteBegins(offset)
                if on("checkpoint") && offset < 16 << 10 && stage.reach(1) =>
            {
                stage.wait(2, PATIENCE);
            }
            _ => {}
        })
    };
    let db = options(&hooked).checkpoint_bytes(1).open("store").unwrap();
    for n in 0..3 {
        db.put("a", n.to_string()).unwrap();
    }
    let check = |last: u64| {
        let view = db.read().unwrap();
        assert_eq!(view.rev().get(), last);
        for first in 2..=last {
            let changes = || {
                let changes = view.changes(.., revtree::Revision::new(first)..=view.rev());
                let revision =
                    |event: revtree::Result<revtree::Event>| event.unwrap().id.main.get();
                changes.unwrap().map(revision)
            };
            assert_eq!(changes().collect::<Vec<_>>(), Vec::from_iter(first..=last));
            let back: Vec<u64> = changes().rev().collect();
            assert_eq!(back, Vec::from_iter((first..=last).rev()));
        }
    };
    check(4);
    let putting = db.clone();
    let checkpoint = named("checkpoint", move || putting.put("b", "1").map(|_| ()));
    stage.wait(1, PATIENCE);
    check(5);
    for last in 6..9 {
        db.put("c", "1").unwrap();
        check(last);
    }
    stage.reach(2);
    checkpoint.join().unwrap().unwrap();
    check(8);
}

/// A commit whose write failed is not shown by a sync that was in flight meanwhile.
#[test]
fn what_could_not_be_written_is_not_shown() {
    let disk = SimDisk::new(SimOptions::default());
    let stage = Stage::default();
    let hooked = sync_waits(&disk, &stage, "sync", PATIENCE, || ());
    let flushed = options(&hooked).durability(Durability::Flushed);
    let db = flushed.open("store").unwrap();
    db.put("a", "1").unwrap();
    let syncing = db.clone();
    let sync = named("sync", move || syncing.sync().map(|_| ()));
    stage.wait(1, PATIENCE);
    disk.fail(FaultPlan::once(SimCall::WriteAt, 1, 5));
    let failed = db.put("a", "2");
    stage.reach(2);
    // What it covered had been written, and is durable.
    sync.join().unwrap().unwrap();
    assert!(matches!(failed, Err(Error::CommitUnknown { .. })));
    assert_eq!(db.get("a").unwrap().unwrap().value, "1");
    assert_eq!((db.rev().get(), db.durable_rev().get()), (2, 2));
}

/// Who is told that a revision is compacted sees that from then on: the compaction that was before has happened.
#[test]
fn a_compaction_is_refused_only_for_one_that_has_happened() {
    let disk = SimDisk::new(SimOptions::default());
    let stage = Stage::default();
    let hooked = sync_waits(&disk, &stage, "first", A_WHILE, || ());
    let db = options(&hooked).open("store").unwrap();
    db.put("a", "1").unwrap();
    db.put("a", "2").unwrap();
    let compacting = db.clone();
    let first = named("first", move || compacting.compact(3).map(|_| ()));
    stage.wait(1, PATIENCE);
    let refused = db.compact(3);
    let seen = db.read_at(2);
    let image = after_power_cut(&disk);
    stage.reach(2);
    first.join().unwrap().unwrap();
    assert!(matches!(refused, Err(Error::Compacted { .. })));
    assert!(matches!(seen, Err(Error::Compacted { .. })), "{seen:?}");
    let db = Options::new().disk(Arc::new(image)).open("store").unwrap();
    assert_eq!(db.compact_rev().map(revtree::Revision::get), Some(3));
}

/// A sync publishes what it made durable, which is older than what a weaker commit has shown meanwhile.
#[test]
fn what_is_visible_never_goes_back() {
    let disk = SimDisk::new(SimOptions::default());
    let stage = Stage::default();
    let hooked = sync_waits(&disk, &stage, "sync", PATIENCE, || ());
    let batched = Durability::Batched {
        changes: 1000,
        interval: Duration::from_secs(3600),
    };
    let db = options(&hooked).durability(batched).open("store").unwrap();
    db.put("a", "1").unwrap();
    let syncing = db.clone();
    let sync = named("sync", move || syncing.sync().map(|_| ()));
    stage.wait(1, PATIENCE);
    let mut txn = db.write_at_index(7).unwrap().unwrap();
    txn.put("b", "2").unwrap();
    txn.table("t").unwrap().put(b"k", b"v").unwrap();
    txn.commit().unwrap();
    assert_eq!(db.consistent_index().index, 7);
    let mut txn = db.write().unwrap();
    txn.require_sync();
    txn.put("c", "3").unwrap();
    let submitted = txn.submit().unwrap();
    stage.reach(2);
    sync.join().unwrap().unwrap();
    assert_eq!(db.consistent_index().index, 7);
    let view = db.read().unwrap();
    assert_eq!(view.rev().get(), 3);
    assert_eq!(
        view.table("t").get(b"k").unwrap().as_deref(),
        Some(&b"v"[..])
    );
    submitted.wait().unwrap();
    assert_eq!(db.rev().get(), 4);
    assert_eq!(db.consistent_index().index, 7);
}

/// A commit that is accepted while the sync of another is in flight is not covered by it: it is seen when its own
/// sync has ended, and not before (C-8).
#[test]
fn a_commit_behind_a_sync_in_flight_is_not_shown_by_it() {
    let disk = SimDisk::new(SimOptions::default());
    let stage = Stage::default();
    let hooked = sync_waits(&disk, &stage, "first", PATIENCE, || ());
    let (db, first, second) = two_commits(&hooked, &stage);
    first.join().unwrap().unwrap();
    assert_eq!((db.rev().get(), db.durable_rev().get()), (2, 2));
    assert!(db.get("b").unwrap().is_none());
    assert_eq!(second.wait().unwrap().revision, db.rev());
    assert_eq!(db.rev().get(), 3);
}

/// A commit that gathered behind a sync that then failed is told so, and nothing of it is written any more: what is
/// on disk before it is not known (C-11).
#[test]
fn nothing_is_written_behind_a_failed_sync() {
    let disk = SimDisk::new(SimOptions::default());
    let stage = Stage::default();
    let failing = disk.clone();
    let hooked = sync_waits(&disk, &stage, "first", PATIENCE, move || {
        failing.fail(FaultPlan::once(SimCall::SyncData, 1, 5));
    });
    let (db, first, second) = two_commits(&hooked, &stage);
    let failed = first.join().unwrap();
    assert!(matches!(failed, Err(Error::CommitUnknown { .. })));
    let before = disk.operations();
    let failed = second.wait();
    assert!(
        matches!(failed, Err(Error::CommitUnknown { .. })),
        "{failed:?}"
    );
    drop(db);
    assert_eq!(disk.operations(), before);
}

/// After a failed sync frames look right that are not on disk, and no sync helps them. A writer that is
/// about to copy them does not vouch for them yet.
#[test]
fn a_reader_shows_nothing_in_doubt_beside_a_recovery() {
    let disk = SimDisk::new(SimOptions::default());
    let plain = HookDisk::new(&disk, |_| {});
    let db = options(&plain).open("store").unwrap();
    db.put("a", "1").unwrap();
    disk.fail(FaultPlan::once(SimCall::SyncData, 1, 5));
    assert!(matches!(db.put("b", "2"), Err(Error::CommitUnknown { .. })));
    drop(db);
    let stage = Stage::default();
    let syncs = AtomicU32::new(0);
    let hooked = {
        let stage = stage.clone();
        HookDisk::new(&disk, move |call| {
            // Two for the refresh; the third one is the copy's.
            if matches!(call, Call::SyncBegins)
                && on("recovery")
                && syncs.fetch_add(1, Ordering::Relaxed) == 2
            {
                stage.reach(1);
                stage.wait(2, PATIENCE);
            }
        })
    };
    let recovering = hooked.clone();
    let recovery = named("recovery", move || options(&recovering).open("store"));
    stage.wait(1, PATIENCE);
    let reader = options(&hooked).read_only().open("store").unwrap();
    let image = after_power_cut(&disk);
    let after = Options::new().disk(Arc::new(image)).open("store").unwrap();
    assert!(
        reader.rev() <= after.rev(),
        "shown {}, kept {}",
        reader.rev(),
        after.rev()
    );
    stage.reach(2);
    assert_eq!(recovery.join().unwrap().unwrap().rev().get(), 3);
    drop(reader);
    let reader = options(&plain).read_only().open("store").unwrap();
    assert_eq!(reader.rev().get(), 3);
}

/// A reader looks whether a writer lives by trying to lock a byte; a writer that opens at this moment
/// gets the byte all the same.
#[test]
fn a_reader_that_looks_does_not_unmark_the_writer() {
    let disk = SimDisk::new(SimOptions::default());
    let plain = HookDisk::new(&disk, |_| {});
    options(&plain).open("store").unwrap().close().unwrap();
    let stage = Stage::default();
    let hooked = {
        let stage = stage.clone();
        HookDisk::new(&disk, move |call| match call {
            Call::LockEnded(LockByte::WriterAlive, LockMode::Shared, true)
                if on("reader") && stage.reach(1) =>
            {
                stage.wait(2, PATIENCE);
            }
            Call::LockEnded(LockByte::WriterAlive, LockMode::Exclusive, _) => {
                stage.reach(2);
            }
            _ => {}
        })
    };
    let opening = hooked.clone();
    let reader = named("reader", move || {
        options(&opening).read_only().open("store")
    });
    stage.wait(1, PATIENCE);
    let db = options(&hooked).open("store").unwrap();
    drop(reader.join().unwrap().unwrap());
    db.put("a", "1").unwrap();
    let reader = options(&hooked).read_only().open("store").unwrap();
    assert_eq!(reader.rev(), db.rev());
}

/// The same with the byte by which a writer asks whether it may use space again: a reader waits.
#[test]
fn a_writer_that_asks_for_readers_refuses_none() {
    let disk = SimDisk::new(SimOptions::default());
    let plain = HookDisk::new(&disk, |_| {});
    let db = options(&plain).open("store").unwrap();
    db.put("a", "1").unwrap();
    let stage = Stage::default();
    let hooked = {
        let stage = stage.clone();
        HookDisk::new(&disk, move |call| {
            if let Call::LockEnded(LockByte::Readers, LockMode::Shared, false) = call {
                stage.reach(1);
            }
        })
    };
    let byte = {
        use revtree::storage::{Access, Disk};
        disk.open(Path::new("store"), Access::ReadWrite).unwrap()
    };
    assert!(
        byte.try_lock_byte(LockByte::Readers, LockMode::Exclusive)
            .unwrap()
    );
    let reader = named("reader", move || {
        options(&hooked)
            .read_only()
            .open("store")
            .map(|db| db.rev())
    });
    stage.wait(1, PATIENCE);
    byte.unlock_byte(LockByte::Readers).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), db.rev());
}

/// The file is not cut under a reader that has asked for its length and not read it yet.
#[test]
fn a_close_beside_a_reader_that_opens() {
    let disk = SimDisk::new(SimOptions::default());
    let plain = HookDisk::new(&disk, |_| {});
    let db = options(&plain).open("store").unwrap();
    db.put("a", "1").unwrap();
    let lens = AtomicU32::new(0);
    let writer = Mutex::new(Some(db));
    let hooked = HookDisk::new(&disk, move |call| {
        // The first is asked for the slots, the second for the walk.
        if matches!(call, Call::LenEnded) && lens.fetch_add(1, Ordering::Relaxed) == 1 {
            let db = writer.lock().unwrap().take();
            db.map_or(Ok(()), Db::close).unwrap();
        }
    });
    let reader = options(&hooked).read_only().open("store").unwrap();
    assert_eq!(reader.rev().get(), 2);
}

/// A check takes nothing for damage because commits go on while it looks for the log's end.
#[test]
fn a_check_beside_commits() {
    let disk = SimDisk::new(SimOptions::default());
    let writer: Arc<OnceLock<Db>> = Arc::default();
    let done = AtomicBool::new(false);
    let hooked = {
        let writer = Arc::clone(&writer);
        HookDisk::new(&disk, move |call| {
            let Call::ReadEnded(16384.., bytes) = call else {
                return;
            };
            // The place of the next frame.
            if bytes.len() == 64
                && bytes[..8] == [0; 8]
                && let Some(db) = writer.get()
                && !done.swap(true, Ordering::Relaxed)
            {
                db.put("b", "2").unwrap();
                db.put("c", "3").unwrap();
            }
        })
    };
    let db = options(&hooked).open("store").unwrap();
    db.put("a", "1").unwrap();
    writer.set(db.clone()).unwrap();
    let report = db.check().unwrap();
    assert_eq!(db.rev().get(), 4, "the check met the commits");
    assert!(report.is_clean(), "{:?}", report.damage);
}

/// Who wants a new store does not get one that somebody else has made meanwhile.
#[test]
fn a_new_store_is_one_s_own() {
    let disk = SimDisk::new(SimOptions::default());
    let plain = HookDisk::new(&disk, |_| {});
    let hooked = HookDisk::new(&disk, move |call| {
        if matches!(call, Call::RenameNewBegins) {
            let other = options(&plain).open("store").unwrap();
            other.put("a", "1").unwrap();
            other.close().unwrap();
        }
    });
    let opened = options(&hooked).create(Create::New).open("store");
    let Err(Error::Io { cause, .. }) = opened else {
        panic!("opened somebody else's store as a new one");
    };
    assert_eq!(cause.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(disk.paths(), [Path::new("store")]);
    let db = options(&hooked).open("store").unwrap();
    assert_eq!(db.rev().get(), 2);
}
