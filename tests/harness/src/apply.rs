//! Does one operation on a store and collects its answers.
//!
//! The same code drives the oracle and the store under test. What an operation means, the number
//! of a revision or whether a held view exists, is decided from the oracle's side alone, so that
//! both are asked the same.

use std::collections::{BTreeMap, BTreeSet};

use revtree_format::{ChangeId, Revision};

use crate::answer::{Applied, Facts, Refusal, ViewFacts};
use crate::model::{Begin, Finish, RangeQuery, Reader, Subject};
use crate::op::{Ask, Eyes, Op, Read, Step};
use crate::outcome::Outcome;

/// What the runner knows about both stores before an operation.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The oracle's numbers.
    pub facts: Facts,
    held: BTreeMap<u8, Held>,
    snapshots: BTreeSet<u8>,
}

#[derive(Clone, Debug)]
struct Held {
    facts: ViewFacts,
    /// The content was replaced since: only what the view itself pins can be read.
    replaced: bool,
}

impl Default for Surroundings {
    fn default() -> Surroundings {
        let facts = Facts {
            current: Revision::new(1),
            compact: None,
            applied: Applied::default(),
        };
        Surroundings {
            facts,
            held: BTreeMap::new(),
            snapshots: BTreeSet::new(),
        }
    }
}

impl Surroundings {
    /// Learns from what the oracle answered.
    pub fn after(&mut self, op: &Op, outcomes: &[Outcome]) {
        match (op, outcomes.first()) {
            (Op::Hold(slot, _), Some(Outcome::View(Ok(facts)))) => {
                self.held.insert(
                    *slot,
                    Held {
                        facts: *facts,
                        replaced: false,
                    },
                );
            }
            (Op::Release(slot), _) => {
                self.held.remove(slot);
            }
            (Op::Snapshot(slot), Some(Outcome::Facts(Ok(_)))) => {
                self.snapshots.insert(*slot);
            }
            (Op::Restore(_), Some(Outcome::Unit(Ok(())))) => {
                self.held.values_mut().for_each(|held| held.replaced = true);
            }
            (Op::Reopen, _) => self.held.clear(),
            _ => {}
        }
    }

    /// The numbers of the views that are held.
    pub(crate) fn held(&self) -> impl Iterator<Item = u8> + '_ {
        self.held.keys().copied()
    }

    /// Saving or restoring the snapshot of that number has failed: what is there now is not known.
    pub(crate) fn forget_snapshot(&mut self, slot: u8) {
        self.snapshots.remove(&slot);
    }

    /// Why a read means nothing to this reader, if so: the door does not say what it answers.
    fn meaningless(&self, reader: Reader, read: &Read) -> Option<&'static str> {
        let at = match read {
            Read::Range(ask) | Read::Count(ask) | Read::BothEnds(ask, _) => ask.at,
            _ => None,
        };
        let of_view = matches!(
            read,
            Read::History(_) | Read::Changes(..) | Read::Change(..)
        );
        match reader {
            Reader::Txn if of_view || matches!(read, Read::ViewFacts | Read::Table(_)) => {
                Some("not offered by a transaction")
            }
            Reader::At(_) if at.is_some() => Some("two revisions"),
            Reader::At(_) if matches!(read, Read::Changes(..)) => Some("changes of an old view"),
            Reader::Held(slot) => {
                let Some(held) = self.held.get(&slot) else {
                    return Some("no such view");
                };
                let at = at.map(|at| at.resolve(&self.facts));
                if held.replaced && (at.is_some() || of_view) {
                    return Some("the content was replaced");
                }
                if at.is_some_and(|at| at.get() == 0 || at == held.facts.rev) {
                    return Some("the view's own revision");
                }
                let old = held.facts.rev != held.facts.store_rev;
                (old && matches!(read, Read::Changes(..))).then_some("changes of an old view")
            }
            _ => None,
        }
    }
}

