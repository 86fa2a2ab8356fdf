//! The blobs of a checkpoint: side tables, key index run, segment table (SPEC.md, B-80 to B-93).
//!
//! Apart from the checkpoint because an image of a store has the same pages, appended to another log.

use revtree_format::{
    Control, FrameKind, IndexLeaf, PageRef, Revision, Root, RootKind, SegmentEntry, encode_segments,
};

use super::{IndexRun, Tables};
use crate::error::Result;
use crate::pager::BlobWriter;

/// Appends one page to a log.
pub(super) type AppendPage<'a> = dyn FnMut(FrameKind, &[u8]) -> Result<PageRef> + 'a;

/// All side tables, in chunks of about `limit` bytes.
pub(crate) fn write_tables(
    tables: &Tables,
    limit: usize,
    append: &mut AppendPage<'_>,
) -> Result<Root> {
    let mut blob = BlobWriter::default();
    let (mut items, mut body) = (0, Vec::new());
    let mut add = |item: Control<'_>| -> Result<()> {
        if items > 0 && body.len() + item.encoded_len() > limit {
            blob.chunk(items, &body, &mut *append)?;
            body.clear();
            items = 0;
        }
        item.encode(&mut body);
        items += 1;
        Ok(())
    };
    for (table, entries) in tables.iter() {
        add(Control::TableCreate { table })?;
        for (key, value) in entries {
            add(Control::TablePut { table, key, value })?;
        }
    }
    blob.chunk(items, &body, &mut *append)?;
    blob.finish(RootKind::Tables, 0, append)
}

/// The key index as of revision `rev`, in chunks of about `limit` bytes.
pub(crate) fn write_index(
    run: &dyn IndexRun,
    rev: u64,
    limit: usize,
    append: &mut AppendPage<'_>,
) -> Result<Root> {
    let mut blob = BlobWriter::default();
    let (mut keys, mut body) = (0, Vec::new());
    run.dump(&mut |leaf: &IndexLeaf| {
        leaf.encode(&mut body);
        keys += leaf.entries.len() as u64;
        if body.len() >= limit {
            blob.chunk(keys, &body, &mut *append)?;
            body.clear();
            keys = 0;
        }
        Ok(())
    })?;
    blob.chunk(keys, &body, &mut *append)?;
    blob.finish(RootKind::Index, rev, append)
}

/// The segment table, with dead bytes counted up to `counted`.
pub(crate) fn write_segments(
    (entries, counted): (&[SegmentEntry], Revision),
    append: &mut AppendPage<'_>,
) -> Result<(Root, u32)> {
    let mut blob = BlobWriter::default();
    for part in entries.chunks(SEGMENTS_A_CHUNK) {
        blob.chunk(part.len() as u64, &encode_segments(part), &mut *append)?;
    }
    let root = blob.finish(RootKind::Segments, counted.get(), append)?;
    let count = u32::try_from(entries.len()).expect("fewer units than 16 TiB / 64 KiB");
    Ok((root, count))
}

/// Entries of the segment table in one chunk: 32 KiB, which fits the smallest segment.
const SEGMENTS_A_CHUNK: usize = 2048;
