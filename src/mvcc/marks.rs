//! A set of records by where they lie: one bit for each eight bytes of the segments that hold them.
//!
//! Apart because hashes, live bytes and images all need "of these records, which": a bit costs less than
//! a position, and any thread can set one.
//!
//! # Thread safety
//! Bits are set and read without order; whoever sets them in several threads joins those before reading.

use std::collections::HashMap;

use revtree_format::{Geometry, LeafRun, Position};

use crate::sync::{AtomicU64, Ordering};

/// A set of records.
#[derive(Debug)]
pub(crate) struct RecordMarks {
    geometry: Geometry,
    words: usize,
    units: HashMap<u32, Box<[AtomicU64]>>,
}

impl RecordMarks {
    pub(crate) fn new(geometry: Geometry) -> RecordMarks {
        let words = geometry.segment_bytes() / BYTES_A_WORD;
        RecordMarks {
            geometry,
            words: usize::try_from(words).expect("at most 128 Ki words"),
            units: HashMap::new(),
        }
    }

    /// Makes room for the records of a leaf. In a long segment a leaf may lie on the border of two units;
    /// a record that is longer than a unit is a leaf alone, of which only the beginning is marked.
    pub(crate) fn cover(&mut self, leaf: &LeafRun) {
        let last = match leaf.records {
            1 => leaf.position,
            _ => leaf.position.plus(u64::from(leaf.len).saturating_sub(8)),
        };
        for position in [leaf.position, last] {
            if let Some(unit) = self.geometry.index_of(position) {
                let words = self.words;
                self.units
                    .entry(unit)
                    .or_insert_with(|| (0..words).map(|_| AtomicU64::new(0)).collect());
            }
        }
    }

    /// Adds a record of a leaf that was covered; others are passed over.
    pub(crate) fn set(&self, position: Position) {
        if let Some((word, bit)) = self.place(position) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn has(&self, position: Position) -> bool {
        self.place(position)
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn place(&self, position: Position) -> Option<(&AtomicU64, u64)> {
        let unit = self.geometry.index_of(position)?;
        let eighth = position.0 % self.geometry.segment_bytes() / 8;
        let word = self
            .units
            .get(&unit)?
            .get(usize::try_from(eighth / 64).ok()?)?;
        Some((word, 1 << (eighth % 64)))
    }

    /// Numbers the records, so that a list can say something about each.
    pub(crate) fn number(self) -> RecordNumbers {
        let mut units: Vec<_> = self.units.into_iter().collect();
        units.sort_unstable_by_key(|(unit, _)| *unit);
        let mut count = 0;
        let number_unit = |(unit, words): (u32, Box<[AtomicU64]>)| {
            let words: Box<[u64]> = words.iter().map(|w| w.load(Ordering::Relaxed)).collect();
            let first = count;
            let before = words
                .chunks(WORDS_A_SUM)
                .map(|words| {
                    let sum = u32::try_from(count - first).expect("at most 8 Mi records in a unit");
                    count += words
                        .iter()
                        .map(|word| word.count_ones() as usize)
                        .sum::<usize>();
                    sum
                })
                .collect();
            let numbers = UnitNumbers {
                first,
                before,
                words,
            };
            (unit, numbers)
        };
        let units = units.into_iter().map(number_unit).collect();
        RecordNumbers {
            geometry: self.geometry,
            units,
            count,
        }
    }
}

/// A set of records that changes no more, each with a number from 0 in order of positions.
#[derive(Debug)]
pub(crate) struct RecordNumbers {
    geometry: Geometry,
    units: HashMap<u32, UnitNumbers>,
    count: usize,
}

#[derive(Debug)]
struct UnitNumbers {
    /// Number of the unit's first record.
    first: usize,
    /// Records of the unit before each group of words.
    before: Box<[u32]>,
    words: Box<[u64]>,
}

impl RecordNumbers {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The number of a record; `None` if it is not in the set.
    pub(crate) fn of(&self, position: Position) -> Option<usize> {
        let unit = self.geometry.index_of(position)?;
        let eighth = position.0 % self.geometry.segment_bytes() / 8;
        let (at, bit) = (usize::try_from(eighth / 64).ok()?, eighth % 64);
        let unit = self.units.get(&unit)?;
        let word = *unit.words.get(at)?;
        if word >> bit & 1 == 0 {
            return None;
        }
        let group = at - at % WORDS_A_SUM;
        let ones = |word: &u64| word.count_ones() as usize;
        let between: usize = unit.words.get(group..at)?.iter().map(ones).sum();
        let below = ones(&(word & ((1 << bit) - 1)));
        let before = *unit.before.get(at / WORDS_A_SUM)? as usize;
        Some(unit.first + before + between + below)
    }
}

/// Bytes of the file for which one word has bits.
const BYTES_A_WORD: u64 = 512;
/// Words for which one sum is kept: a sixteenth of the bits.
const WORDS_A_SUM: usize = 8;

#[cfg(test)]
mod tests {
    use revtree_format::{ChangeId, Revision};

    use super::*;

    /// Numbers follow the positions without a gap, over units and groups of words.
    #[test]
    fn numbers_are_dense() {
        let geometry = Geometry::new(64 << 10);
        let mut marks = RecordMarks::new(geometry);
        let leaf = |position: u64, len: u32, records| LeafRun {
            first: ChangeId::new(Revision::new(2), 0),
            position: Position(position),
            segment_use: 1,
            len,
            records,
        };
        // The second leaf lies on the border of two units.
        marks.cover(&leaf(16_448, 8000, 100));
        marks.cover(&leaf(131_072 - 96, 4096, 50));
        let positions: Vec<u64> = (0..100u64)
            .map(|n| 16_448 + n * 80)
            .chain((0..50).map(|n| 131_072 - 96 + n * 80))
            .collect();
        for position in positions.iter().step_by(3) {
            marks.set(Position(*position));
        }
        assert!(marks.has(Position(positions[120])) && !marks.has(Position(positions[121])));
        let numbers = marks.number();
        assert_eq!(numbers.count(), 50);
        for (n, position) in positions.iter().enumerate() {
            let expected = n.is_multiple_of(3).then_some(n / 3);
            assert_eq!(numbers.of(Position(*position)), expected);
        }
        assert_eq!(numbers.of(Position(1 << 30)), None);
    }
}
