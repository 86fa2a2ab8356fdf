//! Topics of ranges that stand close to each other, read by one pass along the log (SPEC.md, W-6).
//!
//! Each range is read along the log, record by record: a thousand of them would read it a thousand times. Here a pass
//! finds the topics of each record as the writer does. What one is given is what it would be given alone; only where
//! its batches end may differ.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::reading::{BATCH_RECORDS, BATCH_REVISIONS};
use super::{Stage, State, TopicState};
use crate::mvcc::{Part, PassLimits, Store, read_pass};
use crate::watch::ranges::Ranges;
use crate::watch::registry::Registry;
use crate::watch::response::EventBatch;

/// Topics that are read together.
const TOGETHER: usize = 256;
/// Bytes of keys and values that are made of all of them.
const BYTES: usize = 1 << 20;
/// Places of a queue that are looked at for them.
const LOOKED_AT: usize = 1024;
/// How far apart they may stand, in revisions.
const NEAR: u64 = 1024;

impl State {
    /// Reads a batch for a topic that has been taken from its queue, and for others of that, and puts them where they
    /// belong then. `false`: it is to be read alone.
    pub(super) fn read_together(
        &mut self,
        registry: &Registry,
        store: &Arc<Store>,
        index: u32,
    ) -> bool {
        let compact = store.engine.compact_rev();
        let topic = self.topics.get(index);
        if topic.is_none_or(|topic| Some(topic.cursor) < compact) {
            return false;
        }
        let group = self.gather(index);
        let mut ranges = Ranges::default();
        let (mut parts, mut places) = (Vec::new(), HashMap::new());
        for index in &group {
            if let Some(topic) = self.topics.get(*index) {
                let shape = topic.shared.shape();
                places.insert(*index, parts.len());
                parts.push(Part {
                    from: topic.cursor,
                    prev: shape.prev,
                    bytes: shape.bytes_max as usize,
                });
                ranges.insert(Arc::clone(&topic.shared));
            }
        }
        let limits = PassLimits {
            to: self.visible,
            revisions: BATCH_REVISIONS,
            records: BATCH_RECORDS,
            bytes: BYTES,
        };
        let matching = |key: &[u8], found: &mut Vec<usize>| {
            ranges.containing(key, &mut |topic| found.extend(places.get(&topic.index)));
        };
        let pass = (group.len() > 1).then(|| read_pass(store, &parts, &limits, matching));
        let Some(Ok(Some(pass))) = pass else {
            // All but the one are read later, and alone: what is too much or damaged is so for each of them.
            let from = || parts.iter().map(|part| part.from);
            if let (Some(first), Some(last)) = (from().min(), from().max())
                && parts.len() > 1
            {
                self.alone = first..=last;
            }
            for other in group.into_iter().skip(1).rev() {
                self.queue_of(other).push_front(other);
            }
            return false;
        };
        self.looked_at += pass.records;
        for (index, events) in group.into_iter().zip(pass.events) {
            self.move_cursor(index, pass.next);
            self.make_batch(index, EventBatch::new(events), pass.next);
            self.put_back(registry, store, index);
        }
        true
    }

    /// A topic, first, with those of its queue that are near and watch ranges as it does; they are taken out.
    fn gather(&mut self, index: u32) -> Vec<u32> {
        let mut group = vec![index];
        let is_range = |topic: &TopicState| topic.shared.keys().as_single().is_none();
        let Some(topic) = self.topics.get(index).filter(|topic| is_range(topic)) else {
            return group;
        };
        let (stage, from) = (topic.stage, topic.cursor);
        let bytes = topic.shared.shape().bytes_max;
        let to = self.visible;
        if stage == Stage::Idle || from > to || self.alone.contains(&from) {
            return group;
        }
        let mut queue = std::mem::take(self.queue_of(index));
        let mut others = VecDeque::new();
        for _ in 0..LOOKED_AT.min(queue.len()) {
            if group.len() == TOGETHER {
                break;
            }
            let Some(other) = queue.pop_front() else {
                break;
            };
            let is_near = self.topics.get(other).is_some_and(|topic| {
                let cursor = topic.cursor;
                let near = from <= cursor && cursor.get() - from.get() < NEAR;
                let alike = topic.shared.shape().bytes_max == bytes;
                topic.stage == stage && is_range(topic) && near && cursor <= to && alike
            });
            // Its place may be there twice.
            if !is_near {
                others.push_back(other);
            } else if !group.contains(&other) {
                group.push(other);
            }
        }
        for other in others.into_iter().rev() {
            queue.push_front(other);
        }
        *self.queue_of(index) = queue;
        group
    }

    /// Where a topic waits for its turn.
    fn queue_of(&mut self, index: u32) -> &mut VecDeque<u32> {
        match self.topics.get(index).map(|topic| topic.stage) {
            Some(Stage::CatchingUp) => &mut self.catching_up,
            _ => &mut self.ready,
        }
    }
}
