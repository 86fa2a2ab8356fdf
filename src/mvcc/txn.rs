//! The write transaction: an overlay over the newest accepted state.
//!
//! Nothing is encoded before commit, so an abort is a drop: not a byte, not an index slot, not a call to
//! the lessor. Reads see the overlay first; a range merges it with the keys below.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use revtree_format::limits::{
    KEY_BYTES_MAX, REVISION_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_CHANGES_MAX, VALUE_BYTES_MAX,
};
use revtree_format::{ChangeId, LeaseId, RecordKind, Revision};

use super::events::{Event, EventKind, Prev, deleted};
use super::keys::KeyRange;
use super::overlay::{Item, Overlay};
use super::range::{Range, count_at, key_of};
use super::record::{KeyValue, Record};
use super::store::Store;
use super::submitted::Submitted;
use super::table::{TableMut, check_name};
use super::turn::TurnHeld;
use super::versions::Version;
use super::view::{ReadView, View};
use crate::engine::{State, Tables};
use crate::error::{Error, Result};
use crate::index::KeyId;
use crate::metrics::Calls;
use crate::options::{Applied, Durability};

/// The one open write transaction. Reads see its own writes. Dropped without
/// [`commit`](WriteTxn::commit): nothing happened.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut txn = db.write()?;
/// txn.put("a", "1")?;
/// assert_eq!(txn.get("a")?.unwrap().value(), b"1");
/// assert!(db.get("a")?.is_none());
/// assert_eq!(txn.commit()?.revision.get(), 2);
/// drop(db.write()?); // an abort leaves no trace
/// # Ok::<(), revtree::Error>(())
/// ```
#[must_use = "dropping it aborts"]
pub struct WriteTxn {
    pub(crate) store: Arc<Store>,
    base: ReadView,
    pub(crate) ops: Vec<Op>,
    pub(crate) keys: BTreeMap<Bytes, PendingKey>,
    undo: Vec<Undo>,
    bytes: u64,
    pub(crate) tables: Tables,
    pub(crate) table_ops: Vec<TableOp>,
    /// The way on which each of `table_ops` was made.
    table_ways: Vec<u64>,
    /// Which transaction of this process it is: a savepoint knows its own.
    number: u64,
    /// How often it went back: what is made afterwards lies on another way.
    way: u64,
    pub(crate) applied: Applied,
    /// What `applied` was before each time that it was raised, and the way on which it was.
    raised: Vec<(Applied, u64)>,
    pub(crate) durability: Durability,
    pub(crate) calls: Calls,
    // The turn is given back when everything else is gone, but for the store itself, which a transaction
    // keeps open.
    _turn: TurnHeld,
    _open: Arc<dyn KeepOpen>,
}

/// Whatever keeps a store open while it lives.
pub(crate) trait KeepOpen: Send + Sync {}

/// One change of the transaction.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) key: Bytes,
    pub(crate) kind: RecordKind,
    pub(crate) value: Bytes,
    pub(crate) lease: LeaseId,
    pub(crate) create: Revision,
    pub(crate) version: u64,
}

/// What takes one operation back.
#[derive(Debug)]
struct Undo {
    /// The key as it was before; `None`: not touched.
    before: Option<PendingKey>,
    /// The way on which the operation was made.
    way: u64,
}

/// Numbers the transactions of this process.
static TRANSACTIONS: AtomicU64 = AtomicU64::new(0);

/// A key that the transaction has touched.
#[derive(Clone, Debug)]
pub(crate) struct PendingKey {
    /// Its newest record before the transaction.
    pub(crate) base: Option<(KeyId, Version)>,
    /// Whether it lives now, and by which operation; `None` is the base's own state.
    pub(crate) last: Option<usize>,
}

/// One change of a side table.
#[derive(Clone, Debug)]
pub(crate) enum TableOp {
    Create(String),
    Put(String, Bytes, Bytes),
    Delete(String, Bytes),
}

/// A point in a transaction to which it can go back.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut txn = db.write()?;
/// txn.put("a", "1")?;
/// let savepoint = txn.savepoint();
/// txn.put("a", "2")?;
/// txn.roll_back_to(savepoint)?;
/// assert_eq!(txn.get("a")?.unwrap().value(), b"1");
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Savepoint {
    number: u64,
    way: u64,
    ops: usize,
    table_ops: usize,
    raised: usize,
    bytes: u64,
    calls: Calls,
}

