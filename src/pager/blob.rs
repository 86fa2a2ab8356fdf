//! Blobs: rows of items in chunk frames with a directory, written by a checkpoint, read at open.

use revtree_format::{Directory, FrameKind, PageRef, Root, RootKind};

use super::medium::Medium;
use crate::error::{Error, Result};

/// Collects chunks and writes their directory.
#[derive(Debug, Default)]
pub(crate) struct BlobWriter {
    directory: Directory,
}

impl BlobWriter {
    /// Adds a chunk of `items` whole items through `append`, which appends a page to the log.
    pub(crate) fn chunk(
        &mut self,
        items: u64,
        body: &[u8],
        append: impl FnOnce(FrameKind, &[u8]) -> Result<PageRef>,
    ) -> Result<()> {
        if items > 0 {
            self.directory.chunks.push(append(FrameKind::Chunk, body)?);
            self.directory.items += items;
        }
        Ok(())
    }

    /// Writes the directory and gives the root.
    pub(crate) fn finish(
        self,
        kind: RootKind,
        detail: u64,
        append: impl FnOnce(FrameKind, &[u8]) -> Result<PageRef>,
    ) -> Result<Root> {
        let page = append(FrameKind::Directory, &self.directory.encode())?;
        Ok(Root {
            kind,
            critical: kind != RootKind::Index,
            page,
            levels: 0,
            detail,
        })
    }
}

/// Reads a blob's directory and calls `visit` with each chunk in order, which gives the number of items in
/// it; together they are as many as the directory says (B-81).
pub(crate) fn read_blob(
    medium: &Medium,
    root: &Root,
    mut visit: impl FnMut(&PageRef, &[u8]) -> Result<u64>,
) -> Result<Directory> {
    let body = medium.page(&root.page, FrameKind::Directory)?;
    let directory = Directory::parse(&body, root.page.position)?;
    let mut items = 0;
    for chunk in &directory.chunks {
        let body = medium.page(chunk, FrameKind::Chunk)?;
        items += visit(chunk, &body)?;
    }
    if items != directory.items {
        return Err(Error::Corrupt {
            offset: root.page.position.0,
            what: "items in the chunks",
            expected: directory.items,
            found: items,
        });
    }
    Ok(directory)
}
