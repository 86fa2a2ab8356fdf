//! The commit, as a story (SPEC.md, C-2 to C-11).
//!
//! 1. `append`: the holder of the append lock reserves space; a full disk is told here, and nothing has
//!    been written.
//! 2. Records and control items go into memory at the log's end. Nobody reads them yet: the index is
//!    swung by the caller after each record, and readers pass over records above their revision.
//! 3. `accept`: the state that the next transaction builds on. From here on the commit stands in order.
//! 4. `Flushed` and `Batched`: publish (see step 7), unless a `Sync` commit before it is in flight.
//! 5. Durable commits wait. The first waiter leads: it seals the group (everything accepted so far,
//!    padded to a block), writes it, and syncs once, while the next group gathers behind it.
//! 6. Mark durable: the group's frames are below the mark that the next frame will carry.
//! 7. Publish the group's revision, then wake watchers and the waiters: so a commit that returned is seen by
//!    every later read.
//!
//! Steps 5 and 7 may not be swapped under `Sync`: a reader would see what a crash takes back. Steps 6
//! and 7 may not be before the sync returned. A crash before the sync ends leaves any prefix of the
//! group's frames, of which recovery keeps whole transactions in order; none had been acknowledged.
//! After it, everything is there. A failed write or sync poisons: what is on disk is unknown, so nothing
//! is written behind it, and nothing is tried again.

#![expect(clippy::disallowed_types, reason = "the append lock and group commit")]

use std::io;
use std::sync::Arc;

use revtree_format::{Control, NewRecord, Position};

use super::group::Lead;
use super::{Append, Engine, State};
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::pager::{Room, Sealed};
use crate::sync::{MutexGuard, Ordering};
use crate::sys::Stopwatch;

/// The append lock, held for one commit.
#[derive(Debug)]
pub(crate) struct Appender<'e> {
    engine: &'e Engine,
    append: MutexGuard<'e, Append>,
    /// Pieces of this commit are in the log.
    begun: bool,
}

/// An accepted commit: what its durability waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    /// Sequence number of the frame that holds its end.
    pub(crate) sequence: u64,
    pub(crate) rev: revtree_format::Revision,
    /// Whether it is visible and as durable as was asked for already.
    pub(crate) settled: bool,
    /// So much log has been written that a checkpoint is due.
    pub(crate) checkpoint_due: bool,
    /// Bytes of log, with this commit.
    pub(crate) appended: u64,
}

impl Ticket {
    /// What the commit's waiter is told when the sync failed.
    pub(crate) fn unknown(self, error: Error) -> Error {
        unknown(self.rev, error)
    }
}

