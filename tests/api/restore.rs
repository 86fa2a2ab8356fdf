//! Restore: another store file takes the place of the content, or nothing changes (SPEC.md, S-7).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use revtree::{Applied, Db, Durability, Error, LeaseId, Lessor, Options};

/// A store at `dir/store` and a saved snapshot of it at `dir/saved`; the store has gone on since.
fn store_and_snapshot(dir: &Path, options: Options) -> (Db, PathBuf) {
    let db = options.open(dir.join("store")).unwrap();
    let mut txn = db.write().unwrap();
    txn.put("a", "saved").unwrap();
    txn.put_with_lease("leased", "saved", LeaseId(5)).unwrap();
    txn.table("raft").unwrap().put(b"row", b"saved").unwrap();
    txn.set_applied(Applied { index: 10, term: 2 });
    txn.commit().unwrap();
    let saved = dir.join("saved");
    db.snapshot().unwrap().save(&saved).unwrap();
    let mut txn = db.write().unwrap();
    txn.put("a", "newer").unwrap();
    txn.put("b", "newer").unwrap();
    txn.table("raft").unwrap().put(b"row", b"newer").unwrap();
    txn.set_applied(Applied { index: 20, term: 3 });
    txn.commit().unwrap();
    (db, saved)
}

fn value(db: &Db, key: &str) -> Option<bytes::Bytes> {
    db.get(key).unwrap().map(|kv| kv.value)
}

fn assert_is_newer(db: &Db) {
    assert_eq!(db.rev().get(), 3);
    assert_eq!(value(db, "a").unwrap(), "newer");
    assert_eq!(db.consistent_index(), Applied { index: 20, term: 3 });
}

#[test]
fn the_handle_goes_over_and_what_was_held_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (db, saved) = store_and_snapshot(dir.path(), Options::new());
    let clone = db.clone();
    let view = db.read().unwrap();
    let shared = view.get("b").unwrap().unwrap().share();
    let snapshot = db.snapshot().unwrap();
    let recovery = db.restore(&saved).unwrap();
    assert!(recovery.clean && !recovery.created);
    assert_eq!(recovery.revision.get(), 2);
    assert_eq!(db.recovery(), recovery);
    assert!(!saved.exists());
    for db in [&db, &clone] {
        assert_eq!(db.rev().get(), 2);
        assert_eq!(value(db, "a").unwrap(), "saved");
        assert_eq!(value(db, "b"), None);
        assert_eq!(db.consistent_index(), Applied { index: 10, term: 2 });
        let row = db.read().unwrap().table("raft").get(b"row").unwrap();
        assert_eq!(row.unwrap(), "saved");
    }
    // The old content.
    assert_eq!(view.get("a").unwrap().unwrap().value(), b"newer");
    assert_eq!(shared.value, "newer");
    let old = dir.path().join("old");
    snapshot.save(&old).unwrap();
    assert_is_newer(&Db::open(&old).unwrap());
    // The new content is written to, by the transaction that the log entry asks for.
    assert!(db.write_at_index(10).unwrap().is_none());
    let mut txn = db.write_at_index(11).unwrap().unwrap();
    txn.put("c", "after").unwrap();
    assert_eq!(txn.commit().unwrap().revision.get(), 3);
    assert_eq!(value(&clone, "c").unwrap(), "after");
    drop((view, shared, snapshot));
    db.close().unwrap();
    assert!(matches!(clone.put("d", ""), Err(Error::Closed)));
    drop(clone);
    let db = Db::open(dir.path().join("store")).unwrap();
    assert!(db.recovery().clean);
    assert_eq!(value(&db, "c").unwrap(), "after");
    assert_eq!(value(&db, "a").unwrap(), "saved");
    assert!(db.check().unwrap().damage.is_empty());
}

#[test]
fn both_files_are_locked_for_as_long_as_they_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let (db, saved) = store_and_snapshot(dir.path(), Options::new());
    let (store, old_name) = (dir.path().join("store"), dir.path().join("old"));
    // A second name of the old file, so that it can be found when its own is gone.
    std::fs::hard_link(&store, &old_name).unwrap();
    let locked = |path: &Path| {
        matches!(
            Db::open(path),
            Err(Error::Locked {
                by_this_process: true,
                ..
            })
        )
    };
    let view = db.read().unwrap();
    db.restore(&saved).unwrap();
    assert!(locked(&store) && locked(&old_name));
    drop(view);
    assert!(locked(&store));
    let old = Db::open(&old_name).unwrap();
    assert_is_newer(&old);
    drop(old);
    drop(db);
    Db::open(&store).unwrap();
}

