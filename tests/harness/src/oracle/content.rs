//! What a store file holds: all changes of all keys, the side tables, and a few numbers.
//!
//! Changes of an open transaction are already here, at the revision above the current one, where
//! no reader but the transaction looks; to abort is to take them away again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use revtree_format::{ChangeId, Revision};

use crate::answer::{Applied, Event, Facts, Kv, Prev};
use crate::hash::Tables;
use crate::keys::Keys;
use crate::oracle::change::{Change, Survival};

/// A store's content.
#[derive(Clone, Debug)]
pub(super) struct Content {
    /// Every change that is kept, by key, each key's in order.
    pub(super) keys: BTreeMap<Bytes, Vec<Change>>,
    pub(super) current: Revision,
    pub(super) compact: Option<Revision>,
    pub(super) applied: Applied,
    pub(super) tables: Arc<Tables>,
}

impl Content {
    pub(super) fn new() -> Content {
        Content {
            keys: BTreeMap::new(),
            current: Revision::new(1),
            compact: None,
            applied: Applied::default(),
            tables: Arc::default(),
        }
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            current: self.current,
            compact: self.compact,
            applied: self.applied,
        }
    }

    /// The live record of `key` at `rev`: its newest change up to there, unless a tombstone.
    pub(super) fn kv_at(&self, key: &[u8], rev: Revision) -> Option<Kv> {
        let (key, changes) = self.keys.get_key_value(key)?;
        changes[..up_to(changes, rev)].last()?.live(key)
    }

    /// All live records of `keys` at `rev`, by key.
    pub(super) fn kvs_at(&self, keys: &Keys, rev: Revision) -> Vec<Kv> {
        self.histories(keys)
            .filter_map(|(key, changes)| changes[..up_to(changes, rev)].last()?.live(key))
            .collect()
    }

    /// The changes of `keys` with `from <= main <= to`, in revision order.
    pub(super) fn events(&self, keys: &Keys, from: Revision, to: Revision) -> Vec<Event> {
        let mut events: Vec<Event> = self
            .histories(keys)
            .flat_map(|(key, changes)| changes.iter().map(move |change| (key, changes, change)))
            .filter(|(_, _, change)| from <= change.id.main && change.id.main <= to)
            .map(|(key, changes, change)| change.event(key, self.prev(key, changes, change)))
            .collect();
        events.sort_unstable_by_key(|event| event.id);
        events
    }

    /// The key's state at the revision before, as etcd tells it: nothing for a put that creates.
    /// At the compact revision and below it is gone, whatever of it may still lie on a disk.
    fn prev(&self, key: &Bytes, changes: &[Change], change: &Change) -> Prev {
        let before = Revision::new(change.id.main.get() - 1);
        if change.creates() {
            return Prev::None;
        }
        if self.compact.is_some_and(|compact| before < compact) {
            return Prev::Compacted;
        }
        let newest = changes[..up_to(changes, before)].last();
        newest
            .and_then(|change| change.live(key))
            .map_or(Prev::None, Prev::Value)
    }

    /// The change at `id`, with its event.
    pub(super) fn event_at(&self, id: ChangeId) -> Option<Event> {
        self.events(&Keys::All, id.main, id.main)
            .into_iter()
            .find(|event| event.id == id)
    }

    /// Every committed change in revision order: what the hashes read.
    pub(super) fn records(&self) -> Vec<(&Bytes, &Change)> {
        let mut records: Vec<(&Bytes, &Change)> = self
            .keys
            .iter()
            .flat_map(|(key, changes)| changes.iter().map(move |change| (key, change)))
            .filter(|(_, change)| change.id.main <= self.current)
            .collect();
        records.sort_unstable_by_key(|(_, change)| change.id);
        records
    }

    /// The changes that are live at `rev`: etcd's keep set of a hash.
    pub(super) fn live_at(&self, rev: Revision) -> BTreeSet<ChangeId> {
        self.keys
            .values()
            .filter_map(|changes| changes[..up_to(changes, rev)].last())
            .filter(|change| change.put.is_some())
            .map(|change| change.id)
            .collect()
    }

    /// The changes up to `rev` that a compaction there keeps: live ones, and tombstones at it.
    pub(super) fn kept_by_compaction(
        &self,
        rev: Revision,
        survival: Survival,
    ) -> BTreeSet<ChangeId> {
        self.keys
            .values()
            .flat_map(|changes| survival(changes, rev))
            .filter(|change| change.id.main <= rev)
            .map(|change| change.id)
            .collect()
    }

    /// Drops what a compaction at `rev` drops.
    pub(super) fn compact(&mut self, rev: Revision, survival: Survival) {
        self.keys.retain(|_, changes| {
            *changes = survival(changes, rev);
            !changes.is_empty()
        });
        self.compact = Some(rev);
    }

    fn histories<'c>(
        &'c self,
        keys: &'c Keys,
    ) -> impl Iterator<Item = (&'c Bytes, &'c Vec<Change>)> {
        self.keys
            .range::<[u8], _>((Bound::Included(keys.lowest()), Bound::Unbounded))
            .take_while(|(key, _)| keys.contains(key))
    }
}

/// How many of `changes` have a main up to `rev`.
fn up_to(changes: &[Change], rev: Revision) -> usize {
    changes.partition_point(|change| change.id.main <= rev)
}
