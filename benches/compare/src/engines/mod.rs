//! What a workload asks of an engine, and where its operations come from.
//!
//! The peers answer through the layer (`crate::layer`), revtree through its own door. The verbs
//! are those of a revision store, not of a key-value store: nobody is asked for more than etcd
//! asks of its own.

use std::path::Path;
use std::time::Duration;

use crate::Result;

pub(crate) mod fjall;
pub(crate) mod lmdb;
pub(crate) mod raw;
pub(crate) mod raw_memory;
pub(crate) mod redb;
#[cfg(feature = "revtree")]
pub(crate) mod revtree;

/// The engines of a run, in the order of the table's columns.
pub(crate) const ENGINES: &[&str] = &[
    #[cfg(feature = "revtree")]
    "revtree",
    "redb",
    "lmdb",
    "fjall",
];

/// The bytes that each peer may cache; revtree and LMDB have no cache of their own.
pub(crate) const CACHE_BYTES: u32 = 1 << 30;

/// A batch is synced when it has this many operations …
pub(crate) const BATCH_OPS: u32 = 10_000;
/// … or is this old.
pub(crate) const BATCH_AGE: Duration = Duration::from_millis(100);

/// When writes reach the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncRule {
    /// At each `BATCH_OPS` operations or `BATCH_AGE`.
    Batched,
    /// Before each commit returns.
    Durable,
}

/// Where a writer's puts come from, and who is told of them.
pub(crate) trait Source {
    /// Whether a put is due now.
    fn ready(&mut self) -> bool;
    /// The next put, waited for if need be; `None`: the writer is to stop.
    fn next(&mut self) -> Option<(&[u8], &[u8])>;
    /// The last put returned to its caller; for one that closes a batch, after the sync.
    fn done(&mut self);
    /// A batch was synced.
    fn synced(&mut self, took: Duration);
}

/// What compacting cost.
pub(crate) struct Compacted {
    /// Until reads below the revision are refused and the caller goes on.
    pub(crate) call: Duration,
    /// Until nothing is left to do for it.
    pub(crate) all: Duration,
    /// Revisions deleted, where the engine counts them.
    pub(crate) deleted: Option<u64>,
}

/// One open store.
pub(crate) trait Engine: Sized + Send + Sync {
    /// Opens the store in the directory `dir`, making it when missing.
    fn open(dir: &Path, sync: SyncRule) -> Result<Self>;
    /// How long the engine itself took to open, without what the layer did.
    fn opened_in(&self) -> Duration;
    fn rev(&self) -> u64;
    /// Writes from `source` until it ends, `puts_per_txn` puts in a transaction, and syncs.
    fn write(&self, puts_per_txn: u32, source: &mut dyn Source) -> Result<()>;
    /// One transaction of one put that is on disk when this returns; from any thread.
    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()>;
    /// Shows `read` the value that `key` had at `rev`, or has now; false: it has none.
    fn get(
        &self,
        key: &[u8],
        rev: Option<u64>,
        read: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<bool>;
    /// Shows `read` the current value of each key in `[start, end)`, in order.
    fn range(
        &self,
        start: &[u8],
        end: &[u8],
        read: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()>;
    /// The number of current keys, by a range over all of them.
    fn count(&self) -> Result<u64>;
    /// Hashes all revisions in revision order; `None`: not with that many threads.
    fn hash(&self, threads: u32) -> Result<Option<u32>>;
    /// Compacts to the current revision while it writes from `source`, one put a transaction.
    fn compact(&self, source: &mut dyn Source) -> Result<Compacted>;
    /// Returns freed space to the file system by the engine's own call for that, if it has one;
    /// `scratch` is an empty directory beside the store. The bytes then allocated.
    fn reclaim(&mut self, dir: &Path, scratch: &Path) -> Result<Option<u64>>;
    /// Closes cleanly: all is on disk.
    fn close(self) -> Result<()>;
}
