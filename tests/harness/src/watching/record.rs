//! What was written, what watchers asked for and what they were told: plain values, made by a run or by hand.
//!
//! Keys and values are text, revisions are numbers: the checker that reads them is to know nothing of the store,
//! nor of its types. The contents are kept by whoever writes, so that an error in reading is seen.

use std::collections::BTreeMap;

/// A key as a put leaves it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kv {
    /// Its value.
    pub value: String,
    /// The revision that made it.
    pub create: u64,
    /// The revision of this put.
    pub modified: u64,
    /// How often it was put since it was made.
    pub version: u64,
}

/// A step of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// The key gets the value.
    Put(String, String),
    /// All keys of these that are there end, in order; deleting what is not there changes nothing.
    Delete(Keys),
}

/// Some keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keys {
    /// This one.
    One(String),
    /// All that begin so.
    Prefix(String),
    /// From the first up to and without the second.
    Between(String, String),
    /// From this one on.
    AtLeast(String),
    /// All.
    All,
}

impl Keys {
    /// Whether a key is one of them.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Keys::One(one) => key == one,
            Keys::Prefix(prefix) => key.starts_with(&**prefix),
            Keys::Between(from, to) => &**from <= key && key < &**to,
            Keys::AtLeast(from) => &**from <= key,
            Keys::All => true,
        }
    }
}

/// A change that a transaction made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The revision.
    pub rev: u64,
    /// Which change of it.
    pub sub: u64,
    /// The key.
    pub key: String,
    /// What it became; `None`: it ended.
    pub put: Option<Kv>,
    /// What it was before the revision.
    pub before: Option<Kv>,
}

impl Change {
    /// Whether it made a key (etcd's `IsCreate`).
    #[must_use]
    pub fn is_create(&self) -> bool {
        self.put.as_ref().is_some_and(|kv| kv.create == self.rev)
    }
}

/// One content of a store from its beginning: another one begins with a restore, or with a crash that took
/// something back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// All changes, in order.
    pub changes: Vec<Change>,
    /// The newest revision.
    pub newest: u64,
    live: BTreeMap<String, Kv>,
}

impl Default for Content {
    fn default() -> Content {
        Content {
            changes: Vec::new(),
            newest: 1,
            live: BTreeMap::new(),
        }
    }
}

impl Content {
    /// Does what a transaction asks; whether it changed anything.
    pub fn commit(&mut self, ops: &[Op]) -> bool {
        let before = self.live.clone();
        let rev = self.newest + 1;
        let first = self.changes.len();
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    let old = self.live.get(key);
                    let kv = Kv {
                        value: value.clone(),
                        create: old.map_or(rev, |kv| kv.create),
                        modified: rev,
                        version: old.map_or(1, |kv| kv.version + 1),
                    };
                    self.live.insert(key.clone(), kv.clone());
                    self.push(rev, first, key.clone(), Some(kv), &before);
                }
                Op::Delete(keys) => {
                    let inside = self.live.keys().filter(|key| keys.contains(key));
                    for key in inside.cloned().collect::<Vec<_>>() {
                        self.live.remove(&key);
                        self.push(rev, first, key, None, &before);
                    }
                }
            }
        }
        let changed = self.changes.len() > first;
        self.newest += u64::from(changed);
        changed
    }

    fn push(
        &mut self,
        rev: u64,
        first: usize,
        key: String,
        put: Option<Kv>,
        before: &BTreeMap<String, Kv>,
    ) {
        self.changes.push(Change {
            rev,
            sub: (self.changes.len() - first) as u64,
            before: before.get(&key).cloned(),
            key,
            put,
        });
    }

    /// The content as it was at a revision.
    #[must_use]
    pub fn at(&self, rev: u64) -> Content {
        let changes: Vec<Change> = self.between(2, rev).to_vec();
        let mut live = BTreeMap::new();
        for change in &changes {
            match &change.put {
                Some(kv) => live.insert(change.key.clone(), kv.clone()),
                None => live.remove(&change.key),
            };
        }
        Content {
            changes,
            newest: rev.min(self.newest),
            live,
        }
    }

    /// The changes of these revisions, the last one too.
    #[must_use]
    pub fn between(&self, first: u64, last: u64) -> &[Change] {
        let from = self.changes.partition_point(|change| change.rev < first);
        let to = self.changes.partition_point(|change| change.rev <= last);
        &self.changes[from..to.max(from)]
    }

    /// Whether a change at a compact revision survives: of each key the newest, if it is a put, and each delete.
    #[must_use]
    pub fn survives(&self, change: &Change) -> bool {
        let mut later = self.between(change.rev, change.rev).iter();
        change.put.is_none()
            || !later.any(|other| other.key == change.key && other.sub > change.sub)
    }
}

/// Where a watcher begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With what becomes visible from now on.
    Now,
    /// At this revision.
    At(u64),
    /// Behind this revision.
    After(u64),
    /// At the oldest that is retained.
    Oldest,
}

/// What a watcher's filters drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drops {
    /// Nothing.
    Nothing,
    /// Puts.
    Puts,
    /// Deletes.
    Deletes,
    /// Every second change of a revision.
    OddSubs,
    /// All of every third revision.
    ThirdRevisions,
}

