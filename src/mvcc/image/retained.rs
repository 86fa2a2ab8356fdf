//! Which records an image holds, and where in it each lies (SPEC.md, S-2, K-2).
//!
//! Two passes over the heads mark them, and one number for each is all that is kept: its place in the
//! image. The place is set when the image is laid out, in revision order, so that every link leads to
//! a record that has its place already.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use revtree_format::{LeafRun, Position, RecordHead, RecordKind, Revision};

use crate::error::Result;
use crate::mvcc::hash::for_waves;
use crate::mvcc::marks::{RecordMarks, RecordNumbers};
use crate::mvcc::store::Store;
use crate::mvcc::superseded::Seen;
use crate::tree::LeafRecords;

/// The records of an image.
#[derive(Debug)]
pub(super) struct Retained {
    numbers: RecordNumbers,
    /// Position in the image by number.
    places: Box<[AtomicU64]>,
}

impl Retained {
    /// What is needed at `compact` and above, up to `rev`.
    pub(super) fn choose(
        store: &Store,
        seen: &Seen,
        rev: Revision,
        compact: Option<Revision>,
    ) -> Result<Retained> {
        let superseded = match compact {
            Some(compact) => Some((compact, seen.superseded(store, compact, compact)?)),
            None => None,
        };
        let retained = |position: Position, head: &RecordHead| match &superseded {
            Some((compact, superseded)) if head.id.main <= *compact => match head.kind {
                RecordKind::Tombstone => head.id.main == *compact,
                _ => !superseded.has(position),
            },
            _ => true,
        };
        let mut marks = RecordMarks::new(store.engine.medium.geometry);
        for_waves(&seen.tree, rev, |wave| {
            wave.iter().for_each(|leaf| marks.cover(leaf));
            let marks = &marks;
            wave.par_iter().try_for_each(|leaf: &LeafRun| {
                for record in LeafRecords::new(&store.engine.medium, *leaf) {
                    let (position, head) = record?;
                    if head.id.main > rev {
                        break;
                    }
                    if retained(position, &head) {
                        marks.set(position);
                    }
                }
                Ok(())
            })
        })?;
        let numbers = marks.number();
        let places = (0..numbers.count()).map(|_| AtomicU64::new(0)).collect();
        Ok(Retained { numbers, places })
    }

    /// Whether the image holds the record at `position` of the source.
    pub(super) fn has(&self, position: Position) -> bool {
        self.numbers.of(position).is_some()
    }

    /// Where the image has the record at `position` of the source, once it is laid out.
    pub(super) fn place(&self, position: Position) -> Option<Position> {
        let place = self.places.get(self.numbers.of(position)?)?;
        Some(Position(place.load(Ordering::Relaxed)))
    }

    /// Lays a record out.
    pub(super) fn set_place(&self, position: Position, place: Position) {
        let number = self.numbers.of(position);
        if let Some(word) = number.and_then(|number| self.places.get(number)) {
            word.store(place.0, Ordering::Relaxed);
        }
    }
}
