//! The writing side of the index: new keys, new positions, one new root per batch.
//!
//! Apart from the readers' side because there is exactly one writer, and it owns what only a
//! writer needs: how full the table is, the next id, the tree's draft.

use std::sync::Arc;

use revtree_format::{Position, Revision};

use super::keys::{Keys, NewKey, Reader};
use super::map::{MapWriter, room};
use super::node::Draft;
use super::{KeyId, KeyIndex, tree, upper};

/// The one writer of a [`KeyIndex`]. Dropped with unpublished changes, it leaves a tree without
/// them, beside the slots of their keys: only for an index that will not be used any more.
pub(crate) struct IndexWriter {
    index: Arc<KeyIndex>,
    map: MapWriter,
    draft: Draft,
    next: u32,
}

impl IndexWriter {
    pub(super) fn new(index: Arc<KeyIndex>, map: MapWriter, draft: Draft, next: u32) -> Self {
        IndexWriter {
            index,
            map,
            draft,
            next,
        }
    }

    /// How many keys can still be added. Far beyond what memory holds, but a limit.
    pub(crate) fn keys_left(&self) -> u64 {
        u64::from(KEYS_MAX - self.next)
    }

    /// Finds the places of keys that are absent and differ, and gives the id of the first; the
    /// others follow it. All that can fail of adding a key is done in here, before its record is
    /// written. Nobody sees the keys yet: each is to be told by [`IndexWriter::name`] before the
    /// next [`IndexWriter::publish`].
    ///
    /// More than one key only when nothing has changed since the last publish.
    ///
    /// # Errors
    ///
    /// If it cannot be told where a key belongs, because a record beside it cannot be read; nothing
    /// has changed then.
    ///
    /// # Panics
    ///
    /// If there are more than [`IndexWriter::keys_left`].
    pub(crate) fn place<K: Keys>(
        &mut self,
        new: &[NewKey<'_>],
        keys: &K,
    ) -> Result<KeyId, K::Error> {
        assert!(
            new.len() as u64 <= self.keys_left(),
            "the caller asks keys_left"
        );
        let first = self.next;
        let reader = Reader {
            heads: &self.index.heads,
            keys,
            new: (first, new),
        };
        // Private until the publish, by when heads and slots are there.
        for (id, (key, live)) in (first..).zip(new) {
            let inserted = tree::insert(&mut self.draft, key, KeyId(id), *live, &reader);
            if let Err(error) = inserted {
                // One that fails has changed nothing itself.
                if id > first {
                    self.draft.reset();
                }
                return Err(error);
            }
        }
        self.next += u32::try_from(new.len()).expect("at most keys_left");
        Ok(KeyId(first))
    }

    /// Tells the first record of a key that has been placed. [`KeyIndex::find`] sees it at once, the
    /// tree with the next publish.
    pub(crate) fn name(&mut self, id: KeyId, key: &[u8], position: Position) {
        self.index.heads.store(id, position);
        self.map.insert(upper(self.index.hash(key)), id);
    }

    /// Adds one key that is absent, with its first record, which is not read in here.
    ///
    /// # Errors
    ///
    /// As [`IndexWriter::place`].
    ///
    /// # Panics
    ///
    /// As [`IndexWriter::place`].
    pub(crate) fn insert<K: Keys>(
        &mut self,
        key: &[u8],
        position: Position,
        live: bool,
        keys: &K,
    ) -> Result<KeyId, K::Error> {
        let id = self.place(&[(key, live)], keys)?;
        self.name(id, key, position);
        Ok(id)
    }

    /// Moves a key to its next record; returns the position of the one that it supersedes,
    /// wherever the cleaner has put it.
    pub(crate) fn swing(&mut self, id: KeyId, position: Position) -> Position {
        self.index.heads.exchange(id, position)
    }

    /// Says whether the newest record of a key is a put; counted from the next publish on.
    ///
    /// # Panics
    ///
    /// If `id` is not the id of `key`.
    pub(crate) fn set_live(&mut self, key: &[u8], id: KeyId, live: bool) {
        tree::set_live(&mut self.draft, key, id, live);
    }

    /// Makes the tree's changes since the last call visible, all at once, as the state that counts
    /// up to `revision`.
    pub(crate) fn publish(&mut self, revision: Revision) {
        self.draft.publish(revision);
    }
}

/// What the largest table holds: three quarters of 2³² slots.
pub(super) const KEYS_MAX: u32 = 3 << 30;
const _: () = assert!(KEYS_MAX as usize == room(32));
