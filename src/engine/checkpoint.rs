//! The checkpoint (SPEC.md, C-12 to C-16): one at a time, with commits going on beside it.
//!
//! 1. Under the append lock: seal the open group, note the log's head there, the state, and the leaves
//!    since the last checkpoint.
//! 2. Append branch pages for these leaves, the segment table, the side tables when they changed, and at
//!    close the key index: ordinary frames of the log.
//! 3. Sync the log: all that the superblock will name is durable.
//! 4. Write both slots of the other pair. 5. Sync.
//! 6. Adopt the pages in memory.
//!
//! 3 before 4: a superblock that names pages which are not there would be the newest valid one. 4 into
//! the pair that does not hold the newest: a torn update leaves that one. A crash before 5 leaves the
//! old superblock and its chain, which goes through the new pages as through any frame. No segment that
//! the old superblock names is freed before 5.

#![expect(clippy::disallowed_types, reason = "one checkpoint at a time")]

use std::sync::Arc;

use revtree_format::limits::{LEAF_BYTES_MAX, SEGMENTS_START};
use revtree_format::{
    ChunkRefBytes, Directory, FrameKind, LeafRun, PageRef, Position, Revision, Root, RootKind,
    SegmentEntry, SegmentEntryBytes, Superblock,
};

use super::pages::{write_index, write_segments, write_tables};
use super::{Append, Checkpoint, Engine, IndexRun, State};
use crate::error::{Error, Result};
use crate::pager::{Pages, Room, RunSegment, Superblocks, Wanted};
use crate::sync::{MutexGuard, Ordering};
use crate::trace;
use crate::tree::{Spine, Splice, TreeRoot};

/// What a checkpoint puts in the place of leaves and segments that go.
pub(super) struct Instead<'a> {
    /// The revision up to which records may have been dropped.
    pub(super) cleaned: Revision,
    /// Leaves and pages at such positions go.
    pub(super) gone: &'a dyn Fn(Position) -> bool,
    /// The leaves that come.
    pub(super) leaves: &'a [LeafRun],
    /// The units that are free then.
    pub(super) free: &'a [u32],
    /// Called when it is durable, before readers get its tree.
    pub(super) adopt: &'a dyn Fn(),
}

