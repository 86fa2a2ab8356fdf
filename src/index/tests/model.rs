//! Goal: after any history, every question has the answer of a `BTreeMap`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use revtree_format::{Position, Revision};

use super::super::{Entry, IndexWriter, KeyId, KeyIndex, create};
use super::{Random, Records, SECRET, SHAPES, enough};

type Model = BTreeMap<Vec<u8>, (KeyId, Position, bool)>;

/// An index, its model, and what they were fed with.
pub(super) struct Pair {
    pub(super) index: Arc<KeyIndex>,
    pub(super) writer: IndexWriter,
    pub(super) records: Records,
    pub(super) model: Model,
    pub(super) revision: u64,
}

impl Pair {
    pub(super) fn new() -> Pair {
        let (index, writer) = create(SECRET);
        let (records, model) = (Records::default(), Model::new());
        Pair {
            index,
            writer,
            records,
            model,
            revision: 1,
        }
    }

    /// A history of `steps` puts and deletes, in batches.
    pub(super) fn random(seed: u64, steps: usize) -> Pair {
        let mut pair = Pair::new();
        let random = Random::new(seed);
        let shape = random.below(SHAPES);
        for _ in 0..steps {
            pair.write(&random.key(shape), random.below(4) != 0);
            if random.below(5) == 0 {
                pair.publish();
            }
        }
        pair.publish();
        pair
    }

    pub(super) fn write(&mut self, key: &[u8], live: bool) {
        let Pair {
            index,
            writer,
            records,
            model,
            ..
        } = self;
        let position = records.append(key);
        match index.find(key, records).expect("readable") {
            Some((id, _)) => {
                let old = writer.swing(id, position);
                let entry = model.get_mut(key).expect("the index found it");
                assert_eq!((id, old), (entry.0, entry.1));
                *entry = (id, position, live);
                writer.set_live(key, id, live);
            }
            None => {
                let id = writer
                    .insert(key, position, live, records)
                    .expect("readable");
                assert!(model.insert(key.into(), (id, position, live)).is_none());
            }
        }
    }

    /// Takes out the keys that the choice falls on, all at once. Publishes first.
    pub(super) fn remove(&mut self, chosen: impl Fn(&[u8]) -> bool) {
        self.publish();
        let mut gone = Vec::new();
        self.model.retain(|key, entry| {
            let leaves = chosen(key);
            if leaves {
                gone.push((key.clone(), *entry));
            }
            !leaves
        });
        let keys: Vec<_> = gone.iter().map(|(key, (id, ..))| (&key[..], *id)).collect();
        self.writer.remove(&keys);
    }

    pub(super) fn publish(&mut self) {
        self.revision += 1;
        self.writer.publish(Revision::new(self.revision));
    }

    pub(super) fn check(&self, seed: u64) {
        let live = self.model.values().filter(|value| value.2).count() as u64;
        let totals = self.index.totals();
        assert_eq!(
            (totals.live, totals.all),
            (live, self.model.len() as u64),
            "seed {seed}"
        );
        assert_eq!(totals.revision.get(), self.revision, "seed {seed}");
        for (key, (id, position, _)) in &self.model {
            let found = self.index.find(key, &self.records);
            assert_eq!(found, Ok(Some((*id, *position))), "seed {seed}");
        }
        let random = Random::new(seed);
        for round in 0..enough(300, 10) {
            let some = |random: &Random| match self.model.len() {
                0 => random.key(round),
                keys if random.below(2) == 0 => self
                    .model
                    .keys()
                    .nth(random.below(keys))
                    .expect("in range")
                    .clone(),
                _ => random.key(round),
            };
            let (a, b) = (some(&random), some(&random));
            let (a, b) = if random.below(8) == 0 {
                (b, a)
            } else {
                (a.clone().min(b.clone()), a.max(b))
            };
            self.check_range(bound(&random, &a), bound(&random, &b), &random, seed);
            let found = self.index.find(&a, &self.records).expect("readable");
            assert_eq!(
                found.is_some(),
                self.model.contains_key(&a),
                "seed {seed} {a:?}"
            );
        }
    }

    fn check_range(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>, random: &Random, seed: u64) {
        let above = |key: &[u8]| match lower {
            Bound::Unbounded => true,
            Bound::Included(low) => key >= low,
            Bound::Excluded(low) => key > low,
        };
        let below = |key: &[u8]| match upper {
            Bound::Unbounded => true,
            Bound::Included(high) => key <= high,
            Bound::Excluded(high) => key < high,
        };
        let within = self
            .model
            .iter()
            .filter(|(key, _)| above(key) && below(key));
        let (mut want, mut live) = (Vec::new(), 0);
        for (_, (id, position, alive)) in within {
            want.push(Entry {
                id: *id,
                position: *position,
            });
            live += u64::from(*alive);
        }
        let context = format!("seed {seed} from {lower:?} to {upper:?}");
        let count = self.index.count(lower, upper, &self.records);
        let count = count.expect("readable");
        assert_eq!(
            (count.live, count.all),
            (live, want.len() as u64),
            "{context}"
        );
        assert_eq!(count.revision.get(), self.revision);
        let max = if random.below(2) == 0 {
            usize::MAX
        } else {
            random.below(100)
        };
        for reverse in [false, true] {
            let mut got = Vec::new();
            let more = self
                .index
                .chunk(lower, upper, reverse, max, &self.records, &mut got);
            assert_eq!(more, want.len() > max, "{context} max {max}");
            let take = want.len().min(max);
            assert_eq!(got, want[..take], "{context} reverse {reverse} max {max}");
            want.reverse();
        }
    }
}

