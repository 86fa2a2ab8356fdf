//! Finding dead records as compactions pass over revisions (SPEC.md, K-11).
//!
//! Every record names the one before it of its key. Once the compaction has passed the later one, the earlier is
//! dead: so the changes that are passed say what has become garbage, and where it lies. No key is asked for, and what
//! has been counted is not looked at again.
//!
//! What is counted at a revision G are the pairs of a record below G and the next one of its key at or below G. So a
//! record of G itself that another of G follows is not among them (K-9): a count begins with the revision with
//! which the last one ended, and takes of that only such pairs.

use std::collections::HashMap;

use revtree_format::{ChangeId, Position, RecordHead, Revision};

use super::store::Store;
use super::versions::by_hint;
use crate::engine::DeadInUnit;
use crate::error::{Error, Result};
use crate::tree::{Direction, LeafCursor, LeafRecords};

/// Counts what is dead at `floor`. `goes_on` is told how many bytes were touched since the last call, and whoever
/// goes slowly waits there; when it says no, what has been counted stays counted.
pub(super) fn count_dead(
    store: &Store,
    floor: Revision,
    goes_on: &dyn Fn(u64) -> bool,
) -> Result<()> {
    let engine = &store.engine;
    let from = engine.counted_dead()?;
    if floor <= from {
        return Ok(());
    }
    let mut found = Found::default();
    let mut cursor = LeafCursor::seek(&engine.tree, ChangeId::new(from, 0), Direction::Forward)?;
    let mut bytes = 0;
    while let Some(leaf) = cursor.next()? {
        if leaf.first.main > floor {
            break;
        }
        // Two heads for each change.
        bytes += u64::from(leaf.records) * BYTES_A_CHANGE;
        for record in LeafRecords::new(&engine.medium, leaf) {
            let (position, head) = match record {
                Ok(record) => record,
                // What the rest of the leaf has superseded is not found.
                Err(Error::Corrupt { .. }) => break,
                Err(error) => return Err(error),
            };
            let main = head.id.main;
            if main < from || main > floor {
                continue;
            }
            if main > found.main {
                if bytes >= BYTES_A_STEP && found.main > from {
                    engine.count_dead(found.main, found.take(store)?)?;
                    if !goes_on(std::mem::take(&mut bytes)) {
                        return Ok(());
                    }
                }
                found.passes_to(store, main);
            }
            // What comes before the revision that the last count ended with has been counted by that.
            let Some(prev) = head.prev.filter(|prev| main > from || prev.id.main == from) else {
                continue;
            };
            match by_hint(&engine.medium, position, prev) {
                Some((before, head)) => found.add(store, before, &head),
                None => found.moved.push(prev.id),
            }
        }
    }
    if found.main < floor {
        found.passes_to(store, floor);
    }
    engine.count_dead(floor, found.take(store)?)
}

/// Bytes that counting a change touches, about.
const BYTES_A_CHANGE: u64 = 128;

/// Bytes that are touched before what was found is noted.
///
/// What has moved is looked for in the tree, all of a step in one walk over its leaves: so steps are long.
const BYTES_A_STEP: u64 = 16 << 20;

/// What was found and not noted yet.
#[derive(Default)]
struct Found {
    /// The revision that is gone through.
    main: Revision,
    dead: HashMap<u32, DeadInUnit>,
    /// Records of that revision which another one of it follows.
    own: Vec<(Position, RecordHead)>,
    /// Records whose place is not known any more.
    moved: Vec<ChangeId>,
}

impl Found {
    fn add(&mut self, store: &Store, position: Position, head: &RecordHead) {
        if head.id.main == self.main {
            self.own.push((position, *head));
        } else {
            self.note(store, position, head);
        }
    }

    fn note(&mut self, store: &Store, position: Position, head: &RecordHead) {
        let geometry = store.engine.medium.geometry;
        if let Some(unit) = geometry.index_of(position) {
            let at = (position.0 - u64::from(unit) * geometry.segment_bytes()) / 8;
            let dead = self.dead.entry(unit).or_default();
            dead.bytes += head.record_len() as u64;
            dead.records
                .push(u32::try_from(at).expect("a unit has at most 64 MiB"));
        }
    }

    /// A later revision begins, below which those of the last one are.
    fn passes_to(&mut self, store: &Store, main: Revision) {
        self.main = main;
        for (position, head) in std::mem::take(&mut self.own) {
            self.note(store, position, &head);
        }
    }

    /// What is dead at the revision that is gone through.
    fn take(&mut self, store: &Store) -> Result<HashMap<u32, DeadInUnit>> {
        let mut moved = std::mem::take(&mut self.moved);
        moved.sort_unstable();
        let tree = &store.engine.tree;
        // What is not there has been cleaned away, and what is damaged is not counted.
        let found = |at: Position, head: &RecordHead| self.add(store, at, head);
        tree.find_sorted(&moved, found, |_damage| Ok(()))?;
        Ok(std::mem::take(&mut self.dead))
    }
}
