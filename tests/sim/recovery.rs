//! What recovery leaves, by cases that chance meets seldom: two crashes at chosen places, transactions
//! that were cut, numbers at their ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revtree::storage::sim::{
    Call, Choice, FaultPlan, Mask, PendingSector, SimDisk, SimOptions, Survival,
};
use revtree::{Db, Durability, Error, Options};
use revtree_format::{RootKind, SUPERBLOCK_BYTES, Superblock};

const STORE: &str = "store";

fn open(disk: &SimDisk, options: Options) -> revtree::Result<Db> {
    options.disk(Arc::new(disk.clone())).open(STORE)
}

fn after_power_cut(disk: &SimDisk) -> SimDisk {
    disk.image(disk.operations(), &mut Mask::new(Vec::new(), true, true))
}

/// A power cut at the worst moment: whatever was in flight is garbage.
pub(crate) struct Garbage;

impl Choice for Garbage {
    fn sector(&mut self, sector: &PendingSector) -> Survival {
        Survival::Garbage(sector.sector)
    }

    fn length(&mut self, _file: u64, pending: usize) -> usize {
        pending
    }

    fn names(&mut self, pending: usize) -> usize {
        pending
    }
}

/// The operations that wrote a slot.
fn slot_writes(disk: &SimDisk) -> Vec<u64> {
    let writes_slot = |number: &u64| {
        let what = disk.describe(*number).unwrap();
        (0..4).any(|slot| what.starts_with(&format!("write 4096 bytes at {} ", slot * 4096)))
    };
    (1..=disk.operations()).filter(writes_slot).collect()
}

/// The refresh of each open writes one slot of a pair after the other (C-21): a power cut spoils one of
/// them. The next refresh must not begin with the other, the only good one.
#[test]
fn two_crashes_in_the_refresh() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new()).unwrap();
    db.put("a", "1").unwrap();
    let first = after_power_cut(&disk);
    drop(db);
    drop(open(&first, Options::new()).unwrap());
    for first_crash in slot_writes(&first).into_iter().take(2) {
        let second = first.image(first_crash, &mut Garbage);
        drop(open(&second.kill(0), Options::new()).unwrap());
        let reopened = second.kill(0);
        drop(open(&reopened, Options::new()).unwrap());
        for second_crash in slot_writes(&reopened).into_iter().take(2) {
            let third = reopened.image(second_crash, &mut Garbage);
            let db = open(&third, Options::new()).unwrap();
            assert_eq!(db.get("a").unwrap().unwrap().value, "1");
        }
    }
}

/// A transaction that was killed half-way leaves no segment behind (C-31).
#[test]
fn a_cut_transaction_takes_no_space() {
    let options = || {
        Options::new()
            .segment_bytes(64 << 10)
            .durability(Durability::Batched {
                changes: 1_000_000,
                interval: Duration::from_secs(3600),
            })
    };
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, options()).unwrap();
    db.put("a", "1").unwrap();
    db.close().unwrap();
    let db = open(&disk, options()).unwrap();
    let mut txn = db.write().unwrap();
    for n in 0..40_u8 {
        txn.put([n], vec![n; 20_000]).unwrap();
    }
    txn.commit().unwrap();
    let killed = disk.kill(disk.operations());
    drop(db);
    let db = open(&killed, options()).unwrap();
    assert!(db.recovery().clean);
    assert_eq!(db.rev().get(), 2);
    db.put("b", "2").unwrap();
    db.close().unwrap();
    let len = killed.bytes(Path::new(STORE)).unwrap().len();
    assert!(len <= 128 << 10, "{len} bytes for two small keys");
    let db = open(&killed, options()).unwrap();
    assert_eq!(db.get("b").unwrap().unwrap().value, "2");
    assert!(db.check().unwrap().is_clean());
}

