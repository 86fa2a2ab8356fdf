//! Other leaves in the place of those whose records have been copied or dropped (SPEC.md, K-6, B-75).
//!
//! Apart from the spine because that only ever adds at the right edge. Here the whole tree is gone through once,
//! from left to right, into a new spine: what nothing has changed under stays as it is, whole pages at a time;
//! the rest is written anew. Which leaves go is known by where they lie, and the new ones are given with their
//! first records, so this must not know why.

use revtree_format::limits::BRANCH_ENTRIES_MAX;
use revtree_format::{
    BranchEntries, BranchPage, ChangeId, Child, FrameKind, LeafRun, PageRef, Position, Revision,
};

use super::{Spine, Tree, TreeRoot};
use crate::error::Result;

/// What takes the place of the leaves and pages that lie somewhere.
pub(crate) struct Splice<'a> {
    /// Leaves and pages at such positions go.
    pub(crate) gone: &'a dyn Fn(Position) -> bool,
    /// Leaves that come, in ascending order. None is among those that one page names and that stay: there was
    /// a leaf that goes where it comes.
    pub(crate) leaves: &'a [LeafRun],
    /// The revision up to which records may have been dropped.
    pub(crate) cleaned: Revision,
    /// The checkpoint that writes the pages.
    pub(crate) generation: u64,
}

impl Spine {
    /// The spine of the tree under `root` with some leaves replaced. Full pages go through `append`.
    pub(crate) fn spliced(
        tree: &Tree,
        root: &TreeRoot,
        splice: &Splice<'_>,
        append: &mut dyn FnMut(FrameKind, &[u8]) -> Result<PageRef>,
    ) -> Result<Spine> {
        let mut splicing = Splicing {
            tree,
            splice,
            spine: Spine::empty(splice.cleaned.max(root.cleaned)),
            left: splice.leaves,
            append,
        };
        if let Some(level) = root.levels.checked_sub(1) {
            let branch = tree.page(&root.page, level)?;
            // Its page is a child of none: its entries are gone through in any case.
            splicing.branch(&branch, level)?;
        }
        splicing.leaves_before(None)?;
        Ok(splicing.spine)
    }
}

struct Splicing<'s, 'a> {
    tree: &'s Tree,
    splice: &'s Splice<'a>,
    spine: Spine,
    /// Leaves that have not come yet.
    left: &'s [LeafRun],
    append: &'s mut dyn FnMut(FrameKind, &[u8]) -> Result<PageRef>,
}

