//! What a salvage saved and what it lost, and how that is told.

use std::fmt;

use revtree::{Applied, ChangeId, Revision};

/// Something that is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// A record whose head or value is damaged.
    Record {
        /// Where it lay.
        offset: u64,
        /// Which change it was, if that is known.
        id: Option<ChangeId>,
    },
    /// Records of a frame.
    Records {
        /// Where the frame begins.
        offset: u64,
        /// How many.
        count: u64,
        /// The first revision they may be of.
        from: Revision,
        /// The last.
        to: Revision,
    },
    /// Frames that were not found.
    Frames {
        /// Sequence of the first.
        first: u64,
        /// Sequence of the last.
        last: u64,
        /// The revisions that they may have held.
        revisions: Option<(Revision, Revision)>,
    },
    /// Control items of a frame: rows of side tables, a consistent index, a compaction.
    Items {
        /// Where the frame begins.
        offset: u64,
    },
    /// Frames behind the end of the log, which no sync is known to have covered.
    Tail {
        /// How many.
        frames: u64,
    },
    /// A record that no place in the new store fits.
    Unplaced {
        /// Which change.
        id: ChangeId,
        /// Where it lies in the old store.
        offset: u64,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Record {
                offset,
                id: Some(id),
            } => write!(f, "change {id} at offset {offset:#x} is damaged"),
            Loss::Record { offset, id: None } => {
                write!(f, "a record at offset {offset:#x} is damaged")
            }
            Loss::Records {
                offset,
                count,
                from,
                to,
            } => write!(
                f,
                "{count} changes of revisions {from} to {to} are lost from the frame at \
                 offset {offset:#x}"
            ),
            Loss::Frames {
                first,
                last,
                revisions,
            } => {
                write!(f, "frames {first} to {last} of the log are missing")?;
                match revisions {
                    Some((from, to)) => write!(f, ", and changes of revisions {from} to {to}"),
                    None => f.write_str(
                        ", which held no revision that is not here, but may have held rows of \
                         side tables, a consistent index or a compaction",
                    ),
                }
            }
            Loss::Items { offset } => write!(
                f,
                "the frame at offset {offset:#x} may have held rows of side tables, a consistent \
                 index or a compaction"
            ),
            Loss::Tail { frames } => write!(
                f,
                "{frames} frames behind the end of the log were left out, as an open would"
            ),
            Loss::Unplaced { id, offset } => write!(
                f,
                "change {id} at offset {offset:#x} does not fit what is left of its key"
            ),
        }
    }
}

/// What a salvage did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The new store's revision.
    pub revision: Revision,
    /// Its compact revision.
    pub compact: Option<Revision>,
    /// Its consistent index: zero when a loss lets nothing be proved.
    pub applied: Applied,
    /// The newest one that was found.
    pub applied_found: Applied,
    /// Records written.
    pub records: u64,
    /// Deletes among them that only a later put proves.
    pub rebuilt: u64,
    /// Records lost, at least: of frames that are missing nobody knows.
    pub records_lost: u64,
    /// Rows of side tables.
    pub rows: u64,
    /// Where the page of a checkpoint lies that the tables begin with; without one they come from the
    /// log alone.
    pub tables_from: Option<u64>,
    /// Valid superblocks, of four.
    pub superblocks: u64,
    /// Frames of the log that were used.
    pub frames: u64,
    /// Frames among them with a damaged body.
    pub frames_damaged: u64,
    /// Frame headers put right.
    pub frames_repaired: u64,
    /// Segments whose header is lost.
    pub segments_repaired: u64,
    /// Frames of free segments, left out.
    pub frames_stale: u64,
    /// Bytes that the medium refused to read.
    pub unreadable_bytes: u64,
    /// Bytes in frames of the log whose checksum does not hold.
    pub damaged_bytes: u64,
    /// The new store's hash at its revision.
    pub hash: u32,
    /// What is lost.
    pub losses: Vec<Loss>,
}

impl Report {
    /// Adds losses.
    pub(crate) fn lose(&mut self, losses: impl IntoIterator<Item = Loss>) {
        for loss in losses {
            self.records_lost += match loss {
                Loss::Record { .. } | Loss::Unplaced { .. } => 1,
                Loss::Records { count, .. } => count,
                _ => 0,
            };
            self.losses.push(loss);
        }
    }
}
