//! The log: frames appended to the active segment, group after group (SPEC.md, B-20 to B-32, C-2 to C-9).
//!
//! Bytes are made in memory at their own place in the region and written out from there, so a reader
//! sees a record at the same address before and after it is on disk. A frame's header is written when
//! the frame is closed, into a hole kept for it, because it holds the checksum of what follows.
//!
//! The log does not sync and does not know what a record means: it hands out positions, and tells the
//! caller where a leaf run begins.

use std::sync::Arc;

use revtree_format::limits::{BLOCK_BYTES, FRAME_BODY_BYTES, LEAF_BYTES_MAX};
use revtree_format::{
    Control, FRAME_HEADER_BYTES, FrameFlags, FrameHeader, FrameKind, Geometry, LogHead, NewRecord,
    PageRef, Place, Position, Revision, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind,
};

use super::ahead::Ahead;
use super::medium::Medium;
use super::run::RunSegment;
use super::space::{COPY_BYTES_MAX, Kept, Pages, Room, Space, Wanted};
use crate::error::{Error, Result};
use crate::sys::{Extent, Unread, page_size};

/// The appending end of a log. One per open store, under the append lock.
#[derive(Debug)]
pub(crate) struct Log {
    medium: Arc<Medium>,
    space: Space,
    opens: u32,
    active: Active,
    frame: Option<OpenFrame>,
    /// Where the next frame begins when none is open.
    next: Position,
    /// Sequence number of the next frame to be closed.
    sequence: u64,
    /// Header checksum of the frame closed last.
    prev_crc: u32,
    /// Whether the frame closed last was padded: the next one begins a block.
    padded: bool,
    /// All frames before this sequence number are durable.
    synced_up_to: u64,
    /// The active segment is written to the file up to here.
    written: Position,
    ahead: Ahead,
    /// Segments that are full; shown from the file once durable.
    sealed: Vec<Sealed>,
    /// What has been appended since the log was opened.
    appended: Amount,
    /// The same at the end of the last group, and the number of the frame behind it.
    grouped: Amount,
    sequence_grouped: u64,
    /// The same at the end of what the newest sync covered, and the one before it: until a later group carries
    /// its mark, recovery does not know of the newest.
    synced: [Amount; 2],
    /// The store's revision after the commit whose pieces are being appended.
    revision: Revision,
    /// The same after the frame closed last: what pages and closing frames carry.
    closed_revision: Revision,
}

/// The segment that is being filled.
#[derive(Debug)]
struct Active {
    index: u32,
    segment_use: u64,
    extent: Extent,
    /// Frames end here at the latest; the block behind is the closing frame's.
    limit: Position,
    /// Space for a closing frame with the name of the next segment ends here.
    end: Position,
}

/// A full segment whose bytes are all written to the file.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(super) extent: Extent,
    /// Durable when all frames before this number are.
    pub(super) up_to: u64,
}

/// How much has been appended.
#[derive(Clone, Copy, Default, Debug)]
struct Amount {
    bytes: u64,
    /// Segments for pieces that are longer than one unit.
    long: u64,
}

#[derive(Debug)]
struct OpenFrame {
    position: Position,
    /// Where the next record goes.
    end: Position,
    records: u32,
    /// Bytes of the leaf run at the end; 0 when none has begun.
    leaf_bytes: usize,
    controls: Vec<u8>,
    /// The store's revision after the newest piece in it.
    revision: Revision,
}

/// Where a record was put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) position: Position,
    pub(crate) len: u32,
    pub(crate) segment_use: u64,
    /// Whether a new leaf run begins with it.
    pub(crate) begins_leaf: bool,
}

/// The end of a sealed group: everything before it is in the file, not yet synced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) head: LogHead,
}

