//! Who asks for progress, and when it is answered (SPEC.md, W-8).

use super::{Began, Made, Stage, State};
use crate::error::{Error, Result};
use crate::watch::registry::Registry;
use crate::watch::request::WatchId;

impl State {
    pub(in crate::watch) fn request_progress(&mut self, id: WatchId) -> Result<()> {
        self.check_not_ended()?;
        if self.retired.contains(&id.0) {
            return Err(Error::Canceled(id));
        }
        let watcher = self.watchers.get(&id.0).ok_or(Error::WatcherNotExist(id))?;
        self.asked.push((id.0, watcher.serial));
        Ok(())
    }

    pub(in crate::watch) fn request_progress_all(&mut self) -> Result<()> {
        self.check_not_ended()?;
        self.asked_all += 1;
        Ok(())
    }

    /// Answers who has asked for progress and is in step.
    pub(super) fn answer_progress(&mut self, registry: &Registry) {
        if self.asked.is_empty() && self.asked_all == 0 {
            return;
        }
        let visible = self.visible;
        for member in std::mem::take(&mut self.asked) {
            if !self.is_member(member) {
                continue;
            }
            if self.in_step(member.0) {
                self.made.push_back(Made::Progress(member, visible));
            } else {
                self.asked.push(member);
            }
        }
        // Who has begun is asked for again: a restore of what is older may take its beginning away.
        let all_began = (self.future.last_key_value()).is_none_or(|(last, _)| *last <= visible);
        if self.ready.is_empty() && self.catching_up.is_empty() && all_began {
            for _ in 0..std::mem::take(&mut self.asked_all) {
                self.made.push_back(Made::ProgressOfAll(visible));
            }
        }
        self.wait_for_beginnings(registry);
    }

    /// Who waits for the future and has asked for progress is answered when its first revision is visible, which
    /// may change none of its keys: then nothing else stirs the stream.
    fn wait_for_beginnings(&self, registry: &Registry) {
        let began = self
            .asked
            .iter()
            .filter_map(|(id, _)| self.watchers.get(id)?.begins());
        let all = self.future.keys().copied().filter(|_| self.asked_all > 0);
        let ahead = began.chain(all).filter(|from| *from > self.visible);
        if let Some(first) = ahead.min()
            && !registry.wait_for(first)
        {
            self.inbox.stir();
        }
    }

    /// Whether a watcher has been given all that is visible, and what is visible reaches its beginning.
    fn in_step(&mut self, id: i64) -> bool {
        let visible = self.visible;
        let Some(watcher) = self.watchers.get(&id) else {
            return false;
        };
        let begun = watcher.began != Began::Future || watcher.from <= visible;
        let index = watcher.topic;
        let topic = self.topic(index);
        begun
            && topic.is_some_and(|topic| match topic.stage {
                Stage::Idle => true,
                Stage::Due => topic.cursor > visible,
                Stage::CatchingUp => false,
            })
    }
}
