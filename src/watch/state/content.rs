//! What the cursors stand in: it is looked at, compacted, replaced by another, closed.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use revtree_format::Revision;

use super::made::BATCH_COST;
use super::{Made, NOBODY, Stage, State, TopicState};
use crate::error::{Error, Result};
use crate::mvcc::Store;
use crate::watch::inbox::Marked;
use crate::watch::registry::Registry;

/// Places that a queue keeps for its next use: all topics of a stream may have been due at once.
pub(super) const MEMORY_KEPT: usize = 1024;

/// What is kept of a stream whose receiver has not come, in bytes as [`cost`](super::made::cost) counts them; and of
/// all streams of a handle.
const KEPT_OF_STREAM: usize = 4 << 20;
const KEPT_OF_ALL: usize = 64 << 20;
/// Records that are looked at for that, for all streams.
const RECORDS_OF_ALL: usize = 1 << 22;
/// Topics of a stream that are tried though the next revision of each is more than may be kept.
const MISSES: usize = 64;

/// What may be kept yet, and looked at for it.
#[derive(Clone, Copy, Debug)]
pub(in crate::watch) struct Room {
    pub(super) bytes: usize,
    pub(super) records: usize,
}

impl Room {
    /// Of all streams, which keep so much already.
    pub(in crate::watch) fn beside(kept: usize) -> Room {
        Room {
            bytes: KEPT_OF_ALL.saturating_sub(kept),
            records: RECORDS_OF_ALL,
        }
    }

    /// Of one stream, which keeps so much already.
    fn of_stream(self, kept: usize) -> Room {
        let bytes = self.bytes.min(KEPT_OF_STREAM.saturating_sub(kept));
        Room { bytes, ..self }
    }

    pub(super) fn take(&mut self, bytes: usize, records: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.records = self.records.saturating_sub(records);
    }

    fn is_spent(&self) -> bool {
        self.bytes <= BATCH_COST || self.records == 0
    }
}

impl State {
    /// The store that is read now, with what is visible and due.
    pub(super) fn open_store(&mut self, registry: &Registry) -> Result<Arc<Store>> {
        self.check_not_ended()?;
        self.seen = None;
        let mut due = std::mem::take(&mut self.due);
        let (content, now) = self.inbox.look(&mut due, || {
            let content = registry.content();
            let now = content.store.as_ref().map(|store| store.engine.rev());
            (content, now)
        });
        let (Some(store), Some(now)) = (content.store, now) else {
            self.due = due;
            return Err(Error::Closed);
        };
        self.visible = now;
        let end = content.ends.get(self.content).copied();
        let visible = end.unwrap_or(now);
        for (shared, first) in due.drain(..) {
            let index = shared.index;
            let Some(topic) = self.topic(index) else {
                continue;
            };
            if !Arc::ptr_eq(&topic.shared, &shared) {
                continue;
            }
            if topic.stage != Stage::Idle {
                // Beyond what is visible nobody would stir for it any more: it joins again at once.
                let is_beyond = topic.stage == Stage::Due && topic.cursor > now;
                if is_beyond && shared.marks().is_aside() {
                    self.ready.push_back(index);
                }
                continue;
            }
            // No further than behind what was visible: another content may be put in place before the rest is.
            let first = first.min(visible.next());
            topic.advance(first);
            topic.stage = Stage::Due;
            self.ready.push_back(index);
        }
        self.due = due;
        self.due.shrink_to(MEMORY_KEPT);
        if let Some(end) = end {
            self.change_content(end);
            self.content = content.ends.len();
        }
        match end {
            Some(_) => {
                self.put_ahead();
                self.asked.looked_anew(now);
            }
            None => self.asked.looked(now),
        }
        while let Some(Reverse((cursor, index))) = self.beyond.peek().copied()
            && cursor <= self.visible
        {
            self.beyond.pop();
            // Its place may be another topic's by now.
            let is_there = |topic: &mut TopicState| topic.cursor == cursor;
            if self.topic(index).is_some_and(is_there) {
                self.ready.push_back(index);
            }
        }
        self.wait_for_unlisted(registry);
        Ok(store)
    }

    /// Another content is in place, and nothing has been written to it: what is due was marked by the old one.
    pub(in crate::watch) fn restored(&mut self, registry: &Registry) {
        self.inbox.unlist();
        let _ = self.open_store(registry);
    }

    /// The old content was seen up to `end`. Every watcher goes on in the new one where it was, so what is
    /// there now is read for all of them.
    fn change_content(&mut self, end: Revision) {
        self.beyond.clear();
        self.ready.clear();
        self.alone = NOBODY;
        self.unlisted = Revision::default();
        let visible = self.visible;
        for (index, topic) in self.topics.numbered() {
            match topic.stage {
                Stage::CatchingUp => continue,
                Stage::Idle => topic.advance(end.next()),
                Stage::Due => {}
            }
            topic.stage = Stage::Due;
            topic.shared.marks().raise(visible);
            self.ready.push_back(index);
        }
    }

    /// What is kept for a receiver that has not come.
    pub(in crate::watch) fn kept(&self) -> usize {
        self.made.iter().map(Made::kept).sum()
    }

    /// The store is about to be compacted at `compact`: what watchers in step have not been given below that
    /// is made, while there is room, of bytes that keep nothing of the store. So a compaction takes from a receiver
    /// that comes a little late no more than a full queue would.
    pub(in crate::watch) fn save_from_compaction(
        &mut self,
        registry: &Registry,
        compact: Revision,
        of_all: &mut Room,
    ) {
        let Ok(store) = self.open_store(registry) else {
            return;
        };
        let may_lose = |state: &mut State, index: u32| {
            let topic = state.topic(index);
            topic.is_some_and(|topic| topic.stage == Stage::Due && topic.cursor <= compact)
        };
        let mut behind = VecDeque::new();
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else {
                break;
            };
            let queue = if may_lose(self, index) {
                &mut behind
            } else {
                &mut self.ready
            };
            queue.push_back(index);
        }
        let all = of_all.of_stream(self.kept());
        let (mut room, mut misses) = (all, 0);
        while let Some(index) = behind.pop_front() {
            if room.is_spent() || misses == MISSES {
                self.ready.push_back(index);
            } else if !self.read_for_later(registry, &store, index, &mut room) {
                self.ready.push_back(index);
                misses += 1;
            } else if self.ready.back() == Some(&index) && may_lose(self, index) {
                self.ready.pop_back();
                behind.push_back(index);
            }
        }
        of_all.take(all.bytes - room.bytes, all.records - room.records);
    }

    /// Ends the stream with its store: what can be read is made first, while there is room, of bytes that keep
    /// nothing of the store; what has been made is kept whatever it costs.
    pub(in crate::watch) fn end_with_store(&mut self, registry: &Registry, of_all: &mut Room) {
        if self.ended {
            return;
        }
        of_all.take(self.made.iter_mut().map(Made::keep).sum(), 0);
        if let Ok(store) = self.open_store(registry) {
            let all = of_all.of_stream(self.kept());
            let mut room = all;
            // Not read, and not to be taken for read.
            let mut missed = Vec::new();
            while !room.is_spent()
                && missed.len() < MISSES
                && let Some(index) = self.take_turn()
            {
                if !self.read_for_later(registry, &store, index, &mut room) {
                    missed.push(index);
                }
            }
            self.ready.extend(missed);
            self.asked.looked_anew(self.visible);
            of_all.take(all.bytes - room.bytes, all.records - room.records);
            self.answer_progress(registry);
        }
        // Whoever is still to be given something keeps its filters.
        self.end_topics(registry);
    }
}