impl Log {
    /// A log that goes on at `head`, in a segment whose bytes before it are published.
    pub(crate) fn resume(
        medium: Arc<Medium>,
        space: Space,
        opens: u32,
        head: LogHead,
        revision: Revision,
        extent: Extent,
    ) -> Log {
        let geometry = medium.geometry;
        let units = space.units_of(head.segment);
        let active = Active::new(geometry, head.segment, units, head.segment_use, extent);
        Log {
            revision,
            closed_revision: revision,
            medium,
            space,
            opens,
            active,
            frame: None,
            next: head.position,
            sequence: head.sequence,
            prev_crc: head.prev_crc,
            padded: true,
            synced_up_to: head.sequence,
            written: head.position,
            ahead: Ahead::new(head.position, geometry),
            sealed: Vec::new(),
            appended: Amount::default(),
            grouped: Amount::default(),
            sequence_grouped: 0,
            synced: [Amount::default(); 2],
        }
    }

    /// A log whose head is the start of a segment in which nothing has been written.
    pub(crate) fn first(
        medium: Arc<Medium>,
        space: Space,
        opens: u32,
        head: LogHead,
        revision: Revision,
    ) -> Result<Log> {
        let units = space.units_of(head.segment);
        let extent = claim(&medium, head.segment, units)?;
        medium.set_use(head.segment, head.segment_use);
        let mut log = Log::resume(medium, space, opens, head, revision, extent);
        let start = log.medium.geometry.start(head.segment);
        log.begin_segment(start, head.segment, units, head.segment_use);
        Ok(log)
    }

    /// A log that goes on in a fresh segment, after the frame whose number and checksum `before`
    /// expects of its successor.
    pub(crate) fn begin(
        medium: Arc<Medium>,
        mut space: Space,
        opens: u32,
        before: LogHead,
        revision: Revision,
        synced_up_to: u64,
    ) -> Result<Log> {
        let geometry = medium.geometry;
        let bytes = 4 * BLOCK_BYTES;
        let wanted = Wanted {
            bytes,
            short: 1,
            last_is_short: true,
            left: geometry.segment_bytes() - bytes,
            ..Wanted::default()
        };
        let storage = &*medium.storage;
        space.reserve(storage, None, wanted, Room::Upkeep, Kept::default())?;
        let taken = space.take(storage, 1, bytes)?;
        let (index, segment_use) = (taken.index, taken.segment_use);
        let extent = claim(&medium, index, 1)?;
        let start = geometry.start(index);
        let head = LogHead {
            position: start,
            segment: index,
            segment_use,
            ..before
        };
        medium.set_use(index, segment_use);
        let mut log = Log::resume(medium, space, opens, head, revision, extent);
        log.begin_segment(start, index, 1, segment_use);
        log.ahead.enter(start, taken.recycled);
        // Until a superblock names this segment, its frames prove nothing (C-26).
        log.synced_up_to = synced_up_to;
        Ok(log)
    }

    /// The segment table and the allocated length.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// The same, to change it.
    pub(crate) fn space_mut(&mut self) -> &mut Space {
        &mut self.space
    }

    /// Bytes appended by this open.
    pub(crate) fn appended(&self) -> u64 {
        self.appended.bytes
    }

    /// Sequence number of the frame that is open or comes next.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where the log goes on when no frame is open.
    pub(crate) fn head(&self) -> LogHead {
        LogHead {
            position: self.next,
            sequence: self.sequence,
            segment_use: self.active.segment_use,
            segment: self.active.index,
            prev_crc: self.prev_crc,
        }
    }

    /// Everything before has been written to the file.
    pub(crate) fn written(&self) -> Position {
        self.written
    }

