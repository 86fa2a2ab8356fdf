//! Who is to be stirred when a revision is visible (SPEC.md, W-3).
//!
//! # Thread safety
//! The holder of the writer's turn calls [`Due::list`]; any thread [`Due::take`].
//!
//! # Why nobody stays listed
//! Who lists asks behind it what is visible; who publishes takes behind it. The list's lock orders the two: if
//! the take comes first, what it published is seen by the question, and the lister takes what it has listed.

#![expect(
    clippy::disallowed_types,
    reason = "the list is locked for one push or one look"
)]

use std::collections::VecDeque;

use revtree_format::Revision;

use crate::sync::{Mutex, lock};

/// Things by revision, in ascending order.
#[derive(Debug)]
pub(super) struct Due<T> {
    list: Mutex<VecDeque<(Revision, T)>>,
}

impl<T> Due<T> {
    pub(super) fn new() -> Due<T> {
        Due {
            list: Mutex::new(VecDeque::new()),
        }
    }

    /// Lists things of `rev`, not below that of any before; gives those that have become visible meanwhile.
    pub(super) fn list(
        &self,
        rev: Revision,
        things: impl Iterator<Item = T>,
        visible: impl FnOnce() -> Revision,
    ) -> Vec<(Revision, T)> {
        lock(&self.list).extend(things.map(|thing| (rev, thing)));
        self.take(visible())
    }

    /// Takes the things of all revisions up to the one that is visible.
    pub(super) fn take(&self, visible: Revision) -> Vec<(Revision, T)> {
        let mut list = lock(&self.list);
        let up_to = list.partition_point(|(rev, _)| *rev <= visible);
        list.drain(..up_to).collect()
    }
}
