//! Which of the pending bytes a power cut leaves: the choices, from all of them to chance.
//!
//! Apart from the model because a test decides here how thorough it is. [`Mask`] is one subset,
//! [`every_mask`] all of a few sectors, [`edge_masks`] the corners of many, [`Sampled`] chance with
//! garbage and torn sectors.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::super::content::{SECTOR_BYTES, Sector};
use super::random::Random;

/// Up to this many sectors, all subsets are tried: 4096 of them, and each in four versions of
/// metadata.
pub const EXHAUSTIVE_SECTORS_MAX: usize = 12;

/// Decides what survives. Asked in a fixed order: each file's sectors upwards and then its length;
/// after the files, the names of each directory.
pub trait Choice {
    /// What becomes of a sector that was written and not synced.
    fn sector(&mut self, sector: &PendingSector) -> Survival;

    /// Which of the `pending` lengths of a file is on disk: 0 for none of them, `pending` for the
    /// newest.
    fn length(&mut self, file: u64, pending: usize) -> usize;

    /// How many of the `pending` changes to a directory's names survive: the first ones.
    fn names(&mut self, pending: usize) -> usize;
}

/// A sector that was written and not synced.
#[derive(Clone, Copy, Debug)]
pub struct PendingSector {
    /// The file's number.
    pub file: u64,
    /// The sector's number in the file.
    pub sector: u64,
    /// How often it was written since the last sync.
    pub versions: usize,
    /// Whether any of those writes made it other than it was: if none did, old and new are one.
    pub changes: bool,
}

/// What becomes of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// As it was at the last sync.
    Old,
    /// As the newest write left it.
    New,
    /// As an earlier write left it: 0 is the first since the last sync.
    Version(usize),
    /// Bytes that nobody wrote, from this seed.
    Garbage(u64),
    /// The first bytes of the one and the last of the other.
    Torn {
        /// Where the halves meet, counted in units of 8 bytes.
        words: usize,
        /// Is the first half the new one?
        new_first: bool,
    },
}

impl Survival {
    /// The sector's bytes, if they are not the old ones. Garbage stays in its range.
    pub(super) fn bytes(
        self,
        old: &Sector,
        versions: &[Arc<Sector>],
        garbage: Range<usize>,
    ) -> Option<Sector> {
        let newest = versions.last()?;
        match self {
            Survival::Old => None,
            Survival::New => Some(**newest),
            Survival::Version(nth) => Some(**versions.get(nth).unwrap_or(newest)),
            Survival::Garbage(seed) => {
                let mut bytes = **newest;
                Random::new(seed).fill(&mut bytes[garbage]);
                Some(bytes)
            }
            Survival::Torn { words, new_first } => {
                let border = (words * 8).min(SECTOR_BYTES);
                let (first, last) = if new_first {
                    (&**newest, old)
                } else {
                    (old, &**newest)
                };
                let mut bytes = *last;
                bytes[..border].copy_from_slice(&first[..border]);
                Some(bytes)
            }
        }
    }
}

/// One subset: some sectors new, all others old; all lengths and all names kept, or lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// For each pending sector that changes something, in order: new? Those behind the end are old.
    pub new: Vec<bool>,
    /// Have the lengths survived?
    pub lengths: bool,
    /// Have the names survived?
    pub names: bool,
    next: usize,
}

impl Mask {
    /// A subset.
    pub fn new(new: Vec<bool>, lengths: bool, names: bool) -> Mask {
        Mask {
            new,
            lengths,
            names,
            next: 0,
        }
    }
}

impl Choice for Mask {
    fn sector(&mut self, sector: &PendingSector) -> Survival {
        if !sector.changes {
            return Survival::Old;
        }
        let new = self.new.get(self.next).copied().unwrap_or(false);
        self.next += 1;
        if new { Survival::New } else { Survival::Old }
    }

    fn length(&mut self, _file: u64, pending: usize) -> usize {
        if self.lengths { pending } else { 0 }
    }

    fn names(&mut self, pending: usize) -> usize {
        if self.names { pending } else { 0 }
    }
}

/// All subsets of `sectors` pending sectors, each with lengths and names kept and lost.
///
/// # Panics
///
/// For more sectors than [`EXHAUSTIVE_SECTORS_MAX`].
pub fn every_mask(sectors: usize) -> impl Iterator<Item = Mask> {
    assert!(
        sectors <= EXHAUSTIVE_SECTORS_MAX,
        "more subsets than anyone can try"
    );
    (0_u32..1 << sectors)
        .flat_map(move |bits| with_metadata((0..sectors).map(|nth| bits >> nth & 1 == 1).collect()))
}

/// The corners of the subsets of many sectors: none, all, all but one, only the first, only the
/// last; each with lengths and names kept and lost.
pub fn edge_masks(sectors: usize) -> impl Iterator<Item = Mask> {
    let only = move |nth: usize| (0..sectors).map(|n| n == nth).collect();
    let all_but = move |nth: usize| (0..sectors).map(|n| n != nth).collect();
    let mut corners: Vec<Vec<bool>> = vec![vec![false; sectors], vec![true; sectors]];
    corners.extend((0..sectors).map(all_but));
    corners.extend([only(0), only(sectors.saturating_sub(1))]);
    corners.into_iter().flat_map(with_metadata)
}

