//! Crashes, failing calls and damaged files on the simulated disk; its header states the fault model.
//! `REVTREE_SEED` replays a seed; `cargo xtask crash` and `cargo xtask faults` run more of the same.

mod damage;
mod increments;
mod medium;
mod names;
mod panics;
mod reclaim;
mod recovery;
mod refresh;
mod space;

use revtree_harness::{crash, seeds};

/// Every operation of a disk: what a power cut or a kill leaves is an accepted commit, and no
/// older than what was acknowledged. The second history is about space that is reclaimed.
#[test]
fn crashes_lose_nothing_acknowledged() {
    for seed in seeds(0, 1).into_iter().chain(seeds(3, 1)) {
        if let Err(error) = crash::crash(seed) {
            panic!("{error}\nreplay with REVTREE_SEED={seed}");
        }
    }
}

/// Every single call of short histories fails, in each way that there is: for two durabilities, with
/// either way to read. The campaign goes on with the others.
#[test]
fn every_failing_call_loses_nothing_acknowledged() {
    for seed in seeds(0, 1).into_iter().chain(seeds(6, 1)) {
        let summary = crash::every_call(seed)
            .unwrap_or_else(|error| panic!("{error}\nreplay with REVTREE_SEED={seed}"));
        println!("seed {seed}: {summary:?}");
        // The calls that matter are all there, and the history does what makes them.
        for kind in [
            "writes",
            "data syncs",
            "full syncs",
            "allocations",
            "lengths",
        ]
        .into_iter()
        .chain(["reads", "opens", "renames", "directory syncs", "locks"])
        {
            assert!(summary.kinds.contains_key(kind), "{kind}: {summary:?}");
        }
        let seen = summary.seen;
        assert!(seen.file_bytes > 2 * (64 << 10), "{seen:?}");
        assert!(seen.checkpoints > 0 && seen.reopened > 0 && seen.restored > 0);
    }
}

/// Some calls of longer histories fail, once or from then on, and the disk is full.
#[test]
fn failing_calls_lose_nothing_acknowledged() {
    for seed in seeds(0, 3) {
        if let Err(error) = crash::some_calls(seed) {
            panic!("{error}\nreplay with REVTREE_SEED={seed}");
        }
    }
}
