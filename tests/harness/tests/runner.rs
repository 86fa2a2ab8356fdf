//! The runner itself: it finds nothing between two equal stores, and finds a wrong one.

use std::collections::BTreeMap;

use revtree_format::Revision;
use revtree_harness::model::Subject;
use revtree_harness::op::Op;
use revtree_harness::oracle::change::{Change, survivors};
use revtree_harness::{Oracle, State, Stats, generate, run, seeds};

/// The oracle against itself. Every kind of operation occurs, most questions have a meaning, and
/// some are refused.
#[test]
fn the_oracle_agrees_with_itself() {
    let mut total = Stats::default();
    for seed in seeds(0, 100) {
        let stats = run(seed, &generate(seed, 1000), Oracle::new).unwrap();
        total.add(&stats);
    }
    if total.ops < 100_000 {
        return; // One seed, replayed.
    }
    assert_eq!(total.kinds.len(), 21, "{:?}", total.kinds);
    assert!(
        total.kinds.values().all(|count| *count >= 50),
        "{:?}",
        total.kinds
    );
    assert!(total.skipped < total.answers / 20);
    assert!(total.refusals > total.answers / 100);
}

/// A seed gives the same history each time, and another seed another.
#[test]
fn a_seed_is_a_history() {
    assert_eq!(generate(7, 300), generate(7, 300));
    assert_ne!(generate(7, 300), generate(8, 300));
}

/// A store that compacts at the revision below the one asked keeps too much.
fn keeps_too_much(changes: &[Change], at: Revision) -> Vec<Change> {
    survivors(changes, Revision::new(at.get().saturating_sub(1)))
}

/// A store that takes "up to" for "below" loses the newest change at the compact revision.
fn loses_the_newest(changes: &[Change], at: Revision) -> Vec<Change> {
    let newest = |change: &&Change| change.id.main != at;
    survivors(changes, at)
        .iter()
        .filter(newest)
        .cloned()
        .collect()
}

/// A store with the old rule, by which a tombstone at the compact revision goes.
fn drops_the_tombstone(changes: &[Change], at: Revision) -> Vec<Change> {
    let kept = |change: &&Change| change.id.main != at || change.put.is_some();
    survivors(changes, at)
        .iter()
        .filter(kept)
        .cloned()
        .collect()
}

/// Each wrong rule is found in most worlds that compact, and its history shrinks to a few lines
/// that end in the difference.
#[test]
fn wrong_compactions_are_found() {
    let wrong = [keeps_too_much, loses_the_newest, drops_the_tombstone];
    for rule in wrong {
        let mut found = 0;
        let mut shortest = usize::MAX;
        for seed in 0..12 {
            let ops = generate(seed, 600);
            let Err(difference) = run(seed, &ops, || Oracle::with_survival(rule)) else {
                continue;
            };
            found += 1;
            assert!(run(seed, &difference.shrunk, || Oracle::with_survival(rule)).is_err());
            let text = difference.to_string();
            assert!(text.contains(&format!("seed {seed}: operation {}", difference.number)));
            shortest = shortest.min(difference.shrunk.len());
        }
        assert!(found >= 4, "found with {found} of 12 seeds");
        assert!(
            shortest <= 6,
            "the shortest history has {shortest} operations"
        );
    }
}

/// Every accepted commit leaves a state; reopening leaves the last; digests tell them apart.
#[test]
fn states_of_accepted_commits() {
    for seed in seeds(0, 20) {
        let mut oracle = Oracle::new().keep_states();
        let ops = generate(seed, 200);
        let mut around = revtree_harness::apply::Surroundings::default();
        let mut commits = 0;
        for op in ops {
            let before = oracle.state_now();
            around.facts = oracle.numbers();
            let outcomes = revtree_harness::apply::apply(&mut oracle, &op, &around);
            around.after(&op, &outcomes);
            let after = oracle.state_now();
            assert_eq!(
                oracle.state().as_ref(),
                Ok(&after),
                "both ways to a state, seed {seed}"
            );
            assert_eq!(oracle.states().last(), Some(&after), "seed {seed}, {op:?}");
            commits += usize::from(before != after);
            if let Op::Reopen = op {
                assert_eq!(before, after);
            }
        }
        assert_eq!(oracle.states().len(), commits + 1);
        let mut digests: BTreeMap<u64, &State> = BTreeMap::new();
        for state in oracle.states() {
            let other = digests.insert(state.digest(), state);
            assert!(other.is_none_or(|other| other == state));
        }
    }
}
