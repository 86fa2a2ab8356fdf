//! The model behind the trait of a store under test: each verb in a line or two.

use std::sync::Arc;

use bytes::Bytes;
use revtree_format::{ChangeId, LeaseId, Revision};

use crate::answer::{
    Answer, Applied, Committed, Deleted, Event, Facts, Hash, HashKv, Kv, LeaseCall, RangeAnswer,
    Refusal, Rows, ViewFacts,
};
use crate::hash::{IgnoreKey, Tables};
use crate::keys::Keys;
use crate::model::{Begin, Expect, Finish, RangeQuery, Reader, Subject};
use crate::oracle::txn::Txn;
use crate::oracle::{HeldView, Oracle};

impl Oracle {
    fn held(&self, slot: u8) -> Answer<&HeldView> {
        self.views.get(&slot).ok_or(Refusal::NoSuchSlot(slot))
    }

    fn open_txn(&self) -> &Txn {
        self.txn.as_ref().expect("a transaction is open")
    }

    fn view(&self, reader: Reader) -> Answer<ViewFacts> {
        let current = self.content.current;
        let (rev, store_rev) = match reader {
            Reader::Now | Reader::Base => (current, current),
            Reader::At(rev) => (self.readable(rev, current)?, current),
            Reader::Held(slot) => return Ok(self.held(slot)?.facts),
            Reader::Txn => {
                let sees = self.open_txn().sees(&self.content);
                (sees, sees)
            }
        };
        Ok(ViewFacts {
            rev,
            store_rev,
            first_rev: self.content.compact,
        })
    }

    /// The live records of `keys` that the reader sees, and the revision that it reports.
    fn seen(
        &self,
        reader: Reader,
        keys: &Keys,
        at: Option<Revision>,
    ) -> Answer<(Vec<Kv>, Revision)> {
        if let (Reader::Held(slot), None) = (reader, at) {
            let view = self.held(slot)?;
            let kvs = view
                .kvs
                .iter()
                .filter(|kv| keys.contains(&kv.key))
                .cloned()
                .collect();
            return Ok((kvs, view.facts.store_rev));
        }
        let view = self.view(reader)?;
        let rev = at.map_or(Ok(view.rev), |at| self.readable(at, view.store_rev))?;
        Ok((self.content.kvs_at(keys, rev), view.store_rev))
    }

    fn tables_of(&self, reader: Reader) -> Answer<&Tables> {
        self.view(reader)?;
        Ok(match reader {
            Reader::Now | Reader::At(_) | Reader::Base => &self.content.tables,
            Reader::Held(slot) => &self.held(slot)?.tables,
            Reader::Txn => self.open_txn().tables(),
        })
    }
}

impl Subject for Oracle {
    fn put(&mut self, key: &Bytes, value: &Bytes) -> Answer<Revision> {
        self.one_shot(|txn, content| txn.put(content, key, value, LeaseId::NONE))
    }

    fn delete(&mut self, key: &Bytes) -> Answer<Deleted> {
        self.delete_range(&Keys::Single(key.clone()))
    }

    fn delete_range(&mut self, keys: &Keys) -> Answer<Deleted> {
        self.one_shot(|txn, content| Ok(txn.delete(content, keys)))
    }

    fn peek(&mut self, key: &Bytes) -> Answer<Option<Kv>> {
        Ok(self.content.kv_at(key, self.content.current))
    }

    fn begin(&mut self, begin: Begin) -> Answer<bool> {
        assert!(self.txn.is_none(), "one write transaction at a time");
        let index = match begin {
            Begin::AtIndex(index) if index <= self.content.applied.index => return Ok(false),
            Begin::AtIndex(index) => Some(index),
            Begin::Write | Begin::TryWrite => None,
        };
        self.txn = Some(Txn::begin(&self.content, index));
        Ok(true)
    }

    fn try_write_now(&mut self) -> Answer<bool> {
        Ok(self.txn.is_none())
    }

    fn txn_rev(&mut self) -> Answer<Revision> {
        Ok(self.content.current)
    }

    fn txn_put(&mut self, key: &Bytes, value: &Bytes, lease: LeaseId) -> Answer<Revision> {
        self.in_txn(|txn, content| txn.put(content, key, value, lease))
    }

    fn txn_delete(&mut self, key: &Bytes) -> Answer<Deleted> {
        self.txn_delete_range(&Keys::Single(key.clone()))
    }

    fn txn_delete_range(&mut self, keys: &Keys) -> Answer<Deleted> {
        Ok(self.in_txn(|txn, content| txn.delete(content, keys)))
    }

    fn txn_require(&mut self, key: &Bytes, expect: &Expect) -> Answer<()> {
        self.open_txn().require(&self.content, key, expect)
    }

    fn txn_changes(&mut self) -> Answer<Vec<Event>> {
        Ok(self.open_txn().changes(&self.content))
    }

    fn txn_savepoint(&mut self, slot: u8) -> Answer<()> {
        self.in_txn(|txn, _| txn.savepoint(slot));
        Ok(())
    }

    fn txn_roll_back(&mut self, slot: u8) -> Answer<()> {
        self.in_txn(|txn, content| txn.roll_back(content, slot))
    }

    fn txn_table_put(&mut self, table: &str, key: &Bytes, value: &Bytes) -> Answer<()> {
        self.in_txn(|txn, _| txn.table_mut(table).insert(key.clone(), value.clone()));
        Ok(())
    }

    fn txn_table_delete(&mut self, table: &str, key: &Bytes) -> Answer<bool> {
        Ok(self.in_txn(|txn, _| txn.table_mut(table).remove(key).is_some()))
    }

    fn txn_set_applied(&mut self, applied: Applied) -> Answer<()> {
        self.in_txn(|txn, _| txn.set_applied(applied));
        Ok(())
    }

