//! Which segments of the file are in use, and how much of the file is allocated.
//!
//! Nothing here reads or writes data; it hands out segments and asks the storage for space ahead of
//! the log, so that no write ever extends the file (SPEC.md, C-4), and for what upkeep will need on a disk
//! that others have filled meanwhile (C-6).

use std::collections::{HashMap, VecDeque};

use revtree_format::limits::{BLOCK_BYTES, STORE_BYTES_MAX};
use revtree_format::{Geometry, LogHead, Revision, SegmentEntry, SegmentState};

use super::{DeadInUnit, Garbage};
use crate::error::{Error, Result, is_full};
use crate::sys::{LockByte, LockMode, Storage};

/// The segment table in memory, and the file's allocated length.
#[derive(Debug)]
pub(crate) struct Space {
    geometry: Geometry,
    /// The unit of the first entry: 0 but for a piece of an image.
    first: u32,
    entries: Vec<SegmentEntry>,
    garbage: Garbage,
    /// The file is allocated up to here, but for what is free and what no log will reach.
    allocated: u64,
    /// What changes may fill, and what the file may reach with its upkeep.
    store_bytes_max: u64,
    upkeep_bytes_max: u64,
    /// Upper half of use numbers: which writable open this is.
    opens: u32,
    /// Uses handed out by this open.
    uses: u32,
    /// Segments that were in no use when the store was opened, and are not mapped. They may have holes.
    free: Vec<u32>,
    /// Others of the kind that have blocks everywhere: they are taken first.
    backed: VecDeque<u32>,
    /// No other process has read the file at some time since: they may be used again.
    reusable: bool,
    /// Segments that no checkpoint names any more, and that somebody may still read.
    held: Vec<Held>,
    /// How far the file must reach for what was asked for last.
    needed: u64,
}

/// A segment that a checkpoint has given up (C-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) index: u32,
    pub(crate) units: u32,
    /// When it was given up, in the words of who asked for it.
    pub(crate) era: u64,
}

/// What a commit will take.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wanted {
    /// Bytes of its pieces, with what frames add.
    pub(crate) bytes: u64,
    /// Segments of one unit, which may be free ones.
    pub(super) short: u32,
    /// Units of longer ones.
    pub(super) long_units: u32,
    /// Whether the segment taken last is one of the short ones.
    pub(super) last_is_short: bool,
    /// Bytes that stay empty at the end of the segment in which the last piece lies.
    pub(super) left: u64,
    /// The segments are for a run: the log stays in its own, of which so much is `left`.
    pub(super) for_run: bool,
}

/// What a checkpoint would write.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Pages {
    pub(crate) bytes: u64,
    /// What another would write behind it, that finds no leaf and no row of a table.
    pub(crate) again: u64,
    /// The longest of its pieces.
    pub(crate) longest: usize,
}

/// What must be left on the disk and below the limit.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Kept {
    pub(super) bytes: u64,
    /// A piece among them is longer than a segment: only the file's end has room for it.
    pub(super) has_long: bool,
    /// A recovery needs them, which goes on in another segment than the log, and has cut the file before.
    pub(super) for_recovery: bool,
    /// Whole segments besides, for runs of the cleaner.
    pub(super) segments: u32,
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
    /// What can be left out: the key index at a close, and the log's going on further to the front.
    Spare,
    /// Runs of the cleaner: a full store can still be cleaned.
    Cleaning,
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
            Room::Changes | Room::Spare => copy + 2 * checkpoint + COMPACTIONS_BYTES,
            // A recovery that comes before a run is in the tree has its segments back, and behind that those which
            // it has replaced.
            Room::Cleaning => 2 * checkpoint,
            Room::Compaction => checkpoint,
            Room::Upkeep => 0,
        }
    }
}

/// Kept for the cleaner besides, in a store of so many segments: with two it can begin, whatever it finds.
const CLEANER_SEGMENTS: u32 = 2;
const CLEANER_FROM_SEGMENTS: u32 = 8;

/// Kept for compactions on a full disk, each a block and what closes a segment.
const COMPACTIONS_BYTES: u64 = 64 << 10;

/// What is kept for a copy of what no sync covers: a longer one finds room or waits for it.
pub(super) const COPY_BYTES_MAX: u64 = 16 << 20;

