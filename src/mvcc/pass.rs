//! One pass along the log for many ranges of keys: what watchers are given that are behind at about the same revision
//! (SPEC.md, W-6).
//!
//! Beside `since`, which reads for one: a pass ends for all of them where one has enough, and gives up where one
//! needs more care, such as a damaged record, a revision that is very large, or history that has been compacted. It must
//! not know who watches, nor how a key finds its ranges.

use std::sync::Arc;

use revtree_format::{ChangeId, Revision};

use super::events::{AskedPrev, Event, event_of, is_retained};
use super::store::Store;
use super::versions::Version;
use crate::error::Result;
use crate::tree::{Direction, LeafCursor, LeafRecords};

/// What one of them wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The first revision.
    pub(crate) from: Revision,
    pub(crate) prev: AskedPrev,
    /// Bytes of keys and values, previous ones included.
    pub(crate) bytes: usize,
}

/// How far a pass goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassLimits {
    /// The last revision, which is visible.
    pub(crate) to: Revision,
    /// Revisions that one of them is given.
    pub(crate) revisions: u64,
    /// Records looked at, and events of all of them.
    pub(crate) records: usize,
    /// Bytes of keys and values of all of them.
    pub(crate) bytes: usize,
}

/// What was read: whole revisions.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Of each of them.
    pub(crate) events: Vec<Vec<Event>>,
    /// Records that were looked at.
    pub(crate) records: usize,
    /// The first revision that was not read.
    pub(crate) next: Revision,
}

/// Reads the next batch of each; `matching` adds the numbers of those that a key belongs to. `None`: they are to be read
/// one by one.
///
/// # Errors
/// Whatever is damaged, of which each is told on its own.
pub(crate) fn read_pass(
    store: &Arc<Store>,
    parts: &[Part],
    limits: &PassLimits,
    mut matching: impl FnMut(&[u8], &mut Vec<usize>),
) -> Result<Option<Pass>> {
    let Some(from) = parts.iter().map(|part| part.from).min() else {
        return Ok(None);
    };
    // What the first event's key was before is read too.
    let _pin = store.pins.pin(Revision::new(from.get().saturating_sub(1)));
    let compact = store.engine.compact_rev();
    if compact.is_some_and(|compact| from < compact) {
        return Ok(None);
    }
    let tree = &store.engine.tree;
    let mut cursor = LeafCursor::seek(tree, ChangeId::new(from, 0), Direction::Forward)?;
    let mut reader = Reader {
        store,
        parts,
        limits,
        compact,
        given: parts.iter().map(|_| Given::default()).collect(),
        looked_at: 0,
        count: 0,
        bytes: 0,
        is_full: false,
    };
    let (mut first, mut last) = (None, None);
    let mut found = Vec::new();
    while let Some(leaf) = cursor.next()? {
        if leaf.first.main > limits.to {
            break;
        }
        let mut records = LeafRecords::new(tree.medium(), leaf);
        while let Some(record) = records.next() {
            let version = record?;
            let head = &version.1;
            let main = head.id.main;
            if main > limits.to {
                return Ok(Some(reader.end(limits.to.next())));
            }
            if main < from {
                continue;
            }
            let first = *first.get_or_insert(main);
            let is_next = last.replace(main) != Some(main);
            if main != first && is_next && (reader.is_full || reader.looked_at >= limits.records) {
                return Ok(Some(reader.end(main)));
            }
            reader.looked_at += 1;
            found.clear();
            matching(
                &records.bytes()[head.key_at.into()..head.value_at()],
                &mut found,
            );
            if found.is_empty() || !is_retained(store, &version, compact)? {
                continue;
            }
            for part in &found {
                if !reader.add(*part, &version)? {
                    // The first revision is given whole, so one by one where it is very large.
                    return Ok((main != first).then(|| reader.end(main)));
                }
            }
        }
    }
    Ok(Some(reader.end(limits.to.next())))
}

struct Reader<'r> {
    store: &'r Arc<Store>,
    parts: &'r [Part],
    limits: &'r PassLimits,
    compact: Option<Revision>,
    given: Vec<Given>,
    looked_at: usize,
    /// Events of all, and their bytes.
    count: usize,
    bytes: usize,
    /// One has enough.
    is_full: bool,
}

/// What one is given.
#[derive(Debug, Default)]
struct Given {
    events: Vec<Event>,
    revisions: u64,
    bytes: usize,
}

impl Reader<'_> {
    /// Adds an event. `false`: with its revision the batch of one would be larger than it may, or all of them.
    fn add(&mut self, part: usize, version: &Version) -> Result<bool> {
        let wanted = &self.parts[part];
        let main = version.1.id.main;
        if main < wanted.from {
            return Ok(true);
        }
        let event = event_of(self.store, version, self.compact, wanted.prev)?;
        let bytes = event.bytes();
        let given = &mut self.given[part];
        if given.events.last().map(|last| last.id.main) != Some(main) {
            given.revisions += 1;
        }
        given.bytes += bytes;
        given.events.push(event);
        self.count += 1;
        self.bytes += bytes;
        let limits = self.limits;
        self.is_full |= given.revisions >= limits.revisions
            || given.bytes >= wanted.bytes
            || self.count >= limits.records
            || self.bytes >= limits.bytes;
        let fits = given.revisions <= 1 || given.bytes <= wanted.bytes;
        Ok(fits && self.count <= 2 * limits.records && self.bytes <= 2 * limits.bytes)
    }

    /// What lies below `next`.
    fn end(self, next: Revision) -> Pass {
        let below = |given: Given| {
            let mut events = given.events;
            while events.last().is_some_and(|last| last.id.main >= next) {
                events.pop();
            }
            events
        };
        Pass {
            events: self.given.into_iter().map(below).collect(),
            records: self.looked_at,
            next,
        }
    }
}
