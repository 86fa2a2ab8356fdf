//! etcd's MVCC store as an embeddable crate, on its own storage engine.
//!
//! A store is one file. Every change gets a revision, any retained revision can be read, ranges and
//! transactions are atomic, changes can be watched. [`Db`] is the door; [`Options`] opens it.
//!
//! ```
//! use revtree::{Db, Options};
//!
//! let db = Options::new().open_in_memory()?; // in a file: Db::open("config.rvt")?
//! let red = db.put("color", "red")?;
//! db.put("color", "blue")?;
//! assert_eq!(db.get("color")?.unwrap().value, "blue");
//! assert_eq!(db.read_at(red)?.get("color")?.unwrap().value(), b"red");
//! # Ok::<(), revtree::Error>(())
//! ```
//!
//! # Features
//!
//! None is on by default, and none changes what the store does. Signatures name `bytes` and no other
//! crate; what a feature brings are implementations of traits, and calls of a facade.
//!
//! | feature | what it adds |
//! |---|---|
//! | `serde` | `Serialize` and `Deserialize` for all that is plain data, see below |
//! | `metrics` | etcd's counters, gauges and times through the crate `metrics`, see below |
//! | `tracing` | spans and events through the crate `tracing`: `open`, `checkpoint`, `compact`, `save`, `restore`, `close`; what a recovery replayed, damaged superblocks, poisoning, syncs of a second or more. Nothing on a get or a put |
//! | `unstable-storage` | the module `storage`: storage of one's own, and the simulated disk of the crash tests. Not covered by the promise of stability |
//!
//! ## Plain data
//!
//! * Plain numbers: [`Revision`], [`LeaseId`], [`WatchId`]; and of them [`ChangeId`], [`Applied`].
//! * With keys and values as byte strings: [`KeyValue`], [`Event`], [`EventKind`], [`Prev`],
//!   [`RangeResult`], [`KeyRange`].
//! * Answers and reports: [`Commit`], [`Deleted`], [`Hash`](struct@Hash), [`HashKv`], [`Stats`] (a
//!   field that is missing is read as 0), [`Recovery`], [`ImportReport`].
//! * Choices: [`Cleaner`], [`CleanerOptions`], [`Durability`], [`ReadMode`], [`Create`], [`Outcome`], [`ErrorKind`].
//! * [`CheckReport`], [`Reclaimed`] and [`Progress`] go out only.
//!
//! Names are those of fields and variants. Handles, what borrows from one, and [`Error`] are no data.
//!
//! ## Metrics
//!
//! The recorder has to be installed before the store is opened, which asks it for its handles once: a get
//! costs one call through a handle then and allocates nothing. Names are etcd's:
//!
//! * counters `etcd_mvcc_range_total`, `etcd_mvcc_put_total`, `etcd_mvcc_delete_total`,
//!   `etcd_mvcc_txn_total` (transactions of more than one put or delete), `etcd_debugging_mvcc_events_total`;
//! * gauges `etcd_debugging_mvcc_keys_total`, `etcd_debugging_mvcc_current_revision`,
//!   `etcd_debugging_mvcc_compact_revision`, `etcd_debugging_mvcc_watch_stream_total`,
//!   `etcd_debugging_mvcc_watcher_total`, `etcd_debugging_mvcc_slow_watcher_total`,
//!   `etcd_debugging_mvcc_pending_events_total`, `etcd_debugging_mvcc_total_put_size_in_bytes`,
//!   `etcd_mvcc_db_open_read_transactions`, `etcd_mvcc_db_total_size_in_bytes`,
//!   `etcd_mvcc_db_total_size_in_use_in_bytes`, `etcd_server_quota_backend_bytes`;
//! * histograms `etcd_disk_backend_commit_duration_seconds` (writing and syncing a group of commits),
//!   `etcd_disk_backend_snapshot_duration_seconds`, `etcd_mvcc_hash_duration_seconds`,
//!   `etcd_mvcc_hash_rev_duration_seconds`,
//!   `etcd_debugging_mvcc_db_compaction_total_duration_milliseconds`.
//!
//! What each counts exactly, and which of etcd's are not there, is in the head of `src/metrics.rs`.
//! Stores of one process share the names.
//!
//! # Where things are
//!
//! | folder | noun |
//! |---|---|
//! | `format/` (crate `revtree-format`) | bytes ↔ values: superblock, frames, records, pages; etcd's formats |
//! | `sys/` | all I/O behind one trait: a real file, memory, a simulated disk that crashes |
//! | `pager/` | the log of frames, segments, superblock slots, recovery of the chain |
//! | `tree/` | the revision tree: from a change to the leaf run that holds it |
//! | `engine/` | one open database: the commit as a story, group commit, checkpoints, open, close |
//! | `index/` | from a key to its newest record, by hash and in order, in memory, lock-free to read |
//! | `mvcc/` | views, transactions, ranges, history, compaction, hashes, snapshots |
//! | `watch/` | watchers as cursors: streams, topics, what the writer tells them |
//! | `import/` | records with revisions as given, and etcd's snapshots |
//! | `db.rs`, `options.rs`, `error.rs`, `lessor.rs`, `stats.rs` | the door |
//! | `metrics.rs`, `trace.rs` | what the features of these names tell; empty without them |
//!
//! The bytes of the file and the rules that the code cites (`B-12`, `C-3`) are in `SPEC.md`.
//!
//! # Invariants
//!
//! 1. `tree`, `pager` and `index` never read a clock, and nothing decides by one but the timer of
//!    `Batched`; nothing reads the environment (but `rayon`, for the size of its pool) or the network.
//! 2. A reader takes no lock and waits for nobody: not for a writer, a sync, a compaction, a restore.
//! 3. Bytes that were published never change while anybody may hold them; all writing is `pwrite`, never
//!    through the map.
//! 4. Nothing is acknowledged before its sync returned (`Sync`), and nothing is written behind a failed one.
//! 5. A value is handed out only after its checksum held; damage is a typed error with its place.
//! 6. A link to a version that compaction may have dropped is never followed.
//! 7. Nothing that a file claims can make us panic, loop, or allocate beyond the file's size.

