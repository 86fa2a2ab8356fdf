//! Which topics a key belongs to (SPEC.md, W-4): single keys by hash, ranges by order.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::places::Places;
use super::ranges::Ranges;
use super::topic::Topic;

/// All topics that the writer marks.
#[derive(Debug)]
pub(super) struct Table {
    hasher: SipHasher13,
    /// Numbers of topics by the hash of their key; mostly there is one for a hash. Small, since such a table may be half
    /// empty (W-11).
    keys: HashMap<u32, u32, BuildHasherDefault<Hashed>>,
    topics: Places<Arc<Topic>>,
    /// The others, by hash, stream and index.
    more: BTreeMap<(u32, usize, u32), Arc<Topic>>,
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

    fn write_u32(&mut self, hash: u32) {
        // The table looks at the highest bits too.
        self.0 = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Table {
    /// An empty table; keys that users choose must not know `secret`.
    pub(super) fn new(secret: &[u8; 16]) -> Table {
        Table {
            hasher: SipHasher13::new_with_key(secret),
            keys: HashMap::default(),
            topics: Places::default(),
            more: BTreeMap::new(),
            ranges: Ranges::default(),
        }
    }

    /// Calls `visit` with each topic that the key belongs to.
    pub(super) fn containing(&self, key: &[u8], mut visit: impl FnMut(&Arc<Topic>)) {
        if !self.keys.is_empty() {
            let hash = self.hash(key);
            if let Some(first) = self.first(hash) {
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
        let hash = self.hash(key);
        let first = self.first(hash).filter(is_it);
        let mut more = self.more_of(hash, topic.stream(), topic.stream());
        first.or_else(|| more.find_map(|(_, found)| Some(found).filter(is_it)))
    }

    /// Adds a topic of which there is none yet.
    pub(super) fn insert(&mut self, topic: Arc<Topic>) {
        let Some(key) = topic.keys().as_single() else {
            self.ranges.insert(topic);
            return;
        };
        let hash = self.hash(key);
        match self.keys.entry(hash) {
            Entry::Vacant(first) => {
                first.insert(self.topics.add(|_| topic));
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
        let hash = self.hash(key);
        let first = self.keys.get(&hash).copied();
        let place = first.and_then(|number| self.topics.get_mut(number));
        let Some(place) = place.filter(|first| Arc::ptr_eq(first, topic)) else {
            self.more.remove(&(hash, topic.stream(), topic.index));
            return;
        };
        let mut next = self.more.range(all_of(hash)).map(|(at, _)| *at);
        if let Some(next) = next.next().and_then(|at| self.more.remove(&at)) {
            *place = next;
        } else if let Some(number) = self.keys.remove(&hash) {
            self.topics.remove(number);
        }
    }

    #[cfg(test)]
    pub(super) fn depth(&self) -> usize {
        self.ranges.depth()
    }

    fn hash(&self, key: &[u8]) -> u32 {
        u32::try_from(self.hasher.hash(key) >> 32).expect("half of its bits")
    }

    fn first(&self, hash: u32) -> Option<&Arc<Topic>> {
        self.topics.get(*self.keys.get(&hash)?)
    }

    fn more_of(
        &self,
        hash: u32,
        first: usize,
        last: usize,
    ) -> impl Iterator<Item = (&(u32, usize, u32), &Arc<Topic>)> {
        self.more.range((hash, first, 0)..=(hash, last, u32::MAX))
    }
}

/// Where the others of a hash are.
fn all_of(hash: u32) -> RangeInclusive<(u32, usize, u32)> {
    (hash, 0, 0)..=(hash, usize::MAX, u32::MAX)
}
