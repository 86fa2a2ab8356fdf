//! Real time: who began after another had its answer comes after it in the order of revisions, too.
//!
//! One walk over all moments. Each call has a point between two revisions: a write that of its own
//! revision, a read that of the revision it read at. When a call begins, the highest point of all that had
//! returned is noted, and its own point may not lie before; a write's must lie behind. That is the whole of
//! strict serializability here, since the order of the writes is known. It also refuses what comes from the
//! future: a read that shows a write which had not begun when the read returned is a higher point that
//! returned before that write began.
//!
//! A read of one key does not say at which revision it read. It gets the lowest one that is not before what
//! had returned and at which the key was so. No other choice could be right where this one is not: the lower
//! a point, the less it asks of those that follow.
//!
//! Compactions have an order of their own, by the revision that they give up to.

use std::collections::BTreeMap;

use super::check::{Rule, Wrong};
use super::record::{Answer, Call, Entry};
use super::replay::{FIRST, Replay, wrong};

/// The highest that has returned, and whose it is.
#[derive(Clone, Copy)]
struct Floor<'h> {
    rev: u64,
    by: Option<&'h Entry>,
}

impl<'h> Floor<'h> {
    /// The write of a revision rather than those who saw it.
    fn raise(&mut self, rev: u64, by: &'h Entry) {
        let raised = Floor { rev, by: Some(by) };
        if rev > self.rev || rev == self.rev && (self.by.is_none() || raised.is_write()) {
            *self = raised;
        }
    }

    /// Whether it is a write that had returned.
    fn is_write(&self) -> bool {
        let wrote = self.by.and_then(Entry::changed);
        wrote.is_some_and(|wrote| wrote.rev == self.rev)
    }
}

/// Walks over all moments, and counts the calls that began while another was going on.
pub(super) fn check(history: &[Entry], replay: &Replay) -> Result<u64, Wrong> {
    let mut moments = BTreeMap::new();
    for entry in history {
        let twice = moments.insert(entry.invoked, (entry, true)).is_some()
            || moments.insert(entry.returned, (entry, false)).is_some();
        if twice || entry.invoked >= entry.returned {
            return wrong(Rule::Answer, format!("its moments are none: {entry:?}"));
        }
    }
    let mut walk = Walk {
        replay,
        visible: Floor {
            rev: FIRST,
            by: None,
        },
        compacted: Floor { rev: 0, by: None },
        begun: BTreeMap::new(),
        compactions: BTreeMap::new(),
    };
    let mut overlapping = 0;
    for (moment, (entry, begins)) in moments {
        if begins {
            overlapping += u64::from(!walk.begun.is_empty());
            walk.begins(moment, entry)?;
        } else {
            walk.returns(entry)?;
        }
    }
    Ok(overlapping)
}

struct Walk<'h> {
    replay: &'h Replay,
    visible: Floor<'h>,
    compacted: Floor<'h>,
    /// What had returned when the calls that go on began, by that moment.
    begun: BTreeMap<u64, (Floor<'h>, Floor<'h>)>,
    /// The compactions that have begun, by revision, and how many of them may have happened.
    compactions: BTreeMap<u64, u64>,
}

impl<'h> Walk<'h> {
    fn begins(&mut self, moment: u64, entry: &'h Entry) -> Result<(), Wrong> {
        self.begun.insert(moment, (self.visible, self.compacted));
        // A write that only the next open tells of has its place, too.
        if let Some(wrote) = entry.changed()
            && wrote.rev <= self.visible.rev
        {
            let rule = if self.visible.is_write() {
                Rule::Time
            } else {
                Rule::Future
            };
            return self.before(rule, entry, self.visible);
        }
        if let (Call::Compact(rev), Answer::Done(_) | Answer::Unknown) =
            (&entry.call, &entry.answer)
        {
            let again = self.compactions.insert(*rev, moment);
            if again.is_some() && matches!(entry.answer, Answer::Done(_)) {
                return wrong(Rule::Compaction, format!("{rev} again: {entry:?}"));
            }
        }
        Ok(())
    }