impl Drops {
    /// Whether a change is dropped.
    #[must_use]
    pub fn drops(self, rev: u64, sub: u64, is_put: bool) -> bool {
        match self {
            Drops::Nothing => false,
            Drops::Puts => is_put,
            Drops::Deletes => !is_put,
            Drops::OddSubs => sub % 2 == 1,
            Drops::ThirdRevisions => rev.is_multiple_of(3),
        }
    }
}

/// What a watcher asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Of which keys.
    pub keys: Keys,
    /// From where on.
    pub start: Start,
    /// Whether it is to be told what keys were before.
    pub prev: bool,
    /// What it is not to be given.
    pub drops: Drops,
    /// The most bytes of a batch of several revisions.
    pub bytes_max: u64,
}

/// What an event says of before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Prev {
    /// It was not asked for.
    NotAsked,
    /// There was nothing.
    None,
    /// This.
    Value(Kv),
    /// It has been compacted away.
    Compacted,
}

/// An event as a receiver has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The revision.
    pub rev: u64,
    /// Which change of it.
    pub sub: u64,
    /// The key.
    pub key: String,
    /// What it became; `None`: it ended.
    pub put: Option<Kv>,
    /// Whether it says that it made the key.
    pub is_create: bool,
    /// What it says of before.
    pub prev: Prev,
}

/// What a watcher is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Update {
    /// Changes.
    Events(Vec<Event>),
    /// Nothing is left up to the response's revision.
    Progress,
    /// What it needs has been compacted away, up to here.
    Compacted(u64),
    /// Something that no watcher may be told here.
    Failed(String),
}

/// One moment of a history, in order; streams have numbers that are not used again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Moment {
    /// A watcher comes.
    Watch {
        /// Its stream.
        stream: usize,
        /// Its id.
        id: i64,
        /// What it asks for.
        asked: Asked,
        /// What was visible before the call, and after it.
        visible: (u64, u64),
        /// The compact revision before the call, and after it; 0: none.
        compact: (u64, u64),
        /// When the call had returned.
        returned: u64,
    },
    /// A watcher has been cancelled.
    Cancelled {
        /// Its stream.
        stream: usize,
        /// Its id.
        id: i64,
        /// When the call began, and when it had returned.
        time: (u64, u64),
    },
    /// Progress was asked for, of all where there is no id.
    Ask {
        /// Of which stream.
        stream: usize,
        /// Of which watcher.
        id: Option<i64>,
        /// When.
        time: u64,
    },
    /// A receiver was given something.
    Given {
        /// Its stream.
        stream: usize,
        /// For whom; −1: for all.
        id: i64,
        /// The response's revision.
        revision: u64,
        /// What.
        update: Update,
        /// When the call began, and when it had returned.
        time: (u64, u64),
    },
    /// A receiver found nothing, or its stream's end, after this had become visible.
    Dry {
        /// Its stream.
        stream: usize,
        /// What was visible.
        visible: u64,
    },
    /// A receiver slept, was not woken, and then was given something.
    Unwoken {
        /// Its stream.
        stream: usize,
    },
    /// A filter panicked, and who received with it goes on.
    FilterPanicked {
        /// Its stream.
        stream: usize,
    },
    /// From now on up to this may be visible.
    Visible(u64),
    /// A compaction has begun.
    Compact(u64),
    /// The next content is in place, with this compact revision (0: none); the old one was visible up to `end`.
    Restored {
        /// What of the old one was visible.
        end: u64,
        /// Compact revision of the new one.
        compact: u64,
    },
    /// The power went: the next content is what is left, and all streams are gone. `lossless`: nothing that was
    /// visible may be lost.
    Crashed {
        /// Whether what was visible has to be there.
        lossless: bool,
        /// The revision that is left.
        rev: u64,
        /// Compact revision of what is left.
        compact: u64,
    },
    /// A stream has been closed.
    Closed {
        /// Which.
        stream: usize,
        /// When the call had returned.
        returned: u64,
    },
}

/// A history, and all contents that the store had in it: complete from the beginning, and so the oracle.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// The contents, one after the other.
    pub contents: Vec<Content>,
    /// What happened.
    pub moments: Vec<Moment>,
}

impl History {
    /// What one watcher's stream was asked and told, up to a moment.
    #[must_use]
    pub fn story(&self, stream: Option<usize>, id: Option<i64>, up_to: usize) -> String {
        let of = |moment: &&Moment| match moment {
            Moment::Watch {
                stream: s, id: i, ..
            }
            | Moment::Cancelled {
                stream: s, id: i, ..
            }
            | Moment::Given {
                stream: s, id: i, ..
            } => {
                stream.is_none_or(|stream| stream == *s) && id.is_none_or(|id| id == *i || *i == -1)
            }
            Moment::Ask { stream: s, .. }
            | Moment::Dry { stream: s, .. }
            | Moment::Unwoken { stream: s }
            | Moment::FilterPanicked { stream: s }
            | Moment::Closed { stream: s, .. } => stream.is_none_or(|stream| stream == *s),
            Moment::Visible(_)
            | Moment::Compact(_)
            | Moment::Restored { .. }
            | Moment::Crashed { .. } => true,
        };
        let mut lines: Vec<String> = Vec::new();
        let mut seen = 1;
        for moment in self.moments.iter().take(up_to + 1).filter(of) {
            // What nothing has changed since is not said again.
            if matches!(moment, Moment::Visible(rev) if *rev == std::mem::replace(&mut seen, *rev))
            {
                continue;
            }
            let line = format!("  {moment:?}\n");
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
        lines.concat()
    }
}
