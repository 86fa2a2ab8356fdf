//! Watchers that come and go: what the verbs do.

use revtree_format::Revision;

use super::{Began, ById, ENDED, Member, Stage, State, Watcher};
use crate::error::{Error, Result};
use crate::watch::registry::Registry;
use crate::watch::request::{Filters, Start, WatchId, WatchRequest};
use crate::watch::topic::Shape;

impl State {
    /// Adds a watcher.
    pub(in crate::watch) fn watch(
        &mut self,
        registry: &Registry,
        request: WatchRequest,
    ) -> Result<WatchId> {
        if request.keys.is_empty() {
            return Err(Error::EmptyRange);
        }
        let store = self.open_store(registry)?;
        let id = match request.id {
            Some(WatchId(id)) if id < 0 || self.watchers.contains_key(&id) => {
                return Err(Error::WatcherDuplicateId(WatchId(id)));
            }
            Some(WatchId(id)) => id,
            None => self.choose_id(),
        };
        self.retired.remove(id);
        let from = match request.start {
            Start::Now => self.visible.next(),
            Start::At(rev) => rev,
            Start::After(rev) => rev.next(),
            Start::Oldest => store.engine.compact_rev().unwrap_or(Revision::new(1)),
        };
        let began = match request.start {
            Start::Now => Began::Now,
            _ if from > self.visible => Began::Future,
            _ => Began::Past,
        };
        if began == Began::Future {
            *self.future.entry(from).or_default() += 1;
        }
        self.serial = self.serial.wrapping_add(1);
        let watcher = Watcher {
            topic: 0,
            place: 0,
            serial: self.serial,
            began,
            from,
            filtered: request.filters.is_some(),
        };
        self.filters
            .extend(request.filters.map(|filters| (id, filters)));
        self.watchers.insert(id, watcher);
        registry.counts.came();
        let shape = Shape {
            keys: request.keys,
            prev: request.prev,
            bytes_max: request.bytes_max,
        };
        let index = self.add_topic(shape, from);
        self.add_member(index, id);
        if from > self.visible {
            self.join(registry, &store, index);
        } else {
            self.catching_up.push_back(index);
        }
        Ok(WatchId(id))
    }

    /// Ends a watcher: nothing is made or given for it from now on.
    pub(in crate::watch) fn cancel(&mut self, registry: &Registry, id: WatchId) -> Result<()> {
        self.check_not_ended()?;
        if self.retired.remove(id.0) {
            return Err(Error::Canceled(id));
        }
        let watcher = self.watchers.get(&id.0).ok_or(Error::WatcherNotExist(id))?;
        let topic = watcher.topic;
        self.remove_watcher(registry, id.0);
        self.drop_if_unwatched(registry, topic);
        Ok(())
    }

    /// Ends the stream: all watchers are gone, and nothing more is given.
    pub(in crate::watch) fn end(&mut self, registry: &Registry) {
        self.made.clear();
        self.end_watchers(registry);
    }

    pub(super) fn is_member(&self, (id, serial): Member) -> bool {
        self.watchers
            .get(&id)
            .is_some_and(|watcher| watcher.serial == serial)
    }

    pub(super) fn remove_watcher(&mut self, registry: &Registry, id: i64) {
        self.leave_topic(registry, id);
        let Some(watcher) = self.watchers.remove(&id) else {
            return;
        };
        if watcher.filtered {
            self.gone.extend(self.filters.remove(&id));
        }
        self.asked.forget(id);
        if !self.ended {
            registry.counts.left(1);
        }
    }

    /// Filters of watchers that are gone, for who drops them without the stream's lock.
    pub(in crate::watch) fn take_gone(&mut self) -> Vec<Filters> {
        std::mem::take(&mut self.gone)
    }

    /// Takes a watcher out of its topic.
    pub(super) fn leave_topic(&mut self, registry: &Registry, id: i64) {
        let Some(watcher) = self
            .watchers
            .get_mut(&id)
            .filter(|watcher| watcher.topic != ENDED)
        else {
            return;
        };
        let (topic, place) = (std::mem::replace(&mut watcher.topic, ENDED), watcher.place);
        let (began, from) = (watcher.began, watcher.from);
        if began == Began::Future {
            self.no_longer_awaits(id, from);
        }
        let topic = self.topic(topic);
        let moved = topic.and_then(|topic| {
            if topic.stage == Stage::CatchingUp {
                registry.counts.caught_up(1);
            }
            topic.members.remove(place)
        });
        if let Some(moved) = moved.and_then(|id| self.watchers.get_mut(&id)) {
            moved.place = place;
        }
    }

    pub(super) fn raise_from(&mut self, id: i64, to: Revision) {
        let Some(watcher) = self
            .watchers
            .get_mut(&id)
            .filter(|watcher| watcher.from < to)
        else {
            return;
        };
        let before = std::mem::replace(&mut watcher.from, to);
        // Its topic has come further than its first revision: that was there, though a restore may have taken it.
        if std::mem::replace(&mut watcher.began, Began::Past) == Began::Future {
            self.no_longer_awaits(id, before);
        }
    }

    pub(super) fn check_not_ended(&self) -> Result<()> {
        if self.ended {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    fn end_watchers(&mut self, registry: &Registry) {
        if !self.ended {
            self.end_topics(registry);
        }
        self.watchers = ById::default();
        let filters = std::mem::take(&mut self.filters);
        self.gone.extend(filters.into_values());
    }

    fn no_longer_awaits(&mut self, id: i64, rev: Revision) {
        self.asked.begins(id, rev);
        if let Some(count) = self.future.get_mut(&rev) {
            *count -= 1;
            if *count == 0 {
                self.future.remove(&rev);
            }
        }
    }

    fn choose_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}
