//! Changes from a revision on, a batch at a time: what a watcher is given (SPEC.md, W-6).
//!
//! Apart from [`Events`](super::Events), which borrows a view and goes both ways: a batch is read at once, is
//! whole revisions, and says from where the next one goes on. It must not know who watches.
//!
//! A single key is read along its chain of versions: O(log of all + those given), wherever it begins. A range is
//! read along the log, which may look at many records of other keys; how many is bounded, and the batch says how
//! far it came.

use std::sync::Arc;

use revtree_format::{ChangeId, Revision};

use super::events::{AskedPrev, Event, event_of, is_retained, survives};
use super::keys::KeyRange;
use super::store::Store;
use super::versions::{Version, follow, record_at, record_before};
use crate::error::{Error, Result};
use crate::tree::{Direction, LeafCursor, LeafRecords};

/// What is read at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    /// Number of revisions.
    pub(crate) revisions: u64,
    /// Bytes of keys and values, previous ones included.
    pub(crate) bytes: usize,
    /// Bytes that each event counts for besides.
    pub(crate) each: usize,
    /// Records looked at along the log.
    pub(crate) records: usize,
}

/// What was read: whole revisions.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    /// Records that were looked at.
    pub(crate) records: usize,
    /// The first revision that was not read.
    pub(crate) next: Revision,
    /// Why nothing behind that can be read.
    pub(crate) failed: Option<Error>,
}

/// Which changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'k> {
    pub(crate) keys: &'k KeyRange,
    /// The first revision and the last, which is visible.
    pub(crate) from: Revision,
    pub(crate) to: Revision,
    pub(crate) prev: AskedPrev,
}

/// Reads the next batch. What it reads is pinned meanwhile.
///
/// # Errors
/// [`Error::Compacted`] when the store has been compacted beyond the first revision.
pub(crate) fn read_batch(
    store: &Arc<Store>,
    wanted: &Wanted<'_>,
    limits: &BatchLimits,
) -> Result<Batch> {
    // What the first event's key was before is read too.
    let before = Revision::new(wanted.from.get().saturating_sub(1));
    let _pin = store.pins.pin(before);
    let compact = store.engine.compact_rev();
    if let Some(compacted) = compact.filter(|compact| wanted.from < *compact) {
        return Err(Error::Compacted {
            requested: wanted.from,
            compacted,
        });
    }
    let mut reader = Reader {
        store,
        wanted,
        limits,
        compact,
        events: Vec::new(),
        reading: wanted.from,
        revisions: 0,
        bytes: 0,
        looked_at: 0,
    };
    let read = match wanted.keys.as_single() {
        Some(key) => reader.read_key(key),
        None => reader.read_log(),
    };
    Ok(match read {
        Ok(next) => Batch {
            events: reader.events,
            records: reader.looked_at,
            next,
            failed: None,
        },
        Err(error) => reader.give_up(error),
    })
}

struct Reader<'r> {
    store: &'r Arc<Store>,
    wanted: &'r Wanted<'r>,
    limits: &'r BatchLimits,
    compact: Option<Revision>,
    events: Vec<Event>,
    /// The revision that is being read: all below it has been.
    reading: Revision,
    revisions: u64,
    bytes: usize,
    looked_at: usize,
}

