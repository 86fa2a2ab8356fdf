//! How the index gets to see a key: it stores none, and asks for the record that has it.
//!
//! Apart because this is the index's only wish to the layer above, which implements [`Keys`].

use std::cmp::Ordering;

use revtree_format::Position;

use super::KeyId;
use super::heads::Heads;

/// Reads the key of the record at a position. Any answer but the true key must be an error: the
/// index passes it on, so that a record that cannot be read is never "not found".
pub(crate) trait Keys {
    /// Why a record could not be read.
    type Error;

    /// Calls `with` with the key of the record at `position`.
    fn with_key<R>(
        &self,
        position: Position,
        with: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Self::Error>;

    /// Says that the record will be read soon. Only a hint.
    fn prefetch(&self, _position: Position) {}
}

/// Keys by id: through the newest record, or directly for the keys that are just being placed.
pub(super) struct Reader<'a, K> {
    pub(super) heads: &'a Heads,
    pub(super) keys: &'a K,
    /// The ids that have no record yet, ascending, and the key of each.
    pub(super) new: (&'a [KeyId], &'a [NewKey<'a>]),
}

/// A key to be placed, and whether its newest record will be a put.
pub(crate) type NewKey<'a> = (&'a [u8], bool);

impl<K: Keys> Reader<'_, K> {
    pub(super) fn with<R>(&self, id: KeyId, with: impl FnOnce(&[u8]) -> R) -> Result<R, K::Error> {
        match self.new_key(id) {
            Some(key) => Ok(with(key)),
            None => self.keys.with_key(self.heads.load(id), with),
        }
    }

    fn new_key(&self, id: KeyId) -> Option<&[u8]> {
        let (ids, new) = self.new;
        let number = ids.binary_search(&id).ok()?;
        new.get(number).map(|(key, _)| *key)
    }

    /// How the key of `id` compares with `key`.
    pub(super) fn compare(&self, id: KeyId, key: &[u8]) -> Result<Ordering, K::Error> {
        self.with(id, |stored| stored.cmp(key))
    }

    pub(super) fn copy(&self, id: KeyId) -> Result<Vec<u8>, K::Error> {
        self.with(id, <[u8]>::to_vec)
    }

    pub(super) fn prefetch(&self, ids: &[KeyId]) {
        for id in ids {
            if self.new_key(*id).is_none() {
                self.keys.prefetch(self.heads.load(*id));
            }
        }
    }
}
