//! What a store says about itself.

use revtree_format::Revision;

use crate::engine::Found;
use crate::options::Progress;

/// What open found.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// assert!(db.recovery().clean);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// The background work of compactions up to one revision. Dropping it stops nothing.
///
/// This version removes nothing from the file, so the work is done when
/// [`Db::compact`](crate::Db::compact) returns.
///
/// ```
/// use revtree::Outcome;
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// assert_eq!(db.compact(2)?.wait(), Outcome::Done);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Compaction {
    revision: Option<Revision>,
}

impl Compaction {
    pub(crate) fn of(revision: Option<Revision>) -> Compaction {
        Compaction { revision }
    }

    /// The revision up to which it goes; `None`: there was no compaction.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            what: "compaction",
            done: 0,
            total: Some(0),
        }
    }

    /// Waits for its end.
    #[must_use]
    pub fn wait(&self) -> Outcome {
        Outcome::Done
    }
}

/// How the work of a compaction ended.
///
/// ```
/// assert_ne!(revtree::Outcome::Done, revtree::Outcome::Interrupted);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// All of it was done.
    Done,
    /// The store was closed or replaced; the next open goes on.
    Interrupted,
    /// A later compaction took it over.
    Superseded,
}
