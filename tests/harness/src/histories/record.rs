//! What threads asked and were answered, with the moments of it: plain values, made by a run or by hand.
//!
//! Keys and values are text, revisions are numbers: the checker that reads them is to know nothing of the
//! store, nor of its types.

use std::collections::BTreeMap;

/// A key as an answer shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kv {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The revision that made it.
    pub create: u64,
    /// The revision of its newest put.
    pub modified: u64,
    /// How often it was put since it was made.
    pub version: u64,
}

/// All keys at one revision.
pub type Content = BTreeMap<String, Kv>;

/// A change that a transaction asks for. Deleting what is not there changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The key gets the value.
    Put(String, String),
    /// The key ends.
    Delete(String),
}

/// What a transaction asks of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// It does not exist.
    Missing,
    /// It does.
    Exists,
    /// It was put last at this revision.
    Modified(u64),
    /// It was made at this revision.
    Created(u64),
    /// It was put so often.
    Version(u64),
    /// It has this value.
    Value(String),
}

impl Compare {
    /// Whether it holds for what the key is.
    #[must_use]
    pub fn holds(&self, found: Option<&Kv>) -> bool {
        match (self, found) {
            (Compare::Missing, found) => found.is_none(),
            (Compare::Exists, found) => found.is_some(),
            (_, None) => false,
            (Compare::Modified(rev), Some(kv)) => kv.modified == *rev,
            (Compare::Created(rev), Some(kv)) => kv.create == *rev,
            (Compare::Version(version), Some(kv)) => kv.version == *version,
            (Compare::Value(value), Some(kv)) => kv.value == *value,
        }
    }
}

/// etcd's transaction: compare, then one of two lists of changes, no key twice in one list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    /// What is asked of keys. Each key is read, too.
    pub compares: Vec<(String, Compare)>,
    /// The changes if all of it holds.
    pub then: Vec<Change>,
    /// The changes if not.
    pub otherwise: Vec<Change>,
}

/// What a thread asks of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// A put of its own.
    Put(String, String),
    /// A delete of its own.
    Delete(String),
    /// A transaction.
    Txn(Txn),
    /// A compaction.
    Compact(u64),
    /// All that was accepted is to be durable.
    Sync,
    /// One key now, without the revision at which it was read.
    Get(String),
    /// All keys from the first up to and without the second, now or at a revision.
    Range(Option<u64>, String, String),
    /// The same in a view that an earlier call opened at this revision.
    Held(u64, String, String),
    /// All changes from this revision to the one of a new view.
    Changes(u64),
}

/// What a transaction saw before it wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saw {
    /// The revision that it builds on.
    pub base: u64,
    /// For each comparison whether it held, and what the key was.
    pub compared: Vec<(bool, Option<Kv>)>,
}

/// What came of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrote {
    /// What it saw; a put of its own sees nothing.
    pub saw: Option<Saw>,
    /// The revision of its changes, or the one that it builds on when it made none.
    pub rev: u64,
    /// How many changes it made.
    pub changes: u64,
    /// Whether that has happened: `false` if only the next open tells.
    pub sure: bool,
    /// Whether the answer said that a power cut cannot take it back.
    pub durable: bool,
}

/// A change that a reader was told of, with its place among those of its revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The revision.
    pub rev: u64,
    /// Which change of it.
    pub sub: u64,
    /// The change.
    pub change: Change,
}

/// What a thread was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Of a put, a delete or a transaction.
    Wrote(Wrote),
    /// The compaction, or the sync, whose revision it is, has happened.
    Done(u64),
    /// Of a compaction or a sync: only the next open tells.
    Unknown,
    /// Nothing has happened, because something failed before.
    Refused,
    /// The revision asked for is below the compact revision, which is this one.
    Compacted(u64),
    /// The revision asked for is above the current one, which is this one.
    Future(u64),
    /// A key.
    One(Option<Kv>),
    /// Keys, and the revision at which they were read.
    Kvs(u64, Vec<Kv>),
    /// Changes, and the revision of the view that showed them.
    Events(u64, Vec<Event>),
    /// Something that no call may answer here.
    Failed(String),
}

/// One call with its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Who asked.
    pub thread: usize,
    /// When; the counter has no number twice, over all threads.
    pub invoked: u64,
    /// When the answer was there.
    pub returned: u64,
    /// How many operations the disk had done before, at least.
    pub disk_before: u64,
    /// How many it had done afterwards, at most.
    pub disk_after: u64,
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub answer: Answer,
}

impl Entry {
    /// The write, if it is one that was accepted.
    #[must_use]
    pub fn wrote(&self) -> Option<&Wrote> {
        match &self.answer {
            Answer::Wrote(wrote) => Some(wrote),
            _ => None,
        }
    }

    /// Whether something failed under it, as only a disk that fails can bring about.
    #[must_use]
    pub fn failed(&self) -> bool {
        match &self.answer {
            Answer::Wrote(wrote) => !wrote.sure,
            answer => matches!(answer, Answer::Unknown | Answer::Refused),
        }
    }

    /// The write, if it has a revision of its own.
    #[must_use]
    pub fn changed(&self) -> Option<&Wrote> {
        self.wrote().filter(|wrote| wrote.changes > 0)
    }
}

/// A history as a text, in order of the calls.
#[must_use]
pub fn text(history: &[Entry]) -> String {
    let mut sorted: Vec<&Entry> = history.iter().collect();
    sorted.sort_by_key(|entry| entry.invoked);
    let line = |entry: &&Entry| {
        format!(
            "  thread {} [{}, {}] disk [{}, {}] {:?} -> {:?}\n",
            entry.thread,
            entry.invoked,
            entry.returned,
            entry.disk_before,
            entry.disk_after,
            entry.call,
            entry.answer
        )
    };
    sorted.iter().map(line).collect()
}
