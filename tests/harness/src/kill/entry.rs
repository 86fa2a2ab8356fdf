//! The log that a killed process applies: entry `n` is made from the seed and its number alone.
//!
//! So whoever finds a store at entry `n`, in whatever process, knows all that must be in it. It is
//! apart because both sides use it: the child on the crate, the parent on the oracle.

use bytes::Bytes;
use revtree_format::{LeaseId, Revision};

use crate::answer::{Answer, Applied};
use crate::keys::Keys;
use crate::model::{Begin, Finish, Subject};
use crate::oracle::Oracle;
use crate::random::Random;

/// The side table with the number of the last entry, and the row that has it.
pub(super) const TABLE: &str = "meta";
/// See [`TABLE`].
pub(super) const NUMBER: &[u8] = b"entry";
/// The side table with rows that come and go.
const ROWS: &str = "Members";
/// So few keys that each is put and deleted often.
const KEYS: u64 = 48;

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Put(Bytes, Bytes),
    Delete(Bytes),
    DeleteRange(Bytes, Bytes),
    Row(&'static str, Bytes, Bytes),
    NoRow(&'static str, Bytes),
}

/// What is done after the commit of an entry, beside other writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Nothing,
    /// The consistent index is raised to the odd number behind the entry's.
    Raise,
    /// All up to so many revisions before the current one is compacted.
    Compact(u64),
    /// A snapshot is saved and restored, while nobody writes.
    Restore,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) steps: Vec<Step>,
    /// It is tried and given up once before.
    pub(super) aborted: bool,
    /// It asks for more durability than the store has.
    pub(super) sync: bool,
    pub(super) after: After,
}

impl Entry {
    /// The entry of that number, whose changes get the revision `rev` if it has any.
    pub(super) fn of(seed: u64, number: u64, rev: u64) -> Entry {
        let mut random = Random::new(seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        let key = |number: u64| Bytes::from(format!("key/{number:02}"));
        let mut steps = vec![Step::Row(
            TABLE,
            Bytes::from_static(NUMBER),
            Bytes::copy_from_slice(&number.to_be_bytes()),
        )];
        // Some entries make no revision.
        if !random.once_in(12) {
            let puts = if random.once_in(12) { 30 } else { 4 };
            for place in 0..=random.below(puts) {
                let value = value(&mut random, rev, number, place);
                steps.push(Step::Put(key(random.below(KEYS)), value));
            }
            if random.once_in(3) {
                steps.push(Step::Delete(key(random.below(KEYS))));
            }
            if random.once_in(20) {
                let from = random.below(KEYS);
                steps.push(Step::DeleteRange(key(from), key(from + random.below(9))));
            }
        }
        let row = Bytes::from(format!("row/{}", random.below(8)));
        steps.push(match random.below(4) {
            0 => Step::NoRow(ROWS, row),
            _ => Step::Row(ROWS, row, Bytes::copy_from_slice(&number.to_be_bytes())),
        });
        Entry {
            number,
            steps,
            aborted: random.once_in(8),
            sync: random.once_in(10),
            after: match random.below(60) {
                0..6 => After::Raise,
                6 | 7 => After::Compact(random.below(40)),
                8 => After::Restore,
                _ => After::Nothing,
            },
        }
    }

    /// Raft's position that it saves: even, so that a raise has a number between two.
    pub(super) fn applied(&self) -> Applied {
        Applied {
            index: 2 * self.number,
            term: 1 + self.number / 100,
        }
    }

    /// The revision that the model has after it.
    pub(super) fn apply(&self, oracle: &mut Oracle) -> Answer<Revision> {
        oracle.begin(Begin::Write)?;
        for step in &self.steps {
            match step {
                Step::Put(key, value) => {
                    oracle.txn_put(key, value, LeaseId::NONE)?;
                }
                Step::Delete(key) => {
                    oracle.txn_delete(key)?;
                }
                Step::DeleteRange(from, to) => {
                    oracle.txn_delete_range(&Keys::Between(from.clone(), to.clone()))?;
                }
                Step::Row(table, key, value) => oracle.txn_table_put(table, key, value)?,
                Step::NoRow(table, key) => {
                    oracle.txn_table_delete(table, key)?;
                }
            }
        }
        oracle.txn_set_applied(self.applied())?;
        oracle.finish(Finish::Commit)?;
        Ok(oracle.numbers().current)
    }
}

/// A value that says its revision, its entry and its place there; now and then one of many pages.
fn value(random: &mut Random, rev: u64, number: u64, place: u64) -> Bytes {
    let most = if random.once_in(40) { 40_000 } else { 900 };
    let mut value = vec![rev.to_le_bytes()[0]; 24 + random.index(most)];
    for (at, part) in [rev, number, place].into_iter().enumerate() {
        value[8 * at..8 * at + 8].copy_from_slice(&part.to_be_bytes());
    }
    Bytes::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry is the same whoever asks, and every kind of step and of what follows occurs.
    #[test]
    fn entries() {
        let entries: Vec<Entry> = (1..2000).map(|n| Entry::of(7, n, n + 1)).collect();
        assert_eq!(entries[41], Entry::of(7, 42, 43));
        assert_ne!(entries[41].steps, Entry::of(8, 42, 43).steps);
        let has = |holds: fn(&Entry) -> bool| assert!(entries.iter().any(holds));
        has(|entry| matches!(entry.after, After::Compact(_)));
        has(|entry| entry.after == After::Raise && entry.aborted);
        has(|entry| entry.after == After::Restore);
        has(|entry| !entry.steps.iter().any(|step| matches!(step, Step::Put(..))));
        has(|entry| (entry.steps.iter()).any(|step| matches!(step, Step::DeleteRange(..))));
    }
}
