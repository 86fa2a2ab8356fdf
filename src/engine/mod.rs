//! One open database: the commit pipeline, group commit, checkpoints, open and close.
//!
//! The engine moves records, control items and pages; which record supersedes which, and what a reader
//! may see of them, is decided above, in `mvcc`. Two things come down from there through traits defined
//! here: [`IndexRun`] (the key index as it goes into the file), [`Relocate`] (which records stay, and where they are
//! now).
//!
//! Locks, outermost first: the checkpoint lock, the append lock, the sync state. Whoever syncs the file
//! holds a lock of its own for as long, and takes no other. None is taken by a reader.

#![expect(
    clippy::disallowed_types,
    reason = "the locks of writers, syncs and checkpoints"
)]

mod bring;
mod check;
mod checkpoint;
mod clean;
mod commit;
mod copy;
mod framing;
mod gate;
mod group;
#[cfg(all(test, loom))]
mod loom;
mod open;
mod pages;
mod published;
mod state;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use revtree_format::{IndexLeaf, Revision, Superblock};

pub(crate) use bring::{Brought, bring};
pub(crate) use clean::{Cleaned, Relocate, Round};
pub(crate) use commit::{Appender, Ticket};
pub(crate) use framing::FrameCheck;
pub(crate) use open::{Config, Found, WriterLock};
pub(crate) use pages::{write_segments, write_tables};
pub(crate) use state::{State, TableMap, Tables};
pub(crate) use worker::{Awaited, Background, Waiting, Worker};

use gate::Gate;
use group::Group;
use published::Published;

pub(crate) use crate::pager::{DeadInUnit, DeadRecords, Held, Room};
pub(crate) use crate::sync::lock;

use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::options::Durability;
use crate::pager::{Log, Medium, ShownDead};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::sys::{LockByte, Stopwatch, Storage};
use crate::trace;
use crate::tree::{Spine, Tail, Tree};

/// The key index as it goes into the file at a clean close.
pub(crate) trait IndexRun {
    /// Gives every leaf in key order.
    fn dump(&self, visit: &mut dyn FnMut(&IndexLeaf) -> Result<()>) -> Result<()>;
}

/// Who is told that a sync has made revisions visible; called without a lock of the engine.
pub(crate) trait Audience: Send + Sync + std::fmt::Debug {
    /// Readers see up to `rev` now.
    fn published(&self, rev: Revision);
}

/// An open store file with its log and tree.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) medium: Arc<Medium>,
    pub(crate) tree: Tree,
    pub(crate) path: PathBuf,
    pub(crate) durability: Durability,
    pub(crate) read_only: bool,
    /// Writable opens so far, this one included.
    pub(crate) opens: u32,
    /// `None` for a store opened for reading only.
    append: Option<Mutex<Append>>,
    /// Retired when another file has taken the place of this one, or it is being closed: no more checkpoints
    /// but the close's own.
    checkpoint: Gate<Checkpoint>,
    group: Group,
    /// Held by whoever syncs the file.
    syncing: Mutex<()>,
    published: Published,
    pub(crate) audience: OnceLock<Arc<dyn Audience>>,
    durable_rev: AtomicU64,
    poison: OnceLock<Arc<io::Error>>,
    closed: AtomicBool,
    pub(crate) counters: Counters,
    pub(crate) metrics: Metrics,
    pub(crate) checkpoint_bytes: u64,
    /// What the writing end knows to be dead, as it shows it to readers.
    dead: Option<Arc<ShownDead>>,
    /// Bytes of the segments in no use, as a reader has found them.
    free_bytes: u64,
    _lock: Option<open::WriterLock>,
}

/// The writing end: behind the append lock.
#[derive(Debug)]
struct Append {
    log: Log,
    tail: Arc<Tail>,
    /// What the newest accepted commit left.
    accepted: State,
    /// Sequence number of the frame that holds the newest commit.
    accepted_sequence: u64,
    /// Commits accepted since the open, and how many of them have been published.
    accepted_count: u64,
    published_count: u64,
    /// Sequence number of the frame that holds the newest commit which must be durable to be seen; 0
    /// when none is waited for.
    sync_sequence: u64,
    /// Changes since the last sync, for `Batched`.
    unsynced_changes: u64,
    /// `Log::appended` when the newest checkpoint was begun, and the pages that it has added since.
    checkpointed: u64,
    /// An append failed half-way: the log's end is not known.
    torn: bool,
    /// Leaves before those of `tail` that no checkpoint has adopted.
    frozen: usize,
    /// The tables as the newest checkpoint has them.
    tables: Tables,
}

impl Append {
    /// The log's space is asked for: for pieces of these lengths, of which so many bytes are rows of side tables,
    /// and what upkeep needs behind them.
    fn reserve(
        &mut self,
        pieces: impl Iterator<Item = usize>,
        table_bytes: u64,
        room: Room,
    ) -> Result<()> {
        let wanted = self.log.wanted(pieces);
        let pages = self.pages(&wanted, table_bytes);
        self.log.reserve(wanted, room, pages)
    }
}

