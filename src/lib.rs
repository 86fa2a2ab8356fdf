//! etcd's MVCC store as an embeddable crate, on its own storage engine.

mod db;
mod engine;
mod error;
mod import;
mod index;
mod lessor;
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
mod tree;

pub use db::{Db, WeakDb};
pub use error::{Error, ErrorKind, Result};
pub use import::{ImportReport, Importer};
pub use lessor::{Lessor, NoLessor};
pub use mvcc::{
    Commit, DEFAULT_IGNORES, Deleted, Event, EventKind, Events, Expect, Hash, HashKv, IgnoreKey,
    KeyRange, KeyValue, OwnedRecords, Prev, Range, RangeResult, ReadView, Record, Records,
    Savepoint, Snapshot, Submitted, Table, TableIter, TableMut, View, WriteTxn,
};
pub use options::{Applied, Create, Durability, Options, Progress, ReadMode};
pub use revtree_format::{ChangeId, LeaseId, Revision};
pub use stats::{CheckReport, Compaction, Outcome, Recovery, Stats};

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
        heads_read.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// The README's code, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
