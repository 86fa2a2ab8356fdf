//! What a store says about itself: [`Stats`], [`CheckReport`], [`Recovery`], [`Compaction`].

use std::sync::Arc;

use revtree_format::Revision;

use crate::engine::Found;
use crate::error::{Error, Result};
use crate::mvcc::{Passes, Reclaim, Store, check_records, record_space};
use crate::options::Progress;
use crate::sync::{AtomicU64, Ordering};
use crate::watch::WatchStats;

/// Counters and sizes of an open store.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// db.put("a", "2")?;
/// let stats = db.stats();
/// assert_eq!((stats.keys, stats.revisions, stats.commits), (1, 2, 2));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct Stats {
    /// The current revision.
    pub revision: Revision,
    /// The newest revision that a power loss cannot take back.
    pub durable_revision: Revision,
    /// The compact revision.
    pub compact_revision: Option<Revision>,
    /// Keys that exist.
    pub keys: u64,
    /// Records in the file: puts and deletes.
    pub revisions: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Bytes that the file takes on its disk.
    pub allocated_bytes: u64,
    /// Bytes of records that are needed at the compact revision and above.
    pub live_bytes: u64,
    /// Bytes of the file that are neither live nor free: superseded records, headers, pages, padding, and
    /// space allocated ahead of the log.
    pub dead_bytes: u64,
    /// Bytes in segments that are in no use.
    pub free_bytes: u64,
    /// Bytes of segments that nothing needs, and that views or shared bytes of before may still read, or another
    /// process.
    pub held_bytes: u64,
    /// Of the dead bytes, those of records that open views may still read.
    pub pinned_bytes: u64,
    /// Views, transactions and iterators that pin a revision.
    pub open_views: u64,
    /// Those of them that have ended by [`Options::view_limit`](crate::Options::view_limit), and have not been dropped:
    /// they pin no revision, but memory and what is in `held_bytes`.
    pub expired_views: u64,
    /// The oldest revision that one of the others pins.
    pub oldest_view: Option<Revision>,
    /// Byte handles into the file that `share`, events and `into_range` gave out and that are still held.
    pub shared_handles: u64,
    /// Memory of the key index in bytes.
    pub index_bytes: u64,
    /// Bytes of all side tables.
    pub table_bytes: u64,
    /// Memory of the process in RAM in bytes, mapped pages of files included.
    pub process_bytes: u64,
    /// Commits since the store was opened.
    pub commits: u64,
    /// Changes in them.
    pub changes: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Most commits that one sync made durable.
    pub group_max: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Bytes of segments that cleaning has given up since the store was opened.
    pub cleaned_bytes: u64,
    /// Bytes that it has copied for that.
    pub copied_bytes: u64,
    /// Commits that waited a moment, since garbage came faster than it was cleaned.
    pub delayed_commits: u64,
    /// Branch pages of the revision tree read, but not those read to collect this.
    pub tree_pages_read: u64,
    /// Streams of watchers.
    pub streams: u64,
    /// Watchers.
    pub watchers: u64,
    /// Watchers that have not been given all that their stream knows to be there for them.
    pub slow_watchers: u64,
    /// Events given to receivers that [`Db::report_events_received`](crate::Db::report_events_received) has not
    /// been told of yet.
    pub pending_events: u64,
    /// Events that it has been told of.
    pub events: u64,
    /// An earlier write or sync failed: the store takes no more writes.
    pub poisoned: bool,
    /// A record could not be read, or the system did not answer: sizes that need it are 0.
    pub sizes_unknown: bool,
}

