//! Walking the records of one leaf run.

use revtree_format::{LeafRun, Position, RecordHead};

use crate::error::{Error, Result};
use crate::pager::Medium;

/// The records of a leaf in order: position and checked head.
#[derive(Debug)]
pub(crate) struct LeafRecords<'a> {
    medium: &'a Medium,
    at: Position,
    end: Position,
}

impl<'a> LeafRecords<'a> {
    pub(crate) fn new(medium: &'a Medium, leaf: LeafRun) -> LeafRecords<'a> {
        let end = leaf.position.plus(leaf.len.into());
        LeafRecords {
            medium,
            at: leaf.position,
            end,
        }
    }

    fn read(&mut self) -> Result<(Position, RecordHead)> {
        let position = self.at;
        let head = self.medium.head(position)?;
        let next = position.plus(head.record_len() as u64);
        if next > self.end {
            return Err(Error::Corrupt {
                offset: position.0,
                what: "record beyond its leaf",
                expected: self.end.0,
                found: next.0,
            });
        }
        self.at = next;
        Ok((position, head))
    }
}

impl Iterator for LeafRecords<'_> {
    type Item = Result<(Position, RecordHead)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            // Without its length nothing behind a damaged record can be found in this leaf.
            self.at = self.end;
        }
        Some(record)
    }
}
