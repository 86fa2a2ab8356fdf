//! Everything that can be observed of a store at one moment, to be compared as a whole.
//!
//! A crash test keeps one of these per accepted commit; after reopening, the store must be exactly
//! one of them.

use std::hash::{Hash, Hasher};

use revtree_format::Revision;

use crate::answer::{Applied, Event, Kv, Rows};

/// All that a store shows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The current revision.
    pub current: Revision,
    /// The compact revision, if it was ever compacted.
    pub compact: Option<Revision>,
    /// The log position.
    pub applied: Applied,
    /// The live keys at the current revision.
    pub keys: Vec<Kv>,
    /// The live keys at the compact revision; empty if never compacted.
    pub keys_at_compact: Vec<Kv>,
    /// Every change from the compact revision on, with what was there before it.
    pub events: Vec<Event>,
    /// The rows of each known side table that has any, by name.
    pub tables: Vec<(String, Rows)>,
}

impl State {
    /// 64 bits that are equal for equal states, the same on every machine and compiler.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Fnv(0xCBF2_9CE4_8422_2325);
        self.hash(&mut digest);
        digest.finish()
    }
}

/// FNV-1a, 64 bits; the standard library's hasher may change with the compiler.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