/// How large a file may become with its upkeep, when changes may fill `store_bytes_max`.
pub(crate) fn bytes_with_upkeep(store_bytes_max: u64, segment_bytes: u64) -> u64 {
    let upkeep = (store_bytes_max / 8).max(8 * segment_bytes);
    let copy = 2 * store_bytes_max.min(COPY_BYTES_MAX);
    store_bytes_max
        .saturating_add(upkeep + copy)
        .min(STORE_BYTES_MAX)
}

/// Smallest and greatest step by which the file is allocated ahead.
const STEP_BYTES_MIN: u64 = 16 << 10;
const STEP_BYTES_MAX: u64 = 16 << 20;

impl Space {
    /// The space of a store whose table is `entries`, and what that says of dead records. Changes may fill
    /// `store_bytes_max`, and nothing `upkeep_bytes_max`. Nothing is known of the file's blocks before
    /// [`Space::cut`].
    pub(crate) fn new(
        geometry: Geometry,
        entries: Vec<SegmentEntry>,
        garbage: Garbage,
        (store_bytes_max, upkeep_bytes_max): (u64, u64),
        opens: u32,
    ) -> Space {
        let plain = |entry| SegmentEntry { dead: 0, ..entry };
        let entries: Vec<SegmentEntry> = entries.into_iter().map(plain).collect();
        let free = (0u32..).zip(&entries);
        let free = free.filter(|(_, entry)| entry.state == SegmentState::Free);
        let mut free: Vec<u32> = free.map(|(index, _)| index).collect();
        // The last is taken first: the one nearest to the start of the file.
        free.reverse();
        Space {
            geometry,
            first: 0,
            entries,
            garbage,
            allocated: 0,
            store_bytes_max: store_bytes_max.min(upkeep_bytes_max),
            upkeep_bytes_max,
            opens,
            uses: 0,
            free,
            backed: VecDeque::new(),
            reusable: false,
            held: Vec::new(),
            needed: 0,
        }
    }

    /// The space of an image from the segment of `units` units at `index` on, whose use is
    /// `segment_use`: segments follow each other, and nothing is allocated.
    pub(crate) fn of_image(geometry: Geometry, index: u32, units: u32, segment_use: u64) -> Space {
        let mut space = Space {
            geometry,
            first: index,
            entries: Vec::new(),
            garbage: Garbage::new(geometry),
            allocated: u64::MAX,
            store_bytes_max: STORE_BYTES_MAX,
            upkeep_bytes_max: STORE_BYTES_MAX,
            opens: u32::try_from(segment_use >> 32).expect("shifted"),
            uses: u32::try_from(segment_use & u64::from(u32::MAX)).expect("masked"),
            free: Vec::new(),
            backed: VecDeque::new(),
            reusable: false,
            held: Vec::new(),
            needed: 0,
        };
        space.set_entries(index, units, SegmentState::Log, segment_use);
        space
    }

    /// One entry for each unit, of an image from the piece's first on. What is dead in them is in the table only.
    pub(crate) fn entries(&self) -> &[SegmentEntry] {
        &self.entries
    }

    /// The table as it is written, and up to where it counts dead bytes.
    pub(crate) fn table(&self) -> (Vec<SegmentEntry>, Revision) {
        let mut entries = self.entries.clone();
        self.garbage.note(&mut entries);
        (entries, self.garbage.counted())
    }

    /// What is dead.
    pub(crate) fn garbage(&self) -> &Garbage {
        &self.garbage
    }

    /// More records are dead, by unit; with them those up to `counted` are known.
    pub(crate) fn count_dead(&mut self, counted: Revision, by_unit: HashMap<u32, DeadInUnit>) {
        let entries = &self.entries;
        let more = by_unit.into_iter().filter_map(|(unit, more)| {
            // A long segment's other units have no length.
            let before = entries.get(..=unit as usize)?;
            let begin = before.iter().rposition(|entry| entry.units > 0)?;
            let used = entries[begin].state != SegmentState::Free;
            let begin = u32::try_from(begin).expect("a unit's number");
            used.then(|| (begin, unit - begin, more))
        });
        self.garbage.count(counted, more);
    }

    /// So many bytes of the segment were found to be dead.
    pub(crate) fn set_dead(&mut self, index: u32, bytes: u64) {
        self.garbage.set_bytes(index, bytes);
    }