/// Does `op` on `store`. The answers come in a fixed order; a transaction gives one for its
/// begin, one for each step, one for its end, and the numbers after it. What writes is followed by
/// the calls to the lessor.
pub fn apply<S: Subject>(store: &mut S, op: &Op, around: &Surroundings) -> Vec<Outcome> {
    let mut outcomes = answers(store, op, around);
    match op {
        Op::Put(..) | Op::Delete(_) | Op::DeleteRange(_) | Op::Txn(..) | Op::Reopen => {
            outcomes.push(Outcome::LeaseCalls(store.lease_calls()));
        }
        // The door does not say whether a restored store first detaches what was there.
        Op::Restore(_) => drop(store.lease_calls()),
        _ => {}
    }
    outcomes
}

fn answers<S: Subject>(store: &mut S, op: &Op, around: &Surroundings) -> Vec<Outcome> {
    let facts = &around.facts;
    let one = |outcome| vec![outcome];
    match op {
        Op::Put(key, value) => one(Outcome::Revision(store.put(key, &value.bytes()))),
        Op::Delete(key) => one(Outcome::Deleted(store.delete(key))),
        Op::DeleteRange(keys) => one(Outcome::Deleted(store.delete_range(keys))),
        Op::Txn(begin, steps, finish) => transaction(store, *begin, steps, *finish, around),
        Op::RaiseIndex(index) => one(Outcome::Applied(store.raise_index(*index))),
        Op::Compact(when) => {
            vec![
                Outcome::Unit(store.compact(when.resolve(facts))),
                Outcome::Facts(store.facts()),
            ]
        }
        Op::Reclaim => one(Outcome::Unit(store.reclaim())),
        Op::Peek(key) => one(Outcome::Kv(store.peek(key))),
        Op::Read(eyes, what) => {
            let reader = match eyes {
                Eyes::Now => Reader::Now,
                Eyes::At(when) => Reader::At(when.resolve(facts)),
                Eyes::Held(slot) => Reader::Held(*slot),
            };
            one(read(store, reader, what, around))
        }
        Op::Hash(ignore) => one(Outcome::Hash(store.hash(ignore))),
        Op::HashByRev(when) => one(Outcome::HashKv(store.hash_by_rev(when.resolve(facts)))),
        Op::CompactionHashes => one(Outcome::HashKvs(store.compaction_hashes())),
        Op::Hold(slot, at) => one(Outcome::View(
            store.hold(*slot, at.map(|at| at.resolve(facts))),
        )),
        Op::Release(slot) => {
            store.release(*slot);
            Vec::new()
        }
        Op::Snapshot(slot) => one(Outcome::Facts(store.snapshot(*slot))),
        Op::Restore(slot) if !around.snapshots.contains(slot) => {
            one(Outcome::Skipped("no such snapshot"))
        }
        Op::Restore(slot) => everything(Outcome::Unit(store.restore(*slot)), store),
        Op::Sync => one(Outcome::Revision(store.sync())),
        Op::Reopen => everything(Outcome::Unit(store.reopen()), store),
        Op::State => everything(Outcome::Facts(store.facts()), store),
    }
}

/// All that can be read, and the hash over the records, which also sees those that no read shows.
fn everything<S: Subject>(first: Outcome, store: &mut S) -> Vec<Outcome> {
    let state = store.state().map(Box::new);
    vec![first, Outcome::State(state), Outcome::Hash(store.hash(&[]))]
}

