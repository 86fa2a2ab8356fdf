//! Walking the records of one leaf run.

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
            .and_then(|()| medium.bytes(leaf.position, leaf.len as usize));
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
        if self.next == 0 && head.id != self.first {
            return Err(Error::Corrupt {
                offset: position.0,
                what: "first record of a leaf",
                expected: self.first.main.get(),
                found: head.id.main.get(),
            });
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
