//! The in-memory index of keys: from a key to the position of its newest record, by hash and in
//! order.
//!
//! Apart because it is the crate's one lock-free structure. It does not know what a record is: it
//! holds positions, asks for the key at one through [`Keys`], and is told whether the newest
//! record of a key is a put (*live*) or a tombstone (*dead*).
//!
//! A key has a [`KeyId`] from the moment that it appears. Three parts go by it:
//!
//! * `heads`: id → position of the newest record; one store per put, nothing else changes;
//! * `map` (points): hash → id; the key is compared in the record, which the read needs anyway;
//! * `tree` over `leaf`, `separators` and `node` (order): a copy-on-write B+tree; it changes when a
//!   key appears, dies or is revived, not when it is overwritten.
//!
//! # Thread safety
//!
//! [`KeyIndex`] is read by any number of threads, which take no lock and write no shared line.
//! There is one [`IndexWriter`]. Neither waits for the other, wherever it may be stopped.
//!
//! # Invariants
//!
//! 1. An id never changes its key while a pin is left that may know it. So ids are stable in leaves of any age, and a comparison through
//!    a head is right whichever record of the key it meets.
//! 2. A head is stored before the slot that names its id, and both before the leaf does.
//! 3. What changed in the tree since the last [`IndexWriter::publish`] becomes visible as one root.
//!    Whoever publishes a revision to readers calls that first: a reader at R must meet a tree that
//!    has the keys of R. It may have later keys too; their records say that they are later.
//! 4. A record that cannot be read is never "not found": a lookup and an insertion that need it
//!    fail with the error of [`Keys`] and leave the index as it was; where it may lie in a range or
//!    not, it is counted in, and whoever reads the range meets the error there.
//!
//! # Removal
//!
//! [`IndexWriter::remove`] takes keys out of their leaves, publishes, marks their slots, and lets the epoch pass:
//! a walk that began before may still emit the id, and a probe offer it, and both go on to its head, which keeps its
//! last position until then. Only then may the id and its head serve another key. A slot cannot just be emptied,
//! because probes of other keys pass over it: a mark ends no probe, and growth leaves marks behind. A leaf without
//! entries leaves the tree, and so does an inner node without children; leaves are not joined.
//!
//! The argument is X-9 of SPEC.md. Nobody calls it yet but tests: what a store has to know of a key before it may
//! leave is not written down yet.

mod epoch;
mod meter;

mod heads;
mod keys;
mod map;

mod leaf;
mod node;
mod place;
mod prefix;
mod separators;
mod tree;

mod builder;
mod image;
mod sort;
mod writer;

#[cfg(loom)]
mod canary;
#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, not(loom)))]
mod tests;

use std::ops::Bound;
use std::sync::Arc;

use revtree_format::{Position, Revision};
use siphasher::sip::SipHasher13;

pub(crate) use builder::{BuildFault, Builder, Scanned};
pub(crate) use epoch::{Moment, pin};
pub(crate) use image::{EntryImage, ImageFault, KeyedEntry, LeafImage, from_leaves};
pub(crate) use keys::{Keys, NewKey};
pub(crate) use writer::IndexWriter;

use heads::Heads;
use keys::Reader;
use map::Map;
use meter::Meter;
use node::Tree;
use place::Sizes;

/// The number of a key for as long as the index has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct KeyId(u32);

/// A key in a range: its id, and the position of its newest record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) id: KeyId,
    pub(crate) position: Position,
}

/// How many keys there are, by one state of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Count {
    /// Keys whose newest record is a put.
    pub(crate) live: u64,
    /// All keys, those too whose newest record is a tombstone.
    pub(crate) all: u64,
    /// Both count every change up to this revision, and none after it.
    pub(crate) revision: Revision,
}

/// The readers' side of the index. See the module for what it promises.
pub(crate) struct KeyIndex {
    hasher: SipHasher13,
    heads: Heads,
    map: Arc<Map>,
    tree: Arc<Tree>,
    meter: Meter,
}

/// An empty index, whose hashes are keyed with the store's secret.
pub(crate) fn create(secret: [u8; 16]) -> (Arc<KeyIndex>, IndexWriter) {
    let meter = Meter::default();
    let (map, map_writer) = Map::with_room(0, meter.clone());
    let (tree, draft) = Tree::new(Vec::new(), Revision::default(), meter.clone());
    let heads = Heads::new(meter.clone());
    let hasher = SipHasher13::new_with_key(&secret);
    let index = Arc::new(KeyIndex {
        hasher,
        heads,
        map,
        tree,
        meter,
    });
    let writer = IndexWriter::new(Arc::clone(&index), map_writer, draft, 0);
    (index, writer)
}

