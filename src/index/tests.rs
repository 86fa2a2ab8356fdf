//! The index against a plain map, alone and beside readers; and the records it is tested over.

#![expect(clippy::disallowed_types, reason = "tests wait for each other")]

mod concurrent;
mod faults;
mod memory;
mod model;
mod points;
mod runs;

use std::cell::Cell;
use std::sync::Mutex;

use revtree_format::Position;

use super::Keys;

/// Records as the index sees them: a key at every position, positions in steps of 8 from 8 on.
#[derive(Default)]
pub(super) struct Records {
    keys: Mutex<Vec<Box<[u8]>>>,
    /// Reads that still succeed.
    budget: Mutex<Option<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unreadable;

impl Records {
    pub(super) fn append(&self, key: &[u8]) -> Position {
        let mut keys = self.keys.lock().expect("no test panics with it");
        keys.push(key.into());
        Position(keys.len() as u64 * 8)
    }

    pub(super) fn key(&self, position: Position) -> Box<[u8]> {
        let at = usize::try_from(position.0 / 8).expect("small") - 1;
        self.keys.lock().expect("no test panics with it")[at].clone()
    }

    pub(super) fn fail_after(&self, reads: Option<u64>) {
        *self.budget.lock().expect("no test panics with it") = reads;
    }
}

impl Keys for Records {
    type Error = Unreadable;

    fn with_key<R>(
        &self,
        position: Position,
        with: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Unreadable> {
        if let Some(left) = &mut *self.budget.lock().expect("no test panics with it") {
            *left = left.checked_sub(1).ok_or(Unreadable)?;
        }
        Ok(with(&self.key(position)))
    }
}

/// A small generator, seeded; every test prints its seed through the assertion messages.
pub(super) struct Random(Cell<u64>);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(Cell::new(seed))
    }

    pub(super) fn next(&self) -> u64 {
        // splitmix64
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// Keys of one of several shapes that are hard on prefixes and chunks.
    pub(super) fn key(&self, shape: usize) -> Vec<u8> {
        let bytes = |alphabet: &[u8], len: usize| -> Vec<u8> {
            (0..len)
                .map(|_| alphabet[self.below(alphabet.len())])
                .collect()
        };
        match shape % SHAPES {
            0 => bytes(b"ab", self.below(14)),
            1 => bytes(b"\0a", self.below(14)),
            2 => bytes(b"\xff\0", self.below(20)),
            3 => [
                &b"/registry/pods/"[..],
                &bytes(b"01234567", 2 + self.below(12)),
            ]
            .concat(),
            4 => [
                vec![b'x'; self.below(40)],
                bytes(b"\0\x01\xff", self.below(4)),
            ]
            .concat(),
            5 => (self.next() % 100_000).to_be_bytes().to_vec(),
            6 => vec![if self.below(2) == 0 { 0 } else { 0xff }; self.below(900)],
            _ => {
                let shape = self.below(SHAPES - 1);
                self.key(shape)
            }
        }
    }
}

/// How much of a test is enough, and how much under Miri, which takes a thousand times as long.
pub(super) const fn enough<T: Copy>(natively: T, under_miri: T) -> T {
    if cfg!(miri) { under_miri } else { natively }
}

pub(super) const SHAPES: usize = 8;
pub(super) const SECRET: [u8; 16] = *b"secret of a test";