// Invariant 2: a file that needs a lock says what for; the read path has none (see `clippy.toml`).
#![deny(clippy::disallowed_types)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "revtree needs 64-bit Linux: it maps files far beyond their end and locks open file descriptions"
);

mod db;
mod engine;
mod error;
mod import;
mod index;
mod lessor;
mod metrics;
mod mvcc;
mod options;
mod pager;
mod stats;
mod sync;
#[cfg_attr(
    not(feature = "unstable-storage"),
    expect(
        unreachable_pub,
        reason = "reachable with the feature: one seam, two visibilities"
    )
)]
#[cfg_attr(
    not(feature = "unstable-storage"),
    allow(
        dead_code,
        unused_imports,
        reason = "the simulated disk is for tests only"
    )
)]
pub(crate) mod sys;
mod trace;
mod tree;
mod watch;

pub use db::{Db, WeakDb};
pub use error::{Error, ErrorKind, Result};
pub use import::{ImportReport, Importer};
pub use lessor::{Lessor, NoLessor};
pub use mvcc::{
    Commit, DEFAULT_IGNORES, Deleted, Event, EventKind, Events, Expect, Hash, HashKv, IgnoreKey,
    KeyRange, KeyValue, OwnedRecords, Prev, Range, RangeResult, ReadView, Record, Records,
    Savepoint, Snapshot, Submitted, Table, TableIter, TableMut, View, WriteTxn,
};
pub use options::{
    Applied, Cleaner, CleanerOptions, Create, Durability, Options, Progress, ReadMode, Retain,
};
pub use revtree_format::{ChangeId, LeaseId, Revision};
pub use stats::{CheckReport, Compaction, Outcome, Reclaimed, Recovery, Stats};
pub use watch::{
    EventBatch, Filter, Responses, Start, Update, WatchControl, WatchId, WatchRequest,
    WatchResponse, WatchStream,
};

/// The storage seam, for tests of the engine and for storage of one's own. Not covered by the
/// crate's promise of stability.
#[cfg(feature = "unstable-storage")]
pub mod storage {
    pub use crate::sys::{
        Access, Clock, Disk, Extent, FileIdentity, LockByte, LockMode, ManualClock, MemoryDisk,
        RealClock, RealDisk, Region, Storage, sim,
    };

    /// Heads of records that lookups and versions of keys have read since the store was opened.
    #[must_use]
    pub fn heads_read(db: &crate::Db) -> u64 {
        let store = db.store();
        let heads_read = &store.engine.medium.heads_read;
        heads_read.load(crate::sync::Ordering::Relaxed)
    }

    /// [`Stats::tree_pages_read`](crate::Stats::tree_pages_read) alone, which reads no page itself.
    #[must_use]
    pub fn tree_pages_read(db: &crate::Db) -> u64 {
        db.store().engine.tree.pages_read()
    }
}

/// The README's code, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
