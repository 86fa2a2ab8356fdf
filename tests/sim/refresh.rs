//! The superblock across opens that are cut short (SPEC.md, B-2 and C-21). Both stories were found by
//! power cuts inside of recoveries that had been cut short themselves.
//!
//! *The refresh: one good copy is never in flight.* An open that was killed between the write of the
//! second slot and its sync left that slot in the page cache alone. The next open used to begin with the
//! first slot: then both were in flight, a power cut could tear both, and a store that had never been
//! checkpointed was gone.
//!
//! *A checkpoint that comes back.* See the test.

use revtree::Durability;
use revtree::ReadMode;
use revtree::storage::sim::{Choice, PendingSector, SimDisk, SimOptions, Survival};
use revtree_harness::crash::{Setup, end_process};
use revtree_harness::model::Subject;

use super::recovery::Garbage;

const SETUP: Setup = Setup {
    durability: Durability::Sync,
    checkpoint_bytes: 1 << 20,
    read_mode: ReadMode::Map,
};

/// A store with one acknowledged put, closed or killed after it.
fn store(closed: bool) -> SimDisk {
    let disk = SimDisk::new(SimOptions::default());
    let mut store = SETUP.open(&disk).unwrap();
    store.put(&"a".into(), &"1".into()).unwrap();
    if closed {
        store.close().unwrap();
    } else {
        end_process(store, &disk);
    }
    disk.kill(disk.operations())
}

/// Opens a disk and gives it as it was after each of the operations of that.
fn opening(disk: &SimDisk) -> impl Iterator<Item = u64> + use<> {
    let before = disk.operations();
    let store = SETUP.open(disk).unwrap();
    let opened = disk.operations();
    end_process(store, disk);
    before..=opened
}

/// The put is there after a power cut at each operation of an open.
fn cut_everywhere(disk: &SimDisk, what: &str) {
    for operation in opening(disk) {
        let image = disk.image(operation, &mut Garbage);
        let store = SETUP.open(&image);
        let store = store.unwrap_or_else(|error| panic!("{what}, cut after {operation}: {error}"));
        assert_eq!(store.db().rev().get(), 2, "{what}, cut after {operation}");
        end_process(store, &image);
    }
}

#[test]
fn opens_that_are_killed_leave_a_good_slot() {
    for closed in [false, true] {
        let disk = store(closed);
        for first in opening(&disk) {
            let killed = disk.kill(first);
            for second in opening(&killed) {
                let again = killed.kill(second);
                cut_everywhere(
                    &again,
                    &format!("closed: {closed}, killed after {first}, and after {second}"),
                );
            }
        }
    }
}

/// Some sectors are chosen, all others are new.
struct But(u64, Survival);

impl Choice for But {
    fn sector(&mut self, sector: &PendingSector) -> Survival {
        if sector.sector == self.0 {
            self.1
        } else {
            Survival::New
        }
    }

    fn length(&mut self, _file: u64, pending: usize) -> usize {
        pending
    }

    fn names(&mut self, pending: usize) -> usize {
        pending
    }
}

/// The first slot of the other pair, in bytes and in sectors.
const OTHER_SLOT: u64 = 8192;
const OTHER_SECTOR: u64 = OTHER_SLOT / 512;

/// Opens a store that was not closed, and cuts the power when its checkpoint has written one slot.
fn cut_in_the_checkpoint(disk: &SimDisk, mut choice: But) -> SimDisk {
    let write = format!("write 4096 bytes at {OTHER_SLOT} ");
    let is_written = |operation: &u64| {
        let call = disk.describe(*operation);
        call.is_some_and(|call| call.starts_with(&write))
    };
    let written = opening(disk).find(is_written);
    let written = written.expect("recovery ends with a checkpoint in the other pair");
    disk.image(written, &mut choice)
}

/// A recovery's checkpoint is torn by a power cut: its first sector is on disk, the second is garbage. The
/// next recovery rightly does not see it, puts its own log in the same segment and its own checkpoint in the
/// same slot, and is torn too: all sectors are on disk but the first. So the slot holds the first checkpoint,
/// whole and valid, and what it names has been overwritten. It used to be adopted, being of the greater
/// generation. Now it is older, since the later open has refreshed the superblock before it.
#[test]
fn a_torn_checkpoint_that_comes_back_is_not_adopted() {
    let disk = store(false);
    let garbage = But(OTHER_SECTOR + 1, Survival::Garbage(1));
    let first = cut_in_the_checkpoint(&disk, garbage);
    let second = cut_in_the_checkpoint(&first, But(OTHER_SECTOR, Survival::Old));
    cut_everywhere(&second, "a checkpoint came back");
    let store = SETUP.open(&second).unwrap();
    let report = store.db().check().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    end_process(store, &second);
}

/// A generation is in both slots of its pair, with the same bytes: whichever rots, the other says it (B-3).
/// Planted, a checkpoint that writes one slot only was seen by nothing else: the generation before it leads to
/// the same log for as long as no segment is used again.
#[test]
fn each_generation_has_a_twin() {
    let disk = SimDisk::new(SimOptions::default());
    for round in 0..3 {
        let mut store = SETUP.open(&disk).unwrap();
        store.put(&"a".into(), &"1".into()).unwrap();
        store.close().unwrap();
        let bytes = disk.bytes(std::path::Path::new("store")).unwrap();
        let slot = |n: usize| bytes[n * 4096..(n + 1) * 4096].to_vec();
        assert_eq!(slot(0), slot(1), "closed {round} times before");
        assert_eq!(slot(2), slot(3), "closed {round} times before");
    }
}
