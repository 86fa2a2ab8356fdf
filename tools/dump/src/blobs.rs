//! Blobs of the newest checkpoint: directory and chunks of the side tables and of the key index run.
//! (The segment table is one too; `segments` shows it beside the segments themselves.)

use std::io;

use revtree_format::{
    Controls, Directory, FRAME_HEADER_BYTES, FrameKind, IndexLeaf, PageRef, Root,
};

use crate::frames;
use crate::item::{IndexKey, IndexLeafItem, Item, Part};
use crate::walk::Walk;

/// Shows the side tables.
pub(crate) fn tables(walk: &mut Walk<'_>, root: &Root) -> io::Result<()> {
    walk.out.part(Part::Tables)?;
    chunks(walk, root, |walk, chunk, body| {
        let at = chunk.position.0 + FRAME_HEADER_BYTES as u64;
        walk.controls(body, at)?;
        Ok(Controls::new(body, at).flatten().count() as u64)
    })
}

/// Shows the key index run.
pub(crate) fn index(walk: &mut Walk<'_>, root: &Root) -> io::Result<()> {
    walk.out.part(Part::Index)?;
    chunks(walk, root, |walk, chunk, body| {
        let leaves = IndexLeaf::parse_chunk(body, chunk.position).map_err(Into::into);
        let mut keys = 0;
        for leaf in walk.tell(leaves)?.unwrap_or_default() {
            keys += leaf.entries.len() as u64;
            let item = index_leaf(leaf, chunk, walk.options.records);
            walk.out.emit(&Item::IndexLeaf(item))?;
        }
        Ok(keys)
    })
}

/// Reads a blob's directory, shows it, and calls `visit` with each chunk; `visit` gives the number of
/// items in the chunk.
pub(crate) fn chunks(
    walk: &mut Walk<'_>,
    root: &Root,
    mut visit: impl FnMut(&mut Walk<'_>, &PageRef, &[u8]) -> io::Result<u64>,
) -> io::Result<()> {
    let store_id = walk.superblock.store_id;
    let at = root.page.position;
    let body = frames::page(walk.source, &store_id, &root.page, FrameKind::Directory);
    let directory = body.and_then(|body| Ok(Directory::parse(&body, at)?));
    let Some(directory) = walk.tell(directory)? else {
        return Ok(());
    };
    walk.out.emit(&Item::Blob(frames::blob_item(
        Some(root.kind),
        at,
        &directory,
    )))?;
    let (mut items, mut whole) = (0, true);
    for chunk in &directory.chunks {
        let body = frames::page(walk.source, &store_id, chunk, FrameKind::Chunk);
        match walk.tell(body)? {
            Some(body) => items += visit(walk, chunk, &body)?,
            None => whole = false,
        }
    }
    if whole {
        walk.expect(at.0, "items in the chunks", directory.items, items)?;
    }
    Ok(())
}

fn index_leaf(leaf: IndexLeaf, chunk: &PageRef, keys: bool) -> IndexLeafItem {
    let entries = leaf.entries.iter();
    let shown = entries.map(|entry| IndexKey {
        chunk: entry.chunk.to_be_bytes(),
        hash: entry.hash,
        live: entry.live,
        position: entry.position,
    });
    IndexLeafItem {
        position: chunk.position,
        keys: if keys { shown.collect() } else { Vec::new() },
        count: leaf.entries.len(),
        live: leaf.entries.iter().filter(|entry| entry.live).count(),
        separator: leaf.separator,
        prefix: leaf.prefix,
    }
}
