//! How many bytes of records are live: needed at the compact revision and above (SPEC.md, K-5).

#![expect(
    clippy::disallowed_types,
    reason = "the counts that `stats` keeps; no read of keys asks for them"
)]

use rayon::prelude::*;
use revtree_format::{LeafRun, RecordKind, Revision};

use super::hash::for_waves;
use super::marks::RecordMarks;
use super::store::Store;
use super::superseded::Seen;
use crate::engine::lock;
use crate::error::Result;
use crate::sync::{Mutex, Ordering};
use crate::tree::{LeafRecords, Tree};

/// Bytes and number of all records, and of those that are dead at `floor`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RecordSpace {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) dead_bytes: u64,
}

/// What was counted last, for who asks again before anything has changed.
#[derive(Debug, Default)]
pub(crate) struct CountedSpace(Mutex<Vec<Counted>>);

#[derive(Clone, Copy, Debug)]
struct Counted {
    /// Changes since the open, when the count began.
    changes: u64,
    floor: Option<Revision>,
    space: RecordSpace,
}

/// The compact revision, and the oldest view below it.
const COUNTED_MAX: usize = 2;

impl CountedSpace {
    /// Records have left the file.
    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }
}

/// Counts, unless it is known: records only come by changes, and when one leaves the file what was counted is
/// forgotten.
pub(crate) fn record_space(store: &Store, floor: Option<Revision>) -> Result<RecordSpace> {
    let changes = store.engine.counters.changes.load(Ordering::Relaxed);
    let known = |counted: &&Counted| counted.changes == changes && counted.floor == floor;
    if let Some(counted) = lock(&store.counted.0).iter().find(known) {
        return Ok(counted.space);
    }
    let _pin = store.pins.pin(floor.unwrap_or_default());
    let space = count(store, &Seen::now(store), floor)?;
    let mut counted = lock(&store.counted.0);
    counted.retain(|counted| counted.changes == changes && counted.floor != floor);
    if counted.len() == COUNTED_MAX {
        counted.remove(0);
    }
    counted.push(Counted {
        changes,
        floor,
        space,
    });
    Ok(space)
}

/// Walks the leaves, and where the store has been compacted the heads too.
fn count(store: &Store, seen: &Seen, floor: Option<Revision>) -> Result<RecordSpace> {
    let tree = &seen.tree;
    let superseded = match floor {
        Some(floor) => Some((floor, seen.superseded(store, floor, floor)?)),
        None => None,
    };
    let mut space = RecordSpace::default();
    for_waves(tree, Revision::new(u64::MAX), |wave| {
        for leaf in wave {
            space.records += u64::from(leaf.records);
            space.bytes += u64::from(leaf.len);
        }
        if let Some((floor, superseded)) = &superseded {
            let dead: Result<Vec<u64>> = wave
                .par_iter()
                .map(|leaf| dead_bytes(tree, *leaf, *floor, superseded))
                .collect();
            space.dead_bytes += dead?.iter().sum::<u64>();
        }
        Ok(())
    })?;
    Ok(space)
}

fn dead_bytes(
    tree: &Tree,
    leaf: LeafRun,
    floor: Revision,
    superseded: &RecordMarks,
) -> Result<u64> {
    if leaf.first.main > floor {
        return Ok(0);
    }
    let mut dead = 0;
    for record in LeafRecords::new(tree.medium(), leaf) {
        let (position, head) = record?;
        let is_dead = head.id.main <= floor
            && match head.kind {
                RecordKind::Tombstone => head.id.main < floor,
                _ => superseded.has(position),
            };
        if is_dead {
            dead += head.record_len() as u64;
        }
    }
    Ok(dead)
}
