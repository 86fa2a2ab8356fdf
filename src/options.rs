//! How a store is opened, and the small public types of durability and position.

mod cleaner;
mod retain;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revtree_format::Revision;
use revtree_format::limits::{
    SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, STORE_BYTES_MAX,
};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::lessor::Lessor;
use crate::sys::{Disk, MemoryDisk, RealDisk};

pub use cleaner::{Cleaner, CleanerOptions};
pub use retain::Retain;

/// What survives when `commit` returns.
///
/// ```
/// use revtree::{Durability, Options};
/// use std::time::Duration;
/// let db = Options::new()
///     .durability(Durability::Batched { changes: 10_000, interval: Duration::from_millis(100) })
///     .open_in_memory()?;
/// db.put("a", "1")?; // visible at once, durable within 100 ms
/// db.sync()?; // durable now
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Durability {
    /// A power loss: `commit` returns after one fdatasync, shared by all threads that commit meanwhile.
    Sync,
    /// A kill of the process: `commit` returns after the write.
    Flushed,
    /// Nothing yet; a crash or kill keeps a prefix of the commits, as etcd's store does.
    Batched {
        /// A sync is begun after so many changes.
        changes: u32,
        /// And at the latest this long after a change.
        interval: Duration,
    },
}

/// How reads reach the file.
///
/// ```
/// use revtree::{Options, ReadMode};
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("store");
/// let db = Options::new().segment_bytes(64 << 10).open(&path)?;
/// db.put("a", "1")?;
/// db.put("b", vec![0; 64 << 10])?; // fills the last segment, which is in memory in either mode
/// db.close()?;
/// for (mode, handles) in [(ReadMode::Map, 1), (ReadMode::Pread, 0)] {
///     let db = Options::new().read_mode(mode).open(&path)?;
///     let shared = db.read()?.get("a")?.unwrap().share(); // bytes of the map, or of a buffer
///     assert_eq!((&shared.value[..], db.stats().shared_handles), (&b"1"[..], handles));
/// }
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ReadMode {
    /// Through a memory map: values are borrowed.
    ///
    /// Two things end the process with `SIGBUS` when it reads: a page that the medium cannot read, and a file that
    /// somebody else has cut. Neither can be prevented or caught here. Then the file is as it was left, the end of
    /// the process is that of a kill, and the next open finds what was acknowledged, or says what is missing. Who
    /// writes into the file of an open store can change what a borrowed value shows, with no signal at all: the
    /// file's permissions and locks are all that stands in the way. A store that is open for reading only is read by
    /// position in either mode.
    #[default]
    Map,
    /// By positioned reads into buffers: for media that fail, where a map would end the process. Here a read that
    /// fails, a cut file and changed bytes are an error of that read.
    Pread,
}

/// Whether opening may create the store.
///
/// ```
/// use revtree::{Create, Options};
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("store");
/// assert!(Options::new().create(Create::Never).open(&path).is_err()); // there is none
/// Options::new().create(Create::New).open(&path)?.put("a", "1")?;
/// assert!(Options::new().create(Create::New).open(&path).is_err()); // there is one
/// assert_eq!(Options::new().create(Create::IfMissing).open(&path)?.rev().get(), 2);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Create {
    /// When there is no file.
    #[default]
    IfMissing,
    /// Not: a missing file is an error.
    Never,
    /// Always: a file that exists is an error.
    New,
}

/// Raft's position: the log entry applied last and its term; 0, 0 before any.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// assert_eq!(db.consistent_index(), revtree::Applied::default());
/// db.raise_consistent_index(7)?;
/// assert_eq!(db.consistent_index().index, 7);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Applied {
    /// The consistent index.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
}

/// How far a long operation is.
///
/// ```
/// use revtree::Progress;
/// fn percent(progress: Progress) -> Option<u64> {
///     let total = progress.total.filter(|total| *total > 0)?; // often not known before the end
///     Some(progress.done * 100 / total)
/// }
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// assert_eq!(percent(db.compact(2)?.progress()), None); // nothing to do
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Progress {
    /// Which operation.
    pub what: &'static str,
    /// Units done: bytes or records, as `what` says.
    pub done: u64,
    /// Units in all, when known.
    pub total: Option<u64>,
}

