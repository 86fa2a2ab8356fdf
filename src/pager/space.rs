//! Which segments of the file are in use, and how much of the file is allocated.
//!
//! Nothing here reads or writes data; it hands out segments and asks the storage for space ahead of
//! the log, so that no write ever extends the file (SPEC.md, C-4), and for what upkeep will need on a disk
//! that others have filled meanwhile (C-6).

use revtree_format::limits::STORE_BYTES_MAX;
use revtree_format::{Geometry, Position, SegmentEntry, SegmentState};

use crate::error::{Error, Result, is_full};
use crate::sys::{LockByte, LockMode, Storage};

/// The segment table in memory, and the file's allocated length.
#[derive(Debug)]
pub(crate) struct Space {
    geometry: Geometry,
    /// The unit of the first entry: 0 but for a piece of an image.
    first: u32,
    entries: Vec<SegmentEntry>,
    /// The file is allocated up to here.
    allocated: u64,
    /// What changes may fill, and what the file may reach with its upkeep.
    store_bytes_max: u64,
    upkeep_bytes_max: u64,
    /// Upper half of use numbers: which writable open this is.
    opens: u32,
    /// Uses handed out by this open.
    uses: u32,
    /// Segments that were in no use when the store was opened, and are not mapped.
    free: Vec<u32>,
    /// So many at the end of these have blocks everywhere; others may have holes.
    backed: usize,
    /// No other process has read the file at some time since: they may be used again.
    reusable: bool,
}

/// Segments that a commit will need.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Wanted {
    /// Those of one unit, which may be free ones.
    pub(super) short: u32,
    /// Units of longer ones.
    pub(super) long_units: u32,
    pub(super) last_is_short: bool,
    /// Bytes at the end of the one taken last that stay empty, if it is short.
    pub(super) unused: u64,
}

/// Segments put to use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) index: u32,
    pub(super) segment_use: u64,
    /// Its blocks have been written before, by an earlier use.
    pub(super) recycled: bool,
}

/// What space is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// Changes of users: up to the limit that they gave.
    Changes,
    /// The key index at a close, which can be left out.
    IndexRun,
    /// Compactions: a full store can still be compacted, and then closed.
    Compaction,
    /// Checkpoints and recovery: a full store can still be closed and opened.
    Upkeep,
}

impl Room {
    /// What must be left behind it, when a checkpoint takes so much, and a copy of what no sync covers so much:
    /// room for a kill, the recovery behind it, compactions and a close.
    pub(super) fn kept(self, checkpoint: u64, copy: u64) -> u64 {
        match self {
            Room::Changes | Room::IndexRun => copy + 2 * checkpoint + COMPACTIONS_BYTES,
            Room::Compaction => checkpoint,
            Room::Upkeep => 0,
        }
    }
}

/// Kept for compactions on a full disk, each a block and what closes a segment.
const COMPACTIONS_BYTES: u64 = 64 << 10;

/// How large a file may become with its upkeep, when changes may fill `store_bytes_max`.
pub(crate) fn bytes_with_upkeep(store_bytes_max: u64, segment_bytes: u64) -> u64 {
    let upkeep = (store_bytes_max / 8).max(8 * segment_bytes);
    store_bytes_max.saturating_add(upkeep).min(STORE_BYTES_MAX)
}

/// Smallest and greatest step by which the file is allocated ahead.
const STEP_BYTES_MIN: u64 = 16 << 10;
const STEP_BYTES_MAX: u64 = 16 << 20;

impl Space {
    /// The space of a store whose table is `entries` and whose file has `file_bytes`. Changes may fill
    /// `store_bytes_max`, and nothing `upkeep_bytes_max`.
    pub(crate) fn new(
        geometry: Geometry,
        entries: Vec<SegmentEntry>,
        file_bytes: u64,
        (store_bytes_max, upkeep_bytes_max): (u64, u64),
        opens: u32,
    ) -> Space {
        let free = (0u32..).zip(&entries);
        let free = free.filter(|(_, entry)| entry.state == SegmentState::Free);
        let mut free: Vec<u32> = free.map(|(index, _)| index).collect();
        // The last is taken first: the one nearest to the start of the file.
        free.reverse();
        Space {
            geometry,
            first: 0,
            entries,
            allocated: file_bytes,
            store_bytes_max: store_bytes_max.min(upkeep_bytes_max),
            upkeep_bytes_max,
            opens,
            uses: 0,
            free,
            backed: 0,
            reusable: false,
        }
    }

    /// The space of an image from the segment of `units` units at `index` on, whose use is
    /// `segment_use`: segments follow each other, and nothing is allocated.
    pub(crate) fn of_image(geometry: Geometry, index: u32, units: u32, segment_use: u64) -> Space {
        let mut space = Space {
            geometry,
            first: index,
            entries: Vec::new(),
            allocated: u64::MAX,
            store_bytes_max: STORE_BYTES_MAX,
            upkeep_bytes_max: STORE_BYTES_MAX,
            opens: u32::try_from(segment_use >> 32).expect("shifted"),
            uses: u32::try_from(segment_use & u64::from(u32::MAX)).expect("masked"),
            free: Vec::new(),
            backed: 0,
            reusable: false,
        };
        space.set_entries(index, units, segment_use);
        space
    }