    fn returns(&mut self, entry: &'h Entry) -> Result<(), Wrong> {
        let Some((visible, compacted)) = self.begun.remove(&entry.invoked) else {
            return wrong(Rule::Answer, format!("it never began: {entry:?}"));
        };
        match (&entry.call, &entry.answer) {
            (_, Answer::Wrote(wrote)) => {
                let builds_on = wrote.rev - u64::from(wrote.changes > 0);
                if builds_on < visible.rev {
                    return self.before(Rule::Time, entry, visible);
                }
                if wrote.sure {
                    self.visible.raise(wrote.rev, entry);
                }
            }
            (Call::Compact(rev), Answer::Done(_)) => {
                if *rev <= compacted.rev {
                    return self.before(Rule::Compaction, entry, compacted);
                }
                self.compacted.raise(*rev, entry);
                // Only what is visible is compacted.
                self.sees(entry, *rev, FIRST, visible)?;
            }
            (Call::Sync, Answer::Done(rev)) => self.sees(entry, *rev, visible.rev, visible)?,
            (Call::Get(key), Answer::One(found)) => {
                self.one(entry, key, found.as_ref(), visible)?;
            }
            (Call::Range(asked, ..), Answer::Kvs(rev, _)) => {
                let least = if asked.is_some() { FIRST } else { visible.rev };
                self.sees(entry, *rev, least, visible)?;
                if asked.is_some_and(|rev| rev < compacted.rev) {
                    return self.before(Rule::Compaction, entry, compacted);
                }
            }
            (Call::Changes(from), Answer::Events(rev, _)) => {
                self.sees(entry, *rev, visible.rev, visible)?;
                if *from < compacted.rev {
                    return self.before(Rule::Compaction, entry, compacted);
                }
            }
            (_, Answer::Future(current)) => self.sees(entry, *current, visible.rev, visible)?,
            (_, Answer::Compacted(rev)) => {
                if !self.compactions.contains_key(rev) {
                    let says = format!("nobody had begun to compact at {rev}: {entry:?}");
                    return wrong(Rule::Compaction, says);
                }
                if *rev < compacted.rev {
                    return self.before(Rule::Compaction, entry, compacted);
                }
                self.compacted.raise(*rev, entry);
            }
            _ => {}
        }
        Ok(())
    }

    /// A call that shows that this revision is visible, which had to be at least so high.
    fn sees(
        &mut self,
        entry: &'h Entry,
        rev: u64,
        least: u64,
        visible: Floor<'h>,
    ) -> Result<(), Wrong> {
        if rev > self.replay.newest() {
            return wrong(Rule::Future, format!("nobody wrote {rev}: {entry:?}"));
        }
        if rev < least {
            let rule = if visible.is_write() {
                Rule::Stale
            } else {
                Rule::Time
            };
            return self.before(rule, entry, visible);
        }
        self.visible.raise(rev, entry);
        Ok(())
    }

    /// A key, which was read at some revision.
    fn one(
        &mut self,
        entry: &'h Entry,
        key: &str,
        found: Option<&super::record::Kv>,
        visible: Floor<'h>,
    ) -> Result<(), Wrong> {
        if let Some(rev) = self.replay.first_with(key, found, visible.rev) {
            self.visible.raise(rev, entry);
            return Ok(());
        }
        if self.replay.first_with(key, found, FIRST).is_none() {
            let says = format!("{key} was never so: {entry:?}");
            return wrong(Rule::Read, says);
        }
        self.before(Rule::Stale, entry, visible)
    }

    /// Comes before what had returned before it began.
    fn before(&self, rule: Rule, entry: &Entry, floor: Floor<'_>) -> Result<(), Wrong> {
        let Floor { rev, by } = floor;
        wrong(
            rule,
            format!("{entry:?} comes before {rev}, which had returned: {by:?}"),
        )
    }
}
