//! Who asks for progress, and when it is answered (SPEC.md, W-8).
//!
//! An answer needs what was visible when it was asked for, and no more: so it does not wait for what the writer adds
//! meanwhile, however fast that is. One for all of a stream is not to say less than a watcher has been given: so nothing
//! is read beyond what it needs before it is given, from when on nobody catches up.

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
    /// A look has been made since the last of those for all.
    looked: bool,
    /// Steps until it is looked again who can be answered: as many as that looks at, so that a step costs the same
    /// however many ask.
    pause: usize,
}

/// Requests for one answer, or rather for one each.
#[derive(Debug, Default)]
struct Requests {
    count: u64,
    /// What was visible when they were made, or a little later: an answer is at or above it. `None`: the next look
    /// says it.
    need: Option<Revision>,
    /// Made since: they need more, and those before do not wait for that.
    later: u64,
}

impl Requests {
    /// One more. Whether the next look has to say what is needed, and did not have to before.
    fn add(&mut self) -> bool {
        match self.need {
            Some(_) => self.later += 1,
            None => self.count += 1,
        }
        self.need.is_none() && self.count == 1
    }

    /// They have been answered; gives how many. What is left is of later.
    fn answered(&mut self) -> u64 {
        let later = std::mem::take(&mut self.later);
        self.need = None;
        std::mem::replace(&mut self.count, later)
    }
}

impl Asked {
    fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.of_all.count == 0
    }

    /// A watcher is gone.
    pub(super) fn forget(&mut self, id: i64) {
        self.by_id.remove(&id);
    }

    /// No topic is read further before who has asked for all is answered.
    pub(super) fn limit(&self) -> Option<Revision> {
        self.of_all.need
    }

    /// Topics have been read beyond what is needed for all, or may be: what is needed is what is visible when nobody
    /// catches up.
    pub(super) fn lift(&mut self) {
        self.of_all.need = None;
    }

    /// The last look has found this visible: whoever has asked is answered by that, or not at all.
    pub(super) fn looked_for_the_last_time(&mut self, visible: Revision) {
        let all = self.by_id.values_mut().map(|(_, requests)| requests);
        for requests in all.chain([&mut self.of_all]) {
            requests.count += std::mem::take(&mut requests.later);
            requests.need = Some(visible);
        }
    }

    /// A look has found this visible; `anew`: in another content, whatever was needed before.
    pub(super) fn looked(&mut self, visible: Revision, anew: bool) {
        let needs = |requests: &mut Requests| {
            if requests.need.is_none() || anew {
                requests.need = Some(visible);
            }
        };
        if anew {
            self.new.clear();
            let all = self.by_id.values_mut().map(|(_, requests)| requests);
            all.for_each(needs);
        }
        for id in self.new.drain(..) {
            if let Some((_, requests)) = self.by_id.get_mut(&id) {
                needs(requests);
            }
        }
        self.looked = true;
        if anew {
            self.lift();
        }
        self.pause = 0;
    }
}

impl State {
    pub(in crate::watch) fn request_progress(&mut self, id: WatchId) -> Result<()> {
        self.check_not_ended()?;
        if self.retired.has(id.0) {
            return Err(Error::Canceled(id));
        }
        let watcher = self.watchers.get(&id.0).ok_or(Error::WatcherNotExist(id))?;
        let asked = self.asked.by_id.entry(id.0).or_default();
        asked.0 = watcher.serial;
        if asked.1.add() {
            self.asked.new.push(id.0);
        }
        // Who asks wants what is visible now.
        self.seen = None;
        Ok(())
    }

    pub(in crate::watch) fn request_progress_all(&mut self) -> Result<()> {
        self.check_not_ended()?;
        self.asked.of_all.add();
        if self.asked.of_all.need.is_none() {
            self.asked.looked = false;
        }
        self.seen = None;
        Ok(())
    }

    /// Answers who has asked for progress and has been given what was visible then.
    pub(super) fn answer_progress(&mut self, registry: &Registry) {
        if self.asked.is_empty() {
            return;
        }
        // One who has not begun may never: nobody waits for that.
        let can_be = self.catching_up.is_empty() && self.all_have_begun(self.visible);
        let all = &mut self.asked.of_all;
        if !can_be {
            all.need = None;
        } else if all.count > 0 && all.need.is_none() && self.asked.looked {
            all.need = Some(self.visible);
            self.asked.pause = 0;
        }
        let queued = self.ready.len() + self.catching_up.len();
        if queued > 0 && self.asked.pause > 0 {
            self.asked.pause -= 1;
            return;
        }
        let of_all = self.asked.of_all.count > 0;
        self.asked.pause = self.asked.by_id.len() + usize::from(of_all) * queued;
        let mut by_id = std::mem::take(&mut self.asked.by_id);
        by_id.retain(|id, (serial, requests)| {
            let is_given = |need: &Revision| self.given_up_to(*id).filter(|rev| rev >= need);
            let Some(rev) = requests.need.as_ref().and_then(is_given) else {
                return true;
            };
            for _ in 0..requests.answered() {
                self.made.push_back(Made::Progress((*id, *serial), rev));
            }
            let goes_on = requests.count > 0;
            if goes_on {
                self.asked.new.push(*id);
                self.seen = None;
            }
            goes_on
        });
        self.asked.by_id = by_id;
        if of_all
            && let Some(need) = self.asked.of_all.need
            && let Some(rev) = self.all_given_up_to().filter(|rev| *rev >= need)
        {
            for _ in 0..self.asked.of_all.answered() {
                self.made.push_back(Made::ProgressOfAll(rev));
            }
            if self.asked.of_all.count > 0 {
                self.asked.looked = false;
                self.seen = None;
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
        let all = all.filter(|_| self.asked.of_all.count > 0);
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

    /// Up to where every watcher has been given everything; `None`: one has not begun.
    fn all_given_up_to(&self) -> Option<Revision> {
        let queued = self.ready.iter().chain(&self.catching_up);
        let topics = queued.filter_map(|index| self.topics.get(*index));
        let rev = topics.map(|topic| self.read_up_to(topic)).min();
        let rev = rev.unwrap_or(self.visible);
        self.all_have_begun(rev).then_some(rev)
    }

    /// Who has begun is asked for again: a restore of what is older may take its beginning away.
    fn all_have_begun(&self, rev: Revision) -> bool {
        let last = self.future.last_key_value();
        last.is_none_or(|(last, _)| *last <= rev)
    }

    fn read_up_to(&self, topic: &TopicState) -> Revision {
        match topic.stage {
            Stage::Idle => self.visible,
            Stage::Due | Stage::CatchingUp => before(topic.cursor).min(self.visible),
        }
    }
}
