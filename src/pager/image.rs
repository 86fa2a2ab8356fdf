//! A log over a piece of an image: the same writer as for a store, begun at any segment.
//!
//! Apart because a store's log goes through a file once, from its head on, and an image is written piece
//! by piece, some pieces more than once, none to a file. What is needed to begin at a segment is small.

use std::sync::Arc;

use revtree_format::limits::{FRAME_BODY_BYTES_MAX, SEGMENTS_START};
use revtree_format::{Geometry, LogHead, Position, Revision, SEGMENT_HEADER_BYTES};

use super::log::Log;
use super::medium::Medium;
use super::space::Space;
use crate::error::{Error, Result};
use crate::sys::{Region, Window};

/// What all pieces of an image have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageLog {
    pub(crate) store_id: [u8; 16],
    pub(crate) geometry: Geometry,
    /// The source's number of writable opens (S-3).
    pub(crate) opens: u32,
}

/// Where a segment of an image begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentStart {
    pub(crate) head: LogHead,
    pub(crate) units: u32,
    /// The revision after the frame before it.
    pub(crate) revision: Revision,
}

/// How far an image may go on behind the segment at which a log begins: at most one longest segment for
/// a piece of records, any number of pages behind the last record. Address space only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    NextSegment,
    Pages,
}

/// Pages are below half a percent of the largest store; those of shuttle, for which each segment has a word that
/// is not made of zeros, are small.
const PAGES_BYTES_MAX: u64 = if cfg!(shuttle) { 64 << 20 } else { 64 << 30 };

impl ImageLog {
    /// The first segment; `revision` is below that of every record.
    pub(crate) fn first(&self, revision: Revision) -> SegmentStart {
        let head = LogHead {
            position: Position(SEGMENTS_START + SEGMENT_HEADER_BYTES as u64),
            sequence: 1,
            segment_use: u64::from(self.opens) << 32 | 1,
            segment: 0,
            prev_crc: 0,
        };
        SegmentStart {
            head,
            units: 1,
            revision,
        }
    }

    /// A log at the beginning of a segment.
    pub(crate) fn begin(
        &self,
        start: &SegmentStart,
        window: &Arc<Window>,
        reach: Reach,
    ) -> Result<Log> {
        let SegmentStart { head, units, .. } = *start;
        let behind = match reach {
            Reach::NextSegment => {
                u64::from(FRAME_BODY_BYTES_MAX) + 4 * self.geometry.segment_bytes()
            }
            Reach::Pages => PAGES_BYTES_MAX,
        };
        let bytes = self.geometry.end(head.segment, units).0 + behind;
        let region = Region::reserve(bytes, self.geometry.segment_bytes()).map_err(|_| {
            Error::OutOfMemory {
                what: "address space",
                bytes,
            }
        })?;
        let window = Arc::clone(window);
        let medium = Medium::new(window, region, self.geometry, self.store_id, false);
        let space = Space::of_image(self.geometry, head.segment, units, head.segment_use);
        let mut log = Log::first(Arc::new(medium), space, self.opens, head, start.revision)?;
        log.never_syncs();
        Ok(log)
    }
}

impl SegmentStart {
    /// The segment that `log` has just entered: nothing has been written to it.
    pub(crate) fn of(log: &Log) -> SegmentStart {
        let head = log.head();
        SegmentStart {
            head,
            units: log.space().units_of(head.segment),
            revision: log.closed_revision(),
        }
    }
}