    /// What pieces (records and control items) of these lengths take, appended now.
    pub(crate) fn wanted(&self, pieces: impl Iterator<Item = usize>) -> Wanted {
        let open = self.frame.as_ref();
        let mut at = open.map_or(self.next, |frame| frame.end);
        at = at.plus(open.map_or(0, |frame| frame.controls.len()) as u64);
        let mut limit = self.active.limit;
        // Segments that are still to be taken; `at` then counts in the last of them.
        let mut wanted = Wanted::default();
        let geometry = self.medium.geometry;
        for len in pieces {
            // A header and a border of a block for each piece is more than ever needed.
            let need = len as u64 + FRAME_HEADER_BYTES as u64 + 8;
            wanted.bytes += need;
            if at.0 + need > limit.0 {
                let units = units_for(geometry, len);
                wanted.last_is_short = units == 1;
                match units {
                    1 => wanted.short += 1,
                    _ => wanted.long_units += units,
                }
                at = Position(SEGMENT_HEADER_BYTES as u64);
                limit = Position(u64::from(units) * geometry.segment_bytes() - BLOCK_BYTES);
            }
            at = at.plus(need);
        }
        wanted.left = if wanted.short + wanted.long_units == 0 {
            self.active.end.0.saturating_sub(at.0 + 2 * BLOCK_BYTES)
        } else {
            // Behind what is asked for here `take` wants four blocks at most; a long one it wants whole.
            limit.0.saturating_sub(at.0 + 4 * BLOCK_BYTES)
        };
        wanted
    }

    /// Makes sure that what is wanted can be appended without a call that can fail for want of space. Nothing has
    /// been written when it fails (C-4). `pages` are those that a checkpoint would write behind it; what upkeep
    /// needs stays free (C-6).
    pub(crate) fn reserve(&mut self, wanted: Wanted, room: Room, pages: Pages) -> Result<()> {
        let in_doubt = self.appended.bytes - self.synced[1].bytes + wanted.bytes;
        // Long records leave up to half of a segment empty, so twice as much with what `Space` adds.
        let copy = in_doubt.min(COPY_BYTES_MAX) / 3 * 4;
        let for_recovery = matches!(room, Room::Changes | Room::Spare);
        let copies_long = self.appended.long > self.synced[1].long || wanted.long_units > 0;
        let writes_long = units_for(self.medium.geometry, pages.longest) > 1;
        let segments = self.space.kept_for_cleaner(room);
        // A round of cleaning begins with a checkpoint, and keeps two.
        let round = if segments > 0 { pages.again } else { 0 };
        let kept = Kept {
            bytes: room.kept(pages.bytes, copy) + round,
            has_long: writes_long || for_recovery && copies_long,
            for_recovery,
            segments,
        };
        let storage = &*self.medium.storage;
        let segment_end = Some(self.active.end.0);
        self.space.reserve(storage, segment_end, wanted, room, kept)
    }

    /// Puts a segment to use for a run, in which a record of `len` bytes fits. It is given up, or named by the next
    /// checkpoint.
    pub(crate) fn take_run(&mut self, len: usize, pages: Pages) -> Result<RunSegment> {
        let units = units_for(self.medium.geometry, len);
        let bytes = u64::from(units) * self.medium.geometry.segment_bytes();
        let wanted = Wanted {
            bytes,
            short: u32::from(units == 1),
            long_units: if units == 1 { 0 } else { units },
            for_run: true,
            left: self.wanted(std::iter::empty()).left,
            ..Wanted::default()
        };
        self.reserve(wanted, Room::Cleaning, pages)?;
        let taken = self.space.take_run(&*self.medium.storage, units)?;
        let (index, segment_use) = (taken.index, taken.segment_use);
        match claim(&self.medium, index, units) {
            Ok(extent) => Ok(RunSegment::new(extent, index, units, segment_use)),
            Err(error) => {
                self.space.give_up(index);
                Err(error)
            }
        }
    }

    /// Goes on in a free segment that lies before its own, if there is one, and another for what stays in its own;
    /// everything before is written out.
    pub(crate) fn move_forward(&mut self, pages: Pages) -> Result<()> {
        if self.space.free_before(self.active.index) < 2 {
            return Ok(());
        }
        let wanted = Wanted {
            bytes: BLOCK_BYTES,
            short: 1,
            last_is_short: true,
            left: self.medium.geometry.segment_bytes() - 4 * BLOCK_BYTES,
            ..Wanted::default()
        };
        self.reserve(wanted, Room::Spare, pages)?;
        self.close_frame(FrameFlags::default())?;
        self.next_segment(0)
    }

