//! Real threads on a store, each with its own stream of chance, and what they were answered.
//!
//! The seed says what each thread asks, but for what follows from answers; which call comes first is up to
//! the machine. So a history is kept as it was, and the seed alone does not bring it back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use revtree::{Db, Durability, Error, EventKind, Expect, KeyValue, ReadView, WriteTxn};

use super::record::{Answer, Call, Change, Compare, Entry, Event, Kv, Saw, Txn, Wrote};
use super::replay::FIRST;
use crate::random::Random;

/// How many threads there are, and what each does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Threads that mostly write.
    pub writers: usize,
    /// Threads that mostly read.
    pub readers: usize,
    /// Calls of each.
    pub calls: usize,
    /// Different keys.
    pub keys: usize,
    /// Bytes of a value, at most.
    pub value_bytes_max: usize,
}

/// The views that a thread holds.
const HELD_MAX: usize = 4;
/// Behind every key.
const LAST: &str = "~";

/// Lets the threads of a plan do what the seed says, and gives what they saw.
///
/// # Panics
///
/// With the panic of a thread.
pub fn run(
    db: &Db,
    durability: Durability,
    plan: Plan,
    seed: u64,
    disk_operations: &(dyn Fn() -> u64 + Sync),
) -> Vec<Entry> {
    let moments = AtomicU64::new(1);
    let ready = AtomicUsize::new(0);
    let threads = plan.writers + plan.readers;
    let one = |thread: usize| {
        let mut one = Thread {
            db,
            plan,
            thread,
            is_sync: durability == Durability::Sync,
            random: Random::new(seed ^ (thread as u64 + 1) << 40),
            moments: &moments,
            disk_operations,
            newest: FIRST,
            known: BTreeMap::new(),
            held: Vec::new(),
            values: 0,
        };
        // Not a barrier: those who sleep on it come one after the other.
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < threads {
            thread::yield_now();
        }
        (0..plan.calls).map(|_| one.call()).collect::<Vec<Entry>>()
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let one = &one;
                scope.spawn(move || one(thread))
            })
            .collect();
        let joined = running.into_iter().map(thread::ScopedJoinHandle::join);
        joined
            .flat_map(|entries| entries.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

struct Thread<'r> {
    db: &'r Db,
    plan: Plan,
    thread: usize,
    is_sync: bool,
    random: Random,
    moments: &'r AtomicU64,
    disk_operations: &'r (dyn Fn() -> u64 + Sync),
    /// The newest revision that it knows of.
    newest: u64,
    /// What it knows of keys, to compare with.
    known: BTreeMap<String, Option<Kv>>,
    held: Vec<ReadView>,
    values: u64,
}

