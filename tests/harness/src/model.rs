//! What a store under test must offer, and the runner that compares it with the oracle.
//!
//! A verb of [`Subject`] is a verb of the crate's public door with owned arguments and answers. The
//! subject keeps the handles: one open transaction, held views, savepoints and snapshots by number.

use std::collections::BTreeMap;

use bytes::Bytes;
use revtree_format::{ChangeId, LeaseId, Revision};

use crate::answer::{
    Answer, Applied, Committed, Deleted, Event, Facts, Hash, HashKv, Kv, LeaseCall, RangeAnswer,
    Rows, ViewFacts,
};
use crate::apply::{Surroundings, apply};
use crate::difference::Difference;
use crate::hash::IgnoreKey;
use crate::keys::Keys;
use crate::op::{Op, TABLES};
use crate::oracle::Oracle;
use crate::outcome::Outcome;
use crate::shrink::shrink;
use crate::simpler::simpler;
use crate::state::State;

/// The longest key.
pub const KEY_LEN_MAX: u64 = 65_535;

/// How often a history that differs is run again to make it smaller.
const RUNS_MAX: usize = 2000;

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reader {
    /// A new view: `db.read()`.
    Now,
    /// A new view of a revision: `db.read_at(rev)`.
    At(Revision),
    /// The view held under that number.
    Held(u8),
    /// The open transaction itself.
    Txn,
    /// Its `base()`.
    Base,
}

/// How a transaction is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// `write()`.
    Write,
    /// `try_write()`, when no other is open.
    TryWrite,
    /// `write_at_index(index)`.
    AtIndex(u64),
}

/// How it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// `commit()`.
    Commit,
    /// `submit()`, then `wait()`.
    Submit,
    /// `abort()`.
    Abort,
    /// It is dropped.
    Drop,
}

/// What a transaction requires of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// It is not there.
    Missing,
    /// It is there.
    Exists,
    /// It was changed last at; 0 holds for a missing key.
    ModRevision(Revision),
    /// Its generation began at; 0 holds for a missing key.
    CreateRevision(Revision),
    /// So many puts; 0 holds for a missing key.
    Version(u64),
    /// It has this value; never holds for a missing key.
    Value(Bytes),
}

/// A range to be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeQuery {
    /// Which keys.
    pub keys: Keys,
    /// `at(rev)`, if called.
    pub at: Option<Revision>,
    /// `limit(n)`, if called.
    pub limit: Option<usize>,
    /// `reverse()`.
    pub reverse: bool,
    /// `keys_only()`.
    pub keys_only: bool,
}

/// A store under test. A refusal that the oracle can say is translated; anything else is
/// `Refusal::Other`, which never agrees. While a transaction is open, only `txn_*`, reads,
/// `try_write_now` and `finish` are called.
#[expect(
    clippy::missing_errors_doc,
    reason = "each verb refuses as its namesake in the crate does"
)]
pub trait Subject {
    /// Whether `history`, `changes` and `change` say what was before each change.
    const PREV: bool = true;

    /// Whether it can take and restore snapshots; else histories go without.
    const SNAPSHOTS: bool = true;

    /// `db.put`.
    fn put(&mut self, key: &Bytes, value: &Bytes) -> Answer<Revision>;
    /// `db.delete`.
    fn delete(&mut self, key: &Bytes) -> Answer<Deleted>;
    /// `db.delete_range`.
    fn delete_range(&mut self, keys: &Keys) -> Answer<Deleted>;
    /// `db.get`.
    fn peek(&mut self, key: &Bytes) -> Answer<Option<Kv>>;

    /// Opens the transaction; false if the index was applied already.
    fn begin(&mut self, begin: Begin) -> Answer<bool>;
    /// Whether `db.try_write()` gives a transaction (dropped at once) now.
    fn try_write_now(&mut self) -> Answer<bool>;
    /// `txn.rev()`.
    fn txn_rev(&mut self) -> Answer<Revision>;
    /// `txn.put`, or `txn.put_with_lease` if the lease is not 0.
    fn txn_put(&mut self, key: &Bytes, value: &Bytes, lease: LeaseId) -> Answer<Revision>;
    /// `txn.delete`.
    fn txn_delete(&mut self, key: &Bytes) -> Answer<Deleted>;
    /// `txn.delete_range`.
    fn txn_delete_range(&mut self, keys: &Keys) -> Answer<Deleted>;
    /// `txn.require`.
    fn txn_require(&mut self, key: &Bytes, expect: &Expect) -> Answer<()>;
    /// `txn.changes()`, each with `Prev::NotAsked`.
    fn txn_changes(&mut self) -> Answer<Vec<Event>>;
    /// `txn.savepoint()`, kept under a number.
    fn txn_savepoint(&mut self, slot: u8) -> Answer<()>;
    /// `txn.roll_back_to` the newest savepoint of that number; those after it are forgotten.
    fn txn_roll_back(&mut self, slot: u8) -> Answer<()>;
    /// `txn.table(name).put`.
    fn txn_table_put(&mut self, table: &str, key: &Bytes, value: &Bytes) -> Answer<()>;
    /// `txn.table(name).delete`.
    fn txn_table_delete(&mut self, table: &str, key: &Bytes) -> Answer<bool>;
    /// `txn.set_applied`.
    fn txn_set_applied(&mut self, applied: Applied) -> Answer<()>;
    /// Ends the transaction; what it committed, if it did.
    fn finish(&mut self, finish: Finish) -> Answer<Option<Committed>>;

