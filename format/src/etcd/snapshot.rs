//! The file that `etcdctl snapshot save` writes: a database, and a hash of it at the end.
//!
//! Only where the parts are. Hashing is the caller's, who reads the file anyway.

use super::error::{Damage, EtcdError};

/// Bytes of the SHA-256 at the end of a snapshot.
pub const HASH_BYTES: u64 = 32;

/// Databases are whole pages, and every page size is a multiple of this.
const BLOCK_BYTES: u64 = 512;

/// Where the parts of a snapshot file are.
///
/// ```
/// use revtree_format::etcd::SnapshotLayout;
/// let saved = SnapshotLayout::of(20_480 + 32)?;
/// assert_eq!((saved.database_bytes, saved.has_hash), (20_480, true));
/// let copied = SnapshotLayout::of(20_480)?;
/// assert_eq!((copied.database_bytes, copied.has_hash), (20_480, false));
/// assert!(SnapshotLayout::of(20_481).is_err());
/// # Ok::<(), revtree_format::etcd::EtcdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotLayout {
    /// Bytes of the database: what the hash covers, and what [`super::Pages`] has.
    pub database_bytes: u64,
    /// Whether a SHA-256 follows them. A plain copy of a database has none.
    pub has_hash: bool,
}

impl SnapshotLayout {
    /// The layout of a file of `file_bytes`, by etcd's own rule: the hash is there if 32 bytes are
    /// left over from blocks of 512.
    ///
    /// # Errors
    ///
    /// [`Damage::SnapshotSize`] if something else is left over: such a file was cut short.
    pub fn of(file_bytes: u64) -> Result<SnapshotLayout, EtcdError> {
        match file_bytes % BLOCK_BYTES {
            0 => Ok(SnapshotLayout {
                database_bytes: file_bytes,
                has_hash: false,
            }),
            HASH_BYTES => Ok(SnapshotLayout {
                database_bytes: file_bytes - HASH_BYTES,
                has_hash: true,
            }),
            _ => Err(EtcdError::new(
                file_bytes,
                Damage::SnapshotSize { bytes: file_bytes },
            )),
        }
    }
}