    /// A transaction of `bytes` begins: the open frame is closed when it would not fit.
    pub(crate) fn begin_transaction(&mut self, bytes: usize) -> Result<()> {
        let full = self.frame.as_ref().is_some_and(|frame| {
            let body = frame.end.0 - frame.position.0 + frame.controls.len() as u64;
            body + bytes as u64 > FRAME_BODY_BYTES as u64
        });
        if full {
            self.close_frame(FrameFlags::default())
        } else {
            Ok(())
        }
    }

    /// Appends a record. `in_run`: parts of the same transaction are in the frame already, so that a
    /// frame closed here is continued.
    pub(crate) fn append(&mut self, record: &NewRecord<'_>, in_run: bool) -> Result<Appended> {
        let len = record.record_len();
        self.make_room(len, in_run)?;
        let position = self.frame.as_ref().expect("opened above").end;
        let place = self.place(position);
        let target = self
            .active
            .extent
            .slice_mut(position.0, len)
            .expect("open_frame made room above the published mark");
        record.encode(target, place);
        let frame = self.frame.as_mut().expect("opened above");
        let end = position.plus(len as u64);
        self.active.extent.publish(end.0);
        frame.end = end;
        frame.revision = self.revision;
        frame.records += 1;
        let begins_leaf = frame.leaf_bytes == 0 || frame.leaf_bytes + len > LEAF_BYTES_MAX;
        frame.leaf_bytes = if begins_leaf {
            len
        } else {
            frame.leaf_bytes + len
        };
        Ok(Appended {
            position,
            len: u32::try_from(len).expect("a record is shorter than 4 GiB"),
            segment_use: self.active.segment_use,
            begins_leaf,
        })
    }

    /// Opens the frame into which a record of `len` bytes will go, in another segment if it has to be.
    pub(crate) fn make_room(&mut self, len: usize, in_run: bool) -> Result<()> {
        self.close_full(len, in_run)?;
        self.open_frame(len, in_run)
    }

    /// Closes the open frame if a piece of `len` bytes would make it longer than a frame should be.
    fn close_full(&mut self, len: usize, in_run: bool) -> Result<()> {
        let full = self.frame.as_ref().is_some_and(|frame| {
            let body = frame.end.0 - frame.position.0 + frame.controls.len() as u64;
            let empty = frame.records == 0 && frame.controls.is_empty();
            !empty && body + len as u64 > FRAME_BODY_BYTES as u64
        });
        if full {
            self.close_frame(FrameFlags {
                continued: in_run,
                ..FrameFlags::default()
            })?;
        }
        Ok(())
    }

    /// Makes sure that frames of together `len` bytes, headers included, will lie in one segment.
    pub(crate) fn keep_together(&mut self, len: usize) -> Result<()> {
        self.close_frame(FrameFlags::default())?;
        if self.next.0 + len as u64 > self.active.limit.0 {
            self.next_segment(len)?;
        }
        Ok(())
    }

    /// Adds a control item to the frame of the commit.
    pub(crate) fn control(&mut self, item: &Control<'_>, in_run: bool) -> Result<()> {
        let len = item.encoded_len();
        self.close_full(len, in_run)?;
        self.open_frame(len, in_run)?;
        let frame = self.frame.as_mut().expect("opened above");
        item.encode(&mut frame.controls);
        frame.revision = self.revision;
        Ok(())
    }

    /// Opens a frame when none is open, one that has room for `len` bytes more: the open frame is
    /// closed and another segment taken when its segment is full.
    fn open_frame(&mut self, len: usize, in_run: bool) -> Result<()> {
        if let Some(frame) = &self.frame {
            if frame.end.0 + (frame.controls.len() + len) as u64 <= self.active.limit.0 {
                return Ok(());
            }
            self.close_frame(FrameFlags {
                continued: in_run,
                ..FrameFlags::default()
            })?;
        }
        if self.next.0 + (FRAME_HEADER_BYTES + len) as u64 > self.active.limit.0 {
            self.next_segment(len)?;
        }
        let position = self.next;
        self.active
            .extent
            .open_hole(position.0)
            .expect("a frame begins above the published mark, and one is open at a time");
        self.frame = Some(OpenFrame {
            position,
            end: position.plus(FRAME_HEADER_BYTES as u64),
            records: 0,
            leaf_bytes: 0,
            controls: Vec::new(),
            revision: self.closed_revision,
        });
        Ok(())
    }

