//! The topics of a stream: who belongs to which, and where each is read next.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use revtree_format::Revision;

use super::{Member, Stage, State, TopicState};
use crate::mvcc::Store;
use crate::watch::inbox::Marked;
use crate::watch::members::Members;
use crate::watch::registry::Registry;
use crate::watch::topic::{Shape, Topic};

/// So many places of topics that are gone may be in a queue, however short it is.
const STALE_MAX: usize = 64;

impl State {
    /// Number of watchers that have not been given all that is visible.
    pub(in crate::watch) fn slow(&self) -> u64 {
        let of = |topic: &TopicState| match topic.stage {
            Stage::Idle => 0,
            Stage::Due if topic.cursor > self.visible => 0,
            Stage::Due | Stage::CatchingUp => topic.members.as_slice().len() as u64,
        };
        self.topics.iter().map(of).sum()
    }

    pub(super) fn topic(&mut self, index: u32) -> Option<&mut TopicState> {
        self.topics.get_mut(index)
    }

    /// A topic of its own for a watcher that begins at `cursor`.
    pub(super) fn add_topic(&mut self, shape: Shape, cursor: Revision) -> u32 {
        let inbox = Arc::clone(&self.inbox);
        self.topics.add(|index| TopicState {
            shared: Arc::new(Topic::new(shape, index, inbox)),
            cursor,
            stage: Stage::CatchingUp,
            passed: false,
            members: Members::default(),
        })
    }

    /// A topic whose watchers have been given all that is visible: they join the one of its shape that the
    /// writer marks, or it becomes that.
    pub(super) fn join(&mut self, registry: &Registry, store: &Store, index: u32) {
        let Some(topic) = self.topic(index) else {
            return;
        };
        let shared = Arc::clone(&topic.shared);
        let cursor = topic.cursor;
        if topic.stage == Stage::CatchingUp {
            let watchers = topic.members.as_slice().len() as u64;
            registry.counts.caught_up(watchers);
        } else {
            // Nobody marks it.
            shared.marks().renew();
        }
        let (mut stage, mut unlisted) = (Stage::Idle, Revision::default());
        let found = registry.add_topic(store, &shared, |accepted| {
            // Nothing marked it up to here.
            unlisted = accepted;
            if accepted >= cursor {
                shared.marks().begin(accepted);
                stage = Stage::Due;
            }
        });
        let Some(found) = found else {
            let topic = self.topic(index).expect("nobody has removed it");
            topic.stage = stage;
            self.unlisted = self.unlisted.max(unlisted);
            if stage == Stage::Due {
                self.put_beyond(registry, index);
            }
            return;
        };
        self.lower_cursor(registry, found.index, cursor);
        for ((id, _), _) in self.members(index) {
            self.raise_from(id, cursor);
            self.add_member(found.index, id);
        }
        self.topics.remove(index);
    }

    /// Somebody joins who begins before the topic's cursor, which stands above what is visible where the first that
    /// came waits for the future, or after a restore: it goes back, and who was there before begins where it stood.
    fn lower_cursor(&mut self, registry: &Registry, index: u32, to: Revision) {
        let unlisted = self.unlisted;
        let Some(topic) = self.topic(index).filter(|topic| topic.cursor > to) else {
            return;
        };
        let stood = std::mem::replace(&mut topic.cursor, to);
        // Where nobody has been given anything, all who are there begin at or above it.
        let passed = std::mem::take(&mut topic.passed);
        if topic.stage == Stage::Idle && to <= unlisted {
            // It was not due for these since nobody wanted them.
            topic.shared.marks().raise(unlisted);
            topic.stage = Stage::Due;
        }
        if topic.stage == Stage::Due {
            self.put_beyond(registry, index);
        }
        if passed {
            for ((id, _), _) in self.members(index) {
                self.raise_from(id, stood);
            }
        }
    }

