//! What is asked, drawn by chance: keys, transactions, watchers.

use super::record::{Asked, Drops, Keys, Op, Start};
use crate::random::Random;

/// The keys: short, some of them the beginning of others.
const KEYS: [&str; 15] = [
    "",
    "\0",
    "a",
    "ab",
    "abc",
    "ac",
    "b",
    "b/1",
    "b/2",
    "b/22",
    "c",
    "d",
    "da",
    "e",
    "\u{10ffff}",
];

/// A key.
pub(super) fn key(random: &mut Random) -> String {
    (*random.pick(&KEYS)).to_owned()
}

/// Some keys.
pub(super) fn keys(random: &mut Random) -> Keys {
    match random.below(8) {
        0..3 => Keys::One(key(random)),
        3 | 4 => Keys::Prefix(
            (*random.pick(&["", "a", "ab", "b", "b/", "b/2", "d", "x", "\u{10ffff}"])).to_owned(),
        ),
        5 => {
            let (one, other) = (key(random), key(random));
            match one.cmp(&other) {
                std::cmp::Ordering::Less => Keys::Between(one, other),
                std::cmp::Ordering::Greater => Keys::Between(other, one),
                std::cmp::Ordering::Equal => Keys::One(one),
            }
        }
        6 => Keys::AtLeast(key(random)),
        _ => Keys::All,
    }
}

/// A transaction, mostly of one change. `nth` makes its values different from all others.
pub(super) fn ops(random: &mut Random, nth: u64) -> Vec<Op> {
    let count = match random.below(8) {
        0 => 2 + random.index(6),
        1 => 2,
        _ => 1,
    };
    // Some transactions change one key again and again.
    let same = random.once_in(4).then(|| key(random));
    let op = |step: usize| {
        let key = same.clone().unwrap_or_else(|| key(random));
        match random.below(10) {
            0 | 1 => Op::Delete(Keys::One(key)),
            2 => Op::Delete(keys(random)),
            _ => {
                let bytes = match random.below(10) {
                    0 => 200 + random.index(400),
                    1..4 => 40,
                    _ => 0,
                };
                Op::Put(key, format!("{nth}.{step}{}", "-".repeat(bytes)))
            }
        }
    };
    (0..count).map(op).collect()
}

/// What a watcher asks for, where this is visible and compacted.
pub(super) fn asked(random: &mut Random, visible: u64, compact: u64) -> Asked {
    let back = visible.saturating_sub(random.below(12));
    let start = match random.below(12) {
        0..4 => Start::Now,
        4 => Start::At(random.below(visible + 2)),
        5 => Start::At(back),
        6 => Start::At(compact),
        7 => Start::At(compact.saturating_sub(1 + random.below(3))),
        8 => Start::At(visible + 1 + random.below(6)),
        9 => Start::After(back),
        10 if random.once_in(8) => Start::After(u64::MAX),
        _ => Start::Oldest,
    };
    Asked {
        keys: keys(random),
        start,
        prev: random.once_in(2),
        drops: match random.below(10) {
            0 => Drops::Puts,
            1 => Drops::Deletes,
            2 => Drops::OddSubs,
            3 => Drops::ThirdRevisions,
            _ => Drops::Nothing,
        },
        bytes_max: *random.pick(&[0, 1, 30, 300, 2 << 10, 1 << 20, 1 << 20]),
    }
}
