//! The writing side of the index: new keys, new positions, one new root per batch.
//!
//! Apart from the readers' side because there is exactly one writer, and it owns what only a
//! writer needs: how full the table is, the next id, the tree's draft.

use std::collections::VecDeque;
use std::sync::Arc;

use revtree_format::{Position, Revision};

use super::epoch::Moment;
use super::keys::{Keys, NewKey, Reader};
use super::map::{MapWriter, room};
use super::node::Draft;
use super::{KeyId, KeyIndex, pin, tree, upper};

/// The one writer of a [`KeyIndex`]. Dropped with unpublished changes, it leaves a tree without
/// them, beside the slots of their keys: only for an index that will not be used any more.
pub(crate) struct IndexWriter {
    index: Arc<KeyIndex>,
    map: MapWriter,
    draft: Draft,
    /// The first id that has never been given out.
    next: u32,
    /// Ids of keys that have been removed, and that nobody knows any more.
    free: Vec<KeyId>,
    /// Those that somebody may know who began before the moment.
    leaving: VecDeque<(Moment, Vec<KeyId>)>,
}

impl IndexWriter {
    pub(super) fn new(index: Arc<KeyIndex>, map: MapWriter, draft: Draft, next: u32) -> Self {
        IndexWriter {
            index,
            map,
            draft,
            next,
            free: Vec::new(),
            leaving: VecDeque::new(),
        }
    }

    /// How many keys can still be added. Far beyond what memory holds, but a limit.
    pub(crate) fn keys_left(&self) -> u64 {
        u64::from(KEYS_MAX - self.next) + self.free.len() as u64
    }

    /// Finds the places of keys that are absent and differ, and gives the id of each. All that can fail of adding a key is done in here, before its record is
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
    ) -> Result<Vec<KeyId>, K::Error> {
        assert!(
            new.len() as u64 <= self.keys_left(),
            "the caller asks keys_left"
        );
        let ids = self.take_ids(new.len());
        let reader = Reader {
            heads: &self.index.heads,
            keys,
            new: (&ids, new),
        };
        // Private until the publish, by when heads and slots are there.
        for (number, (id, (key, live))) in ids.iter().zip(new).enumerate() {
            let inserted = tree::insert(&mut self.draft, key, *id, *live, &reader);
            if let Err(error) = inserted {
                // One that fails has changed nothing itself.
                if number > 0 {
                    self.draft.reset();
                }
                self.free.extend(ids);
                return Err(error);
            }
        }
        Ok(ids)
    }

    /// Takes ids that nobody knows, ascending: those of removed keys first.
    fn take_ids(&mut self, len: usize) -> Vec<KeyId> {
        while self.free.len() < len
            && let Some((moment, _)) = self.leaving.front()
            && moment.is_past()
        {
            let (_, ids) = self.leaving.pop_front().expect("seen above");
            self.free.extend(ids);
        }
        let mut ids = self.free.split_off(self.free.len().saturating_sub(len));
        ids.sort_unstable();
        // Higher than all that have been given out before.
        let more = u32::try_from(len - ids.len()).expect("at most keys_left");
        ids.extend((self.next..self.next + more).map(KeyId));
        self.next += more;
        ids
    }

    /// Takes keys out of the index: of the tree at once, as the state of the same revision, and of the points. Whoever
    /// looks for one from here on does not find it; who walks or looks at this moment may, and can read its last
    /// record as before. Nobody is waited for: the ids serve other keys once their readers have gone.
    ///
    /// Only when nothing has changed since the last publish. The caller answers for it that no reader who comes
    /// needs the keys.
    ///
    /// # Panics
    ///
    /// If an id is not the id of its key.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for finished tombstones; see the module's head")
    )]
    pub(crate) fn remove(&mut self, keys: &[(&[u8], KeyId)]) {
        if keys.is_empty() {
            return;
        }
        for (key, id) in keys {
            tree::remove(&mut self.draft, key, *id);
        }
        let revision = {
            let guard = pin();
            self.index.tree.read(&guard).revision()
        };
        self.draft.publish(revision);
        for (key, id) in keys {
            self.map.remove(upper(self.index.hash(key)), *id);
        }
        // Behind the last way to them.
        let ids = keys.iter().map(|(_, id)| *id).collect();
        self.leaving.push_back((Moment::now(), ids));
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
        let id = self.place(&[(key, live)], keys)?[0];
        self.name(id, key, position);
        Ok(id)
    }

    /// How many ids there are, of keys, of removed ones, and such that wait.
    #[cfg(all(test, not(loom)))]
    pub(super) fn ids_given(&self) -> u32 {
        self.next
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
