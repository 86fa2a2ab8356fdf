//! Reclaiming space: which records stay, and the order of what is done (SPEC.md, K-3, K-6 to K-10).
//!
//! Here is what the engine asks for when it cleans: whether a record is still needed, and where the index is told
//! that it has moved. Which segments, and how they are copied, is decided there.
//!
//! The floor is taken once, at the beginning: a view that is opened later has a revision that is not below it, since
//! it is not below the compact revision. Before anything is dropped, the hashes of the compactions that are kept
//! are made (H-5): they cover records that are dead.

#![expect(
    clippy::disallowed_types,
    reason = "what one cleaning has copied; no read of keys asks for it"
)]

use std::collections::HashSet;
use std::sync::Arc;

use revtree_format::{Position, RecordHead, Revision};

use super::dead::count_dead;
use super::retired::{PATIENCE, release};
use super::store::Store;
use super::versions::{RecordKeys, find_newest, version_at};
use crate::engine::{Cleaned, Relocate, Round, lock};
use crate::error::{Error, Result};
use crate::index::{KeyId, pin};
use crate::sync::{Mutex, MutexGuard};
use crate::tree::Tree;

/// What reclaiming did.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    pub(crate) freed_bytes: u64,
    pub(crate) held_bytes: u64,
    pub(crate) copied_bytes: u64,
    pub(crate) damage: Vec<Error>,
}

/// Frees the space that no view needs.
pub(crate) fn reclaim(store: &Arc<Store>) -> Result<Reclaim> {
    store.engine.check_writable()?;
    let _alone = lock(&store.cleaning);
    let mut done = Reclaim::default();
    let cleaning = Cleaning::begin(store, &|_| true)?;
    let release = |done: &mut Reclaim| -> Result<()> {
        let (freed, held) = cleaning.release(PATIENCE)?;
        done.freed_bytes += freed;
        done.held_bytes = held;
        Ok(())
    };
    release(&mut done)?;
    let segment_bytes = store.engine.medium.geometry.segment_bytes();
    let mut copied_bytes_max = u64::MAX;
    let mut damaged = HashSet::new();
    for round in 0..ROUNDS_MAX {
        let cleaned = cleaning.clean(Round {
            cleaned: cleaning.cleaned(),
            copied_bytes_max,
            moves_last: true,
            damaged: &mut damaged,
        });
        release(&mut done)?;
        let gave_up = match cleaned {
            // There is no room for all copies at once. One segment's is kept for this; then what is wholly dead
            // makes some, if there is any.
            Err(Error::NoSpace { .. } | Error::StoreFull { .. }) if copied_bytes_max > 0 => {
                let less = copied_bytes_max > segment_bytes;
                copied_bytes_max = if less { segment_bytes } else { 0 };
                continue;
            }
            cleaned => {
                let cleaned = cleaned?;
                done.copied_bytes += cleaned.copied_bytes;
                done.damage.extend(cleaned.damage);
                cleaned.given_up_bytes > 0
            }
        };
        // What has come back is room for more.
        copied_bytes_max = copied_bytes_max.saturating_mul(4).max(segment_bytes);
        // Once there is room the log goes there, so that what it leaves behind can follow.
        if round == 0 {
            store.engine.move_log_forward()?;
        } else if !gave_up {
            break;
        }
    }
    store.engine.cut_free()?;
    Ok(done)
}

/// Rounds of one reclaiming at most: what the first leaves, the next moves together and towards the start of the
/// file.
const ROUNDS_MAX: usize = 16;

/// F: below it a superseded record is needed by nobody. First the compact revision, then the views, of which some have ended.
fn floor(store: &Store) -> Option<Revision> {
    let compact = store.engine.compact_rev()?;
    let pinned = store.pins.look(store.engine.rev());
    Some(pinned.oldest.map_or(compact, |oldest| oldest.min(compact)))
}

