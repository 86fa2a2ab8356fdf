//! Small worlds: all histories of a few transactions, each with all that a power cut may leave.
//!
//! Most crash bugs that were ever found need three operations or fewer on a fresh store. So these are not
//! drawn but counted: number n is one history, and the numbers below [`WORLDS_MAX`] are all of them, short
//! ones first. At every operation of the disk every subset of the sectors that differ is tried, with and
//! without the new lengths and names; where more than twelve differ (a checkpoint beside a group), corners
//! and samples, as in the large histories.

use bytes::Bytes;
use revtree::{Durability, ReadMode};
use revtree_format::LeaseId;

use super::history::{History, Setup};
use super::{Case, CrashSummary, Reach};
use crate::answer::Applied;
use crate::keys::Keys;
use crate::model::{Begin, Finish};
use crate::op::{Blob, Op, Step, TABLES, When};
use crate::random::Random;

/// The most transactions of a small world.
const LENGTH_MAX: u32 = 4;
/// What a transaction may be: see [`step`].
const ALPHABET: u64 = 7;
/// How the store is opened: see [`setup`].
const SETUPS: u64 = 3;

/// How many small worlds there are.
pub const WORLDS_MAX: u64 = SETUPS * count(LENGTH_MAX);

/// Histories of at most so many transactions.
const fn count(length: u32) -> u64 {
    let mut sum = 0;
    let mut n = 0;
    while n < length {
        n += 1;
        sum += ALPHABET.pow(n);
    }
    sum
}

/// Crashes the small world of this number in all ways.
///
/// # Errors
///
/// As [`super::crash`].
pub fn world(number: u64) -> Result<CrashSummary, String> {
    Case {
        seed: number,
        setup: setup(number % SETUPS),
        ops: ops(number / SETUPS),
        random: Random::new(number),
        reach: Reach::Every,
        run: History::of,
    }
    .crash()
    .map_err(|error| format!("small world {number}: {error}"))
}

/// A checkpoint after each commit and none, positioned reads too.
fn setup(number: u64) -> Setup {
    let (checkpoint_bytes, read_mode) = match number {
        0 => (1 << 20, ReadMode::Map),
        1 => (1, ReadMode::Map),
        _ => (1, ReadMode::Pread),
    };
    Setup {
        durability: Durability::Sync,
        checkpoint_bytes,
        read_mode,
    }
}

/// The transactions of a history: its number in a system whose digits are the alphabet, short ones first.
fn ops(number: u64) -> Vec<Op> {
    let (mut number, mut length) = (number, 1);
    while number >= ALPHABET.pow(length) {
        number -= ALPHABET.pow(length);
        length += 1;
    }
    let digits = (0..length).map(|place| number / ALPHABET.pow(place) % ALPHABET);
    digits
        .zip(1..)
        .map(|(digit, place)| step(digit, place))
        .collect()
}

/// One transaction. Keys that were never told apart by anything are one: two are enough for each role,
/// a key that lives on and one that does not.
fn step(digit: u64, place: u8) -> Op {
    let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
    let value = Blob {
        seed: place,
        len: 3,
    };
    match digit {
        0 => Op::Put(a, value),
        1 => Op::Delete(a),
        2 => Op::Txn(
            Begin::Write,
            vec![
                Step::Put(b, value, LeaseId(place.into())),
                Step::DeleteRange(Keys::Single(a)),
                Step::PutRow(TABLES[0], Bytes::from_static(b"row"), value),
            ],
            Finish::Commit,
        ),
        3 => Op::Txn(
            Begin::Write,
            vec![Step::SetApplied(Applied {
                index: place.into(),
                term: 1,
            })],
            Finish::Commit,
        ),
        4 => Op::Compact(When::Back(0)),
        5 => Op::Reopen,
        // A frame of several sectors.
        _ => Op::Put(
            a,
            Blob {
                len: 1100,
                seed: place,
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{ALPHABET, WORLDS_MAX, count, ops};

    /// Each history once, none left out, short ones first.
    #[test]
    fn numbers_are_histories() {
        let all: Vec<String> = (0..count(3)).map(|n| format!("{:?}", ops(n))).collect();
        let mut sorted = all.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len());
        assert_eq!(ops(0).len(), 1);
        assert_eq!(ops(ALPHABET).len(), 2);
        assert_eq!(ops(count(3) - 1).len(), 3);
        assert_eq!(WORLDS_MAX, 3 * (7 + 49 + 343 + 2401));
    }
}
