//! How many bytes of records are live: needed at the compact revision and above (SPEC.md, K-5).

use rayon::prelude::*;
use revtree_format::{LeafRun, RecordKind, Revision};

use super::hash::{for_waves, mark_superseded};
use super::marks::RecordMarks;
use super::store::Store;
use crate::error::Result;
use crate::tree::LeafRecords;

/// Bytes and number of all records, and of those that are dead at `floor`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RecordSpace {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) dead_bytes: u64,
}

/// Walks the leaves, and where the store has been compacted the heads too.
pub(crate) fn record_space(store: &Store, floor: Option<Revision>) -> Result<RecordSpace> {
    let superseded = match floor {
        Some(floor) => Some((floor, mark_superseded(store, floor, floor)?)),
        None => None,
    };
    let mut space = RecordSpace::default();
    for_waves(store, Revision::new(u64::MAX), |wave| {
        for leaf in wave {
            space.records += u64::from(leaf.records);
            space.bytes += u64::from(leaf.len);
        }
        if let Some((floor, superseded)) = &superseded {
            let dead: Result<Vec<u64>> = wave
                .par_iter()
                .map(|leaf| dead_bytes(store, *leaf, *floor, superseded))
                .collect();
            space.dead_bytes += dead?.iter().sum::<u64>();
        }
        Ok(())
    })?;
    Ok(space)
}

fn dead_bytes(
    store: &Store,
    leaf: LeafRun,
    floor: Revision,
    superseded: &RecordMarks,
) -> Result<u64> {
    if leaf.first.main > floor {
        return Ok(0);
    }
    let mut dead = 0;
    for record in LeafRecords::new(&store.engine.medium, leaf) {
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