impl KeyIndex {
    /// The key's id and newest position. Sees a key from its insertion on, published or not.
    ///
    /// # Errors
    ///
    /// If a record that may be the key's cannot be read.
    pub(crate) fn find<K: Keys>(
        &self,
        key: &[u8],
        keys: &K,
    ) -> Result<Option<(KeyId, Position)>, K::Error> {
        let guard = pin();
        self.map.find(upper(self.hash(key)), &guard, |id| {
            let position = self.heads.load(id);
            let same = keys.with_key(position, |stored| stored == key)?;
            Ok(same.then_some((id, position)))
        })
    }

    /// The position of the key's newest record.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the cleaner, which moves records")
    )]
    pub(crate) fn head(&self, id: KeyId) -> Position {
        self.heads.load(id)
    }

    /// Says that the record at `from` has been copied to `to`. False, and without effect, if the
    /// key has moved on, so that both copies are superseded.
    pub(crate) fn relocate(&self, id: KeyId, from: Position, to: Position) -> bool {
        self.heads.replace(id, from, to)
    }

    /// Appends up to `max` keys within the bounds to `out`, dead ones too, in key order or in
    /// reverse, and prefetches their records. True if there are more. Goes on from there with the
    /// last key as the new bound; the epoch is pinned only in here. A record that cannot be read,
    /// and that a bound would have to be compared with, is within.
    pub(crate) fn chunk<K: Keys>(
        &self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        reverse: bool,
        max: usize,
        keys: &K,
        out: &mut Vec<Entry>,
    ) -> bool {
        let guard = pin();
        let version = self.tree.read(&guard);
        let reader = self.reader(keys);
        let (span, _) = tree::span(version.root(), version.sizes(), lower, upper, &reader);
        let (mut from, mut to) = (span.from.all, span.to.all);
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let more = to - from > max;
        if more && reverse {
            from = to - max;
        } else if more {
            to = from + max;
        }
        out.reserve((to - from) as usize);
        tree::walk(version.root(), from, to, reverse, &mut |id| {
            let position = self.heads.load(id);
            keys.prefetch(position);
            out.push(Entry { id, position });
        });
        more
    }

    /// How many keys lie within the bounds, in the time of two lookups.
    ///
    /// # Errors
    /// A record that cannot be read, and that a bound would have to be compared with: nobody can tell
    /// whether it is within.
    pub(crate) fn count<K: Keys>(
        &self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        keys: &K,
    ) -> Result<Count, K::Error> {
        let guard = pin();
        let version = self.tree.read(&guard);
        let revision = version.revision();
        let reader = self.reader(keys);
        let (span, doubt) = tree::span(version.root(), version.sizes(), lower, upper, &reader);
        if let Some(error) = doubt {
            return Err(error);
        }
        let live = u64::from(span.to.live - span.from.live);
        let all = u64::from(span.to.all - span.from.all);
        Ok(Count {
            live,
            all,
            revision,
        })
    }

    /// How many keys there are in all.
    pub(crate) fn totals(&self) -> Count {
        let guard = pin();
        let version = self.tree.read(&guard);
        let revision = version.revision();
        let Sizes { live, all } = version.sizes();
        Count {
            live: live.into(),
            all: all.into(),
            revision,
        }
    }

    /// Bytes allocated by heads, tables and nodes, with those that wait for an epoch.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.meter.bytes()
    }

    /// The keyed hash of a key.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// Shows every leaf in key order, as the last published version has it, for a run on disk.
    pub(crate) fn leaves(&self, visit: impl FnMut(LeafImage)) {
        image::show(self, visit);
    }

    fn reader<'a, K>(&'a self, keys: &'a K) -> Reader<'a, K> {
        Reader {
            heads: &self.heads,
            keys,
            new: (&[], &[]),
        }
    }
}

// Readers share the index between threads; the writer may be handed from one to another.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    const fn handed_over<T: Send>() {}
    shared::<KeyIndex>();
    handed_over::<IndexWriter>();
};

/// The half of a hash that slots and leaf images keep.
fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}