/// Control items close frames as records do (B-29): a frame beyond L-16 could not be read again.
#[test]
fn side_tables_are_written_in_frames_of_their_limit() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new()).unwrap();
    let mut txn = db.write().unwrap();
    txn.put("a", "1").unwrap();
    for n in 0..40_u8 {
        let mut table = txn.table("t").unwrap();
        table.put(&[n], &vec![n; 60_000]).unwrap();
    }
    txn.commit().unwrap();
    let bytes = disk.bytes(Path::new(STORE)).unwrap();
    let headers = bytes[16 << 10..].chunks(8).enumerate();
    let frames = headers.filter(|(_, word)| word.starts_with(b"RVFM"));
    let lens: Vec<u32> = frames
        .map(|(n, _)| {
            let len = &bytes[(16 << 10) + n * 8 + 40..][..4];
            u32::from_le_bytes(len.try_into().unwrap())
        })
        .collect();
    assert!(lens.iter().all(|len| *len <= 256 << 10), "{lens:?}");
    let image = after_power_cut(&disk);
    let db = open(&image, Options::new()).unwrap();
    let view = db.read().unwrap();
    assert_eq!(view.table("t").iter().count(), 40);
    // Without its end nothing of it counts, also none of its side tables.
    for number in 1..disk.operations() {
        let killed = disk.kill(number);
        if let Ok(db) = open(&killed, Options::new().create(revtree::Create::Never)) {
            let view = db.read().unwrap();
            let rows = view.table("t").iter().count();
            let keys = view.range(..).count().unwrap();
            assert!([(0, 0), (40, 1)].contains(&(rows, keys)), "{rows} {keys}");
        }
    }
}

/// A frame holds whole transactions: one that does not fit beside the others has the next frame, and is no run (B-29).
#[test]
fn transactions_are_not_cut_where_a_frame_is_full() {
    let disk = SimDisk::new(SimOptions::default());
    let batched = Durability::Batched {
        changes: 1_000_000,
        interval: Duration::from_secs(3600),
    };
    let db = open(&disk, Options::new().durability(batched)).unwrap();
    for _ in 0..8 {
        let mut txn = db.write().unwrap();
        for n in 0..5_u8 {
            txn.put([n], vec![n; 20_000]).unwrap();
        }
        txn.commit().unwrap();
    }
    db.sync().unwrap();
    let bytes = disk.bytes(Path::new(STORE)).unwrap();
    let headers = bytes[16 << 10..].chunks(8).enumerate();
    let frames = headers.filter(|(_, word)| word.starts_with(b"RVFM"));
    let frames: Vec<(u32, u8)> = frames
        .map(|(n, _)| {
            let header = &bytes[(16 << 10) + n * 8..][..64];
            let records = u32::from_le_bytes(header[48..52].try_into().unwrap());
            (records, header[57])
        })
        .collect();
    // Two of a hundred kilobytes in each; the last ends its group.
    assert_eq!(frames, [(10, 0), (10, 0), (10, 0), (10, 1)]);
}

/// A stronger commit keeps a weaker one waiting for as long as it is in flight (C-9), and no longer.
#[test]
fn weaker_commits_do_not_sync_behind_a_durable_one() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new().durability(Durability::Flushed)).unwrap();
    let mut txn = db.write().unwrap();
    txn.require_sync();
    txn.put("a", "1").unwrap();
    assert!(txn.commit().unwrap().durable);
    disk.reset_counts();
    for n in 0..3_u8 {
        db.put([n], [n]).unwrap();
    }
    assert_eq!(db.rev().get(), 5);
    assert_eq!(disk.count(Call::SyncData), 0);
    assert_eq!(db.durable_rev().get(), 2);
}

/// What is mapped is read without a call, by whichever open: after a close, and after a kill of what it left as it was.
/// And replay cuts records into the leaves that the writer had made (B-31).
#[test]
fn an_open_shows_what_is_in_the_file() {
    let options = || Options::new().segment_bytes(64 << 10);
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, options()).unwrap();
    for n in 0..60_u8 {
        let mut txn = db.write().unwrap();
        for m in 0..20_u8 {
            txn.put([n, m], vec![n; 500]).unwrap();
        }
        txn.commit().unwrap();
    }
    let leaves = db.check().unwrap().leaves;
    let read_all = |disk: &SimDisk, db: &Db| {
        let before = disk.bytes_read();
        for n in 0..60_u8 {
            for m in 0..20_u8 {
                assert_eq!(db.get([n, m]).unwrap().unwrap().value, vec![n; 500]);
            }
        }
        disk.bytes_read() - before
    };
    assert_eq!(read_all(&disk, &db), 0);
    let killed = disk.kill(disk.operations());
    db.close().unwrap();
    let db = open(&disk, options()).unwrap();
    assert!(db.recovery().clean);
    assert_eq!(db.check().unwrap().leaves, leaves);
    assert_eq!(read_all(&disk, &db), 0);
    let db = open(&killed, options()).unwrap();
    assert!(!db.recovery().clean);
    assert_eq!(db.check().unwrap().leaves, leaves);
    assert_eq!(read_all(&killed, &db), 0);
    // Before the next checkpoint too, and again behind it.
    let again = killed.kill(killed.operations());
    let db = open(&again, options()).unwrap();
    assert_eq!(read_all(&again, &db), 0);
    db.close().unwrap();
    let db = open(&again, options()).unwrap();
    assert_eq!(read_all(&again, &db), 0);
    assert_eq!(db.check().unwrap().leaves, leaves);
}