impl Thread<'_> {
    fn call(&mut self) -> Entry {
        let (call, view) = self.draw();
        if self.random.once_in(3) {
            thread::yield_now();
        }
        let disk_before = (self.disk_operations)();
        let invoked = self.moments.fetch_add(1, Ordering::SeqCst);
        let answer = self.ask(&call, view);
        let returned = self.moments.fetch_add(1, Ordering::SeqCst);
        let disk_after = (self.disk_operations)();
        self.learn(&call, &answer);
        Entry {
            thread: self.thread,
            invoked,
            returned,
            disk_before,
            disk_after,
            call,
            answer,
        }
    }

    /// What to ask, and the view for it that is held.
    fn draw(&mut self) -> (Call, Option<ReadView>) {
        let writes = self.thread < self.plan.writers;
        let chance = self.random.below(100);
        let call = match chance {
            0..3 => Call::Compact(self.newest.saturating_sub(self.random.below(12)).max(2)),
            3..6 if writes => Call::Sync,
            6..36 if writes => {
                let (key, value) = (self.key(), self.value());
                Call::Put(key, value)
            }
            36..46 if writes => Call::Delete(self.key()),
            46..76 if writes => self.txn(),
            0..76 if !self.held.is_empty() && self.random.once_in(3) => {
                let view = self.held[self.random.index(self.held.len())].clone();
                if self.random.once_in(8) {
                    self.held.clear();
                }
                let (from, to) = self.range();
                return (Call::Held(view.rev().get(), from, to), Some(view));
            }
            76..84 => Call::Changes(self.past().max(2)),
            84..90 => {
                let ((from, to), past) = (self.range(), self.past());
                // Now and then one that is still to come.
                let past = past + if self.random.once_in(8) { 9 } else { 0 };
                Call::Range(Some(past), from, to)
            }
            n if n % 2 == 0 => Call::Get(self.key()),
            _ => {
                let (from, to) = self.range();
                Call::Range(None, from, to)
            }
        };
        (call, None)
    }

    fn key(&mut self) -> String {
        format!("k{:02}", self.random.index(self.plan.keys))
    }

    /// No value is put twice: what is read says who wrote it.
    fn value(&mut self) -> String {
        self.values += 1;
        let padding = if self.random.once_in(4) {
            self.random.index(self.plan.value_bytes_max)
        } else {
            0
        };
        format!("{}.{}{}", self.thread, self.values, ".".repeat(padding))
    }

    fn past(&mut self) -> u64 {
        let back = self.random.below(16);
        self.newest.saturating_sub(back).max(FIRST)
    }

    fn range(&mut self) -> (String, String) {
        if self.random.once_in(2) {
            (String::new(), LAST.to_owned())
        } else {
            (self.key(), self.key())
        }
    }

    fn txn(&mut self) -> Call {
        let mut txn = Txn::default();
        for _ in 0..self.random.below(3) {
            let key = self.key();
            let compare = self.compare(&key);
            txn.compares.push((key, compare));
        }
        txn.then = self.changes();
        if !txn.compares.is_empty() && self.random.once_in(2) {
            txn.otherwise = self.changes();
        }
        Call::Txn(txn)
    }

    fn compare(&mut self, key: &str) -> Compare {
        let known = self.known.get(key).cloned().flatten();
        match (known, self.random.below(6)) {
            (None, 0..3) => Compare::Missing,
            (_, 0) => Compare::Missing,
            (None, _) | (_, 1) => Compare::Exists,
            (Some(kv), 2) => Compare::Modified(kv.modified),
            (Some(kv), 3) => Compare::Created(kv.create),
            (Some(kv), 4) => Compare::Version(kv.version),
            (Some(kv), _) => Compare::Value(kv.value),
        }
    }

    fn changes(&mut self) -> Vec<Change> {
        let mut changes = BTreeMap::new();
        for _ in 0..1 + self.random.below(4) {
            let key = self.key();
            let change = if self.random.once_in(4) {
                Change::Delete(key.clone())
            } else {
                Change::Put(key.clone(), self.value())
            };
            changes.insert(key, change);
        }
        changes.into_values().collect()
    }

    fn ask(&mut self, call: &Call, view: Option<ReadView>) -> Answer {
        let asked = match call {
            Call::Put(key, value) => {
                let put = self.db.put(key, value);
                unsure(put.map(|rev| (rev.get(), self.is_sync)))
                    .map(|(rev, durable, sure)| Answer::Wrote(wrote(None, rev, 1, durable, sure)))
            }
            Call::Delete(key) => {
                let txn = Txn {
                    then: vec![Change::Delete(key.clone())],
                    ..Txn::default()
                };
                self.write(&txn)
            }
            Call::Txn(txn) => self.write(txn),
            Call::Compact(rev) => match self.db.compact(*rev) {
                Err(Error::CommitUnknown { .. }) => Ok(Answer::Unknown),
                other => other.map(|_| Answer::Done(*rev)),
            },
            Call::Sync => match self.db.sync() {
                Err(Error::Poisoned { .. } | Error::Io { .. }) => Ok(Answer::Unknown),
                other => other.map(|rev| Answer::Done(rev.get())),
            },
            Call::Get(key) => {
                let found = self.db.get(key);
                found.map(|kv| Answer::One(kv.as_ref().map(plain)))
            }
            Call::Range(rev, from, to) => {
                let view = match rev {
                    None => self.db.read(),
                    Some(rev) => self.db.read_at(*rev),
                };
                view.and_then(|view| self.look(view, from, to))
            }
            Call::Held(_, from, to) => match view {
                Some(view) => look(&view, from, to),
                None => Ok(Answer::Failed("no view".to_owned())),
            },
            Call::Changes(from) => self.db.read().and_then(|view| told(&view, *from)),
        };
        asked.unwrap_or_else(|error| match error {
            Error::Compacted { compacted, .. } => Answer::Compacted(compacted.get()),
            Error::FutureRevision { current, .. } => Answer::Future(current.get()),
            // A write that fails before the commit is accepted leaves nothing of it.
            Error::Poisoned { .. } | Error::Io { .. } if is_write(call) => Answer::Refused,
            other => Answer::Failed(format!("{other:?}")),
        })
    }

    fn write(&mut self, asked: &Txn) -> revtree::Result<Answer> {
        let mut txn = self.db.write()?;
        let mut saw = Saw {
            base: txn.rev().get(),
            compared: Vec::new(),
        };
        for (key, compare) in &asked.compares {
            let held = match txn.require(key, expect(compare)) {
                Ok(()) => true,
                Err(Error::Conflict { .. }) => false,
                Err(other) => return Err(other),
            };
            let found = txn.get(key)?.map(|record| plain(&record.to_key_value()));
            saw.compared.push((held, found));
        }
        let all = saw.compared.iter().all(|(held, _)| *held);
        let changes = change(&mut txn, if all { &asked.then } else { &asked.otherwise })?;
        if self.random.once_in(10) {
            txn.require_sync();
        }
        let commit = txn.commit().map(|commit| {
            // Its own count is compared with what its parts have said.
            let same = commit.changes == changes;
            (if same { commit.revision.get() } else { 0 }, commit.durable)
        });
        let (rev, durable, sure) = unsure(commit)?;
        let rev = if changes == 0 && !sure { saw.base } else { rev };
        Ok(Answer::Wrote(wrote(Some(saw), rev, changes, durable, sure)))
    }

    /// Reads in a new view, and may hold it.
    fn look(&mut self, view: ReadView, from: &str, to: &str) -> revtree::Result<Answer> {
        let seen = look(&view, from, to);
        if self.held.len() < HELD_MAX && self.random.once_in(2) {
            self.held.push(view);
        }
        seen
    }

    fn learn(&mut self, call: &Call, answer: &Answer) {
        let rev = match answer {
            Answer::Wrote(wrote) if wrote.sure => wrote.rev,
            Answer::Kvs(rev, _) | Answer::Events(rev, _) | Answer::Future(rev) => *rev,
            _ => FIRST,
        };
        self.newest = self.newest.max(rev);
        match (call, answer) {
            (Call::Get(key), Answer::One(found)) => {
                self.known.insert(key.clone(), found.clone());
            }
            (Call::Range(None, ..), Answer::Kvs(_, kvs)) => {
                let known = kvs.iter().map(|kv| (kv.key.clone(), Some(kv.clone())));
                self.known.extend(known);
            }
            _ => {}
        }
    }
}

