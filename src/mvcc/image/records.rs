//! The records of an image: read from the source in revision order, their links made anew, appended to a
//! log until its segment is full (SPEC.md, S-2, S-4, B-29).

use std::collections::VecDeque;

use revtree_format::limits::FRAME_BODY_BYTES;
use revtree_format::{ChangeId, Link, NewRecord, Position, RecordHead, Revision, check_value};

use super::retained::Retained;
use crate::error::Result;
use crate::mvcc::store::Store;
use crate::mvcc::versions::{Version, follow, locate};
use crate::pager::{Appended, Log};
use crate::tree::{Direction, LeafCursor, LeafRecords, Tree};

/// With which record a segment begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordsFrom {
    pub(super) id: ChangeId,
    /// Parts of its transaction lie in the segment before.
    pub(super) in_run: bool,
}

/// What the records of an image are chosen from and by.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    pub(super) store: &'a Store,
    pub(super) tree: &'a Tree,
    pub(super) retained: &'a Retained,
    pub(super) rev: Revision,
    pub(super) compact: Option<Revision>,
}

/// A record that is to be appended. Links are by place in the source: their places in the image are
/// looked up when they are known to be set.
struct Prepared {
    position: Position,
    head: RecordHead,
    prev: Option<Target>,
    skip: Option<Target>,
    len: usize,
}

/// What a link leads to.
#[derive(Clone, Copy)]
struct Target {
    id: ChangeId,
    /// In the source.
    position: Position,
}

impl Records<'_> {
    /// Appends records from `from` on and tells of each where it came from and where it went. Gives the
    /// record with which the next segment begins; `None`: that was the last one.
    pub(super) fn write(
        &self,
        log: &mut Log,
        from: RecordsFrom,
        placed: &mut dyn FnMut(ChangeId, Position, Appended),
    ) -> Result<Option<RecordsFrom>> {
        let own = log.head().segment_use;
        let mut source = Source::begin(self, from.id)?;
        let mut transaction = from.in_run.then_some(from.id.main);
        let mut ahead = VecDeque::new();
        loop {
            let record = match ahead.pop_front() {
                Some(record) => record,
                None => match source.next()? {
                    Some(version) => self.prepare(version)?,
                    None => break,
                },
            };
            let main = record.head.id.main;
            let in_run = transaction == Some(main);
            if !in_run {
                // A transaction that fits a frame gets one that it fits; a longer one needs no more
                // looking ahead.
                let mut bytes = record.len;
                while bytes <= FRAME_BODY_BYTES
                    && let Some(version) = source.next_of(main)?
                {
                    let next = self.prepare(version)?;
                    bytes += next.len;
                    ahead.push_back(next);
                }
                log.begin_transaction(bytes)?;
                transaction = Some(main);
            }
            log.make_room(record.len, in_run)?;
            if log.head().segment_use != own {
                let id = record.head.id;
                return Ok(Some(RecordsFrom { id, in_run }));
            }
            log.set_revision(main);
            let appended = self.append(log, &record, in_run)?;
            placed(record.head.id, record.position, appended);
        }
        log.flush()?;
        Ok(None)
    }

    /// Finds what the links of a record lead to, if the image has it.
    fn prepare(&self, (position, head): Version) -> Result<Prepared> {
        let prev = match head.prev {
            Some(link) => self.target(position, &head, link)?,
            None => None,
        };
        let skip = match head.skip {
            // It only saves time: nothing else takes the place of one that is left out.
            Some(link) => self.target(position, &head, link)?,
            None => None,
        };
        let skip = skip.filter(|target| Some(target.id) == head.skip.map(|link| link.id));
        let mut record = Prepared {
            position,
            head,
            prev,
            skip,
            len: 0,
        };
        // Without key and value a record is as long as its head and words, a multiple of 8.
        let words = self.renewed(&record, &[], &[]).record_len();
        let value_len = head.value_len as usize;
        record.len = (words + usize::from(head.key_len) + value_len).next_multiple_of(8);
        Ok(record)
    }

    /// The record that a link leads to; where the image lacks it, the first one before it of the same key
    /// that the image has: that can only be a delete at the compact revision itself (K-2).
    fn target(
        &self,
        mut from: Position,
        head: &RecordHead,
        mut link: Link,
    ) -> Result<Option<Target>> {
        loop {
            let found = match self.compact {
                Some(compact) if link.id.main <= compact => {
                    if head.id.main <= compact && link.id.main < compact {
                        return Ok(None);
                    }
                    locate(self.tree, from, link)?
                }
                // Above the compact revision everything is there.
                _ => Some(follow(self.tree, from, link)?),
            };
            let Some((position, found)) = found else {
                return Ok(None);
            };
            let position = self.in_tree(position, &found)?;
            if self.retained.has(position) {
                return Ok(Some(Target {
                    id: found.id,
                    position,
                }));
            }
            match found.prev {
                Some(prev) if Some(found.id.main) == self.compact => {
                    (from, link) = (position, prev);
                }
                _ => return Ok(None),
            }
        }
    }

    /// Where the image's tree has a record that was found at `position`. Once the source has been cleaned a hint or the
    /// index may lead to another copy of it.
    pub(super) fn in_tree(&self, position: Position, head: &RecordHead) -> Result<Position> {
        if self.retained.has(position) {
            return Ok(position);
        }
        Ok(self.tree.find(head.id)?.unwrap_or(position))
    }

    fn append(&self, log: &mut Log, record: &Prepared, in_run: bool) -> Result<Appended> {
        let (head, medium) = (&record.head, &self.store.engine.medium);
        let len = head.value_at() + head.value_len as usize;
        let raw = medium.bytes(record.position, len)?;
        let (start, value) = raw.split_at(head.value_at());
        // Encoding makes a checksum of what it is given: damage must not get a good one.
        check_value(head, value, record.position)?;
        let key = start.get(head.key_at.into()..).unwrap_or_default();
        log.append(&self.renewed(record, key, value), in_run)
    }

    /// The record as the image has it: the same but for its links.
    fn renewed<'r>(&self, record: &Prepared, key: &'r [u8], value: &'r [u8]) -> NewRecord<'r> {
        let head = &record.head;
        let link = |target: Target| Link {
            id: target.id,
            hint: self
                .retained
                .place(target.position)
                .unwrap_or(Position::NONE),
        };
        let (prev, skip) = (record.prev.map(link), record.skip.map(link));
        NewRecord::again(head, prev, skip, key, value)
    }
}

