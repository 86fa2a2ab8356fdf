//! Runs: segments into which records are moved (SPEC.md, B-32).
//!
//! Apart from the log because no frame of it names a run, and none of a run names another: a run is there when a
//! checkpoint says so. It is written in memory at its own place in the region, as the log is, so that a record has
//! one address from then on; but nobody reads it before it is whole, so no byte is published on the way, and one
//! that is given up leaves no trace. This must not know which records are moved, nor why.

use revtree_format::limits::{BLOCK_BYTES, FRAME_BODY_BYTES, LEAF_BYTES_MAX};
use revtree_format::{
    FRAME_HEADER_BYTES, FrameFlags, FrameHeader, FrameKind, LeafRun, NewRecord, Position, Revision,
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind,
};

use super::log::Sealed;
use super::medium::Medium;
use crate::error::{Error, Result};
use crate::sys::Extent;

/// A segment that is being filled.
#[derive(Debug)]
pub(crate) struct RunSegment {
    extent: Extent,
    index: u32,
    units: u32,
    segment_use: u64,
    /// Frames written so far.
    frames: u64,
    /// Where the next frame begins, or the open one did.
    at: Position,
    /// The end of the records of the open frame; `None` when none is open.
    open: Option<OpenFrame>,
}

#[derive(Debug)]
struct OpenFrame {
    end: Position,
    records: u32,
    revision: Revision,
    /// The leaf at its end goes on.
    leaf_open: bool,
}

/// Segments that have been filled, and the leaves in them.
#[derive(Debug, Default)]
pub(crate) struct Run {
    segments: Vec<RunSegment>,
    pub(crate) leaves: Vec<LeafRun>,
}

/// Appends records to a run.
pub(crate) struct RunWriter<'a, T> {
    medium: &'a Medium,
    opens: u32,
    /// Takes a segment in which a record of so many bytes fits.
    take: T,
    run: Run,
}

impl RunSegment {
    pub(super) fn new(extent: Extent, index: u32, units: u32, segment_use: u64) -> RunSegment {
        let at = Position(extent.start());
        RunSegment {
            extent,
            index,
            units,
            segment_use,
            frames: 0,
            at,
            open: None,
        }
    }
}

impl<'a, T: FnMut(usize) -> Result<RunSegment>> RunWriter<'a, T> {
    pub(crate) fn new(medium: &'a Medium, opens: u32, take: T) -> RunWriter<'a, T> {
        RunWriter {
            medium,
            opens,
            take,
            run: Run::default(),
        }
    }

    /// Appends a record, which comes behind all those before, and gives its place.
    pub(crate) fn append(&mut self, record: &NewRecord<'_>) -> Result<Position> {
        let len = record.record_len();
        self.make_room(len)?;
        let segment = self.run.segments.last_mut().expect("made room in one");
        let segment_use = segment.segment_use;
        let begins_frame = segment.open.is_none();
        let frame = segment.open.get_or_insert(OpenFrame {
            end: segment.at.plus(FRAME_HEADER_BYTES as u64),
            records: 0,
            revision: record.id.main,
            leaf_open: false,
        });
        let position = frame.end;
        let target = segment
            .extent
            .slice_mut(position.0, len)
            .expect("made room, and nothing here is published");
        record.encode(target, self.medium.place(segment_use, position));
        frame.end = position.plus(len as u64);
        frame.records += 1;
        frame.revision = record.id.main;
        let narrow = u32::try_from(len).expect("a record is shorter than 4 GiB");
        let goes_on = frame.leaf_open && !begins_frame;
        frame.leaf_open = true;
        match self.run.leaves.last_mut() {
            Some(leaf) if goes_on && leaf.len as usize + len <= LEAF_BYTES_MAX => {
                leaf.len += narrow;
                leaf.records += 1;
            }
            _ => self.run.leaves.push(LeafRun {
                first: record.id,
                position,
                segment_use,
                len: narrow,
                records: 1,
            }),
        }
        Ok(position)
    }

    /// Records that stay where they are come between the last record and the next: a leaf ends here, and with it a
    /// frame, from which its leaves follow (B-31).
    pub(crate) fn interrupt(&mut self) {
        let opens = self.opens;
        if let Some(segment) = self.run.segments.last_mut() {
            close_frame(self.medium, segment, opens);
        }
    }

    /// Makes sure that the last segment has room for a record of `len` bytes, in its open frame or in a new one.
    fn make_room(&mut self, len: usize) -> Result<()> {
        let opens = self.opens;
        if let Some(segment) = self.run.segments.last_mut()
            && let Some(frame) = &segment.open
        {
            let body = frame.end.0 - segment.at.0 - FRAME_HEADER_BYTES as u64;
            let fits = frame.end.0 + len as u64 <= segment.limit();
            if !fits || body + len as u64 > FRAME_BODY_BYTES as u64 {
                close_frame(self.medium, segment, opens);
            }
        }
        let has_room = self.run.segments.last().is_some_and(|segment| {
            segment.open.is_some()
                || segment.at.0 + (FRAME_HEADER_BYTES + len) as u64 <= segment.limit()
        });
        if !has_room {
            let mut segment = (self.take)(len)?;
            segment.begin(self.medium);
            self.run.segments.push(segment);
        }
        Ok(())
    }

    /// Ends the run: its bytes are in the file, not synced, and still nobody reads them.
    pub(crate) fn write_out(&mut self) -> Result<()> {
        self.interrupt();
        let mut segments = self.run.segments.iter();
        segments.try_for_each(|segment| segment.write(self.medium))
    }

    /// What has been appended.
    pub(crate) fn into_run(self) -> Run {
        self.run
    }
}

impl RunSegment {
    /// Frames end here at the latest (B-11).
    fn limit(&self) -> u64 {
        self.extent.end() - BLOCK_BYTES
    }