fn with_metadata(new: Vec<bool>) -> impl Iterator<Item = Mask> {
    let metadata = [(false, false), (false, true), (true, false), (true, true)];
    metadata
        .into_iter()
        .map(move |(lengths, names)| Mask::new(new.clone(), lengths, names))
}

/// Chance: every outcome, garbage and torn sectors too. The share of new sectors differs from seed
/// to seed, so that nearly none and nearly all occur as well.
#[derive(Clone, Debug)]
pub struct Sampled {
    random: Random,
    /// Of 256 sectors, as many are new.
    new: usize,
    /// Of 256 sectors, as many are neither old nor new.
    odd: usize,
}

impl Sampled {
    /// The choices of this seed.
    pub fn new(seed: u64) -> Sampled {
        let mut random = Random::new(seed);
        let new = [8, 64, 128, 192, 248][random.below(5)];
        let odd = [0, 8, 64][random.below(3)];
        Sampled { random, new, odd }
    }
}

impl Choice for Sampled {
    fn sector(&mut self, sector: &PendingSector) -> Survival {
        if self.random.below(256) < self.odd {
            return match self.random.below(3) {
                0 => Survival::Garbage(self.random.draw()),
                1 => Survival::Version(self.random.below(sector.versions)),
                _ => Survival::Torn {
                    words: 1 + self.random.below(SECTOR_BYTES / 8 - 1),
                    new_first: self.random.below(2) == 0,
                },
            };
        }
        if self.random.below(256) < self.new {
            Survival::New
        } else {
            Survival::Old
        }
    }

    fn length(&mut self, _file: u64, pending: usize) -> usize {
        // Half of the time one of the two ends, which matter most.
        match self.random.below(4) {
            0 => 0,
            1 => pending,
            _ => self.random.below(pending + 1),
        }
    }

    fn names(&mut self, pending: usize) -> usize {
        self.random.below(pending + 1)
    }
}

/// One power cut: which of the choices it is, so that it can be said and made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A subset.
    Subset(Mask),
    /// Chance, from a seed.
    Sampled(u64),
}

impl Cut {
    /// The choice itself.
    pub fn choice(&self) -> Box<dyn Choice> {
        match self {
            Cut::Subset(mask) => Box::new(mask.clone()),
            Cut::Sampled(seed) => Box::new(Sampled::new(*seed)),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Subset(mask) => write!(f, "{mask:?}"),
            Cut::Sampled(seed) => write!(f, "sampled with seed {seed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_mask_is_every_subset_in_four_versions() {
        let masks: HashSet<_> = every_mask(5)
            .map(|mask| (mask.new, mask.lengths, mask.names))
            .collect();
        assert_eq!(masks.len(), 4 << 5);
        assert_eq!(every_mask(0).count(), 4);
    }

    #[test]
    fn edge_masks_are_the_corners() {
        let counts: Vec<usize> = edge_masks(20)
            .step_by(4)
            .map(|mask| mask.new.iter().filter(|&&new| new).count())
            .collect();
        assert_eq!(counts[..2], [0, 20]);
        assert_eq!(counts[2..22], [19; 20]);
        assert_eq!(counts[22..], [1, 1]);
        assert!(edge_masks(0).count() > 0);
    }

    #[test]
    fn a_sector_survives_in_five_ways() {
        let old = [1; SECTOR_BYTES];
        let versions = [Arc::new([2; SECTOR_BYTES]), Arc::new([3; SECTOR_BYTES])];
        let bytes = |survival: Survival| survival.bytes(&old, &versions, 100..200);
        assert_eq!(bytes(Survival::Old), None);
        assert_eq!(bytes(Survival::New), Some([3; SECTOR_BYTES]));
        assert_eq!(bytes(Survival::Version(0)), Some([2; SECTOR_BYTES]));
        let torn = bytes(Survival::Torn {
            words: 2,
            new_first: false,
        })
        .expect("changed");
        assert_eq!((&torn[..16], &torn[16..]), (&[1; 16][..], &[3; 496][..]));
        let garbage = bytes(Survival::Garbage(1)).expect("changed");
        assert_eq!(
            (&garbage[..100], &garbage[200..]),
            (&[3; 100][..], &[3; 312][..])
        );
        assert_ne!(garbage[100..200], [3; 100]);
    }

    #[test]
    fn samples_follow_from_the_seed_and_reach_every_outcome() {
        let sector = PendingSector {
            file: 1,
            sector: 2,
            versions: 3,
            changes: true,
        };
        let draw = |seed| {
            let mut sampled = Sampled::new(seed);
            (0..50).map(|_| sampled.sector(&sector)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        let all: Vec<_> = (0..50).flat_map(draw).collect();
        assert!(all.contains(&Survival::Old) && all.contains(&Survival::New));
        assert!(all.contains(&Survival::Version(0)));
        assert!(
            all.iter()
                .any(|survival| matches!(survival, Survival::Garbage(_)))
        );
        assert!(
            all.iter()
                .any(|survival| matches!(survival, Survival::Torn { .. }))
        );
    }
}
