//! The four superblock slots: each one valid, or why not; and which is the newest.

use std::io;

use revtree_format::limits::{BLOCK_BYTES, SUPERBLOCK_SLOTS};
use revtree_format::{SUPERBLOCK_BYTES, Superblock};

use crate::damage::Damage;
use crate::item::{Item, Part, SlotItem};
use crate::source::{Failure, Source};
use crate::walk::{Out, split};

/// Shows all slots and gives the newest superblock.
pub(crate) fn walk(source: Source<'_>, out: &mut Out<'_>) -> io::Result<Option<Superblock>> {
    out.part(Part::Superblocks)?;
    let mut slots = Vec::new();
    for slot in 0..SUPERBLOCK_SLOTS as u64 {
        let offset = slot * BLOCK_BYTES;
        slots.push((slot, offset, split(read(source, offset))?));
    }
    let valid = slots
        .iter()
        .filter_map(|(.., superblock)| superblock.as_ref().ok());
    let newest = valid.max_by_key(|superblock| superblock.age()).cloned();
    for (slot, offset, superblock) in slots {
        // The pair that no checkpoint has written yet may be zero.
        let fresh = newest.as_ref().is_some_and(|newest| newest.generation == 0) && slot >= 2;
        let unwritten = fresh && superblock.as_ref().is_err_and(|damage| damage.found == 0);
        out.summary.damage += u64::from(superblock.is_err() && !unwritten);
        let is_newest = superblock.as_ref().ok() == newest.as_ref() && newest.is_some();
        let item = SlotItem {
            slot,
            offset,
            superblock,
            newest: is_newest,
        };
        out.emit(&Item::Slot(Box::new(item)))?;
    }
    if newest.is_none() {
        out.damage(Damage::new(0, "valid superblocks", 1, 0))?;
    }
    Ok(newest)
}

fn read(source: Source<'_>, offset: u64) -> Result<Superblock, Failure> {
    let bytes = source.exact(offset, SUPERBLOCK_BYTES)?;
    Ok(Superblock::parse(&bytes, offset)?)
}
