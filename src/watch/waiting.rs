//! Streams that wait for a revision of which no mark tells them: with an answer of progress, or since it was accepted
//! before they came (SPEC.md, W-3).
//!
//! # Thread safety
//! Any thread calls anything. The lock is held for a look, and nothing is called with it.
//!
//! # Why nobody stays waiting
//! Who waits lists itself, fences, and asks what is visible; who publishes fences behind that, and looks at the lowest
//! revision on the list. One of the fences is first: either the list is seen, or what is visible. The lowest revision
//! is only written with the lock, so it is always that of the list.

#![expect(
    clippy::disallowed_types,
    reason = "the list is locked for one entry or one look"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use revtree_format::Revision;

use super::inbox::Inbox;
use crate::sync::{AtomicU64, Mutex, Ordering, fence, lock};

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// The lowest revision on the list; `u64::MAX`: there is none.
    lowest: AtomicU64,
    list: Mutex<List<T>>,
}

/// Streams by revision. Each is asked for at the lowest that it has said, and says the next when it looks.
#[derive(Debug)]
struct List<T> {
    by_rev: BTreeMap<Revision, Vec<Weak<Inbox<T>>>>,
    count: usize,
    /// So many may be there until those that are gone, or wait for less, are taken out.
    count_max: usize,
}

/// The least of that.
const COUNT_MAX_MIN: usize = 64;

impl<T> Waiting<T> {
    pub(super) fn new() -> Waiting<T> {
        Waiting {
            lowest: AtomicU64::new(u64::MAX),
            list: Mutex::new(List {
                by_rev: BTreeMap::new(),
                count: 0,
                count_max: COUNT_MAX_MIN,
            }),
        }
    }

    /// A stream is to be stirred when this revision is visible. The caller asks behind this whether it is already.
    pub(super) fn list(&self, inbox: &Arc<Inbox<T>>, rev: Revision) {
        let mut list = lock(&self.list);
        if inbox.waits_less(rev) {
            list.add(rev, Arc::downgrade(inbox));
            self.show(&list);
        }
        drop(list);
        fence(Ordering::SeqCst);
    }

    /// Takes those that wait for what has just become visible. The caller has fenced behind that.
    pub(super) fn take(&self, visible: Revision) -> Vec<Arc<Inbox<T>>> {
        if self.lowest.load(Ordering::Relaxed) > visible.get() {
            return Vec::new();
        }
        let mut list = lock(&self.list);
        let mut taken = Vec::new();
        while let Some(entry) = list.by_rev.first_entry()
            && *entry.key() <= visible
        {
            let (rev, inboxes) = entry.remove_entry();
            list.count -= inboxes.len();
            let inboxes = inboxes.iter().filter_map(Weak::upgrade);
            // Another entry of it is lower, and has been taken before.
            taken.extend(inboxes.filter(|inbox| inbox.waits_no_more(rev)));
        }
        self.show(&list);
        taken
    }

    fn show(&self, list: &List<T>) {
        let lowest = list.by_rev.keys().next();
        let lowest = lowest.map_or(u64::MAX, |rev| rev.get());
        self.lowest.store(lowest, Ordering::Relaxed);
    }
}

impl<T> List<T> {
    fn add(&mut self, rev: Revision, inbox: Weak<Inbox<T>>) {
        self.by_rev.entry(rev).or_default().push(inbox);
        self.count += 1;
        if self.count <= self.count_max {
            return;
        }
        self.by_rev.retain(|rev, inboxes| {
            let waits = |inbox: Arc<Inbox<T>>| inbox.waits_for(*rev);
            inboxes.retain(|inbox| inbox.upgrade().is_some_and(waits));
            !inboxes.is_empty()
        });
        self.count = self.by_rev.values().map(Vec::len).sum();
        self.count_max = COUNT_MAX_MIN.max(2 * self.count);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::super::topic::Topic;
    use super::*;

    fn inboxes<const N: usize>() -> [Arc<Inbox<Topic>>; N] {
        std::array::from_fn(|_| Arc::new(Inbox::new()))
    }

    /// Each is taken once, when the lowest revision that it has said is visible.
    #[test]
    fn each_is_taken_for_its_lowest() {
        let waiting = Waiting::new();
        let [one, other] = inboxes();
        let rev = Revision::new;
        for (inbox, at) in [(&one, 7), (&one, 5), (&one, 6), (&other, 9)] {
            waiting.list(inbox, rev(at));
        }
        let taken = |visible| {
            let taken = waiting.take(rev(visible));
            taken
                .iter()
                .map(|inbox| Arc::ptr_eq(inbox, &one))
                .collect::<Vec<_>>()
        };
        assert!(taken(4).is_empty());
        assert_eq!(taken(5), [true]);
        assert!(taken(8).is_empty());
        waiting.list(&one, rev(20));
        assert_eq!(taken(9), [false]);
        assert_eq!(taken(30), [true]);
        assert_eq!(waiting.lowest.load(Ordering::Relaxed), u64::MAX);
    }

    /// What is gone, or waits for less by now, does not stay on the list.
    #[test]
    fn the_list_is_bounded() {
        let waiting = Waiting::new();
        let [stays] = inboxes();
        for at in (1..=10_000u64).rev() {
            waiting.list(&stays, Revision::new(at + 100));
            let [goes] = inboxes();
            waiting.list(&goes, Revision::new(at + 50));
        }
        assert!(lock(&waiting.list).count <= 2 * COUNT_MAX_MIN);
        let taken = waiting.take(Revision::new(101));
        assert_eq!(taken.len(), 1);
    }
}