impl Stats {
    /// Collects them; sizes that cannot be read are left at 0, and said to be unknown.
    pub(crate) fn of(store: &Arc<Store>, watching: &WatchStats) -> Stats {
        let engine = &store.engine;
        let counters = &engine.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let pinned = store.pins.look(engine.rev());
        let oldest_view = pinned.oldest;
        let (compact, _pin) = store.pin_compact();
        let space = record_space(store, compact);
        let mut sizes_unknown = space.is_err();
        let space = space.unwrap_or_default();
        let pinned_bytes = match (compact, oldest_view) {
            // That view may have ended meanwhile, and what it needed have gone: then it pins nothing.
            (Some(compact), Some(oldest)) if oldest < compact => record_space(store, Some(oldest))
                .map_or(0, |free_of| {
                    space.dead_bytes.saturating_sub(free_of.dead_bytes)
                }),
            _ => 0,
        };
        let allocated = engine.storage().allocated_bytes();
        let file = engine.space();
        sizes_unknown |= allocated.is_err() || file.is_err();
        let (file_bytes, free_bytes) = file.unwrap_or_default();
        let live_bytes = space.bytes - space.dead_bytes;
        Stats {
            revision: engine.rev(),
            durable_revision: engine.durable_rev(),
            compact_revision: compact,
            keys: store.index.totals().live,
            revisions: space.records,
            file_bytes,
            allocated_bytes: allocated.unwrap_or(0),
            live_bytes,
            dead_bytes: file_bytes.saturating_sub(live_bytes + free_bytes),
            free_bytes,
            held_bytes: engine.held_bytes(),
            pinned_bytes,
            open_views: pinned.pins,
            expired_views: pinned.ended,
            oldest_view,
            shared_handles: store.shared_handles(),
            index_bytes: store.index.memory_bytes(),
            table_bytes: engine.published().1.tables.bytes(),
            process_bytes: crate::sys::memory_bytes(),
            commits: count(&counters.commits),
            changes: count(&counters.changes),
            syncs: count(&counters.syncs),
            group_max: count(&counters.group_max),
            checkpoints: count(&counters.checkpoints),
            cleaned_bytes: count(&counters.cleaned_bytes),
            copied_bytes: count(&counters.copied_bytes),
            delayed_commits: count(&counters.delayed),
            tree_pages_read: engine.tree.pages_read(),
            streams: watching.streams,
            watchers: watching.watchers,
            slow_watchers: watching.slow,
            pending_events: watching.pending,
            events: watching.events,
            poisoned: engine.is_poisoned(),
            sizes_unknown,
        }
    }
}

/// What [`Db::check`](crate::Db::check) read and found.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// let report = db.check()?;
/// assert!(report.is_clean());
/// assert_eq!(report.records, 1);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CheckReport {
    /// The revision up to which was read.
    pub revision: Revision,
    /// Superblock slots that verify.
    pub superblocks: u32,
    /// Branch pages and chunks, of every checkpoint that a superblock names.
    pub pages: u64,
    /// Frames: of the log behind them, and those before that hold records.
    pub frames: u64,
    /// Leaf runs.
    pub leaves: u64,
    /// Records, each with both checksums.
    pub records: u64,
    /// Bytes of these records.
    pub record_bytes: u64,
    /// Keys that exist.
    pub keys: u64,
    /// What is wrong, with offsets. (The feature `serde` writes the sentences.)
    #[cfg_attr(feature = "serde", serde(serialize_with = "sentences"))]
    pub damage: Vec<Error>,
}

/// Errors as what they say: they hold answers of the operating system, which are no data.
#[cfg(feature = "serde")]
fn sentences<S: serde::Serializer>(damage: &[Error], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(damage.iter().map(ToString::to_string))
}

impl CheckReport {
    /// Whether nothing is wrong.
    ///
    /// ```
    /// use revtree::Db;
    /// let dir = tempfile::tempdir().unwrap();
    /// let path = dir.path().join("store");
    /// Db::open(&path)?.put("a", "value")?;
    /// let mut bytes = std::fs::read(&path).unwrap();
    /// let at = bytes.windows(5).position(|five| five == b"value").unwrap();
    /// bytes[at] ^= 1; // a medium that lost a bit
    /// std::fs::write(&path, bytes).unwrap();
    /// let report = Db::open(&path)?.check()?;
    /// assert!(!report.is_clean());
    /// assert_eq!(report.damage.len(), 1);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }

    pub(crate) fn of(store: &Arc<Store>) -> Result<CheckReport> {
        store.check_open()?;
        // What a superblock names when it is read stays until the check is over.
        let _pin = store.pins.pin(store.engine.rev());
        let structure = store.engine.check_structure()?;
        let records = check_records(store, structure.checkpointed)?;
        let mut damage = structure.damage;
        damage.extend(records.damage);
        Ok(CheckReport {
            revision: store.engine.rev(),
            superblocks: structure.superblocks,
            pages: structure.pages,
            frames: structure.frames + records.frames,
            leaves: records.leaves,
            records: records.records,
            record_bytes: records.bytes,
            keys: records.keys,
            damage,
        })
    }
}