#[test]
fn an_error_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (db, saved) = store_and_snapshot(dir.path(), Options::new());
    let other = dir.path().join("other");
    assert!(matches!(db.restore(&other), Err(Error::Io { .. })));
    assert!(!other.exists(), "a missing file is not made");
    assert!(matches!(
        db.restore(dir.path()),
        Err(Error::NotAStore { .. })
    ));
    std::fs::write(&other, vec![7; 100_000]).unwrap();
    assert!(matches!(db.restore(&other), Err(Error::NotAStore { .. })));
    let own = db.restore(dir.path().join("store")).unwrap_err();
    assert!(matches!(
        own,
        Error::Locked {
            by_this_process: true,
            ..
        }
    ));
    // A page that an open reads, damaged.
    let mut bytes = std::fs::read(&saved).unwrap();
    let last = bytes.len() - 4096;
    let at = bytes[last..].iter().rposition(|byte| *byte != 0).unwrap() + last;
    for byte in &mut bytes[16_384 + 64..=at] {
        *byte ^= 0x55;
    }
    std::fs::write(&other, &bytes).unwrap();
    assert!(matches!(db.restore(&other), Err(Error::Corrupt { .. })));
    assert!(other.exists());
    let open_elsewhere = Db::open(&saved).unwrap();
    assert!(matches!(db.restore(&saved), Err(Error::Locked { .. })));
    drop(open_elsewhere);
    assert_is_newer(&db);
    db.put("c", "still").unwrap();
    // What was in the way is gone: now it works.
    db.restore(&saved).unwrap();
    assert_eq!(value(&db, "a").unwrap(), "saved");
    assert_eq!(value(&db, "c"), None);
}

#[test]
fn a_handle_for_reading_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let (db, saved) = store_and_snapshot(dir.path(), Options::new());
    db.close().unwrap();
    let db = Options::new()
        .read_only()
        .open(dir.path().join("store"))
        .unwrap();
    assert!(matches!(db.restore(&saved), Err(Error::ReadOnly)));
    assert!(saved.exists());
}

