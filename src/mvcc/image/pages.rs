//! What stands behind the records and the index run of an image: branch pages, side tables, directories,
//! the segment table; and the superblock that names them (SPEC.md, S-3, C-15, B-86).

use revtree_format::{
    LeafRun, Root, RootKind, SUPERBLOCK_BYTES, SegmentEntry, SegmentState, Superblock,
};

use super::Piece;
use crate::engine::{State, write_segments, write_tables};
use crate::error::Result;
use crate::pager::{BlobWriter, ImageLog, Log};
use crate::tree::Spine;

/// The checkpoint that an image is.
const GENERATION: u64 = 1;

/// What the pages describe.
pub(super) struct Pages<'a> {
    pub(super) image: &'a ImageLog,
    pub(super) state: &'a State,
    pub(super) leaves: Vec<LeafRun>,
    pub(super) index: BlobWriter,
    /// The segments up to the one in which the log is.
    pub(super) pieces: &'a [Piece],
}

impl Pages<'_> {
    /// Appends the pages and ends the log on a block border, where an open finds nothing behind it.
    pub(super) fn write(self, log: &mut Log) -> Result<Box<[u8; SUPERBLOCK_BYTES]>> {
        let limit = log.chunk_bytes();
        let mut roots: Vec<Root> = Vec::new();
        let mut append = |kind, body: &[u8]| log.append_page(kind, body);
        let mut spine = Spine::default();
        for leaf in self.leaves {
            spine.push(leaf, GENERATION, &mut append)?;
        }
        roots.extend(spine.write(GENERATION, &mut append)?);
        if self.state.tables.iter().next().is_some() {
            roots.push(write_tables(&self.state.tables, limit, &mut append)?);
        }
        let rev = self.state.rev;
        roots.push(self.index.finish(RootKind::Index, rev.get(), &mut append)?);
        // The table names the segment that it lies in itself (B-86): so that is taken first.
        let known = entries(self.pieces);
        let count = known.len() + log.space().entries().len();
        log.keep_together(17 * count + SEGMENT_TABLE_SLACK)?;
        let table = [&known[..], log.space().entries()].concat();
        // An image lacks what is dead (S-4).
        let counted = self.state.compact.unwrap_or_default();
        let (segments, segment_count) = write_segments((&table, counted), &mut |kind, body| {
            log.append_page(kind, body)
        })?;
        roots.push(segments);
        let head = log.seal()?.head;
        let superblock = Superblock {
            store_id: self.image.store_id,
            generation: GENERATION,
            edition: 0,
            opens: self.image.opens,
            segment_bytes: u32::try_from(self.image.geometry.segment_bytes())
                .expect("read from a superblock's field of 32 bits"),
            head,
            revision: rev,
            compact_revision: self.state.compact,
            applied_index: self.state.applied.index,
            applied_term: self.state.applied.term,
            records: spine.records(),
            segment_count,
            roots,
        };
        Ok(superblock.encode())
    }
}

/// Units of the segments before the last piece's; the log's own table begins with that.
fn entries(pieces: &[Piece]) -> Vec<SegmentEntry> {
    let before = pieces.split_last().map_or(&[][..], |(_, before)| before);
    let mut entries = Vec::new();
    for piece in before {
        for unit in 0..piece.start.units {
            entries.push(SegmentEntry {
                state: SegmentState::Log,
                segment_use: piece.start.head.segment_use,
                units: if unit == 0 { piece.start.units } else { 0 },
                dead: 0,
            });
        }
    }
    entries
}

/// An entry has 16 bytes; headers and directory add less than one for each, and the segment that the
/// table may have to take has entries itself, 16 bytes for each 64 KiB.
const SEGMENT_TABLE_SLACK: usize = 8 << 10;
