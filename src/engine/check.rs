//! Checking what a checkpoint names: superblocks, roots, pages, blobs, the chain (SPEC.md, C-30).

use std::io::ErrorKind;

use revtree_format::limits::{BLOCK_BYTES, SUPERBLOCK_SLOTS};
use revtree_format::{
    BranchEntries, BranchPage, Control, Controls, IndexLeaf, PageRef, Revision, Root, RootKind,
    SUPERBLOCK_BYTES, Superblock, parse_segments,
};

use super::Engine;
use super::open::set_uses_of;
use crate::error::{Error, Result};
use crate::pager::{Tail, read_blob, walk};

/// What the check of the file's structure counted and found.
#[derive(Clone, Debug, Default)]
pub(crate) struct StructureCheck {
    pub(crate) superblocks: u32,
    pub(crate) pages: u64,
    pub(crate) frames: u64,
    /// The revision of the newest checkpoint.
    pub(crate) checkpointed: Revision,
    pub(crate) damage: Vec<Error>,
}

impl Engine {
    /// Reads every superblock and all that it names, from the file rather than from memory.
    pub(crate) fn check_structure(&self) -> Result<StructureCheck> {
        let mut check = StructureCheck::default();
        let mut found: Vec<Superblock> = Vec::new();
        for slot in 0..SUPERBLOCK_SLOTS as u64 {
            let offset = slot * BLOCK_BYTES;
            let mut bytes = [0; SUPERBLOCK_BYTES];
            self.storage()
                .read_at(&mut bytes, offset)
                .map_err(Error::on("read a superblock"))?;
            if bytes == [0; SUPERBLOCK_BYTES] {
                continue;
            }
            let mut parsed = Superblock::parse(&bytes, offset);
            if parsed.is_err() {
                // A checkpoint may have been writing it: looked at again when none is.
                let _none = self.checkpoint.enter();
                self.storage()
                    .read_at(&mut bytes, offset)
                    .map_err(Error::on("read a superblock"))?;
                parsed = Superblock::parse(&bytes, offset);
            }
            match parsed {
                Ok(superblock) => found.push(superblock),
                Err(error) => check.damage.push(error.into()),
            }
        }
        if self.read_only {
            // A writer beside us may have written a checkpoint since we opened, in what was then beyond the
            // file's end.
            let len = self.storage().len();
            self.medium
                .extend(len.map_err(Error::on("read the file's length"))?);
        }
        check.superblocks = found.len().try_into().expect("at most four");
        // Twins say the same.
        found.sort_by_key(Superblock::age);
        found.dedup_by_key(|superblock| superblock.age());
        let newest = found.last().cloned();
        // Where the store has been cleaned, what an older superblock names may be free (C-3).
        let is_cleaned = newest.as_ref().is_some_and(|newest| {
            let tree = newest.root(RootKind::Tree);
            tree.is_some_and(|root| root.detail > 0)
        });
        if let Some(newest) = newest.as_ref().filter(|_| self.read_only) {
            // What is wrong with it is told below.
            let _ = set_uses_of(&self.medium, newest);
        }
        for superblock in &found {
            // One of an earlier open that is not older than the newest is dead (B-2).
            let is_past = newest.as_ref().is_some_and(|newest| {
                let is_newest = superblock.age() == newest.age();
                !is_newest && (is_cleaned || superblock.generation >= newest.generation)
            });
            if !is_past {
                self.check_roots(superblock, &mut check);
            }
        }
        // Only the newest one's: recovery may have copied the tail of the one before and given its
        // segments back.
        if let Some(newest) = &newest {
            check.checkpointed = newest.revision;
            self.check_chain(newest, &mut check)?;
        }
        Ok(check)
    }