    /// `rev()`, `store_rev()`, `first_rev()`; never asked of a transaction.
    fn view_facts(&mut self, reader: Reader) -> Answer<ViewFacts>;
    /// `get`.
    fn get(&mut self, reader: Reader, key: &Bytes) -> Answer<Option<Kv>>;
    /// `range(…)…collect()`.
    fn range(&mut self, reader: Reader, query: &RangeQuery) -> Answer<RangeAnswer>;
    /// `range(…)…count()`.
    fn count(&mut self, reader: Reader, query: &RangeQuery) -> Answer<u64>;
    /// `range(…)…iter()`, taking by the bits of `backs`, lowest first, again from the start after
    /// 64: 0 is `next`, 1 is `next_back`; until the first `None`.
    fn both_ends(&mut self, reader: Reader, query: &RangeQuery, backs: u64) -> Answer<Vec<Kv>>;
    /// `history`: the changes of a key up to the view's that are kept, with the one that lives at the
    /// compact revision; no transaction.
    fn history(&mut self, reader: Reader, key: &Bytes) -> Answer<Vec<Event>>;
    /// `changes(keys, from..=to)`; no transaction.
    fn changes(
        &mut self,
        reader: Reader,
        keys: &Keys,
        from: Revision,
        to: Revision,
    ) -> Answer<Vec<Event>>;
    /// `change(id)`; no transaction.
    fn change(&mut self, reader: Reader, id: ChangeId) -> Answer<Event>;
    /// `table(name).iter()`; not asked of a transaction, whose tables only have `get`.
    fn table(&mut self, reader: Reader, name: &str) -> Answer<Rows>;
    /// `table(name).get(key)`.
    fn table_get(&mut self, reader: Reader, name: &str, key: &Bytes) -> Answer<Option<Bytes>>;

    /// Opens a view and keeps it under a number, in place of the one before.
    fn hold(&mut self, slot: u8, at: Option<Revision>) -> Answer<ViewFacts>;
    /// Drops it.
    fn release(&mut self, slot: u8);
    /// `rev()`, `compact_rev()`, `consistent_index()`.
    fn facts(&mut self) -> Answer<Facts>;
    /// `db.raise_consistent_index`.
    fn raise_index(&mut self, index: u64) -> Answer<Applied>;
    /// `db.compact(rev)?.wait()`, which must be `Done`.
    fn compact(&mut self, rev: Revision) -> Answer<()>;
    /// `db.reclaim`, which must find no damage. Of a store without files nothing is to be given back.
    fn reclaim(&mut self) -> Answer<()> {
        Ok(())
    }
    /// `db.hash`.
    fn hash(&mut self, ignore: &[IgnoreKey]) -> Answer<Hash>;
    /// `db.hash_by_rev`.
    fn hash_by_rev(&mut self, rev: Revision) -> Answer<HashKv>;
    /// `db.compaction_hashes`, by revision.
    fn compaction_hashes(&mut self) -> Answer<Vec<HashKv>>;
    /// Writes a snapshot to a place of that number; its revision and log position, and the compact
    /// revision. The `Snapshot` itself is dropped.
    fn snapshot(&mut self, slot: u8) -> Answer<Facts>;
    /// `db.restore` of a copy of it. Views stay as they are.
    fn restore(&mut self, slot: u8) -> Answer<()>;
    /// `db.sync`.
    fn sync(&mut self) -> Answer<Revision>;
    /// Drops every view, closes, opens again. Snapshots stay.
    fn reopen(&mut self) -> Answer<()>;

    /// The calls to the lessor since this was asked last, in order; those of an opening by key.
    /// `None` if they are not recorded.
    fn lease_calls(&mut self) -> Option<Vec<LeaseCall>> {
        None
    }

