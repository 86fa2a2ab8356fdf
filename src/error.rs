//! The one error type of the crate: variants by what the caller can do, each with its numbers.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use revtree_format::etcd::EtcdError;
use revtree_format::{ChangeId, FormatError, LeaseId, Revision};

use crate::{KeyValue, WatchId};

/// `Result` with this crate's [`Error`].
///
/// ```
/// fn first_revision(db: &revtree::Db) -> revtree::Result<u64> {
///     Ok(db.put("a", "1")?.get())
/// }
/// let db = revtree::Options::new().open_in_memory()?;
/// assert_eq!(first_revision(&db)?, 2);
/// # Ok::<(), revtree::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. It can be cloned, because one failed sync fails every waiter of its group.
///
/// ```
/// use revtree::{Error, ErrorKind, Revision};
/// let error = Error::Compacted { requested: Revision::new(3), compacted: Revision::new(7) };
/// assert_eq!(error.kind(), ErrorKind::AskDifferently);
/// assert_eq!(error.to_string(), "revision 3 was compacted: history starts at 7");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The revision lies below the compact revision.
    Compacted {
        /// The revision asked for.
        requested: Revision,
        /// The compact revision.
        compacted: Revision,
    },
    /// The view has ended: the store is further beyond it than [`Options::view_limit`](crate::Options::view_limit)
    /// allows.
    ViewExpired {
        /// The view's revision.
        revision: Revision,
    },
    /// The revision has not been made yet.
    FutureRevision {
        /// The revision asked for.
        requested: Revision,
        /// The current revision.
        current: Revision,
    },
    /// Nothing was written at this revision and place.
    RevisionNotFound(ChangeId),
    /// A limit of the format or of the options would be passed; nothing was written.
    LimitReached {
        /// Which limit.
        what: &'static str,
        /// Its number.
        max: u64,
    },
    /// Memory could not be had; nothing was written.
    OutOfMemory {
        /// What for.
        what: &'static str,
        /// How many bytes.
        bytes: u64,
    },
    /// The key is longer than a key can be.
    KeyTooLong {
        /// Its length in bytes.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The value is longer than a value can be.
    ValueTooLong {
        /// Its length in bytes.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The transaction has too many changes or too many bytes.
    TransactionTooLarge {
        /// Which of the two.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The lessor does not know the lease.
    LeaseNotFound(LeaseId),
    /// A comparison of [`WriteTxn::require`](crate::WriteTxn::require) does not hold.
    Conflict {
        /// The key compared.
        key: Bytes,
        /// What is there. Boxed, so that every `Result` of the crate stays small.
        found: Option<Box<KeyValue>>,
    },
    /// A range to be watched in which no key can be.
    EmptyRange,
    /// The stream never had a watcher of this id, or it has been cancelled.
    WatcherNotExist(WatchId),
    /// A watcher of the stream has this id, or none can have it.
    WatcherDuplicateId(WatchId),
    /// The watcher has ended by itself: by [`Update::Compacted`](crate::Update::Compacted) or
    /// [`Update::Failed`](crate::Update::Failed).
    Canceled(WatchId),
    /// A write from inside a callback of the store would wait for itself.
    InCallback,
    /// A watcher's filter has panicked three times at the same events, and ended it.
    FilterPanicked,
    /// The store was opened for reading only, or cannot be written.
    ReadOnly,
    /// Another writer has the file open.
    Locked {
        /// The file.
        path: PathBuf,
        /// Whether it is this process.
        by_this_process: bool,
    },
    /// The store would grow beyond its limit; compaction still works.
    StoreFull {
        /// Bytes that the store would have.
        needed: u64,
        /// The limit, see [`Options::store_bytes_max`](crate::Options::store_bytes_max).
        max: u64,
    },
    /// The disk is full, or this user or process may have no more of it; nothing was written. What compactions, a
    /// close and the next open need was kept, and is left.
    NoSpace {
        /// Bytes that were asked for.
        needed: u64,
    },
    /// The store, or the stream of watchers, has been closed.
    Closed,
    /// An earlier write or sync failed; reads go on, writes need a new open.
    Poisoned {
        /// The failure.
        cause: Arc<io::Error>,
    },
    /// The commit was written but its sync failed: whether it survives is decided by the next open.
    CommitUnknown {
        /// The revision it would have.
        revision: Revision,
        /// The failure.
        cause: Arc<io::Error>,
    },
    /// The file is not a store.
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The file has a newer format than this crate reads.
    FormatTooNew {
        /// Its format version.
        found: u32,
        /// The newest that this crate reads.
        newest: u32,
    },
    /// The store is older than [`Options::expect_at_least`](crate::Options::expect_at_least) asked for.
    RolledBack {
        /// Its revision.
        found: Revision,
        /// The revision expected.
        expected: Revision,
    },
    /// Bytes in the file are not what was written.
    Corrupt {
        /// Where in the file.
        offset: u64,
        /// Which structure or checksum.
        what: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// What is to be imported is damaged or not what it should be.
    Import {
        /// Where in the file; with an [`Importer`](crate::Importer), how many records and rows were taken
        /// before.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The operating system refused.
    Io {
        /// Which call.
        what: &'static str,
        /// Its answer.
        cause: Arc<io::Error>,
    },
}

/// What the caller of a failed call can do.
///
/// ```
/// use revtree::{ErrorKind, Options};
/// let db = Options::new().segment_bytes(64 << 10).store_bytes_max(1 << 20).open_in_memory()?;
/// let full = db.put("a", vec![0; 1 << 20]).unwrap_err();
/// assert_eq!(full.kind(), ErrorKind::TryLater); // nothing happened: it may pass once there is room
/// assert_eq!(db.put("a", "1")?.get(), 2);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ErrorKind {
    /// Ask for something else: another revision, a smaller value.
    AskDifferently,
    /// Try again later; nothing happened.
    TryLater,
    /// Open the store again: what was acknowledged is there.
    Reopen,
    /// Restore from a backup, or salvage.
    Restore,
    /// Mend the machine: permissions, the medium.
    FixMachine,
    /// Mend the calling program.
    Caller,
}

impl Error {
    /// The cause that poisons.
    pub(crate) fn into_cause(self) -> Arc<std::io::Error> {
        match self {
            Error::Io { cause, .. } | Error::Poisoned { cause } => cause,
            other => Arc::new(std::io::Error::other(other)),
        }
    }

    /// What the caller can do.
    ///
    /// ```
    /// use revtree::ErrorKind;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// assert_eq!(db.read_at(9).unwrap_err().kind(), ErrorKind::AskDifferently); // there is no 9 yet
    /// db.clone().close()?;
    /// assert_eq!(db.put("a", "1").unwrap_err().kind(), ErrorKind::Reopen);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Compacted { .. }
            | Error::ViewExpired { .. }
            | Error::FutureRevision { .. }
            | Error::RevisionNotFound(_)
            | Error::LimitReached { .. }
            | Error::KeyTooLong { .. }
            | Error::ValueTooLong { .. }
            | Error::TransactionTooLarge { .. }
            | Error::LeaseNotFound(_)
            | Error::EmptyRange
            | Error::WatcherNotExist(_)
            | Error::WatcherDuplicateId(_)
            | Error::Canceled(_)
            | Error::Conflict { .. } => ErrorKind::AskDifferently,
            Error::Locked { .. }
            | Error::StoreFull { .. }
            | Error::NoSpace { .. }
            | Error::OutOfMemory { .. } => ErrorKind::TryLater,
            Error::Closed | Error::Poisoned { .. } | Error::CommitUnknown { .. } => {
                ErrorKind::Reopen
            }
            Error::RolledBack { .. } | Error::Corrupt { .. } | Error::Import { .. } => {
                ErrorKind::Restore
            }
            Error::NotAStore { .. } | Error::FormatTooNew { .. } | Error::Io { .. } => {
                ErrorKind::FixMachine
            }
            Error::InCallback | Error::FilterPanicked | Error::ReadOnly => ErrorKind::Caller,
        }
    }

    /// The operating system's answer to the call `what`.
    pub(crate) fn io(what: &'static str, cause: io::Error) -> Error {
        Error::Io {
            what,
            cause: Arc::new(cause),
        }
    }

    /// The same, for `map_err`.
    pub(crate) fn on(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |cause| Error::io(what, cause)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Compacted {
                requested,
                compacted,
            } => {
                write!(
                    f,
                    "revision {requested} was compacted: history starts at {compacted}"
                )
            }
            Error::ViewExpired { revision } => {
                write!(
                    f,
                    "the view at revision {revision} has ended: the store has gone on for too long"
                )
            }
            Error::FutureRevision { requested, current } => {
                write!(
                    f,
                    "revision {requested} is in the future: the store is at {current}"
                )
            }
            Error::RevisionNotFound(id) => write!(f, "nothing was written at revision {id}"),
            Error::LimitReached { what, max } => write!(f, "{what} would pass its limit of {max}"),
            Error::OutOfMemory { what, bytes } => {
                write!(f, "no memory for {what}: {bytes} bytes")
            }
            Error::KeyTooLong { len, max } => {
                write!(f, "the key has {len} bytes, the limit is {max}")
            }
            Error::ValueTooLong { len, max } => {
                write!(f, "the value has {len} bytes, the limit is {max}")
            }
            Error::TransactionTooLarge { what, max } => {
                write!(f, "the transaction has too many {what}, the limit is {max}")
            }
            Error::LeaseNotFound(lease) => write!(f, "lease {} was not found", lease.0),
            Error::Conflict { key, found } => {
                let key = key.escape_ascii();
                match found {
                    None => write!(f, "a comparison failed: key \"{key}\" does not exist"),
                    Some(kv) => write!(
                        f,
                        "a comparison failed: key \"{key}\" is at revision {}, version {}",
                        kv.mod_revision, kv.version
                    ),
                }
            }
            Error::EmptyRange => write!(f, "no key can be in the range to be watched"),
            Error::WatcherNotExist(WatchId(id)) => {
                write!(f, "the stream has no watcher {id}")
            }
            Error::WatcherDuplicateId(WatchId(id)) => {
                write!(f, "the id {id} is taken: it is a watcher's, or below 0")
            }
            Error::Canceled(WatchId(id)) => write!(
                f,
                "watcher {id} has ended by itself: what it needs is compacted or damaged, or its filter panics"
            ),
            Error::InCallback => write!(f, "a callback of the store must not write to it"),
            Error::FilterPanicked => {
                write!(f, "a filter has panicked at the same events each time")
            }
            Error::ReadOnly => write!(
                f,
                "the store can only be read: it was opened so, or lies on a read-only medium"
            ),
            Error::Locked {
                path,
                by_this_process,
            } => {
                let who = if *by_this_process { "this" } else { "another" };
                write!(f, "{} is in use by {who} process", path.display())
            }
            Error::StoreFull { needed, max } => {
                write!(f, "the store would need {needed} bytes, its limit is {max}")
            }
            Error::NoSpace { needed } => write!(f, "no space on the disk for {needed} bytes"),
            Error::Closed => write!(f, "the store or stream is closed"),
            Error::Poisoned { cause } => {
                write!(
                    f,
                    "an earlier write or sync failed, open the store again: {cause}"
                )
            }
            Error::CommitUnknown { revision, cause } => write!(
                f,
                "whether revision {revision} survives is not known until the next open: {cause}"
            ),
            Error::NotAStore { path } => write!(f, "{} is not a revtree store", path.display()),
            Error::FormatTooNew { found, newest } => {
                write!(
                    f,
                    "the file has format version {found}, this program reads up to {newest}"
                )
            }
            Error::RolledBack { found, expected } => {
                write!(
                    f,
                    "the store is at revision {found}, at least {expected} was expected"
                )
            }
            Error::Corrupt {
                offset,
                what,
                expected,
                found,
            } => write!(
                f,
                "damaged at offset {offset:#x}: {what}: expected {expected:#x}, found {found:#x}"
            ),
            Error::Import { offset, what } => {
                write!(f, "cannot import: {what} at offset {offset:#x}")
            }
            Error::Io { what, cause } => write!(f, "{what} failed: {cause}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Poisoned { cause }
            | Error::CommitUnknown { cause, .. }
            | Error::Io { cause, .. } => Some(&**cause),
            _ => None,
        }
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Error {
        let FormatError {
            offset,
            what,
            expected,
            found,
        } = error;
        Error::Corrupt {
            offset,
            what,
            expected,
            found,
        }
    }
}

impl From<EtcdError> for Error {
    fn from(error: EtcdError) -> Error {
        Error::Import {
            offset: error.offset,
            what: error.what.to_string(),
        }
    }
}

impl Error {
    /// What a failure to get blocks for `needed` bytes is.
    pub(crate) fn on_allocate(what: &'static str, needed: u64) -> impl FnOnce(io::Error) -> Error {
        move |error| {
            if is_full(&error) {
                Error::NoSpace { needed }
            } else {
                Error::io(what, error)
            }
        }
    }
}

/// The disk has no more, or this user or process may have no more of it.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match &error {
            Error::Io { cause, .. } => cause.kind(),
            Error::NoSpace { .. } | Error::StoreFull { .. } => io::ErrorKind::StorageFull,
            Error::Corrupt { .. } | Error::NotAStore { .. } | Error::Import { .. } => {
                io::ErrorKind::InvalidData
            }
            Error::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            Error::Locked { .. } => io::ErrorKind::WouldBlock,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
