//! Models of the index's three lock-free moves, explored by loom: a slot told after its head, a
//! table grown under a probe, a root replaced under a walk.
//!
//! Under loom tables, leaves and nodes are tiny, every publish offers its garbage to be freed, and
//! what is freed carries a canary. Each model is explored with at most two preemptions, three for
//! those small enough.

use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

use revtree_format::{Position, Revision};

use super::{IndexWriter, KeyIndex, Keys, create, pin};

/// The record at position `8 × n` has the key `[n]`; there are no others.
struct Records;

impl Keys for Records {
    type Error = Infallible;

    fn with_key<R>(
        &self,
        position: Position,
        with: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Infallible> {
        assert_ne!(position, Position::NONE, "an id was told before its head");
        let key = u8::try_from(position.0 / 8).expect("a position of this test");
        Ok(with(&[key]))
    }
}

fn insert(writer: &mut IndexWriter, key: u8) {
    let position = Position(u64::from(key) * 8);
    let Ok(_) = writer.insert(&[key], position, true, &Records);
}

fn find(index: &KeyIndex, key: u8) -> Option<Position> {
    let Ok(found) = index.find(&[key], &Records);
    found.map(|(_, position)| position)
}

fn model(preemptions: usize, explore: impl Fn(Arc<KeyIndex>, IndexWriter) + Sync + Send + 'static) {
    crate::sync::model(preemptions, move || {
        let (index, writer) = create([7; 16]);
        explore(index, writer);
    });
}

/// A reader that finds a slot finds its head, and the key stays found.
#[test]
fn slot_after_head() {
    model(3, |index, mut writer| {
        let reader = {
            let index = Arc::clone(&index);
            loom::thread::spawn(move || {
                let first = find(&index, 1);
                assert!(first.is_none_or(|position| position == Position(8)));
                let second = find(&index, 1);
                assert!(first.is_none() || second.is_some());
            })
        };
        insert(&mut writer, 1);
        reader.join().expect("the reader's assertions hold");
        assert_eq!(find(&index, 1), Some(Position(8)));
    });
}

/// While the table grows, and the old one is freed, a key that is there is found.
#[test]
fn growth_under_a_probe() {
    model(2, |index, mut writer| {
        insert(&mut writer, 1);
        let reader = {
            let index = Arc::clone(&index);
            loom::thread::spawn(move || {
                assert_eq!(find(&index, 1), Some(Position(8)));
            })
        };
        insert(&mut writer, 2);
        insert(&mut writer, 3);
        // The old table is retired here; three epochs later it is freed.
        insert(&mut writer, 4);
        (0..3).for_each(|_| pin().flush());
        reader.join().expect("the reader's assertions hold");
        (1..=4).for_each(|key| assert!(find(&index, key).is_some()));
    });
}

/// A walk sees one version as a whole, whatever is published and freed meanwhile; its count and
/// its revision belong together.
#[test]
fn roots_under_a_walk() {
    model(2, |index, mut writer| {
        insert(&mut writer, 1);
        writer.publish(Revision::new(1));
        let reader = {
            let index = Arc::clone(&index);
            loom::thread::spawn(move || {
                let mut out = Vec::new();
                let all = Bound::Unbounded;
                index.chunk(all, all, false, 9, &Records, &mut out);
                let positions: Vec<_> = out.iter().map(|entry| entry.position.0 / 8).collect();
                assert!(positions == [1] || positions == [1, 2, 3] || positions == [1, 2, 3, 4]);
                let count = index.totals();
                assert_eq!(count.all, count.revision.get());
            })
        };
        // Splits the leaf: a new root above two leaves.
        insert(&mut writer, 2);
        insert(&mut writer, 3);
        writer.publish(Revision::new(3));
        insert(&mut writer, 4);
        writer.publish(Revision::new(4));
        (0..3).for_each(|_| pin().flush());
        reader.join().expect("the reader's assertions hold");
        assert_eq!(index.totals().all, 4);
    });
}

/// A copy by the cleaner and a put at once: the put wins, and knows which record it superseded.
#[test]
fn relocation_beside_a_put() {
    model(3, |index, mut writer| {
        insert(&mut writer, 1);
        let Ok(Some((id, old))) = index.find(&[1], &Records) else {
            panic!("just inserted")
        };
        let cleaner = {
            let index = Arc::clone(&index);
            loom::thread::spawn(move || index.relocate(id, old, Position(9)))
        };
        let superseded = writer.swing(id, Position(10));
        let moved = cleaner.join().expect("no assertion in it");
        assert_eq!(superseded, if moved { Position(9) } else { old });
        assert_eq!(index.head(id), Position(10));
    });
}

/// A key leaves and another may take its id, under a walk that still has it and a probe behind its slot. The walk meets
/// the old key or none in its place, and the key that stays is found.
#[test]
fn removal_under_a_walk() {
    model(2, |index, mut writer| {
        insert(&mut writer, 1);
        insert(&mut writer, 2);
        writer.publish(Revision::new(2));
        let Ok(Some((id, _))) = index.find(&[1], &Records) else {
            panic!("just inserted")
        };
        let reader = {
            let index = Arc::clone(&index);
            loom::thread::spawn(move || {
                let mut out = Vec::new();
                let all = Bound::Unbounded;
                index.chunk(all, all, false, 9, &Records, &mut out);
                let positions: Vec<_> = out.iter().map(|entry| entry.position.0 / 8).collect();
                assert!(positions == [1, 2] || positions == [2]);
                assert_eq!(find(&index, 2), Some(Position(16)));
            })
        };
        writer.remove(&[(&[1], id)]);
        insert(&mut writer, 3);
        reader.join().expect("the reader's assertions hold");
        assert_eq!(find(&index, 1), None);
        assert_eq!(find(&index, 3), Some(Position(24)));
    });
}
