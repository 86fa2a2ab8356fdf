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
    /// Of whom a look has said it, and that have not been looked at since.
    fresh: Vec<i64>,
    /// Of those that have not begun, with their first revisions: nobody looks at them before it is there. All of their
    /// requests are of `later`.
    ahead: BTreeMap<(Revision, i64), (u32, Requests)>,
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
        self.by_id.is_empty() && self.ahead.is_empty() && self.of_all.are_answered()
    }

    /// Answers for all were made, and are not given.
    pub(super) fn ask_again(&mut self, count: u64) {
        self.of_all.later += count;
    }

    /// A watcher is gone.
    pub(super) fn forget(&mut self, id: i64) {
        self.by_id.remove(&id);
    }

    /// A watcher waits no more for its first revision, which is there, or with which it is gone.
    pub(super) fn begins(&mut self, id: i64, first: Revision) {
        if let Some(requests) = self.ahead.remove(&(first, id)) {
            self.by_id.insert(id, requests);
            self.new.push(id);
        }
    }

    fn begin(&mut self, visible: Revision) {
        while let Some(((first, id), _)) = self.ahead.first_key_value()
            && *first <= visible
        {
            self.begins(*id, *first);
        }
    }

    /// A look has found this visible.
    pub(super) fn looked(&mut self, visible: Revision) {
        self.of_all.looked(visible);
        self.begin(visible);
        for id in self.new.drain(..) {
            if let Some((_, requests)) = self.by_id.get_mut(&id) {
                requests.looked(visible);
                self.fresh.push(id);
            }
        }
    }

    /// A look has found this visible in another content, or for the last time: whoever has asked is answered by
    /// that, whatever was needed before.
    pub(super) fn looked_anew(&mut self, visible: Revision) {
        self.begin(visible);
        let all = self.by_id.values_mut().map(|(_, requests)| requests);
        for requests in all.chain([&mut self.of_all]) {
            requests.count += std::mem::take(&mut requests.later);
            requests.need = visible;
        }
        self.new.clear();
        self.fresh = self.by_id.keys().copied().collect();
    }
}

impl State {
    pub(in crate::watch) fn request_progress(&mut self, id: WatchId) -> Result<()> {
        self.check_not_ended()?;
        if self.retired.has(id.0) {
            return Err(Error::Canceled(id));
        }
        let watcher = self.watchers.get(&id.0).ok_or(Error::WatcherNotExist(id))?;
        let asked = &mut self.asked;
        let (serial, requests) = match watcher.begins().filter(|first| *first > self.visible) {
            Some(first) => asked.ahead.entry((first, id.0)).or_default(),
            None => asked.by_id.entry(id.0).or_insert_with(|| {
                asked.new.push(id.0);
                Default::default()
            }),
        };
        *serial = watcher.serial;
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
        for id in std::mem::take(&mut self.asked.fresh) {
            self.answer(id);
        }
        let is_read = self.ready.is_empty() && self.catching_up.is_empty();
        if self.asked.pause > 0 && !is_read {
            self.asked.pause -= 1;
            return;
        }
        self.asked.pause = self.asked.by_id.len();
        let ids: Vec<i64> = self.asked.by_id.keys().copied().collect();
        ids.into_iter().for_each(|id| self.answer(id));
        let of_all = &mut self.asked.of_all;
        if is_read && of_all.count > 0 && self.all_have_begun() {
            let count = std::mem::take(&mut self.asked.of_all.count);
            self.made
                .push_back(Made::Progress(None, self.visible, count));
        }
        self.wait_for_beginnings(registry);
    }

    /// A restore may have taken beginnings away: who has asked waits for them again.
    pub(super) fn put_ahead(&mut self) {
        let watchers = &self.watchers;
        let ahead = |(id, _): &(i64, _)| {
            let first = watchers.get(id)?.begins()?;
            (first > self.visible).then_some(first)
        };
        for mut asked in std::mem::take(&mut self.asked.by_id) {
            if let Some(first) = ahead(&asked) {
                // What they need is said when that is there.
                let (_, requests) = &mut asked.1;
                requests.later += std::mem::take(&mut requests.count);
                self.asked.ahead.insert((first, asked.0), asked.1);
            } else {
                self.asked.by_id.insert(asked.0, asked.1);
            }
        }
    }

    /// Answers a watcher that has asked, if it can be.
    fn answer(&mut self, id: i64) {
        let Some((serial, requests)) = self.asked.by_id.get(&id) else {
            return;
        };
        let (member, need) = ((id, *serial), requests.need);
        if requests.count == 0 {
            return;
        }
        let Some(rev) = self.given_up_to(id).filter(|rev| *rev >= need) else {
            return;
        };
        if let Some((_, requests)) = self.asked.by_id.get_mut(&id) {
            let count = std::mem::take(&mut requests.count);
            self.made
                .push_back(Made::Progress(Some(member), rev, count));
            if requests.later > 0 {
                self.asked.new.push(id);
            } else {
                self.asked.by_id.remove(&id);
            }
        }
    }

    /// Who waits for the future and has asked for progress is answered when its first revision is visible, which
    /// may change none of its keys: then nothing else stirs the stream.
    fn wait_for_beginnings(&self, registry: &Registry) {
        let one = self.asked.ahead.keys().next().map(|(first, _)| *first);
        let all = self.future.range(self.visible.next()..).next();
        let all = all.filter(|_| !self.asked.of_all.are_answered());
        if let Some(first) = one.into_iter().chain(all.map(|(first, _)| *first)).min()
            && !registry.wait_for(&self.inbox, first)
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