fn bound<'k>(random: &Random, key: &'k [u8]) -> Bound<&'k [u8]> {
    match random.below(7) {
        0 => Bound::Unbounded,
        1..=3 => Bound::Included(key),
        _ => Bound::Excluded(key),
    }
}

#[test]
fn random_histories() {
    for seed in 0..enough(48, 2) {
        Pair::random(seed, enough(1500, 120)).check(seed);
    }
}

/// Keys in order, so that leaves and inner nodes are split at their end; three levels deep.
#[test]
fn ordered_keys() {
    for down in [false, true] {
        let mut pair = Pair::new();
        for number in 0..enough(12_000, 200) {
            let number = if down { u32::MAX - number } else { number };
            pair.write(
                &[&b"events/"[..], &number.to_be_bytes()].concat(),
                number % 3 != 0,
            );
            if number % 64 == 0 {
                pair.publish();
            }
        }
        pair.publish();
        pair.check(7);
    }
}

#[test]
fn the_empty_index() {
    let pair = Pair::new();
    assert_eq!(pair.index.find(b"", &pair.records), Ok(None));
    let mut out = Vec::new();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let more = pair
        .index
        .chunk(all.0, all.1, false, 9, &pair.records, &mut out);
    assert!(!more);
    assert_eq!(pair.index.totals().all, 0);
    assert!(out.is_empty());
}

/// The longest keys that are legal, told apart by their last byte only.
#[test]
fn long_keys() {
    let mut pair = Pair::new();
    for number in 0..enough(200, 3) {
        let mut key = vec![b'k'; 65_535 - number % 3];
        *key.last_mut().expect("long") = u8::try_from(number).expect("below 256");
        pair.write(&key, true);
    }
    pair.publish();
    pair.check(11);
}

/// A key is found from its insertion on, but ranged and counted only from the publish on.
#[test]
fn a_batch_becomes_visible_as_one() {
    let mut pair = Pair::new();
    pair.write(b"a", true);
    pair.publish();
    let keys: u16 = enough(500, 130);
    for key in 0..keys {
        pair.write(&key.to_be_bytes(), true);
        assert_eq!(pair.index.totals().all, 1);
    }
    assert!(
        pair.index
            .find(&7_u16.to_be_bytes(), &pair.records)
            .expect("readable")
            .is_some()
    );
    pair.publish();
    assert_eq!(pair.index.totals().all, u64::from(keys) + 1);
}

/// A writer that is dropped with an unpublished batch leaves the tree that was published.
#[test]
fn a_batch_given_up() {
    let mut pair = Pair::new();
    let published: u16 = enough(300, 100);
    (0..published).for_each(|key| pair.write(&key.to_be_bytes(), true));
    pair.publish();
    (published..3 * published).for_each(|key| pair.write(&key.to_be_bytes(), true));
    let Pair {
        index,
        writer,
        records,
        ..
    } = pair;
    drop(writer);
    let mut out = Vec::new();
    let all = (Bound::Unbounded, Bound::Unbounded);
    assert!(!index.chunk(all.0, all.1, false, usize::MAX, &records, &mut out));
    assert_eq!(out.len(), usize::from(published));
}

/// The cleaner's exchange takes effect only if the key has not moved on.
#[test]
fn a_copy_loses_against_a_put() {
    let mut pair = Pair::new();
    pair.write(b"k", true);
    let (id, first) = pair
        .index
        .find(b"k", &pair.records)
        .expect("readable")
        .expect("there");
    let copy = pair.records.append(b"k");
    assert!(pair.index.relocate(id, first, copy));
    let put = pair.records.append(b"k");
    assert_eq!(pair.writer.swing(id, put), copy);
    assert!(!pair.index.relocate(id, copy, pair.records.append(b"k")));
    assert_eq!(pair.index.head(id), put);
}

/// Keys that come, go and come again: any of them, whole ranges, and all.
#[test]
fn keys_leave() {
    for seed in 0..enough(32, 2) {
        let mut pair = Pair::new();
        let random = Random::new(seed);
        let shape = random.below(SHAPES);
        for step in 0..enough(1500, 120) {
            pair.write(&random.key(shape), random.below(4) != 0);
            match random.below(60) {
                0 => {
                    let (salt, part) = (random.next() % 1009, 1 + random.below(4) as u64);
                    let digit = |key: &[u8]| {
                        key.iter()
                            .fold(salt, |sum, byte| sum * 31 % 1009 + u64::from(*byte))
                    };
                    pair.remove(|key| digit(key) % 4 < part);
                }
                1 => {
                    let bounds = [random.key(shape), random.key(shape)];
                    let [low, high] = &bounds;
                    pair.remove(|key| *key >= **low && *key < **high);
                }
                2 => {
                    pair.publish();
                    pair.check(seed);
                }
                _ => {}
            }
            if step == enough(1000, 60) {
                pair.remove(|_| true);
                pair.check(seed);
            }
        }
        pair.publish();
        pair.check(seed);
    }
}

/// A tree of three levels, from which keys leave from the front, as of a queue, until nothing is left.
#[test]
fn a_queue_is_emptied() {
    let mut pair = Pair::new();
    let key = |number: u32| [&b"events/"[..], &number.to_be_bytes()].concat();
    let (keys, part) = enough((12_000, 997), (160, 40));
    for number in 0..keys {
        pair.write(&key(number), number % 3 != 0);
    }
    for end in (0..keys + part).step_by(part as usize) {
        pair.remove(|stored| *stored < *key(end));
        pair.check(u64::from(end));
    }
    assert!(pair.model.is_empty());
}
