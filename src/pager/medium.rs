//! Reading the file: through the mapped region, or by positioned reads into buffers.
//!
//! Apart because two kinds of store share every parser above: one whose bytes can be borrowed, and one
//! (read-only beside a writer, or on a medium that fails) whose bytes must be copied.

use std::ops::Deref;
use std::sync::Arc;

use revtree_format::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, Geometry, PageRef, Place, Position,
    RECORD_HEAD_BYTES, RecordHead, StoreSeed, head_and_key_len, parse_record,
};

use super::growing::Growing;
use crate::error::{Error, Result};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::sys::{Region, Storage};

/// What a reader needs to know of an open file.
#[derive(Debug)]
pub(crate) struct Medium {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) region: Arc<Region>,
    pub(crate) geometry: Geometry,
    pub(crate) store_id: [u8; 16],
    pub(crate) seed: StoreSeed,
    /// Whether the file is left unmapped, so that what lies only in it is read into buffers.
    copies: bool,
    /// Reads below this offset that the region does not answer go to the file.
    readable_end: AtomicU64,
    uses: Growing<Unit>,
    /// Heads of records read: what tests count.
    #[cfg(feature = "unstable-storage")]
    pub(crate) heads_read: AtomicU64,
}

/// What is known of one unit.
#[derive(Debug, Default)]
struct Unit {
    /// The use of its segment; 0 when it is free.
    segment_use: AtomicU64,
    /// Its segment is retired: who began before may still read there, and no hint leads to it any more.
    retired: AtomicBool,
}

/// Bytes of the file: borrowed from the region, or read into a buffer.
#[derive(Debug)]
pub(crate) enum Raw<'a> {
    Borrowed(&'a [u8]),
    Copied(Vec<u8>),
}

impl Deref for Raw<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Raw::Borrowed(bytes) => bytes,
            Raw::Copied(bytes) => bytes,
        }
    }
}

