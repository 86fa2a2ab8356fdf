//! Every byte of a store's header in all of its values, through the door (F18): an error with a type, or what is
//! right.

use std::path::Path;
use std::sync::Arc;

use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{Db, Error, Options, Result};
use revtree_format::limits::SUPERBLOCK_SLOTS;
use revtree_format::{SUPERBLOCK_BYTES, Superblock};
use revtree_harness::fuzz::repair::repaired;

const STORE: &str = "store";
/// Behind its fields a superblock is zero (B-3): there, few values stand for all.
const FIELDS_END: usize = 784;
const FORMAT_VERSION: usize = 16;
const CRITICAL_FLAGS: usize = 20;
const STORE_ID: usize = 24;

fn options(disk: &SimDisk) -> Options {
    Options::new()
        .disk(Arc::new(disk.clone()))
        .segment_bytes(64 << 10)
        .store_bytes_max(1 << 20)
}

/// A closed store's bytes.
fn closed() -> Vec<u8> {
    let disk = SimDisk::new(SimOptions::default());
    let db = options(&disk).open(STORE).unwrap();
    for n in 0..4 {
        db.put(format!("key {n}"), format!("value {n}")).unwrap();
    }
    db.compact(3).unwrap();
    db.close().unwrap();
    disk.bytes(Path::new(STORE)).unwrap()
}

fn open(bytes: &[u8]) -> Result<Db> {
    let disk = SimDisk::new(SimOptions::default());
    disk.put_bytes(Path::new(STORE), bytes);
    options(&disk).read_only().open(STORE)
}

fn is_right(db: &Db) -> bool {
    (0..4).all(|n| {
        let found = db.get(format!("key {n}"));
        found.is_ok_and(|kv| kv.is_some_and(|kv| kv.value == format!("value {n}")))
    }) && db.rev().get() == 5
}

/// Slots that hold a superblock.
fn slots(bytes: &[u8]) -> Vec<usize> {
    (0..SUPERBLOCK_SLOTS)
        .map(|slot| slot * SUPERBLOCK_BYTES)
        .filter(|slot| Superblock::parse(&bytes[*slot..*slot + SUPERBLOCK_BYTES], 0).is_ok())
        .collect()
}

/// What a byte can be: everything, but behind the fields only a few.
fn values(at: usize, was: u8) -> impl Iterator<Item = u8> {
    (0..=255).filter(move |value| {
        *value != was && (at < FIELDS_END || matches!(*value, 1 | 0x80 | 0xff))
    })
}

/// In one slot it is harmless; in all of them the checksums refuse it, whatever it is.
#[test]
fn every_byte_as_a_disk_changes_it() {
    let whole = closed();
    assert!(is_right(&open(&whole).unwrap()));
    let slots = slots(&whole);
    assert!(slots.len() > 1);
    for at in 0..SUPERBLOCK_BYTES {
        let mut bytes = whole.clone();
        for value in values(at, whole[slots[0] + at]) {
            for slot in &slots {
                bytes[slot + at] = value;
                // Not what it is in this slot, be it another than in the first.
                if bytes[slot + at] == whole[slot + at] {
                    bytes[slot + at] ^= 0x55;
                }
            }
            match open(&bytes) {
                Err(Error::NotAStore { .. } | Error::Corrupt { .. }) => {}
                Err(error) => panic!("byte {at}: {error:?}"),
                Ok(_) => panic!("byte {at} as {value} is not seen"),
            }
        }
        let mut bytes = whole.clone();
        bytes[slots[0] + at] ^= 0x10;
        let db = open(&bytes).unwrap_or_else(|error| panic!("byte {at}: {error:?}"));
        assert!(is_right(&db), "byte {at}");
    }
}

/// With right checksums: a newer version and a flag that must be known are named; nothing else panics, waits, or
/// is an error of the system.
#[test]
fn every_byte_as_a_writer_may_write_it() {
    let whole = closed();
    let slots = slots(&whole);
    for at in FORMAT_VERSION..SUPERBLOCK_BYTES {
        let mut bytes = whole.clone();
        for value in values(at, whole[slots[0] + at]) {
            for slot in &slots {
                bytes[slot + at] = value;
                let raw = &mut bytes[*slot..slot + SUPERBLOCK_BYTES];
                let _ = repaired(raw, |raw| Superblock::parse(raw, 0));
            }
            let opened = open(&bytes);
            match (&opened, at) {
                (Err(Error::FormatTooNew { found, newest: 1 }), FORMAT_VERSION..CRITICAL_FLAGS) => {
                    assert!(*found > 1);
                }
                // There never was a version 0.
                (_, FORMAT_VERSION) if value == 0 => {}
                (Err(Error::Corrupt { .. } | Error::NotAStore { .. }), CRITICAL_FLAGS..) => {}
                (Ok(_), STORE_ID..FIELDS_END) => {}
                (Err(Error::LimitReached { .. } | Error::OutOfMemory { .. }), STORE_ID..) => {}
                (Err(error), _) => panic!("byte {at} as {value}: {error:?}"),
                (Ok(_), _) => panic!("byte {at} as {value} is not seen"),
            }
        }
    }
}