    fn finish(&mut self, finish: Finish) -> Answer<Option<Committed>> {
        Ok(self.end_txn(matches!(finish, Finish::Commit | Finish::Submit)))
    }

    fn view_facts(&mut self, reader: Reader) -> Answer<ViewFacts> {
        self.view(reader)
    }

    fn get(&mut self, reader: Reader, key: &Bytes) -> Answer<Option<Kv>> {
        Ok(self.seen(reader, &Keys::Single(key.clone()), None)?.0.pop())
    }

    fn range(&mut self, reader: Reader, query: &RangeQuery) -> Answer<RangeAnswer> {
        let (mut kvs, revision) = self.seen(reader, &query.keys, query.at)?;
        let count = kvs.len() as u64;
        if query.reverse {
            kvs.reverse();
        }
        if let Some(limit) = query.limit {
            kvs.truncate(limit);
        }
        if query.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        let more = (kvs.len() as u64) < count;
        Ok(RangeAnswer {
            kvs,
            revision,
            count,
            more,
        })
    }

    fn count(&mut self, reader: Reader, query: &RangeQuery) -> Answer<u64> {
        Ok(self.range(reader, query)?.count)
    }

    fn both_ends(&mut self, reader: Reader, query: &RangeQuery, backs: u64) -> Answer<Vec<Kv>> {
        let mut left = std::collections::VecDeque::from(self.range(reader, query)?.kvs);
        let mut taken = Vec::with_capacity(left.len());
        for turn in 0.. {
            let back = backs >> (turn % 64) & 1 == 1;
            let Some(kv) = (if back {
                left.pop_back()
            } else {
                left.pop_front()
            }) else {
                break;
            };
            taken.push(kv);
        }
        Ok(taken)
    }

    fn history(&mut self, reader: Reader, key: &Bytes) -> Answer<Vec<Event>> {
        let rev = self.readable(self.view(reader)?.rev, self.content.current)?;
        // What a compaction keeps from below its revision is history too.
        let keys = Keys::Single(key.clone());
        Ok(self.content.events(&keys, Revision::default(), rev))
    }

    fn changes(
        &mut self,
        reader: Reader,
        keys: &Keys,
        from: Revision,
        to: Revision,
    ) -> Answer<Vec<Event>> {
        if from > to {
            return Ok(Vec::new());
        }
        let current = self.view(reader)?.store_rev;
        if to > current {
            return Err(Refusal::Future {
                requested: to,
                current,
            });
        }
        match self.content.compact {
            Some(compacted) if from < compacted => Err(Refusal::Compacted {
                requested: from,
                compacted,
            }),
            _ => Ok(self.content.events(keys, from, to)),
        }
    }

    fn change(&mut self, reader: Reader, id: ChangeId) -> Answer<Event> {
        let rev = self.view(reader)?.rev;
        let found = self
            .content
            .event_at(id)
            .filter(|event| event.id.main <= rev);
        found.ok_or(Refusal::NotFound(id))
    }

    fn table(&mut self, reader: Reader, name: &str) -> Answer<Rows> {
        let rows = self.tables_of(reader)?.get(name).into_iter().flatten();
        Ok(rows
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn table_get(&mut self, reader: Reader, name: &str, key: &Bytes) -> Answer<Option<Bytes>> {
        if reader == Reader::Txn {
            // To name a table in a transaction makes it.
            self.in_txn(|txn, _| txn.table_mut(name).len());
        }
        Ok(self
            .tables_of(reader)?
            .get(name)
            .and_then(|rows| rows.get(key))
            .cloned())
    }

    fn hold(&mut self, slot: u8, at: Option<Revision>) -> Answer<ViewFacts> {
        let facts = self.view(at.map_or(Reader::Now, Reader::At))?;
        let kvs = self.content.kvs_at(&Keys::All, facts.rev);
        let tables = Arc::clone(&self.content.tables);
        self.views.insert(slot, HeldView { facts, kvs, tables });
        Ok(facts)
    }

    fn release(&mut self, slot: u8) {
        self.views.remove(&slot);
    }

    fn facts(&mut self) -> Answer<Facts> {
        Ok(self.content.facts())
    }

    fn raise_index(&mut self, index: u64) -> Answer<Applied> {
        Ok(self.raise(index))
    }

    fn compact(&mut self, rev: Revision) -> Answer<()> {
        self.compact_at(rev)
    }

    fn hash(&mut self, ignore: &[IgnoreKey]) -> Answer<Hash> {
        Ok(self.hash_all(ignore))
    }

    fn hash_by_rev(&mut self, rev: Revision) -> Answer<HashKv> {
        self.hash_kv(rev)
    }

    fn compaction_hashes(&mut self) -> Answer<Vec<HashKv>> {
        Ok(self.compaction_hashes.clone())
    }

    fn snapshot(&mut self, slot: u8) -> Answer<Facts> {
        self.snapshots.insert(slot, self.content.clone());
        Ok(self.content.facts())
    }

    fn restore(&mut self, slot: u8) -> Answer<()> {
        self.content = self
            .snapshots
            .get(&slot)
            .ok_or(Refusal::NoSuchSlot(slot))?
            .clone();
        self.compaction_hashes.clear();
        self.attach_all();
        self.accepted();
        Ok(())
    }

    fn sync(&mut self) -> Answer<Revision> {
        Ok(self.content.current)
    }

    fn reopen(&mut self) -> Answer<()> {
        self.views.clear();
        self.compaction_hashes.clear();
        self.attach_all();
        Ok(())
    }

    fn lease_calls(&mut self) -> Option<Vec<LeaseCall>> {
        Some(std::mem::take(&mut self.lease_calls))
    }
}
