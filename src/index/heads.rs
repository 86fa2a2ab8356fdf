//! Where the newest record of each key is: one atomic word per key id.
//!
//! Apart because it is the one thing that changes on every put, and the only one that both halves
//! of the index, points and order, go through. It must not know what a key is.
//!
//! *Thread safety*: any thread reads; the writer stores and exchanges, the cleaner exchanges by
//! comparison. *Invariants*: an id leaves this folder only after its chunk exists and its word is
//! stored; a chunk, once there, never moves and lives as long as the array.

use std::sync::OnceLock;

use revtree_format::Position;

use super::KeyId;
use super::map::zeroed;
use super::meter::Meter;
use crate::sync::{AtomicU64, Ordering};

/// Chunks double in size every [`STEPS`] chunks, so at most an eighth of the array is unused, and
/// growing touches no word that readers use.
pub(super) struct Heads {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
    meter: Meter,
}

impl Heads {
    pub(super) fn new(meter: Meter) -> Heads {
        let chunks: Box<[_]> = (0..CHUNKS).map(|_| OnceLock::new()).collect();
        meter.add(size_of_val(&*chunks));
        Heads { chunks, meter }
    }

    /// The newest record of the key. Acquire: pairs with the Release of [`Heads::store`],
    /// [`Heads::exchange`] and [`Heads::replace`], so the record's bytes are visible too.
    pub(super) fn load(&self, id: KeyId) -> Position {
        Position(self.word(id).load(Ordering::Acquire))
    }

    /// The first position of a key, before its id is told to anyone. Makes room for it.
    pub(super) fn store(&self, id: KeyId, position: Position) {
        let (chunk, offset) = place(id);
        let words = self.chunks[chunk].get_or_init(|| {
            let len = 1 << (FIRST_BITS + chunk / STEPS);
            self.meter.add(len * size_of::<AtomicU64>());
            zeroed(len)
        });
        words[offset].store(position.0, Ordering::Release);
    }

    /// Moves a key to its next record and returns the one that it supersedes.
    pub(super) fn exchange(&self, id: KeyId, position: Position) -> Position {
        Position(self.word(id).swap(position.0, Ordering::AcqRel))
    }

    /// Moves a key from one copy of its record to another, unless it has moved on meanwhile.
    pub(super) fn replace(&self, id: KeyId, from: Position, to: Position) -> bool {
        let word = self.word(id);
        word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn word(&self, id: KeyId) -> &AtomicU64 {
        let (chunk, offset) = place(id);
        &self.chunks[chunk]
            .get()
            .expect("an id is handed out after its chunk is made")[offset]
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        let made = self
            .chunks
            .iter()
            .filter_map(OnceLock::get)
            .map(|words| size_of_val(&**words));
        self.meter
            .subtract(made.sum::<usize>() + size_of_val(&*self.chunks));
    }
}

/// Chunk and offset of a key's word. With `FIRST` keys more in front of it, the number's leading
/// bit and the three bits after it name the chunk, the bits below them the offset.
fn place(id: KeyId) -> (usize, usize) {
    let number = id.0 as usize + FIRST;
    let exponent = number.ilog2() as usize;
    let below = exponent - STEPS.ilog2() as usize;
    let step = (number >> below) % STEPS;
    (
        (below - FIRST_BITS) * STEPS + step,
        number & ((1 << below) - 1),
    )
}

/// Chunks of one size.
const STEPS: usize = 8;
/// The first chunks have 64 words, half a kilobyte; fewer under loom, which tracks each.
const FIRST_BITS: usize = if cfg!(any(loom, shuttle)) { 0 } else { 6 };
const FIRST: usize = STEPS << FIRST_BITS;
/// Enough chunks for every `u32`.
const CHUNKS: usize = (32 - FIRST.ilog2() as usize + 1) * STEPS;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Every id has a place of its own: chunks are filled one after the other, without gaps.
    #[test]
    fn places_are_dense() {
        let (mut chunk, mut offset) = (0, 0);
        for id in 0..if cfg!(miri) { 2_000 } else { 100_000 } {
            if offset == 1 << (FIRST_BITS + chunk / STEPS) {
                (chunk, offset) = (chunk + 1, 0);
            }
            assert_eq!(place(KeyId(id)), (chunk, offset));
            offset += 1;
        }
        assert!(place(KeyId(u32::MAX)).0 < CHUNKS);
    }
}
