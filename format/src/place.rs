//! What checksums are bound to besides their own bytes: the store, the use of the segment, the place.
//!
//! A frame or a record that an earlier use left, that belongs elsewhere or to another store does not
//! pass (SPEC.md, B-20, B-41).

use crc32fast::Hasher;

use crate::ids::Position;

/// The CRC-32 of a store's id, with which the checksums of its frames and records begin. Made once, so
/// that no read pays for the id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreSeed(u32);

impl StoreSeed {
    /// That of the store with this id.
    #[must_use]
    pub fn new(store_id: &[u8; 16]) -> StoreSeed {
        StoreSeed(crc32fast::hash(store_id))
    }
}

/// Where a frame or a record begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The store.
    pub seed: StoreSeed,
    /// The use of the segment.
    pub segment_use: u64,
    /// The first byte in the file.
    pub position: Position,
}

impl Place {
    /// Another place in the same segment.
    #[must_use]
    pub fn at(self, position: Position) -> Place {
        Place { position, ..self }
    }

    /// A CRC-32 that has been fed with store id, segment use and position.
    pub(crate) fn hasher(self) -> Hasher {
        let mut words = [0; 16];
        let (segment_use, position) = words.split_at_mut(8);
        segment_use.copy_from_slice(&self.segment_use.to_le_bytes());
        position.copy_from_slice(&self.position.0.to_le_bytes());
        let mut hasher = Hasher::new_with_initial_len(self.seed.0, 16);
        hasher.update(&words);
        hasher
    }
}