impl Medium {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        region: Arc<Region>,
        geometry: Geometry,
        store_id: [u8; 16],
        copies: bool,
    ) -> Medium {
        Medium {
            storage,
            region,
            geometry,
            store_id,
            seed: StoreSeed::new(&store_id),
            copies,
            readable_end: AtomicU64::new(0),
            uses: Growing::new(),
            #[cfg(feature = "unstable-storage")]
            heads_read: AtomicU64::new(0),
        }
    }

    /// The file's bytes below `end` may be read from now on.
    pub(crate) fn extend(&self, end: u64) {
        self.readable_end.fetch_max(end, Ordering::Release);
    }

    /// The file has been cut: what lay behind `end` is not there any more. For an open that nobody reads yet.
    pub(crate) fn cut(&self, end: u64) {
        self.readable_end.fetch_min(end, Ordering::Release);
    }

    /// Segment `index` is in its use number `segment_use`; Release, so that whoever reads a record of
    /// that use knows the number.
    pub(crate) fn set_use(&self, index: u32, segment_use: u64) {
        let unit = self.uses.make(index as usize);
        unit.retired.store(false, Ordering::Relaxed);
        unit.segment_use.store(segment_use, Ordering::Release);
    }

    /// No hint leads to unit `index` from now on; what lies there can still be read. Release, so that whoever
    /// sees what is done behind this call knows.
    pub(crate) fn retire(&self, index: u32) {
        let unit = self.uses.make(index as usize);
        unit.retired.store(true, Ordering::Release);
    }

    fn unit(&self, position: Position) -> Option<&Unit> {
        let index = self.geometry.index_of(position)?;
        self.uses.get(index as usize)
    }

    fn use_at(&self, position: Position) -> u64 {
        let unit = self.unit(position);
        unit.map_or(0, |unit| unit.segment_use.load(Ordering::Acquire))
    }

    fn is_retired(&self, position: Position) -> bool {
        self.unit(position)
            .is_some_and(|unit| unit.retired.load(Ordering::Acquire))
    }

    /// Where a frame or record of this store lies.
    pub(crate) fn place(&self, segment_use: u64, position: Position) -> Place {
        Place {
            seed: self.seed,
            segment_use,
            position,
        }
    }

    /// Where the segment of a position begins, if it is in use: each unit of a long one knows its use. No
    /// further back than a segment is long, whatever a file says (B-12).
    pub(crate) fn segment_start(&self, position: Position) -> Option<Position> {
        let segment_use = self.use_at(position);
        if segment_use == 0 {
            return None;
        }
        let last = self.geometry.index_of(position)?;
        let first = last.saturating_sub(self.geometry.units_max() - 1);
        let is_of_it = |index: &u32| self.use_at(self.geometry.start(*index)) == segment_use;
        let units = (first..=last).rev().take_while(is_of_it);
        units.last().map(|index| self.geometry.start(index))
    }

    /// What a page names must lie in the use of a segment that the table or the chain has: else its bytes are
    /// anybody's, or have been cut off.
    pub(crate) fn check_use(&self, position: Position, segment_use: u64) -> Result<()> {
        let expected = self.use_at(position);
        if expected == segment_use {
            return Ok(());
        }
        Err(Error::Corrupt {
            offset: position.0,
            what: "use of the segment",
            expected,
            found: segment_use,
        })
    }

    /// Whether a position lies in a segment that is in use.
    pub(crate) fn is_in_use(&self, position: Position) -> bool {
        self.use_at(position) != 0
    }

    /// Whether a hint in the record at `from` still means what it meant when it was written (B-46): the
    /// segment at `to` has not been put to another use since the record's own was. None leads into a segment that
    /// is retired: it would outlive who waits for those that began before.
    pub(crate) fn is_hint_valid(&self, from: Position, to: Position) -> bool {
        let target = self.use_at(to);
        target != 0 && target <= self.use_at(from) && !self.is_retired(to)
    }

    /// Whether the file is left unmapped.
    pub(crate) fn copies(&self) -> bool {
        self.copies
    }

    /// `len` bytes at `position`.
    pub(crate) fn bytes(&self, position: Position, len: usize) -> Result<Raw<'_>> {
        if let Some(bytes) = self.region.bytes(position.0, len) {
            return Ok(Raw::Borrowed(bytes));
        }
        let beyond = || Error::Corrupt {
            offset: position.0,
            what: "bytes beyond what was written",
            expected: 0,
            found: len as u64,
        };
        let end = position.0.checked_add(len as u64).ok_or_else(beyond)?;
        if end > self.readable_end.load(Ordering::Acquire) {
            return Err(beyond());
        }
        let mut buf = vec![0; len];
        self.storage
            .read_at(&mut buf, position.0)
            .map_err(Error::on("read"))?;
        Ok(Raw::Copied(buf))
    }

    /// Calls `with` with the checked head and key of the record at `position`.
    pub(crate) fn with_head<R>(
        &self,
        position: Position,
        with: impl FnOnce(&RecordHead, &[u8]) -> R,
    ) -> Result<R> {
        let fixed = self.bytes(position, RECORD_HEAD_BYTES)?;
        let len = head_and_key_len(&fixed, position)?;
        let raw = self.bytes(position, len)?;
        // By the use that its segment has now.
        let place = self.place(self.use_at(position), position);
        let (head, key) = parse_record(&raw, place)?;
        #[cfg(feature = "unstable-storage")]
        self.heads_read.fetch_add(1, Ordering::Relaxed);
        Ok(with(&head, key))
    }

    /// The checked head of the record at `position`.
    pub(crate) fn head(&self, position: Position) -> Result<RecordHead> {
        self.with_head(position, |head, _| *head)
    }

    /// The body of the page that `page` names, checked against what its parent says.
    pub(crate) fn page(&self, page: &PageRef, kind: FrameKind) -> Result<Raw<'_>> {
        let at = page.position;
        let header_bytes = self.bytes(at, FRAME_HEADER_BYTES)?;
        let place = self.place(page.segment_use, at);
        let (header, _) = FrameHeader::parse(&header_bytes, place)?;
        let wrong = |what, expected: u64, found: u64| Error::Corrupt {
            offset: at.0,
            what,
            expected,
            found,
        };
        if header.kind != kind {
            return Err(wrong("page kind", kind as u64, header.kind as u64));
        }
        if header.body_len != page.body_len {
            let (expected, found) = (page.body_len.into(), header.body_len.into());
            return Err(wrong("page length", expected, found));
        }
        if header.body_crc != page.body_crc {
            let (expected, found) = (page.body_crc.into(), header.body_crc.into());
            return Err(wrong("page checksum in its parent", expected, found));
        }
        let body = self.bytes(at.plus(FRAME_HEADER_BYTES as u64), page.body_len as usize)?;
        header.check_body(&body, at)?;
        Ok(body)
    }

    /// Asks for the cache line at `position`.
    pub(crate) fn prefetch(&self, position: Position) {
        self.region.prefetch(position.0);
    }
}