impl Engine {
    /// Whether so much log has been written since the last checkpoint that another is due.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        let Ok(append) = self.append() else {
            return false;
        };
        append.log.appended() - append.checkpointed >= self.checkpoint_bytes
    }

    /// Writes a checkpoint if one is due and none is being written.
    pub(crate) fn maintain(&self) -> Result<()> {
        if !self.is_checkpoint_due() || self.check_writable().is_err() {
            return Ok(());
        }
        // Not when retired: a close's own checkpoint is the last.
        let entered = self.checkpoint.try_enter();
        let Some(mut checkpoint) = entered.map_err(|_broken| self.given_up())? else {
            return Ok(());
        };
        match self.checkpoint_locked(&mut checkpoint, None, None) {
            // The log goes on as before; the next one tries again.
            Err(_full @ (Error::NoSpace { .. } | Error::StoreFull { .. })) => {
                trace::event!(WARN, error = %_full, "checkpoint put off");
                Ok(())
            }
            other => other,
        }
    }

    /// Writes a checkpoint, with the key index when `run` is given.
    pub(crate) fn checkpoint(&self, run: Option<&dyn IndexRun>) -> Result<()> {
        let mut checkpoint = self.enter_checkpoint()?;
        self.checkpoint_locked(&mut checkpoint, run, None)
    }

    /// The checkpoint lock; after a panic under it nobody knows what was written.
    pub(super) fn enter_checkpoint(&self) -> Result<MutexGuard<'_, Checkpoint>> {
        self.checkpoint.enter().map_err(|_broken| self.given_up())
    }

    pub(super) fn checkpoint_locked(
        &self,
        checkpoint: &mut Checkpoint,
        run: Option<&dyn IndexRun>,
        instead: Option<&Instead<'_>>,
    ) -> Result<()> {
        self.check_writable()?;
        trace::span!("checkpoint", with_index = run.is_some());
        // 1.
        let (head, state, tails, commits) = {
            let mut append = self.append()?;
            append.reserve(std::iter::once(64), 0, Room::Upkeep)?;
            let sealed = append.log.seal();
            let group = self.poisons(sealed)?;
            let (fresh, tails) = self.tree.freeze();
            append.tail = fresh;
            append.frozen = tails.iter().map(|tail| tail.len()).sum();
            append.checkpointed = append.log.appended();
            let commits = self.counters.commits.load(Ordering::Relaxed);
            (group.head, append.accepted.clone(), tails, commits)
        };
        // 2.
        let generation = checkpoint.superblock.generation + 1;
        let mut append_page =
            |kind: FrameKind, body: &[u8]| self.append_page(kind, body, Room::Upkeep);
        let mut spine = match (instead, checkpoint.superblock.root(RootKind::Tree)) {
            (Some(instead), Some(root)) => {
                let splice = Splice {
                    gone: instead.gone,
                    leaves: instead.leaves,
                    cleaned: instead.cleaned,
                    generation,
                };
                Spine::spliced(&self.tree, &root.into(), &splice, &mut append_page)?
            }
            _ => checkpoint.spine.clone(),
        };
        for tail in &tails {
            for n in 0..tail.len() {
                spine.push(tail.get(n), generation, &mut append_page)?;
            }
        }
        let unchanged = instead.is_none() && spine.records() == checkpoint.superblock.records;
        let tree_root = if unchanged {
            checkpoint.superblock.root(RootKind::Tree).copied()
        } else {
            spine.write(generation, &mut append_page)?
        };
        let mut roots = Vec::new();
        roots.extend(tree_root);
        roots.extend(self.write_tables(checkpoint, &state, instead)?);
        if let Some(run) = run {
            roots.extend(self.write_index(run, &state)?);
        }
        let idle = || commits == self.counters.commits.load(Ordering::Relaxed);
        let mut noted = self.append()?.log.head().segment_use;
        let (mut segments, mut segment_count) = self.write_segments(instead)?;
        for _ in 0..TABLE_RETRIES {
            let last = self.append()?.log.head().segment_use;
            if last == noted || !idle() {
                break;
            }
            // Its own frames began another segment, which it does not know: written again, it does.
            noted = last;
            (segments, segment_count) = self.write_segments(instead)?;
        }
        roots.push(segments);
        // 3.
        let end = {
            let mut append = self.append()?;
            append.reserve(std::iter::once(64), 0, Room::Upkeep)?;
            let sealed = append.log.seal();
            let group = self.poisons(sealed)?;
            if idle() {
                append.checkpointed = append.log.appended();
            }
            // Nothing was committed since step 1: replay need not pass over the pages, if the table
            // knows the segments that they are in (B-86).
            if idle() && group.head.segment_use == noted {
                group.head
            } else {
                head
            }
        };
        let sequence = self.append()?.log.sequence();
        self.sync_to(sequence.saturating_sub(1))?;
        // 4 and 5.
        let next = Superblock {
            generation,
            edition: 0,
            head: end,
            revision: state.rev,
            compact_revision: state.compact,
            applied_index: state.applied.index,
            applied_term: state.applied.term,
            records: spine.records(),
            segment_count,
            roots,
            ..checkpoint.superblock.clone()
        };
        let written = Superblocks::write(&**self.storage(), &next);
        self.poisons(written.map_err(Error::on("write a superblock")))?;
        self.sync_file()?;
        // 6.
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        {
            let mut append = self.append()?;
            append.frozen -= tails.iter().map(|tail| tail.len()).sum::<usize>();
            append.tables = state.tables.clone();
        }
        if let Some(instead) = instead {
            (instead.adopt)();
        }
        self.tree
            .adopt(tree_root.as_ref().map(TreeRoot::from), tails.len());
        checkpoint.spine = spine;
        checkpoint.tables = state.tables;
        checkpoint.superblock = next;
        self.tell_metrics();
        trace::event!(
            DEBUG,
            revision = checkpoint.superblock.revision.get(),
            records = checkpoint.superblock.records,
            segments = segment_count,
            "checkpoint written"
        );
        Ok(())
    }

    /// Appends one page: space is asked for first, so that a full disk only ends the checkpoint.
    fn append_page(&self, kind: FrameKind, body: &[u8], room: Room) -> Result<PageRef> {
        self.check_writable()?;
        let mut append = self.append()?;
        append.reserve(std::iter::once(body.len()), 0, room)?;
        // Its own pages do not bring the next checkpoint nearer, as the commits beside it do.
        let flushed = append.log.flush();
        self.poisons(flushed)?;
        let before = append.log.appended();
        let page = append.log.append_page(kind, body);
        append.checkpointed += append.log.appended() - before;
        self.poisons(page)
    }

    /// Appends a page of `len` bytes that nobody will read, as a checkpoint that is given up leaves.
    #[cfg(test)]
    pub(crate) fn append_lost_page(&self, len: usize) -> Result<()> {
        self.append_page(FrameKind::Chunk, &vec![0; len], Room::Upkeep)
            .map(|_| ())
    }

    /// A failure to append leaves the log's end unknown.
    pub(super) fn poisons<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(Error::Io { cause, .. }) = &result {
            self.poison(Arc::clone(cause));
        }
        result
    }

    fn write_tables(
        &self,
        checkpoint: &Checkpoint,
        state: &State,
        instead: Option<&Instead<'_>>,
    ) -> Result<Option<Root>> {
        let root = checkpoint.superblock.root(RootKind::Tables).copied();
        if state.tables.same(&checkpoint.tables) && self.stays(root.as_ref(), instead)? {
            return Ok(root);
        }
        let limit = self.append()?.log.chunk_bytes();
        write_tables(&state.tables, limit, &mut |kind, body| {
            self.append_page(kind, body, Room::Upkeep)
        })
        .map(Some)
    }

    /// Whether a blob lies where nothing goes.
    fn stays(&self, root: Option<&Root>, instead: Option<&Instead<'_>>) -> Result<bool> {
        let (Some(root), Some(instead)) = (root, instead) else {
            return Ok(true);
        };
        let directory = self.medium.page(&root.page, FrameKind::Directory)?;
        let directory = Directory::parse(&directory, root.page.position)?;
        let mut pages = directory.chunks.iter().chain([&root.page]);
        Ok(!pages.any(|page| (instead.gone)(page.position)))
    }

    /// The key index, where there is room for it: the next open can make it again.
    fn write_index(&self, run: &dyn IndexRun, state: &State) -> Result<Option<Root>> {
        let limit = self.append()?.log.chunk_bytes();
        let mut append_page =
            |kind: FrameKind, body: &[u8]| self.append_page(kind, body, Room::Spare);
        match write_index(run, state.rev.get(), limit, &mut append_page) {
            Ok(root) => Ok(Some(root)),
            Err(_full @ (Error::NoSpace { .. } | Error::StoreFull { .. })) => {
                trace::event!(WARN, error = %_full, "key index left out");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The table as it is now: segments that its own frames still take are in the chain behind the head.
    fn write_segments(&self, instead: Option<&Instead<'_>>) -> Result<(Root, u32)> {
        let (mut entries, counted) = self.append()?.log.space().table();
        let free = instead.map_or(&[][..], |instead| instead.free);
        for unit in free {
            if let Some(entry) = entries.get_mut(*unit as usize) {
                *entry = SegmentEntry::FREE;
            }
        }
        write_segments((&entries, counted), &mut |kind, body| {
            self.append_page(kind, body, Room::Upkeep)
        })
    }

    /// Ends the store: everything durable, a checkpoint with the key index, the file cut behind the log.
    pub(crate) fn close(&self, run: &dyn IndexRun) -> Result<()> {
        if self.read_only {
            self.closed.store(true, Ordering::Release);
            return Ok(());
        }
        trace::span!("close", path = %self.path.display());
        let result = self.close_log(run);
        match &result {
            Ok(()) => trace::event!(INFO, revision = self.rev().get(), "store closed"),
            Err(_error) => trace::event!(WARN, error = %_error, "store closed with an error"),
        }
        self.closed.store(true, Ordering::Release);
        result
    }

    fn close_log(&self, run: &dyn IndexRun) -> Result<()> {
        self.check_writable()?;
        self.retire();
        let (unchanged, has_run, before) = {
            let checkpoint = self.enter_checkpoint()?;
            let append = self.append()?;
            let appended = append.log.appended() > 0;
            let unchanged = (!appended || append.log.head() == checkpoint.superblock.head)
                && append.accepted_sequence < append.log.sequence();
            let run = checkpoint.superblock.root(RootKind::Index);
            (unchanged, run.is_some(), append.log.head())
        };
        let mut left_out = false;
        if !(unchanged && has_run) {
            match self.checkpoint(Some(run)) {
                // Nothing was missing but the run, which the next open can make.
                Err(Error::NoSpace { .. } | Error::StoreFull { .. }) if unchanged => {
                    self.append()?.log.take_back(&before)?;
                    left_out = true;
                }
                Err(error) => {
                    // Without room for a checkpoint the next open replays the log; but what was accepted must
                    // be in it, also where commits did not wait for a sync.
                    let accepted = self.append()?.accepted_sequence;
                    self.sync_to(accepted)?;
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        let mut append = self.append()?;
        let head = if left_out { before } else { append.log.head() };
        if head.position.0 > SEGMENTS_START {
            append.log.space_mut().cut(&**self.storage(), &head)?;
            self.storage()
                .sync_all()
                .map_err(Error::on("sync the file"))?;
        }
        Ok(())
    }
}

impl Append {
    /// As [`Log::move_forward`](crate::pager::Log::move_forward).
    pub(super) fn move_forward(&mut self) -> Result<()> {
        let pages = self.pages(&Wanted::default(), 0);
        self.log.move_forward(pages)
    }

    /// A segment for a run in which a record of `len` bytes fits.
    pub(super) fn take_run(&mut self, len: usize) -> Result<RunSegment> {
        let pages = self.pages(&Wanted::default(), 0);
        self.log.take_run(len, pages)
    }

    /// What a checkpoint would write at most once these pieces have been appended, of which so many bytes are rows
    /// of side tables.
    pub(super) fn pages(&self, wanted: &Wanted, table_bytes: u64) -> Pages {
        // A leaf at least for each half leaf of bytes.
        let fresh = wanted.bytes / (LEAF_BYTES_MAX as u64 / 2) + 1;
        let leaves = (self.frozen + self.tail.len()) as u64 + fresh;
        let tables = &self.accepted.tables;
        let (tables, row) = if table_bytes == 0 && tables.same(&self.tables) {
            (0, 0)
        } else {
            let row = tables.longest_item().max(table_bytes);
            (tables.encoded_bytes() + table_bytes, row)
        };
        let segments = (self.log.space().entries().len() * size_of::<SegmentEntryBytes>()) as u64;
        // Two chunks that follow each other are longer than one may be.
        let chunks = 2 * tables.max(segments) / self.log.chunk_bytes() as u64;
        let directory = chunks * size_of::<ChunkRefBytes>() as u64;
        let again = SPINE_BYTES + TABLE_COPIES * segments;
        Pages {
            bytes: again + leaves * PAGE_BYTES_A_LEAF + tables,
            again,
            longest: usize::try_from(row.max(directory)).unwrap_or(usize::MAX),
        }
    }
}

/// Bytes of branch pages for one leaf, with what the levels above and the headers take.
const PAGE_BYTES_A_LEAF: u64 = 64;
/// What a checkpoint takes at most besides: one page of each level, and the borders of two groups, of what
/// is never full and of a segment that a copy begins.
const SPINE_BYTES: u64 = 96 << 10;
/// How often a checkpoint writes the segment table at most.
const TABLE_COPIES: u64 = TABLE_RETRIES + 1;

/// How often the segment table is written again because its frames began a segment. Once is enough for
/// a table that fits one; a larger one is found by replay, and the next open copies the tail.
const TABLE_RETRIES: u64 = 2;