/// What [`WriteTxn::require`] compares a key with. A missing key has revision and version 0, and no
/// value, as in etcd.
///
/// ```
/// use revtree::{Error, Expect};
/// let db = revtree::Options::new().open_in_memory()?;
/// let txn = db.write()?;
/// txn.require("a", Expect::Missing)?;
/// assert!(matches!(txn.require("a", Expect::Exists), Err(Error::Conflict { found: None, .. })));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Expect<'a> {
    /// The key does not exist.
    Missing,
    /// It does.
    Exists,
    /// Its newest put is at this revision.
    ModRevision(Revision),
    /// It was made at this revision.
    CreateRevision(Revision),
    /// It has been put so often since it was made.
    Version(u64),
    /// It has this value.
    Value(&'a [u8]),
}

/// What a delete did.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// assert_eq!(db.delete("a")?.count, 1);
/// assert_eq!(db.delete("a")?.count, 0);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Deleted {
    /// Number of keys deleted.
    pub count: u64,
    /// The revision of the transaction's changes, or the one at its begin when there are none.
    pub revision: Revision,
}

/// What a commit did.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut txn = db.write()?;
/// txn.put("a", "1")?;
/// let commit = txn.commit()?;
/// assert_eq!((commit.revision.get(), commit.changes, commit.durable), (2, 1, true));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Commit {
    /// The store's revision after it.
    pub revision: Revision,
    /// Number of changes.
    pub changes: u64,
    /// Whether a power loss cannot take it back.
    pub durable: bool,
}

impl WriteTxn {
    pub(crate) fn begin(
        store: Arc<Store>,
        turn: TurnHeld,
        open: Arc<dyn KeepOpen>,
    ) -> Result<WriteTxn> {
        store.engine.check_writable()?;
        let state: State = store.engine.accepted()?;
        let (tables, applied) = (state.tables.clone(), state.applied);
        let base = ReadView::of_state(&store, state);
        let durability = store.engine.durability;
        Ok(WriteTxn {
            store,
            base,
            ops: Vec::new(),
            keys: BTreeMap::new(),
            undo: Vec::new(),
            bytes: 0,
            tables,
            table_ops: Vec::new(),
            table_ways: Vec::new(),
            number: TRANSACTIONS.fetch_add(1, Ordering::Relaxed),
            way: 0,
            applied,
            raised: Vec::new(),
            durability,
            calls: Calls::new(),
            _turn: turn,
            _open: open,
        })
    }

    /// The revision at its begin, before and after changes (etcd's `Rev`).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// assert_eq!(txn.put("a", "1")?, txn.rev().next());
    /// assert_eq!(txn.rev().get(), 1); // still
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn rev(&self) -> Revision {
        self.base.rev()
    }

    /// The revision that its reads see: one more once it has changes.
    pub(crate) fn read_rev(&self) -> Revision {
        if self.ops.is_empty() {
            self.rev()
        } else {
            self.rev().next()
        }
    }

    pub(crate) fn base_ref(&self) -> &ReadView {
        &self.base
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The state at its begin: to iterate over while writing.
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("/tmp/a", "x")?;
    /// db.put("/tmp/b", "x")?;
    /// let mut txn = db.write()?;
    /// for old in txn.base().range(KeyRange::prefix("/tmp/")) {
    ///     txn.delete(old?.key())?;
    /// }
    /// assert_eq!((txn.range(..).count()?, txn.base().range(..).count()?), (0, 2));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn base(&self) -> ReadView {
        self.base.clone()
    }