/// A function that is told about progress.
pub(crate) type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// How to open a store. Each setter says its default.
///
/// ```
/// use revtree::{Create, Durability, Options};
/// let dir = tempfile::tempdir().unwrap();
/// let db = Options::new().create(Create::New).durability(Durability::Sync).open(dir.path().join("s"))?;
/// assert_eq!(db.rev().get(), 1);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) read_only: bool,
    pub(crate) create: Create,
    pub(crate) durability: Durability,
    /// `None`: there are no leases to be told of.
    pub(crate) lessor: Option<Arc<dyn Lessor>>,
    pub(crate) read_mode: ReadMode,
    pub(crate) segment_bytes: u64,
    pub(crate) store_bytes_max: u64,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) expect_at_least: Revision,
    pub(crate) progress: Option<ProgressFn>,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    /// The id that a store gets which is created, and how often it counts as opened; `None`: an id of its own.
    pub(crate) identity: Option<([u8; 16], u32)>,
    pub(crate) cleaner: Cleaner,
    pub(crate) retain: Retain,
    /// `None`: views do not end.
    pub(crate) view_limit: Option<u64>,
    /// Whether the store may start threads: for the timer of `Batched`, and for the cleaner.
    pub(crate) threads: bool,
}

/// Address space reserved, and so the largest store, unless the options say otherwise.
const STORE_BYTES_DEFAULT: u64 = 1 << 40;
/// A smaller limit would leave no room for a single commit.
const STORE_BYTES_MIN: u64 = 64 << 10;
/// Log between two checkpoints, unless the options say otherwise.
pub(crate) const CHECKPOINT_BYTES_DEFAULT: u64 = 64 << 20;

impl Options {
    /// The defaults: create if missing, `Sync`, no lessor, memory map, 4 MiB segments, at most 1 TiB.
    ///
    /// ```
    /// use revtree::Options;
    /// let db = Options::new().open_in_memory()?;
    /// assert_eq!(db.put("a", "1")?, db.durable_rev()); // `Sync`: durable when `put` returns
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn new() -> Options {
        Options {
            read_only: false,
            create: Create::default(),
            durability: Durability::Sync,
            lessor: None,
            read_mode: ReadMode::default(),
            segment_bytes: SEGMENT_BYTES_DEFAULT.into(),
            store_bytes_max: STORE_BYTES_DEFAULT,
            checkpoint_bytes: CHECKPOINT_BYTES_DEFAULT,
            expect_at_least: Revision::default(),
            progress: None,
            disk: None,
            identity: None,
            cleaner: Cleaner::default(),
            retain: Retain::default(),
            view_limit: None,
            threads: true,
        }
    }

    /// Opens for reading only, also beside a live writer: no byte is written. As long as the handle or
    /// anything read through it is held, a shared lock keeps the writer from using space again.
    ///
    /// It shows what is known to be durable. Of a store whose writer died without a close that may be less
    /// than the last acknowledged commit: nothing in the file tells whether the last group was synced, and
    /// only an open for writing can make it so. Nothing is lost; that open finds all of it.
    ///
    /// ```
    /// use revtree::{Db, Error, Options};
    /// let dir = tempfile::tempdir().unwrap();
    /// let writer = Db::open(dir.path().join("store"))?;
    /// writer.put("a", "1")?;
    /// let reader = Options::new().read_only().open(dir.path().join("store"))?;
    /// assert_eq!(reader.get("a")?.unwrap().value, "1");
    /// assert!(matches!(reader.put("a", "2"), Err(Error::ReadOnly)));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Whether the store may be created. Default: [`Create::IfMissing`].
    ///
    /// ```
    /// use revtree::{Create, Error, Options};
    /// let dir = tempfile::tempdir().unwrap();
    /// let missing = Options::new().create(Create::Never).open(dir.path().join("store"));
    /// let not_found = std::io::ErrorKind::NotFound;
    /// assert!(matches!(missing, Err(Error::Io { cause, .. }) if cause.kind() == not_found));
    /// ```
    #[must_use]
    pub fn create(mut self, create: Create) -> Self {
        self.create = create;
        self
    }