    fn check_roots(&self, superblock: &Superblock, check: &mut StructureCheck) {
        for root in &superblock.roots {
            let is_known = !matches!(root.kind, RootKind::Unknown(_));
            if let Some(error) = self.check_use(&root.page).err().filter(|_| is_known) {
                check.damage.push(error);
                continue;
            }
            let result = match root.kind {
                RootKind::Tree => self
                    .check_pages(&root.page, root.levels, check)
                    .and_then(|n| {
                        if n == superblock.records {
                            return Ok(());
                        }
                        Err(Error::Corrupt {
                            offset: root.page.position.0,
                            what: "records under the root",
                            expected: superblock.records,
                            found: n,
                        })
                    }),
                RootKind::Segments => self.check_blob(root, check, |chunk, body| {
                    Ok(parse_segments(body, chunk.position)?.len() as u64)
                }),
                RootKind::Tables => self.check_blob(root, check, |chunk, body| {
                    let mut items = 0;
                    for item in Controls::new(body, chunk.position.0) {
                        let _: Control<'_> = item?;
                        items += 1;
                    }
                    Ok(items)
                }),
                RootKind::Index => self.check_blob(root, check, |chunk, body| {
                    let leaves = IndexLeaf::parse_chunk(body, chunk.position)?;
                    Ok(leaves.iter().map(|leaf| leaf.entries.len() as u64).sum())
                }),
                _ => Ok(()),
            };
            check.damage.extend(result.err());
        }
    }

    fn check_use(&self, page: &PageRef) -> Result<()> {
        self.medium.check_use(page.position, page.segment_use)
    }

    /// Checks the chunks of a blob, of which `items` counts what is in each.
    fn check_blob(
        &self,
        root: &Root,
        check: &mut StructureCheck,
        mut items: impl FnMut(&PageRef, &[u8]) -> Result<u64>,
    ) -> Result<()> {
        read_blob(&self.medium, root, |chunk, body| {
            self.check_use(chunk)?;
            check.pages += 1;
            items(chunk, body)
        })?;
        Ok(())
    }

    /// Checks the pages below the root `page`; gives the records that it counts. A damaged page is noted, and
    /// its neighbours are looked at all the same.
    fn check_pages(&self, page: &PageRef, levels: u8, check: &mut StructureCheck) -> Result<u64> {
        let Some(level) = levels.checked_sub(1) else {
            return Ok(0);
        };
        let branch = self.tree.page(page, level)?;
        self.check_below(&branch, level, check);
        Ok(branch.records())
    }

    fn check_below(&self, branch: &BranchPage, level: u8, check: &mut StructureCheck) {
        check.pages += 1;
        let BranchEntries::Children(children) = &branch.entries else {
            return;
        };
        // A parsed page above level 0 has children, one level below it each.
        let level = level.saturating_sub(1);
        for child in children {
            match self.tree.child(child, level) {
                Ok(branch) => self.check_below(&branch, level, check),
                Err(error) => check.damage.push(error),
            }
        }
    }

    fn check_chain(&self, superblock: &Superblock, check: &mut StructureCheck) -> Result<()> {
        let mut tail = match self.walk_chain(superblock) {
            Err(error @ Error::Corrupt { .. }) => {
                check.damage.push(error);
                return Ok(());
            }
            other => other?,
        };
        // Commits that went on while the walk looked for the log's end look like evidence that it is none
        // (C-25); then another walk gets beyond it.
        while tail.damage.is_some() {
            let again = self.walk_chain(superblock)?;
            let stays = again.damage == tail.damage && again.frames.len() == tail.frames.len();
            tail = again;
            if stays {
                break;
            }
        }
        check.frames += tail.frames.len() as u64;
        check.damage.extend(tail.damage.map(Error::from));
        Ok(())
    }

    /// Walks the chain. Reclaiming may cut off what is free behind the log while it is looked at: then once more.
    fn walk_chain(&self, superblock: &Superblock) -> Result<Tail> {
        let mut tries = WALKS_MAX;
        loop {
            tries -= 1;
            match walk(&**self.storage(), superblock) {
                Err(Error::Io { cause, .. })
                    if cause.kind() == ErrorKind::UnexpectedEof && tries > 0 => {}
                walked => return walked,
            }
        }
    }
}

/// How often the chain is walked at most: a file that ends too early each time has been cut by somebody else.
const WALKS_MAX: usize = 16;
