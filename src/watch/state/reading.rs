//! Reading for topics: each in its turn, a batch at a time.

use std::sync::Arc;

use revtree_format::Revision;

use super::{Made, Next, Stage, State};
use crate::error::Error;
use crate::mvcc::{BatchLimits, Store, Wanted, read_batch};
use crate::watch::inbox::Marked;
use crate::watch::registry::Registry;
use crate::watch::request::WatchId;
use crate::watch::response::{EventBatch, Update, WatchResponse};

/// etcd's limit of a response, in revisions.
const BATCH_REVISIONS: u64 = 1000;
/// Records that are looked at for one topic before another has its turn.
const BATCH_RECORDS: usize = 1 << 16;

impl State {
    /// The next response, if there is one: reads a batch where none has been made.
    pub(in crate::watch) fn next(&mut self, registry: &Registry) -> Next {
        loop {
            if let Some(next) = self.give(registry) {
                return next;
            }
            if self.ended {
                return Next::End;
            }
            // What one look has found due is read before the next one. Who asks for progress wants what is
            // visible now.
            let is_asked = !self.asked.is_empty() || self.asked_all > 0;
            let seen = self.seen.take().filter(|_| !is_asked);
            let Some(store) = seen.or_else(|| self.open_store(registry).ok()) else {
                return Next::Nothing;
            };
            let stepped = self.step(registry, &store);
            self.seen = (!self.ready.is_empty()).then_some(store);
            // By what was visible before the step: all of it that a topic in step has been given.
            self.answer_progress(registry);
            if !stepped && self.made.is_empty() {
                return Next::Nothing;
            }
        }
    }

    /// Whether something is there to be given or read without another look.
    pub(in crate::watch) fn has_more(&self) -> bool {
        let is_made = match self.made.front() {
            Some(Made::Batch { members, next, .. }) => *next < members.len() || self.made.len() > 1,
            made => made.is_some(),
        };
        is_made || !self.ready.is_empty() || !self.catching_up.is_empty()
    }

    /// Reads for one topic, or finds that there is nothing to be read.
    pub(super) fn step(&mut self, registry: &Registry, store: &Arc<Store>) -> bool {
        self.turn_of_old = !self.turn_of_old;
        let old = self.turn_of_old || self.ready.is_empty();
        let index = match old.then(|| self.catching_up.pop_front()).flatten() {
            Some(index) => index,
            None => match self.ready.pop_front() {
                Some(index) => index,
                None => return false,
            },
        };
        self.read(registry, store, index);
        true
    }

    /// Reads one batch for a topic that has been taken from its queue, and puts it where it belongs then.
    pub(super) fn read(&mut self, registry: &Registry, store: &Arc<Store>, index: u32) {
        // Its place may be another's by now, or it has been read already.
        let Some(topic) = self.topic(index).filter(|topic| topic.stage != Stage::Idle) else {
            return;
        };
        let shared = Arc::clone(&topic.shared);
        let shape = shared.shape();
        let from = topic.cursor;
        if from <= self.visible {
            let limits = BatchLimits {
                revisions: BATCH_REVISIONS,
                bytes: shape.bytes_max as usize,
                records: BATCH_RECORDS,
            };
            let wanted = Wanted {
                keys: &shape.keys,
                from,
                to: self.visible,
                prev: shape.prev,
            };
            match read_batch(store, &wanted, &limits) {
                Ok(batch) => {
                    self.move_cursor(index, batch.next);
                    self.make_batch(index, EventBatch::new(batch.events), batch.next);
                    if let Some(error) = batch.failed {
                        self.fail(registry, index, batch.next, &error);
                    }
                }
                Err(Error::Compacted { compacted, .. }) => {
                    // Who asked for nothing below has lost nothing.
                    let lost = |from: Revision| from < compacted;
                    let told = |id| WatchResponse {
                        id,
                        revision: Revision::default(),
                        update: Update::Compacted {
                            compact_revision: compacted,
                        },
                    };
                    self.move_cursor(index, compacted);
                    self.retire(registry, index, lost, told);
                }
                // Nothing else is found before something is read.
                Err(error) => self.fail(registry, index, from, &error),
            }
        }
        let visible = self.visible;
        let Some(topic) = self.topic(index) else {
            return;
        };
        match topic.stage {
            Stage::CatchingUp if topic.cursor > visible => self.join(registry, store, index),
            Stage::CatchingUp => self.catching_up.push_back(index),
            Stage::Due if topic.cursor <= visible => self.ready.push_back(index),
            Stage::Due | Stage::Idle => {
                if shared.marks().is_aside() {
                    self.join(registry, store, index);
                } else if shared.marks().settle(visible) {
                    topic.stage = Stage::Idle;
                } else {
                    self.put_beyond(registry, index);
                }
            }
        }
    }

    /// Ends the watchers of a topic of which nothing can be read from `next` on.
    fn fail(&mut self, registry: &Registry, index: u32, next: Revision, error: &Error) {
        let failed = |id| WatchResponse {
            id,
            revision: before(next),
            update: Update::Failed(error.clone()),
        };
        self.retire(registry, index, |_| true, failed);
    }

    /// Ends those watchers of a topic whose first revision says so, each with a last response, behind what has
    /// been made for it.
    fn retire(
        &mut self,
        registry: &Registry,
        index: u32,
        ends: impl Fn(Revision) -> bool,
        last: impl Fn(WatchId) -> WatchResponse,
    ) {
        for (member, from) in self.members(index) {
            if ends(from) {
                self.leave_topic(registry, member.0);
                let last = last(WatchId(member.0));
                self.made.push_back(Made::Last(member, last));
            }
        }
        self.drop_if_unwatched(registry, index);
    }
}

/// The revision before the first that has not been read.
pub(super) fn before(next: Revision) -> Revision {
    Revision::new(next.get().saturating_sub(1))
}