    fn begin(&mut self, medium: &Medium) {
        let start = medium.geometry.start(self.index);
        let header = SegmentHeader {
            segment_use: self.segment_use,
            index: self.index,
            units: self.units,
            kind: SegmentKind::Run,
            first_sequence: 1,
        };
        self.extent
            .write(start.0, &header.encode(&medium.store_id))
            .expect("a fresh segment");
        self.at = start.plus(SEGMENT_HEADER_BYTES as u64);
    }

    fn write(&self, medium: &Medium) -> Result<()> {
        let mut from = medium.geometry.start(self.index).0;
        while from < self.at.0 {
            let len = usize::try_from(self.at.0 - from).expect("inside a segment");
            let len = len.min(WRITE_BYTES);
            let bytes = self.extent.bytes(from, len).expect("inside the segment");
            medium
                .storage
                .write_at(bytes, from)
                .map_err(Error::on("write a run"))?;
            from += len as u64;
        }
        Ok(())
    }
}

impl Run {
    /// Bytes of its segments, as far as they are written.
    pub(crate) fn bytes(&self, medium: &Medium) -> u64 {
        let bytes = |segment: &RunSegment| segment.at.0 - medium.geometry.start(segment.index).0;
        self.segments.iter().map(bytes).sum()
    }

    /// The unit behind its last one.
    pub(crate) fn end(&self) -> u32 {
        let ends = self
            .segments
            .iter()
            .map(|segment| segment.index + segment.units);
        ends.max().unwrap_or(0)
    }

    /// Units of its segments.
    pub(crate) fn units(&self) -> u64 {
        let units = self.segments.iter().map(|segment| u64::from(segment.units));
        units.sum()
    }

    /// The uses of its segments are known from now on.
    pub(crate) fn announce(&self, medium: &Medium) {
        for segment in &self.segments {
            for unit in 0..segment.units {
                medium.set_use(segment.index + unit, segment.segment_use);
            }
        }
    }

    /// Lets readers see the records, whose places nobody knows yet.
    pub(crate) fn publish(&mut self) {
        for segment in &mut self.segments {
            segment.extent.publish(segment.at.0);
        }
    }

    /// It is durable: its pages may be the file's.
    pub(crate) fn into_sealed(self) -> impl Iterator<Item = Sealed> {
        self.segments.into_iter().map(|segment| Sealed {
            extent: segment.extent,
            up_to: 0,
        })
    }

    /// Leaves no trace in memory: nobody has seen it. Gives its segments.
    pub(crate) fn give_up(self, medium: &Medium) -> Vec<u32> {
        let erase = |mut segment: RunSegment| {
            for unit in 0..segment.units {
                medium.set_use(segment.index + unit, 0);
            }
            let (from, to) = (segment.extent.floor(), segment.extent.end());
            let len = usize::try_from(to - from).expect("a segment");
            if let Some(bytes) = segment.extent.slice_mut(from, len) {
                bytes.fill(0);
            }
            segment.index
        };
        self.segments.into_iter().map(erase).collect()
    }
}

/// Closes the open frame of a segment.
fn close_frame(medium: &Medium, segment: &mut RunSegment, opens: u32) {
    let Some(frame) = segment.open.take() else {
        return;
    };
    let body_at = segment.at.plus(FRAME_HEADER_BYTES as u64);
    let body_len = frame.end.0 - body_at.0;
    let len = usize::try_from(body_len).expect("at most 300 MiB");
    let body = segment
        .extent
        .bytes(body_at.0, len)
        .expect("inside the segment");
    let body_len = u32::try_from(body_len).expect("at most 300 MiB");
    segment.frames += 1;
    let header = FrameHeader {
        kind: FrameKind::Run,
        flags: FrameFlags::default(),
        body_crc: crc32c::crc32c(body),
        prev_crc: 0,
        sequence: segment.frames,
        synced_up_to: 0,
        revision: frame.revision,
        body_len,
        records_len: body_len,
        record_count: frame.records,
        opens,
    };
    let place = medium.place(segment.segment_use, segment.at);
    let (bytes, _) = header.encode(place);
    segment
        .extent
        .write(segment.at.0, &bytes)
        .expect("kept for it");
    segment.at = header.next_position(segment.at);
}

/// Bytes written at a time: a longer write would hold the file's lock for as long (D-6).
const WRITE_BYTES: usize = 256 << 10;
