//! The reference model: etcd's store as a map from key to all its changes.
//!
//! Every answer is computed from its definition, by looking at everything, so that there is little
//! to be wrong; it is checked against hashes that a real etcd computed. It knows no files, no
//! threads, no caches: a compaction happens at once, a snapshot is a copy, a reopening loses
//! nothing but the list of compaction hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use revtree_format::{ChangeId, LeaseId, Revision};

use crate::answer::{
    Answer, Applied, Committed, Facts, Hash, HashKv, Kv, LeaseCall, Refusal, ViewFacts,
};
use crate::hash::{IgnoreKey, Tables, hash_records, hash_store};
use crate::keys::Keys;
use crate::state::State;

pub mod change;
mod content;
mod subject;
mod txn;

use change::{Survival, survivors};
use content::Content;
use txn::Txn;

/// How many hashes of compactions are remembered.
const COMPACTION_HASHES_MAX: usize = 10;

/// The model of one store.
#[derive(Clone, Debug)]
pub struct Oracle {
    content: Content,
    survival: Survival,
    txn: Option<Txn>,
    views: BTreeMap<u8, HeldView>,
    snapshots: BTreeMap<u8, Content>,
    compaction_hashes: Vec<HashKv>,
    lease_calls: Vec<LeaseCall>,
    states: Option<Vec<State>>,
}

/// A view that a history keeps open: it is a copy, so it cannot change.
#[derive(Clone, Debug)]
struct HeldView {
    facts: ViewFacts,
    kvs: Vec<Kv>,
    tables: Arc<Tables>,
}

impl Default for Oracle {
    fn default() -> Oracle {
        Oracle::new()
    }
}

impl Oracle {
    /// An empty store.
    #[must_use]
    pub fn new() -> Oracle {
        Oracle::with_survival(survivors)
    }

    /// An empty store that compacts by another rule: to see whether a wrong one is noticed.
    #[must_use]
    pub fn with_survival(survival: Survival) -> Oracle {
        Oracle {
            content: Content::new(),
            survival,
            txn: None,
            views: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            compaction_hashes: Vec::new(),
            lease_calls: Vec::new(),
            states: None,
        }
    }

    /// From now on keeps the state after every accepted commit, this moment's first.
    #[must_use]
    pub fn keep_states(mut self) -> Oracle {
        self.states = Some(vec![self.state_now()]);
        self
    }

    /// The states after each accepted commit that changed something, in order; a restored content
    /// counts as one. Empty without [`Oracle::keep_states`].
    #[must_use]
    pub fn states(&self) -> &[State] {
        self.states.as_deref().unwrap_or_default()
    }

    /// The state now, of what is committed.
    #[must_use]
    pub fn state_now(&self) -> State {
        let content = &self.content;
        let at_compact = |rev| content.kvs_at(&Keys::All, rev);
        let from = content.compact.unwrap_or_default();
        let tables = content.tables.iter().filter(|(_, rows)| !rows.is_empty());
        State {
            current: content.current,
            compact: content.compact,
            applied: content.applied,
            keys: content.kvs_at(&Keys::All, content.current),
            keys_at_compact: content.compact.map(at_compact).unwrap_or_default(),
            events: content.events(&Keys::All, from, content.current),
            tables: tables
                .map(|(name, rows)| {
                    (
                        name.clone(),
                        rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
                    )
                })
                .collect(),
        }
    }

    /// Revision, compact revision, log position.
    #[must_use]
    pub fn numbers(&self) -> Facts {
        self.content.facts()
    }

    /// Every record that is kept, in revision order: what lies on the disk after compaction.
    #[must_use]
    pub fn record_ids(&self) -> Vec<(ChangeId, bool)> {
        let records = self.content.records();
        records
            .iter()
            .map(|(_, change)| (change.id, change.put.is_none()))
            .collect()
    }

    fn accepted(&mut self) {
        if self.states.is_none() {
            return;
        }
        let state = self.state_now();
        if let Some(states) = &mut self.states
            && states.last() != Some(&state)
        {
            states.push(state);
        }
    }