    /// The table: one entry for each unit, of an image from the piece's first on.
    pub(crate) fn entries(&self) -> &[SegmentEntry] {
        &self.entries
    }

    /// Length of the segment that begins at unit `index`.
    pub(crate) fn units_of(&self, index: u32) -> u32 {
        let at = index.checked_sub(self.first);
        let entry = at.and_then(|at| self.entries.get(at as usize));
        entry.map_or(1, |entry| entry.units.max(1))
    }

    /// The unit behind the last one of the table.
    fn end(&self) -> u32 {
        let len = u32::try_from(self.entries.len()).expect("fewer units than 16 TiB / 64 KiB");
        self.first + len
    }

    fn set_entries(&mut self, index: u32, units: u32, segment_use: u64) {
        for unit in 0..units {
            let entry = SegmentEntry {
                state: SegmentState::Log,
                segment_use,
                units: if unit == 0 { units } else { 0 },
            };
            match self.entries.get_mut((index - self.first + unit) as usize) {
                Some(place) => *place = entry,
                None => self.entries.push(entry),
            }
        }
    }

    /// The file's length as far as it has been allocated.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Bytes in segments that are in no use.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free.len() as u64 * self.geometry.segment_bytes()
    }

    /// Puts `units` contiguous segments to use as a piece of the log; allocates the first `bytes` of
    /// them.
    pub(super) fn take(&mut self, storage: &dyn Storage, units: u32, bytes: u64) -> Result<Taken> {
        let reused = match self.free.last().copied() {
            // One with holes that the disk cannot fill is no use now.
            Some(index) if units == 1 && self.can_reuse(storage) => match self.back(storage, 1) {
                Ok(()) => Some(index),
                Err(Error::NoSpace { .. }) => None,
                Err(error) => return Err(error),
            },
            _ => None,
        };
        let index = reused.unwrap_or(self.end());
        let end = self.geometry.end(index, units).0;
        // Whether changes may go on has been decided before their first byte, by `reserve`.
        self.check_room(end, Room::Upkeep)?;
        let start = self.geometry.start(index).0;
        self.allocate(storage, (start + bytes).min(end))?;
        let recycled = reused.is_some();
        if recycled {
            self.free.pop();
            self.backed -= 1;
        }
        self.uses += 1;
        let segment_use = u64::from(self.opens) << 32 | u64::from(self.uses);
        self.set_entries(index, units, segment_use);
        Ok(Taken {
            index,
            segment_use,
            recycled,
        })
    }

    /// These segments are named by nothing once the next checkpoint is durable: its table has them free,
    /// and the next open may take them.
    pub(crate) fn retire(&mut self, segments: &[u32]) {
        for index in segments {
            if let Some(entry) = self.entries.get_mut(*index as usize) {
                *entry = SegmentEntry::FREE;
            }
        }
    }

    /// Makes sure that the file is allocated up to `end`: in steps, so that few calls are needed.
    pub(crate) fn allocate(&mut self, storage: &dyn Storage, end: u64) -> Result<()> {
        self.allocate_up_to(storage, end, end)
    }

    /// The same, and up to `most` if there is so much.
    fn allocate_up_to(&mut self, storage: &dyn Storage, end: u64, most: u64) -> Result<()> {
        if most <= self.allocated {
            return Ok(());
        }
        let step = (self.allocated / 8).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let wanted = most
            .max(self.allocated + step)
            .next_multiple_of(STEP_BYTES_MIN);
        let wanted = wanted.min(self.store_bytes_max.max(end));
        // On a disk that is nearly full the step may not fit, and what is needed still does.
        for wanted in [wanted, end] {
            if wanted <= self.allocated {
                return Ok(());
            }
            match storage.allocate(self.allocated, wanted - self.allocated) {
                Ok(()) => {
                    self.allocated = wanted;
                    return Ok(());
                }
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(Error::io("allocate", error)),
            }
        }
        Err(Error::NoSpace {
            needed: end - self.allocated,
        })
    }

    /// Nothing is written any more between what is allocated and the next fresh segment: it needs no blocks.
    pub(super) fn leave_hole(&mut self) {
        let start = self.geometry.start(self.end()).0;
        self.allocated = self.allocated.max(start);
    }

    /// Gets blocks for the `count` free segments that are taken next.
    fn back(&mut self, storage: &dyn Storage, count: usize) -> Result<()> {
        while self.backed < count.min(self.free.len()) {
            let index = self.free[self.free.len() - 1 - self.backed];
            let (start, end) = (self.geometry.start(index).0, self.geometry.end(index, 1).0);
            let within = end.min(self.allocated).saturating_sub(start);
            if within > 0 {
                storage
                    .allocate(start, within)
                    .map_err(Error::on_allocate("allocate", within))?;
            }
            self.allocate(storage, end)?;
            self.backed += 1;
        }
        Ok(())
    }

    /// Makes sure that there are blocks for `bytes` more behind a log that goes on at `end`, in a segment that
    /// ends at `segment_end` (or at the start of one that is not taken yet: 0 and 0); fresh ones begin at
    /// `file_end`.
    fn keep(
        &mut self,
        storage: &dyn Storage,
        bytes: u64,
        (end, segment_end): (u64, u64),
        file_end: u64,
    ) -> Result<()> {
        if bytes == 0 || end + bytes <= segment_end {
            return self.allocate(storage, end + bytes);
        }
        self.allocate(storage, segment_end)?;
        // No piece crosses a border: up to a third of a segment stays empty at its end.
        let mut beyond = bytes + bytes / 2;
        let segment_bytes = self.geometry.segment_bytes();
        if self.can_reuse(storage) {
            let count = usize::try_from(beyond.div_ceil(segment_bytes)).unwrap_or(usize::MAX);
            self.back(storage, count)?;
            beyond = beyond.saturating_sub(self.backed as u64 * segment_bytes);
        }
        if beyond > 0 {
            let most = (file_end + beyond).min(self.upkeep_bytes_max);
            self.allocate(storage, most)?;
        }
        Ok(())
    }

    /// Makes sure that these segments can be taken: free ones where there are, the others behind the last; and
    /// that `kept` bytes more can be written behind.
    pub(super) fn reserve(
        &mut self,
        storage: &dyn Storage,
        wanted: Wanted,
        room: Room,
        kept: u64,
    ) -> Result<()> {
        let segment_bytes = self.geometry.segment_bytes();
        let reused = if wanted.short > 0 && self.can_reuse(storage) {
            self.free.len().min(wanted.short as usize)
        } else {
            0
        };
        self.back(storage, reused)?;
        let fresh = u64::from(wanted.short) - reused as u64;
        let units = fresh + u64::from(wanted.long_units);
        let behind = (u64::from(self.end()) + units) * segment_bytes;
        if units > 0 {
            // Free ones are taken first: the last short one lies at the end of the file if any does.
            let unused = if fresh > 0 { wanted.unused } else { 0 };
            self.check_room(behind - unused, room)?;
            self.allocate_up_to(storage, behind - unused, behind)?;
        }
        if kept == 0 {
            return Ok(());
        }
        if fresh > 0 {
            return self.keep(storage, kept, (behind - wanted.unused, behind), behind);
        }
        // Those that are taken now are not there for upkeep.
        let taken = reused as u64 * segment_bytes;
        self.keep(storage, kept + taken, (0, 0), behind)
    }

    /// Makes sure that the log can go on to `end` in its segment, which ends at `segment_end`. Changes may
    /// do so in a file that recovery has made longer than they may, for as long as free segments make up
    /// for it.
    pub(super) fn reserve_within(
        &mut self,
        storage: &dyn Storage,
        segment_end: u64,
        end: u64,
        room: Room,
        kept: u64,
    ) -> Result<()> {
        let file_end = u64::from(self.end()) * self.geometry.segment_bytes();
        // The rest of the segment is as free as the free ones are, wherever in the file it lies.
        let furthest = file_end.saturating_sub(segment_end.saturating_sub(end));
        self.check_room(furthest.saturating_sub(self.free_bytes()), room)?;
        self.keep(storage, kept, (end, segment_end), file_end)
    }

    /// Whether free segments may be used again. Once it has been so it stays so: a reader process that comes
    /// later adopts a checkpoint that does not name them.
    fn can_reuse(&mut self, storage: &dyn Storage) -> bool {
        if !self.reusable && !self.free.is_empty() {
            self.reusable = alone(storage, || ()).is_some();
        }
        self.reusable
    }

    fn check_room(&self, end: u64, room: Room) -> Result<()> {
        let max = match room {
            Room::Changes => self.store_bytes_max,
            Room::IndexRun | Room::Compaction | Room::Upkeep => self.upkeep_bytes_max,
        };
        if end > max {
            return Err(Error::StoreFull { needed: end, max });
        }
        Ok(())
    }

    /// Cuts the file behind the log's end, when nothing lies behind it and no other process reads it: one
    /// that opens it may know the longer length.
    pub(crate) fn cut(&mut self, storage: &dyn Storage, end: Position) -> Result<()> {
        let last = self.geometry.index_of(Position(end.0.saturating_sub(1)));
        let used_behind = self
            .entries
            .iter()
            .skip(last.map_or(0, |index| index as usize + 1))
            .any(|entry| entry.state != SegmentState::Free);
        if used_behind || end.0 >= self.allocated {
            return Ok(());
        }
        let Some(cut) = alone(storage, || storage.set_len(end.0)) else {
            return Ok(());
        };
        cut.map_err(Error::on("cut the file"))?;
        self.allocated = end.0;
        Ok(())
    }
}

/// Calls `act` while no other process reads the file; `None` when one does.
fn alone<T>(storage: &dyn Storage, act: impl FnOnce() -> T) -> Option<T> {
    let alone = storage
        .try_lock_byte(LockByte::Readers, LockMode::Exclusive)
        .unwrap_or(false);
    let done = alone.then(act);
    if alone && storage.unlock_byte(LockByte::Readers).is_err() {
        return None;
    }
    done
}
