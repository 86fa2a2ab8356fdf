//! Whether a recorded history is one that threads may see of a single, strictly serializable store.
//!
//! Three things are asked, in this order: the writes in order of revision explain each other
//! ([`Replay`]); all that was read at a revision is what was there; and whoever began after another had
//! its answer sees no less than that one (`order`). Nothing is searched for, since each write says its
//! place: a history of n calls is checked in n log n steps and some copies of its few keys.
//!
//! It knows nothing of the store, and may be wrong itself: `refusals` gives it bad histories of
//! each kind.

use std::fmt;

use super::order;
use super::record::{Answer, Call, Content, Entry, Event, Kv};
use super::replay::{Replay, wrong};

/// What a history breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// A revision was given to two writes.
    Twice,
    /// A revision was given to none.
    Gap,
    /// A read misses a write that had returned before it began.
    Stale,
    /// A read at a revision misses a write of that or an earlier one.
    Lost,
    /// A transaction is seen in part, or others wrote inside of it.
    Torn,
    /// Something is seen before it was asked for.
    Future,
    /// A comparison came out other than the key was.
    Compare,
    /// What came later in time has the lower revision.
    Time,
    /// A read shows what no write has left.
    Read,
    /// The changes told are not those that were made.
    Changes,
    /// A revision is read that was compacted, or refused that was not.
    Compaction,
    /// An answer that the call cannot have.
    Answer,
}

/// Why a history is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// The rule.
    pub rule: Rule,
    /// Where, with the calls.
    pub says: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.says)
    }
}

/// What was found of a history that is right.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Its writes.
    pub replay: Replay,
    /// How many calls began while another thread's was going on.
    pub overlapping: u64,
}

/// Checks a history of a store that was empty.
///
/// # Errors
///
/// What it breaks first.
pub fn check(history: &[Entry]) -> Result<Checked, Wrong> {
    let replay = Replay::of(history)?;
    for entry in history {
        fits(&replay, entry)?;
    }
    let overlapping = order::check(history, &replay)?;
    Ok(Checked {
        replay,
        overlapping,
    })
}

/// Whether an answer is one of its call, and right at its revision.
fn fits(replay: &Replay, entry: &Entry) -> Result<(), Wrong> {
    match (&entry.call, &entry.answer) {
        (Call::Put(..) | Call::Delete(_) | Call::Txn(_), Answer::Wrote(wrote)) => {
            // With changes it has been replayed.
            if wrote.changes > 0 {
                return Ok(());
            }
            if matches!(entry.call, Call::Put(..)) {
                return wrong(Rule::Lost, format!("a put without a change: {entry:?}"));
            }
            if let Some(saw) = &wrote.saw {
                replay.saw(entry, saw)?;
            }
            nothing_to_change(replay, entry, wrote.rev)
        }
        (Call::Range(Some(asked), ..) | Call::Held(asked, ..), Answer::Kvs(rev, _))
            if asked != rev =>
        {
            wrong(Rule::Answer, format!("{asked} was asked for: {entry:?}"))
        }
        (Call::Range(_, from, to) | Call::Held(_, from, to), Answer::Kvs(rev, kvs)) => {
            shows(replay, entry, *rev, (from, to), kvs)
        }
        (Call::Changes(from), Answer::Events(rev, events)) => {
            if *rev > replay.newest() {
                return wrong(Rule::Future, format!("nobody wrote {rev}: {entry:?}"));
            }
            told(replay.events(*from, *rev), events, entry)
        }
        (Call::Range(Some(asked), ..) | Call::Changes(asked), Answer::Compacted(compacted))
            if asked >= compacted =>
        {
            wrong(Rule::Compaction, format!("{entry:?}"))
        }
        (Call::Compact(asked), Answer::Compacted(compacted)) if asked > compacted => {
            wrong(Rule::Compaction, format!("{entry:?}"))
        }
        (Call::Range(Some(asked), ..) | Call::Compact(asked), Answer::Future(current))
            if asked <= current =>
        {
            wrong(Rule::Lost, format!("{entry:?}"))
        }
        (Call::Compact(asked), Answer::Done(rev)) if asked != rev => {
            wrong(Rule::Answer, format!("{entry:?}"))
        }
        (Call::Range(Some(_), ..) | Call::Changes(_) | Call::Compact(_), Answer::Compacted(_))
        | (Call::Range(Some(_), ..) | Call::Compact(_), Answer::Future(_))
        | (Call::Compact(_) | Call::Sync, Answer::Done(_) | Answer::Unknown)
        // Where it may have been read is a matter of time.
        | (Call::Get(_), Answer::One(_))
        | (
            Call::Put(..) | Call::Delete(_) | Call::Txn(_) | Call::Compact(_) | Call::Sync,
            Answer::Refused,
        ) => Ok(()),
        _ => wrong(Rule::Answer, format!("{entry:?}")),
    }
}

