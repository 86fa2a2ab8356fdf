//! The superblock slots by what stands in them (SPEC.md, B-2, B-3, C-20, C-21).

use std::path::Path;
use std::sync::Arc;

use revtree_format::{SUPERBLOCK_BYTES, Superblock};

use crate::error::Error;
use crate::pager::Superblocks;
use crate::pager::superblocks::of_empty_store;
use crate::sys::{Disk, MemoryDisk, Storage};

const SLOT: u64 = SUPERBLOCK_BYTES as u64;

/// A file of four empty slots and nothing behind them, as a new store has.
fn file() -> Arc<dyn Storage> {
    let disk = MemoryDisk::new();
    let file = disk.create_new(Path::new("store")).expect("a fresh disk");
    file.set_len(4 * SLOT).expect("room");
    file
}

fn superblock(opens: u32, generation: u64, edition: u32) -> Superblock {
    Superblock {
        opens,
        generation,
        edition,
        ..of_empty_store([7; 16], 64 << 10)
    }
}

fn put(file: &dyn Storage, slot: u64, superblock: &Superblock) {
    file.write_at(&superblock.encode()[..], slot * SLOT)
        .expect("room");
}

fn read(file: &dyn Storage) -> Result<Superblocks, Error> {
    Superblocks::read(file, Path::new("store"))
}

/// A new store is four slots long. Of a slot that is zero beside a valid twin something was lost; a pair of
/// zeros is one that no checkpoint has reached.
#[test]
fn damaged_slots_are_counted() {
    let file = file();
    assert!(matches!(read(&*file), Err(Error::NotAStore { .. })));
    put(&*file, 0, &superblock(1, 0, 0));
    put(&*file, 1, &superblock(1, 0, 0));
    assert_eq!(read(&*file).expect("two twins").bad, 0);
    file.write_at(&[0; SUPERBLOCK_BYTES], SLOT).expect("room");
    assert_eq!(read(&*file).expect("one twin").bad, 1);
    put(&*file, 3, &superblock(1, 1, 0));
    assert_eq!(read(&*file).expect("one of each").bad, 2);
    file.write_at(&[1], SLOT + 100).expect("room");
    file.write_at(&[1], 2 * SLOT + 100).expect("room");
    assert_eq!(read(&*file).expect("one of each").bad, 2);
    file.write_at(&[0xff], 100).expect("room");
    let found = read(&*file).expect("one is left");
    assert_eq!((found.bad, found.newest.generation), (3, 1));
    file.write_at(&[0xff], 3 * SLOT + 100).expect("room");
    // What begins as a store does was one (C-20).
    assert!(matches!(read(&*file), Err(Error::Corrupt { .. })));
    for slot in [0, 3] {
        file.write_at(&[0xff], slot * SLOT).expect("room");
    }
    assert!(matches!(read(&*file), Err(Error::NotAStore { .. })));
}

/// The slot that a refresh wrote last is rewritten first, so that the other, which was synced before, is never
/// in flight beside it (C-21). Odd editions begin with the first slot, even ones with the second.
#[test]
fn the_slot_that_was_written_last_is_rewritten_first() {
    /// Opens and edition of the two slots, and what their next edition begins with.
    type Slots = [Option<(u32, u32)>; 2];
    const FIRST: u32 = 1;
    const SECOND: u32 = 0;
    let cases: [(Slots, u32, u32); 12] = [
        // Equal ones: the edition says which was written last, the second by an odd one.
        ([Some((1, 4)), Some((1, 4))], 5, FIRST),
        ([Some((1, 5)), Some((1, 5))], 6, SECOND),
        // A refresh ended between the two.
        ([Some((1, 5)), Some((1, 4))], 7, FIRST),
        ([Some((1, 6)), Some((1, 4))], 7, FIRST),
        ([Some((1, 4)), Some((1, 5))], 6, SECOND),
        ([Some((1, 4)), Some((1, 6))], 8, SECOND),
        // A slot was damaged or is of another generation: it is no loss.
        ([None, Some((1, 4))], 5, FIRST),
        ([None, Some((1, 5))], 7, FIRST),
        ([Some((1, 4)), None], 6, SECOND),
        ([Some((1, 5)), None], 6, SECOND),
        // Two checkpoints of one generation: the earlier open's has lost.
        ([Some((1, 5)), Some((2, 5))], 7, FIRST),
        ([Some((2, 4)), Some((1, 4))], 6, SECOND),
    ];
    for (slots, next, begins) in cases {
        assert_eq!(next % 2, begins, "{slots:?}");
        for generation in [8, 9] {
            let file = file();
            // The other pair is older.
            for slot in 0..4 {
                put(&*file, slot, &superblock(1, 7 - generation % 2, 9));
            }
            for (n, slot) in (0u64..).zip(slots) {
                if let Some((opens, edition)) = slot {
                    let at = generation % 2 * 2 + n;
                    put(&*file, at, &superblock(opens, generation, edition));
                }
            }
            let found = read(&*file).expect("one is valid");
            assert_eq!(found.newest.generation, generation);
            let edition = found.next_edition;
            assert_eq!(edition, Some(next), "{slots:?} of generation {generation}");
        }
    }
    let file = file();
    put(&*file, 0, &superblock(1, 0, u32::MAX));
    put(&*file, 1, &superblock(1, 0, u32::MAX));
    assert_eq!(read(&*file).expect("valid").next_edition, None);
}
