//! The door: an open store, and how it is opened, closed and replaced.

#![expect(
    clippy::disallowed_types,
    reason = "what the last open found, asked of by `recovery`"
)]

#[cfg(all(test, not(miri)))]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use revtree_format::Revision;

use crate::engine::{Brought, bring, lock};
use crate::error::{Error, Result};
use crate::import::{ImportReport, Importer, Sealed, add_increment, import_etcd};
use crate::mvcc::{
    Deleted, Hash, HashKv, IgnoreKey, KeepOpen, KeyRange, KeyValue, ReadView, Snapshot, Store,
    Turn, TurnHeld, WriteTxn, hash_all, hash_by_rev, open_store, reclaim,
};
use crate::options::{Applied, Create, Options};
use crate::stats::{CheckReport, Compaction, Reclaimed, Recovery, Stats};
use crate::sync::{ArcSwap, AtomicBool, Mutex, Ordering};
use crate::sys::{Disk, start_threads};
use crate::trace;
use crate::watch::{Registry, Start, WatchStream};

/// An open store. Cheap to clone; all clones are the same store.
///
/// One thread must not take two write transactions at once: the second [`Db::write`] (or `put`) on the
/// thread that holds a [`WriteTxn`] waits for ever. [`Db::try_write`] does not wait.
///
/// ```
/// use revtree::Options;
/// let db = Options::new().open_in_memory()?;
/// db.put("color", "red")?;
/// db.put("color", "blue")?;
/// assert_eq!(db.get("color")?.unwrap().value, "blue");
/// assert_eq!(db.read_at(2)?.get("color")?.unwrap().value(), b"red");
/// db.close()?;
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone)]
pub struct Db {
    pub(crate) shared: Arc<Shared>,
}

/// Does not keep the store open: what a lessor keeps.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// let weak = db.downgrade();
/// assert!(weak.upgrade().is_some());
/// drop(db);
/// assert!(weak.upgrade().is_none());
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone)]
pub struct WeakDb {
    shared: Weak<Shared>,
}

impl WeakDb {
    /// The store, if it is still open.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let weak = db.downgrade();
    /// weak.upgrade().unwrap().put("a", "1")?; // the same store
    /// assert_eq!(db.rev().get(), 2);
    /// db.close()?;
    /// assert!(weak.upgrade().is_none());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn upgrade(&self) -> Option<Db> {
        self.shared.upgrade().map(|shared| Db { shared })
    }
}

/// What all clones share.
pub(crate) struct Shared {
    /// The store; another one after a restore.
    store: ArcSwap<Store>,
    turn: Arc<Turn>,
    pub(crate) options: Options,
    /// Where the store's own file lives.
    disk: Arc<dyn Disk>,
    /// Where the files live that callers name; another disk for a store in memory.
    files: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    /// Who watches; of all contents.
    watchers: Arc<Registry>,
    /// What the open of the present content found.
    recovery: Mutex<Recovery>,
    closed: AtomicBool,
}

impl KeepOpen for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // What `close` does, without anybody to tell: a `Sync` commit is durable already.
        if !self.closed.load(Ordering::Acquire) {
            let store = self.store.load_full();
            let _ = store.engine.show_accepted();
            self.watchers.close();
            store.end_worker();
            let _ = store.engine.close(&*store);
        }
    }
}

