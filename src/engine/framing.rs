//! Checking the frames that hold records, from the file (SPEC.md, C-30).
//!
//! A record's own checksums leave out its hints and padding, and nobody reads the header of a frame
//! before the log's head. So that a check finds rot in these too, each segment that holds a leaf is
//! walked frame by frame, from its start to the last leaf in it, and every body is summed. Behind that
//! leaf a segment may end anyhow: recovery leaves such ends behind. Each is walked once, in whatever order
//! pages name its leaves.

use std::collections::HashMap;
use std::ops::Range;

use revtree_format::{
    FRAME_HEADER_BYTES, FormatError, FrameHeader, LeafRun, Position, Revision,
    SEGMENT_HEADER_BYTES, SegmentHeader,
};

use super::Engine;
use crate::error::{Error, Result};

/// How much of a body is read at once.
const PIECE_BYTES: usize = 256 << 10;

/// The walk. Leaves are given in the order of their revisions, in which they lie in a segment.
pub(crate) struct FrameCheck<'a> {
    engine: &'a Engine,
    /// What is newer may lie behind the log's head, which the check of the chain reads.
    until: Revision,
    /// How far each segment has been walked, by its use.
    segments: HashMap<u64, Walked>,
    pub(crate) frames: u64,
    /// What is wrong, and the bytes that it is wrong of.
    pub(crate) damage: Vec<(Range<u64>, Error)>,
}

/// How far a segment has been walked.
struct Walked {
    segment_use: u64,
    /// Where the next frame begins; `None` when damage hides it.
    next: Option<Position>,
    /// Where the records of the frame before end.
    records_end: u64,
}

impl<'a> FrameCheck<'a> {
    /// Of the leaves up to `until`, the revision of a checkpoint that is in the file.
    pub(crate) fn new(engine: &'a Engine, until: Revision) -> FrameCheck<'a> {
        FrameCheck {
            engine,
            until,
            segments: HashMap::new(),
            frames: 0,
            damage: Vec::new(),
        }
    }

    /// Walks up to the frame that holds `leaf`.
    pub(crate) fn leaf(&mut self, leaf: &LeafRun) -> Result<()> {
        if leaf.first.main > self.until {
            return Ok(());
        }
        let mut walked = match self.segments.remove(&leaf.segment_use) {
            Some(walked) => walked,
            None => self.begin(leaf)?,
        };
        while let Some(next) = walked.next.filter(|next| *next <= leaf.position) {
            self.frame(next, &mut walked)?;
        }
        let end = leaf.position.0 + u64::from(leaf.len);
        if walked.next.is_some() && end > walked.records_end {
            let error = FormatError::new(
                leaf.position.0,
                "leaf in its frame",
                walked.records_end,
                end,
            );
            self.damage.push((leaf.position.0..end, error.into()));
        }
        self.segments.insert(leaf.segment_use, walked);
        Ok(())
    }

    /// Goes to the start of the segment that holds `leaf`.
    fn begin(&mut self, leaf: &LeafRun) -> Result<Walked> {
        let medium = &self.engine.medium;
        let Some(start) = medium.segment_start(leaf.position) else {
            let (at, use_of_it) = (leaf.position.0, leaf.segment_use);
            let error = FormatError::new(at, "leaf in a segment in use", use_of_it, 0);
            self.damage
                .push((at..at + u64::from(leaf.len), error.into()));
            return Ok(Walked {
                segment_use: leaf.segment_use,
                next: None,
                records_end: 0,
            });
        };
        let mut raw = [0; SEGMENT_HEADER_BYTES];
        self.read(&mut raw, start)?;
        let parsed = SegmentHeader::parse(&raw, &medium.store_id, start.0).and_then(|header| {
            if header.segment_use == leaf.segment_use {
                return Ok(());
            }
            let (expected, found) = (leaf.segment_use, header.segment_use);
            Err(FormatError::new(
                start.0,
                "use of a segment",
                expected,
                found,
            ))
        });
        let first = start.plus(SEGMENT_HEADER_BYTES as u64);
        if let Err(error) = parsed {
            self.damage.push((start.0..first.0, error.into()));
        }
        Ok(Walked {
            segment_use: leaf.segment_use,
            next: Some(first),
            records_end: 0,
        })
    }

    fn frame(&mut self, at: Position, walked: &mut Walked) -> Result<()> {
        let place = self.engine.medium.place(walked.segment_use, at);
        let mut raw = [0; FRAME_HEADER_BYTES];
        self.read(&mut raw, at)?;
        let body = at.plus(FRAME_HEADER_BYTES as u64);
        let header = match FrameHeader::parse(&raw, place) {
            Ok((header, _)) => header,
            Err(error) => {
                self.damage.push((at.0..body.0, error.into()));
                walked.next = None;
                return Ok(());
            }
        };
        self.frames += 1;
        let end = body.0 + u64::from(header.body_len);
        let found = self.body_crc(body, header.body_len as usize)?;
        if found != header.body_crc {
            let error =
                FormatError::new(at.0, "frame body CRC", header.body_crc.into(), found.into());
            self.damage.push((body.0..end, error.into()));
        }
        walked.records_end = body.0 + u64::from(header.records_len);
        walked.next = Some(header.next_position(at));
        Ok(())
    }

    fn body_crc(&self, at: Position, len: usize) -> Result<u32> {
        let mut piece = vec![0; len.min(PIECE_BYTES)];
        let mut crc = 0;
        let mut done = 0;
        while done < len {
            let piece = &mut piece[..(len - done).min(PIECE_BYTES)];
            self.read(piece, at.plus(done as u64))?;
            crc = crc32c::crc32c_append(crc, piece);
            done += piece.len();
        }
        Ok(crc)
    }

    fn read(&self, raw: &mut [u8], at: Position) -> Result<()> {
        let storage = self.engine.storage();
        storage
            .read_at(raw, at.0)
            .map_err(Error::on("read a frame"))
    }
}