    /// Everything, through the other verbs.
    fn state(&mut self) -> Answer<State> {
        let Facts {
            current,
            compact,
            applied,
        } = self.facts()?;
        let all = |at| RangeQuery {
            keys: Keys::All,
            at,
            limit: None,
            reverse: false,
            keys_only: false,
        };
        let keys_at_compact = match compact {
            // At 0 no key can be live, and 0 would be taken for the current revision.
            Some(rev) if rev.get() > 0 => self.range(Reader::Now, &all(Some(rev)))?.kvs,
            _ => Vec::new(),
        };
        let mut tables = Vec::new();
        for name in TABLES {
            let rows = self.table(Reader::Now, name)?;
            if !rows.is_empty() {
                tables.push((name.to_owned(), rows));
            }
        }
        tables.sort_unstable();
        Ok(State {
            current,
            compact,
            applied,
            keys: self.range(Reader::Now, &all(None))?.kvs,
            keys_at_compact,
            events: self.changes(
                Reader::Now,
                &Keys::All,
                compact.unwrap_or_default(),
                current,
            )?,
            tables,
        })
    }
}

/// What a run did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Operations.
    pub ops: u64,
    /// Answers compared.
    pub answers: u64,
    /// Refusals among them.
    pub refusals: u64,
    /// Questions without meaning, left out.
    pub skipped: u64,
    /// Operations by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// The revision at the end.
    pub revision: Revision,
}

/// Runs `ops` on a new store and on a new oracle and compares every answer; at the end the states.
/// `seed` is only printed.
///
/// # Errors
///
/// The first difference, with a shrunk history that still has one.
pub fn run<S: Subject>(
    seed: u64,
    ops: &[Op],
    mut new_subject: impl FnMut() -> S,
) -> Result<Stats, Box<Difference>> {
    let _note = PanicNote(seed);
    compare(ops, new_subject()).map_err(|mut difference| {
        let matter = |difference: &Difference| difference.number + 1;
        let ops = &ops[..ops.len().min(matter(&difference))];
        let shrunk = shrink(ops, RUNS_MAX, simpler, |ops| {
            compare(ops, new_subject())
                .err()
                .map(|found| matter(&found))
        });
        difference.shrunk = shrunk.items;
        difference.smaller = compare(&difference.shrunk, new_subject()).err();
        difference.with_seed(seed)
    })
}

/// Says which seed it was when the store under test panics.
struct PanicNote(u64);

impl Drop for PanicNote {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("panicked in seed {0}; replay with REVTREE_SEED={0}", self.0);
        }
    }
}

/// One run, without shrinking.
fn compare<S: Subject>(ops: &[Op], mut subject: S) -> Result<Stats, Box<Difference>> {
    let mut oracle = Oracle::new();
    let mut surroundings = Surroundings::default();
    let mut stats = Stats::default();
    for (number, op) in ops.iter().chain([&Op::State]).enumerate() {
        if !S::SNAPSHOTS && matches!(op, Op::Snapshot(_) | Op::Restore(_)) {
            continue;
        }
        surroundings.facts = oracle.numbers();
        let expected = apply(&mut oracle, op, &surroundings);
        let found = apply(&mut subject, op, &surroundings);
        if let Some(answer) = first_difference::<S>(&expected, &found) {
            return Err(Box::new(Difference {
                seed: 0,
                number,
                op: op.clone(),
                answer,
                expected: expected.get(answer).cloned(),
                found: found.get(answer).cloned(),
                shrunk: Vec::new(),
                smaller: None,
            }));
        }
        stats.count(op, &expected);
        surroundings.after(op, &expected);
    }
    stats.revision = oracle.numbers().current;
    Ok(stats)
}

pub(crate) fn first_difference<S: Subject>(
    expected: &[Outcome],
    found: &[Outcome],
) -> Option<usize> {
    let agree = |(expected, found): (&Outcome, &Outcome)| {
        expected == found
            || *found == Outcome::LeaseCalls(None)
            || (!S::PREV && expected.clone().without_prev() == *found)
    };
    let both = expected.iter().zip(found);
    let lengths = expected.len().min(found.len());
    let differs = both.into_iter().position(|pair| !agree(pair));
    differs.or((expected.len() != found.len()).then_some(lengths))
}

impl Stats {
    fn count(&mut self, op: &Op, outcomes: &[Outcome]) {
        self.ops += 1;
        *self.kinds.entry(op.kind()).or_default() += 1;
        for outcome in outcomes {
            match outcome {
                Outcome::Skipped(_) => self.skipped += 1,
                outcome => {
                    self.answers += 1;
                    self.refusals += u64::from(outcome.refused());
                }
            }
        }
    }

    /// The sum of two runs.
    pub fn add(&mut self, other: &Stats) {
        self.ops += other.ops;
        self.answers += other.answers;
        self.refusals += other.refusals;
        self.skipped += other.skipped;
        self.revision = self.revision.max(other.revision);
        for (kind, count) in &other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
    }
}
