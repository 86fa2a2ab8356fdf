//! The revision tree: from a change to the leaf run that holds it.
//!
//! The leaves are runs of records in the log, which come in order and are never split; so the tree only
//! grows at its right edge. Leaves since the newest checkpoint are listed in memory ([`Tail`]), older
//! ones under branch pages in the file ([`BranchPage`](revtree_format::BranchPage)), which a checkpoint
//! copies on write along the right spine ([`Spine`]). Only cleaning changes what lies further left: it puts
//! other leaves in the place of those whose records it has copied or dropped ([`Spine::spliced`]).

mod cursor;
mod leaf;
#[cfg(all(test, loom))]
mod loom;
mod spine;
mod splice;
mod tail;

use std::sync::Arc;

use revtree_format::{
    BranchPage, ChangeId, Child, FrameKind, LeafRun, PageRef, Position, RecordHead, Revision, Root,
};

pub(crate) use cursor::{Direction, LeafCursor};
pub(crate) use leaf::LeafRecords;
pub(crate) use spine::Spine;
pub(crate) use splice::Splice;
pub(crate) use tail::Tail;

use crate::error::{Error, Result};
use crate::pager::Medium;
use crate::sync::{ArcSwap, AtomicU64, Ordering};

/// The tree of an open store. Readers take a [`TreeState`]; the writer appends to its newest tail.
#[derive(Debug)]
pub(crate) struct Tree {
    medium: Arc<Medium>,
    state: ArcSwap<TreeState>,
    pages_read: AtomicU64,
}

/// One consistent shape of the tree: pages, then tails in order.
#[derive(Clone, Debug)]
pub(crate) struct TreeState {
    pub(crate) root: Option<TreeRoot>,
    /// Leaves that the pages do not hold yet, oldest first; the last one grows.
    pub(crate) tails: Vec<Arc<Tail>>,
}

/// The pages of a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeRoot {
    pub(crate) page: PageRef,
    pub(crate) levels: u8,
    /// The revision up to which records may have been dropped (B-9); 0: none has been.
    pub(crate) cleaned: Revision,
}

impl From<&Root> for TreeRoot {
    fn from(root: &Root) -> TreeRoot {
        TreeRoot {
            page: root.page,
            levels: root.levels,
            cleaned: Revision::new(root.detail),
        }
    }
}

impl Tree {
    pub(crate) fn new(medium: Arc<Medium>, root: Option<&Root>) -> Tree {
        let root = root.map(TreeRoot::from);
        let state = TreeState {
            root,
            tails: vec![Arc::new(Tail::new())],
        };
        Tree {
            medium,
            state: ArcSwap::from_pointee(state),
            pages_read: AtomicU64::new(0),
        }
    }

    pub(crate) fn medium(&self) -> &Arc<Medium> {
        &self.medium
    }

    /// The tree as it is now; its last tail goes on growing.
    pub(crate) fn state(&self) -> Arc<TreeState> {
        self.state.load_full()
    }

    /// Begins a new tail and gives it with the tails before it, which grow no more. For the holder of
    /// the append lock, when no leaf is open.
    pub(crate) fn freeze(&self) -> (Arc<Tail>, Vec<Arc<Tail>>) {
        let before = self.state();
        let fresh = Arc::new(Tail::new());
        let mut tails = before.tails.clone();
        tails.push(Arc::clone(&fresh));
        self.state.store(Arc::new(TreeState {
            root: before.root,
            tails,
        }));
        (fresh, before.tails.clone())
    }

    /// Adopts pages that hold the leaves of the first `tails` tails.
    pub(crate) fn adopt(&self, root: Option<TreeRoot>, tails: usize) {
        let before = self.state();
        let tails = before.tails.iter().skip(tails).cloned().collect();
        self.state.store(Arc::new(TreeState { root, tails }));
    }

    /// The revision up to which records may have been dropped in any order (K-10); 0: none has been.
    pub(crate) fn cleaned(&self) -> Revision {
        let state = self.state();
        state.root.map_or(Revision::default(), |root| root.cleaned)
    }