    /// The revision meant by `rev`: 0 is `current`, the newest that this reader may see.
    fn readable(&self, rev: Revision, current: Revision) -> Answer<Revision> {
        if rev.get() == 0 {
            return Ok(current);
        }
        if rev > current {
            return Err(Refusal::Future {
                requested: rev,
                current,
            });
        }
        match self.content.compact {
            Some(compacted) if rev < compacted => Err(Refusal::Compacted {
                requested: rev,
                compacted,
            }),
            _ => Ok(rev),
        }
    }

    fn one_shot<T>(&mut self, f: impl FnOnce(&mut Txn, &mut Content) -> Answer<T>) -> Answer<T> {
        assert!(self.txn.is_none(), "one write transaction at a time");
        let mut txn = Txn::begin(&self.content, None);
        let answer = f(&mut txn, &mut self.content);
        if answer.is_ok() {
            txn.commit(&mut self.content, &mut self.lease_calls);
            self.accepted();
        } else {
            txn.abort(&mut self.content);
        }
        answer
    }

    fn in_txn<T>(&mut self, f: impl FnOnce(&mut Txn, &mut Content) -> T) -> T {
        f(
            self.txn.as_mut().expect("a transaction is open"),
            &mut self.content,
        )
    }

    fn end_txn(&mut self, commit: bool) -> Option<Committed> {
        let txn = self.txn.take().expect("a transaction is open");
        if !commit {
            txn.abort(&mut self.content);
            return None;
        }
        let committed = txn.commit(&mut self.content, &mut self.lease_calls);
        self.accepted();
        Some(committed)
    }

    /// Accepts a compaction above the last one and up to the current revision, and does it.
    fn compact_at(&mut self, rev: Revision) -> Answer<()> {
        assert!(self.txn.is_none(), "compaction waits for the writer's turn");
        if let Some(compacted) = self.content.compact
            && rev <= compacted
        {
            return Err(Refusal::Compacted {
                requested: rev,
                compacted,
            });
        }
        let current = self.content.current;
        if rev > current {
            return Err(Refusal::Future {
                requested: rev,
                current,
            });
        }
        self.remember_compaction_hash(rev);
        self.content.compact(rev, self.survival);
        self.accepted();
        Ok(())
    }

    /// The hash that the compaction computes while it scans: under the compact revision before
    /// it, with its own keep set. That set, unlike a hash's, holds tombstones at `rev`; where they
    /// are all there is, the two hashes may differ, since only an *empty* set drops nothing.
    fn remember_compaction_hash(&mut self, rev: Revision) {
        let compact = self.content.compact;
        let keep = self.content.kept_by_compaction(rev, self.survival);
        let hash = hash_records(&self.content.records(), compact, rev, &keep);
        self.compaction_hashes.push(HashKv {
            hash,
            revision: rev,
            compact_revision: compact,
        });
        self.compaction_hashes
            .sort_unstable_by_key(|hash| hash.revision);
        if self.compaction_hashes.len() > COMPACTION_HASHES_MAX {
            self.compaction_hashes.remove(0);
        }
    }

    /// A remembered hash of exactly that revision comes before anything else, even a refusal.
    fn hash_kv(&self, rev: Revision) -> Answer<HashKv> {
        let stored = self
            .compaction_hashes
            .iter()
            .find(|hash| hash.revision == rev);
        if let Some(stored) = stored.filter(|_| rev.get() != 0) {
            return Ok(*stored);
        }
        let revision = self.readable(rev, self.content.current)?;
        let compact_revision = self.content.compact;
        let keep = self.content.live_at(revision);
        let hash = hash_records(&self.content.records(), compact_revision, revision, &keep);
        Ok(HashKv {
            hash,
            revision,
            compact_revision,
        })
    }

    fn hash_all(&self, ignore: &[IgnoreKey]) -> Hash {
        let hash = hash_store(&self.content.records(), &self.content.tables, ignore);
        Hash {
            hash,
            revision: self.content.current,
        }
    }

    fn raise(&mut self, index: u64) -> Applied {
        self.content.applied.index = self.content.applied.index.max(index);
        self.accepted();
        self.content.applied
    }

    /// What a fresh lessor is told when a content is opened.
    fn attach_all(&mut self) {
        let live = self.content.kvs_at(&Keys::All, self.content.current);
        let leased = live.into_iter().filter(|kv| kv.lease != LeaseId::NONE);
        self.lease_calls
            .extend(leased.map(|kv| LeaseCall::Attach(kv.lease, kv.key)));
    }
}
