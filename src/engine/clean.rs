//! Physical compaction: records that stay are copied out of segments in which most are dead, and the segments
//! are given up (SPEC.md, K-6 to K-9, C-3).
//!
//! One round, with commits going on beside it, under the checkpoint lock:
//!
//! 1. A checkpoint, so that every leaf of a full segment lies under the pages.
//! 2. Of all segments before the log's head, take the lengths of their leaves and what is counted as dead of these
//!    (K-11). Choose those that give most space back.
//! 3. Copy what stays of these into a run (B-32), in fresh segments that nothing names: what is on no list of dead
//!    records. All that can fail of telling the index of the copies is done here.
//! 4. A checkpoint whose tree has the copies and whose segment table lacks the old segments. From here on a
//!    crash leaves the new ones; before, the old ones and nothing else.
//! 5. Adopt: no hint leads into the old segments any more; then the tree of step 4; then the index entries, by
//!    compare-and-swap. Whoever begins behind this finds no way to the old bytes.
//! 6. Hold the old segments until nobody reads there who began before, nor another process.
//!
//! 3 before 4: a checkpoint must not name bytes that are not synced with it. 4 before 6: what the durable
//! checkpoint names is not written over. In 5 hints come first: a walk over a tree that stays the same while it
//! is walked takes positions for names of records, so what a hint leads to must be where that tree has it. The
//! index comes last, since a record that is written gets its hint from there.
//!
//! What is damaged is not moved: its segment stays as it is, and is told.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use revtree_format::limits::BLOCK_BYTES;
use revtree_format::{
    ChangeId, Geometry, LeafRun, Link, NewRecord, Position, RECORD_HEAD_BYTES_MAX, RecordHead,
    Revision, RootKind, SegmentEntry, SegmentState, check_value,
};

use super::checkpoint::Instead;
use super::{Checkpoint, Engine};
use crate::error::{Error, Result};
use crate::pager::{DeadInUnit, DeadRecords, Held, Room, Run, RunSegment, RunWriter, empty};
use crate::sync::Ordering;
use crate::sys::Unread;
use crate::trace;
use crate::tree::{Direction, LeafCursor, LeafRecords, Tree};

/// What the layer above knows of records.
pub(crate) trait Relocate: Sync {
    /// Whether a record is still needed, where the list of dead ones does not tell.
    fn stays(&self, position: Position, head: &RecordHead, key: &[u8]) -> Result<bool>;

    /// So many bytes have been read and written since the last call: whoever goes slowly waits here. `false`: the
    /// round is to be given up.
    fn goes_on(&self, bytes: u64) -> bool;

    /// The record of `key` at `from` has been copied to `to`, where nobody can read it yet.
    fn copied(&self, key: &[u8], from: Position, to: Position) -> Result<()>;

    /// Nothing comes of what was copied so far.
    fn forget(&self);

    /// What was copied is found from now on, and whoever begins behind this finds no way to what it was copied from.
    /// Gives a number for those who began before. It cannot fail: the checkpoint that names the copies is durable.
    fn adopt(&self) -> u64;
}

/// What one round may do.
#[derive(Debug)]
pub(crate) struct Round<'r> {
    /// The revision up to which records may be dropped.
    pub(crate) cleaned: Revision,
    /// So many bytes are copied at most.
    pub(crate) copied_bytes_max: u64,
    /// Where nothing is to be gained, segments at the end of the file are moved forward, so that it can be cut.
    pub(crate) moves_last: bool,
    /// Segments that damage has been found in, by unit and use.
    pub(crate) damaged: &'r mut HashSet<(u32, u64)>,
}

/// What one round did.
#[derive(Debug, Default)]
pub(crate) struct Cleaned {
    /// Bytes of the segments that were given up.
    pub(crate) given_up_bytes: u64,
    /// Bytes of the runs that were written.
    pub(crate) copied_bytes: u64,
    /// What kept segments from being given up.
    pub(crate) damage: Vec<Error>,
}

/// A segment that might be given up.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    index: u32,
    units: u32,
    segment_use: u64,
    /// Bytes of its records, and of those that are counted as dead.
    bytes: u64,
    dead_bytes: u64,
}

impl Candidate {
    /// Bytes of records in it that stay, as a run would have them.
    fn stays_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.dead_bytes)
    }
}

/// The units of the segments that are given up.
struct Victims {
    geometry: Geometry,
    segments: Vec<u32>,
    /// Each with the first of its segment.
    units: HashMap<u32, u32>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error, leaf: None }
    }
}