/// One cleaning, as the engine asks of it.
pub(super) struct Cleaning<'s> {
    store: &'s Arc<Store>,
    tree: &'s Tree,
    floor: Option<Revision>,
    /// Nobody makes a hash of a compaction meanwhile: all that are made cover what is there.
    _made: MutexGuard<'s, ()>,
    /// Told of bytes that have been read; says whether the cleaning goes on.
    goes_on: &'s (dyn Fn(u64) -> bool + Sync),
    /// Keys whose newest record has been copied: from where and to where.
    moves: Mutex<Vec<(KeyId, Position, Position)>>,
}

impl<'s> Cleaning<'s> {
    /// Takes the floor, makes the hashes that cover what is dead there (H-5), and counts that.
    pub(super) fn begin(
        store: &'s Arc<Store>,
        goes_on: &'s (dyn Fn(u64) -> bool + Sync),
    ) -> Result<Cleaning<'s>> {
        // The floor first: who sees a compaction finds it among those whose hashes are to be made. One that comes
        // behind this needs nothing that is dead at the floor.
        let floor = floor(store);
        let made = store.compactions.make_all(store);
        if let Some(floor) = floor {
            count_dead(store, floor, goes_on)?;
        }
        Ok(Cleaning {
            store,
            tree: &store.engine.tree,
            floor,
            _made: made,
            goes_on,
            moves: Mutex::default(),
        })
    }

    pub(super) fn clean(&self, round: Round<'_>) -> Result<Cleaned> {
        let cleaned = self.store.engine.clean(round, self);
        self.store.counted.forget();
        cleaned
    }

    /// Frees what nobody reads any more, with some patience for who is just reading; gives the bytes freed, and those
    /// that are still held.
    pub(super) fn release(&self, patience: usize) -> Result<(u64, u64)> {
        release(self.store, patience)
    }

    /// Whether a view keeps what the compaction does not.
    pub(super) fn is_held_back(&self) -> bool {
        self.floor < self.store.engine.compact_rev()
    }

    /// What the tree is marked with: never 0, which says that nothing has been cleaned.
    pub(super) fn cleaned(&self) -> Revision {
        self.floor.unwrap_or_default().max(Revision::new(1))
    }
}

impl Relocate for Cleaning<'_> {
    /// By K-3, asked of the index: it alone knows the newest record of a key where those between have been dropped
    /// (K-10). Everything of the floor's own revision stays (K-9), and so does the newest record of each key, also
    /// when it is a tombstone: the index leads to it.
    fn stays(&self, position: Position, head: &RecordHead, key: &[u8]) -> Result<bool> {
        let Some(floor) = self.floor.filter(|floor| head.id.main < *floor) else {
            return Ok(true);
        };
        let _guard = pin();
        let medium = &self.store.engine.medium;
        let Some((_, newest)) = find_newest(&self.store.index, medium, key)? else {
            return Err(Error::Corrupt {
                offset: position.0,
                what: "key that the index does not have",
                expected: head.id.main.get(),
                found: 0,
            });
        };
        if newest.1.id == head.id {
            return Ok(true);
        }
        // Also a tombstone that is the newest there, if the walk from above does not stop before it.
        let at_floor = version_at(self.tree, newest, floor)?;
        Ok(at_floor.is_some_and(|(_, found)| found.id == head.id))
    }

    fn goes_on(&self, bytes: u64) -> bool {
        (self.goes_on)(bytes)
    }

    fn copied(&self, key: &[u8], from: Position, to: Position) -> Result<()> {
        let _guard = pin();
        let keys = RecordKeys(&self.store.engine.medium);
        // Where it leads elsewhere the key has moved on, and nothing but the tree and links lead to this record.
        if let Some((id, position)) = self.store.index.find(key, &keys)?
            && position == from
        {
            lock(&self.moves).push((id, from, to));
        }
        Ok(())
    }

    fn forget(&self) {
        lock(&self.moves).clear();
    }

    fn adopt(&self) -> u64 {
        for (id, from, to) in lock(&self.moves).drain(..) {
            // Without effect where the key has moved on since.
            self.store.index.relocate(id, from, to);
        }
        self.store.retired.begin(self.store)
    }
}
