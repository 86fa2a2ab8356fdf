//! The parts that know no store: which topics a key belongs to, places, members.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::inbox::Inbox;
use super::members::Members;
use super::places::Places;
use super::table::Table;
use super::topic::{Shape, Topic};
use crate::mvcc::{AskedPrev, KeyRange};
use crate::sys::sim::Random;

/// A key of up to three letters, often one that another is a prefix of.
fn key(random: &mut Random) -> Vec<u8> {
    let len = random.below(4);
    (0..len).map(|_| b"ab\xff"[random.below(3)]).collect()
}

fn range(random: &mut Random) -> KeyRange {
    let (one, other) = (key(random), key(random));
    match random.below(6) {
        0 => KeyRange::prefix(one),
        1 => KeyRange::at_least(one),
        2 => KeyRange::all(),
        3 => KeyRange::between(one.clone().min(other.clone()), one.max(other)),
        _ => KeyRange::single(one),
    }
}

fn topic(keys: KeyRange, prev: AskedPrev, index: u32, inbox: &Arc<Inbox<Topic>>) -> Arc<Topic> {
    let shape = Shape {
        keys,
        prev,
        bytes_max: 1,
    };
    Arc::new(Topic::new(shape, index, Arc::clone(inbox)))
}

/// W-4, beside a list that is walked: topics of several streams come and go; each key finds those that it
/// belongs to, each once, and a topic finds the one of its shape and stream.
#[test]
fn a_key_finds_its_topics() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut table = Table::new(&[7; 16]);
        let inboxes: Vec<_> = (0..3).map(|_| Arc::new(Inbox::new())).collect();
        let mut all: BTreeMap<u32, Arc<Topic>> = BTreeMap::new();
        for index in 0..400 {
            let inbox = &inboxes[random.below(3)];
            let prev = [AskedPrev::Yes, AskedPrev::No][random.below(2)];
            let new = topic(range(&mut random), prev, index, inbox);
            let is_same = |other: &&Arc<Topic>| {
                other.shape() == new.shape() && other.stream() == new.stream()
            };
            let same = all.values().find(is_same);
            let found = table.find(&new);
            assert_eq!(
                found.map(|topic| topic.index),
                same.map(|topic| topic.index)
            );
            if found.is_none() && !new.keys().is_empty() {
                table.insert(Arc::clone(&new));
                all.insert(index, new);
            }
            if random.below(3) == 0
                && let Some(gone) = all.keys().nth(random.below(40))
            {
                let gone = all.remove(&gone.clone()).unwrap();
                table.remove(&gone);
            }
            let key = key(&mut random);
            let mut found = Vec::new();
            table.containing(&key, |topic| found.push(topic.index));
            found.sort_unstable();
            let expected = all.values().filter(|topic| topic.keys().contains(&key));
            let expected: Vec<u32> = expected.map(|topic| topic.index).collect();
            assert_eq!(found, expected, "seed {seed}, key {key:?}");
        }
        for topic in all.into_values() {
            table.remove(&topic);
        }
        let mut left = 0;
        table.containing(b"ab", |_| left += 1);
        assert_eq!(left, 0);
    }
}

/// Ranges that come in order make no list of the tree: ten thousand deep it would end the stack of a debug
/// build, and a search would look at each.
#[test]
fn ranges_in_order_stay_shallow() {
    let mut table = Table::new(&[7; 16]);
    let inbox = Arc::new(Inbox::new());
    for n in 0..100_000_u32 {
        let range = KeyRange::between(n.to_be_bytes(), (n + 1).to_be_bytes());
        table.insert(topic(range, AskedPrev::No, n, &inbox));
    }
    assert!(table.depth() < 100, "{}", table.depth());
    let mut found = Vec::new();
    table.containing(&77_777_u32.to_be_bytes(), |topic| found.push(topic.index));
    assert_eq!(found, [77_777]);
}

/// A number is given again when its thing is gone, and things keep their numbers while pages are added.
#[test]
fn places_keep_what_is_there() {
    let mut places = Places::default();
    for n in 0..1000 {
        assert_eq!(places.add(|number| number * 2), n);
    }
    assert_eq!((places.len(), places.remove(500)), (1000, Some(1000)));
    assert_eq!(places.len(), 999);
    assert_eq!((places.remove(500), places.get(500)), (None, None));
    assert_eq!(places.add(|number| number), 500);
    *places.get_mut(999).unwrap() += 1;
    assert_eq!((places.get(999), places.get(1000)), (Some(&1999), None));
    assert_eq!(places.iter().count(), 1000);
    assert_eq!(places.numbered().nth(500), Some((500, &mut 500)));
}

/// Who takes the place of one that leaves is told.
#[test]
fn members_keep_their_places() {
    let mut members = Members::default();
    assert_eq!((members.push(7), members.as_slice()), (0, &[7][..]));
    assert_eq!(members.remove(0), None);
    assert_eq!([5, 6, 7].map(|id| members.push(id)), [0, 1, 2]);
    assert_eq!(members.remove(0), Some(7));
    assert_eq!(members.as_slice(), [7, 6]);
    assert_eq!((members.remove(1), members.remove(0)), (None, None));
    assert!(members.as_slice().is_empty());
}
