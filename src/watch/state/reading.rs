//! Reading for topics: each in its turn, a batch at a time.

use std::sync::Arc;

use revtree_format::Revision;

use super::content::{MEMORY_KEPT, Room};
use super::made::{BATCH_COST, cost};
use super::{Made, Next, Stage, State};
use crate::error::Error;
use crate::mvcc::{BatchLimits, Event, Store, Wanted, read_batch};
use crate::watch::inbox::Marked;
use crate::watch::registry::Registry;
use crate::watch::request::WatchId;
use crate::watch::response::{EventBatch, Update, WatchResponse};

/// etcd's limit of a response, in revisions.
pub(super) const BATCH_REVISIONS: u64 = 1000;
/// Records that are looked at for one topic before another has its turn, and whoever waits for the stream's lock.
pub(super) const BATCH_RECORDS: usize = 1 << 12;

impl State {
    /// The next response, if there is one: where none has been made, one step is done for it. What a step does is
    /// bounded by a batch, so that others get the stream's lock between two.
    pub(in crate::watch) fn next(&mut self, registry: &Registry) -> Next {
        if let Some(next) = self.give(registry) {
            return next;
        }
        if self.ended {
            return Next::End;
        }
        // What one look has found due is read before the next one.
        let seen = self.seen.take();
        let Some(store) = seen.or_else(|| self.open_store(registry).ok()) else {
            return Next::Nothing;
        };
        let stepped = self.step(registry, &store);
        self.seen = (!self.ready.is_empty()).then_some(store);
        if self.ready.is_empty() && self.catching_up.is_empty() {
            self.ready.shrink_to(MEMORY_KEPT);
            self.catching_up.shrink_to(MEMORY_KEPT);
            self.made.shrink_to(MEMORY_KEPT);
        }
        // By what was visible before the step: all of it that a topic in step has been given. It may ask for a look.
        self.answer_progress(registry);
        let looked_at = std::mem::take(&mut self.looked_at);
        let nothing = if stepped {
            Next::More { looked_at }
        } else {
            Next::Nothing
        };
        self.give(registry).unwrap_or(nothing)
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
    fn step(&mut self, registry: &Registry, store: &Arc<Store>) -> bool {
        let Some(index) = self.take_turn() else {
            return false;
        };
        if !self.read_together(registry, store, index) {
            self.read(registry, store, index, None);
        }
        true
    }

    /// Takes the topic whose turn it is from its queue.
    pub(super) fn take_turn(&mut self) -> Option<u32> {
        self.turn_of_old = !self.turn_of_old;
        let old = self.turn_of_old || self.ready.is_empty();
        let index = old.then(|| self.catching_up.pop_front()).flatten();
        index.or_else(|| self.ready.pop_front())
    }

    /// As [`State::read`], for who has not come: what is made keeps nothing of the store. `false`: there is no room
    /// for the next revision, and the topic is where it was, in no queue.
    pub(super) fn read_for_later(
        &mut self,
        registry: &Registry,
        store: &Arc<Store>,
        index: u32,
        room: &mut Room,
    ) -> bool {
        self.read(registry, store, index, Some(room))
    }

    /// Reads one batch for a topic that has been taken from its queue, and puts it where it belongs then.
    fn read(
        &mut self,
        registry: &Registry,
        store: &Arc<Store>,
        index: u32,
        mut room: Option<&mut Room>,
    ) -> bool {
        // Its place may be another's by now, or it has been read already.
        let Some(topic) = self.topic(index).filter(|topic| topic.stage != Stage::Idle) else {
            return true;
        };
        let shared = Arc::clone(&topic.shared);
        let shape = shared.shape();
        let from = topic.cursor;
        let to = self.visible;
        if from <= to {
            let limits = limits(shape.bytes_max as usize, room.as_deref());
            let wanted = Wanted {
                keys: &shape.keys,
                from,
                to,
                prev: shape.prev,
            };
            match read_batch(store, &wanted, &limits) {
                Ok(batch) => {
                    let events = EventBatch::new(batch.events);
                    self.looked_at += batch.records;
                    if let Some(room) = &mut room {
                        room.take(0, batch.records);
                        if !events.is_empty() && cost(&events) > room.bytes {
                            return false;
                        }
                    }
                    self.move_cursor(index, batch.next);
                    let is_made = self.make_batch(index, events, batch.next);
                    if let Some(room) = &mut room
                        && let Some(made) = self.made.back_mut().filter(|_| is_made)
                    {
                        room.take(made.keep(), 0);
                    }
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
        self.put_back(registry, store, index);
        true
    }

    /// Puts a topic that has been read where it belongs then.
    pub(super) fn put_back(&mut self, registry: &Registry, store: &Store, index: u32) {
        let visible = self.visible;
        let Some(topic) = self.topic(index) else {
            return;
        };
        match topic.stage {
            Stage::CatchingUp if topic.cursor > visible => self.join(registry, store, index),
            Stage::CatchingUp => self.catching_up.push_back(index),
            Stage::Due if topic.cursor <= visible => self.ready.push_back(index),
            Stage::Due | Stage::Idle => {
                if topic.shared.marks().is_aside() {
                    self.join(registry, store, index);
                } else if topic.shared.marks().settle(visible) {
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

/// Of a batch; of what is kept no more than there is room for.
fn limits(bytes_max: usize, room: Option<&Room>) -> BatchLimits {
    let all = BatchLimits {
        revisions: BATCH_REVISIONS,
        bytes: bytes_max,
        each: 0,
        records: BATCH_RECORDS,
    };
    match room {
        Some(room) => BatchLimits {
            bytes: bytes_max.min(room.bytes.saturating_sub(BATCH_COST)),
            each: size_of::<Event>(),
            records: BATCH_RECORDS.min(room.records),
            ..all
        },
        None => all,
    }
}

/// The revision before the first that has not been read.
pub(super) fn before(next: Revision) -> Revision {
    Revision::new(next.get().saturating_sub(1))
}
