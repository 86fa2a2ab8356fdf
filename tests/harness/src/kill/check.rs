//! What a store may be after a kill: the model at one entry, not before the last acknowledged one.
//!
//! The model is replayed from the log's entries, and only forward: a store that is behind what was
//! seen once is lost, one that differs in anything is wrong. There are two of it, because a reader of
//! a dead writer's store shows only what it knows to be durable (SPEC.md, X-2), which may be less
//! than what a writer finds there.

use std::collections::BTreeSet;

use revtree_format::Revision;

use super::entry::{After, Entry, NUMBER, TABLE};
use crate::model::{Reader, Subject};
use crate::oracle::Oracle;
use crate::subject::Store;

/// The parent's knowledge.
#[derive(Clone)]
pub(super) struct Expected {
    /// What a writer finds.
    whole: Model,
    /// What a reader of a store without a living writer shows.
    known: Model,
    told: Told,
    /// Whether some process had the store open: then it is there for ever.
    pub(super) opened: bool,
    /// Acknowledgements in all.
    pub(super) acks: u64,
}

/// The least that a store must have.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The last entry that was acknowledged.
    entry: u64,
    /// The last entry whose raise was.
    raised: u64,
    /// The newest compaction that was.
    compacted: u64,
}

/// The oracle at what was seen of the store last.
#[derive(Clone, Debug)]
struct Model {
    seed: u64,
    oracle: Oracle,
    entry: u64,
    /// Compactions that were begun.
    tried: BTreeSet<u64>,
    /// Compactions that were seen before the line that says so was read.
    untold: Vec<u64>,
}

impl Expected {
    pub(super) fn new(seed: u64) -> Expected {
        let model = Model {
            seed,
            oracle: Oracle::new(),
            entry: 0,
            tried: BTreeSet::new(),
            untold: Vec::new(),
        };
        Expected {
            whole: model.clone(),
            known: model,
            told: Told::default(),
            opened: false,
            acks: 0,
        }
    }

    /// Takes in a line of the child.
    pub(super) fn hear(&mut self, line: &str) -> Result<(), String> {
        let (word, number) = line.split_once(' ').unwrap_or((line, "0"));
        if word == "failed:" {
            return Err(format!("wrong: the process {line}"));
        }
        let number: u64 = number
            .parse()
            .map_err(|_| format!("wrong: the process said {line:?}"))?;
        match word {
            "open" => {
                self.opened = true;
                let known = self.whole.oracle.numbers().current.get();
                if number < known {
                    return Err(format!("lost: opened at revision {number}, was {known}"));
                }
            }
            // What it found when it had opened, and repaired, the store.
            "at" => {
                let least = self.told.entry.max(self.whole.entry);
                if number < least {
                    return Err(format!("lost: opened at entry {number}, {least} was told"));
                }
                self.told.entry = number;
            }
            "ack" => {
                self.acks += 1;
                self.told.entry = self.told.entry.max(number);
            }
            "raised" => self.told.raised = self.told.raised.max(number),
            "try" => {
                self.whole.tried.insert(number);
                self.known.tried.insert(number);
            }
            "compacted" => self.told.compacted = self.told.compacted.max(number),
            // An error that is no wrong one, told by its kind.
            "born" | "spared" | "met" | "error" => {}
            _ => return Err(format!("wrong: the process said {line:?}")),
        }
        Ok(())
    }

    /// Takes in a line that came when the power had been cut: nobody hears what a machine without power says. Here
    /// it still may, and a sync that the cut overtakes may say yes to it (XFS then finds nothing left to write).
    pub(super) fn hear_after_the_cut(&mut self, line: &str) -> Result<(), String> {
        match line.split(' ').next() {
            Some("try" | "failed:") => self.hear(line),
            _ => Ok(()),
        }
    }

    /// All that the dead process said was read: now each compaction that was seen has been asked for.
    pub(super) fn all_heard(&mut self) -> Result<(), String> {
        let mut untold = self.whole.untold.drain(..);
        match untold.find(|rev| !self.whole.tried.contains(rev)) {
            Some(rev) => Err(format!("wrong: compacted at {rev}, which nobody asked")),
            None => Ok(()),
        }
    }

    /// Compares a store that is open for writing, or for reading beside a living writer: all that was
    /// told must be in it.
    pub(super) fn check(&mut self, store: &mut Store) -> Result<(), String> {
        self.whole.check(store, self.told)
    }