impl Splicing<'_, '_> {
    fn branch(&mut self, branch: &BranchPage, level: u8) -> Result<()> {
        match &branch.entries {
            BranchEntries::Leaves(leaves) => {
                for leaf in leaves {
                    if !(self.splice.gone)(leaf.position) {
                        self.leaves_before(Some(leaf.first))?;
                        self.push(*leaf)?;
                    }
                }
            }
            BranchEntries::Children(children) => {
                // A parsed page above level 0 has children, one level below it each.
                let level = level.saturating_sub(1);
                for child in children {
                    let below = self.tree.child(child, level)?;
                    if self.stays(child, &below, level)? {
                        self.leaves_before(Some(child.first))?;
                        let generation = self.splice.generation;
                        self.spine
                            .graft(level, *child, generation, &mut *self.append)?;
                    } else {
                        self.branch(&below, level)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a page can stay as it is: nothing under it goes. One that is not half full is taken apart, so that
    /// many cleanings do not leave a tree of small pages.
    fn stays(&self, page: &Child, branch: &BranchPage, level: u8) -> Result<bool> {
        let half_full = |count: usize| 2 * count >= BRANCH_ENTRIES_MAX;
        let gone = self.splice.gone;
        if gone(page.page.position) {
            return Ok(false);
        }
        match &branch.entries {
            BranchEntries::Leaves(leaves) => {
                let whole = !leaves.iter().any(|leaf| gone(leaf.position));
                Ok(half_full(leaves.len()) && whole)
            }
            BranchEntries::Children(children) => {
                if !half_full(children.len()) {
                    return Ok(false);
                }
                let level = level.saturating_sub(1);
                for child in children {
                    let below = self.tree.child(child, level)?;
                    if !self.stays(child, &below, level)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Adds the leaves that come before a record; all that are left when there is none.
    fn leaves_before(&mut self, record: Option<ChangeId>) -> Result<()> {
        while let Some((leaf, rest)) = self.left.split_first()
            && record.is_none_or(|record| leaf.first < record)
        {
            self.left = rest;
            self.push(*leaf)?;
        }
        Ok(())
    }

    fn push(&mut self, leaf: LeafRun) -> Result<()> {
        let generation = self.splice.generation;
        self.spine.push(leaf, generation, &mut *self.append)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use revtree_format::{FRAME_HEADER_BYTES, FrameFlags, FrameHeader, Geometry, Root};

    use super::*;
    use crate::pager::Medium;
    use crate::sys::{Disk, MemoryDisk, Region};
    use crate::tree::{Direction, LeafCursor};

    const SEGMENT: u32 = 64 << 10;
    const USE: u64 = 1 << 32;
    /// Leaves lie in these units, which are never read here; pages in those behind.
    const LEAF_UNITS: u32 = 400;

    /// A file to which pages are appended.
    struct File {
        medium: Arc<Medium>,
        at: Position,
        pages: usize,
    }

    impl File {
        fn new() -> File {
            let disk = MemoryDisk::new();
            let storage = disk.create_new("store".as_ref()).expect("the first");
            let geometry = Geometry::new(SEGMENT);
            let region = Region::reserve(u64::from(SEGMENT), SEGMENT.into()).expect("a little");
            let medium = Medium::new(storage, region, geometry, [7; 16], true);
            medium.extend(u64::MAX);
            for unit in 0..LEAF_UNITS + 1000 {
                medium.set_use(unit, USE);
            }
            File {
                medium: Arc::new(medium),
                at: geometry.start(LEAF_UNITS),
                pages: 0,
            }
        }

        fn append(&mut self, kind: FrameKind, body: &[u8]) -> Result<PageRef> {
            self.pages += 1;
            let body_len = u32::try_from(body.len()).expect("a page");
            let header = FrameHeader {
                kind,
                flags: FrameFlags::default(),
                body_crc: crc32c::crc32c(body),
                prev_crc: 0,
                sequence: 1,
                synced_up_to: 0,
                revision: Revision::new(1),
                body_len,
                records_len: 0,
                record_count: 0,
                opens: 1,
            };
            let position = self.at;
            let (bytes, _) = header.encode(self.medium.place(USE, position));
            let frame = [&bytes[..], body].concat();
            let storage = &self.medium.storage;
            storage.write_at(&frame, position.0).expect("in memory");
            self.at = position.plus((FRAME_HEADER_BYTES + body.len()) as u64);
            Ok(PageRef {
                position,
                segment_use: USE,
                body_len,
                body_crc: header.body_crc,
            })
        }

        fn finish(&mut self, spine: &Spine) -> Root {
            let root = spine.write(1, &mut |kind, body| self.append(kind, body));
            root.expect("room").expect("there are leaves")
        }

        fn leaves(&self, root: &Root) -> Vec<LeafRun> {
            let tree = Tree::new(Arc::clone(&self.medium), Some(root));
            let first = ChangeId::default();
            let mut cursor = LeafCursor::seek(&tree, first, Direction::Forward).expect("whole");
            std::iter::from_fn(|| cursor.next().expect("whole")).collect()
        }
    }

    /// Leaf `n` of two records, ten to a unit.
    fn leaf(n: u32) -> LeafRun {
        let unit = Geometry::new(SEGMENT).start(n / 10 + 1);
        LeafRun {
            first: ChangeId::new(Revision::new(u64::from(n) * 4 + 2), 0),
            position: unit.plus(64 + u64::from(n % 10) * 4096),
            segment_use: USE,
            len: 200,
            records: 2,
        }
    }

    /// What is spliced are the leaves that stay, and those that come where others went, in order; the pages
    /// with nothing of that below them are those of before.
    #[test]
    fn leaves_come_where_others_went() {
        let geometry = Geometry::new(SEGMENT);
        for (count, first_gone, last_gone, every, come) in [
            (3, 0, 0, 1, 1),
            (5, 0, 0, 1, 0),
            (129, 3, 3, 1, 2),
            (2000, 0, 10, 1, 7),
            (3000, 100, 110, 3, 40),
            (3000, 0, 299, 2, 1500),
            (3000, 290, 299, 1, 0),
        ] {
            let what = format!("{count} leaves, units {first_gone} to {last_gone} by {every}");
            let mut file = File::new();
            let mut spine = Spine::default();
            for n in 0..count {
                let append = &mut |kind, body: &[u8]| file.append(kind, body);
                spine.push(leaf(n), 1, append).expect("room");
            }
            let root = file.finish(&spine);
            let unit = |position| geometry.index_of(position).expect("a segment");
            let gone = |position: Position| {
                let unit = unit(position);
                (first_gone + 1..=last_gone + 1).contains(&unit)
                    && (unit - first_gone - 1).is_multiple_of(every)
            };
            let mut expected: Vec<LeafRun> = (0..count).map(leaf).collect();
            // In the place of the first that go: each copy holds one of the two records.
            let goes = expected.iter().filter(|leaf| gone(leaf.position));
            let comes = goes.take(come).map(|leaf| LeafRun {
                position: geometry
                    .start(LEAF_UNITS - 1)
                    .plus(leaf.first.main.get() * 8),
                records: 1,
                ..*leaf
            });
            let comes: Vec<LeafRun> = comes.collect();
            expected.retain(|leaf| !gone(leaf.position));
            expected.extend(&comes);
            expected.sort_by_key(|leaf| leaf.first);
            let tree = Tree::new(Arc::clone(&file.medium), Some(&root));
            let before = file.pages;
            let splice = Splice {
                gone: &gone,
                leaves: &comes,
                cleaned: Revision::new(9),
                generation: 2,
            };
            if expected.is_empty() {
                continue;
            }
            let append = &mut |kind, body: &[u8]| file.append(kind, body);
            let spliced = Spine::spliced(&tree, &(&root).into(), &splice, append);
            let spliced = spliced.expect("whole pages");
            let records = expected.iter().map(|leaf| u64::from(leaf.records));
            assert_eq!(spliced.records(), records.sum::<u64>(), "{what}");
            let root = file.finish(&spliced);
            assert_eq!(root.detail, 9, "{what}");
            assert_eq!(file.leaves(&root), expected, "{what}");
            if every == 1 && count > 1000 {
                let written = file.pages - before;
                assert!(written < before / 2, "{what}: {written} of {before} pages");
            }
            // It goes on at the right edge as any other.
            let tree = Tree::new(Arc::clone(&file.medium), Some(&root));
            let mut spine = Spine::load(&tree, Some(&root)).expect("whole");
            for n in count..count + 300 {
                let append = &mut |kind, body: &[u8]| file.append(kind, body);
                spine.push(leaf(n), 3, append).expect("room");
                expected.push(leaf(n));
            }
            let root = file.finish(&spine);
            assert_eq!(root.detail, 9, "{what}");
            assert_eq!(file.leaves(&root), expected, "{what}");
        }
    }
}