    /// Bytes of all segments in use, and how many of them are counted as dead.
    pub(crate) fn used_bytes(&self) -> (u64, u64) {
        let used = self.entries.iter();
        let used = used.filter(|entry| entry.state != SegmentState::Free);
        let used = used.count() as u64 * self.geometry.segment_bytes();
        (used, self.garbage.total_bytes())
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

    fn set_entries(&mut self, index: u32, units: u32, state: SegmentState, segment_use: u64) {
        for unit in 0..units {
            let entry = SegmentEntry {
                state,
                segment_use,
                units: if unit == 0 { units } else { 0 },
                dead: 0,
            };
            self.garbage.forget(index + unit);
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
        (self.free.len() + self.backed.len()) as u64 * self.geometry.segment_bytes()
    }

    /// Puts `units` contiguous segments to use as a piece of the log: a free one where `reserve` has found one,
    /// else behind the last; allocates the first `bytes` of them.
    pub(super) fn take(&mut self, storage: &dyn Storage, units: u32, bytes: u64) -> Result<Taken> {
        self.take_as(storage, units, bytes, SegmentState::Log)
    }

    fn take_as(
        &mut self,
        storage: &dyn Storage,
        units: u32,
        bytes: u64,
        state: SegmentState,
    ) -> Result<Taken> {
        let reused = self.backed.front().copied().filter(|_| units == 1);
        let index = reused.unwrap_or(self.end());
        let end = self.geometry.end(index, units).0;
        // Whether changes may go on has been decided before their first byte, by `reserve`.
        self.check_room(end, Room::Upkeep)?;
        let recycled = reused.is_some();
        if recycled {
            self.backed.pop_front();
        } else {
            let start = self.geometry.start(index).0;
            let needed = (start + bytes).min(end);
            self.allocate(storage, start, needed, needed)?;
        }
        self.uses += 1;
        let segment_use = u64::from(self.opens) << 32 | u64::from(self.uses);
        self.set_entries(index, units, state, segment_use);
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
            self.garbage.forget(*index);
            if let Some(entry) = self.entries.get_mut(*index as usize) {
                *entry = SegmentEntry::FREE;
            }
        }
    }

    /// Puts `units` contiguous segments to use for a run.
    pub(super) fn take_run(&mut self, storage: &dyn Storage, units: u32) -> Result<Taken> {
        let bytes = u64::from(units) * self.geometry.segment_bytes();
        self.take_as(storage, units, bytes, SegmentState::Run)
    }

    /// A segment that was put to use, and that nobody has been told of, is free again.
    pub(crate) fn give_up(&mut self, index: u32) {
        let units = self.units_of(index);
        self.set_free(index, units);
        self.add_free(index, units);
    }

    /// A checkpoint that does not name these segments is durable: their space is free once nobody reads them.
    pub(crate) fn hold(&mut self, segments: &[u32], era: u64) {
        for index in segments {
            let (index, units) = (*index, self.units_of(*index));
            self.set_free(index, units);
            self.held.push(Held { index, units, era });
        }
    }

    /// The segments that somebody may still read.
    pub(crate) fn held(&self) -> &[Held] {
        &self.held
    }

    /// Whether no other process reads the file now: what a checkpoint has given up before may be used again (C-3).
    pub(crate) fn is_alone(&mut self, storage: &dyn Storage) -> bool {
        let is_alone = alone(storage, || ()).is_some();
        // Then neither does one of before read what was free when the store was opened.
        self.reusable |= is_alone;
        is_alone
    }

    /// Nobody reads a held segment any more, in this process or another, and its memory is plain again.
    pub(crate) fn release(&mut self, held: Held) {
        self.held.retain(|other| *other != held);
        self.add_free(held.index, held.units);
    }

    fn set_free(&mut self, index: u32, units: u32) {
        for unit in index..index + units {
            self.garbage.forget(unit);
            if let Some(entry) = self.entries.get_mut((unit - self.first) as usize) {
                *entry = SegmentEntry::FREE;
            }
        }
    }

    /// Adds free segments, of which those nearest to the start of the file are taken first again.
    fn add_free(&mut self, index: u32, units: u32) {
        self.free.extend(index..index + units);
        self.free.extend(self.backed.drain(..));
        self.free.sort_unstable_by(|one, other| other.cmp(one));
    }

    /// How many free segments that may be used lie before unit `index`.
    pub(crate) fn free_before(&self, index: u32) -> usize {
        let free = if self.reusable { &self.free[..] } else { &[] };
        let free = free.iter().chain(&self.backed);
        free.filter(|unit| **unit < index).count()
    }

    /// Forgets the free segments at the end of the file: what is asked for next is asked for from there on.
    pub(crate) fn forget_free_end(&mut self) {
        let held_end = self.held_end();
        while let Some(entry) = self.entries.last()
            && entry.state == SegmentState::Free
            && self.end() > held_end
        {
            self.entries.pop();
        }
        let end = self.end();
        self.free.retain(|index| *index < end);
        self.backed.retain(|index| *index < end);
    }

    /// The unit behind the last one that is held.
    fn held_end(&self) -> u32 {
        let ends = self.held.iter().map(|held| held.index + held.units);
        ends.max().unwrap_or(0)
    }

    /// Cuts the file behind what was asked for last, unless another process reads it.
    pub(crate) fn cut_free(&mut self, storage: &dyn Storage) -> Result<()> {
        let end = self.needed.next_multiple_of(BLOCK_BYTES);
        let len = storage.len().map_err(Error::on("read the file's length"))?;
        if end < len
            && end < self.allocated
            && let Some(cut) = alone(storage, || storage.set_len(end))
        {
            cut.map_err(Error::on("cut the file"))?;
            self.allocated = end;
        }
        Ok(())
    }

    /// Makes sure that the file is allocated from `start` to `end`, and to `most` if there is so much: in steps, so
    /// that few calls are needed. Where `start` lies behind all that is allocated, what is between stays a hole.
    pub(super) fn allocate(
        &mut self,
        storage: &dyn Storage,
        start: u64,
        end: u64,
        most: u64,
    ) -> Result<()> {
        let start = start.max(self.allocated);
        if most <= start {
            return Ok(());
        }
        let step = (self.allocated / 8).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let wanted = most.max(start + step).next_multiple_of(STEP_BYTES_MIN);
        let wanted = wanted.min(self.store_bytes_max.max(end));
        // On a disk that is nearly full the step may not fit, and what is needed still does.
        for wanted in [wanted, end] {
            if wanted <= start {
                return Ok(());
            }
            match storage.allocate(start, wanted - start) {
                Ok(()) => {
                    self.allocated = wanted;
                    return Ok(());
                }
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(Error::io("allocate", error)),
            }
        }
        Err(Error::NoSpace {
            needed: end - start,
        })
    }

    /// Gets blocks for `count` free segments, if they may be used and as far as the disk has them; says how many
    /// have them. Once they may be used it stays so: a reader process that comes later adopts a checkpoint that
    /// does not name them.
    fn back(&mut self, storage: &dyn Storage, count: usize) -> Result<usize> {
        if !self.reusable && count > 0 && !self.free.is_empty() {
            self.reusable = alone(storage, || ()).is_some();
        }
        let mut next = if self.reusable { self.free.len() } else { 0 };
        while self.backed.len() < count && next > 0 {
            next -= 1;
            match self.fill(storage, self.free[next]) {
                Ok(()) => self.backed.push_back(self.free.remove(next)),
                // Another one may have fewer holes.
                Err(Error::NoSpace { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.backed.len().min(count))
    }

    /// Gets blocks for the holes of a free segment.
    fn fill(&mut self, storage: &dyn Storage, index: u32) -> Result<()> {
        let (start, end) = (self.geometry.start(index).0, self.geometry.end(index, 1).0);
        let within = end.min(self.allocated).saturating_sub(start);
        if within > 0 {
            storage
                .allocate(start, within)
                .map_err(Error::on_allocate("allocate", within))?;
        }
        self.allocate(storage, start, end, end)
    }

    /// Makes sure that what is wanted can be taken and `kept` be written behind it, on the disk and below the limit
    /// (C-6): in the log's segment, which ends at `segment_end` if there is one, in free segments, and behind the
    /// last.
    pub(super) fn reserve(
        &mut self,
        storage: &dyn Storage,
        segment_end: Option<u64>,
        wanted: Wanted,
        room: Room,
        kept: Kept,
    ) -> Result<()> {
        let segment_bytes = self.geometry.segment_bytes();
        let file_end = u64::from(self.end()) * segment_bytes;
        let is_last = segment_end == Some(file_end);
        let stays = wanted.short + wanted.long_units == 0;
        let reused = self.back(storage, wanted.short as usize)?;
        let fresh = u64::from(wanted.short) - reused as u64;
        let units = fresh + u64::from(wanted.long_units);
        let behind = file_end + units * segment_bytes;
        // Free ones are taken first: the last short one lies at the end of the file if any does.
        let ends_last = if stays {
            is_last
        } else {
            wanted.last_is_short && fresh > 0
        };
        let end = behind - if ends_last { wanted.left } else { 0 };
        if units > 0 {
            self.check_room(end, room)?;
        } else if stays {
            // Changes may go on in a file that recovery has made longer than they may, for as long as free
            // segments make up for it; what is left of a segment is as free as these are, wherever it lies.
            let furthest = file_end.saturating_sub(wanted.left + self.free_bytes());
            self.check_room(furthest, room)?;
        }
        let goes_on = stays || wanted.last_is_short || wanted.for_run;
        // What is left of a segment in the middle cannot be cut off for a recovery.
        let in_rest = kept.bytes <= wanted.left && goes_on && (ends_last || !kept.for_recovery);
        // No piece crosses a border: up to a third of a segment stays empty at its end.
        let pieces = if in_rest {
            0
        } else {
            kept.bytes + kept.bytes / 2
        };
        let runs = u64::from(kept.segments) * segment_bytes;
        let mut needed = if ends_last { end + kept.bytes } else { end };
        if pieces + runs > 0 {
            let of_free = runs + if kept.has_long { 0 } else { pieces };
            let count = usize::try_from(of_free.div_ceil(segment_bytes)).unwrap_or(usize::MAX);
            let backed = self.back(storage, count.saturating_add(reused))? - reused;
            let beyond = pieces + runs - of_free.min(backed as u64 * segment_bytes);
            if beyond > 0 || !in_rest {
                needed = behind + beyond;
            }
        }
        self.check_room(needed, Room::Upkeep)?;
        // Between the log's segment in the middle and a fresh one nothing is written.
        let start = if is_last { 0 } else { file_end };
        let most = if units > 0 {
            needed.max(behind)
        } else {
            needed
        };
        self.allocate(storage, start, needed, most)?;
        self.needed = most;
        Ok(())
    }

    /// Segments that changes leave to the cleaner.
    pub(super) fn kept_for_cleaner(&self, room: Room) -> u32 {
        let is_kept = room == Room::Changes && self.end() >= CLEANER_FROM_SEGMENTS;
        if is_kept { CLEANER_SEGMENTS } else { 0 }
    }

    fn check_room(&self, end: u64, room: Room) -> Result<()> {
        let max = match room {
            Room::Changes => self.store_bytes_max,
            Room::Spare | Room::Cleaning | Room::Compaction | Room::Upkeep => self.upkeep_bytes_max,
        };
        if end > max {
            return Err(Error::StoreFull { needed: end, max });
        }
        Ok(())
    }

    /// Cuts the file behind the last segment in use, or behind the log's head where that lies in it, unless another
    /// process reads it: one that opens it may know the longer length. What is asked for later is asked
    /// for from there on, also where the file stays as it is: it may have holes.
    pub(crate) fn cut(&mut self, storage: &dyn Storage, head: &LogHead) -> Result<()> {
        let used = |entry: &SegmentEntry| entry.state != SegmentState::Free;
        let units = self.entries.iter().rposition(used).map_or(0, |n| n + 1);
        // Views and shared bytes outlive a close.
        let units = units.max(self.held_end() as usize);
        let log_end = head.segment as usize + self.units_of(head.segment) as usize;
        let end = if log_end >= units {
            head.position.0
        } else {
            units as u64 * self.geometry.segment_bytes()
        };
        let mut len = storage.len().map_err(Error::on("read the file's length"))?;
        if end < len
            && let Some(cut) = alone(storage, || storage.set_len(end))
        {
            cut.map_err(Error::on("cut the file"))?;
            len = end;
        }
        self.allocated = end.min(len);
        // Free ones behind the end of the file are none.
        while self.entries.len() > units && self.geometry.start(self.end() - 1).0 >= len {
            self.entries.pop();
        }
        let table_end = self.end();
        self.free.retain(|index| *index < table_end);
        self.backed.retain(|index| *index < table_end);
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
