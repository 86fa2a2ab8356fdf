//! Goal: an unreadable record is an error, never "not found", and changes nothing.

use std::ops::Bound;

use super::super::Entry;
use super::memory::returns_to_zero;
use super::model::Pair;
use super::{Random, Unreadable, enough};

#[test]
fn find_passes_the_error_on() {
    let pair = Pair::random(5, enough(200, 50));
    pair.records.fail_after(Some(0));
    for key in pair.model.keys() {
        assert_eq!(pair.index.find(key, &pair.records), Err(Unreadable));
    }
}

/// The bound is a key of the tree, so its place cannot be told without reading it: what may lie in the
/// range does, so that its reader meets the error.
#[test]
fn ranges_have_what_cannot_be_read() {
    let pair = Pair::random(5, enough(900, 60));
    let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
    let all = |lower, upper| {
        let mut out = Vec::new();
        let more = pair
            .index
            .chunk(lower, upper, false, 2000, &pair.records, &mut out);
        assert!(!more);
        // A count is right or says that it cannot be told.
        let count = pair.index.count(lower, upper, &pair.records);
        (ids(&out), count.map(|count| count.all))
    };
    for key in pair.model.keys() {
        let (at, open) = (Bound::Included(&**key), Bound::Unbounded);
        for (lower, upper) in [(at, open), (open, at), (at, at)] {
            pair.records.fail_after(None);
            let (readable, count) = all(lower, upper);
            assert_eq!(count, Ok(readable.len() as u64));
            pair.records.fail_after(Some(0));
            let (unreadable, count) = all(lower, upper);
            assert!(count.is_err() || count == Ok(readable.len() as u64));
            assert!(count.is_err() || unreadable == readable);
            assert!(readable.iter().all(|id| unreadable.contains(id)));
            assert!(unreadable.len() < readable.len() + 2 * 64);
        }
    }
}

/// Each insert is tried with 0, 1, 2 … readable records until it succeeds.
#[test]
fn a_failed_insert_changes_nothing() {
    for seed in [0, 1, 4, 6].into_iter().take(enough(4, 1)) {
        let mut pair = Pair::new();
        let (random, mut failures) = (Random::new(seed), 0);
        for _ in 0..enough(700, 70) {
            let key = random.key(usize::try_from(seed).expect("small"));
            if pair.model.contains_key(&key) {
                continue;
            }
            let position = pair.records.append(&key);
            let id = (0..).find_map(|reads| {
                pair.records.fail_after(Some(reads));
                let inserted = pair.writer.insert(&key, position, true, &pair.records);
                pair.records.fail_after(None);
                let absent = pair
                    .index
                    .find(&key, &pair.records)
                    .expect("readable")
                    .is_none();
                assert_eq!(inserted.is_err(), absent);
                failures += u64::from(absent);
                inserted.ok()
            });
            pair.model
                .insert(key, (id.expect("it ends in success"), position, true));
        }
        pair.publish();
        pair.check(seed);
        assert!(failures > 0, "seed {seed} never read a record");
    }
}

/// Of keys that are placed together, one that fails takes the others back, and nothing is left of them.
#[test]
fn keys_are_placed_all_or_none() {
    for seed in [0, 1, 4, 6].into_iter().take(enough(4, 1)) {
        let mut pair = Pair::random(seed, enough(600, 100));
        let random = Random::new(seed + 1);
        let new = || random.key(usize::try_from(seed).expect("small"));
        let mut failures = 0;
        for _ in 0..enough(40, 2) {
            let mut keys: Vec<_> = (0..20).map(|_| new()).collect();
            keys.sort();
            keys.dedup();
            keys.retain(|key| !pair.model.contains_key(key));
            let placed: Vec<_> = keys.iter().map(|key| (&key[..], true)).collect();
            let before = pair.index.totals();
            let first = (0..).find_map(|reads| {
                pair.records.fail_after(Some(reads));
                let placed = pair.writer.place(&placed, &pair.records);
                pair.records.fail_after(None);
                failures += u64::from(placed.is_err());
                placed.ok()
            });
            let ids = first.expect("it ends in success");
            assert_eq!(pair.index.totals(), before);
            for (id, key) in ids.into_iter().zip(keys) {
                let position = pair.records.append(&key);
                pair.writer.name(id, &key, position);
                pair.model.insert(key, (id, position, true));
            }
            pair.publish();
        }
        pair.check(seed);
        assert!(failures > 0, "seed {seed} never read a record");
        let meter = pair.index.meter.clone();
        drop(pair);
        returns_to_zero(&meter);
    }
}
