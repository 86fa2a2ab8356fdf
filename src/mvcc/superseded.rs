//! Which records have been superseded: what hashes, images and sizes leave out (SPEC.md, K-10, K-11).
//!
//! A record says which one it supersedes, so in a tree with all its records one walk over the heads marks them. Where
//! records have been dropped, one may have been dropped before the older one that it superseded: then those that are
//! counted as dead are marked, and what came behind the count is walked over. Where it is not known which these are,
//! the index is asked.

#![expect(
    clippy::disallowed_types,
    reason = "what the tasks of one walk have found; hashes are no reads of keys"
)]

use std::sync::Arc;

use rayon::prelude::*;
use revtree_format::{ChangeId, LeafRun, RecordKind, Revision};

use super::hash::{LEAVES_A_PART, for_waves, for_waves_from};
use super::marks::RecordMarks;
use super::store::Store;
use super::versions::{by_hint, version_at};
use crate::engine::{DeadRecords, lock};
use crate::error::Result;
use crate::sync::Mutex;
use crate::tree::{LeafRecords, Tree};

/// A tree that stays as it is, since positions in it are remembered, and what is known to be dead in it.
pub(crate) struct Seen {
    pub(crate) tree: Tree,
    dead: Option<Arc<DeadRecords>>,
}

impl Seen {
    /// The records of now. A pin keeps the memory in which they lie.
    pub(crate) fn now(store: &Store) -> Seen {
        loop {
            // First what is dead: what moves before the tree is taken is not dead where it is then.
            let dead = store.engine.dead_records();
            let tree = store.engine.tree.fixed();
            // Whoever counts may clean by it at once, and then the tree lacks what says of others that they are dead.
            // With the same count it lacks nothing but what is on the lists.
            let now = store.engine.dead_records();
            let counted =
                |dead: &Option<Arc<DeadRecords>>| dead.as_ref().map(|dead| dead.counted());
            if counted(&dead) == counted(&now) {
                return Seen { tree, dead };
            }
        }
    }

    /// Marks every record at or before `compact` that a record at or before `rev` supersedes.
    pub(crate) fn superseded(
        &self,
        store: &Store,
        rev: Revision,
        compact: Revision,
    ) -> Result<RecordMarks> {
        let tree = &self.tree;
        let mut superseded = RecordMarks::new(tree.medium().geometry);
        for_waves(tree, compact, |wave| {
            wave.iter().for_each(|leaf| superseded.cover(leaf));
            Ok(())
        })?;
        let is_cleaned = tree.cleaned() > Revision::default();
        // Of what was counted further than it is asked for nobody knows what counts here.
        let dead = self.dead.as_ref().filter(|dead| dead.counted() <= rev);
        let dead = dead.filter(|dead| is_cleaned || dead.are_all_known());
        if let Some(dead) = dead {
            dead.positions().for_each(|at| superseded.set(at));
        }
        if is_cleaned {
            self.leaves(Revision::default(), compact, |leaf| {
                if dead.is_some_and(|dead| dead.are_known_at(leaf.position)) {
                    return Ok(());
                }
                ask_leaf(store, tree, leaf, rev, compact, &superseded)
            })?;
        }
        if dead.is_some() || !is_cleaned {
            let from = dead.map(|dead| dead.counted()).unwrap_or_default();
            let moved = Mutex::new(Vec::new());
            self.leaves(from, rev, |leaf| {
                let more = mark_leaf(tree, leaf, rev, compact, &superseded)?;
                lock(&moved).extend(more);
                Ok(())
            })?;
            let mut moved = std::mem::take(&mut *lock(&moved));
            moved.sort_unstable();
            // What is not there has been compacted away, which is as good as marked.
            tree.find_sorted(&moved, |position, _| superseded.set(position), Err)?;
        }
        Ok(superseded)
    }

    /// Visits the leaves with records of these revisions, in parallel.
    fn leaves(
        &self,
        from: Revision,
        to: Revision,
        visit: impl Fn(LeafRun) -> Result<()> + Sync,
    ) -> Result<()> {
        for_waves_from(&self.tree, ChangeId::new(from, 0), to, |wave| {
            wave.par_chunks(LEAVES_A_PART)
                .map(|leaves| leaves.iter().try_for_each(|leaf| visit(*leaf)))
                .collect::<Result<()>>()
        })
    }
}

/// Marks the records of a leaf that are not their key's newest at or before `rev`.
fn ask_leaf(
    store: &Store,
    tree: &Tree,
    leaf: LeafRun,
    rev: Revision,
    compact: Revision,
    superseded: &RecordMarks,
) -> Result<()> {
    let mut records = LeafRecords::new(tree.medium(), leaf);
    while let Some(record) = records.next() {
        let (position, head) = record?;
        if head.id.main > compact {
            break;
        }
        let key = &records.bytes()[head.key_at.into()..head.value_at()];
        let newest = match store.find(key)? {
            // The index is of now, and leads to records that came after `tree`.
            Some((_, newest)) => version_at(&store.engine.tree, newest, rev)?,
            None => None,
        };
        if newest.is_none_or(|(_, newest)| newest.id != head.id) {
            superseded.set(position);
        }
    }
    Ok(())
}

/// Marks what the records of a leaf supersede; gives what of that is not where it was.
fn mark_leaf(
    tree: &Tree,
    leaf: LeafRun,
    rev: Revision,
    compact: Revision,
    superseded: &RecordMarks,
) -> Result<Vec<ChangeId>> {
    let mut moved = Vec::new();
    for record in LeafRecords::new(tree.medium(), leaf) {
        let (position, head) = record?;
        if head.id.main > rev {
            break;
        }
        let Some(prev) = head.prev.filter(|prev| prev.id.main <= compact) else {
            continue;
        };
        if head.kind == RecordKind::Put && head.version == 1 {
            // It follows a tombstone, which is not hashed at or before the compact revision.
            continue;
        }
        match by_hint(tree.medium(), position, prev) {
            Some((before, _)) => superseded.set(before),
            None => moved.push(prev.id),
        }
    }
    Ok(moved)
}
