//! The names of etcd's buckets, and the `meta` bucket with its few numbers.
//!
//! Values of buckets that are not named with a type here are carried as they are.

use super::error::{Damage, EtcdError};
use super::page::wide;
use super::record::RevisionKey;
use crate::Revision;

/// The names of etcd's top-level buckets. On disk: never rename.
pub mod bucket {
    /// Revision keys and `KeyValue` messages.
    pub const KEY: &[u8] = b"key";
    /// Consistent index, term, compaction: see [`MetaBucket`](super::MetaBucket).
    pub const META: &[u8] = b"meta";
    /// Leases.
    pub const LEASE: &[u8] = b"lease";
    /// Alarms.
    pub const ALARM: &[u8] = b"alarm";
    /// Whether users and roles count.
    pub const AUTH: &[u8] = b"auth";
    /// Users.
    pub const AUTH_USERS: &[u8] = b"authUsers";
    /// Roles.
    pub const AUTH_ROLES: &[u8] = b"authRoles";
    /// Members of the cluster.
    pub const MEMBERS: &[u8] = b"members";
    /// Members that were.
    pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
    /// The cluster's version.
    pub const CLUSTER: &[u8] = b"cluster";
}

/// What the `meta` bucket says; what it does not have is `None`.
///
/// ```
/// use revtree_format::{Revision, etcd::MetaBucket};
/// let mut meta = MetaBucket::default();
/// meta.accept(b"consistent_index", &[0, 0, 0, 0, 0, 0, 1, 0])?;
/// meta.accept(b"scheduledCompactRev", b"\0\0\0\0\0\0\0\x08_\0\0\0\0\0\0\0\0")?;
/// assert_eq!(meta.consistent_index, Some(256));
/// assert_eq!(meta.scheduled_compact, Some(Revision::new(8)));
/// # Ok::<(), revtree_format::etcd::EtcdError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetaBucket {
    /// The log entry that was applied last.
    pub consistent_index: Option<u64>,
    /// Its term; since etcd 3.5.
    pub term: Option<u64>,
    /// The compaction that was accepted last.
    pub scheduled_compact: Option<Revision>,
    /// The compaction that was finished last: less than the one above if it was interrupted.
    pub finished_compact: Option<Revision>,
    /// The version of the schema; since etcd 3.6.
    pub storage_version: Option<Vec<u8>>,
    /// The membership that the log was applied to, as JSON; since etcd 3.5.
    pub conf_state: Option<Vec<u8>>,
}

impl MetaBucket {
    /// Takes in a pair of the bucket; keys that are not known are passed over.
    ///
    /// # Errors
    ///
    /// A number that is none. The offset counts in `value`.
    pub fn accept(&mut self, key: &[u8], value: &[u8]) -> Result<(), EtcdError> {
        match key {
            b"consistent_index" => self.consistent_index = Some(parse_number(value)?),
            b"term" => self.term = Some(parse_number(value)?),
            b"scheduledCompactRev" => self.scheduled_compact = Some(parse_main(value)?),
            b"finishedCompactRev" => self.finished_compact = Some(parse_main(value)?),
            b"storageVersion" => self.storage_version = Some(value.to_vec()),
            b"confState" => self.conf_state = Some(value.to_vec()),
            _ => {}
        }
        Ok(())
    }

    /// The compact revision of the store: that of the accepted compaction, which an etcd that
    /// opens the file finishes first.
    #[must_use]
    pub fn compact_revision(&self) -> Option<Revision> {
        self.scheduled_compact.max(self.finished_compact)
    }
}

/// A number of eight bytes, the most significant first.
///
/// # Errors
///
/// [`Damage::NumberLength`] if there are not eight.
pub fn parse_number(value: &[u8]) -> Result<u64, EtcdError> {
    let bytes = <[u8; 8]>::try_from(value).map_err(|_| {
        EtcdError::new(
            0,
            Damage::NumberLength {
                bytes: wide(value.len()),
            },
        )
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// The revision in a revision key that names no change.
fn parse_main(value: &[u8]) -> Result<Revision, EtcdError> {
    Ok(RevisionKey::parse(value)?.change.main)
}
