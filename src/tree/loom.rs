//! Models of the list of leaves while it grows and while a checkpoint takes it over, explored by loom.

use std::sync::Arc;

use revtree_format::{ChangeId, Geometry, LeafRun, PageRef, Position, Revision};

use super::{Tail, Tree, TreeRoot};
use crate::pager::Medium;
use crate::sync::{AtomicU64, Ordering, model, thread};
use crate::sys::{Disk, MemoryDisk, Region};

fn change(rev: u64) -> ChangeId {
    ChangeId::new(Revision::new(rev), 0)
}

/// The leaf of the records from revision `first` on, each of eight bytes.
fn check(leaf: LeafRun, first: u64) {
    assert_eq!(leaf.first, change(first));
    assert_eq!(leaf.position, Position(first * 8));
    assert_eq!(leaf.segment_use, first + 100);
    assert!(leaf.records >= 1);
    assert_eq!(leaf.len, leaf.records * 8);
}

/// A tree of a file of which nothing is read.
fn empty() -> Tree {
    let disk = MemoryDisk::new();
    let storage = disk.create_new("store".as_ref()).expect("the first");
    let region = Region::reserve(64 << 10, 64 << 10).expect("a little");
    let geometry = Geometry::new(64 << 10);
    Tree::new(
        Arc::new(Medium::new(storage, region, geometry, [7; 16], false)),
        None,
    )
}

fn begin(tail: &Tail, rev: u64) {
    tail.begin(change(rev), Position(rev * 8), rev + 100, 8);
}

/// A leaf that is counted is whole, also where the list has just got room for it; its records and bytes
/// belong together.
#[test]
fn leaves_before_their_number() {
    model(3, || {
        let tail = Arc::new(Tail::new());
        let reader = {
            let tail = Arc::clone(&tail);
            thread::spawn(move || {
                for n in 0..tail.len() {
                    check(tail.get(n), [1, 3, 4][n]);
                }
            })
        };
        begin(&tail, 1);
        tail.extend(8);
        begin(&tail, 3);
        begin(&tail, 4);
        reader.join().expect("the reader's assertions hold");
        assert_eq!(tail.leaves_up_to(change(3)), 2);
    });
}

/// A reader finds the leaf of every published revision, under the pages or in a tail, while a checkpoint
/// begins a tail, and then adopts the pages of those before it.
#[test]
fn tails_under_a_checkpoint() {
    model(3, || {
        let tree = Arc::new(empty());
        let published = Arc::new(AtomicU64::new(1));
        begin(&tree.state().tails[0], 1);
        let reader = {
            let (tree, published) = (Arc::clone(&tree), Arc::clone(&published));
            thread::spawn(move || {
                let published = published.load(Ordering::Acquire);
                let state = tree.state();
                // The pages, when there are any, hold the first leaf.
                let under_pages = u64::from(state.root.is_some());
                let firsts = state
                    .tails
                    .iter()
                    .flat_map(|tail| (0..tail.len()).map(|n| tail.first_of(n)));
                let firsts: Vec<_> = firsts.collect();
                assert!(under_pages + firsts.len() as u64 >= published);
                assert_eq!(firsts.contains(&change(1)), under_pages == 0);
            })
        };
        let (fresh, before) = tree.freeze();
        begin(&fresh, 2);
        published.store(2, Ordering::Release);
        let page = PageRef {
            position: Position(4096),
            segment_use: 1,
            body_len: 8,
            body_crc: 0,
        };
        let root = TreeRoot {
            page,
            levels: 1,
            cleaned: Revision::default(),
        };
        tree.adopt(Some(root), before.len());
        begin(&fresh, 3);
        published.store(3, Ordering::Release);
        reader.join().expect("the reader's assertions hold");
    });
}