/// What nothing proves to be durable is shown by a reader only beside a writer that lives, and after a sync of its own
///
#[test]
fn a_reader_shows_what_is_durable() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new()).unwrap();
    for n in 0..3_u8 {
        db.put([n], [n]).unwrap();
    }
    let killed = disk.kill(disk.operations());
    let read = |disk: &SimDisk| {
        let db = open(disk, Options::new().read_only()).unwrap();
        let report = db.check().unwrap();
        assert!(report.is_clean() && report.frames == 3, "{report:?}");
        (db.rev().get(), db.recovery().bytes_dropped > 0)
    };
    assert_eq!(read(&disk), (4, false));
    disk.fail(FaultPlan::once(Call::SyncData, 1, 5));
    assert_eq!(read(&disk), (3, true));
    assert_eq!(read(&disk), (4, false));
    assert_eq!(read(&killed), (3, true));
}

/// The pages of the checkpoint before the newest are checked for as long as it is named: both slots of the newest
/// may be lost.
#[test]
fn a_check_looks_at_the_checkpoint_before() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new()).unwrap();
    db.put("a", "1").unwrap();
    db.close().unwrap();
    // Behind the last record, where no walk of frames comes.
    let db = open(&disk, Options::new()).unwrap();
    let txn = db.write_at_index(7).unwrap().unwrap();
    txn.commit().unwrap();
    db.close().unwrap();
    assert!(db_check(&disk).is_clean());
    let bytes = disk.bytes(Path::new(STORE)).unwrap();
    let slots = bytes.chunks(SUPERBLOCK_BYTES).take(4);
    let superblocks = slots.filter_map(|slot| Superblock::parse(slot, 0).ok());
    let older = superblocks.min_by_key(Superblock::age).unwrap();
    assert_eq!(older.generation, 1);
    let page = older.root(RootKind::Segments).unwrap().page;
    let place = page.position.0 + 64;
    disk.corrupt(Path::new(STORE), place, 1, |byte| byte[0] ^= 1)
        .unwrap();
    assert!(!db_check(&disk).is_clean());
}

/// A commit whose own write or sync failed is told so, at every level (C-11).
#[test]
fn a_commit_whose_write_failed_is_unknown() {
    let batched = Durability::Batched {
        changes: 1,
        interval: Duration::from_secs(3600),
    };
    for (durability, call) in [
        (Durability::Sync, Call::WriteAt),
        (Durability::Sync, Call::SyncData),
        (Durability::Flushed, Call::WriteAt),
        (batched, Call::WriteAt),
        (batched, Call::SyncData),
    ] {
        let disk = SimDisk::new(SimOptions::default());
        let db = open(&disk, Options::new().durability(durability)).unwrap();
        db.put("a", "1").unwrap();
        disk.fail(FaultPlan::once(call, 1, 5));
        let error = db.put("a", "2").unwrap_err();
        assert!(
            matches!(error, Error::CommitUnknown { revision, .. } if revision.get() == 3),
            "{durability:?} {call:?}: {error:?}"
        );
        let error = db.put("a", "3").unwrap_err();
        assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
    }
}

/// When a full segment is shown from the file, its bytes are compared: a lost write is found while the
/// right bytes are still in memory, and nothing is written behind it.
#[test]
fn a_lost_write_is_found_when_its_segment_is_full() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new().segment_bytes(64 << 10)).unwrap();
    db.put("a", vec![1; 10_000]).unwrap();
    disk.corrupt(Path::new(STORE), 20 << 10, 1, |byte| byte[0] ^= 1)
        .unwrap();
    let error = (0..20_u8).find_map(|n| db.put([n], vec![n; 10_000]).err());
    assert!(matches!(error, Some(Error::Poisoned { .. })), "{error:?}");
    assert_eq!(db.get("a").unwrap().unwrap().value, vec![1; 10_000]);
}