    /// A topic is due from a revision on that is not visible yet.
    pub(super) fn put_beyond(&mut self, registry: &Registry, index: u32) {
        let Some(topic) = self.topic(index) else {
            return;
        };
        let cursor = topic.cursor;
        self.beyond.push(Reverse((cursor, index)));
        // A topic that is gone, or has gone back, leaves its place.
        if self.beyond.len() > STALE_MAX.max(2 * self.topics.len()) {
            let mut places = std::mem::take(&mut self.beyond).into_vec();
            places.sort_unstable();
            places.dedup();
            places.retain(|Reverse((cursor, index))| {
                let topic = self.topics.get(*index);
                topic.is_some_and(|topic| topic.stage == Stage::Due && topic.cursor == *cursor)
            });
            self.beyond = places.into();
        }
        self.wait_for_unlisted(registry);
    }

    /// What was accepted before a topic was in the table is on nobody's list: a stream with a topic that is due from
    /// there asks to be stirred. It asks again with each look, since who stirs for one revision forgets the others.
    pub(super) fn wait_for_unlisted(&mut self, registry: &Registry) {
        while let Some(Reverse((first, index))) = self.beyond.peek().copied()
            && first <= self.unlisted
        {
            let is_due = |topic: &TopicState| topic.stage == Stage::Due && topic.cursor == first;
            if self.topics.get(index).is_some_and(is_due) {
                if !registry.wait_for(&self.inbox, first) {
                    self.inbox.stir_later();
                }
                return;
            }
            self.beyond.pop();
        }
    }

    pub(super) fn move_cursor(&mut self, index: u32, to: Revision) {
        if let Some(topic) = self.topic(index) {
            topic.advance(to);
        }
    }

    pub(super) fn add_member(&mut self, index: u32, id: i64) {
        let Some(topic) = self.topic(index) else {
            return;
        };
        let place = topic.members.push(id);
        if let Some(watcher) = self.watchers.get_mut(&id) {
            (watcher.topic, watcher.place) = (index, place);
        }
    }

    /// The watchers of a topic, each with its first revision.
    pub(super) fn members(&self, index: u32) -> Vec<(Member, Revision)> {
        let topic = self.topics.get(index);
        let ids = topic.map_or(&[][..], |topic| topic.members.as_slice());
        let member = |id: &i64| {
            let watcher = self.watchers.get(id)?;
            Some(((*id, watcher.serial), watcher.from))
        };
        ids.iter().filter_map(member).collect()
    }

    pub(super) fn drop_if_unwatched(&mut self, registry: &Registry, index: u32) {
        let Some(topic) = self
            .topic(index)
            .filter(|topic| topic.members.as_slice().is_empty())
        else {
            return;
        };
        let (stage, shared) = (topic.stage, Arc::clone(&topic.shared));
        if stage != Stage::CatchingUp {
            registry.remove_topic(&shared);
        }
        self.topics.remove(index);
        if stage != Stage::Idle {
            self.stale += 1;
            self.sweep();
        }
    }

    /// Takes the places of topics that are gone out of the queues, once they are many: a look at all of them for as
    /// many that have gone.
    fn sweep(&mut self) {
        let queued = self.ready.len() + self.catching_up.len();
        if self.stale <= STALE_MAX.max(queued / 2) {
            return;
        }
        self.stale = 0;
        let topics = &self.topics;
        for (queue, stage) in [
            (&mut self.ready, Stage::Due),
            (&mut self.catching_up, Stage::CatchingUp),
        ] {
            // A number may be that of another topic by now, which has a place of its own.
            let mut seen = HashSet::new();
            queue.retain(|index| {
                let is_there = topics.get(*index).is_some_and(|topic| topic.stage == stage);
                is_there && seen.insert(*index)
            });
        }
    }

    pub(super) fn end_topics(&mut self, registry: &Registry) {
        self.ended = true;
        self.seen = None;
        for topic in std::mem::take(&mut self.topics).iter() {
            if topic.stage == Stage::CatchingUp {
                registry
                    .counts
                    .caught_up(topic.members.as_slice().len() as u64);
            } else {
                registry.remove_topic(&topic.shared);
            }
        }
        let watchers = self.watchers.len() as u64;
        registry.counts.left(watchers);
        self.ready.clear();
        self.beyond.clear();
        self.catching_up.clear();
    }
}