    /// Closes the open frame: control items behind the records, the header into its hole, everything
    /// written to the file.
    fn close_frame(&mut self, flags: FrameFlags) -> Result<()> {
        let Some(frame) = self.frame.take() else {
            return Ok(());
        };
        let records_at = frame.position.plus(FRAME_HEADER_BYTES as u64);
        let records_len = frame.end.0 - records_at.0;
        let body_end = frame.end.plus(frame.controls.len() as u64);
        if !frame.controls.is_empty() {
            self.active
                .extent
                .write(frame.end.0, &frame.controls)
                .expect("room was made before the item was added");
        }
        self.active.extent.publish(body_end.0);
        let body_len = usize::try_from(body_end.0 - records_at.0).expect("at most 300 MiB");
        let body = self
            .active
            .extent
            .bytes(records_at.0, body_len)
            .expect("inside the segment");
        let narrow = |n: u64| u32::try_from(n).expect("at most 300 MiB");
        let header = FrameHeader {
            kind: FrameKind::Records,
            flags,
            body_crc: crc32c::crc32c(body),
            prev_crc: self.prev_crc,
            sequence: self.sequence,
            synced_up_to: self.synced_up_to.min(self.sequence),
            revision: frame.revision,
            body_len: narrow(body_len as u64),
            records_len: narrow(records_len),
            record_count: frame.records,
            opens: self.opens,
        };
        let (bytes, crc) = header.encode(self.place(frame.position));
        self.active
            .extent
            .fill_hole(&bytes)
            .expect("opened with the frame");
        self.advance(&header, frame.position, crc);
        self.write_out()
    }

    /// Appends a page of a checkpoint as a frame of its own and gives the reference to it.
    pub(crate) fn append_page(&mut self, kind: FrameKind, body: &[u8]) -> Result<PageRef> {
        self.close_frame(FrameFlags::default())?;
        if self.next.0 + (FRAME_HEADER_BYTES + body.len()) as u64 > self.active.limit.0 {
            self.next_segment(body.len())?;
        }
        let position = self.next;
        let (header, crc) = self.put_frame(kind, FrameFlags::default(), body);
        self.advance(&header, position, crc);
        self.write_out()?;
        Ok(PageRef {
            position,
            segment_use: self.active.segment_use,
            body_len: header.body_len,
            body_crc: header.body_crc,
        })
    }

    /// Writes a whole frame into memory at `next`.
    fn put_frame(&mut self, kind: FrameKind, flags: FrameFlags, body: &[u8]) -> (FrameHeader, u32) {
        let header = FrameHeader {
            kind,
            flags,
            body_crc: crc32c::crc32c(body),
            prev_crc: self.prev_crc,
            sequence: self.sequence,
            synced_up_to: self.synced_up_to.min(self.sequence),
            revision: self.closed_revision,
            body_len: u32::try_from(body.len()).expect("a page is at most 300 MiB"),
            records_len: 0,
            record_count: 0,
            opens: self.opens,
        };
        let at = self.next;
        let (bytes, crc) = header.encode(self.place(at));
        let extent = &mut self.active.extent;
        extent.write(at.0, &bytes).expect("room for a frame");
        let body_at = at.plus(FRAME_HEADER_BYTES as u64);
        extent.write(body_at.0, body).expect("room for a frame");
        extent.publish(body_at.0 + body.len() as u64);
        (header, crc)
    }

    fn place(&self, position: Position) -> Place {
        self.medium.place(self.active.segment_use, position)
    }

    /// Moves on behind a frame that has just been completed.
    fn advance(&mut self, header: &FrameHeader, position: Position, crc: u32) {
        self.next = header.next_position(position);
        self.appended.bytes += self.next.0 - position.0;
        self.sequence += 1;
        self.prev_crc = crc;
        self.closed_revision = header.revision;
        self.padded = header.flags.padded;
    }

