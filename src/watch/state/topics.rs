//! The topics of a stream: who belongs to which, and where each is read next.

use std::cmp::Reverse;
use std::sync::Arc;

use revtree_format::Revision;

use super::{Member, Stage, State, TopicState};
use crate::mvcc::Store;
use crate::watch::inbox::Marked;
use crate::watch::members::Members;
use crate::watch::registry::Registry;
use crate::watch::topic::{Shape, Topic};

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
            unlisted: Revision::default(),
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
            (topic.stage, topic.unlisted) = (stage, unlisted);
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
        let Some(topic) = self.topic(index).filter(|topic| topic.cursor > to) else {
            return;
        };
        let stood = std::mem::replace(&mut topic.cursor, to);
        if topic.stage == Stage::Idle && to <= topic.unlisted {
            // It was not due for these since nobody wanted them.
            topic.shared.marks().raise(topic.unlisted);
            topic.stage = Stage::Due;
        }
        if topic.stage == Stage::Due {
            self.put_beyond(registry, index);
        }
        for ((id, _), _) in self.members(index) {
            self.raise_from(id, stood);
        }
    }

    /// A topic is due from a revision on that is not visible yet.
    pub(super) fn put_beyond(&mut self, registry: &Registry, index: u32) {
        let Some(topic) = self.topic(index) else {
            return;
        };
        let cursor = topic.cursor;
        self.beyond.push(Reverse((cursor, index)));
        self.wait_for_unlisted(registry);
    }

    /// What was accepted before a topic was in the table is on nobody's list: a stream with a topic that is due from
    /// there asks to be stirred. It asks again with each look, since who stirs for one revision forgets the others.
    pub(super) fn wait_for_unlisted(&self, registry: &Registry) {
        let is_unlisted = |(cursor, index): &(Revision, u32)| {
            let topic = self.topics.get(*index);
            topic.is_some_and(|topic| topic.cursor == *cursor && *cursor <= topic.unlisted)
        };
        let beyond = self.beyond.iter().map(|Reverse(beyond)| *beyond);
        if let Some((first, _)) = beyond.filter(is_unlisted).min()
            && !registry.wait_for(first)
        {
            self.inbox.stir();
        }
    }

    pub(super) fn move_cursor(&mut self, index: u32, to: Revision) {
        if let Some(topic) = self.topic(index) {
            topic.cursor = to;
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
        if stage != Stage::Idle {
            self.ready.retain(|ready| *ready != index);
            self.catching_up.retain(|old| *old != index);
        }
        self.topics.remove(index);
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
