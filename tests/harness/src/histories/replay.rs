//! The writes in order of revision, and what the store must have held at each.
//!
//! Each write that changed something has a revision of its own, so the order is known: nothing is sought.
//! What a write says of what it saw, compared and changed is checked on the way.

use std::collections::BTreeMap;

use super::check::{Rule, Wrong};
use super::record::{Call, Change, Content, Entry, Event, Kv, Saw, Txn, Wrote};

/// The revision of a store that nobody has written to.
pub const FIRST: u64 = 1;

/// What the store held at each revision, and how it came to that.
#[derive(Clone, Debug)]
pub struct Replay {
    /// At [`FIRST`], and after each revision.
    contents: Vec<Content>,
    /// For each key when it changed, and what it was from then on.
    keys: BTreeMap<String, Vec<(u64, Option<Kv>)>>,
    events: Vec<Event>,
}

impl Replay {
    /// Replays the writes of a history that began with an empty store.
    ///
    /// # Errors
    ///
    /// A revision that is missing or there twice, or a write whose answer does not fit what was there.
    pub fn of(history: &[Entry]) -> Result<Replay, Wrong> {
        let mut writes: Vec<(u64, &Entry, &Wrote)> = history
            .iter()
            .filter_map(|entry| entry.changed().map(|wrote| (wrote.rev, entry, wrote)))
            .collect();
        writes.sort_by_key(|(rev, ..)| *rev);
        let mut replay = Replay {
            contents: vec![Content::new()],
            keys: BTreeMap::new(),
            events: Vec::new(),
        };
        for (rev, entry, wrote) in writes {
            let newest = replay.newest();
            if rev <= newest {
                return wrong(Rule::Twice, format!("revision {rev} again, by {entry:?}"));
            }
            if rev > newest + 1 {
                return wrong(
                    Rule::Gap,
                    format!("nobody has revision {}: next is {entry:?}", newest + 1),
                );
            }
            replay.write(rev, entry, wrote)?;
        }
        Ok(replay)
    }

    /// The newest revision.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.contents.len() as u64
    }

    /// What the store held at a revision, if there was one.
    #[must_use]
    pub fn at(&self, rev: u64) -> Option<&Content> {
        let nth = usize::try_from(rev.checked_sub(FIRST)?).ok()?;
        self.contents.get(nth)
    }

    /// The changes at these revisions, in order.
    #[must_use]
    pub fn events(&self, from: u64, to: u64) -> &[Event] {
        let start = self.events.partition_point(|event| event.rev < from);
        let end = self.events.partition_point(|event| event.rev <= to);
        &self.events[start..end.max(start)]
    }

    /// The first revision from `least` on at which the key was this.
    #[must_use]
    pub fn first_with(&self, key: &str, found: Option<&Kv>, least: u64) -> Option<u64> {
        let changes = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        let mut from = FIRST;
        let mut was: Option<&Kv> = None;
        for (rev, next) in changes {
            if was == found && least < *rev {
                return Some(from.max(least));
            }
            (from, was) = (*rev, next.as_ref());
        }
        (was == found && least <= self.newest()).then_some(from.max(least))
    }

    /// The keys that had changed up to a revision, each with the revision of its newest change.
    pub(super) fn changed(&self, rev: u64) -> impl Iterator<Item = (&str, u64)> {
        self.keys.iter().filter_map(move |(key, changes)| {
            let later = changes.partition_point(|(changed, _)| *changed <= rev);
            let (changed, _) = changes.get(later.checked_sub(1)?)?;
            Some((&**key, *changed))
        })
    }

    /// Whether the key was this at some revision below.
    pub(super) fn was(&self, key: &str, found: Option<&Kv>, below: u64) -> bool {
        self.first_with(key, found, FIRST)
            .is_some_and(|rev| rev < below)
    }

    /// Whether what a transaction saw is what was there.
    pub(super) fn saw(&self, entry: &Entry, saw: &Saw) -> Result<(), Wrong> {
        let Some(content) = self.at(saw.base) else {
            return wrong(Rule::Future, format!("it builds on nothing: {entry:?}"));
        };
        let Call::Txn(txn) = &entry.call else {
            return Ok(());
        };
        if txn.compares.len() != saw.compared.len() {
            return wrong(Rule::Answer, format!("{entry:?}"));
        }
        for ((key, compare), (held, found)) in txn.compares.iter().zip(&saw.compared) {
            let is = content.get(key);
            if found.as_ref() != is {
                let says = format!("{key} was {is:?} at {}, not as in {entry:?}", saw.base);
                return wrong(Rule::Read, says);
            }
            if *held != compare.holds(is) {
                let says = format!("{compare:?} of {is:?} is not {held}: {entry:?}");
                return wrong(Rule::Compare, says);
            }
        }
        Ok(())
    }

    fn write(&mut self, rev: u64, entry: &Entry, wrote: &Wrote) -> Result<(), Wrong> {
        if let Some(saw) = &wrote.saw {
            if saw.base + 1 != rev {
                let says = format!("somebody wrote inside of it: {entry:?}");
                return wrong(Rule::Torn, says);
            }
            self.saw(entry, saw)?;
        }
        let mut content = self.contents.last().cloned().unwrap_or_default();
        let mut sub = 0;
        for change in changes(&entry.call, wrote) {
            let (key, next) = match &change {
                Change::Put(key, value) => {
                    let before = content.get(key);
                    let kv = Kv {
                        key: key.clone(),
                        value: value.clone(),
                        create: before.map_or(rev, |kv| kv.create),
                        modified: rev,
                        version: before.map_or(1, |kv| kv.version + 1),
                    };
                    content.insert(key.clone(), kv.clone());
                    (key, Some(kv))
                }
                Change::Delete(key) => {
                    if content.remove(key).is_none() {
                        continue;
                    }
                    (key, None)
                }
            };
            let of_key = self.keys.entry(key.clone()).or_default();
            of_key.push((rev, next));
            self.events.push(Event { rev, sub, change });
            sub += 1;
        }
        if sub != wrote.changes {
            let says = format!("{sub} changes, not {}: {entry:?}", wrote.changes);
            return wrong(Rule::Answer, says);
        }
        self.contents.push(content);
        Ok(())
    }
}

/// The changes that a call asks for, as its comparisons have come out.
fn changes(call: &Call, wrote: &Wrote) -> Vec<Change> {
    match call {
        Call::Put(key, value) => vec![Change::Put(key.clone(), value.clone())],
        Call::Delete(key) => vec![Change::Delete(key.clone())],
        Call::Txn(Txn {
            then, otherwise, ..
        }) => {
            let compared = wrote.saw.as_ref().map(|saw| &saw.compared);
            let all = compared.is_none_or(|compared| compared.iter().all(|(held, _)| *held));
            if all { then.clone() } else { otherwise.clone() }
        }
        _ => Vec::new(),
    }
}

pub(super) fn wrong<T>(rule: Rule, says: String) -> Result<T, Wrong> {
    Err(Wrong { rule, says })
}
