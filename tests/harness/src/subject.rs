//! The real store as a store under test: each verb is its namesake on the public door.
//!
//! Apart from the oracle, which never calls the crate. Handles are kept here by number; an error that
//! the oracle can say is translated, anything else stays text and agrees with nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use revtree::storage::MemoryDisk;
use revtree::{Db, Lessor, Options, ReadView, Savepoint, View, WeakDb, WriteTxn};
use revtree_format::{ChangeId, LeaseId, Revision};

use crate::answer::{
    Answer, Applied, Committed, Deleted, Event, EventKind, Facts, Hash, HashKv, Kv, LeaseCall,
    Prev, RangeAnswer, Refusal, Rows, ViewFacts,
};
use crate::hash::IgnoreKey;
use crate::keys::Keys;
use crate::model::{Begin, Expect, Finish, RangeQuery, Reader, Subject};

/// An open store of the crate.
pub struct Store {
    /// How it is opened, each time.
    options: Box<dyn Fn() -> Options + Send>,
    path: PathBuf,
    db: Option<Db>,
    txn: Option<WriteTxn>,
    savepoints: Vec<(u8, Savepoint)>,
    views: BTreeMap<u8, ReadView>,
    lessor: Arc<Recorder>,
    /// What reclaiming has freed.
    freed_bytes: u64,
}

/// A lessor that knows every lease and writes down what it is told.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<LeaseCall>>);

impl Recorder {
    fn push(&self, call: LeaseCall) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
    }

    fn take(&self) -> Vec<LeaseCall> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lessor for Recorder {
    fn opened(&self, _db: WeakDb) {
        // What an opening tells has no order; by key it can be compared.
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sort_by_key(|call| match call {
                LeaseCall::Attach(_, key) | LeaseCall::Detach(_, key) => key.clone(),
            });
    }

    fn attach(&self, lease: LeaseId, key: &[u8]) {
        self.push(LeaseCall::Attach(lease, Bytes::copy_from_slice(key)));
    }

    fn detach(&self, lease: LeaseId, key: &[u8]) {
        self.push(LeaseCall::Detach(lease, Bytes::copy_from_slice(key)));
    }
}

impl Store {
    /// Opens the store at `path` with what `options` makes, now and at each reopening; its lessor is
    /// replaced by one that records.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open(
        path: impl Into<PathBuf>,
        options: impl Fn() -> Options + Send + 'static,
    ) -> revtree::Result<Store> {
        let (path, lessor) = (path.into(), Arc::<Recorder>::default());
        let db = options().lessor(lessor.clone()).open(&path)?;
        Ok(Store {
            options: Box::new(options),
            path,
            db: Some(db),
            txn: None,
            savepoints: Vec::new(),
            views: BTreeMap::new(),
            lessor,
            freed_bytes: 0,
        })
    }

    /// A new store on a disk in memory, in small segments and with many checkpoints.
    ///
    /// # Panics
    ///
    /// If it cannot be opened.
    #[must_use]
    pub fn in_memory(segment_bytes: u64, checkpoint_bytes: u64) -> Store {
        let disk = Arc::new(MemoryDisk::new());
        Store::open("store", move || {
            Options::new()
                .disk(disk.clone())
                .store_bytes_max(STORE_BYTES_MAX)
                .segment_bytes(segment_bytes)
                .checkpoint_bytes(checkpoint_bytes)
        })
        .expect("a new store in memory")
    }

    /// A new store in memory whose sizes follow from the seed.
    ///
    /// # Panics
    ///
    /// As [`Store::in_memory`].
    #[must_use]
    pub fn for_seed(seed: u64) -> Store {
        let checkpoint_bytes = match seed % 4 {
            0 => 4 << 10,
            1 => 16 << 10,
            2 => 64 << 10,
            _ => 1 << 20,
        };
        Store::in_memory(64 << 10, checkpoint_bytes)
    }

    /// Bytes of segments that reclaiming has freed so far.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        self.freed_bytes
    }

    /// The handle of the crate.
    ///
    /// # Panics
    ///
    /// Not outside [`Subject::reopen`].
    #[must_use]
    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("open between two verbs")
    }

    /// Closes it.
    ///
    /// # Errors
    ///
    /// As [`Db::close`].
    pub fn close(mut self) -> revtree::Result<()> {
        self.txn = None;
        self.views.clear();
        self.db.take().map_or(Ok(()), Db::close)
    }

    /// Where a snapshot of that number lies.
    fn snapshot_path(&self, slot: u8) -> PathBuf {
        snapshot_path(&self.path, slot)
    }

    fn txn(&mut self) -> &mut WriteTxn {
        self.txn.as_mut().expect("a transaction is open")
    }

    fn view(&self, reader: Reader) -> Answer<ReadView> {
        match reader {
            Reader::Now => answer(self.db().read()),
            Reader::At(rev) => answer(self.db().read_at(rev)),
            Reader::Held(slot) => {
                let view = self.views.get(&slot).cloned();
                view.ok_or(Refusal::NoSuchSlot(slot))
            }
            Reader::Base | Reader::Txn => {
                Ok(self.txn.as_ref().expect("a transaction is open").base())
            }
        }
    }

    /// Reads through whatever `reader` is.
    fn read<T>(
        &self,
        reader: Reader,
        read: impl FnOnce(&dyn View) -> revtree::Result<T>,
    ) -> Answer<T> {
        match (reader, &self.txn) {
            (Reader::Txn, Some(txn)) => answer(read(txn)),
            _ => answer(read(&self.view(reader)?)),
        }
    }
}

