//! The unsynced tail, written again (SPEC.md, C-26).
//!
//! After an unclean end the frames behind the newest synced mark may be in the page cache and not on
//! disk, also when they verify (a failed sync leaves pages that look clean). So they are appended once
//! more to a fresh segment, synced, and adopted by a checkpoint, before any write is accepted. A crash
//! on the way leaves the old superblock, which knows nothing of the copy.

use std::collections::HashMap;

use revtree_format::{Link, NewRecord, Position, parse_record};

use super::Engine;
use super::open::Frames;
use crate::error::Result;
use crate::options::Progress;
use crate::pager::{Room, Tail, replay};

impl Engine {
    /// Copies the unsynced frames of `tail` behind the log's end and writes a checkpoint.
    pub(super) fn readopt(&self, tail: &Tail, progress: &dyn Fn(Progress)) -> Result<()> {
        let mut moved: HashMap<Position, Position> = HashMap::new();
        let rev = self.rev();
        let mut frames = Frames::new("frames copied", tail.unsynced(), progress);
        replay(&**self.storage(), tail.unsynced(), |frame| {
            let place = frame.place(self.medium.seed);
            let mut at = place.position;
            let mut rest = frame.records();
            let mut copies = Vec::new();
            while !rest.is_empty() {
                let (head, key) = parse_record(rest, place.at(at))?;
                let value_at = head.value_at();
                let value = rest.get(value_at..value_at + head.value_len as usize);
                copies.push((at, head, key, value.unwrap_or_default()));
                at = at.plus(head.record_len() as u64);
                rest = rest.get(head.record_len()..).unwrap_or_default();
            }
            if copies.is_empty() {
                frames.done();
                return Ok(());
            }
            let lens = copies.iter().map(|(_, head, ..)| head.record_len());
            let mut appender = self.begin(lens, 0, Room::Upkeep)?;
            appender.set_revision(rev);
            for (from, head, key, value) in copies {
                let relink = |link: Option<Link>| {
                    link.map(|link| Link {
                        hint: moved.get(&link.hint).copied().unwrap_or(link.hint),
                        ..link
                    })
                };
                let (prev, skip) = (relink(head.prev), relink(head.skip));
                let to = appender.record(&NewRecord::again(&head, prev, skip, key, value))?;
                moved.insert(from, to);
            }
            appender.readopted();
            frames.done();
            Ok(())
        })?;
        // Free from the next open on: this one hands out only what was free when it began.
        let replaced = tail.replaced_segments();
        self.append()?.log.space_mut().retire(&replaced);
        self.checkpoint(None)
    }
}