    /// Compares a store that is open for reading only, and that perhaps nobody writes: it may lack what
    /// is not known to be durable, but is some state, and none before one that was shown.
    pub(super) fn check_known(&mut self, store: &mut Store) -> Result<(), String> {
        self.known.check(store, Told::default())
    }

    /// Compares what a reader shows that perhaps has a living writer beside it: some state, and none before
    /// what is known. The next reader, when nobody lives, may show less again.
    pub(super) fn check_beside(&mut self, store: &mut Store) -> Result<(), String> {
        self.known.clone().check(store, Told::default())
    }

    /// All of it has been made durable by an open for writing.
    pub(super) fn repaired(&mut self) {
        self.known = self.whole.clone();
    }
}

impl Model {
    fn check(&mut self, store: &mut Store, told: Told) -> Result<(), String> {
        let wrong = |error: &dyn std::fmt::Debug| format!("wrong: it cannot be read: {error:?}");
        let row = store
            .table_get(Reader::Now, TABLE, &NUMBER.into())
            .map_err(|error| wrong(&error))?;
        let found = match row.as_deref().map(<[u8; 8]>::try_from) {
            None => 0,
            Some(Ok(bytes)) => u64::from_be_bytes(bytes),
            Some(Err(error)) => return Err(wrong(&error)),
        };
        let least = told.entry.max(self.entry);
        if found < least {
            return Err(format!("lost: it is at entry {found}, {least} was told"));
        }
        while self.entry < found {
            let rev = self.oracle.numbers().current.get() + 1;
            let next = Entry::of(self.seed, self.entry + 1, rev);
            next.apply(&mut self.oracle)
                .map_err(|error| format!("the model refuses {next:?}: {error:?}"))?;
            self.entry += 1;
        }
        let state = store.state().map_err(|error| wrong(&error))?;
        self.take_compaction(state.compact, told)?;
        self.take_raise(state.applied.index, told)?;
        let expected = self.oracle.state_now();
        if state != expected {
            return Err(format!(
                "wrong: at entry {found} it differs from the model: {}",
                difference(&state, &expected)
            ));
        }
        let zero = Revision::new(0);
        let hashes = (store.hash_by_rev(zero), self.oracle.hash_by_rev(zero));
        if hashes.0 != hashes.1 {
            return Err(format!("wrong: hashes at entry {found} are {hashes:?}"));
        }
        let report = store.db().check().map_err(|error| wrong(&error))?;
        if report.is_clean() {
            Ok(())
        } else {
            Err(format!("wrong: check finds {report:?}"))
        }
    }

    /// The compact revision is one that was asked for, and none that was told is forgotten.
    fn take_compaction(&mut self, found: Option<Revision>, told: Told) -> Result<(), String> {
        let known = self.oracle.numbers().compact;
        let told = known.map_or(0, Revision::get).max(told.compacted);
        let Some(found) = found else {
            return if told == 0 {
                Ok(())
            } else {
                Err(format!("lost: not compacted, {told} was told"))
            };
        };
        if found.get() < told {
            return Err(format!("lost: compacted at {found}, {told} was told"));
        }
        if known == Some(found) {
            return Ok(());
        }
        if !self.tried.contains(&found.get()) {
            self.untold.push(found.get());
        }
        self.oracle
            .compact(found)
            .map_err(|error| format!("wrong: compacted at {found}: {error:?}"))
    }

    /// The consistent index is the entry's, or the one that it was raised to.
    fn take_raise(&mut self, found: u64, told: Told) -> Result<(), String> {
        let entry = self.entry;
        if told.raised == entry && entry > 0 && found != 2 * entry + 1 {
            return Err(format!(
                "lost: the index {} was told, it is {found}",
                2 * entry + 1
            ));
        }
        let raises = || Entry::of(self.seed, entry, 0).after == After::Raise;
        if found == 2 * entry + 1 && raises() {
            let raised = self.oracle.raise_index(found);
            return raised.map(drop).map_err(|error| format!("{error:?}"));
        }
        Ok(())
    }
}

