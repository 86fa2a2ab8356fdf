//! Blocks that come back as they were, and superblocks that are lost (SPEC.md, A-5 to A-7).
//!
//! Not power cuts: a disk that lost writes after it had acknowledged a sync, or that rotted. Nothing can
//! bring back what is gone, so the store may be older here. What it shows is some accepted state all the
//! same, or an error with a type, never a mixture; and who knows how new it has to be is told. Blocks come
//! back from the same file: a restored snapshot is another one, of the same store id (S-8).

use revtree::Error;
use revtree::storage::sim::{Mask, SimDisk};

use super::Crashes;
use super::history::{STORE, end_process, state_of};
use crate::state::State;

/// A superblock's.
const BLOCK: usize = 4096;
/// The units in which disks forget.
const SECTORS: [usize; 2] = [512, 4096];
/// So many of a disk at one operation: a fifth of all images, 200,000 of a million.
const OLD: usize = 160;
/// How many slots for superblocks there are, each a block.
const SLOTS: usize = 4;

impl Crashes<'_> {
    /// Some disks with old blocks, and all with some superblocks lost.
    pub(super) fn old_blocks(&mut self, disk: &SimDisk, operation: u64) -> Result<(), String> {
        let newest = whole(disk, operation);
        let path = std::path::Path::new(STORE);
        let Some(new) = newest.bytes(path) else {
            return Ok(());
        };
        let Some(begun) = self.history.content_since(operation) else {
            return Ok(());
        };
        let earlier = begun + self.random.below(operation - begun + 1);
        let old = whole(disk, earlier).bytes(path).unwrap_or_default();
        let was = |at: usize, len: usize| old.get(at..at + len);
        let changed = SECTORS.map(|sector_bytes| {
            let sectors = new.chunks(sector_bytes).enumerate();
            sectors
                .map(|(sector, bytes)| (sector * sector_bytes, bytes))
                .filter(|(at, bytes)| was(*at, bytes.len()).is_some_and(|was| was != *bytes))
                .map(|(at, _)| at)
                .collect::<Vec<usize>>()
        });
        for _ in 0..OLD {
            let unit = self.random.index(SECTORS.len());
            let (sector_bytes, changed) = (SECTORS[unit], &changed[unit]);
            if changed.is_empty() {
                break;
            }
            // One sector that has changed, some of them, or all but one.
            let (one, some) = (self.random.index(changed.len()), self.random.below(3));
            let mut mixed = new.clone();
            for (n, at) in changed.iter().copied().enumerate() {
                let is_old = match some {
                    0 => n == one,
                    1 => n != one,
                    _ => self.random.once_in(2),
                };
                let end = (at + sector_bytes).min(mixed.len());
                if let (true, Some(was)) = (is_old, was(at, end - at)) {
                    mixed[at..end].copy_from_slice(was);
                }
            }
            self.summary.count("with old blocks");
            self.older(&newest, &mixed).map_err(|error| {
                format!("{error}\n  sectors of {sector_bytes} bytes as after operation {earlier}")
            })?;
        }
        for lost in 1..1_usize << SLOTS {
            let mut bytes = new.clone();
            for (slot, block) in bytes.chunks_mut(BLOCK).take(SLOTS).enumerate() {
                if lost >> slot & 1 == 1 {
                    if self.random.once_in(2) {
                        block.fill(0);
                    } else {
                        block
                            .iter_mut()
                            .for_each(|byte| *byte = self.random.bits().to_le_bytes()[0]);
                    }
                }
            }
            self.summary.count("without some superblocks");
            self.lost_slots(&newest, &bytes, lost, operation)
                .map_err(|error| format!("{error}\n  without the slots {lost:04b}"))?;
        }
        Ok(())
    }

    /// One slot lost is none: its twin says the same. Two of different pairs may be; all are the end.
    fn lost_slots(
        &mut self,
        disk: &SimDisk,
        bytes: &[u8],
        lost: usize,
        operation: u64,
    ) -> Result<(), String> {
        let found = self.older(disk, bytes)?;
        let (least, most) = self.history.after_power_cut(operation);
        let one = lost.count_ones() == 1;
        match found {
            Some(state) if lost == (1 << SLOTS) - 1 => Err(format!(
                "wrong: opened without a superblock at {}",
                state.current
            )),
            Some(state) if one && !self.history.states[least..=most].contains(&state) => Err(
                format!("lost: one slot is gone, and {} is there", state.current),
            ),
            None if one => Err("wrong: one slot is gone, and nothing can be read".to_owned()),
            _ => Ok(()),
        }
    }

    /// The state that a store of these bytes shows, an accepted one; `None` when an error says why none.
    fn older(&mut self, like: &SimDisk, bytes: &[u8]) -> Result<Option<State>, String> {
        self.summary.images += 1;
        let disk = like.kill(like.operations());
        disk.put_bytes(std::path::Path::new(STORE), bytes);
        let mut store = match self.history.setup.open(&disk) {
            Ok(store) => store,
            Err(error) => return typed(&error).map(|()| None),
        };
        let state = match state_of(&mut store) {
            Ok(state) => Some(state),
            Err(error) if error.contains("Corrupt") => None,
            Err(error) => return Err(format!("wrong: {error}")),
        };
        end_process(store, &disk);
        if let Some(state) = &state {
            self.known(state)?;
            if self.random.once_in(4) {
                self.newer_is_expected(like, bytes, state)?;
            }
        }
        Ok(state)
    }

    fn known(&self, state: &State) -> Result<(), String> {
        if self.history.states.contains(state) {
            Ok(())
        } else {
            Err(self.no_accepted_state(state))
        }
    }

    /// Who expects more than is there is told, and the file stays as it is.
    fn newer_is_expected(
        &mut self,
        like: &SimDisk,
        bytes: &[u8],
        state: &State,
    ) -> Result<(), String> {
        let disk = like.kill(like.operations());
        disk.put_bytes(std::path::Path::new(STORE), bytes);
        let expected = state.current.next();
        match self.history.setup.open_expecting(&disk, expected) {
            Err(Error::RolledBack {
                found,
                expected: asked,
            }) if found == state.current
                && asked == expected
                && disk.bytes(std::path::Path::new(STORE)).as_deref() == Some(bytes) =>
            {
                Ok(())
            }
            other => Err(format!(
                "wrong: {expected} is expected of a store at {}: {:?}",
                state.current,
                other.map(|_| ()),
            )),
        }
    }
}

/// The disk with all that was written before.
fn whole(disk: &SimDisk, operation: u64) -> SimDisk {
    let all = vec![true; disk.pending(operation)];
    disk.image(operation, &mut Mask::new(all, true, true))
}

/// An error that says that the file is damaged.
fn typed(error: &Error) -> Result<(), String> {
    match error {
        Error::Corrupt { .. } | Error::NotAStore { .. } => Ok(()),
        other => Err(format!("wrong: open says {other:?}")),
    }
}