    /// Writes everything before `next` to the file.
    fn write_out(&mut self) -> Result<()> {
        let (from, to) = (self.written.0, self.next.0);
        if from < to {
            let len = usize::try_from(to - from).expect("inside a segment");
            let bytes = self
                .active
                .extent
                .bytes(from, len)
                .expect("inside the segment");
            self.medium
                .storage
                .write_at(bytes, from)
                .map_err(Error::on("write"))?;
            self.written = self.next;
        }
        Ok(())
    }

    /// Closes the open frame and writes everything out: what `Flushed` needs.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.close_frame(FrameFlags::default())
    }

    /// How long a chunk of a checkpoint may be, so that several fit a segment.
    pub(crate) fn chunk_bytes(&self) -> usize {
        let quarter = self.medium.geometry.segment_bytes() / 4;
        usize::try_from(quarter)
            .unwrap_or(usize::MAX)
            .min(FRAME_BODY_BYTES)
    }

    /// Ends a group: everything is written out, and the next frame begins a block of its own, so that
    /// no later write touches a block that holds these bytes (C-5). Zeros may follow it (C-32).
    pub(crate) fn seal(&mut self) -> Result<Group> {
        if self.frame.is_none() && !self.padded {
            self.open_frame(0, false)?;
        }
        self.close_frame(FrameFlags {
            padded: true,
            ..FrameFlags::default()
        })?;
        let before = std::mem::replace(&mut self.grouped, self.appended);
        let bytes = self.appended.bytes - before.bytes;
        self.sequence_grouped = self.sequence;
        let limit = self.space.allocated().min(self.active.end.0);
        self.ahead
            .after_group(&*self.medium.storage, bytes, self.next, limit)
            .map_err(Error::on("write zeros ahead"))?;
        Ok(Group { head: self.head() })
    }

    /// The log is an image's: durable as a whole or not there, and no group waits for a sync.
    pub(crate) fn never_syncs(&mut self) {
        self.synced(u64::MAX);
        self.ahead = Ahead::off();
    }

    /// Records that a sync covered all frames before `sequence`.
    pub(crate) fn synced(&mut self, sequence: u64) {
        self.synced_up_to = self.synced_up_to.max(sequence);
        // Of the newest group only: of one that was sealed meanwhile it may not have covered all.
        if sequence >= self.sequence_grouped && self.synced[0].bytes < self.grouped.bytes {
            self.synced = [self.grouped, self.synced[0]];
        }
    }

    /// Takes back the pages that a checkpoint has left behind `head` and no superblock names: zeros stand in the
    /// place of the first, so the chain ends before them.
    pub(crate) fn take_back(&mut self, head: &LogHead) -> Result<()> {
        if self.head() == *head {
            return Ok(());
        }
        let zeros = [0; FRAME_HEADER_BYTES];
        self.medium
            .storage
            .write_at(&zeros, head.position.0)
            .map_err(Error::on("write"))
    }

    /// Takes the full segments that are durable.
    pub(crate) fn take_durable(&mut self) -> Vec<Sealed> {
        let up_to = self.synced_up_to;
        let (durable, rest) = self
            .sealed
            .drain(..)
            .partition(|sealed| sealed.up_to <= up_to);
        self.sealed = rest;
        durable
    }

    /// The store's revision after the commit whose pieces are appended next.
    pub(crate) fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }

    /// What pages and closing frames carry.
    pub(crate) fn closed_revision(&self) -> Revision {
        self.closed_revision
    }

    /// The store's revision is above that of the last commit: pages carry it from now on.
    pub(crate) fn raise_revision(&mut self, revision: Revision) {
        self.closed_revision = self.closed_revision.max(revision);
    }

    /// Goes on in another segment: the closing frame names it, and everything is written out.
    fn next_segment(&mut self, len: usize) -> Result<()> {
        let geometry = self.medium.geometry;
        let units = units_for(geometry, len);
        let bytes = (len as u64 + 4 * BLOCK_BYTES).min(geometry.segment_bytes());
        let bytes = if units == 1 {
            bytes
        } else {
            u64::from(units) * geometry.segment_bytes()
        };
        let taken = self.space.take(&*self.medium.storage, units, bytes)?;
        let (index, segment_use) = (taken.index, taken.segment_use);
        let extent = claim(&self.medium, index, units)?;
        let mut body = Vec::new();
        Control::NextSegment {
            index,
            units,
            segment_use,
        }
        .encode(&mut body);
        let position = self.next;
        let flags = FrameFlags {
            last_in_segment: true,
            ..FrameFlags::default()
        };
        let (header, crc) = self.put_frame(FrameKind::Records, flags, &body);
        self.advance(&header, position, crc);
        self.write_out()?;
        for unit in 0..units {
            self.medium.set_use(index + unit, segment_use);
        }
        let active = Active::new(geometry, index, units, segment_use, extent);
        let full = std::mem::replace(&mut self.active, active);
        self.sealed.push(Sealed {
            extent: full.extent,
            up_to: self.sequence,
        });
        self.appended.long += u64::from(units > 1);
        let start = geometry.start(index);
        self.begin_segment(start, index, units, segment_use);
        self.ahead.enter(start, taken.recycled);
        Ok(())
    }

    /// Writes the active segment's header into memory; it reaches the file with the first frame.
    fn begin_segment(&mut self, start: Position, index: u32, units: u32, segment_use: u64) {
        let header = SegmentHeader {
            segment_use,
            index,
            units,
            kind: SegmentKind::Log,
            first_sequence: self.sequence,
        };
        let bytes = header.encode(&self.medium.store_id);
        self.active
            .extent
            .write(start.0, &bytes)
            .expect("a fresh segment");
        self.next = start.plus(SEGMENT_HEADER_BYTES as u64);
        self.written = start;
        self.padded = true;
    }
}