fn transaction<S: Subject>(
    store: &mut S,
    begin: Begin,
    steps: &[Step],
    finish: Finish,
    around: &Surroundings,
) -> Vec<Outcome> {
    let begun = store.begin(begin);
    let open = begun == Ok(true);
    let mut outcomes = vec![Outcome::Bool(begun)];
    if !open {
        return outcomes;
    }
    // The savepoints that can be gone back to: a shrunk history may have lost some.
    let mut savepoints = Vec::new();
    for step in steps {
        match step {
            Step::Savepoint(slot) => savepoints.push(*slot),
            Step::RollBack(slot) => {
                let Some(place) = savepoints.iter().rposition(|other| other == slot) else {
                    outcomes.push(Outcome::Skipped("no such savepoint"));
                    continue;
                };
                savepoints.truncate(place + 1);
            }
            _ => {}
        }
        let outcome = do_step(store, step, around);
        // What the oracle never says is a failure, behind which a caller would not commit.
        let failed = matches!(outcome.refusal(), Some(Refusal::Other(_)));
        outcomes.push(outcome);
        if failed {
            outcomes.push(Outcome::Committed(store.finish(Finish::Drop)));
            return outcomes;
        }
    }
    outcomes.push(Outcome::Committed(store.finish(finish)));
    outcomes.push(Outcome::Facts(store.facts()));
    outcomes
}

fn do_step<S: Subject>(store: &mut S, step: &Step, around: &Surroundings) -> Outcome {
    match step {
        Step::Put(key, value, lease) => {
            Outcome::Revision(store.txn_put(key, &value.bytes(), *lease))
        }
        Step::Delete(key) => Outcome::Deleted(store.txn_delete(key)),
        Step::DeleteRange(keys) => Outcome::Deleted(store.txn_delete_range(keys)),
        Step::Require(key, expect) => Outcome::Unit(store.txn_require(key, expect)),
        Step::Changes => Outcome::Events(store.txn_changes()),
        Step::Rev => Outcome::Revision(store.txn_rev()),
        Step::Savepoint(slot) => Outcome::Unit(store.txn_savepoint(*slot)),
        Step::RollBack(slot) => Outcome::Unit(store.txn_roll_back(*slot)),
        Step::PutRow(table, key, value) => {
            Outcome::Unit(store.txn_table_put(table, key, &value.bytes()))
        }
        Step::DeleteRow(table, key) => Outcome::Bool(store.txn_table_delete(table, key)),
        Step::SetApplied(applied) => Outcome::Unit(store.txn_set_applied(*applied)),
        Step::Own(what) => read(store, Reader::Txn, what, around),
        Step::Base(what) => read(store, Reader::Base, what, around),
        Step::Outside(what) => read(store, Reader::Now, what, around),
        Step::TryWrite => Outcome::Bool(store.try_write_now()),
    }
}

fn read<S: Subject>(store: &mut S, reader: Reader, what: &Read, around: &Surroundings) -> Outcome {
    if let Some(why) = around.meaningless(reader, what) {
        return Outcome::Skipped(why);
    }
    let facts = &around.facts;
    match what {
        Read::Get(key) => Outcome::Kv(store.get(reader, key)),
        Read::Range(ask) => Outcome::Range(store.range(reader, &query(ask, facts))),
        Read::Count(ask) => Outcome::Count(store.count(reader, &query(ask, facts))),
        Read::BothEnds(ask, backs) => {
            Outcome::Kvs(store.both_ends(reader, &query(ask, facts), *backs))
        }
        Read::History(key) => Outcome::Events(store.history(reader, key)),
        Read::Changes(keys, from, to) => {
            let (from, to) = (from.resolve(facts), to.resolve(facts));
            Outcome::Events(store.changes(reader, keys, from, to))
        }
        Read::Change(main, sub) => {
            let main = main.resolve(facts);
            if facts.compact.is_some_and(|compact| main < compact) {
                return Outcome::Skipped("a change below the compact revision");
            }
            Outcome::Event(store.change(reader, ChangeId::new(main, *sub)))
        }
        Read::Table(name) => Outcome::Rows(store.table(reader, name)),
        Read::Row(name, key) => Outcome::Row(store.table_get(reader, name, key)),
        Read::ViewFacts => Outcome::View(store.view_facts(reader)),
    }
}

fn query(ask: &Ask, facts: &Facts) -> RangeQuery {
    RangeQuery {
        keys: ask.keys.clone(),
        at: ask.at.map(|at| at.resolve(facts)),
        limit: ask.limit,
        reverse: ask.reverse,
        keys_only: ask.keys_only,
    }
}
