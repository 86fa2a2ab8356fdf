//! The right spine of the tree: where a checkpoint adds leaves and copies pages on write.
//!
//! A page is written when it is full, and the few that are not are written again by each checkpoint.

use revtree_format::limits::{BRANCH_ENTRIES_MAX, TREE_LEVELS_MAX};
use revtree_format::{
    BranchEntries, BranchPage, Child, FrameKind, LeafRun, PageRef, Revision, Root, RootKind,
};

use super::Tree;
use crate::error::{Error, Result};

/// The pages that are not full, one for each level.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spine {
    leaves: Vec<LeafRun>,
    /// Level 1 and above.
    children: Vec<Vec<Child>>,
    records: u64,
    /// The revision up to which records may have been dropped.
    cleaned: Revision,
}

impl Spine {
    /// The spine of a tree without a leaf, from which records up to `cleaned` may have been dropped.
    pub(super) fn empty(cleaned: Revision) -> Spine {
        Spine {
            cleaned,
            ..Spine::default()
        }
    }

    /// The spine of the tree under `root`.
    pub(crate) fn load(tree: &Tree, root: Option<&Root>) -> Result<Spine> {
        let mut spine = Spine::default();
        let Some(root) = root else {
            return Ok(spine);
        };
        spine.cleaned = Revision::new(root.detail);
        let mut pages = Vec::new();
        let mut last: Option<Child> = None;
        let mut whole = None;
        for level in (0..root.levels).rev() {
            let branch = match &last {
                Some(child) => tree.child(child, level)?,
                None => tree.page(&root.page, level)?,
            };
            if level == root.levels - 1 {
                spine.records = branch.records();
                let first = branch.first().expect("a parsed page has an entry");
                whole = Some(Child {
                    first,
                    page: root.page,
                    records: spine.records,
                });
            }
            if let BranchEntries::Children(children) = &branch.entries {
                last = children.last().copied();
            }
            pages.push(branch.entries);
        }
        // From the bottom: a full page stays under its parent, others are taken up again.
        let mut child_is_full = true;
        for entries in pages.into_iter().rev() {
            match entries {
                BranchEntries::Leaves(leaves) => {
                    child_is_full = leaves.len() == BRANCH_ENTRIES_MAX;
                    if !child_is_full {
                        spine.leaves = leaves;
                    }
                }
                BranchEntries::Children(mut children) => {
                    if !child_is_full {
                        children.pop();
                    }
                    child_is_full = children.len() == BRANCH_ENTRIES_MAX;
                    if child_is_full {
                        children.clear();
                    }
                    spine.children.push(children);
                }
            }
        }
        if child_is_full && let Some(whole) = whole {
            // Even the root was full: it becomes the first child of a new level.
            spine.children.push(vec![whole]);
        }
        Ok(spine)
    }

    /// Records under the tree.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Adds a leaf at the right edge.
    pub(crate) fn push(
        &mut self,
        leaf: LeafRun,
        generation: u64,
        append: &mut dyn FnMut(FrameKind, &[u8]) -> Result<PageRef>,
    ) -> Result<()> {
        self.records += u64::from(leaf.records);
        self.leaves.push(leaf);
        if self.leaves.len() == BRANCH_ENTRIES_MAX {
            let entries = BranchEntries::Leaves(std::mem::take(&mut self.leaves));
            let child = write(0, generation, entries, append)?;
            self.push_child(1, child, &mut |level, children| {
                write(level, generation, BranchEntries::Children(children), append)
            })?;
        }
        Ok(())
    }

    /// Adds a page of `level` with all that is below it at the right edge. What has been added before goes into
    /// pages of its own.
    pub(super) fn graft(
        &mut self,
        level: u8,
        child: Child,
        generation: u64,
        append: &mut dyn FnMut(FrameKind, &[u8]) -> Result<PageRef>,
    ) -> Result<()> {
        let mut write_page = |level, entries| write(level, generation, entries, &mut *append);
        if !self.leaves.is_empty() {
            let entries = BranchEntries::Leaves(std::mem::take(&mut self.leaves));
            let page = write_page(0, entries)?;
            self.push_child(1, page, &mut |level, children| {
                write_page(level, BranchEntries::Children(children))
            })?;
        }
        for below in 1..=level {
            let children = self.children.get_mut(usize::from(below) - 1);
            let children = children.map(std::mem::take).unwrap_or_default();
            if !children.is_empty() {
                let page = write_page(below, BranchEntries::Children(children))?;
                self.push_child(usize::from(below) + 1, page, &mut |level, children| {
                    write_page(level, BranchEntries::Children(children))
                })?;
            }
        }
        self.records += child.records;
        self.push_child(usize::from(level) + 1, child, &mut |level, children| {
            write_page(level, BranchEntries::Children(children))
        })
    }

    fn push_child(
        &mut self,
        level: usize,
        child: Child,
        write: &mut dyn FnMut(u8, Vec<Child>) -> Result<Child>,
    ) -> Result<()> {
        let number = u8::try_from(level).unwrap_or(u8::MAX);
        if number >= TREE_LEVELS_MAX {
            return Err(Error::LimitReached {
                what: "tree levels",
                max: TREE_LEVELS_MAX.into(),
            });
        }
        while self.children.len() < level {
            self.children.push(Vec::new());
        }
        let children = &mut self.children[level - 1];
        children.push(child);
        if children.len() == BRANCH_ENTRIES_MAX {
            let full = write(number, std::mem::take(children))?;
            self.push_child(level + 1, full, write)?;
        }
        Ok(())
    }

    /// Writes the pages that are not full, bottom up, and gives the root; `None` for an empty tree.
    pub(crate) fn write(
        &self,
        generation: u64,
        append: &mut dyn FnMut(FrameKind, &[u8]) -> Result<PageRef>,
    ) -> Result<Option<Root>> {
        let mut carried: Option<Child> = None;
        let mut levels = 0;
        if !self.leaves.is_empty() {
            let entries = BranchEntries::Leaves(self.leaves.clone());
            carried = Some(write(0, generation, entries, append)?);
            levels = 1;
        }
        for (n, children) in self.children.iter().enumerate() {
            let rest = &self.children[n..];
            if rest.iter().all(Vec::is_empty) {
                break;
            }
            // Below a higher level a page is written even for the carried child alone: every leaf is
            // equally deep.
            let mut entries = children.clone();
            entries.extend(carried.take());
            if entries.is_empty() {
                continue;
            }
            let level = u8::try_from(n + 1).expect("push_child keeps levels within their limit");
            carried = Some(write(
                level,
                generation,
                BranchEntries::Children(entries),
                append,
            )?);
            levels = level + 1;
        }
        Ok(carried.map(|child| Root {
            kind: RootKind::Tree,
            critical: true,
            page: child.page,
            levels,
            detail: self.cleaned.get(),
        }))
    }
}

fn write(
    level: u8,
    generation: u64,
    entries: BranchEntries,
    append: &mut dyn FnMut(FrameKind, &[u8]) -> Result<PageRef>,
) -> Result<Child> {
    let page = BranchPage {
        level,
        generation,
        entries,
    };
    let first = page
        .first()
        .expect("pages are written with at least one entry");
    let records = page.records();
    let reference = append(FrameKind::Branch, &page.encode())?;
    Ok(Child {
        first,
        page: reference,
        records,
    })
}
