//! The data that all benches share: 35-byte keys, 512-byte values that do not compress.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::time::Duration;

use revtree::{Db, Durability, Options};
use tempfile::TempDir;

/// Keys of a store under a bench, each with [`REVISIONS`] versions.
pub(crate) const KEYS: u64 = 20_000;
/// Versions of each key.
pub(crate) const REVISIONS: u64 = 5;

/// `Batched` as etcd does it.
pub(crate) fn options() -> Options {
    let interval = Duration::from_millis(100);
    Options::new().durability(Durability::Batched {
        changes: 10_000,
        interval,
    })
}

/// Key `n`.
pub(crate) fn key(n: u64) -> String {
    format!("/registry/pods/ns-{:04}/pod-{n:08}", n % 1000)
}

/// A value that no two calls share.
pub(crate) fn value(seed: u64) -> [u8; 512] {
    let mut state = seed;
    let mut value = [0; 512];
    for word in value.chunks_mut(8) {
        word.copy_from_slice(&split_mix(&mut state).to_le_bytes());
    }
    value
}

/// SplitMix64: a number that follows from the state alone.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A store with all keys and versions in a scattered order, and the folder that it lies in.
pub(crate) fn loaded() -> (TempDir, Db) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder under target");
    let db = options()
        .open(dir.path().join("store"))
        .expect("a new store");
    let mut state = 1;
    for n in 0..KEYS * REVISIONS {
        // Every key comes first, then random ones.
        let key_number = if n < KEYS {
            n
        } else {
            split_mix(&mut state) % KEYS
        };
        db.put(key(key_number), value(n)).expect("put");
    }
    db.sync().expect("sync");
    (dir, db)
}
