//! The writing side of the index: new keys, new positions, one new root per batch.
//!
//! Apart from the readers' side because there is exactly one writer, and it owns what only a
//! writer needs: how full the table is, the next id, the tree's draft.

use std::sync::Arc;

use revtree_format::{Position, Revision};

use super::keys::{Keys, Reader};
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

    /// Adds a key that is absent, with its first record. [`KeyIndex::find`] sees it at once, the
    /// tree with the next [`IndexWriter::publish`]. The record at `position` is not read in here.
    ///
    /// # Errors
    ///
    /// If a record that the key must be compared with cannot be read; nothing has changed then.
    ///
    /// # Panics
    ///
    /// If [`IndexWriter::keys_left`] is 0.
    pub(crate) fn insert<K: Keys>(
        &mut self,
        key: &[u8],
        position: Position,
        live: bool,
        keys: &K,
    ) -> Result<KeyId, K::Error> {
        assert!(self.next < KEYS_MAX, "the caller asks keys_left");
        let id = KeyId(self.next);
        let reader = Reader {
            heads: &self.index.heads,
            keys,
            new: Some((id, key)),
        };
        // The only step that can fail comes first. Its change is private until the publish, by
        // when head and slot are there.
        tree::insert(&mut self.draft, key, id, live, &reader)?;
        self.next += 1;
        self.index.heads.store(id, position);
        self.map.insert(upper(self.index.hash(key)), id);
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
