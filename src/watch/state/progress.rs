//! Who asks for progress, and when it is answered (SPEC.md, W-8).
//!
//! An answer needs what the first look behind its request finds visible, and no more: so it does not wait for what the
//! writer adds meanwhile, however fast that is. One for all of a stream is given when what a look has found due has
//! been read: nobody has been given or told more than is visible then, so it says no less than anybody has heard.

use std::collections::BTreeMap;

use revtree_format::Revision;

use super::reading::before;
use super::{Made, Stage, State, TopicState};
use crate::error::{Error, Result};
use crate::watch::registry::Registry;
use crate::watch::request::WatchId;

/// Requests that have not been answered.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// By the watcher's id; its serial too.
    by_id: BTreeMap<i64, (u32, Requests)>,
    /// Of whom the next look says what they need.
    new: Vec<i64>,
    of_all: Requests,
    /// Steps until it is looked again who can be answered: as many as that looks at, so that a step costs the same
    /// however many ask.
    pause: usize,
}

/// Requests for one answer, or rather for one each.
#[derive(Debug, Default)]
struct Requests {
    /// Those that a look has come behind.
    count: u64,
    /// What that look found visible: their answer is at or above it.
    need: Revision,
    /// Those behind it: they need more, and those before do not wait for that.
    later: u64,
}

impl Requests {
    /// A look has found this visible. While some are waiting for what another found, those behind that wait.
    fn looked(&mut self, visible: Revision) {
        if self.count == 0 {
            self.count = std::mem::take(&mut self.later);
            self.need = visible;
        }
    }

    fn are_answered(&self) -> bool {
        self.count == 0 && self.later == 0
    }
}

impl Asked {
    fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.of_all.are_answered()
    }

    /// A watcher is gone.
    pub(super) fn forget(&mut self, id: i64) {
        self.by_id.remove(&id);
    }

    /// A look has found this visible.
    pub(super) fn looked(&mut self, visible: Revision) {
        self.of_all.looked(visible);
        for id in self.new.drain(..) {
            if let Some((_, requests)) = self.by_id.get_mut(&id) {
                requests.looked(visible);
            }
        }
    }

    /// A look has found this visible in another content, or for the last time: whoever has asked is answered by
    /// that, whatever was needed before.
    pub(super) fn looked_anew(&mut self, visible: Revision) {
        let all = self.by_id.values_mut().map(|(_, requests)| requests);
        for requests in all.chain([&mut self.of_all]) {
            requests.count += std::mem::take(&mut requests.later);
            requests.need = visible;
        }
        self.new.clear();
    }
}

impl State {
    pub(in crate::watch) fn request_progress(&mut self, id: WatchId) -> Result<()> {
        self.check_not_ended()?;
        if self.retired.has(id.0) {
            return Err(Error::Canceled(id));
        }
        let watcher = self.watchers.get(&id.0).ok_or(Error::WatcherNotExist(id))?;
        let (serial, requests) = self.asked.by_id.entry(id.0).or_default();
        *serial = watcher.serial;
        if requests.are_answered() {
            self.asked.new.push(id.0);
        }
        requests.later += 1;
        Ok(())
    }

    pub(in crate::watch) fn request_progress_all(&mut self) -> Result<()> {
        self.check_not_ended()?;
        self.asked.of_all.later += 1;
        Ok(())
    }

    /// Answers who has asked for progress and has been given what was visible then.
    pub(super) fn answer_progress(&mut self, registry: &Registry) {
        if self.asked.is_empty() {
            return;
        }
        let is_read = self.ready.is_empty() && self.catching_up.is_empty();
        let asked = self.asked.by_id.len();
        self.asked.pause = self.asked.pause.min(asked);
        if !is_read && self.asked.pause > 0 {
            self.asked.pause -= 1;
            return;
        }
        self.asked.pause = asked;
        let mut by_id = std::mem::take(&mut self.asked.by_id);
        by_id.retain(|id, (serial, requests)| {
            let rev = self.given_up_to(*id).filter(|rev| *rev >= requests.need);
            let Some(rev) = rev.filter(|_| requests.count > 0) else {
                return true;
            };
            for _ in 0..std::mem::take(&mut requests.count) {
                self.made.push_back(Made::Progress((*id, *serial), rev));
            }
            if requests.later > 0 {
                self.asked.new.push(*id);
            }
            requests.later > 0
        });
        self.asked.by_id = by_id;
        if is_read && self.all_have_begun() {
            for _ in 0..std::mem::take(&mut self.asked.of_all.count) {
                self.made.push_back(Made::ProgressOfAll(self.visible));
            }
        }
        self.wait_for_beginnings(registry);
    }

    /// Who waits for the future and has asked for progress is answered when its first revision is visible, which
    /// may change none of its keys: then nothing else stirs the stream.
    fn wait_for_beginnings(&self, registry: &Registry) {
        let began = self
            .asked
            .by_id
            .keys()
            .filter_map(|id| self.watchers.get(id)?.begins());
        let ahead = began.filter(|from| *from > self.visible);
        let all = self.future.range(self.visible.next()..).next();
        let all = all.filter(|_| !self.asked.of_all.are_answered());
        if let Some(first) = ahead.chain(all.map(|(from, _)| *from)).min()
            && !registry.wait_for(first)
        {
            self.inbox.stir_later();
        }
    }

    /// Up to where a watcher has been given everything; `None`: it has not begun.
    fn given_up_to(&self, id: i64) -> Option<Revision> {
        let watcher = self.watchers.get(&id)?;
        let read = self.read_up_to(self.topics.get(watcher.topic)?);
        // Who has caught up may have been given more than those whom it has joined.
        let rev = read.max(before(watcher.from).min(self.visible));
        watcher
            .begins()
            .is_none_or(|from| from <= rev)
            .then_some(rev)
    }

    /// Who has begun is asked for again: a restore of what is older may take its beginning away.
    fn all_have_begun(&self) -> bool {
        let last = self.future.last_key_value();
        last.is_none_or(|(last, _)| *last <= self.visible)
    }

    fn read_up_to(&self, topic: &TopicState) -> Revision {
        match topic.stage {
            Stage::Idle => self.visible,
            Stage::Due | Stage::CatchingUp => before(topic.cursor).min(self.visible),
        }
    }
}