    /// The tree as it is now, also while the store is cleaned: for who walks it more than once and remembers
    /// positions. Its last tail goes on growing. The pages that are read through it are not counted.
    pub(crate) fn fixed(&self) -> Tree {
        Tree {
            medium: Arc::clone(&self.medium),
            state: ArcSwap::new(self.state()),
            pages_read: AtomicU64::new(0),
        }
    }

    /// Branch pages read so far: what tests count.
    pub(crate) fn pages_read(&self) -> u64 {
        self.pages_read.load(Ordering::Relaxed)
    }

    /// Reads and checks one branch page of `level`.
    pub(crate) fn page(&self, page: &PageRef, level: u8) -> Result<BranchPage> {
        self.pages_read.fetch_add(1, Ordering::Relaxed);
        self.medium.check_use(page.position, page.segment_use)?;
        let body = self.medium.page(page, FrameKind::Branch)?;
        let branch = BranchPage::parse(&body, page.position)?;
        if branch.level != level {
            return Err(Error::Corrupt {
                offset: page.position.0,
                what: "branch level",
                expected: level.into(),
                found: branch.level.into(),
            });
        }
        Ok(branch)
    }

    /// Reads and checks the page below an entry of its parent, which says how it begins and how much lies
    /// below it (B-73).
    pub(crate) fn child(&self, child: &Child, level: u8) -> Result<BranchPage> {
        let branch = self.page(&child.page, level)?;
        let first = branch.first().unwrap_or_default();
        let wrong = |what, expected, found| Error::Corrupt {
            offset: child.page.position.0,
            what,
            expected,
            found,
        };
        if first != child.first {
            let (expected, found) = (child.first.main.get(), first.main.get());
            return Err(wrong("first record below a page", expected, found));
        }
        if branch.records() != child.records {
            let what = "records below a page";
            return Err(wrong(what, child.records, branch.records()));
        }
        Ok(branch)
    }

    /// The leaf that holds `id`, if any record does.
    pub(crate) fn leaf_of(&self, id: ChangeId) -> Result<Option<LeafRun>> {
        let mut cursor = LeafCursor::seek(self, id, Direction::Forward)?;
        cursor.next()
    }

    /// Where the record of `id` begins.
    pub(crate) fn find(&self, id: ChangeId) -> Result<Option<Position>> {
        let Some(leaf) = self.leaf_of(id)? else {
            return Ok(None);
        };
        for record in LeafRecords::new(&self.medium, leaf) {
            let (position, head) = record?;
            if head.id >= id {
                return Ok((head.id == id).then_some(position));
            }
        }
        Ok(None)
    }

    /// Finds many records, in ascending order of their ids: each leaf is read once for all that it holds. Ids that no
    /// record has are passed over. `damaged` decides whether the search goes on behind a leaf that cannot be read.
    pub(crate) fn find_sorted(
        &self,
        ids: &[ChangeId],
        mut found: impl FnMut(Position, &RecordHead),
        mut damaged: impl FnMut(Error) -> Result<()>,
    ) -> Result<()> {
        let Some(first) = ids.first() else {
            return Ok(());
        };
        let mut left = ids;
        let mut cursor = LeafCursor::seek(self, *first, Direction::Forward)?;
        let mut leaf = cursor.next()?;
        while let Some(here) = leaf.filter(|_| !left.is_empty()) {
            let behind = cursor.next()?;
            let is_here = |id: &&ChangeId| behind.is_none_or(|behind| **id < behind.first);
            let (mut wanted, rest) = left.split_at(left.iter().take_while(is_here).count());
            (left, leaf) = (rest, behind);
            let mut records = LeafRecords::new(&self.medium, here);
            while !wanted.is_empty() {
                match records.next() {
                    Some(Ok((position, head))) => {
                        let behind = wanted.partition_point(|id| *id <= head.id);
                        if wanted[..behind].last() == Some(&head.id) {
                            found(position, &head);
                        }
                        wanted = &wanted[behind..];
                    }
                    Some(Err(error @ Error::Corrupt { .. })) => damaged(error)?,
                    Some(Err(error)) => return Err(error),
                    None => break,
                }
            }
        }
        Ok(())
    }
}
