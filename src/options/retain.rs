//! Which history a store keeps of its own accord.

use std::fmt;
use std::sync::Arc;

use revtree_format::Revision;

/// Answers from which revision on history is to be kept.
pub(crate) type SinceFn = Arc<dyn Fn() -> Revision + Send + Sync>;

/// Which history a store keeps: it calls [`Db::compact`](crate::Db::compact) for you, now and then.
///
/// The policy is asked by the cleaner's thread when the store has been opened, and then once for each checkpoint:
/// whenever [`Options::checkpoint_bytes`](crate::Options::checkpoint_bytes) of log have been written since, and at
/// least one segment. So there may be more history than it says, never less. [`Db::reclaim`](crate::Db::reclaim)
/// asks it too; with [`Cleaner::Manual`](crate::Cleaner::Manual) nobody else does. A store that is open for reading
/// only keeps what there is.
///
/// ```
/// use revtree::{Cleaner, Error, Options, Retain};
/// let options = Options::new().retain(Retain::Revisions(100)).cleaner(Cleaner::Manual);
/// let db = options.open_in_memory()?;
/// for n in 0..300 {
///     db.put("a", n.to_string())?;
/// }
/// db.reclaim()?;
/// assert_eq!((db.rev().get(), db.compact_rev()), (301, Some(201.into())));
/// assert!(matches!(db.read_at(200), Err(Error::Compacted { .. })));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Retain {
    /// All of it, until somebody compacts.
    #[default]
    All,
    /// The current revision and so many before it.
    Revisions(u64),
    /// What the function answers, and all revisions above it.
    ///
    /// An answer at or below the compact revision changes nothing, and neither does one above the current revision, nor
    /// a panic: it is asked again later. It is called without a lock, and may read the store through a
    /// [`WeakDb`](crate::WeakDb); a [`Db`](crate::Db) that it owned would keep the store open. Writes from it are refused with
    /// [`Error::InCallback`](crate::Error::InCallback), and waiting for a compaction there ends at once. A close waits
    /// until it has returned.
    ///
    /// ```
    /// use revtree::{Cleaner, Options, Retain, Revision};
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}};
    /// let needed = Arc::new(AtomicU64::new(0)); // the slowest of those who read history, say
    /// let told = needed.clone();
    /// let since = Retain::Since(Arc::new(move || Revision::new(told.load(Relaxed))));
    /// let db = Options::new().retain(since).cleaner(Cleaner::Manual).open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// db.reclaim()?;
    /// assert_eq!(db.compact_rev(), None);
    /// needed.store(3, Relaxed);
    /// db.reclaim()?;
    /// assert_eq!(db.compact_rev(), Some(3.into()));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    Since(SinceFn),
}

impl fmt::Debug for Retain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Retain::All => f.write_str("All"),
            Retain::Revisions(revisions) => f.debug_tuple("Revisions").field(revisions).finish(),
            Retain::Since(_) => f.debug_tuple("Since").finish_non_exhaustive(),
        }
    }
}