    /// The key's record as the transaction sees it.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("n", "1")?;
    /// let mut txn = db.write()?;
    /// txn.put("n", "2")?;
    /// let record = txn.get("n")?.unwrap();
    /// assert_eq!((record.value(), record.version(), record.mod_revision().get()), (&b"2"[..], 2, 3));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Record<'_>>> {
        let key = key.as_ref();
        self.store.engine.metrics.read();
        match self.keys.get(key).and_then(|pending| pending.last) {
            Some(op) => Ok(self.pending(op).map(|kv| Record::pending(kv, true))),
            None => self.base.get_at(key, self.rev()),
        }
    }

    /// A range of keys to be read, as the transaction sees them.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("b", "1")?;
    /// let mut txn = db.write()?;
    /// txn.delete("a")?;
    /// txn.put("c", "1")?;
    /// let page = txn.range(..).collect()?;
    /// assert_eq!(page.kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"b", b"c"]);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn range(&self, keys: impl Into<KeyRange>) -> Range<'_> {
        Range::of_txn(self, keys.into())
    }

    /// Sets a key, without a lease. Gives the revision that the transaction's changes will have; each put
    /// counts as a version of the key (etcd's rule).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// let rev = txn.put("a", "1")?;
    /// assert_eq!(txn.put("a", "2")?, rev); // each change counts, at one revision
    /// assert_eq!((txn.commit()?.changes, db.get("a")?.unwrap().version), (2, 2));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::KeyTooLong`], [`Error::ValueTooLong`], [`Error::TransactionTooLarge`],
    /// [`Error::LimitReached`] at the last revision. The transaction is as before then.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Revision> {
        self.put_with_lease(key, value, LeaseId::NONE)
    }

    /// Sets a key that the lessor will delete when the lease ends; [`LeaseId::NONE`] is [`WriteTxn::put`].
    ///
    /// ```
    /// use revtree::LeaseId;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put_with_lease("session", "alive", LeaseId(7))?;
    /// txn.commit()?;
    /// assert_eq!(db.get("session")?.unwrap().lease, LeaseId(7));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WriteTxn::put`], and [`Error::LeaseNotFound`] when the lessor does not know the lease.
    pub fn put_with_lease(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        lease: LeaseId,
    ) -> Result<Revision> {
        let (key, value) = (key.as_ref(), value.as_ref());
        check_lengths(key, value)?;
        self.check_room((key.len() + value.len()) as u64)?;
        if lease != LeaseId::NONE && !self.store.in_callback(|lessor| lessor.exists(lease)) {
            return Err(Error::LeaseNotFound(lease));
        }
        let rev = self.rev().next();
        let pending = self.touch(key)?;
        let (create, version) = match self.live(&pending) {
            Some((create, version)) => (create, version.saturating_add(1)),
            None => (rev, 1),
        };
        let op = Op {
            key: Bytes::copy_from_slice(key),
            kind: RecordKind::Put,
            value: Bytes::copy_from_slice(value),
            lease,
            create,
            version,
        };
        self.push(pending, op);
        self.calls.put(key.len() + value.len());
        Ok(rev)
    }

    /// Deletes a key if it exists; if not, nothing has changed (etcd's rule).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let mut txn = db.write()?;
    /// assert_eq!(txn.delete("b")?.revision.get(), 2); // nothing changed yet
    /// let deleted = txn.delete("a")?;
    /// assert_eq!((deleted.count, deleted.revision.get()), (1, 3));
    /// assert!(txn.get("a")?.is_none());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TransactionTooLarge`], [`Error::Corrupt`], [`Error::Io`].
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<Deleted> {
        let key = key.as_ref();
        let mut count = 0;
        if key.len() <= KEY_BYTES_MAX {
            let pending = self.touch(key)?;
            if self.live(&pending).is_some() {
                self.check_room(key.len() as u64)?;
                self.push_delete(Bytes::copy_from_slice(key), pending);
                count = 1;
            }
        }
        self.calls.delete();
        Ok(Deleted {
            count,
            revision: self.read_rev(),
        })
    }

    /// Deletes the keys of a range, in ascending order.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let mut txn = db.write()?;
    /// txn.put("b", "2")?;
    /// assert_eq!(txn.delete_range("a".."c")?.count, 2); // its own put too
    /// txn.commit()?;
    /// assert_eq!(db.read()?.range(..).count()?, 0);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WriteTxn::delete`]; then nothing of the range has been deleted.
    pub fn delete_range(&mut self, keys: impl Into<KeyRange>) -> Result<Deleted> {
        let keys = keys.into();
        if let Some(key) = keys.as_single() {
            return self.delete(key);
        }
        let savepoint = self.savepoint();
        match self.delete_all(&keys) {
            Ok(count) => {
                self.calls.delete();
                Ok(Deleted {
                    count,
                    revision: self.read_rev(),
                })
            }
            Err(error) => {
                self.roll_back_to(savepoint)?;
                Err(error)
            }
        }
    }

    fn delete_all(&mut self, keys: &KeyRange) -> Result<u64> {
        let mut count = 0;
        let mut overlay = Overlay::new(self, keys, false);
        let items: Result<Vec<Item>> = std::iter::from_fn(|| overlay.next(false)).collect();
        for item in items? {
            let key = match item {
                Item::Base(position, _) => key_of(&self.store, position)?,
                Item::Pending(op) => self.ops[op].key.clone(),
            };
            self.check_room(key.len() as u64)?;
            let pending = self.touch(&key)?;
            self.push_delete(key, pending);
            count += 1;
        }
        Ok(count)
    }

    /// Fails unless the key is as expected, as the transaction sees it: etcd's comparisons of a `Txn`.
    ///
    /// ```
    /// use revtree::{Error, Expect};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let seen = db.put("a", "1")?;
    /// let mut txn = db.write()?;
    /// txn.require("a", Expect::ModRevision(seen))?; // compare
    /// txn.put("a", "2")?; // and swap
    /// txn.commit()?;
    /// let late = db.write()?.require("a", Expect::ModRevision(seen));
    /// assert!(matches!(late, Err(Error::Conflict { found: Some(kv), .. }) if kv.value == "2"));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Conflict`] with what is there; [`Error::Corrupt`], [`Error::Io`].
    pub fn require(&self, key: impl AsRef<[u8]>, expect: Expect<'_>) -> Result<()> {
        let key = key.as_ref();
        let found = self.get(key)?;
        let (create, modified, version) = found.as_ref().map_or((0, 0, 0), |record| {
            let create = record.create_revision().get();
            (create, record.mod_revision().get(), record.version())
        });
        let holds = match expect {
            Expect::Missing => found.is_none(),
            Expect::Exists => found.is_some(),
            Expect::ModRevision(rev) => modified == rev.get(),
            Expect::CreateRevision(rev) => create == rev.get(),
            Expect::Version(expected) => version == expected,
            Expect::Value(value) => found.as_ref().is_some_and(|record| record.value() == value),
        };
        if holds {
            return Ok(());
        }
        let found = found.map(|record| Box::new(record.to_key_value()));
        Err(Error::Conflict {
            key: Bytes::copy_from_slice(key),
            found,
        })
    }

    /// The changes so far, in order; a delete carries its key and revision. What was before is not asked.
    ///
    /// ```
    /// use revtree::EventKind;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put("a", "1")?;
    /// txn.delete("a")?;
    /// let changes = txn.changes();
    /// assert_eq!((changes[0].kind, changes[0].id.to_string()), (EventKind::Put, "2.0".into()));
    /// assert_eq!((changes[1].kind, changes[1].id.to_string()), (EventKind::Delete, "2.1".into()));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn changes(&self) -> Vec<Event> {
        let rev = self.rev().next();
        let events = (0u64..).zip(&self.ops).map(|(sub, op)| {
            let id = ChangeId::new(rev, sub);
            let (kind, kv) = match op.kind {
                RecordKind::Put => (EventKind::Put, self.key_value(op)),
                _ => (EventKind::Delete, deleted(op.key.clone(), rev)),
            };
            Event {
                id,
                kind,
                kv,
                prev: Prev::NotAsked,
            }
        });
        events.collect()
    }

    /// A side table, made when it is missing. A change of tables alone makes no revision.
    ///
    /// ```
    /// use revtree::Error;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.table("raft")?.put(b"vote", b"3")?;
    /// assert!(matches!(txn.table("key"), Err(Error::LimitReached { .. })));
    /// assert_eq!(txn.commit()?.revision.get(), 1);
    /// assert_eq!(db.read()?.table("raft").iter().len(), 1);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LimitReached`] for a name of no byte or more than 255, and for `key`, under which the
    /// keys themselves are hashed.
    pub fn table(&mut self, name: &str) -> Result<TableMut<'_>> {
        check_name(name)?;
        if self.tables.get(name).is_none() {
            self.tables.create(name);
            self.push_table_op(TableOp::Create(name.to_owned()));
        }
        Ok(TableMut::new(self, name))
    }

    pub(crate) fn table_put(&mut self, name: &str, key: &[u8], value: &[u8]) -> Result<()> {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        let op = TableOp::Put(name.to_owned(), key.clone(), value.clone());
        self.check_bytes(op.bytes())?;
        self.tables.put(name, key, value)?;
        self.push_table_op(op);
        Ok(())
    }

    pub(crate) fn table_delete(&mut self, name: &str, key: &[u8]) -> Result<bool> {
        let rows = self.tables.get(name);
        if rows.is_none_or(|rows| !rows.contains_key(key)) {
            return Ok(false);
        }
        let op = TableOp::Delete(name.to_owned(), Bytes::copy_from_slice(key));
        self.check_bytes(op.bytes())?;
        self.tables.delete(name, key);
        self.push_table_op(op);
        Ok(true)
    }

    /// Every change of a row is written, so it counts with all that is written of it, whatever the tables
    /// hold in the end.
    fn push_table_op(&mut self, op: TableOp) {
        self.bytes += op.bytes();
        self.table_ops.push(op);
        self.table_ways.push(self.way);
    }

    /// The consistent index and term that this commit saves; neither is ever lowered.
    ///
    /// ```
    /// use revtree::Applied;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put("a", "1")?;
    /// txn.set_applied(Applied { index: 5, term: 2 });
    /// txn.set_applied(Applied { index: 4, term: 2 });
    /// txn.commit()?; // the change and its position, or neither
    /// assert_eq!(db.consistent_index(), Applied { index: 5, term: 2 });
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn set_applied(&mut self, applied: Applied) {
        let before = self.applied;
        self.applied = Applied {
            index: before.index.max(applied.index),
            term: before.term.max(applied.term),
        };
        if self.applied != before {
            self.raised.push((before, self.way));
        }
    }

    /// A point to go back to.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// let savepoint = txn.savepoint();
    /// for value in ["1", "2"] {
    ///     txn.roll_back_to(savepoint)?; // each try begins here
    ///     txn.put("a", value)?;
    /// }
    /// assert_eq!((txn.changes().len(), txn.get("a")?.unwrap().version()), (1, 1));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            number: self.number,
            way: self.way,
            ops: self.ops.len(),
            table_ops: self.table_ops.len(),
            raised: self.raised.len(),
            bytes: self.bytes,
            calls: self.calls,
        }
    }

    /// Takes everything back that came after the savepoint.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put("a", "1")?;
    /// let savepoint = txn.savepoint();
    /// txn.delete("a")?;
    /// txn.table("t")?.put(b"row", b"x")?;
    /// txn.roll_back_to(savepoint)?;
    /// txn.commit()?;
    /// assert_eq!(db.get("a")?.unwrap().value, "1");
    /// assert_eq!(db.read()?.tables().count(), 0);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LimitReached`] when the transaction has been taken back beyond the savepoint already, or
    /// the savepoint is another transaction's.
    pub fn roll_back_to(&mut self, savepoint: Savepoint) -> Result<()> {
        if !self.has_passed(&savepoint) {
            let max = self.ops.len() as u64;
            return Err(Error::LimitReached {
                what: "savepoint of what was taken back",
                max,
            });
        }
        self.way += 1;
        while self.ops.len() > savepoint.ops {
            let op = self.ops.pop().expect("longer than the savepoint");
            let undo = self.undo.pop().expect("one for each operation");
            match undo.before {
                Some(before) => self.keys.insert(op.key, before),
                None => self.keys.remove(&op.key),
            };
        }
        if self.table_ops.len() > savepoint.table_ops {
            self.table_ops.truncate(savepoint.table_ops);
            self.table_ways.truncate(savepoint.table_ops);
            // What is left is done again on the tables as they were at begin: a savepoint holds numbers
            // only, so that it can be copied.
            let mut tables = self.base.state().tables.clone();
            for op in &self.table_ops {
                tables.apply(&op.as_control())?;
            }
            self.tables = tables;
        }
        if let Some((before, _)) = self.raised.get(savepoint.raised) {
            self.applied = *before;
            self.raised.truncate(savepoint.raised);
        }
        self.bytes = savepoint.bytes;
        self.calls = savepoint.calls;
        Ok(())
    }

    /// Whether all that led to the savepoint is still there: the newest operation before it is, unless
    /// it was made after the savepoint, in place of one that was taken back.
    fn has_passed(&self, savepoint: &Savepoint) -> bool {
        let made_before = |ways: Option<u64>| ways.is_some_and(|way| way <= savepoint.way);
        let op = savepoint.ops.checked_sub(1);
        let table_op = savepoint.table_ops.checked_sub(1);
        let raised = savepoint.raised.checked_sub(1);
        savepoint.number == self.number
            && op.is_none_or(|last| made_before(self.undo.get(last).map(|undo| undo.way)))
            && table_op.is_none_or(|last| made_before(self.table_ways.get(last).copied()))
            && raised.is_none_or(|last| made_before(self.raised.get(last).map(|(_, way)| *way)))
    }

    /// Makes this commit [`Durability::Sync`] whatever the store's is.
    ///
    /// ```
    /// use revtree::{Durability, Options};
    /// let db = Options::new().durability(Durability::Flushed).open_in_memory()?;
    /// db.put("a", "1")?;
    /// let mut txn = db.write()?;
    /// txn.put("b", "2")?;
    /// txn.require_sync();
    /// assert!(txn.commit()?.durable);
    /// assert_eq!(db.durable_rev(), db.rev()); // and all before it
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn require_sync(&mut self) {
        self.durability = Durability::Sync;
    }

    /// Gives the transaction up, as dropping does.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put("a", "1")?;
    /// txn.abort();
    /// assert!(db.get("a")?.is_none());
    /// assert_eq!(db.put("b", "2")?.get(), 2); // no revision was used up
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn abort(self) {}

    /// Commits: the changes get one revision, together. Without any change nothing is written.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put("a", "1")?;
    /// txn.put("b", "2")?;
    /// txn.commit()?;
    /// assert_eq!(db.get("a")?.unwrap().mod_revision, db.get("b")?.unwrap().mod_revision);
    /// let nothing = db.write()?.commit()?;
    /// assert_eq!((nothing.changes, nothing.revision.get()), (0, 2));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::StoreFull`]: nothing happened. [`Error::CommitUnknown`]: written,
    /// but the sync failed. [`Error::Io`]: a write failed before all of it was written, so nothing of it will
    /// be there, and later writes are [`Error::Poisoned`]. [`Error::Closed`].
    ///
    /// # Panics
    /// With the panic of a lessor's hook, once the commit is complete.
    pub fn commit(self) -> Result<Commit> {
        self.submit()?.wait()
    }

    /// Commits without waiting: the order is decided and the next transaction builds on it. One thread
    /// can keep many commits in one sync.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut waiting = Vec::new();
    /// for n in 0..10 {
    ///     let mut txn = db.write()?;
    ///     txn.put("n", n.to_string())?;
    ///     waiting.push(txn.submit()?);
    /// }
    /// for submitted in waiting {
    ///     submitted.wait()?;
    /// }
    /// assert_eq!(db.rev().get(), 11);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WriteTxn::commit`], but for what only the sync can tell.
    ///
    /// # Panics
    /// As [`WriteTxn::commit`].
    pub fn submit(self) -> Result<Submitted> {
        Store::submit(self)
    }

    pub(crate) fn count(&self, keys: &KeyRange) -> Result<u64> {
        let mut count = count_at(&self.store, keys, self.rev())?;
        let (lower, upper) = keys.bounds();
        if keys.is_empty() {
            return Ok(0);
        }
        for pending in self
            .keys
            .range::<[u8], _>((lower, upper))
            .map(|(_, pending)| pending)
        {
            let before = base_live(pending);
            let after = self.live(pending).is_some();
            count = match (before, after) {
                (false, true) => count + 1,
                (true, false) => count - 1,
                _ => count,
            };
        }
        Ok(count)
    }

    pub(crate) fn read_item(&self, item: &Item, with_values: bool) -> Result<Record<'_>> {
        match item {
            Item::Base(position, head) => {
                Record::read(&self.store.lender, *position, *head, with_values)
            }
            Item::Pending(op) => {
                let kv = self.key_value(&self.ops[*op]);
                Ok(Record::pending(kv, with_values))
            }
        }
    }

    /// What is known of a key: looked up at the first touch. The transaction is not changed by it.
    fn touch(&self, key: &[u8]) -> Result<PendingKey> {
        if let Some(pending) = self.keys.get(key) {
            return Ok(pending.clone());
        }
        let base = self.store.find(key)?;
        Ok(PendingKey { base, last: None })
    }

    /// Create revision and version, if the key lives now.
    fn live(&self, pending: &PendingKey) -> Option<(Revision, u64)> {
        match pending.last {
            Some(op) => {
                let op = &self.ops[op];
                (op.kind == RecordKind::Put).then_some((op.create, op.version))
            }
            None => {
                let (_, (_, head)) = pending.base.as_ref()?;
                (head.kind == RecordKind::Put).then_some((head.create, head.version))
            }
        }
    }

    fn push_delete(&mut self, key: Bytes, pending: PendingKey) {
        let op = Op {
            key,
            kind: RecordKind::Tombstone,
            value: Bytes::new(),
            lease: LeaseId::NONE,
            create: Revision::default(),
            version: 0,
        };
        self.push(pending, op);
    }

    fn push(&mut self, pending: PendingKey, op: Op) {
        self.bytes += (op.key.len() + op.value.len()) as u64;
        let touched = PendingKey {
            last: Some(self.ops.len()),
            ..pending
        };
        let before = self.keys.insert(op.key.clone(), touched);
        let way = self.way;
        self.undo.push(Undo { before, way });
        self.ops.push(op);
    }

    fn check_room(&self, bytes: u64) -> Result<()> {
        if self.rev().get() >= REVISION_MAX {
            return Err(Error::LimitReached {
                what: "revision",
                max: REVISION_MAX,
            });
        }
        if self.ops.len() as u64 >= TRANSACTION_CHANGES_MAX {
            let max = TRANSACTION_CHANGES_MAX;
            return Err(Error::TransactionTooLarge {
                what: "changes",
                max,
            });
        }
        self.check_bytes(bytes)
    }

    fn check_bytes(&self, bytes: u64) -> Result<()> {
        if self.bytes + bytes > TRANSACTION_BYTES_MAX {
            let max = TRANSACTION_BYTES_MAX;
            return Err(Error::TransactionTooLarge { what: "bytes", max });
        }
        Ok(())
    }

    fn pending(&self, op: usize) -> Option<KeyValue> {
        let op = &self.ops[op];
        (op.kind == RecordKind::Put).then(|| self.key_value(op))
    }

    fn key_value(&self, op: &Op) -> KeyValue {
        let rev = self.rev().next();
        KeyValue::new(
            op.key.clone(),
            op.value.clone(),
            op.create,
            rev,
            op.version,
            op.lease,
        )
    }
}

impl View for WriteTxn {
    fn get(&self, key: &[u8]) -> Result<Option<Record<'_>>> {
        WriteTxn::get(self, key)
    }

    fn range(&self, keys: KeyRange) -> Range<'_> {
        WriteTxn::range(self, keys)
    }

    fn rev(&self) -> Revision {
        WriteTxn::rev(self)
    }
}

impl std::fmt::Debug for WriteTxn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTxn")
            .field("rev", &self.rev())
            .field("changes", &self.ops.len())
            .finish_non_exhaustive()
    }
}

/// Whether the key lived before the transaction.
fn base_live(pending: &PendingKey) -> bool {
    pending
        .base
        .as_ref()
        .is_some_and(|(_, (_, head))| head.kind == RecordKind::Put)
}

/// Checks a key and a value against their limits.
pub(crate) fn check_lengths(key: &[u8], value: &[u8]) -> Result<()> {
    let (len, max) = (key.len() as u64, KEY_BYTES_MAX as u64);
    if len > max {
        return Err(Error::KeyTooLong { len, max });
    }
    let (len, max) = (value.len() as u64, VALUE_BYTES_MAX as u64);
    if len > max {
        return Err(Error::ValueTooLong { len, max });
    }
    Ok(())
}