impl Victims {
    fn of<'c>(geometry: Geometry, candidates: impl Iterator<Item = &'c Candidate>) -> Victims {
        let (mut segments, mut units) = (Vec::new(), HashMap::new());
        for candidate in candidates {
            let index = candidate.index;
            segments.push(index);
            units.extend((index..index + candidate.units).map(|unit| (unit, index)));
        }
        Victims {
            geometry,
            segments,
            units,
        }
    }

    fn has(&self, position: Position) -> bool {
        self.segment_at(position).is_some()
    }

    /// The segment in which a position lies.
    fn segment_at(&self, position: Position) -> Option<u32> {
        let unit = self.geometry.index_of(position)?;
        self.units.get(&unit).copied()
    }
}

/// What of the victims stays.
struct Choice<'c> {
    victims: &'c Victims,
    dead: Arc<DeadRecords>,
    /// Those in the victims.
    gone: HashSet<Position>,
    relocate: &'c dyn Relocate,
}

impl Choice<'_> {
    fn stays(&self, position: Position, head: &RecordHead, key: &[u8]) -> Result<bool> {
        if self.dead.are_known_at(position) {
            Ok(!self.gone.contains(&position))
        } else {
            self.relocate.stays(position, head, key)
        }
    }
}

/// What stays of the victims.
struct Copied {
    run: Run,
    /// Its bytes by the segment from which it was copied.
    stayed: HashMap<u32, u64>,
}

/// Why nothing was copied.
struct Failed {
    error: Error,
    /// The leaf in which that was found.
    leaf: Option<Position>,
}

/// Units that a bounded round gives up at most, in a store that is not larger than 64 times that.
const GIVEN_UP_UNITS_MAX: u64 = 24;

impl Engine {
    /// Cleans once.
    pub(crate) fn clean(&self, round: Round<'_>, relocate: &dyn Relocate) -> Result<Cleaned> {
        let Round {
            cleaned,
            copied_bytes_max,
            moves_last,
            damaged,
        } = round;
        let mut done = Cleaned::default();
        self.check_writable()?;
        let mut checkpoint = self.enter_checkpoint()?;
        if self.is_retired() {
            // Another content has come, or a close: nobody needs the space.
            return Ok(done);
        }
        // 1.
        self.checkpoint_locked(&mut checkpoint, None, None)?;
        let Some(tree_root) = checkpoint.superblock.root(RootKind::Tree).copied() else {
            return Ok(done);
        };
        // 2.
        let tree = Tree::new(Arc::clone(&self.medium), Some(&tree_root));
        let mut candidates = self.candidates(&tree, &checkpoint)?;
        candidates.retain(|index, candidate| !damaged.contains(&(*index, candidate.segment_use)));
        let (victims, copied) = loop {
            let mut victims = self.choose(&candidates, copied_bytes_max);
            if victims.segments.is_empty() && moves_last {
                victims = self.choose_last(&candidates, copied_bytes_max)?;
            }
            if victims.segments.is_empty() {
                return Ok(done);
            }
            // 3.
            match self.copy(&tree, &victims, relocate) {
                Ok(copied) => break (victims, copied),
                Err(Failed {
                    error: error @ Error::Corrupt { .. },
                    leaf: Some(leaf),
                }) => {
                    let found = self.segment_at(&candidates, leaf);
                    if let Some(candidate) = found.and_then(|index| candidates.remove(&index)) {
                        damaged.insert((candidate.index, candidate.segment_use));
                    }
                    done.damage.push(error);
                }
                // Nobody needs the space any more.
                Err(_) if self.is_retired() => return Ok(done),
                Err(failed) => return Err(failed.error),
            }
        };
        let Copied { run, stayed } = copied;
        let gains = run.units() < victims.units.len() as u64;
        let comes_forward = victims.units.keys().all(|unit| run.end() <= *unit);
        if !gains && !comes_forward {
            // Long records and the borders of segments took more than was thought, or less is dead than was counted.
            self.give_up(run, relocate)?;
            let mut append = self.append()?;
            for index in &victims.segments {
                let bytes = candidates.get(index).map_or(0, |candidate| candidate.bytes);
                let stays = stayed.get(index).copied().unwrap_or_default();
                let space = append.log.space_mut();
                space.set_dead(*index, bytes.saturating_sub(stays));
            }
            return Ok(done);
        }
        done.copied_bytes = run.bytes(&self.medium);
        // 4. A check beside it, which reads the superblock, knows the uses of the new segments before.
        run.announce(&self.medium);
        let run = RefCell::new(run);
        let leaves = std::mem::take(&mut run.borrow_mut().leaves);
        let mut free: Vec<u32> = victims.units.keys().copied().collect();
        free.sort_unstable();
        let instead = Instead {
            cleaned,
            leaves: &leaves,
            gone: &|position| victims.has(position),
            free: &free,
            adopt: &|| {
                run.borrow_mut().publish();
                free.iter().for_each(|unit| self.medium.retire(*unit));
            },
        };
        let written = self.checkpoint_locked(&mut checkpoint, None, Some(&instead));
        let run = run.into_inner();
        if let Err(error) = written {
            self.give_up(run, relocate)?;
            return Err(error);
        }
        // 5, behind the tree, which the checkpoint has adopted; and 6.
        let era = relocate.adopt();
        let mut append = self.append()?;
        append.log.space_mut().hold(&victims.segments, era);
        drop(append);
        done.given_up_bytes = victims.units.len() as u64 * self.medium.geometry.segment_bytes();
        let counters = &self.counters;
        counters
            .cleaned_bytes
            .fetch_add(done.given_up_bytes, Ordering::Relaxed);
        counters
            .copied_bytes
            .fetch_add(done.copied_bytes, Ordering::Relaxed);
        for segment in run.into_sealed() {
            self.show(segment);
        }
        trace::event!(
            DEBUG,
            segments = victims.segments.len(),
            copied_bytes = done.copied_bytes,
            "segments cleaned"
        );
        Ok(done)
    }