/// The retained records in revision order.
pub(super) struct Source<'a> {
    records: Records<'a>,
    cursor: LeafCursor<'a>,
    leaf: Option<LeafRecords<'a>>,
    from: ChangeId,
    peeked: Option<Version>,
    ended: bool,
}

impl<'a> Source<'a> {
    pub(super) fn begin(records: &Records<'a>, from: ChangeId) -> Result<Source<'a>> {
        Ok(Source {
            records: *records,
            cursor: LeafCursor::seek(records.tree, from, Direction::Forward)?,
            leaf: None,
            from,
            peeked: None,
            ended: false,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<Version>> {
        if let Some(peeked) = self.peeked.take() {
            return Ok(Some(peeked));
        }
        while !self.ended {
            let Some(leaf) = &mut self.leaf else {
                match self.cursor.next()? {
                    Some(leaf) if leaf.first.main <= self.records.rev => {
                        let medium = &self.records.store.engine.medium;
                        self.leaf = Some(LeafRecords::new(medium, leaf));
                    }
                    _ => self.ended = true,
                }
                continue;
            };
            let Some(record) = leaf.next() else {
                self.leaf = None;
                continue;
            };
            let (position, head) = record?;
            if head.id.main > self.records.rev {
                self.ended = true;
            } else if head.id >= self.from && self.records.retained.has(position) {
                return Ok(Some((position, head)));
            }
        }
        Ok(None)
    }

    /// The next record, if it is of revision `main`.
    fn next_of(&mut self, main: Revision) -> Result<Option<Version>> {
        self.peeked = self.next()?;
        Ok(self.peeked.take_if(|(_, head)| head.id.main == main))
    }
}
