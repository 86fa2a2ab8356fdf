//! Which topics a key belongs to (SPEC.md, W-4): single keys by hash, ranges by order.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::ranges::Ranges;
use super::topic::Topic;

/// All topics that the writer marks.
#[derive(Debug)]
pub(super) struct Table {
    hasher: SipHasher13,
    /// By the hash of their key; mostly there is one for a hash.
    keys: HashMap<u64, Arc<Topic>, BuildHasherDefault<Hashed>>,
    /// The others, by hash, stream and index.
    more: BTreeMap<(u64, usize, u32), Arc<Topic>>,
    ranges: Ranges,
}

/// A key that is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only hashes are keys");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Table {
    /// An empty table; keys that users choose must not know `secret`.
    pub(super) fn new(secret: &[u8; 16]) -> Table {
        Table {
            hasher: SipHasher13::new_with_key(secret),
            keys: HashMap::default(),
            more: BTreeMap::new(),
            ranges: Ranges::default(),
        }
    }

    /// Calls `visit` with each topic that the key belongs to.
    pub(super) fn containing(&self, key: &[u8], mut visit: impl FnMut(&Arc<Topic>)) {
        if !self.keys.is_empty() {
            let hash = self.hasher.hash(key);
            if let Some(first) = self.keys.get(&hash) {
                let more = self.more_of(hash, 0, usize::MAX).map(|(_, topic)| topic);
                for topic in std::iter::once(first).chain(more) {
                    // Two keys may have one hash.
                    if topic.keys().as_single() == Some(key) {
                        visit(topic);
                    }
                }
            }
        }
        self.ranges.containing(key, &mut visit);
    }

    /// The topic of this shape and stream.
    pub(super) fn find(&self, topic: &Topic) -> Option<&Arc<Topic>> {
        let Some(key) = topic.keys().as_single() else {
            return self.ranges.find(topic);
        };
        let is_it = |found: &&Arc<Topic>| {
            found.stream() == topic.stream() && found.shape() == topic.shape()
        };
        let hash = self.hasher.hash(key);
        let first = self.keys.get(&hash).filter(is_it);
        let mut more = self.more_of(hash, topic.stream(), topic.stream());
        first.or_else(|| more.find_map(|(_, found)| Some(found).filter(is_it)))
    }

    /// Adds a topic of which there is none yet.
    pub(super) fn insert(&mut self, topic: Arc<Topic>) {
        let Some(key) = topic.keys().as_single() else {
            self.ranges.insert(topic);
            return;
        };
        let hash = self.hasher.hash(key);
        match self.keys.entry(hash) {
            Entry::Vacant(first) => {
                first.insert(topic);
            }
            Entry::Occupied(_) => {
                let at = (hash, topic.stream(), topic.index);
                self.more.insert(at, topic);
            }
        }
    }

    /// Takes a topic out that is in it.
    pub(super) fn remove(&mut self, topic: &Arc<Topic>) {
        let Some(key) = topic.keys().as_single() else {
            self.ranges.remove(topic);
            return;
        };
        let hash = self.hasher.hash(key);
        let is_first = self
            .keys
            .get(&hash)
            .is_some_and(|first| Arc::ptr_eq(first, topic));
        if !is_first {
            self.more.remove(&(hash, topic.stream(), topic.index));
            return;
        }
        let next = self.more_of(hash, 0, usize::MAX).next().map(|(at, _)| *at);
        match next.and_then(|at| self.more.remove(&at)) {
            Some(next) => self.keys.insert(hash, next),
            None => self.keys.remove(&hash),
        };
    }

    #[cfg(test)]
    pub(super) fn depth(&self) -> usize {
        self.ranges.depth()
    }

    fn more_of(
        &self,
        hash: u64,
        first: usize,
        last: usize,
    ) -> impl Iterator<Item = (&(u64, usize, u32), &Arc<Topic>)> {
        self.more.range((hash, first, 0)..=(hash, last, u32::MAX))
    }
}
