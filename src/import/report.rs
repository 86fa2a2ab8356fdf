//! What an import of an etcd snapshot did.

use revtree_format::Revision;

use crate::options::Applied;

/// What [`Db::import_etcd`](crate::Db::import_etcd) did.
///
/// ```no_run
/// use revtree::{Db, Options};
/// let report = Db::import_etcd("snapshot.db", "store", Options::new())?;
/// if !report.sha256_checked {
///     println!("the file has no hash: a copied database, not a saved snapshot");
/// }
/// println!("{} records of {} keys, {} rows", report.records, report.keys, report.rows);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ImportReport {
    /// The store's revision: that of an etcd which opens the snapshot.
    pub revision: Revision,
    /// Its compact revision; `None`: never compacted. A compaction that etcd had not finished counts.
    pub compact_revision: Option<Revision>,
    /// The consistent index and its term, as the snapshot's `meta` bucket has them.
    pub applied: Applied,
    /// Number of records in the store.
    pub records: u64,
    /// Number of records that were left out: an unfinished compaction would have removed them.
    pub records_compacted: u64,
    /// Number of keys that exist at the revision.
    pub keys: u64,
    /// Number of side tables: one for each bucket but `key`.
    pub tables: u64,
    /// Number of their rows.
    pub rows: u64,
    /// Bytes read from the snapshot, some of them more than once.
    pub bytes_read: u64,
    /// Whether the snapshot ended with a SHA-256, which fitted; a plain copy of a database has none.
    pub sha256_checked: bool,
    /// The version of etcd's storage schema, as far as the snapshot tells: the `storageVersion` of
    /// etcd 3.6, or `3.5` if there is a term; `None`: 3.4 or older.
    pub storage_version: Option<String>,
}