#[test]
fn it_waits_for_the_transaction_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let (db, saved) = store_and_snapshot(dir.path(), Options::new());
    let mut txn = db.write().unwrap();
    txn.put("late", "1").unwrap();
    std::thread::scope(|scope| {
        let restore = scope.spawn(|| db.restore(&saved).unwrap());
        // Whatever the threads do, the commit comes first: it has the turn.
        let commit = txn.commit().unwrap();
        assert_eq!(commit.revision.get(), 4);
        restore.join().unwrap();
    });
    assert_eq!(db.rev().get(), 2);
    assert_eq!(value(&db, "late"), None);
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Lessor for Log {
    fn attach(&self, lease: LeaseId, key: &[u8]) {
        let line = format!("+{} {}", lease.0, key.escape_ascii());
        self.0.lock().unwrap().push(line);
    }

    fn detach(&self, lease: LeaseId, key: &[u8]) {
        let line = format!("-{} {}", lease.0, key.escape_ascii());
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn the_lessor_is_told_of_the_new_contents_leases() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let (db, saved) = store_and_snapshot(dir.path(), Options::new().lessor(log.clone()));
    db.delete("leased").unwrap();
    log.0.lock().unwrap().clear();
    assert!(db.restore(dir.path().join("missing")).is_err());
    assert!(log.0.lock().unwrap().is_empty());
    db.restore(&saved).unwrap();
    assert_eq!(*log.0.lock().unwrap(), ["+5 leased"]);
    db.delete("leased").unwrap();
    assert_eq!(*log.0.lock().unwrap(), ["+5 leased", "-5 leased"]);
}

#[test]
fn under_batched_the_new_content_goes_on_being_synced() {
    let dir = tempfile::tempdir().unwrap();
    let interval = std::time::Duration::from_millis(2);
    let batched = Durability::Batched {
        changes: 3,
        interval,
    };
    let (db, saved) = store_and_snapshot(dir.path(), Options::new().durability(batched));
    for n in 0..20 {
        db.put("old", n.to_string()).unwrap();
    }
    db.restore(&saved).unwrap();
    for n in 0..20 {
        db.put("new", n.to_string()).unwrap();
    }
    assert_eq!(db.sync().unwrap().get(), 22);
    assert_eq!(db.durable_rev().get(), 22);
    db.compact(10).unwrap();
    drop(db);
    let db = Db::open(dir.path().join("store")).unwrap();
    assert_eq!(db.rev().get(), 22);
    assert_eq!(value(&db, "new").unwrap(), "19");
    assert_eq!(value(&db, "old"), None);
}

#[test]
fn a_store_in_memory_saves_and_restores_files() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved");
    let db = Options::new().open_in_memory().unwrap();
    db.put("a", "1").unwrap();
    let mut txn = db.write().unwrap();
    txn.table("t").unwrap().put(b"row", b"1").unwrap();
    txn.set_applied(Applied { index: 4, term: 1 });
    txn.commit().unwrap();
    let len = db.snapshot().unwrap().save(&saved).unwrap();
    assert_eq!(std::fs::metadata(&saved).unwrap().len(), len);
    {
        let copy = Db::open(&saved).unwrap();
        assert_eq!(value(&copy, "a").unwrap(), "1");
        copy.put("a", "by the file").unwrap();
    }
    db.put("a", "2").unwrap();
    let view = db.read().unwrap();
    let recovery = db.restore(&saved).unwrap();
    assert!(recovery.clean && !recovery.created);
    assert!(!saved.exists(), "taken over");
    assert_eq!(value(&db, "a").unwrap(), "by the file");
    assert_eq!(view.get("a").unwrap().unwrap().value(), b"2");
    assert_eq!(db.consistent_index(), Applied { index: 4, term: 1 });
    let row = db.read().unwrap().table("t").get(b"row").unwrap();
    assert_eq!(row.unwrap(), "1");
    // And again: the handle goes on in memory, and leaves nothing in the directory.
    db.put("b", "1").unwrap();
    db.snapshot().unwrap().save(&saved).unwrap();
    db.delete("b").unwrap();
    db.restore(&saved).unwrap();
    assert_eq!(value(&db, "b").unwrap(), "1");
    assert!(db.check().unwrap().is_clean());
    db.close().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_a_store_in_memory_cannot_restore_stays() {
    let dir = tempfile::tempdir().unwrap();
    let [saved, other] = ["saved", "other"].map(|name| dir.path().join(name));
    let options = Options::new().segment_bytes(64 << 10);
    let db = options.open_in_memory().unwrap();
    db.put("a", "saved").unwrap();
    for n in 0..20 {
        db.put("large", vec![n; 60_000]).unwrap();
    }
    db.snapshot().unwrap().save(&saved).unwrap();
    db.put("a", "kept").unwrap();
    assert!(matches!(db.restore(&other), Err(Error::Io { .. })));
    assert!(matches!(
        db.restore(dir.path()),
        Err(Error::NotAStore { .. })
    ));
    std::fs::write(&other, vec![7; 100_000]).unwrap();
    assert!(matches!(db.restore(&other), Err(Error::NotAStore { .. })));
    let mut bytes = std::fs::read(&saved).unwrap();
    {
        let open = Db::open(&saved).unwrap();
        let error = db.restore(&saved).unwrap_err();
        assert!(
            matches!(&error, Error::Locked { path, by_this_process: true } if *path == saved),
            "{error:?}"
        );
        // Nor is it overwritten by a snapshot.
        let error = db.snapshot().unwrap().save(&saved).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Locked {
                    by_this_process: true,
                    ..
                }
            ),
            "{error:?}"
        );
        drop(open);
    }
    // Damage behind the superblock is found when the copy is opened.
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for byte in &mut bytes[16_384 + 64..=last] {
        *byte ^= 0x55;
    }
    std::fs::write(&other, &bytes).unwrap();
    for _ in 0..2 {
        assert!(matches!(db.restore(&other), Err(Error::Corrupt { .. })));
        assert!(other.exists());
        assert_eq!(value(&db, "a").unwrap(), "kept");
    }
    db.put("b", "still").unwrap();
    let small = Options::new().store_bytes_max(64 << 10);
    let small = small.segment_bytes(64 << 10).open_in_memory().unwrap();
    assert!(matches!(
        small.restore(&saved),
        Err(Error::StoreFull { .. })
    ));
    assert!(saved.exists());
    small.put("a", "1").unwrap();
}