/// Where a store at `path` keeps its snapshot of that number.
pub(crate) fn snapshot_path(path: &Path, slot: u8) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".snapshot{slot}"));
    PathBuf::from(name)
}

/// Address space for one store under test: more than any history needs.
const STORE_BYTES_MAX: u64 = 1 << 32;

fn range_of<'v>(view: &'v dyn View, query: &RangeQuery) -> revtree::Result<revtree::Range<'v>> {
    let mut range = view.range(key_range(&query.keys));
    if let Some(at) = query.at {
        range = range.at(at)?;
    }
    if let Some(limit) = query.limit {
        range = range.limit(limit);
    }
    if query.reverse {
        range = range.reverse();
    }
    if query.keys_only {
        range = range.keys_only();
    }
    Ok(range)
}

fn key_range(keys: &Keys) -> revtree::KeyRange {
    match keys {
        Keys::Single(key) => revtree::KeyRange::single(key),
        Keys::Between(start, end) => revtree::KeyRange::between(start, end),
        Keys::AtLeast(start) => revtree::KeyRange::at_least(start),
        Keys::Prefix(prefix) => revtree::KeyRange::prefix(prefix),
        Keys::All => revtree::KeyRange::all(),
    }
}

fn answer<T>(result: revtree::Result<T>) -> Answer<T> {
    result.map_err(refusal)
}

fn refusal(error: revtree::Error) -> Refusal {
    use revtree::Error;
    match error {
        Error::Compacted {
            requested,
            compacted,
        } => Refusal::Compacted {
            requested,
            compacted,
        },
        Error::FutureRevision { requested, current } => Refusal::Future { requested, current },
        Error::RevisionNotFound(id) => Refusal::NotFound(id),
        Error::Conflict { key, found } => Refusal::Conflict {
            key,
            found: found.map(|found| Box::new(kv(*found))),
        },
        Error::KeyTooLong { len, .. } => Refusal::KeyTooLong { len },
        other => Refusal::Other(format!("{other} ({other:?})")),
    }
}