    /// The segments before the log's head, with what stays of each by the numbers (K-11).
    fn candidates(&self, tree: &Tree, checkpoint: &Checkpoint) -> Result<BTreeMap<u32, Candidate>> {
        let head_use = checkpoint.superblock.head.segment_use;
        // A segment of the log before the head's is full and durable, and its leaves are under the pages.
        let is_before = |entry: &SegmentEntry| match entry.state {
            SegmentState::Log => entry.segment_use < head_use,
            SegmentState::Run => true,
            SegmentState::Free => false,
        };
        let mut candidates = BTreeMap::new();
        {
            let append = self.append()?;
            let space = append.log.space();
            for (index, entry) in (0u32..).zip(space.entries()) {
                if entry.units > 0 && is_before(entry) {
                    let candidate = Candidate {
                        index,
                        units: entry.units,
                        segment_use: entry.segment_use,
                        bytes: 0,
                        dead_bytes: space.garbage().bytes_of(index),
                    };
                    candidates.insert(index, candidate);
                }
            }
        }
        let mut cursor = LeafCursor::seek(tree, ChangeId::default(), Direction::Forward)?;
        while let Some(leaf) = cursor.next()? {
            let index = self.segment_at(&candidates, leaf.position);
            if let Some(candidate) = index.and_then(|index| candidates.get_mut(&index)) {
                candidate.bytes += u64::from(leaf.len);
            }
        }
        Ok(candidates)
    }

    /// The candidate in which a position lies.
    fn segment_at(&self, candidates: &BTreeMap<u32, Candidate>, position: Position) -> Option<u32> {
        let unit = self.medium.geometry.index_of(position)?;
        let (index, candidate) = candidates.range(..=unit).next_back()?;
        (unit - index < candidate.units).then_some(*index)
    }

    /// Those segments with which most space comes back, and least is copied for it.
    fn choose(&self, candidates: &BTreeMap<u32, Candidate>, copied_bytes_max: u64) -> Victims {
        let geometry = self.medium.geometry;
        // Frames and the borders of leaves take some of a segment, and a record that does not fit leaves a rest.
        let usable = (geometry.segment_bytes() - 2 * BLOCK_BYTES) / 16 * 15;
        let whole = candidates.values();
        let mut whole: Vec<&Candidate> = whole
            .filter(|candidate| {
                // To copy what is nearly all live gives back less than it costs.
                let worth = u64::from(candidate.units) * usable / 8 * 7;
                candidate.stays_bytes() <= worth
            })
            .collect();
        whole.sort_by_key(|candidate| candidate.stays_bytes() / u64::from(candidate.units));
        // Of a bounded round somebody may wait for what it gives back, which is there at its end.
        let units: u64 = candidates.values().map(|one| u64::from(one.units)).sum();
        let is_bounded = copied_bytes_max < u64::MAX;
        let given_up_max = GIVEN_UP_UNITS_MAX.max(units / 64);
        let given_up_max = if is_bounded { given_up_max } else { u64::MAX };
        let (mut best, mut best_gain) = (0, 0);
        let (mut given_up, mut stays) = (0u64, 0u64);
        for (n, candidate) in whole.iter().enumerate() {
            given_up += u64::from(candidate.units);
            stays += candidate.stays_bytes();
            if stays > copied_bytes_max {
                break;
            }
            if given_up > given_up_max && best > 0 {
                break;
            }
            let gain = given_up.saturating_sub(stays.div_ceil(usable));
            if gain > best_gain {
                (best, best_gain) = (n + 1, gain);
            }
        }
        Victims::of(geometry, whole.into_iter().take(best))
    }

