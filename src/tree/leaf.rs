//! Walking the records of one leaf run.

use revtree_format::limits::LEAF_BYTES_MAX;
use revtree_format::{ChangeId, LeafRun, Place, Position, RecordHead, parse_record};

use crate::error::{Error, Result};
use crate::pager::{Medium, Raw};

/// The records of a leaf in order: position and checked head. The leaf is fetched at once.
#[derive(Debug)]
pub(crate) struct LeafRecords<'a> {
    start: Place,
    /// Its first record, as the entry says that names it (B-73).
    first: ChangeId,
    /// `None` once it has been found that the leaf cannot be read.
    bytes: Option<Raw<'a>>,
    failed: Option<Error>,
    /// Where in the leaf the current record begins and the next one does.
    current: usize,
    next: usize,
}

impl<'a> LeafRecords<'a> {
    pub(crate) fn new(medium: &'a Medium, leaf: LeafRun) -> LeafRecords<'a> {
        let bytes = medium
            .check_use(leaf.position, leaf.segment_use)
            .and_then(|()| fetch(medium, leaf));
        let (bytes, failed) = match bytes {
            Ok(bytes) => (Some(bytes), None),
            Err(error) => (None, Some(error)),
        };
        LeafRecords {
            start: medium.place(leaf.segment_use, leaf.position),
            first: leaf.first,
            bytes,
            failed,
            current: 0,
            next: 0,
        }
    }

    /// The bytes of the record given last.
    pub(crate) fn bytes(&self) -> &[u8] {
        let bytes = self.bytes.as_deref().unwrap_or_default();
        bytes.get(self.current..self.next).unwrap_or_default()
    }

    fn read(&mut self, bytes_left: usize) -> Result<(Position, RecordHead)> {
        let position = self.start.position.plus(self.next as u64);
        let bytes = self.bytes.as_deref().unwrap_or_default();
        let raw = bytes.get(self.next..).unwrap_or_default();
        let (head, _) = parse_record(raw, self.start.at(position))?;
        if self.next == 0 {
            check_first(self.first, position, head.id)?;
        }
        let len = head.record_len();
        if len > bytes_left {
            return Err(Error::Corrupt {
                offset: position.0,
                what: "record beyond its leaf",
                expected: bytes_left as u64,
                found: len as u64,
            });
        }
        (self.current, self.next) = (self.next, self.next + len);
        Ok((position, head))
    }
}

/// The bytes of a leaf. A long one is one record, whose head says first that it is the one: a page may name many
/// that are none, each as long as the file.
fn fetch(medium: &Medium, leaf: LeafRun) -> Result<Raw<'_>> {
    let len = leaf.len as usize;
    if len > LEAF_BYTES_MAX {
        let head = medium.head(leaf.position)?;
        check_first(leaf.first, leaf.position, head.id)?;
        if head.record_len() != len {
            return Err(Error::Corrupt {
                offset: leaf.position.0,
                what: "length of a leaf of one record",
                expected: head.record_len() as u64,
                found: len as u64,
            });
        }
    }
    medium.bytes(leaf.position, len)
}

/// A leaf begins with the record that the entry says which names it (B-73).
fn check_first(first: ChangeId, position: Position, found: ChangeId) -> Result<()> {
    if found == first {
        return Ok(());
    }
    Err(Error::Corrupt {
        offset: position.0,
        what: "first record of a leaf",
        expected: first.main.get(),
        found: found.main.get(),
    })
}

impl Iterator for LeafRecords<'_> {
    type Item = Result<(Position, RecordHead)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let left = self
            .bytes
            .as_deref()?
            .len()
            .checked_sub(self.next)
            .filter(|left| *left > 0)?;
        let record = self.read(left);
        if record.is_err() {
            // Without its length nothing behind a damaged record can be found in this leaf.
            self.bytes = None;
        }
        Some(record)
    }
}