/// What [`Db::reclaim`](crate::Db::reclaim) did.
///
/// ```
/// let db = revtree::Options::new().segment_bytes(64 << 10).open_in_memory()?;
/// for _ in 0..400 {
///     db.put("a", [0; 1000])?;
/// }
/// db.compact(db.rev())?;
/// let view = db.read()?;
/// assert!(db.reclaim()?.held_bytes > 0); // the view may still read there
/// drop(view);
/// let reclaimed = db.reclaim()?;
/// assert!(reclaimed.freed_bytes > 0 && reclaimed.held_bytes == 0);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Reclaimed {
    /// Bytes of segments that are free now, or have been cut off.
    pub freed_bytes: u64,
    /// Bytes of segments that nothing needs, and that views or shared bytes of before may still read, or another
    /// process: a later call frees them, and the next open.
    pub held_bytes: u64,
    /// Bytes that were written for it: what was live in these segments.
    pub copied_bytes: u64,
    /// What is damaged in segments that were left as they are. (The feature `serde` writes the sentences.)
    #[cfg_attr(feature = "serde", serde(serialize_with = "sentences"))]
    pub damage: Vec<Error>,
}

impl Reclaimed {
    pub(crate) fn of(done: Reclaim) -> Reclaimed {
        let Reclaim {
            freed_bytes,
            held_bytes,
            copied_bytes,
            damage,
        } = done;
        Reclaimed {
            freed_bytes,
            held_bytes,
            copied_bytes,
            damage,
        }
    }
}

/// What open found.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// assert!(db.recovery().clean);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Recovery {
    /// The store was closed properly: nothing had to be replayed.
    pub clean: bool,
    /// The file was created by this open.
    pub created: bool,
    /// The revision found.
    pub revision: Revision,
    /// Frames of the log that were replayed.
    pub frames_replayed: u64,
    /// Bytes of whole frames that belong to a transaction without its end, or are not known durable.
    pub bytes_dropped: u64,
    /// Superblock slots that did not verify, of four.
    pub superblocks_bad: u32,
}

impl Recovery {
    pub(crate) fn of(found: &Found, revision: Revision) -> Recovery {
        Recovery {
            clean: found.clean,
            created: found.created,
            revision,
            frames_replayed: found.frames,
            bytes_dropped: found.bytes_dropped,
            superblocks_bad: found.superblocks_bad,
        }
    }
}

/// The background work of compactions up to one revision: their hashes, and the cleaning of what is dead then. Dropping
/// it stops nothing, and nothing that can be read depends on it.
///
/// It is done when the cleaner's thread has done all that it could: what views or another process hold back is left
/// for later. With [`Cleaner::Manual`](crate::Cleaner::Manual) there is nothing to wait for.
///
/// ```
/// use revtree::Outcome;
/// let db = revtree::Options::new().open_in_memory()?;
/// assert_eq!(db.compaction().wait(), Outcome::Done); // nothing is queued
/// db.put("a", "1")?;
/// assert_eq!(db.compact(2)?.wait(), Outcome::Done);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Compaction {
    revision: Option<Revision>,
    passes: Option<Passes>,
}

impl Compaction {
    pub(crate) fn of(revision: Option<Revision>, passes: Option<Passes>) -> Compaction {
        Compaction { revision, passes }
    }

    /// The revision up to which it goes; `None`: there was no compaction.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// assert_eq!(db.compaction().revision(), None); // never compacted
    /// let rev = db.put("a", "1")?;
    /// assert_eq!(db.compact(rev)?.revision(), Some(rev));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// How far it is: bytes that the cleaner has given back since it began, and those that it knows to be dead.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let compaction = db.compact(2)?;
    /// compaction.wait();
    /// let progress = compaction.progress();
    /// assert_eq!((progress.what, Some(progress.done)), ("compaction", progress.total)); // all is done
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn progress(&self) -> Progress {
        let pending = self.pending();
        let (done, all) = pending.map_or((0, 0), |(passes, rev)| {
            passes.progress(rev).unwrap_or_default()
        });
        Progress {
            what: "compaction",
            done,
            total: Some(all),
        }
    }

    /// Waits for its end.
    ///
    /// ```
    /// use revtree::Outcome;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let compaction = db.compact(2)?;
    /// let waiting = std::thread::spawn(move || compaction.wait());
    /// assert_eq!(waiting.join().unwrap(), Outcome::Done);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn wait(&self) -> Outcome {
        match self.pending() {
            Some((passes, rev)) if !passes.wait_for(rev) => Outcome::Interrupted,
            _ => Outcome::Done,
        }
    }

    fn pending(&self) -> Option<(&Passes, Revision)> {
        self.passes.as_ref().zip(self.revision)
    }
}

/// How the work of a compaction ended.
///
/// ```
/// use revtree::Outcome;
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// let outcome = db.compact(2)?.wait();
/// assert!(matches!(outcome, Outcome::Done | Outcome::Superseded)); // nothing is left to do
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Outcome {
    /// All of it was done.
    Done,
    /// The store was closed or replaced; the next open goes on.
    Interrupted,
    /// A later compaction took it over.
    Superseded,
}