/// What the next checkpoint builds on: behind the checkpoint lock.
#[derive(Debug)]
struct Checkpoint {
    superblock: Superblock,
    spine: Spine,
    /// The tables as the newest checkpoint has them.
    tables: Tables,
}

/// What tests and `stats` count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) syncs: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) changes: AtomicU64,
    pub(crate) group_max: AtomicU64,
    /// Bytes of segments that cleaning has given up, and bytes that it has copied for that.
    pub(crate) cleaned_bytes: AtomicU64,
    pub(crate) copied_bytes: AtomicU64,
    /// Commits that waited for the cleaner.
    pub(crate) delayed: AtomicU64,
    /// `commits` when the newest group was sealed.
    grouped: AtomicU64,
}

impl Engine {
    /// The revision that readers see, with what belongs to it.
    pub(crate) fn published(&self) -> (Revision, Arc<State>) {
        self.published.both()
    }

    /// The revision that readers see.
    pub(crate) fn rev(&self) -> Revision {
        self.published.rev()
    }

    /// The newest revision that a power loss cannot take back.
    pub(crate) fn durable_rev(&self) -> Revision {
        Revision::new(self.durable_rev.load(Ordering::Acquire))
    }

    /// The compact revision that readers see.
    pub(crate) fn compact_rev(&self) -> Option<Revision> {
        self.published.compact_rev()
    }

    /// The newest accepted state, which the next transaction builds on.
    pub(crate) fn accepted(&self) -> Result<State> {
        Ok(self.append()?.accepted.clone())
    }

    /// Shows the newest accepted revision while nothing is appended.
    pub(crate) fn between_commits<R>(&self, look: impl FnOnce(Revision) -> R) -> R {
        match self.append() {
            Ok(append) => look(append.accepted.rev),
            // Nothing is appended any more.
            Err(_) => look(self.rev()),
        }
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.medium.storage
    }

    /// Why writes are refused, if they are.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned {
                cause: Arc::clone(cause),
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poison.get().is_some()
    }

    /// The content has been replaced, and nobody will open this file again; or it is being closed. A
    /// checkpoint that is being written is waited for, and none is begun in passing; what was accepted can
    /// still be synced, for those who wait for it.
    pub(crate) fn retire(&self) {
        self.checkpoint.retire();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.checkpoint.is_retired()
    }

    /// Bytes of the file, and of it bytes in free segments.
    pub(crate) fn space(&self) -> io::Result<(u64, u64)> {
        let append = self.append.as_ref();
        let free_bytes = append.map_or(self.free_bytes, |append| {
            lock(append).log.space().free_bytes()
        });
        Ok((self.medium.storage.len()?, free_bytes))
    }

    /// What is so from the open on, and after a checkpoint.
    fn tell_metrics(&self) {
        let (rev, state) = self.published();
        self.metrics.published(rev, state.compact);
        if cfg!(feature = "metrics")
            && let Ok((file_bytes, free_bytes)) = self.space()
        {
            self.metrics.space(file_bytes, free_bytes);
        }
    }

    /// No more writes: what is on disk is no longer known. Reads go on. The first cause stays.
    pub(crate) fn poison(&self, cause: Arc<io::Error>) {
        let told = Arc::clone(&cause);
        if self.poison.set(cause).is_ok() {
            trace::poisoned(&told);
        }
        // Reader processes no longer take our word for what is durable.
        let _ = self.medium.storage.unlock_byte(LockByte::WriterAlive);
    }

    /// Syncs the file, one caller after the other. The system tells of a page that it could not write
    /// once, to whoever asks first: a sync that overlaps a failed one, or follows it, may say yes to bytes
    /// that are lost. So a failed one poisons before another begins, and none is begun then.
    fn sync_file(&self) -> Result<()> {
        let _alone = self.lock_whole(&self.syncing)?;
        if let Some(cause) = self.poison.get() {
            let cause = Arc::clone(cause);
            return Err(Error::Poisoned { cause });
        }
        let time = Stopwatch::start();
        let synced = self.storage().sync_data();
        trace::synced(&time);
        synced.map_err(|error| {
            let cause = Arc::new(error);
            self.poison(Arc::clone(&cause));
            Error::Io {
                what: "sync",
                cause,
            }
        })
    }

    fn append(&self) -> Result<MutexGuard<'_, Append>> {
        match &self.append {
            Some(append) => self.lock_whole(append),
            None => Err(Error::ReadOnly),
        }
    }

    /// Locks what guards the file's next bytes. After a panic under such a lock they are not known, as after a
    /// failed write: it poisons, too.
    fn lock_whole<'m, T>(&self, mutex: &'m Mutex<T>) -> Result<MutexGuard<'m, T>> {
        mutex.lock().map_err(|_panicked| self.given_up())
    }

    /// Poisons because somebody panicked in the middle of a write.
    fn given_up(&self) -> Error {
        let cause = Arc::new(io::Error::other("a write was given up half-way"));
        self.poison(Arc::clone(&cause));
        Error::Poisoned {
            cause: self.poison.get().map_or(cause, Arc::clone),
        }
    }
}