fn is_write(call: &Call) -> bool {
    matches!(
        call,
        Call::Put(..) | Call::Delete(_) | Call::Txn(_) | Call::Compact(_)
    )
}

/// A write that has failed only in the end: its revision, whether it is durable, whether it is sure.
fn unsure(result: revtree::Result<(u64, bool)>) -> revtree::Result<(u64, bool, bool)> {
    match result {
        Ok((rev, durable)) => Ok((rev, durable, true)),
        Err(Error::CommitUnknown { revision, .. }) => Ok((revision.get(), false, false)),
        Err(other) => Err(other),
    }
}

fn wrote(saw: Option<Saw>, rev: u64, changes: u64, durable: bool, sure: bool) -> Wrote {
    Wrote {
        saw,
        rev,
        changes,
        sure,
        durable,
    }
}

/// Does changes in a transaction; gives how many were any.
fn change(txn: &mut WriteTxn, changes: &[Change]) -> revtree::Result<u64> {
    let mut count = 0;
    for change in changes {
        count += match change {
            Change::Put(key, value) => {
                txn.put(key, value)?;
                1
            }
            Change::Delete(key) => txn.delete(key)?.count,
        };
    }
    Ok(count)
}

fn look(view: &ReadView, from: &str, to: &str) -> revtree::Result<Answer> {
    let result = view.range(from..to).collect()?;
    let kvs = result.kvs.iter().map(plain).collect();
    Ok(Answer::Kvs(view.rev().get(), kvs))
}

/// The changes of a view from a revision on.
///
/// # Errors
///
/// As [`ReadView::changes`].
pub fn told(view: &ReadView, from: u64) -> revtree::Result<Answer> {
    let mut events = Vec::new();
    for event in view.changes(.., from.into()..=view.rev())? {
        let event = event?;
        let (key, value) = (text(&event.kv.key), text(&event.kv.value));
        let change = match event.kind {
            EventKind::Put => Change::Put(key, value),
            _ => Change::Delete(key),
        };
        let (rev, sub) = (event.id.main.get(), event.id.sub);
        events.push(Event { rev, sub, change });
    }
    Ok(Answer::Events(view.rev().get(), events))
}

/// A key as the checker has it.
#[must_use]
pub fn plain(kv: &KeyValue) -> Kv {
    Kv {
        key: text(&kv.key),
        value: text(&kv.value),
        create: kv.create_revision.get(),
        modified: kv.mod_revision.get(),
        version: kv.version,
    }
}

/// What is no text is not what was put; it stays different from it.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn expect(compare: &Compare) -> Expect<'_> {
    match compare {
        Compare::Missing => Expect::Missing,
        Compare::Exists => Expect::Exists,
        Compare::Modified(rev) => Expect::ModRevision((*rev).into()),
        Compare::Created(rev) => Expect::CreateRevision((*rev).into()),
        Compare::Version(version) => Expect::Version(*version),
        Compare::Value(value) => Expect::Value(value.as_bytes()),
    }
}