/// A store in memory takes a file that is as long as it may itself become, and none that is longer.
#[test]
fn a_file_as_long_as_the_store_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = Options::new().segment_bytes(64 << 10);
    let file = options.clone().open(&path).unwrap();
    file.put("a", "kept").unwrap();
    file.close().unwrap();
    let small = options.store_bytes_max(64 << 10).open_in_memory().unwrap();
    let set_len = |len| {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(len).unwrap();
    };
    set_len(10 << 20);
    let Err(Error::StoreFull { needed, max }) = small.restore(&path) else {
        panic!("it is too long");
    };
    // Eight segments of upkeep, and twice the longest copy that a recovery of so much makes.
    assert_eq!((needed, max), (10 << 20, (1 + 8 + 2) * (64 << 10)));
    set_len(max + 1);
    assert!(small.restore(&path).is_err());
    set_len(max);
    small.restore(&path).unwrap();
    assert_eq!(value(&small, "a").unwrap(), "kept");
}

#[test]
fn a_store_in_memory_recovers_what_it_restores() {
    let dir = tempfile::tempdir().unwrap();
    let [store, copy] = ["store", "copy"].map(|name| dir.path().join(name));
    let file = Db::open(&store).unwrap();
    for n in 0..20 {
        file.put("a", n.to_string()).unwrap();
    }
    std::fs::copy(&store, &copy).unwrap();
    let db = Options::new().open_in_memory().unwrap();
    let recovery = db.restore(&copy).unwrap();
    assert!(!recovery.clean && recovery.frames_replayed > 0);
    assert_eq!(value(&db, "a").unwrap(), "19");
    assert_eq!(db.rev(), file.rev());
}

#[cfg(feature = "unstable-storage")]
#[test]
fn storage_of_ones_own_has_its_own_files() {
    use revtree::storage::sim::{SimDisk, SimOptions};

    let disk = SimDisk::new(SimOptions::default());
    let options = || Options::new().disk(std::sync::Arc::new(disk.clone()));
    for db in [
        options().open("store").unwrap(),
        options().open_in_memory().unwrap(),
    ] {
        db.put("a", "1").unwrap();
        db.snapshot().unwrap().save("saved").unwrap();
        assert!(disk.paths().contains(&Path::new("saved").to_path_buf()));
        assert!(!Path::new("saved").exists());
        db.put("a", "2").unwrap();
        db.restore("saved").unwrap();
        assert_eq!(value(&db, "a").unwrap(), "1");
        assert_eq!(disk.paths(), [Path::new("store")]);
    }
}

#[test]
fn a_store_of_another_identity_can_be_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = store_and_snapshot(dir.path(), Options::new());
    let other = dir.path().join("other");
    {
        let other = Options::new().segment_bytes(64 << 10).open(&other).unwrap();
        for n in 0..500 {
            other.put(format!("{n}"), vec![1; 500]).unwrap();
        }
    }
    db.restore(&other).unwrap();
    assert_eq!(db.rev().get(), 501);
    assert_eq!(db.read().unwrap().range(..).count().unwrap(), 500);
    db.put("a", "1").unwrap();
    drop(db);
    let db = Db::open(dir.path().join("store")).unwrap();
    assert_eq!(db.rev().get(), 502);
}

/// A panic while one lease is told leaves no other untold: the new content is in place with all of them.
#[test]
fn a_panic_in_a_hook_does_not_hide_the_other_leases() {
    #[derive(Default)]
    struct Panics(Log);
    impl Lessor for Panics {
        fn attach(&self, lease: LeaseId, key: &[u8]) {
            self.0.attach(lease, key);
            assert_ne!(key, b"a", "the hook's panic");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved");
    {
        let other = Db::open(&saved).unwrap();
        let mut txn = other.write().unwrap();
        for key in ["a", "b"] {
            txn.put_with_lease(key, "1", LeaseId(1)).unwrap();
        }
        txn.commit().unwrap();
    }
    let log = Arc::new(Panics::default());
    let options = Options::new().lessor(log.clone());
    let db = options.open(dir.path().join("store")).unwrap();
    let restored = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| db.restore(&saved)));
    assert!(restored.is_err());
    assert_eq!(*log.0.0.lock().unwrap(), ["+1 a", "+1 b"]);
    assert_eq!(db.rev().get(), 2);
    assert_eq!(db.put("c", "1").unwrap().get(), 3);
}
