//! Which records of each segment are dead, and how many bytes: what is worth cleaning (SPEC.md, K-11).
//!
//! What makes a record dead is known above. Here are lists and numbers: the lists are in memory only, the numbers
//! also in the segment table. A segment that is put to another use begins anew.
//!
//! Whoever appends has the one [`Garbage`]; readers take what it has shown last, without a lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use revtree_format::{Geometry, Position, Revision, SegmentEntry, SegmentState};

use crate::sync::ArcSwap;

/// Dead records by segment.
#[derive(Debug)]
pub(crate) struct Garbage {
    geometry: Geometry,
    /// Up to where they have been counted.
    counted: Revision,
    /// By the unit with which the segment begins. Where one is missing nothing is dead.
    segments: HashMap<u32, Dead>,
    /// What readers take.
    shown: Arc<ShownDead>,
}

/// Which records are dead, for readers.
pub(crate) type ShownDead = ArcSwap<DeadRecords>;

#[derive(Clone, Debug)]
struct Dead {
    bytes: u64,
    /// Length of the segment.
    units: u32,
    /// All dead records: eighths of their distance from the segment's start. `None`: not all are known, since some
    /// were counted by an earlier open.
    records: Option<Arc<Vec<u32>>>,
}

impl Default for Dead {
    fn default() -> Dead {
        Dead {
            bytes: 0,
            units: 1,
            records: Some(Arc::default()),
        }
    }
}

/// Dead records of one unit.
#[derive(Clone, Default, Debug)]
pub(crate) struct DeadInUnit {
    pub(crate) bytes: u64,
    /// Eighths of their distance from the unit's start.
    pub(crate) records: Vec<u32>,
}

/// Which records were dead at some moment.
#[derive(Clone, Debug)]
pub(crate) struct DeadRecords {
    geometry: Geometry,
    counted: Revision,
    lists: Vec<(u32, Arc<Vec<u32>>)>,
    /// Units of the segments in which not all are known.
    unknown: HashSet<u32>,
}

impl DeadRecords {
    /// Up to which revision they have been counted: a record below it is among them if the next one of its key is not
    /// above it, unless it lies in a segment that is not known.
    pub(crate) fn counted(&self) -> Revision {
        self.counted
    }

    /// Those that are known.
    pub(crate) fn positions(&self) -> impl Iterator<Item = Position> + '_ {
        self.lists.iter().flat_map(|(index, list)| {
            let start = u64::from(*index) * self.geometry.segment_bytes();
            list.iter()
                .map(move |at| Position(start + u64::from(*at) * 8))
        })
    }

    /// Whether all dead records are known.
    pub(crate) fn are_all_known(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Whether all dead records are known where this one lies.
    pub(crate) fn are_known_at(&self, position: Position) -> bool {
        let unit = self.geometry.index_of(position);
        unit.is_some_and(|unit| !self.unknown.contains(&unit))
    }
}

impl Garbage {
    /// As the segment table says. `is_cleaned`: records may have left the file before anything was counted.
    pub(crate) fn of_table(
        geometry: Geometry,
        entries: &[SegmentEntry],
        counted: Revision,
        is_cleaned: bool,
    ) -> Garbage {
        let is_lost = is_cleaned && counted == Revision::default();
        let used = (0u32..).zip(entries);
        let used = used.filter(|(_, entry)| entry.state != SegmentState::Free && entry.units > 0);
        let dead = used.filter(|(_, entry)| entry.dead > 0 || is_lost);
        let segments = dead.map(|(index, entry)| {
            let dead = Dead {
                bytes: bytes(entry.dead, length(geometry, entry)),
                units: entry.units,
                records: None,
            };
            (index, dead)
        });
        let garbage = Garbage {
            counted,
            segments: segments.collect(),
            ..Garbage::new(geometry)
        };
        garbage.show();
        garbage
    }

    /// Nothing is dead, and nothing has been counted.
    pub(crate) fn new(geometry: Geometry) -> Garbage {
        let none = DeadRecords {
            geometry,
            counted: Revision::default(),
            lists: Vec::new(),
            unknown: HashSet::new(),
        };
        Garbage {
            geometry,
            counted: Revision::default(),
            segments: HashMap::new(),
            shown: Arc::new(ArcSwap::new(Arc::new(none))),
        }
    }

    /// What readers take.
    pub(crate) fn shown(&self) -> Arc<ShownDead> {
        Arc::clone(&self.shown)
    }

    /// Readers see it as it is now.
    fn show(&self) {
        let mut lists = Vec::new();
        let mut unknown = HashSet::new();
        for (index, dead) in &self.segments {
            match &dead.records {
                Some(records) => lists.push((*index, Arc::clone(records))),
                None => unknown.extend(*index..*index + dead.units),
            }
        }
        self.shown.store(Arc::new(DeadRecords {
            geometry: self.geometry,
            counted: self.counted,
            lists,
            unknown,
        }));
    }

    /// Writes the numbers into the entries of a segment table.
    pub(crate) fn note(&self, entries: &mut [SegmentEntry]) {
        for (index, dead) in &self.segments {
            if let Some(entry) = entries.get_mut(*index as usize)
                && entry.state != SegmentState::Free
            {
                entry.dead = share(dead.bytes, length(self.geometry, entry));
            }
        }
    }