    /// The segments at the end of the file that can be moved into free ones before them, so that it can be cut.
    fn choose_last(
        &self,
        candidates: &BTreeMap<u32, Candidate>,
        copied_bytes_max: u64,
    ) -> Result<Victims> {
        let append = self.append()?;
        let space = append.log.space();
        let held_end = space.held().iter().map(|held| held.index + held.units);
        let held_end = held_end.max().unwrap_or(0);
        let used = (0u32..).zip(space.entries());
        let used = used.filter(|(_, entry)| entry.state != SegmentState::Free);
        let used: Vec<u32> = used.map(|(index, _)| index).collect();
        let (mut last, mut stays) = (Vec::new(), 0);
        for index in used.into_iter().rev() {
            // A long one needs as many neighbours.
            let whole = candidates.get(&index);
            let whole = whole.filter(|candidate| candidate.units == 1 && index >= held_end);
            let Some(candidate) = whole else {
                break;
            };
            stays += candidate.stays_bytes();
            if space.free_before(index) <= last.len() || stays > copied_bytes_max {
                break;
            }
            last.push(candidate);
        }
        Ok(Victims::of(self.medium.geometry, last.into_iter()))
    }

    /// Copies what stays of the victims, in the order of the tree. Nothing of it is left when it fails.
    fn copy(
        &self,
        tree: &Tree,
        victims: &Victims,
        relocate: &dyn Relocate,
    ) -> Result<Copied, Failed> {
        let dead = self.append()?.log.space().garbage().shown().load_full();
        let choice = Choice {
            victims,
            gone: dead.positions().filter(|at| victims.has(*at)).collect(),
            dead,
            relocate,
        };
        let mut writer = RunWriter::new(&self.medium, self.opens, |len| self.take_run(len));
        let written = self
            .copy_leaves(tree, &choice, &mut writer)
            .and_then(|stayed| {
                self.poisons(writer.write_out())?;
                Ok(stayed)
            });
        let run = writer.into_run();
        match written {
            Ok(stayed) => Ok(Copied { run, stayed }),
            Err(failed) => {
                self.give_up(run, relocate)?;
                Err(failed)
            }
        }
    }

    fn take_run(&self, len: usize) -> Result<RunSegment> {
        self.check_writable()?;
        self.append()?.take_run(len)
    }

    fn copy_leaves<T: FnMut(usize) -> Result<RunSegment>>(
        &self,
        tree: &Tree,
        choice: &Choice<'_>,
        writer: &mut RunWriter<'_, T>,
    ) -> Result<HashMap<u32, u64>, Failed> {
        let victims = choice.victims;
        let (mut moved, mut stayed) = (HashMap::new(), HashMap::new());
        let mut cursor = LeafCursor::seek(tree, ChangeId::default(), Direction::Forward)?;
        while let Some(leaf) = cursor.next()? {
            if !victims.has(leaf.position) {
                writer.interrupt();
                continue;
            }
            let bytes = self
                .copy_leaf(leaf, choice, writer, &mut moved)
                .map_err(|error| Failed {
                    error,
                    leaf: Some(leaf.position),
                })?;
            if let Some(segment) = victims.segment_at(leaf.position) {
                *stayed.entry(segment).or_default() += bytes;
            }
            // What stays is read and written; of the rest the heads are looked at.
            let touched = 2 * bytes + u64::from(leaf.records) * RECORD_HEAD_BYTES_MAX as u64;
            if !choice.relocate.goes_on(touched) {
                return Err(Error::Closed.into());
            }
        }
        Ok(stayed)
    }

