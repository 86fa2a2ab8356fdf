//! The write transaction of the model: it writes at the revision above the current one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use revtree_format::{ChangeId, LeaseId, Revision};

use crate::answer::{Answer, Applied, Committed, Deleted, Event, Kv, LeaseCall, Prev, Refusal};
use crate::hash::Tables;
use crate::keys::Keys;
use crate::model::{Expect, KEY_LEN_MAX};
use crate::oracle::change::{Change, Put};
use crate::oracle::content::Content;

/// An open transaction.
#[derive(Clone, Debug)]
pub(super) struct Txn {
    /// The keys changed, in the order of their changes: sub 0, 1, 2, …
    written: Vec<Bytes>,
    /// Never lowered, and not taken back by a rollback.
    applied: Applied,
    /// The side tables as this transaction sees them.
    tables: Arc<Tables>,
    savepoints: Vec<Savepoint>,
}

#[derive(Clone, Debug)]
struct Savepoint {
    slot: u8,
    written: usize,
    tables: Arc<Tables>,
}

impl Txn {
    pub(super) fn begin(content: &Content, index: Option<u64>) -> Txn {
        let mut applied = content.applied;
        applied.index = index.unwrap_or(applied.index);
        let tables = Arc::clone(&content.tables);
        Txn {
            written: Vec::new(),
            applied,
            tables,
            savepoints: Vec::new(),
        }
    }

    /// What its reads see: the revision at begin, and one more once it has changes.
    pub(super) fn sees(&self, content: &Content) -> Revision {
        if self.written.is_empty() {
            content.current
        } else {
            content.current.next()
        }
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// A side table, made when it is missing.
    pub(super) fn table_mut(&mut self, name: &str) -> &mut BTreeMap<Bytes, Bytes> {
        Arc::make_mut(&mut self.tables)
            .entry(name.to_owned())
            .or_default()
    }

    pub(super) fn put(
        &mut self,
        content: &mut Content,
        key: &Bytes,
        value: &Bytes,
        lease: LeaseId,
    ) -> Answer<Revision> {
        let len = key.len() as u64;
        if len > KEY_LEN_MAX {
            return Err(Refusal::KeyTooLong { len });
        }
        let main = content.current.next();
        let (create, version) = match content.kv_at(key, main) {
            Some(before) => (before.create, before.version + 1),
            None => (main, 1),
        };
        self.push(
            content,
            key,
            Some(Put {
                value: value.clone(),
                create,
                version,
                lease,
            }),
        );
        Ok(main)
    }

    /// Tombstones in ascending key order for every key that is live to this transaction.
    pub(super) fn delete(&mut self, content: &mut Content, keys: &Keys) -> Deleted {
        let live = content.kvs_at(keys, content.current.next());
        for kv in &live {
            self.push(content, &kv.key, None);
        }
        Deleted {
            count: live.len() as u64,
            revision: self.sees(content),
        }
    }

    fn push(&mut self, content: &mut Content, key: &Bytes, put: Option<Put>) {
        let id = ChangeId::new(content.current.next(), self.written.len() as u64);
        content
            .keys
            .entry(key.clone())
            .or_default()
            .push(Change { id, put });
        self.written.push(key.clone());
    }

    /// Takes back all changes but the first `keep`.
    fn undo(&mut self, content: &mut Content, keep: usize) {
        for key in self.written.drain(keep..).rev() {
            let changes = content
                .keys
                .get_mut(&key)
                .expect("a written key has changes");
            changes.pop();
            if changes.is_empty() {
                content.keys.remove(&key);
            }
        }
    }

    pub(super) fn savepoint(&mut self, slot: u8) {
        let tables = Arc::clone(&self.tables);
        self.savepoints.push(Savepoint {
            slot,
            written: self.written.len(),
            tables,
        });
    }

    /// Back to the newest savepoint of that number; it stays, those made after it are gone.
    pub(super) fn roll_back(&mut self, content: &mut Content, slot: u8) -> Answer<()> {
        let found = self
            .savepoints
            .iter()
            .rposition(|savepoint| savepoint.slot == slot);
        let place = found.ok_or(Refusal::NoSuchSlot(slot))?;
        self.savepoints.truncate(place + 1);
        let keep = self.savepoints[place].written;
        self.tables = Arc::clone(&self.savepoints[place].tables);
        self.undo(content, keep);
        Ok(())
    }

    /// In sub order. Nothing is said of what was before.
    pub(super) fn changes(&self, content: &Content) -> Vec<Event> {
        let main = content.current.next();
        let mut events = content.events(&Keys::All, main, main);
        for event in &mut events {
            event.prev = Prev::NotAsked;
        }
        events
    }

    /// Compares with what this transaction sees. A missing key has zeros, but no value.
    pub(super) fn require(&self, content: &Content, key: &Bytes, expect: &Expect) -> Answer<()> {
        let found = content.kv_at(key, content.current.next());
        let number = |field: fn(&Kv) -> u64| found.as_ref().map_or(0, field);
        let holds = match expect {
            Expect::Missing => found.is_none(),
            Expect::Exists => found.is_some(),
            Expect::ModRevision(rev) => number(|kv| kv.modified.get()) == rev.get(),
            Expect::CreateRevision(rev) => number(|kv| kv.create.get()) == rev.get(),
            Expect::Version(version) => number(|kv| kv.version) == *version,
            Expect::Value(value) => found.as_ref().is_some_and(|kv| kv.value == value),
        };
        if holds {
            Ok(())
        } else {
            Err(Refusal::Conflict {
                key: key.clone(),
                found: found.map(Box::new),
            })
        }
    }

    pub(super) fn set_applied(&mut self, applied: Applied) {
        self.applied.index = self.applied.index.max(applied.index);
        self.applied.term = self.applied.term.max(applied.term);
    }

    /// What the lessor is told, change by change: nothing where a lease stays.
    fn lease_calls(&self, content: &Content) -> Vec<LeaseCall> {
        let main = content.current.next();
        let mut calls = Vec::new();
        for (sub, key) in self.written.iter().enumerate() {
            let changes = &content.keys[key];
            let id = ChangeId::new(main, sub as u64);
            let place = changes.partition_point(|change| change.id < id);
            let lease =
                |change: &Change| change.put.as_ref().map_or(LeaseId::NONE, |put| put.lease);
            let before = place
                .checked_sub(1)
                .map_or(LeaseId::NONE, |place| lease(&changes[place]));
            let after = lease(&changes[place]);
            if before != after && before != LeaseId::NONE {
                calls.push(LeaseCall::Detach(before, key.clone()));
            }
            if before != after && after != LeaseId::NONE {
                calls.push(LeaseCall::Attach(after, key.clone()));
            }
        }
        calls
    }

    pub(super) fn commit(self, content: &mut Content, calls: &mut Vec<LeaseCall>) -> Committed {
        calls.extend(self.lease_calls(content));
        let revision = self.sees(content);
        content.current = revision;
        content.applied = self.applied;
        content.tables = self.tables;
        Committed {
            revision,
            changes: self.written.len() as u64,
        }
    }

    pub(super) fn abort(mut self, content: &mut Content) {
        self.undo(content, 0);
    }
}