impl Reader<'_> {
    /// Reads along the log; gives the first revision that was not read.
    fn read_log(&mut self) -> Result<Revision> {
        let (store, wanted) = (self.store, self.wanted);
        let tree = &store.engine.tree;
        let from = ChangeId::new(wanted.from, 0);
        let mut cursor = LeafCursor::seek(tree, from, Direction::Forward)?;
        // The revision of the record before: only between two may a batch end.
        let mut last = None;
        while let Some(leaf) = cursor.next()? {
            if leaf.first.main > wanted.to {
                break;
            }
            self.reading = self.reading.max(leaf.first.main);
            let mut records = LeafRecords::new(tree.medium(), leaf);
            while let Some(record) = records.next() {
                let version = record?;
                let head = &version.1;
                let main = head.id.main;
                if main > wanted.to {
                    return Ok(wanted.to.next());
                }
                if main < wanted.from {
                    continue;
                }
                self.reading = main;
                self.looked_at += 1;
                if last.replace(main) != Some(main)
                    && (self.is_full() || self.looked_at > self.limits.records)
                {
                    return Ok(main);
                }
                let key = &records.bytes()[head.key_at.into()..head.value_at()];
                if wanted.keys.contains(key)
                    && is_retained(store, &version, self.compact)?
                    && !self.add(&version)?
                {
                    return Ok(main);
                }
            }
        }
        Ok(wanted.to.next())
    }

    /// Reads along the versions of one key; gives the first revision that was not read.
    fn read_key(&mut self, key: &[u8]) -> Result<Revision> {
        let (from, to) = (self.wanted.from, self.wanted.to);
        let Some((_, newest)) = self.store.find(key)? else {
            return Ok(to.next());
        };
        let versions = self.versions_at_compact(newest)?;
        for version in versions.iter().rev() {
            self.add(version)?;
        }
        // Above the compact revision every version is there.
        let low = self
            .compact
            .map_or(from, |compact| from.max(compact.next()));
        let tree = &self.store.engine.tree;
        let last = record_at(tree, newest, to, self.compact)?;
        let Some(last) = last.filter(|(_, head)| head.id.main >= low) else {
            return Ok(to.next());
        };
        let oldest = self.oldest_from(last, low)?;
        let up_to = oldest.1.ordinal.saturating_add(self.limits.revisions);
        let end = if last.1.ordinal < up_to {
            last
        } else {
            self.last_of(self.up_to_ordinal(last, low, up_to)?, last, low)?
        };
        let mut versions = vec![end];
        while let Some((position, head)) = versions.last().copied()
            && head.id != oldest.1.id
            && let Some(prev) = head.prev.filter(|prev| prev.id.main >= low)
        {
            versions.push(follow(tree, position, prev)?);
        }
        let mut before = None;
        for version in versions.iter().rev() {
            let main = version.1.id.main;
            self.looked_at += 1;
            if before.replace(main) != Some(main) && self.is_full() || !self.add(version)? {
                return Ok(main);
            }
        }
        Ok(if end.1.id == last.1.id {
            to.next()
        } else {
            end.1.id.main.next()
        })
    }

    /// What survives of a key at the compact revision itself, newest first, where the batch begins there.
    fn versions_at_compact(&self, newest: Version) -> Result<Vec<Version>> {
        let mut versions = Vec::new();
        let Some(compact) = self.compact.filter(|compact| self.wanted.from == *compact) else {
            return Ok(versions);
        };
        let tree = &self.store.engine.tree;
        let mut at = record_at(tree, newest, compact, self.compact)?;
        let mut is_newest = true;
        while let Some(version) = at.filter(|(_, head)| head.id.main == compact) {
            if survives(&version.1, compact, is_newest) {
                versions.push(version);
            }
            is_newest = false;
            at = record_before(tree, version, self.compact)?;
        }
        Ok(versions)
    }

    /// The oldest version at or above `low`, from one that is.
    fn oldest_from(&self, mut at: Version, low: Revision) -> Result<Version> {
        loop {
            let links = [at.1.skip, at.1.prev];
            let Some(link) = links.into_iter().flatten().find(|l| l.id.main >= low) else {
                return Ok(at);
            };
            at = follow(&self.store.engine.tree, at.0, link)?;
        }
    }

    /// A version at or above `low` whose number among the key's is the least that is not below `ordinal`.
    fn up_to_ordinal(&self, mut at: Version, low: Revision, ordinal: u64) -> Result<Version> {
        let tree = &self.store.engine.tree;
        while at.1.ordinal > ordinal {
            if let Some(skip) = at.1.skip.filter(|skip| skip.id.main >= low) {
                let to = follow(tree, at.0, skip)?;
                if to.1.ordinal >= ordinal {
                    at = to;
                    continue;
                }
            }
            let Some(prev) = at.1.prev.filter(|prev| prev.id.main >= low) else {
                break;
            };
            at = follow(tree, at.0, prev)?;
        }
        Ok(at)
    }

    /// The last version of the revision before that of `stop`: where a batch that is to end there ends.
    fn last_of(&self, stop: Version, last: Version, low: Revision) -> Result<Version> {
        let tree = &self.store.engine.tree;
        let mut at = stop;
        // One revision may change the key more often than a batch is long: then it is given whole.
        while let Some(prev) = at.1.prev.filter(|prev| prev.id.main >= low) {
            at = follow(tree, at.0, prev)?;
            if at.1.id.main < stop.1.id.main {
                return Ok(at);
            }
        }
        let whole = record_at(tree, last, stop.1.id.main, self.compact)?;
        Ok(whole.unwrap_or(stop))
    }

    /// Whether the batch may end here: not before its first revision, whatever the limits.
    fn is_full(&self) -> bool {
        let (most, bytes) = (self.limits.revisions, self.limits.bytes);
        self.revisions > 0 && (self.revisions >= most || self.bytes >= bytes)
    }

    /// Adds an event. `false`: with its revision the batch would be larger than it may, and ends before.
    fn add(&mut self, version: &Version) -> Result<bool> {
        self.reading = version.1.id.main;
        let event = event_of(self.store, version, self.compact, self.wanted.prev)?;
        if self.events.last().map(|last| last.id.main) != Some(event.id.main) {
            self.revisions += 1;
        }
        self.bytes += event.bytes() + self.limits.each;
        let main = event.id.main;
        self.events.push(event);
        // The first revision comes whole, whatever its size.
        let fits = self.revisions <= 1 || self.bytes <= self.limits.bytes;
        if !fits {
            self.events.retain(|event| event.id.main < main);
        }
        Ok(fits)
    }

    /// Damage: of the revision that is being read there is more than was read.
    fn give_up(mut self, error: Error) -> Batch {
        let next = self.reading;
        self.events.retain(|event| event.id.main < next);
        Batch {
            events: self.events,
            records: self.looked_at,
            next,
            failed: Some(error),
        }
    }
}