/// A damaged index run is passed over: the index is built from the records (B-93, A-7).
#[test]
fn a_damaged_index_run_is_rebuilt() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new()).unwrap();
    for n in 0..100_u8 {
        db.put([n], [n]).unwrap();
    }
    db.delete([7]).unwrap();
    let hash = db.hash_by_rev(0).unwrap();
    db.close().unwrap();
    let bytes = disk.bytes(Path::new(STORE)).unwrap();
    let slots = bytes.chunks(SUPERBLOCK_BYTES).take(4);
    let superblocks = slots.filter_map(|slot| Superblock::parse(slot, 0).ok());
    let newest = superblocks.max_by_key(Superblock::age).unwrap();
    let root = *newest.root(RootKind::Index).unwrap();
    // The last byte of its directory, and what lies before it: its chunk.
    for place in [root.page.position.0 + 64, root.page.position.0 - 200] {
        let image = disk.kill(disk.operations());
        image
            .corrupt(Path::new(STORE), place, 1, |byte| byte[0] ^= 1)
            .unwrap();
        assert!(!db_check(&image).is_clean());
        for options in [Options::new().read_only(), Options::new()] {
            let db = open(&image, options).unwrap();
            assert_eq!(db.read().unwrap().range(..).count().unwrap(), 99);
            assert_eq!(db.get([8]).unwrap().unwrap().value, vec![8]);
            assert_eq!(db.hash_by_rev(0).unwrap(), hash);
        }
    }
}

fn db_check(disk: &SimDisk) -> revtree::CheckReport {
    let db = open(disk, Options::new().read_only()).unwrap();
    db.check().unwrap()
}

/// Use numbers never repeat (B-13): an open whose number does not fit is refused.
#[test]
fn an_open_beyond_the_last_number_is_refused() {
    let disk = SimDisk::new(SimOptions::default());
    open(&disk, Options::new()).unwrap().close().unwrap();
    for (opens, edition) in [(u32::MAX, 0), (5, u32::MAX)] {
        disk.damage(Path::new(STORE), |bytes| {
            for slot in bytes.chunks_mut(SUPERBLOCK_BYTES).take(4) {
                if let Ok(mut superblock) = Superblock::parse(slot, 0) {
                    superblock.opens = opens;
                    superblock.edition = edition;
                    slot.copy_from_slice(&superblock.encode()[..]);
                }
            }
        })
        .unwrap();
        let before = disk.bytes(Path::new(STORE));
        let error = open(&disk, Options::new()).unwrap_err();
        let refused = matches!(error, Error::LimitReached { .. });
        assert!(refused, "{error:?}");
        assert_eq!(disk.bytes(Path::new(STORE)), before);
    }
}

/// A head that names a segment far behind the file asks for no memory of its size.
#[test]
fn a_log_head_behind_the_file_is_refused() {
    let disk = SimDisk::new(SimOptions::default());
    open(&disk, Options::new()).unwrap().close().unwrap();
    disk.damage(Path::new(STORE), |bytes| {
        for slot in bytes.chunks_mut(SUPERBLOCK_BYTES).take(4) {
            if let Ok(mut superblock) = Superblock::parse(slot, 0) {
                superblock.head.segment = u32::MAX;
                slot.copy_from_slice(&superblock.encode()[..]);
            }
        }
    })
    .unwrap();
    for options in [Options::new(), Options::new().read_only()] {
        let error = open(&disk, options).unwrap_err();
        let refused = matches!(error, Error::Corrupt { .. });
        assert!(refused, "{error:?}");
    }
}

/// After a failed sync the system calls the lost pages clean: the next open, without a reboot, finds frames
/// that look whole and are not on the disk. It copies them, and then the power fails, at any moment of that
/// open, with all that it wrote on the disk: the copy is there, and what it was made from is not. It must not
/// prove that the log is damaged (C-26): what had been acknowledged before opens.
#[test]
fn a_forgotten_copy_proves_nothing() {
    let disk = SimDisk::new(SimOptions::default());
    let db = open(&disk, Options::new()).unwrap();
    db.put("a", "1").unwrap();
    disk.fail(FaultPlan::once(Call::SyncData, 1, 5));
    assert!(matches!(db.put("a", "2"), Err(Error::CommitUnknown { .. })));
    drop(db);
    disk.clear_faults();
    let machine = disk.kill(disk.operations());
    let db = open(&machine, Options::new()).unwrap();
    let opened = machine.operations();
    let newest = db.rev().get();
    assert_eq!(newest, 3, "it looks whole");
    drop(db);
    for operation in 0..=opened {
        let all = vec![true; machine.pending(operation)];
        let image = machine.image(operation, &mut Mask::new(all, true, true));
        let db = open(&image, Options::new())
            .unwrap_or_else(|error| panic!("cut after {operation} of {opened}: {error}"));
        assert!(db.rev().get() >= 2, "cut after {operation} of {opened}");
        assert!(db.check().unwrap().is_clean());
    }
}
