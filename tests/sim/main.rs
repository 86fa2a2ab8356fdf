//! Crashes, failing calls and damaged files on the simulated disk; its header states the fault model.
//! `REVTREE_SEED` replays a seed; `cargo xtask crash` runs more of the same.

mod damage;
mod medium;
mod recovery;

use revtree_harness::{crash, seeds};

/// Every operation of a disk: what a power cut or a kill leaves is an accepted commit, and no
/// older than what was acknowledged.
#[test]
fn crashes_lose_nothing_acknowledged() {
    for seed in seeds(0, 1) {
        if let Err(error) = crash::crash(seed) {
            panic!("{error}\nreplay with REVTREE_SEED={seed}");
        }
    }
}

/// Every kind of call fails, once or from then on, and the disk is full.
#[test]
fn failing_calls_lose_nothing_acknowledged() {
    for seed in seeds(0, 3) {
        if let Err(error) = crash::faults(seed) {
            panic!("{error}\nreplay with REVTREE_SEED={seed}");
        }
    }
}