impl Engine {
    /// Step 1: the append lock, with room for pieces of these lengths, of which so many bytes are rows of side
    /// tables.
    pub(crate) fn begin(
        &self,
        pieces: impl Iterator<Item = usize>,
        table_bytes: u64,
        room: Room,
    ) -> Result<Appender<'_>> {
        self.check_writable()?;
        let mut append = self.append()?;
        // Looked at again under the lock: nothing is appended behind a failure.
        self.check_writable()?;
        append.reserve(pieces, table_bytes, room)?;
        Ok(Appender {
            engine: self,
            append,
            begun: false,
        })
    }

    /// Lets readers see a durable segment from the file instead of memory of its own.
    pub(super) fn show(&self, segment: Sealed) {
        match segment.show(&self.medium) {
            // What was written and synced is not there: the medium loses writes.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.poison(Arc::new(error));
            }
            // Failing only means that the segment stays in memory of its own.
            Ok(()) | Err(_) => {}
        }
    }

    /// Steps 5 to 7: returns when the frame with this number is durable.
    pub(crate) fn sync_to(&self, sequence: u64) -> Result<()> {
        self.group.sync_to(self, sequence)
    }

    fn publish_accepted(&self, append: &mut Append) {
        let (newest, count) = (append.accepted.clone(), append.accepted_count);
        self.publish(append, &newest, count);
    }

    /// Step 7, under the append lock: what the first `count` commits left, unless more than these have
    /// been published (weaker ones, while a sync was in flight).
    fn publish(&self, append: &mut Append, state: &State, count: u64) {
        if count < append.published_count {
            return;
        }
        append.published_count = count;
        self.published.publish(state);
        self.metrics.published(self.rev(), state.compact);
    }

    /// Everything accepted before is durable when this returns.
    pub(crate) fn sync_all(&self) -> Result<revtree_format::Revision> {
        self.check_writable()?;
        let (sequence, rev) = {
            let append = self.append()?;
            (append.accepted_sequence, append.accepted.rev)
        };
        self.sync_to(sequence)?;
        Ok(rev)
    }

    /// The same, for those who wait for it after a close too: one that failed leaves something to sync.
    pub(crate) fn sync_accepted(&self) -> Result<()> {
        let sequence = self.append()?.accepted_sequence;
        self.sync_to(sequence)
    }

    /// What is accepted becomes visible, also what nobody waits for. Nothing is written where it is.
    pub(crate) fn show_accepted(&self) -> Result<()> {
        let (sequence, is_hidden) = {
            let append = self.append()?;
            (
                append.accepted_sequence,
                append.published_count < append.accepted_count,
            )
        };
        if is_hidden {
            self.sync_to(sequence)?;
        }
        Ok(())
    }

    /// A ticket for what was accepted last, for a transaction that has read it and adds nothing.
    pub(crate) fn accepted_ticket(&self, durability: Durability) -> Result<Ticket> {
        let append = self.append()?;
        let hidden = append.sync_sequence > 0 && !self.group.is_durable(append.sync_sequence);
        Ok(Ticket {
            sequence: append.accepted_sequence,
            rev: append.accepted.rev,
            settled: !hidden && durability != Durability::Sync,
            checkpoint_due: false,
            appended: append.log.appended(),
        })
    }

    /// What [`Engine::settle`] would answer, when that is known without waiting.
    pub(crate) fn settled(&self, ticket: Ticket) -> Option<Result<bool>> {
        let durable = self.group.is_durable(ticket.sequence);
        if ticket.settled || durable {
            return Some(Ok(durable));
        }
        let cause = Arc::clone(self.poison.get()?);
        Some(Err(Error::CommitUnknown {
            revision: ticket.rev,
            cause,
        }))
    }

    /// Waits for what a commit asked for: `true` when it is durable.
    pub(crate) fn settle(&self, ticket: Ticket) -> Result<bool> {
        if ticket.settled {
            return Ok(self.group.is_durable(ticket.sequence));
        }
        self.settle_durable(ticket)
    }

    /// Waits until a commit is durable, whatever it asked for.
    pub(crate) fn settle_durable(&self, ticket: Ticket) -> Result<bool> {
        match self.sync_to(ticket.sequence) {
            Ok(()) => Ok(true),
            Err(error) => Err(unknown(ticket.rev, error)),
        }
    }
}

impl Lead for Engine {
    fn lead(&self) -> Result<u64> {
        let time = Stopwatch::start();
        let mut append = self.append()?;
        if append.torn {
            let cause = io::Error::other("an append failed half-way");
            return Err(Error::io("append", cause));
        }
        let group = append.log.seal()?;
        let (accepted, count) = (append.accepted.clone(), append.accepted_count);
        append.unsynced_changes = 0;
        let commits = self.counters.commits.load(Ordering::Relaxed);
        let before = self.counters.grouped.swap(commits, Ordering::Relaxed);
        self.counters
            .group_max
            .fetch_max(commits - before, Ordering::Relaxed);
        drop(append);
        self.sync_file()?;
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        let mut append = self.append()?;
        append.log.synced(group.head.sequence);
        self.metrics.synced(&time);
        let space = append.log.space();
        self.metrics.space(space.allocated(), space.free_bytes());
        let durable_segments = append.log.take_durable();
        self.durable_rev
            .fetch_max(accepted.rev.get(), Ordering::AcqRel);
        if append.sync_sequence < group.head.sequence && !append.torn {
            // Nobody waits for a later sync, and all that is accepted has been written, if its level asks
            // for that: it may be seen.
            self.publish_accepted(&mut append);
        } else {
            self.publish(&mut append, &accepted, count);
        }
        drop(append);
        if let Some(audience) = self.audience.get() {
            audience.published(self.rev());
        }
        for segment in durable_segments {
            self.show(segment);
        }
        Ok(group.head.sequence)
    }