impl Active {
    fn new(geometry: Geometry, index: u32, units: u32, segment_use: u64, extent: Extent) -> Active {
        let end = geometry.end(index, units);
        Active {
            index,
            segment_use,
            extent,
            limit: Position(end.0 - BLOCK_BYTES),
            end,
        }
    }
}

impl Sealed {
    /// Lets the pages be the file's instead of memory of their own; their bytes are the same. Failing
    /// only means that they stay in memory.
    pub(crate) fn show(mut self, medium: &Medium) -> std::io::Result<()> {
        if medium.copies() {
            return Ok(());
        }
        let page = page_size();
        let start = self.extent.start().max(medium.geometry.start(0).0);
        let start = start - start % page;
        let file_end = medium.storage.len()?;
        let end = self.extent.end().min(file_end - file_end % page);
        if start < end {
            medium.storage.show(&mut self.extent, start, end - start)?;
        }
        Ok(())
    }
}

/// The right to write the segment of `units` units at `index`.
pub(crate) fn claim(medium: &Medium, index: u32, units: u32) -> Result<Extent> {
    let geometry = medium.geometry;
    let start = u64::from(index) * geometry.segment_bytes();
    let len = u64::from(units) * geometry.segment_bytes();
    medium.region.claim(start, len).ok_or(Error::OutOfMemory {
        what: "address space",
        bytes: start + len,
    })
}

/// Makes the memory of a segment plain that nobody reads any more; false: it stays as it is, to be asked for again,
/// when there is no memory or the segment is just being shown from the file.
pub(crate) fn empty(medium: &Medium, index: u32, units: u32, unread: &Unread) -> bool {
    let Ok(mut extent) = claim(medium, index, units) else {
        return false;
    };
    if extent.empty(unread).is_err() {
        return false;
    }
    for unit in index..index + units {
        medium.set_use(unit, 0);
    }
    true
}

/// Length in segments of the segment for a piece of `len` bytes.
fn units_for(geometry: Geometry, len: usize) -> u32 {
    let bytes = (SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + len) as u64 + BLOCK_BYTES;
    let units = bytes.div_ceil(geometry.segment_bytes());
    u32::try_from(units).expect("pieces are at most 300 MiB")
}