    /// What survives when `commit` returns. Default: [`Durability::Sync`].
    ///
    /// ```
    /// use revtree::{Durability, Options};
    /// let db = Options::new().durability(Durability::Flushed).open_in_memory()?;
    /// db.put("a", "1")?;
    /// assert!(db.durable_rev() < db.rev()); // a kill of the process keeps it, a power loss need not
    /// db.sync()?;
    /// assert_eq!(db.durable_rev(), db.rev());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Who is told about leases. Default: [`NoLessor`](crate::NoLessor).
    ///
    /// ```
    /// use revtree::{Error, LeaseId, Lessor, Options};
    /// struct NoneGranted;
    /// impl Lessor for NoneGranted {
    ///     fn exists(&self, _: LeaseId) -> bool {
    ///         false
    ///     }
    /// }
    /// let db = Options::new().lessor(std::sync::Arc::new(NoneGranted)).open_in_memory()?;
    /// let refused = db.write()?.put_with_lease("a", "1", LeaseId(7));
    /// assert!(matches!(refused, Err(Error::LeaseNotFound(LeaseId(7)))));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn lessor(mut self, lessor: Arc<dyn Lessor>) -> Self {
        self.lessor = Some(lessor);
        self
    }

    /// How reads reach the file. Default: [`ReadMode::Map`].
    ///
    /// ```
    /// use revtree::{Options, ReadMode};
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = Options::new().read_mode(ReadMode::Pread).open(dir.path().join("store"))?;
    /// db.put("a", "1")?;
    /// assert_eq!(db.read()?.get("a")?.unwrap().value(), b"1");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// Size of a segment of a store that is created, in bytes: a power of two, 64 KiB to 64 MiB, else
    /// opening fails with [`Error::LimitReached`]. Default: 4 MiB.
    ///
    /// ```
    /// use revtree::{Error, Options};
    /// let db = Options::new().segment_bytes(64 << 10).open_in_memory()?;
    /// assert!(db.stats().file_bytes < 4 << 20);
    /// let odd = Options::new().segment_bytes(100_000).open_in_memory();
    /// assert!(matches!(odd, Err(Error::LimitReached { .. }))); // not a power of two
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// How large the file may become by writing, in bytes; beyond it writes fail with
    /// [`Error::StoreFull`]. Compactions, checkpoints, a close and recovery still work then, and may need an
    /// eighth more, at least eight segments, and up to 32 MiB. Default: 1 TiB; 64 KiB to 16 TiB, else opening fails
    /// with [`Error::LimitReached`].
    ///
    /// ```
    /// use revtree::{Error, Options};
    /// let db = Options::new().segment_bytes(64 << 10).store_bytes_max(1 << 20).open_in_memory()?;
    /// let full = db.put("a", vec![0; 1 << 20]);
    /// assert!(matches!(full, Err(Error::StoreFull { max, .. }) if max == 1 << 20));
    /// assert_eq!(db.rev().get(), 1); // nothing was written
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn store_bytes_max(mut self, bytes: u64) -> Self {
        self.store_bytes_max = bytes;
        self
    }

    /// How many bytes of log may be written before a checkpoint, which bounds the work of the next
    /// open after a crash. Default: 64 MiB.
    ///
    /// ```
    /// use revtree::Options;
    /// let (often, rarely) = (Options::new().checkpoint_bytes(1), Options::new());
    /// let (often, rarely) = (often.open_in_memory()?, rarely.open_in_memory()?);
    /// for value in ["1", "2"] {
    ///     often.put("a", value)?;
    ///     rarely.put("a", value)?;
    /// }
    /// assert!(often.stats().checkpoints > rarely.stats().checkpoints);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = bytes.max(1);
        self
    }

    /// Who frees the space of what compactions leave behind. Default: a thread of the store, see
    /// [`CleanerOptions::new`].
    ///
    /// ```
    /// use revtree::{Cleaner, Options};
    /// let db = Options::new().cleaner(Cleaner::Manual).segment_bytes(64 << 10).open_in_memory()?;
    /// for _ in 0..400 {
    ///     db.put("a", [0; 1000])?;
    /// }
    /// let before = db.stats().file_bytes;
    /// db.compact(db.rev())?;
    /// assert_eq!(db.stats().file_bytes, before); // nobody has asked for the space
    /// assert!(db.reclaim()?.freed_bytes > 0);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn cleaner(mut self, cleaner: Cleaner) -> Self {
        self.cleaner = cleaner;
        self
    }

    /// Which history is kept, by compactions that the store makes of its own accord. Default: [`Retain::All`].
    ///
    /// ```
    /// use revtree::{Options, Retain};
    /// let db = Options::new().retain(Retain::Revisions(10_000)).open_in_memory()?;
    /// let old = db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// assert_eq!(db.read_at(old)?.get("a")?.unwrap().value(), b"1"); // one of the last 10,000
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn retain(mut self, policy: Retain) -> Self {
        self.retain = policy;
        self
    }

    /// How far the store may go on beyond a view, in revisions: a [`ReadView`](crate::ReadView) reads as long as no more
    /// revisions than this have been made since it was opened, whatever revision it reads. Then each of its reads ends
    /// with [`Error::ViewExpired`], and what only it needed can be cleaned away; bytes that it has lent stay as they
    /// are. Default: none, a view that is forgotten keeps the space of all that was live when it was opened.
    ///
    /// Side tables of a view can be read for ever. Transactions, snapshots, watchers, hashes and checks do not end by
    /// this.
    ///
    /// ```
    /// use revtree::{Error, Options};
    /// let db = Options::new().view_limit(1).open_in_memory()?;
    /// db.put("a", "1")?;
    /// let view = db.read()?;
    /// db.put("a", "2")?;
    /// assert_eq!(view.get("a")?.unwrap().value(), b"1");
    /// db.put("a", "3")?;
    /// assert!(matches!(view.get("a"), Err(Error::ViewExpired { revision }) if revision == view.rev()));
    /// assert_eq!(db.read_at(view.rev())?.get("a")?.unwrap().value(), b"1"); // history is still there
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn view_limit(mut self, revisions: u64) -> Self {
        self.view_limit = Some(revisions);
        self
    }

    /// Fails with [`Error::RolledBack`] when the store is older than this, before its file is changed, or
    /// created. Default: any revision.
    ///
    /// ```
    /// use revtree::{Db, Error, Options};
    /// let dir = tempfile::tempdir().unwrap();
    /// let path = dir.path().join("store"); // an old backup, say
    /// let told = Db::open(&path)?.put("a", "1")?;
    /// assert!(Options::new().expect_at_least(told).open(&path).is_ok());
    /// let old = Options::new().expect_at_least(told.next()).open(&path);
    /// assert!(matches!(old, Err(Error::RolledBack { found, .. }) if found == told));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn expect_at_least(mut self, rev: impl Into<Revision>) -> Self {
        self.expect_at_least = rev.into();
        self
    }

    /// Is called now and then while recovery, loading or an import goes on, from the thread that does it.
    /// It must not write to a store: that is refused with [`Error::InCallback`].
    ///
    /// ```
    /// use revtree::{Db, Options};
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}};
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = Db::open(dir.path().join("store"))?;
    /// db.put("a", "1")?;
    /// std::fs::copy(dir.path().join("store"), dir.path().join("copy")).unwrap(); // as a crash leaves it
    /// let records = Arc::new(AtomicU64::new(0));
    /// let told = records.clone();
    /// let options = Options::new().on_progress(move |progress| told.store(progress.done, Relaxed));
    /// options.open(dir.path().join("copy"))?; // reads all records, for its index
    /// assert_eq!(records.load(Relaxed), 1);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn on_progress(mut self, f: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(f));
        self
    }

    /// Where files live: for tests on a simulated disk. No thread is started then. Snapshots are saved
    /// there, and restored from there.
    ///
    /// ```
    /// use revtree::{Options, storage::MemoryDisk};
    /// let disk = std::sync::Arc::new(MemoryDisk::new());
    /// Options::new().disk(disk.clone()).open("store")?.put("a", "1")?;
    /// let again = Options::new().disk(disk).open("store")?;
    /// assert_eq!(again.get("a")?.unwrap().value, "1");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[cfg(feature = "unstable-storage")]
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        // Shuttle's threads do not spoil that: they are as much a part of a schedule as all others.
        self.threads = cfg!(shuttle);
        self.cleaner = Cleaner::Manual;
        self
    }

    /// Opens the store at `path`.
    ///
    /// ```
    /// use revtree::{Error, Options};
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = Options::new().open(dir.path().join("store"))?;
    /// let second = Options::new().open(dir.path().join("store"));
    /// assert!(matches!(second, Err(Error::Locked { by_this_process: true, .. })));
    /// db.close()?;
    /// assert!(Options::new().open(dir.path().join("store")).is_ok());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Locked`] when it is open for writing already, [`Error::NotAStore`],
    /// [`Error::FormatTooNew`], [`Error::Corrupt`] and [`Error::RolledBack`] by what the file holds,
    /// [`Error::ReadOnly`] when it lies on a read-only medium and is opened to be written,
    /// [`Error::LimitReached`] by a size among the options, [`Error::Io`] with the operating system's
    /// answer: `NotFound` and `AlreadyExists` by [`Create`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        Db::open_on(self.files(), path.as_ref(), self)
    }

    /// Opens an empty store in memory, with the same code: for the tests of its users.
    ///
    /// The paths that it is given later are those of files: [`Snapshot::save`](crate::Snapshot::save)
    /// makes a file, and [`Db::restore`] reads one.
    ///
    /// ```
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.snapshot()?.save(dir.path().join("saved"))?;
    /// assert_eq!(revtree::Db::open(dir.path().join("saved"))?.get("a")?.unwrap().value, "1");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] and [`Error::Io`] when address space cannot be had, and
    /// [`Error::LimitReached`] by a size among the options.
    pub fn open_in_memory(mut self) -> Result<Db> {
        self.check()?;
        self.create = Create::IfMissing;
        self.store_bytes_max = self.store_bytes_max.min(MEMORY_BYTES_MAX);
        let disk = Arc::new(MemoryDisk::new());
        Db::open_beside(disk, Path::new("memory"), self.files(), self)
    }

    /// Where files live; also those that a store in memory saves and restores.
    pub(crate) fn files(&self) -> Arc<dyn Disk> {
        self.disk.clone().unwrap_or_else(|| Arc::new(RealDisk))
    }

    /// Checks what the setters were given.
    pub(crate) fn check(&self) -> Result<u32> {
        let invalid = |what, max| Err(Error::LimitReached { what, max });
        let segment_bytes = u32::try_from(self.segment_bytes).unwrap_or(0);
        if !segment_bytes.is_power_of_two()
            || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
        {
            return invalid(
                "segment size (a power of two from 64 KiB)",
                SEGMENT_BYTES_MAX.into(),
            );
        }
        if !(STORE_BYTES_MIN..=STORE_BYTES_MAX).contains(&self.store_bytes_max) {
            return invalid("store size (at least 64 KiB)", STORE_BYTES_MAX);
        }
        Ok(segment_bytes)
    }
}

/// Address space of a store in memory.
const MEMORY_BYTES_MAX: u64 = 64 << 30;

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("read_only", &self.read_only)
            .field("create", &self.create)
            .field("durability", &self.durability)
            .field("read_mode", &self.read_mode)
            .field("segment_bytes", &self.segment_bytes)
            .field("store_bytes_max", &self.store_bytes_max)
            .field("retain", &self.retain)
            .finish_non_exhaustive()
    }
}