    fn poison(&self, cause: Arc<io::Error>) {
        Engine::poison(self, cause);
    }

    fn poisoned(&self) -> Option<Arc<io::Error>> {
        self.poison.get().cloned()
    }
}

impl Appender<'_> {
    /// What the commit builds on.
    pub(crate) fn accepted(&self) -> &State {
        &self.append.accepted
    }

    /// A transaction of so many bytes begins: it gets a frame of its own when it does not fit the open
    /// one, so that only transactions larger than a frame are runs.
    pub(crate) fn begin_transaction(&mut self, bytes: usize) -> Result<()> {
        let result = self.append.log.begin_transaction(bytes);
        self.mark(result)
    }

    /// Appends a record and gives its position.
    pub(crate) fn record(&mut self, record: &NewRecord<'_>) -> Result<Position> {
        let in_run = self.begun;
        let appended = self.append.log.append(record, in_run);
        let appended = self.mark(appended)?;
        self.begun = true;
        if appended.begins_leaf {
            let tail = &self.append.tail;
            tail.begin(
                record.id,
                appended.position,
                appended.segment_use,
                appended.len,
            );
        } else {
            self.append.tail.extend(appended.len);
        }
        Ok(appended.position)
    }

    /// Adds a control item.
    pub(crate) fn control(&mut self, item: &Control<'_>) -> Result<()> {
        let in_run = self.begun;
        let added = self.append.log.control(item, in_run);
        self.mark(added)?;
        self.begun = true;
        Ok(())
    }

    /// The store's revision after this commit, for the header of the frame that ends it.
    pub(crate) fn set_revision(&mut self, rev: revtree_format::Revision) {
        self.append.log.set_revision(rev);
    }

    /// A failure to append leaves the log's end unknown.
    fn mark<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.append.torn = true;
            self.engine.poison(error.clone().into_cause());
        }
        result
    }

    /// Steps 3 and 4.
    pub(crate) fn accept(
        mut self,
        state: State,
        changes: u64,
        durability: Durability,
    ) -> Result<Ticket> {
        let append = &mut *self.append;
        let rev = state.rev;
        let sequence = append.log.sequence();
        append.accepted = state;
        append.accepted_sequence = sequence;
        append.accepted_count += 1;
        append.unsynced_changes += changes;
        self.engine.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.engine
            .counters
            .changes
            .fetch_add(changes, Ordering::Relaxed);
        let waits_for_sync =
            append.sync_sequence > 0 && !self.engine.group.is_durable(append.sync_sequence);
        let settled = match durability {
            Durability::Sync => {
                append.sync_sequence = sequence;
                false
            }
            _ if waits_for_sync => {
                append.sync_sequence = sequence;
                false
            }
            Durability::Flushed => {
                let flushed = append.log.flush();
                self.mark(flushed).map_err(|error| unknown(rev, error))?;
                true
            }
            Durability::Batched { .. } => true,
        };
        self.begun = false;
        if settled {
            self.engine.publish_accepted(&mut self.append);
        }
        let appended = self.append.log.appended();
        let written = appended - self.append.checkpointed;
        let checkpoint_due = written >= self.engine.checkpoint_bytes;
        Ok(Ticket {
            sequence,
            rev,
            settled,
            checkpoint_due,
            appended,
        })
    }

    /// Ends an append that is no commit: what it holds was accepted before.
    pub(crate) fn readopted(mut self) {
        self.begun = false;
    }

    /// Changes accepted since the last sync.
    pub(crate) fn unsynced_changes(&self) -> u64 {
        self.append.unsynced_changes
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        if self.begun {
            // Given up half-way: a failure (which has poisoned already) or a panic.
            self.append.torn = true;
            self.engine
                .poison(Arc::new(io::Error::other("a commit was given up half-way")));
        }
    }
}

/// What a commit is told that was accepted before a write or sync failed.
fn unknown(revision: revtree_format::Revision, error: Error) -> Error {
    let cause = error.into_cause();
    Error::CommitUnknown { revision, cause }
}