    /// Gives the bytes of the records that stay.
    fn copy_leaf<T: FnMut(usize) -> Result<RunSegment>>(
        &self,
        leaf: LeafRun,
        choice: &Choice<'_>,
        writer: &mut RunWriter<'_, T>,
        moved: &mut HashMap<Position, Position>,
    ) -> Result<u64> {
        let mut records = LeafRecords::new(&self.medium, leaf);
        let (victims, mut stays_bytes) = (choice.victims, 0);
        while let Some(record) = records.next() {
            let (from, head) = record?;
            let (start, value) = records.bytes().split_at(head.value_at());
            let key = &start[head.key_at.into()..];
            if !choice.stays(from, &head, key)? {
                continue;
            }
            // A copy makes checksums of what it is given: damage must not get good ones (K-7).
            let value = &value[..head.value_len as usize];
            check_value(&head, value, from)?;
            let relink = |link: Option<Link>| {
                link.map(|link| {
                    let hint = match moved.get(&link.hint) {
                        // Older records come first, so those that move have moved.
                        Some(hint) => *hint,
                        // One that is not valid here must not become so by a later use (B-47).
                        None if victims.has(link.hint)
                            || !self.medium.is_hint_valid(from, link.hint) =>
                        {
                            Position::NONE
                        }
                        None => link.hint,
                    };
                    Link { hint, ..link }
                })
            };
            let (prev, skip) = (relink(head.prev), relink(head.skip));
            let to = writer.append(&NewRecord::again(&head, prev, skip, key, value))?;
            choice.relocate.copied(key, from, to)?;
            moved.insert(from, to);
            stays_bytes += head.record_len() as u64;
        }
        Ok(stays_bytes)
    }

    /// A run that no checkpoint names is forgotten.
    fn give_up(&self, run: Run, relocate: &dyn Relocate) -> Result<()> {
        relocate.forget();
        let mut append = self.append()?;
        for index in run.give_up(&self.medium) {
            append.log.space_mut().give_up(index);
        }
        Ok(())
    }

    /// Up to where dead bytes have been counted (K-11).
    pub(crate) fn counted_dead(&self) -> Result<Revision> {
        Ok(self.append()?.log.space().garbage().counted())
    }

    /// More records are dead, by unit; with them those up to `counted` are known.
    pub(crate) fn count_dead(
        &self,
        counted: Revision,
        by_unit: HashMap<u32, DeadInUnit>,
    ) -> Result<()> {
        self.append()?.log.space_mut().count_dead(counted, by_unit);
        Ok(())
    }

    /// Which records are dead, as far as that is known; `None` where it is not counted. For readers: it takes no lock.
    pub(crate) fn dead_records(&self) -> Option<Arc<DeadRecords>> {
        self.dead.as_ref().map(|dead| dead.load_full())
    }

    /// Bytes of log since the store was opened.
    pub(crate) fn appended(&self) -> Result<u64> {
        Ok(self.append()?.log.appended())
    }

    /// Bytes of all segments in use, and how many of them are counted as dead.
    pub(crate) fn used_bytes(&self) -> Result<(u64, u64)> {
        Ok(self.append()?.log.space().used_bytes())
    }

    /// Bytes of segments that have been given up and that somebody may still read.
    pub(crate) fn held_bytes(&self) -> u64 {
        if self.read_only {
            return 0;
        }
        let units: u32 = self
            .held()
            .map_or(0, |held| held.iter().map(|held| held.units).sum());
        u64::from(units) * self.medium.geometry.segment_bytes()
    }

    /// Segments that have been given up and that somebody may still read.
    pub(crate) fn held(&self) -> Result<Vec<Held>> {
        Ok(self.append()?.log.space().held().to_vec())
    }

    /// Frees those held segments of which nobody in this process reads any more, if no other process reads the
    /// file. Gives their bytes.
    pub(crate) fn release(&self, unread: Vec<(Held, Unread)>) -> Result<u64> {
        let mut append = self.append()?;
        let space = append.log.space_mut();
        if !space.is_alone(&**self.storage()) {
            return Ok(0);
        }
        let mut bytes = 0;
        for (held, unread) in unread {
            if !empty(&self.medium, held.index, held.units, &unread) {
                // It stays held: there was no memory, or it is just being shown from the file.
                continue;
            }
            space.release(held);
            bytes += u64::from(held.units) * self.medium.geometry.segment_bytes();
        }
        Ok(bytes)
    }

    /// The log goes on in a free segment before its own, if there is one, and another for what stays in its own.
    pub(crate) fn move_log_forward(&self) -> Result<()> {
        self.check_writable()?;
        let mut append = self.append()?;
        let moved = append.move_forward();
        match moved {
            Err(Error::NoSpace { .. } | Error::StoreFull { .. }) => Ok(()),
            moved => self.poisons(moved),
        }
    }

    /// Cuts the file behind what is in use and what is kept for upkeep.
    pub(crate) fn cut_free(&self) -> Result<()> {
        self.check_writable()?;
        let mut append = self.append()?;
        append.log.space_mut().forget_free_end();
        // What is kept is asked for as for a change: on a full disk or in a full store nothing is cut.
        let kept = append.reserve(std::iter::once(64), 0, Room::Changes);
        match kept {
            Err(Error::NoSpace { .. } | Error::StoreFull { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => append.log.space_mut().cut_free(&**self.storage()),
        }
    }
}
