//! What the cursors stand in: it is looked at, compacted, replaced by another, closed.

use std::cmp::Reverse;
use std::sync::Arc;

use revtree_format::Revision;

use super::{Made, Stage, State, TopicState};
use crate::error::{Error, Result};
use crate::mvcc::Store;
use crate::watch::inbox::Marked;
use crate::watch::registry::Registry;

/// What a stream that ends with its store makes: batches, and their bytes.
const LAST_BATCHES: usize = 128;
const LAST_BYTES: usize = 4 << 20;

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
            topic.cursor = topic.cursor.max(first);
            topic.stage = Stage::Due;
            self.ready.push_back(index);
        }
        self.due = due;
        if let Some(end) = end {
            self.change_content(end);
            self.content = content.ends.len();
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
        let visible = self.visible;
        for (index, topic) in self.topics.numbered() {
            match topic.stage {
                Stage::CatchingUp => continue,
                Stage::Idle => topic.cursor = topic.cursor.max(end.next()),
                Stage::Due => {}
            }
            topic.stage = Stage::Due;
            topic.shared.marks().raise(visible);
            self.ready.push_back(index);
        }
    }

    /// The store is about to be compacted at `compact`: what watchers in step have not been given below that
    /// is made, up to a bound, of bytes that keep nothing of the store. So a compaction takes from a receiver
    /// that comes a little late no more than a full queue would.
    pub(in crate::watch) fn save_from_compaction(
        &mut self,
        registry: &Registry,
        compact: Revision,
    ) {
        let Ok(store) = self.open_store(registry) else {
            return;
        };
        let mut bytes: usize = self.made.iter().map(Made::bytes).sum();
        // Topics in turn that have nothing to lose.
        let mut safe = 0;
        while safe < self.ready.len() && self.made.len() < LAST_BATCHES && bytes < LAST_BYTES {
            let Some(index) = self.ready.pop_front() else {
                break;
            };
            if self
                .topic(index)
                .is_none_or(|topic| topic.cursor >= compact)
            {
                self.ready.push_back(index);
                safe += 1;
                continue;
            }
            safe = 0;
            let before = self.made.len();
            self.read(registry, &store, index);
            for made in self.made.range_mut(before..) {
                made.unpin();
                bytes += made.bytes();
            }
        }
    }

    /// Ends the stream with its store: what can be read is made first, up to a bound, of bytes that keep
    /// nothing of the store.
    pub(in crate::watch) fn end_with_store(&mut self, registry: &Registry) {
        if self.ended {
            return;
        }
        let mut bytes: usize = self.made.iter().map(Made::bytes).sum();
        if let Ok(store) = self.open_store(registry) {
            while self.made.len() < LAST_BATCHES && bytes < LAST_BYTES {
                let before = self.made.len();
                if !self.step(registry, &store) {
                    break;
                }
                bytes += self.made.range(before..).map(Made::bytes).sum::<usize>();
            }
            self.answer_progress(registry);
        }
        self.made.iter_mut().for_each(Made::unpin);
        // Whoever is still to be given something keeps its filters.
        self.end_topics(registry);
    }
}