/// A delete or a transaction that says it found nothing to change.
fn nothing_to_change(replay: &Replay, entry: &Entry, rev: u64) -> Result<(), Wrong> {
    let Some(content) = replay.at(rev) else {
        return wrong(Rule::Future, format!("nobody wrote {rev}: {entry:?}"));
    };
    match &entry.call {
        Call::Delete(key) if content.contains_key(key) => {
            let says = format!("{:?} is there at {rev}: {entry:?}", content[key]);
            wrong(Rule::Lost, says)
        }
        _ => Ok(()),
    }
}

/// Whether these are the keys of a range at a revision; if not, what kind of wrong it is.
///
/// # Errors
///
/// What is wrong with them.
pub fn shows(
    replay: &Replay,
    entry: &dyn fmt::Debug,
    rev: u64,
    (from, to): (&str, &str),
    kvs: &[Kv],
) -> Result<(), Wrong> {
    let Some(content) = replay.at(rev) else {
        return wrong(Rule::Future, format!("nobody wrote {rev}: {entry:?}"));
    };
    let inside = |key: &str| from <= key && key < to;
    let expected = content.values().filter(|kv| inside(&kv.key));
    if expected.clone().eq(kvs) {
        return Ok(());
    }
    let expected: Vec<&Kv> = expected.collect();
    let says = format!("at {rev} there was {expected:?}, not {kvs:?}: {entry:?}");
    if kvs.iter().any(|kv| kv.modified > rev) {
        return wrong(Rule::Future, says);
    }
    let mut sorted: Vec<&str> = kvs.iter().map(|kv| &*kv.key).collect();
    sorted.dedup();
    if !sorted.is_sorted() || sorted.len() < kvs.len() || !sorted.iter().all(|key| inside(key)) {
        return wrong(Rule::Read, says);
    }
    let found: Content = kvs.iter().map(|kv| (kv.key.clone(), kv.clone())).collect();
    // The keys that changed, each with its newest change: seen or not.
    let mut seen = Vec::new();
    let mut unseen = Vec::new();
    for (key, changed) in replay.changed(rev).filter(|(key, _)| inside(key)) {
        if found.get(key) == content.get(key) {
            seen.push(changed);
        } else if replay.was(key, found.get(key), changed) {
            unseen.push(changed);
        } else {
            return wrong(Rule::Read, says);
        }
    }
    if unseen.is_empty() {
        return wrong(Rule::Read, says);
    }
    let torn = unseen.iter().any(|rev| seen.contains(rev));
    wrong(if torn { Rule::Torn } else { Rule::Lost }, says)
}

/// Whether these are the changes that were made; if not, what kind of wrong it is.
///
/// # Errors
///
/// What is wrong with them.
pub fn told(expected: &[Event], found: &[Event], entry: &dyn fmt::Debug) -> Result<(), Wrong> {
    if expected == found {
        return Ok(());
    }
    let says = format!("the changes are {expected:?}, not {found:?}: {entry:?}");
    let foreign = found.iter().any(|event| !expected.contains(event));
    let missing = expected.iter().find(|event| !found.contains(event));
    let Some(missing) = missing.filter(|_| !foreign) else {
        return wrong(Rule::Changes, says);
    };
    let in_part = found.iter().any(|event| event.rev == missing.rev);
    wrong(if in_part { Rule::Torn } else { Rule::Lost }, says)
}
