//! Goal: an unreadable record is an error, never "not found", and changes nothing.

use std::ops::Bound;

use super::model::Pair;
use super::{Random, Unreadable};

#[test]
fn find_passes_the_error_on() {
    let pair = Pair::random(5, 200);
    pair.records.fail_after(Some(0));
    for key in pair.model.keys() {
        assert_eq!(pair.index.find(key, &pair.records), Err(Unreadable));
    }
}

/// The bound is a key of the tree, so its place cannot be told without reading it.
#[test]
fn ranges_pass_the_error_on() {
    let pair = Pair::random(5, 900);
    pair.records.fail_after(Some(0));
    for key in pair.model.keys() {
        let (at, open) = (Bound::Included(&**key), Bound::Unbounded);
        assert_eq!(pair.index.count(at, open, &pair.records), Err(Unreadable));
        let mut out = Vec::new();
        let more = pair.index.chunk(open, at, true, 9, &pair.records, &mut out);
        assert_eq!((more, out), (Err(Unreadable), Vec::new()));
    }
}

/// Each insert is tried with 0, 1, 2 … readable records until it succeeds.
#[test]
fn a_failed_insert_changes_nothing() {
    for seed in [0, 1, 4, 6] {
        let mut pair = Pair::new();
        let (random, mut failures) = (Random::new(seed), 0);
        for _ in 0..700 {
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