/// The first part that differs, for a report that can be read.
fn difference(found: &crate::State, expected: &crate::State) -> String {
    let numbers = |state: &crate::State| (state.current, state.compact, state.applied);
    if numbers(found) != numbers(expected) {
        return format!("{:?}, not {:?}", numbers(found), numbers(expected));
    }
    if found.tables != expected.tables {
        return format!("tables {:?}, not {:?}", found.tables, expected.tables);
    }
    let first = found.events.iter().zip(&expected.events);
    if let Some((found, expected)) = first.into_iter().find(|(a, b)| a != b) {
        return format!("event {found:?}, not {expected:?}");
    }
    let counts = (found.events.len(), expected.events.len());
    if counts.0 != counts.1 {
        return format!("{} events, not {}", counts.0, counts.1);
    }
    "the live keys differ".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Begin, Finish};

    /// A store in memory with so many entries of the log.
    fn store(seed: u64, entries: u64) -> Store {
        let mut store = Store::in_memory(64 << 10, 64 << 10);
        for number in 1..=entries {
            let rev = store.db().rev().get() + 1;
            let entry = Entry::of(seed, number, rev);
            store.begin(Begin::Write).unwrap();
            for step in &entry.steps {
                use super::super::entry::Step;
                match step {
                    Step::Put(key, value) => {
                        store
                            .txn_put(key, value, revtree_format::LeaseId::NONE)
                            .unwrap();
                    }
                    Step::Delete(key) => {
                        store.txn_delete(key).unwrap();
                    }
                    Step::DeleteRange(from, to) => {
                        let keys = crate::Keys::Between(from.clone(), to.clone());
                        store.txn_delete_range(&keys).unwrap();
                    }
                    Step::Row(table, key, value) => {
                        store.txn_table_put(table, key, value).unwrap();
                    }
                    Step::NoRow(table, key) => {
                        store.txn_table_delete(table, key).unwrap();
                    }
                }
            }
            store.txn_set_applied(entry.applied()).unwrap();
            store.finish(Finish::Commit).unwrap();
        }
        store
    }

    fn verdict(lines: &[&str], mut store: Store) -> String {
        let mut expected = Expected::new(5);
        let heard: Result<(), String> = lines.iter().try_for_each(|line| expected.hear(line));
        heard
            .and_then(|()| expected.check(&mut store))
            .and_then(|()| expected.all_heard())
            .map_or_else(|error| error, |()| "right".to_owned())
    }

    /// What the check is for: each kind of loss and of invention is seen.
    #[test]
    fn sees_what_is_lost_and_what_is_wrong() {
        let check = |lines: &[&str], store: Store, says: &str| {
            let verdict = verdict(lines, store);
            assert!(verdict.starts_with(says), "{lines:?}: {verdict}");
        };
        check(&["open 1", "ack 30"], store(5, 30), "right");
        // Not yet told, and perhaps done.
        check(&["open 1", "ack 28"], store(5, 30), "right");
        check(&["ack 31"], store(5, 30), "lost: it is at entry 30");
        check(&["ack 30"], store(6, 30), "wrong: at entry 30 it differs");
        check(&["failed: x"], store(5, 1), "wrong: the process");
        let invented = store(5, 30);
        invented.db().put("key/00", "of nobody").unwrap();
        check(&[], invented, "wrong: at entry 30 it differs");
        let compacted = || {
            let mut store = store(5, 30);
            store.compact(Revision::new(9)).unwrap();
            store
        };
        check(&["try 9"], compacted(), "right");
        check(&["try 9", "compacted 9"], compacted(), "right");
        check(&["try 8"], compacted(), "wrong: compacted at 9");
        check(
            &["try 10", "compacted 10"],
            compacted(),
            "lost: compacted at 9",
        );
        check(
            &["try 9", "compacted 9"],
            store(5, 30),
            "lost: not compacted",
        );
        check(&["at 31"], store(5, 30), "lost: it is at entry 30");
        check(
            &["ack 31", "at 30"],
            store(5, 31),
            "lost: opened at entry 30",
        );
        check(&["raised 30"], store(5, 30), "lost: the index 61");
    }

    /// A store that was seen at an entry may not be found before it.
    #[test]
    fn never_goes_back() {
        let mut expected = Expected::new(5);
        expected.check(&mut store(5, 12)).unwrap();
        expected.check(&mut store(5, 12)).unwrap();
        expected.check(&mut store(5, 14)).unwrap();
        let error = expected.check(&mut store(5, 13)).unwrap_err();
        assert!(error.starts_with("lost"), "{error}");
        assert!(expected.hear("open 3").is_err());
        // A reader may show less than a writer finds, until it was made durable.
        expected.check_known(&mut store(5, 11)).unwrap();
        assert!(expected.check_known(&mut store(5, 10)).is_err());
        expected.repaired();
        assert!(expected.check_known(&mut store(5, 13)).is_err());
        expected.check_known(&mut store(5, 14)).unwrap();
    }
}