fn kv(kv: revtree::KeyValue) -> Kv {
    Kv {
        key: kv.key,
        value: kv.value,
        create: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn record(record: &revtree::Record<'_>) -> Kv {
    Kv {
        key: Bytes::copy_from_slice(record.key()),
        value: Bytes::copy_from_slice(record.value()),
        create: record.create_revision(),
        modified: record.mod_revision(),
        version: record.version(),
        lease: record.lease(),
    }
}

fn event(event: revtree::Event) -> Event {
    Event {
        id: event.id,
        kind: match event.kind {
            revtree::EventKind::Put => EventKind::Put,
            revtree::EventKind::Delete => EventKind::Delete,
        },
        // Shared bytes would keep the file locked.
        kv: kv(event.kv.unpinned()),
        prev: match event.prev {
            revtree::Prev::NotAsked => Prev::NotAsked,
            revtree::Prev::None => Prev::None,
            revtree::Prev::Value(prev) => Prev::Value(kv(prev.unpinned())),
            revtree::Prev::Compacted => Prev::Compacted,
        },
    }
}

fn events(events: revtree::Result<revtree::Events<'_>>) -> Answer<Vec<Event>> {
    let events: revtree::Result<Vec<revtree::Event>> = events.and_then(Iterator::collect);
    answer(events.map(|events| events.into_iter().map(event).collect()))
}

fn deleted(deleted: revtree::Deleted) -> Deleted {
    Deleted {
        count: deleted.count,
        revision: deleted.revision,
    }
}

fn applied(applied: revtree::Applied) -> Applied {
    Applied {
        index: applied.index,
        term: applied.term,
    }
}

fn hash_kv(hash: revtree::HashKv) -> HashKv {
    HashKv {
        hash: hash.hash,
        revision: hash.revision,
        compact_revision: hash.compact_revision,
    }
}

fn facts_of(view: &ReadView) -> ViewFacts {
    ViewFacts {
        rev: view.rev(),
        store_rev: view.store_rev(),
        first_rev: view.first_rev(),
    }
}

impl Subject for Store {
    fn put(&mut self, key: &Bytes, value: &Bytes) -> Answer<Revision> {
        answer(self.db().put(key, value))
    }

    fn delete(&mut self, key: &Bytes) -> Answer<Deleted> {
        answer(self.db().delete(key).map(deleted))
    }

    fn delete_range(&mut self, keys: &Keys) -> Answer<Deleted> {
        answer(self.db().delete_range(key_range(keys)).map(deleted))
    }

    fn peek(&mut self, key: &Bytes) -> Answer<Option<Kv>> {
        answer(self.db().get(key).map(|found| found.map(kv)))
    }

    fn begin(&mut self, begin: Begin) -> Answer<bool> {
        self.savepoints.clear();
        self.txn = answer(match begin {
            Begin::Write => self.db().write().map(Some),
            Begin::TryWrite => self.db().try_write(),
            Begin::AtIndex(index) => self.db().write_at_index(index),
        })?;
        Ok(self.txn.is_some())
    }

    fn try_write_now(&mut self) -> Answer<bool> {
        answer(self.db().try_write().map(|txn| txn.is_some()))
    }

    fn txn_rev(&mut self) -> Answer<Revision> {
        Ok(self.txn().rev())
    }

    fn txn_put(&mut self, key: &Bytes, value: &Bytes, lease: LeaseId) -> Answer<Revision> {
        answer(match lease {
            LeaseId::NONE => self.txn().put(key, value),
            lease => self.txn().put_with_lease(key, value, lease),
        })
    }

    fn txn_delete(&mut self, key: &Bytes) -> Answer<Deleted> {
        answer(self.txn().delete(key).map(deleted))
    }

    fn txn_delete_range(&mut self, keys: &Keys) -> Answer<Deleted> {
        answer(self.txn().delete_range(key_range(keys)).map(deleted))
    }

    fn txn_require(&mut self, key: &Bytes, expect: &Expect) -> Answer<()> {
        let expect = match expect {
            Expect::Missing => revtree::Expect::Missing,
            Expect::Exists => revtree::Expect::Exists,
            Expect::ModRevision(rev) => revtree::Expect::ModRevision(*rev),
            Expect::CreateRevision(rev) => revtree::Expect::CreateRevision(*rev),
            Expect::Version(version) => revtree::Expect::Version(*version),
            Expect::Value(value) => revtree::Expect::Value(value),
        };
        answer(self.txn().require(key, expect))
    }

    fn txn_changes(&mut self) -> Answer<Vec<Event>> {
        Ok(self.txn().changes().into_iter().map(event).collect())
    }

    fn txn_savepoint(&mut self, slot: u8) -> Answer<()> {
        let savepoint = self.txn().savepoint();
        self.savepoints.push((slot, savepoint));
        Ok(())
    }

    fn txn_roll_back(&mut self, slot: u8) -> Answer<()> {
        let place = self
            .savepoints
            .iter()
            .rposition(|(other, _)| *other == slot);
        let place = place.ok_or(Refusal::NoSuchSlot(slot))?;
        self.savepoints.truncate(place + 1);
        let savepoint = self.savepoints[place].1;
        answer(self.txn().roll_back_to(savepoint))
    }

    fn txn_table_put(&mut self, table: &str, key: &Bytes, value: &Bytes) -> Answer<()> {
        let mut table = answer(self.txn().table(table))?;
        answer(table.put(key, value))
    }

    fn txn_table_delete(&mut self, table: &str, key: &Bytes) -> Answer<bool> {
        let mut table = answer(self.txn().table(table))?;
        answer(table.delete(key))
    }

    fn txn_set_applied(&mut self, applied: Applied) -> Answer<()> {
        self.txn().set_applied(revtree::Applied {
            index: applied.index,
            term: applied.term,
        });
        Ok(())
    }

    fn finish(&mut self, finish: Finish) -> Answer<Option<Committed>> {
        self.savepoints.clear();
        let txn = self.txn.take().expect("a transaction is open");
        let commit = match finish {
            Finish::Commit => answer(txn.commit())?,
            Finish::Submit => answer(txn.submit().and_then(revtree::Submitted::wait))?,
            Finish::Abort => {
                txn.abort();
                return Ok(None);
            }
            Finish::Drop => {
                drop(txn);
                return Ok(None);
            }
        };
        Ok(Some(Committed {
            revision: commit.revision,
            changes: commit.changes,
        }))
    }

    fn view_facts(&mut self, reader: Reader) -> Answer<ViewFacts> {
        Ok(facts_of(&self.view(reader)?))
    }

    fn get(&mut self, reader: Reader, key: &Bytes) -> Answer<Option<Kv>> {
        self.read(reader, |view| {
            Ok(view.get(key)?.map(|found| record(&found)))
        })
    }

    fn range(&mut self, reader: Reader, query: &RangeQuery) -> Answer<RangeAnswer> {
        self.read(reader, |view| {
            let range = range_of(view, query)?.collect()?;
            Ok(RangeAnswer {
                kvs: range.kvs.into_iter().map(kv).collect(),
                revision: range.revision,
                count: range.count,
                more: range.more,
            })
        })
    }

    fn count(&mut self, reader: Reader, query: &RangeQuery) -> Answer<u64> {
        self.read(reader, |view| range_of(view, query)?.count())
    }

    fn both_ends(&mut self, reader: Reader, query: &RangeQuery, backs: u64) -> Answer<Vec<Kv>> {
        self.read(reader, |view| {
            let mut records = range_of(view, query)?.iter();
            let mut taken = Vec::new();
            for turn in 0.. {
                let back = backs >> (turn % 64) & 1 == 1;
                let Some(found) = (if back {
                    records.next_back()
                } else {
                    records.next()
                }) else {
                    break;
                };
                taken.push(record(&found?));
            }
            Ok(taken)
        })
    }

    fn history(&mut self, reader: Reader, key: &Bytes) -> Answer<Vec<Event>> {
        events(self.view(reader)?.history(key))
    }

    fn changes(
        &mut self,
        reader: Reader,
        keys: &Keys,
        from: Revision,
        to: Revision,
    ) -> Answer<Vec<Event>> {
        events(self.view(reader)?.changes(key_range(keys), from..=to))
    }

    fn change(&mut self, reader: Reader, id: ChangeId) -> Answer<Event> {
        answer(self.view(reader)?.change(id).map(event))
    }

    fn table(&mut self, reader: Reader, name: &str) -> Answer<Rows> {
        let view = self.view(reader)?;
        let rows: revtree::Result<Rows> = view.table(name).iter().collect();
        answer(rows)
    }

    fn table_get(&mut self, reader: Reader, name: &str, key: &Bytes) -> Answer<Option<Bytes>> {
        if reader == Reader::Txn {
            let table = answer(self.txn().table(name))?;
            return answer(table.get(key));
        }
        answer(self.view(reader)?.table(name).get(key))
    }

    fn hold(&mut self, slot: u8, at: Option<Revision>) -> Answer<ViewFacts> {
        let view = self.view(at.map_or(Reader::Now, Reader::At))?;
        let facts = facts_of(&view);
        self.views.insert(slot, view);
        Ok(facts)
    }

    fn release(&mut self, slot: u8) {
        self.views.remove(&slot);
    }

    fn facts(&mut self) -> Answer<Facts> {
        let db = self.db();
        Ok(Facts {
            current: db.rev(),
            compact: db.compact_rev(),
            applied: applied(db.consistent_index()),
        })
    }

    fn raise_index(&mut self, index: u64) -> Answer<Applied> {
        answer(self.db().raise_consistent_index(index).map(applied))
    }

    fn compact(&mut self, rev: Revision) -> Answer<()> {
        match answer(self.db().compact(rev))?.wait() {
            revtree::Outcome::Done => Ok(()),
            other => Err(Refusal::Other(format!("the compaction was {other:?}"))),
        }
    }

    fn reclaim(&mut self) -> Answer<()> {
        let done = answer(self.db().reclaim())?;
        self.freed_bytes += done.freed_bytes;
        match done.damage.first() {
            Some(damage) => Err(Refusal::Other(format!("found damaged: {damage}"))),
            None => Ok(()),
        }
    }

    fn hash(&mut self, ignore: &[IgnoreKey]) -> Answer<Hash> {
        let ignore: Vec<revtree::IgnoreKey<'_>> = ignore
            .iter()
            .map(|ignore| revtree::IgnoreKey {
                table: ignore.table,
                key: ignore.key,
            })
            .collect();
        let hash = answer(self.db().hash(&ignore))?;
        Ok(Hash {
            hash: hash.hash,
            revision: hash.revision,
        })
    }

    fn hash_by_rev(&mut self, rev: Revision) -> Answer<HashKv> {
        answer(self.db().hash_by_rev(rev).map(hash_kv))
    }

    fn compaction_hashes(&mut self) -> Answer<Vec<HashKv>> {
        let hashes = self.db().compaction_hashes();
        Ok(hashes.into_iter().map(hash_kv).collect())
    }

    fn snapshot(&mut self, slot: u8) -> Answer<Facts> {
        let path = self.snapshot_path(slot);
        let snapshot = answer(self.db().snapshot())?;
        answer(snapshot.save(&path))?;
        Ok(Facts {
            current: snapshot.revision(),
            compact: self.db().compact_rev(),
            applied: applied(snapshot.applied()),
        })
    }

    fn restore(&mut self, slot: u8) -> Answer<()> {
        // That there is one is decided from the oracle's side; the file outlives a reopening.
        let path = self.snapshot_path(slot);
        answer(self.db().restore(&path))?;
        // Restoring took the file; the content as it is now is its copy.
        let again = answer(self.db().snapshot())?;
        answer(again.save(path)).map(drop)
    }

    fn sync(&mut self) -> Answer<Revision> {
        answer(self.db().sync())
    }

    fn reopen(&mut self) -> Answer<()> {
        self.views.clear();
        let closed = self.db.take().map_or(Ok(()), Db::close);
        self.lessor.take();
        let options = (self.options)().lessor(self.lessor.clone());
        self.db = Some(answer(options.open(&self.path))?);
        answer(closed)
    }

    fn lease_calls(&mut self) -> Option<Vec<LeaseCall>> {
        Some(self.lessor.take())
    }
}
