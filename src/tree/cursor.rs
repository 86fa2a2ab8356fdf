//! One cursor over leaves for reads, history, hash and check.

use std::sync::Arc;

use revtree_format::{BranchEntries, ChangeId, Child, LeafRun};

use super::{Tree, TreeRoot, TreeState};
use crate::error::{Error, Result};

/// Which way a cursor goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// Gives leaves one after the other, beginning with the one that may hold a change.
#[derive(Debug)]
pub(crate) struct LeafCursor<'t> {
    tree: &'t Tree,
    state: Arc<TreeState>,
    direction: Direction,
    place: Place,
    /// Where the leaf given last begins.
    last: Option<ChangeId>,
}

#[derive(Debug)]
enum Place {
    /// In the pages: the path from the root, with the entry to be given next at each level.
    Pages(Vec<Step>),
    /// In tail `tail`: leaf `leaf` is next.
    Tail {
        tail: usize,
        leaf: usize,
    },
    End,
}

#[derive(Debug)]
struct Step {
    entries: BranchEntries,
    level: u8,
    /// The entry below which the path goes on, or the leaf that is next.
    at: usize,
}

impl<'t> LeafCursor<'t> {
    /// A cursor whose first leaf is the one in which `id` would lie: the last that begins at or before
    /// it. Forward, when there is none, it begins with the first leaf.
    pub(crate) fn seek(
        tree: &'t Tree,
        id: ChangeId,
        direction: Direction,
    ) -> Result<LeafCursor<'t>> {
        let state = tree.state();
        let mut place = None;
        for (n, tail) in state.tails.iter().enumerate().rev() {
            let up_to = tail.leaves_up_to(id);
            if up_to > 0 {
                place = Some(Place::Tail {
                    tail: n,
                    leaf: up_to - 1,
                });
                break;
            }
        }
        let mut cursor = LeafCursor {
            tree,
            state,
            direction,
            place: Place::End,
            last: None,
        };
        cursor.place = match place {
            Some(place) => place,
            None => cursor.seek_in_pages(id)?,
        };
        Ok(cursor)
    }

    fn seek_in_pages(&self, id: ChangeId) -> Result<Place> {
        let Some(TreeRoot {
            page: root, levels, ..
        }) = self.state.root
        else {
            return Ok(match self.direction {
                Direction::Forward => Place::Tail { tail: 0, leaf: 0 },
                Direction::Backward => Place::End,
            });
        };
        let mut path = Vec::with_capacity(levels.into());
        let mut below: Option<Child> = None;
        for level in (0..levels).rev() {
            let branch = match &below {
                Some(child) => self.tree.child(child, level)?,
                None => self.tree.page(&root, level)?,
            };
            let up_to = match &branch.entries {
                BranchEntries::Leaves(leaves) => leaves.partition_point(|leaf| leaf.first <= id),
                BranchEntries::Children(children) => {
                    children.partition_point(|child| child.first <= id)
                }
            };
            if up_to == 0 && self.direction == Direction::Backward && level == levels - 1 {
                return Ok(Place::End);
            }
            let at = up_to.saturating_sub(1);
            if let BranchEntries::Children(children) = &branch.entries {
                below = Some(children[at]);
            }
            path.push(Step {
                entries: branch.entries,
                level,
                at,
            });
        }
        Ok(Place::Pages(path))
    }

    /// The next leaves, so many at most; none at the end.
    pub(crate) fn wave(&mut self, len: usize) -> Result<Vec<LeafRun>> {
        let mut wave = Vec::with_capacity(len);
        while wave.len() < len
            && let Some(leaf) = self.next()?
        {
            wave.push(leaf);
        }
        Ok(wave)
    }

    /// The next leaf. Behind an error nothing comes any more.
    pub(crate) fn next(&mut self) -> Result<Option<LeafRun>> {
        let next = self.advance().and_then(|leaf| self.in_order(leaf));
        if next.is_err() {
            self.place = Place::End;
        }
        next
    }

    /// Leaves come in order, each once: so a walk ends, whatever pages say.
    fn in_order(&mut self, leaf: Option<LeafRun>) -> Result<Option<LeafRun>> {
        if let (Some(last), Some(leaf)) = (self.last, &leaf) {
            let ascends = match self.direction {
                Direction::Forward => last < leaf.first,
                Direction::Backward => leaf.first < last,
            };
            if !ascends {
                return Err(Error::Corrupt {
                    offset: leaf.position.0,
                    what: "order of leaves",
                    expected: last.main.get(),
                    found: leaf.first.main.get(),
                });
            }
        }
        self.last = leaf.map(|leaf| leaf.first).or(self.last);
        Ok(leaf)
    }

    fn advance(&mut self) -> Result<Option<LeafRun>> {
        loop {
            match &mut self.place {
                Place::End => return Ok(None),
                Place::Tail { tail, leaf } => {
                    let Some(list) = self.state.tails.get(*tail) else {
                        self.place = Place::End;
                        continue;
                    };
                    match self.direction {
                        Direction::Forward if *leaf < list.len() => {
                            *leaf += 1;
                            return Ok(Some(list.get(*leaf - 1)));
                        }
                        Direction::Forward => {
                            (*tail, *leaf) = (*tail + 1, 0);
                        }
                        Direction::Backward => {
                            let (found, tail, leaf) = (list.get(*leaf), *tail, *leaf);
                            self.place = self.before_tail(tail, leaf)?;
                            return Ok(Some(found));
                        }
                    }
                }
                Place::Pages(path) => {
                    let Some(Step {
                        entries: BranchEntries::Leaves(leaves),
                        at,
                        ..
                    }) = path.last()
                    else {
                        return Err(Error::Corrupt {
                            offset: 0,
                            what: "tree without leaves",
                            expected: 1,
                            found: 0,
                        });
                    };
                    let found = leaves[*at];
                    self.step()?;
                    return Ok(Some(found));
                }
            }
        }
    }

    /// Moves to the neighbour of the leaf in the pages, or out of them.
    fn step(&mut self) -> Result<()> {
        let Place::Pages(path) = &mut self.place else {
            return Ok(());
        };
        while let Some(step) = path.last_mut() {
            let count = match &step.entries {
                BranchEntries::Leaves(leaves) => leaves.len(),
                BranchEntries::Children(children) => children.len(),
            };
            let moved = match self.direction {
                Direction::Forward if step.at + 1 < count => Some(step.at + 1),
                Direction::Backward => step.at.checked_sub(1),
                Direction::Forward => None,
            };
            match moved {
                Some(at) => {
                    step.at = at;
                    break;
                }
                None => {
                    path.pop();
                }
            }
        }
        while let Some(Step {
            entries: BranchEntries::Children(children),
            level,
            at,
        }) = path.last()
        {
            let (child, level) = (children[*at], level - 1);
            let branch = self.tree.child(&child, level)?;
            let count = match &branch.entries {
                BranchEntries::Leaves(leaves) => leaves.len(),
                BranchEntries::Children(children) => children.len(),
            };
            let at = match self.direction {
                Direction::Forward => 0,
                Direction::Backward => count - 1,
            };
            path.push(Step {
                entries: branch.entries,
                level,
                at,
            });
        }
        if path.is_empty() {
            self.place = match self.direction {
                Direction::Forward => Place::Tail { tail: 0, leaf: 0 },
                Direction::Backward => Place::End,
            };
        }
        Ok(())
    }

    /// The place before leaf `leaf` of tail `tail`.
    fn before_tail(&self, mut tail: usize, leaf: usize) -> Result<Place> {
        if leaf > 0 {
            return Ok(Place::Tail {
                tail,
                leaf: leaf - 1,
            });
        }
        while tail > 0 {
            tail -= 1;
            let len = self.state.tails[tail].len();
            if len > 0 {
                return Ok(Place::Tail {
                    tail,
                    leaf: len - 1,
                });
            }
        }
        let last = ChangeId {
            main: revtree_format::Revision::new(u64::MAX),
            sub: u64::MAX,
        };
        self.seek_in_pages(last)
    }
}