impl Db {
    /// Opens the store at `path` with the default options; it is created if it is missing.
    ///
    /// ```
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = revtree::Db::open(dir.path().join("store"))?;
    /// db.put("a", "1")?;
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Options::new().open(path)
    }

    /// Opens the store `path` of a disk.
    pub(crate) fn open_on(disk: Arc<dyn Disk>, path: &Path, options: Options) -> Result<Db> {
        Db::open_beside(Arc::clone(&disk), path, disk, options)
    }

    /// The same for a disk on which there is nothing but the store: saved and restored files are those
    /// of the disk `files`.
    pub(crate) fn open_beside(
        disk: Arc<dyn Disk>,
        path: &Path,
        files: Arc<dyn Disk>,
        options: Options,
    ) -> Result<Db> {
        trace::span!("open", path = %path.display(), read_only = options.read_only);
        start_threads().map_err(Error::on("starting threads"))?;
        let (store, found) = open_store(&disk, path, path, &options)?;
        let turn = Arc::default();
        store.attach_turn(&turn);
        store.attach_leases()?;
        let watchers = Registry::new(&store);
        store.resume_cleaning()?;
        let recovery = Recovery::of(&found, store.engine.rev());
        let shared = Arc::new(Shared {
            watchers,
            store: ArcSwap::new(store),
            turn,
            options,
            disk,
            files,
            path: path.to_path_buf(),
            recovery: Mutex::new(recovery),
            closed: AtomicBool::new(false),
        });
        let db = Db { shared };
        let weak = db.downgrade();
        trace::event!(
            INFO,
            revision = db.rev().get(),
            clean = db.recovery().clean,
            created = db.recovery().created,
            "store opened"
        );
        db.store().in_callback(|lessor| lessor.opened(weak));
        Ok(db)
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        self.shared.store.load_full()
    }

    fn take_turn(&self) -> Result<TurnHeld> {
        Store::check_callback()?;
        self.store().engine.check_writable()?;
        let turn = self.shared.turn.take();
        // Looked at again: the store may have been closed while we waited.
        self.store().engine.check_writable()?;
        Ok(turn)
    }

    /// The key's current value, copied.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let kv = db.get("a")?.unwrap();
    /// db.delete("a")?;
    /// assert_eq!(kv.value, "1"); // a copy
    /// assert!(db.get("a")?.is_none());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Corrupt`], [`Error::Io`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<KeyValue>> {
        self.store().get(key.as_ref())
    }

    /// Sets a key, as a transaction of its own, and gives the new revision.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let first = db.put("color", "red")?;
    /// let second = db.put("color", "blue")?;
    /// assert_eq!((first.get(), second), (2, first.next())); // the empty store is at 1
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WriteTxn::put`] and [`WriteTxn::commit`].
    ///
    /// # Panics
    /// With the panic of a lessor's hook, once the commit is complete.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Revision> {
        let (key, value) = (key.as_ref(), value.as_ref());
        crate::mvcc::check_lengths(key, value)?;
        let turn = self.take_turn()?;
        self.store().put(turn, key, value)
    }

    /// Deletes a key, if it exists, as a transaction of its own. Deleting nothing makes no revision (etcd's
    /// rule).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// assert_eq!(db.delete("b")?.count, 0); // there is none: no revision
    /// assert_eq!((db.delete("a")?.revision.get(), db.rev().get()), (3, 3));
    /// assert!(db.read_at(2)?.get("a")?.is_some()); // its history stays
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WriteTxn::delete`] and [`WriteTxn::commit`].
    ///
    /// # Panics
    /// As [`Db::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Deleted> {
        let mut txn = self.write()?;
        let deleted = txn.delete(key)?;
        txn.commit()?;
        Ok(deleted)
    }

    /// Deletes the keys of a range, as a transaction of its own: one revision, or none when there are no
    /// keys (etcd's rule).
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// for key in ["/pods/a", "/pods/b", "/nodes/a"] {
    ///     db.put(key, "x")?;
    /// }
    /// assert_eq!(db.delete_range(KeyRange::prefix("/pods/"))?.count, 2);
    /// assert_eq!((db.rev().get(), db.read()?.range(..).count()?), (5, 1)); // both in one revision
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WriteTxn::delete_range`] and [`WriteTxn::commit`].
    ///
    /// # Panics
    /// As [`Db::put`].
    pub fn delete_range(&self, keys: impl Into<KeyRange>) -> Result<Deleted> {
        let mut txn = self.write()?;
        let deleted = txn.delete_range(keys)?;
        txn.commit()?;
        Ok(deleted)
    }

    /// A view at the current revision. Never waits.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let view = db.read()?;
    /// db.put("a", "2")?;
    /// assert_eq!((view.rev().get(), view.get("a")?.unwrap().value()), (2, &b"1"[..]));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn read(&self) -> Result<ReadView> {
        ReadView::open(&self.store())
    }

    /// A view at a revision; 0 is the current one, as in etcd's `RangeOptions`.
    ///
    /// ```
    /// use revtree::Error;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let red = db.put("color", "red")?;
    /// db.delete("color")?;
    /// assert_eq!(db.read_at(red)?.get("color")?.unwrap().value(), b"red");
    /// assert!(db.read_at(0)?.get("color")?.is_none());
    /// assert!(matches!(db.read_at(9), Err(Error::FutureRevision { current, .. }) if current == db.rev()));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::FutureRevision`] (looked at first), [`Error::Compacted`], [`Error::Closed`].
    pub fn read_at(&self, rev: impl Into<Revision>) -> Result<ReadView> {
        ReadView::at(&self.store(), rev.into())
    }

    /// Opens the write transaction; waits for its turn, first come first served.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put("a", "1")?;
    /// txn.put("b", "2")?;
    /// let commit = txn.commit()?;
    /// assert_eq!((commit.changes, commit.revision.get()), (2, 2)); // both in one revision
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InCallback`], [`Error::ReadOnly`], [`Error::Poisoned`], [`Error::Closed`].
    pub fn write(&self) -> Result<WriteTxn> {
        let turn = self.take_turn()?;
        WriteTxn::begin(self.store(), turn, Arc::clone(&self.shared) as _)
    }

    /// The same without waiting: `None` when another transaction is open.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let txn = db.write()?;
    /// assert!(db.try_write()?.is_none());
    /// drop(txn);
    /// assert!(db.try_write()?.is_some());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::write`].
    pub fn try_write(&self) -> Result<Option<WriteTxn>> {
        Store::check_callback()?;
        self.store().engine.check_writable()?;
        match self.shared.turn.try_take() {
            Some(turn) => {
                WriteTxn::begin(self.store(), turn, Arc::clone(&self.shared) as _).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Opens the transaction of log entry `index`; `None`: it has been applied already. Its commit saves
    /// the index with the data, also when nothing else changed (etcd's `ConsistentWatchableKV`).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// if let Some(mut txn) = db.write_at_index(5)? {
    ///     txn.put("a", "1")?;
    ///     txn.commit()?;
    /// }
    /// assert!(db.write_at_index(5)?.is_none());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::write`].
    pub fn write_at_index(&self, index: u64) -> Result<Option<WriteTxn>> {
        let mut txn = self.write()?;
        if index <= txn.applied.index {
            return Ok(None);
        }
        txn.set_applied(Applied { index, term: 0 });
        Ok(Some(txn))
    }

    /// The consistent index of the newest visible commit (etcd's `ConsistentIndex`); index 0: none yet.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write_at_index(5)?.unwrap();
    /// txn.put("a", "1")?;
    /// assert_eq!(db.consistent_index().index, 0);
    /// txn.commit()?;
    /// assert_eq!(db.consistent_index().index, 5); // where the log is to be replayed from
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn consistent_index(&self) -> Applied {
        self.store().engine.published().1.applied
    }

    /// Raises the consistent index, never lowers it; no revision is made (etcd's `UpdateConsistentIndex`).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// assert_eq!(db.raise_consistent_index(7)?.index, 7);
    /// assert_eq!(db.raise_consistent_index(3)?.index, 7);
    /// assert_eq!(db.rev().get(), 1);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::write`] and [`WriteTxn::commit`].
    pub fn raise_consistent_index(&self, index: u64) -> Result<Applied> {
        let mut txn = self.write()?;
        txn.set_applied(Applied { index, term: 0 });
        let applied = txn.applied;
        txn.commit()?;
        Ok(applied)
    }

    /// The current revision: what a new view reads.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// assert_eq!(db.rev().get(), 1); // the empty store
    /// db.put("a", "1")?;
    /// assert_eq!(db.rev(), db.read()?.rev());
    /// assert_eq!(db.rev().get(), 2);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn rev(&self) -> Revision {
        self.store().engine.rev()
    }

    /// The newest revision that a power loss cannot take back; equal to [`Db::rev`] under `Sync`.
    ///
    /// ```
    /// use revtree::{Durability, Options};
    /// let db = Options::new().durability(Durability::Flushed).open_in_memory()?;
    /// db.put("a", "1")?;
    /// assert_eq!((db.rev().get(), db.durable_rev().get()), (2, 1));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn durable_rev(&self) -> Revision {
        self.store().engine.durable_rev()
    }

    /// The compact revision; `None`: never compacted.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let rev = db.put("a", "1")?;
    /// assert_eq!(db.compact_rev(), None);
    /// db.compact(rev)?;
    /// assert_eq!(db.compact_rev(), Some(rev)); // the oldest revision that `read_at` gives
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn compact_rev(&self) -> Option<Revision> {
        self.store().engine.compact_rev()
    }

    /// Returns when everything accepted before is durable, with its revision.
    ///
    /// ```
    /// use revtree::{Durability, Options};
    /// let db = Options::new().durability(Durability::Flushed).open_in_memory()?;
    /// let rev = db.put("a", "1")?;
    /// assert_eq!(db.sync()?, rev); // one sync for all commits so far
    /// assert_eq!(db.durable_rev(), rev);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`], [`Error::ReadOnly`].
    pub fn sync(&self) -> Result<Revision> {
        self.store().engine.sync_all()
    }

    /// Gives up the history below `rev`: one small durable commit. Reads below it are refused from its
    /// return on; views that are open stay exact. What no view needs then is cleaned away by a thread of the store,
    /// see [`Cleaner`](crate::Cleaner). What receivers of watchers in step have not come to take is copied for them
    /// before, up to 4 MiB of a stream and 64 MiB of all.
    ///
    /// ```
    /// use revtree::Error;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// db.compact(3)?;
    /// assert!(matches!(db.read_at(2), Err(Error::Compacted { .. })));
    /// assert_eq!(db.read_at(3)?.get("a")?.unwrap().value(), b"2");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::FutureRevision`] above [`Db::rev`], [`Error::Compacted`] at or below the compact revision,
    /// and as [`Db::write`].
    pub fn compact(&self, rev: impl Into<Revision>) -> Result<Compaction> {
        let rev = rev.into();
        Store::check_callback()?;
        self.store().engine.check_writable()?;
        let saved = self.store().save_for_watchers(rev);
        let turn = self.take_turn()?;
        let store = self.store();
        store.compact(turn, rev, saved)?;
        Ok(Compaction::of(Some(rev), store.passes()))
    }

    /// The work of compactions that is still queued or running.
    ///
    /// ```
    /// use revtree::{Error, Outcome};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let rev = db.put("a", "1")?;
    /// db.compact(rev)?;
    /// // Already compacted there: what is left to wait for is the work that goes on.
    /// assert!(matches!(db.compact(rev), Err(Error::Compacted { .. })));
    /// assert_eq!(db.compaction().wait(), Outcome::Done);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn compaction(&self) -> Compaction {
        let store = self.store();
        Compaction::of(store.engine.compact_rev(), store.passes())
    }

    /// A hash of the whole store: records and side tables, without the rows in `ignore`.
    ///
    /// ```
    /// use revtree::{DEFAULT_IGNORES, Options};
    /// let (one, other) = (Options::new().open_in_memory()?, Options::new().open_in_memory()?);
    /// one.put("a", "1")?;
    /// other.put("a", "1")?;
    /// assert_eq!(one.hash(DEFAULT_IGNORES)?, other.hash(DEFAULT_IGNORES)?); // two replicas
    /// other.put("a", "2")?;
    /// assert_ne!(one.hash(DEFAULT_IGNORES)?.hash, other.hash(DEFAULT_IGNORES)?.hash);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Corrupt`], [`Error::Io`].
    pub fn hash(&self, ignore: &[IgnoreKey<'_>]) -> Result<Hash> {
        hash_all(&self.store(), ignore)
    }

    /// etcd's HashKV at a revision; 0 is the current one. Computed in parallel.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let then = db.hash_by_rev(0)?;
    /// db.put("a", "2")?;
    /// assert_eq!(db.hash_by_rev(2)?, then); // later writes do not change it
    /// assert_ne!(db.hash_by_rev(3)?.hash, then.hash);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::FutureRevision`], [`Error::Compacted`] below the compact revision, [`Error::Closed`],
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn hash_by_rev(&self, rev: impl Into<Revision>) -> Result<HashKv> {
        hash_by_rev(&self.store(), rev.into())
    }

    /// The hashes of the last ten compactions of this open, by revision; one that cannot be read is left
    /// out.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.compact(2)?;
    /// assert_eq!(db.compaction_hashes()[0].revision.get(), 2);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn compaction_hashes(&self) -> Vec<HashKv> {
        let store = self.store();
        store.compactions.all(&store)
    }

    /// An image of the store as it is now, while it goes on. Costs nothing before it is read.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let snapshot = db.snapshot()?;
    /// db.put("a", "2")?;
    /// assert_eq!(snapshot.revision().get(), 2);
    /// let mut file = Vec::new();
    /// snapshot.write_to(&mut file)?;
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::current(&self.store(), &self.shared.files)
    }

    /// Puts the store file at `path`, a saved [`Snapshot`] or any other store, in place of the content: the
    /// file gets this store's name, and `path` is gone. For all clones of this handle at once.
    ///
    /// It waits for the write transaction in flight. The new file is opened, checked and locked first, then
    /// renamed. Views, snapshots and shared bytes stay on the old content, exact, and keep its file locked;
    /// background work on it ends. Watchers go on where they are, in the new content (etcd's rule): what is
    /// at or above the next revision of each. The lessor is told of each live key with a lease, as at open; of the old
    /// content's leases it is not told. The consistent index is that of the new content.
    ///
    /// A store in memory copies the file before anything else, and removes it instead of renaming it.
    ///
    /// ```
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = revtree::Db::open(dir.path().join("store"))?;
    /// db.put("a", "1")?;
    /// db.snapshot()?.save(dir.path().join("received"))?;
    /// db.put("a", "2")?;
    /// let before = db.read()?;
    /// let recovery = db.restore(dir.path().join("received"))?;
    /// assert!(recovery.clean);
    /// assert_eq!(db.get("a")?.unwrap().value, "1");
    /// assert_eq!(before.get("a")?.unwrap().value(), b"2");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Options::open`] for what is found at `path`; [`Error::ReadOnly`], [`Error::InCallback`],
    /// [`Error::Poisoned`], [`Error::Closed`] by this store; [`Error::Io`] when the file cannot be renamed,
    /// as from another filesystem. Then the old content is untouched, and the new file where it was. Only
    /// when the directory cannot be synced after the rename, the new content is in place all the same, and
    /// a power loss may bring the old one back: then writes are [`Error::Poisoned`] until the store is
    /// opened again.
    ///
    /// # Panics
    /// With the panic of a lessor's hook, once the new content is in place.
    pub fn restore(&self, path: impl AsRef<Path>) -> Result<Recovery> {
        let shared = &*self.shared;
        trace::span!("restore", path = %path.as_ref().display());
        let turn = self.take_turn()?;
        let arrived = Arrived::of(shared, path.as_ref())?;
        self.take_over(turn, arrived)
    }

    /// Adds an increment that [`Snapshot::write_since`] has written, whose earlier revision is this store's current one,
    /// and gives the revision that the store is at then. All of it or nothing: also a crash leaves the store as it was, or
    /// with all of the increment.
    ///
    /// It makes a new file beside the store's, of what stays of the store and of the increment, and puts it in place as
    /// [`Db::restore`] does: so it takes the time and the space of a copy of the store, views stay on the old content,
    /// watchers are given the changes of the increment, and the lessor is told of each live key with a lease. Compact
    /// revision, consistent index and side tables are the increment's. The reader must not write to a store: that is
    /// refused with [`Error::InCallback`].
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let earlier = db.rev();
    /// let dir = tempfile::tempdir().unwrap();
    /// db.snapshot()?.save(dir.path().join("standby"))?;
    /// let standby = revtree::Db::open(dir.path().join("standby"))?;
    /// db.put("a", "1")?;
    /// let mut increment = Vec::new();
    /// db.snapshot()?.write_since(earlier, &mut increment)?;
    /// assert_eq!(standby.apply_increment(&increment[..])?, db.rev());
    /// assert_eq!(standby.get("a")?.unwrap().value, "1");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Import`] with the offset of what is damaged or cut off, or that says how it does not fit: it is of another
    /// store, goes on from another revision or from other changes of this one, or the store has been compacted
    /// further. [`Error::Io`] with what the reader said; [`Error::NoSpace`], [`Error::StoreFull`]; and as [`Db::restore`].
    ///
    /// # Panics
    /// As [`Db::restore`].
    pub fn apply_increment(&self, from: impl io::Read) -> Result<Revision> {
        let shared = &*self.shared;
        trace::span!("apply_increment");
        let turn = self.take_turn()?;
        let store = self.store();
        // What is accepted is what the increment has to fit.
        store.engine.show_accepted()?;
        let random = shared.disk.entropy().map_err(Error::on("draw a name"))?;
        let mut name = shared.path.as_os_str().to_owned();
        name.push(format!(".{:08x}.next", crc32c::crc32c(&random)));
        let options = Options {
            disk: Some(Arc::clone(&shared.disk)),
            identity: Some((store.engine.medium.store_id, store.engine.opens)),
            segment_bytes: store.engine.medium.geometry.segment_bytes(),
            ..shared.options.clone()
        };
        let (sealed, rev) = add_increment(&store, from, Path::new(&name), options)?;
        drop(store);
        self.take_over(turn, Arrived::made(shared, sealed.path))?;
        Ok(rev)
    }

    /// Puts a file in place of the content.
    fn take_over(&self, turn: TurnHeld, arrived: Arrived<'_>) -> Result<Recovery> {
        let shared = &*self.shared;
        // 1. Open, check and lock it where it is. What goes wrong up to the rename leaves all as it was.
        let options = Options {
            create: Create::Never,
            // Whoever restores chooses the revision.
            expect_at_least: Revision::default(),
            ..shared.options.clone()
        };
        let (store, found) = open_store(&shared.disk, &arrived.path, &shared.path, &options)?;
        store.leased(|_, _| {})?;
        store.attach_turn(&shared.turn);
        // 2. The name is the store's: from here on an open finds the new content, which we have locked.
        let in_doubt = NameInDoubt(Some(shared.store.load_full()));
        let taken = arrived.take_name(&shared.path);
        let synced = taken
            .as_ref()
            .map_or(Ok(()), |()| shared.disk.sync_directory(&shared.path));
        in_doubt.over();
        taken?;
        let synced = synced.map_err(Arc::new);
        if let Err(cause) = &synced {
            // A power cut may bring the old name back: nothing that is written here would be durable
            // before an open has synced the directory.
            store.engine.poison(Arc::clone(cause));
        }
        // 3. The handle changes over, in the writer's turn: the next transaction builds on the new content.
        let recovery = Recovery::of(&found, store.engine.rev());
        *lock(&shared.recovery) = recovery;
        let old = shared.store.swap(Arc::clone(&store));
        shared.watchers.restored(&store, old.engine.rev());
        // 4. The old content's work ends; whoever waits for a sync of it may do so.
        old.engine.retire();
        old.end_worker();
        trace::event!(INFO, revision = store.engine.rev().get(), "restored");
        let attached = store.attach_leases();
        drop(turn);
        synced.map_err(|cause| Error::Io {
            what: "sync the restored file's directory",
            cause,
        })?;
        attached?;
        store.resume_cleaning()?;
        Ok(recovery)
    }

    /// A stream without watchers yet.
    ///
    /// ```
    /// use revtree::Start;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch_stream()?;
    /// let id = stream.watch("a", Start::Now)?;
    /// db.put("a", "1")?;
    /// assert_eq!(stream.recv()?.id, id);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn watch_stream(&self) -> Result<WatchStream> {
        WatchStream::new(&self.shared.watchers)
    }

    /// A stream with one watcher of these keys.
    ///
    /// ```
    /// use revtree::{Start, Update};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("config", "1")?;
    /// let mut stream = db.watch("config", Start::Oldest)?;
    /// db.put("config", "2")?;
    /// let Update::Events(events) = stream.recv()?.update else { unreachable!() };
    /// assert_eq!(events.len(), 2);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`WatchStream::watch`].
    pub fn watch(&self, keys: impl Into<KeyRange>, start: Start) -> Result<WatchStream> {
        let stream = self.watch_stream()?;
        stream.watch(keys, start)?;
        Ok(stream)
    }

    /// Says that so many events have been worked on, which counts them (etcd's `ReportEventReceived`):
    /// [`Stats::pending_events`] falls, [`Stats::events`] rises.
    ///
    /// ```
    /// use revtree::{Start, Update};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch("a", Start::Now)?;
    /// db.put("a", "1")?;
    /// let Update::Events(events) = stream.recv()?.update else { unreachable!() };
    /// assert_eq!((db.stats().pending_events, db.stats().events), (1, 0));
    /// db.report_events_received(events.len() as u64);
    /// assert_eq!((db.stats().pending_events, db.stats().events), (0, 1));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn report_events_received(&self, n: u64) {
        self.shared.watchers.report_received(n);
    }

    /// Gives back the space that no view needs, all of it and now, while the store goes on: segments of the file in which
    /// little is live are copied together, and are used again for what is written next, or cut off where they lie at
    /// the end of the file. What can be read stays the same.
    ///
    /// With a policy of [`Options::retain`] it is asked first, and what it does not want is compacted: that waits for
    /// the write transaction in flight.
    ///
    /// ```
    /// let db = revtree::Options::new().segment_bytes(64 << 10).open_in_memory()?;
    /// for _ in 0..400 {
    ///     db.put("a", [0; 1000])?;
    /// }
    /// let before = db.stats().file_bytes;
    /// db.compact(db.rev())?;
    /// let reclaimed = db.reclaim()?;
    /// assert!(reclaimed.freed_bytes > 300_000 && db.stats().file_bytes < before);
    /// assert_eq!(db.get("a")?.unwrap().value.len(), 1000);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::StoreFull`] when there is no room for a checkpoint and the copies: nothing
    /// is lost, and what has been freed is. [`Error::ReadOnly`], [`Error::InCallback`], [`Error::Poisoned`],
    /// [`Error::Closed`], [`Error::Io`]. Damaged records are in what is returned, not an error.
    pub fn reclaim(&self) -> Result<Reclaimed> {
        Store::check_callback()?;
        self.store().engine.check_writable()?;
        if let Some(rev) = self.store().retention_target() {
            let saved = self.store().save_for_watchers(rev);
            let turn = self.take_turn()?;
            match self.store().compact(turn, rev, saved) {
                // Somebody else has compacted or restored since.
                Ok(()) | Err(Error::Compacted { .. } | Error::FutureRevision { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        reclaim(&self.store()).map(Reclaimed::of)
    }

    /// Counters and sizes. After a compaction the heads of all records are read to count live bytes, once
    /// for each change or compaction that it is called behind.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let view = db.read()?;
    /// db.put("a", "1")?;
    /// let stats = db.stats();
    /// assert_eq!((stats.keys, stats.syncs), (1, 1));
    /// assert_eq!((stats.open_views, stats.oldest_view), (1, Some(view.rev()))); // who keeps space
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.store(), &self.shared.watchers.stats())
    }

    /// Reads and checks everything: superblocks, pages, every record with both checksums, order, links,
    /// the index. In parallel, beside reads and writes.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.delete("a")?;
    /// let report = db.check()?;
    /// assert!(report.is_clean(), "{:?}", report.damage);
    /// assert_eq!((report.records, report.keys), (2, 0));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Io`]. Damage is in the report, not an error.
    pub fn check(&self) -> Result<CheckReport> {
        CheckReport::of(&self.store())
    }

    /// What open found: a clean end, or what was recovered.
    ///
    /// ```
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = revtree::Db::open(dir.path().join("store"))?;
    /// assert!(db.recovery().created);
    /// db.put("a", "1")?;
    /// db.close()?;
    /// let found = revtree::Db::open(dir.path().join("store"))?.recovery();
    /// assert_eq!((found.clean, found.created, found.revision.get()), (true, false, 2));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        *lock(&self.shared.recovery)
    }

    /// A handle that does not keep the store open.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let weak = db.downgrade();
    /// assert!(weak.upgrade().is_some());
    /// drop(db); // closes: `weak` does not count
    /// assert!(weak.upgrade().is_none());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn downgrade(&self) -> WeakDb {
        WeakDb {
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// Waits for the write transaction in flight, makes everything durable and closes the store for all
    /// clones. Views and shared bytes still held stay exact, and keep the file locked.
    ///
    /// ```
    /// use revtree::Error;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let (other, view) = (db.clone(), db.read()?);
    /// db.close()?;
    /// assert!(matches!(other.get("a"), Err(Error::Closed)));
    /// assert_eq!(view.get("a")?.unwrap().value(), b"1");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// Whatever could not be written; [`Error::Poisoned`] after an earlier failure; [`Error::Closed`] when
    /// another clone has closed it.
    pub fn close(self) -> Result<()> {
        Store::check_callback()?;
        let _turn = self.shared.turn.take();
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return Err(Error::Closed);
        }
        let store = self.store();
        // What is accepted becomes visible first, so that it is given to watchers. Where that fails, the close
        // does too, and tells it.
        let _ = store.engine.show_accepted();
        self.shared.watchers.close();
        store.end_worker();
        store.engine.close(&*store)
    }

    /// Builds a new store at `store`, where there must be none, from records with their revisions (etcd's
    /// `WriteKV`, with deletes and side tables too).
    ///
    /// The options say how the store is made, and how [`Importer::finish`] opens it.
    ///
    /// ```
    /// use revtree::{Applied, ChangeId, Db, KeyValue, LeaseId, Options, Revision};
    /// let dir = tempfile::tempdir().unwrap();
    /// let mut importer = Db::importer(dir.path().join("store"), Options::new())?;
    /// let kv = KeyValue::new("a".into(), "1".into(), 7.into(), 7.into(), 1, LeaseId::NONE);
    /// importer.put(ChangeId::new(Revision::new(7), 0), &kv)?;
    /// let db = importer.finish(Revision::new(7), None, Applied::default())?;
    /// assert_eq!(db.get("a")?.unwrap().mod_revision.get(), 7);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] with `AlreadyExists` when there is a file; [`Error::ReadOnly`] by the options;
    /// otherwise as [`Options::open`].
    pub fn importer(store: impl AsRef<Path>, options: Options) -> Result<Importer> {
        Importer::new(store.as_ref(), options)
    }

    /// Makes a new store at `store`, where there must be none, of an etcd snapshot (`etcdctl snapshot
    /// save`) or of a plain copy of etcd's database, and leaves it closed.
    ///
    /// The bucket `key` becomes the store's history, every other bucket a side table, byte for byte. The
    /// store answers as an etcd would that opens the snapshot: the same revisions, ranges, events and
    /// HashKV. A compaction that was not finished is completed. (The one exception is the record without
    /// a key that `snapshot restore --bump-revision` adds: it raises the revision and is not kept, so
    /// HashKV differs from that of a bumped etcd by it.)
    ///
    /// Memory does not depend on the snapshot's size but for the key index; the snapshot is only read.
    ///
    /// ```no_run
    /// use revtree::{Db, Options};
    /// let report = Db::import_etcd("snapshot.db", "store", Options::new())?;
    /// println!("{} keys at revision {}", report.keys, report.revision);
    /// let db = Db::open("store")?;
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Import`] with the offset of what is damaged, contradicts itself, or passes a limit of the
    /// store: then nothing is left at `store`. [`Error::Io`] with `AlreadyExists` when there is a file;
    /// [`Error::NoSpace`], [`Error::StoreFull`], and as [`Db::importer`].
    pub fn import_etcd(
        snapshot: impl AsRef<Path>,
        store: impl AsRef<Path>,
        options: Options,
    ) -> Result<ImportReport> {
        import_etcd(snapshot.as_ref(), store.as_ref(), options)
    }
}

/// A file that is to be restored, on the store's own disk.
struct Arrived<'s> {
    disk: &'s dyn Disk,
    path: PathBuf,
    /// What it is a copy of, when it came from another disk.
    brought: Option<Brought>,
    /// Nobody else wants it.
    is_ours: bool,
    renamed: bool,
}

/// While the store's name goes over to another file: a panic in between leaves it in doubt whose it is, and the
/// file that we have takes no more writes.
struct NameInDoubt(Option<Arc<Store>>);

impl NameInDoubt {
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for NameInDoubt {
    fn drop(&mut self) {
        if let Some(store) = &self.0 {
            let cause = std::io::Error::other("a restore was given up half-way");
            store.engine.poison(Arc::new(cause));
        }
    }
}

impl<'s> Arrived<'s> {
    /// The file itself, or a copy of it.
    fn of(shared: &'s Shared, path: &Path) -> Result<Arrived<'s>> {
        let disk = &*shared.disk;
        let (path, brought) = if Arc::ptr_eq(&shared.disk, &shared.files) {
            (path.to_path_buf(), None)
        } else {
            let copy = shared.path.with_extension("restored");
            let store_bytes_max = shared.options.store_bytes_max;
            let brought = bring(&shared.files, path, disk, &copy, store_bytes_max)?;
            (copy, Some(brought))
        };
        Ok(Arrived {
            disk,
            path,
            is_ours: brought.is_some(),
            brought,
            renamed: false,
        })
    }

    /// A file that was made for it.
    fn made(shared: &'s Shared, path: PathBuf) -> Arrived<'s> {
        Arrived {
            disk: &*shared.disk,
            path,
            brought: None,
            is_ours: true,
            renamed: false,
        }
    }

    /// Gives it the store's name; a file that it is a copy of is removed first, while nothing has changed.
    fn take_name(mut self, name: &Path) -> Result<()> {
        if let Some(brought) = &self.brought {
            brought.remove()?;
        }
        self.disk
            .rename(&self.path, name)
            .map_err(Error::on("rename the restored file"))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        // A copy that was given up.
        if self.is_ours && !self.renamed {
            let _ = self.disk.remove(&self.path);
        }
    }
}

impl Importer {
    /// Completes the store and opens it. `current` is its revision, at or above the last change's;
    /// `compacted` its compact revision, at or below that; `applied` its consistent index.
    ///
    /// The store gets its name when everything in it is durable.
    ///
    /// ```
    /// use revtree::{Applied, Db, Options, Revision};
    /// let dir = tempfile::tempdir().unwrap();
    /// let importer = Db::importer(dir.path().join("store"), Options::new())?;
    /// let applied = Applied { index: 40, term: 3 };
    /// let db = importer.finish(Revision::new(30), Some(Revision::new(20)), applied)?;
    /// assert_eq!((db.rev().get(), db.consistent_index()), (30, applied));
    /// assert_eq!(db.compact_rev(), Some(Revision::new(20)));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Import`] when the revisions do not fit; [`Error::Io`] with `AlreadyExists` when another
    /// file has got the name meanwhile; and what writing and opening can fail with. There is no store
    /// then, unless it is the opening that failed.
    pub fn finish(
        self,
        current: Revision,
        compacted: Option<Revision>,
        applied: Applied,
    ) -> Result<Db> {
        let Sealed {
            disk,
            path,
            options,
        } = self.seal(current, compacted, applied)?;
        Db::open_on(disk, &path, options.create(Create::Never))
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db")
            .field("path", &self.shared.path)
            .field("rev", &self.rev())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for WeakDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeakDb").finish_non_exhaustive()
    }
}