    /// Up to where they have been counted.
    pub(crate) fn counted(&self) -> Revision {
        self.counted
    }

    /// More records are dead: in units that lie so many behind the start of their segment. With them all up to
    /// `counted` are known.
    pub(crate) fn count(
        &mut self,
        counted: Revision,
        more: impl Iterator<Item = (u32, u32, DeadInUnit)>,
    ) {
        more.for_each(|(index, units, more)| self.add(index, units, more));
        self.counted = counted;
        self.show();
    }

    fn add(&mut self, index: u32, units: u32, more: DeadInUnit) {
        let dead = self.segments.entry(index).or_default();
        dead.bytes += more.bytes;
        if let Some(records) = &mut dead.records {
            let before = u64::from(units) * self.geometry.segment_bytes() / 8;
            let before = u32::try_from(before).expect("a segment is shorter than 32 GiB");
            Arc::make_mut(records).extend(more.records.iter().map(|at| before + at));
        }
    }

    /// Bytes of the segment that begins with a unit.
    pub(crate) fn bytes_of(&self, index: u32) -> u64 {
        self.segments.get(&index).map_or(0, |dead| dead.bytes)
    }

    /// In all segments.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.segments.values().map(|dead| dead.bytes).sum()
    }

    /// So many bytes of the segment were found to be dead.
    pub(crate) fn set_bytes(&mut self, index: u32, bytes: u64) {
        self.segments.entry(index).or_default().bytes = bytes;
    }

    /// Nothing is dead in a segment that has just been put to use, nor in one that is in none.
    pub(crate) fn forget(&mut self, index: u32) {
        if self.segments.remove(&index).is_some() {
            self.show();
        }
    }
}

fn length(geometry: Geometry, entry: &SegmentEntry) -> u64 {
    u64::from(entry.units) * geometry.segment_bytes()
}

/// The share in 65535ths, of which what is dead has one at least. A segment has more bytes than that, so a share that
/// is read gives the same again.
fn share(bytes: u64, len: u64) -> u16 {
    let share = (bytes.min(len) * WHOLE + len / 2) / len.max(1);
    let share = share.max(u64::from(bytes > 0));
    u16::try_from(share).unwrap_or(u16::MAX)
}

fn bytes(share: u16, len: u64) -> u64 {
    (u64::from(share) * len + WHOLE / 2) / WHOLE
}

const WHOLE: u64 = 65535;

#[cfg(test)]
mod tests {
    use revtree_format::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

    use super::*;

    /// Reopening again and again does not let the numbers drift.
    #[test]
    fn a_share_that_is_read_gives_the_same_again() {
        for len in [SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX] {
            for units in [1, 5] {
                let len = u64::from(len) * units;
                for n in 0..=u16::MAX {
                    assert_eq!(share(bytes(n, len), len), n, "of {len} bytes");
                }
                assert_eq!((bytes(u16::MAX, len), share(len * 2, len)), (len, u16::MAX));
            }
        }
    }

    /// A table has the numbers of segments in use, and gives them again.
    #[test]
    fn a_table_gives_them_again() {
        let geometry = Geometry::new(64 << 10);
        let used = |units| SegmentEntry {
            state: SegmentState::Log,
            segment_use: 1 << 32,
            units,
            dead: 0,
        };
        let mut entries = [used(1), SegmentEntry::FREE, used(2), used(0)];
        let mut garbage = Garbage::new(geometry);
        let more = |bytes, records: &[u32]| DeadInUnit {
            bytes,
            records: records.to_vec(),
        };
        let rev = Revision::new(9);
        let counted = [
            (0, 0, more(1000, &[2056, 2057])),
            (2, 0, more(131_000, &[8])),
            (2, 1, more(72, &[0])),
            (7, 0, more(1, &[0])),
        ];
        garbage.count(rev, counted.into_iter());
        garbage.note(&mut entries);
        let shares = entries.map(|entry| entry.dead);
        assert_eq!(shares, [1000, 0, u16::MAX, 0]);
        let found = garbage.shown().load_full();
        assert_eq!(found.counted(), rev);
        let mut positions: Vec<u64> = found.positions().map(|position| position.0).collect();
        positions.sort_unstable();
        assert_eq!(positions, [16_448, 16_456, 131_136, 196_608, 458_752]);
        assert!(found.are_known_at(Position(16_448)));
        // Another open knows how many, and not which.
        let again = Garbage::of_table(geometry, &entries, rev, true);
        assert_eq!(again.counted(), rev);
        let bytes = [0, 1, 2, 3].map(|index| again.bytes_of(index));
        assert_eq!(bytes, [1000, 0, 131_072, 0]);
        let found = again.shown().load_full();
        assert_eq!(found.positions().count(), 0);
        let known = [16_448, 65_536, 131_072, 196_608].map(|at| found.are_known_at(Position(at)));
        assert_eq!(known, [false, true, false, false]);
        // Where nothing has been counted, anything may be dead in what has been cleaned.
        let lost = Garbage::of_table(geometry, &entries, Revision::default(), true);
        assert!(!lost.shown().load_full().are_known_at(Position(16_448)));
    }

    /// What is dead is not forgotten, however little it is.
    #[test]
    fn a_small_share_is_no_none() {
        let len = u64::from(SEGMENT_BYTES_MAX);
        assert_eq!((share(0, len), share(1, len), share(500, len)), (0, 1, 1));
    }
}
