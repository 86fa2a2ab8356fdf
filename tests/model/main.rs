//! The store against the model: random histories, every answer compared. One seed is one world;
//! `REVTREE_SEED` replays it. `cargo xtask model` runs more of the same.

use std::sync::atomic::{AtomicU64, Ordering};

use revtree::Options;
use revtree_harness::{Store, generate, generate_with_reclaims, run, seeds};

/// In memory, in small segments and with many checkpoints: worlds that compact, abort, reopen.
#[test]
fn histories_in_memory() {
    for seed in seeds(0, 24) {
        if let Err(difference) = run(seed, &generate_with_reclaims(seed, 500), || {
            Store::for_seed(seed)
        }) {
            panic!("{difference}");
        }
    }
}

/// The same on real files, which are mapped.
#[test]
fn histories_on_files() {
    let dir = tempfile::tempdir().unwrap();
    let next = AtomicU64::new(0);
    for seed in seeds(100, 6) {
        let new_store = || {
            let path = dir
                .path()
                .join(next.fetch_add(1, Ordering::Relaxed).to_string());
            Store::open(path, || {
                Options::new()
                    .segment_bytes(64 << 10)
                    .checkpoint_bytes(32 << 10)
                    .store_bytes_max(1 << 32)
            })
            .unwrap()
        };
        if let Err(difference) = run(seed, &generate(seed, 300), new_store) {
            panic!("{difference}");
        }
    }
}
