//! Walking the chain of frames behind a superblock: what an open adopts (SPEC.md, C-22 to C-27).
//!
//! One walk serves open, read-only open and check. It reads by positioned reads into buffers of its own,
//! because nothing is published yet, and it writes nothing.

use revtree_format::limits::BLOCK_BYTES;
use revtree_format::{
    Control, Controls, FRAME_HEADER_BYTES, FormatError, FrameHeader, FrameKind, Geometry, LogHead,
    PageRef, Place, Position, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind, StoreSeed,
    Superblock,
};

use crate::error::{Error, Result};
use crate::sys::Storage;

/// What lies behind a superblock's log head.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The adopted frames, in order.
    pub(crate) frames: Vec<TailFrame>,
    /// Where the log would go on behind the last adopted frame.
    pub(crate) end: LogHead,
    /// All frames before this sequence number were known durable when the last frame was closed.
    pub(crate) synced_up_to: u64,
    /// Segments that the chain entered: index, length, use.
    pub(crate) segments: Vec<(u32, u32, u64)>,
    /// Bytes of frames that verified but belong to a transaction without its end.
    pub(crate) dropped_bytes: u64,
    /// A frame that had been acknowledged is damaged.
    pub(crate) damage: Option<FormatError>,
}

impl Tail {
    /// Frames that nothing proves to be durable: they may be in the page cache only (C-26). The last ones,
    /// since sequence numbers rise along the chain.
    pub(crate) fn unsynced(&self) -> impl Iterator<Item = &TailFrame> {
        let mark = self.synced_up_to;
        let durable = self
            .frames
            .partition_point(|frame| frame.header.sequence < mark);
        self.frames.iter().skip(durable)
    }

    /// What they take in the file.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        let bytes =
            |frame: &TailFrame| FRAME_HEADER_BYTES as u64 + u64::from(frame.header.body_len);
        self.unsynced().map(bytes).sum()
    }

    /// Tells whether a record at a position lies in such a frame. The bodies are sorted once, since an
    /// open asks for every leaf of a tail that may have as many frames.
    pub(crate) fn unsynced_positions(&self) -> impl Fn(Position) -> bool + use<> {
        let body = |frame: &TailFrame| {
            let start = frame.position.0 + FRAME_HEADER_BYTES as u64;
            (start, start + u64::from(frame.header.body_len))
        };
        let mut bodies: Vec<(u64, u64)> = self.unsynced().map(body).collect();
        bodies.sort_unstable();
        move |position| {
            let begun = bodies.partition_point(|(start, _)| *start <= position.0);
            let last = begun.checked_sub(1).and_then(|n| bodies.get(n));
            last.is_some_and(|(_, end)| position.0 < *end)
        }
    }

    /// Whether nothing follows the checkpoint but its own pages, whole and durable: so it is after a clean
    /// close, and the log goes on behind them (C-28).
    pub(crate) fn is_settled(&self) -> bool {
        let page = |frame: &TailFrame| {
            let header = &frame.header;
            header.kind != FrameKind::Records
                || header.body_len == 0
                || header.flags.last_in_segment
        };
        let last = self.frames.last();
        last.is_none_or(|last| last.header.flags.padded)
            && self.unsynced().next().is_none()
            && self.frames.iter().all(page)
    }

    /// Segments that the chain entered and in which no frame is known durable: free once the copy of
    /// the unsynced frames is adopted.
    pub(crate) fn replaced_segments(&self) -> Vec<u32> {
        let holds_durable = |segment_use: u64| {
            self.frames.iter().any(|frame| {
                frame.segment_use == segment_use && frame.header.sequence < self.synced_up_to
            })
        };
        // The first one holds the checkpoint's own frames.
        let entered = self.segments.iter().skip(1);
        entered
            .filter(|(_, _, segment_use)| !holds_durable(*segment_use))
            .flat_map(|(index, units, _)| *index..*index + *units)
            .collect()
    }
}

/// One adopted frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailFrame {
    pub(crate) header: FrameHeader,
    pub(crate) position: Position,
    pub(crate) segment_use: u64,
}

/// A frame with its body.
#[derive(Debug)]
pub(crate) struct Replayed<'a> {
    pub(crate) frame: TailFrame,
    pub(crate) body: &'a [u8],
}

impl Replayed<'_> {
    /// Where the body begins.
    pub(crate) fn body_at(&self) -> Position {
        self.frame.position.plus(FRAME_HEADER_BYTES as u64)
    }

    /// The place of the first record.
    pub(crate) fn place(&self, seed: StoreSeed) -> Place {
        Place {
            seed,
            segment_use: self.frame.segment_use,
            position: self.body_at(),
        }
    }

    /// The records of the body.
    pub(crate) fn records(&self) -> &[u8] {
        self.body
            .get(..self.frame.header.records_len as usize)
            .unwrap_or_default()
    }

    /// The control items of the body.
    pub(crate) fn controls(&self) -> Controls<'_> {
        let records_len = self.frame.header.records_len;
        let items = self.body.get(records_len as usize..).unwrap_or_default();
        Controls::new(items, self.body_at().0 + u64::from(records_len))
    }
}

/// Follows the chain.
struct Walk<'a> {
    storage: &'a dyn Storage,
    superblock: &'a Superblock,
    geometry: Geometry,
    file_len: u64,
}

/// Finds the frames behind `superblock`'s log head: all that verify, link to the one before and belong
/// to whole transactions.
pub(crate) fn walk(storage: &dyn Storage, superblock: &Superblock) -> Result<Tail> {
    let file_len = storage.len().map_err(Error::on("read the file's length"))?;
    let geometry = Geometry::new(superblock.segment_bytes);
    check_head(superblock, geometry, file_len)?;
    Walk {
        storage,
        superblock,
        geometry,
        file_len,
    }
    .run()
}

/// Checks that the log's head lies in the segment that it names and in the file, and that numbers which are
/// counted on from here are far from their ends: nothing is asked for by a crafted number.
fn check_head(superblock: &Superblock, geometry: Geometry, file_len: u64) -> Result<()> {
    let head = superblock.head;
    let wrong = |what, expected, found| {
        let error = FormatError::new(head.position.0, what, expected, found);
        Err(error.into())
    };
    // What lies before the head was written and synced before the superblock; of a segment in which nothing
    // has been written the file may have no byte.
    let longest = u64::from(geometry.units_max()) * geometry.segment_bytes();
    let end = file_len.saturating_add(longest);
    if head.position.0 > end {
        return wrong("log head behind the file", end, head.position.0);
    }
    // Only there has nothing been written before the head.
    let first = geometry.start(head.segment).0 + SEGMENT_HEADER_BYTES as u64;
    if head.position.0 > file_len.max(first) {
        return wrong("end of file", head.position.0, file_len);
    }
    let unit = geometry.index_of(head.position).unwrap_or(0);
    let within = unit.checked_sub(head.segment);
    if within.is_none_or(|within| within >= geometry.units_max()) {
        return wrong("segment of the log head", unit.into(), head.segment.into());
    }
    let most = u64::MAX / 2;
    if head.sequence > most || superblock.generation > most {
        let greatest = head.sequence.max(superblock.generation);
        return wrong("sequence or generation", most, greatest);
    }
    Ok(())
}

/// Calls `visit` with each of these frames that holds records, and its body, in order.
pub(crate) fn replay<'t>(
    storage: &dyn Storage,
    frames: impl IntoIterator<Item = &'t TailFrame>,
    mut visit: impl FnMut(Replayed<'_>) -> Result<()>,
) -> Result<()> {
    let mut body = Vec::new();
    for frame in frames {
        if frame.header.kind != FrameKind::Records {
            continue;
        }
        body.resize(frame.header.body_len as usize, 0);
        let at = frame.position.plus(FRAME_HEADER_BYTES as u64);
        storage
            .read_at(&mut body, at.0)
            .map_err(Error::on("read the log"))?;
        frame.header.check_body(&body, frame.position)?;
        visit(Replayed {
            frame: *frame,
            body: &body,
        })?;
    }
    Ok(())
}

impl Walk<'_> {
    fn run(&self) -> Result<Tail> {
        let head = self.superblock.head;
        let mut tail = Tail {
            frames: Vec::new(),
            end: head,
            synced_up_to: head.sequence,
            segments: vec![(head.segment, self.head_units(), head.segment_use)],
            dropped_bytes: 0,
            damage: None,
        };
        let mut at = head;
        let mut opens = 0;
        // Each turn moves on by at least a frame header inside one segment use, and each segment use
        // is entered once, because use numbers must rise: so the walk ends.
        let bad = loop {
            let units = tail.segments.last().map_or(1, |(_, units, _)| *units);
            let (frame, crc, next_segment) = match self.frame(&at, opens, units) {
                Ok(found) => found,
                Err(Stop::Bad(error)) => break error,
                Err(Stop::Failed(error)) => return Err(error),
            };
            opens = frame.header.opens;
            tail.frames.push(frame);
            tail.synced_up_to = tail.synced_up_to.max(frame.header.synced_up_to);
            at.sequence += 1;
            at.prev_crc = crc;
            at.position = frame.header.next_position(frame.position);
            if let Some((index, units, segment_use)) = next_segment {
                let header = match self.segment(index, units, segment_use, &at) {
                    Ok(header) => header,
                    Err(Stop::Bad(error)) => break error,
                    Err(Stop::Failed(error)) => return Err(error),
                };
                tail.segments.push((index, header.units, segment_use));
                let start = self.geometry.start(index);
                at.position = start.plus(SEGMENT_HEADER_BYTES as u64);
                at.segment = index;
                at.segment_use = segment_use;
            }
        };
        self.count_checkpoint(&mut tail);
        self.drop_unfinished(&mut tail);
        tail.end = self.end_of(&tail);
        if self.was_checkpointed(&at) || self.was_acknowledged(&at, &tail)? {
            tail.damage = Some(bad);
        } else if !tail.frames.is_empty()
            && tail.unsynced().next().is_none()
            && tail.end.position.0 > self.file_len
        {
            // The padding of a frame is written and synced with it: the file has been cut.
            let (offset, expected) = (self.file_len, tail.end.position.0);
            let error = FormatError::new(offset, "end of file", expected, self.file_len);
            tail.damage = Some(error);
        }
        // What only dropped frames lie in is in no use (B-86).
        tail.segments
            .retain(|(_, _, segment_use)| *segment_use <= tail.end.segment_use);
        Ok(tail)
    }

    /// The frames of the checkpoint itself are durable, to the end of the group that holds the last of
    /// them: they were synced before the superblock that names them was written (C-14).
    fn count_checkpoint(&self, tail: &mut Tail) {
        let named = |frame: &TailFrame| {
            self.superblock.roots.iter().any(|root| {
                root.page.position == frame.position && root.page.segment_use == frame.segment_use
            })
        };
        let Some(last) = tail.frames.iter().rposition(named) else {
            return;
        };
        let group = tail.frames.get(last..).unwrap_or_default();
        let end = group.iter().find(|frame| frame.header.flags.padded);
        if let Some(frame) = end.or(group.first()) {
            tail.synced_up_to = tail.synced_up_to.max(frame.header.sequence + 1);
        }
    }

    /// Whether a page that the superblock names was closed, or lies, behind the bad frame: then the bad one was
    /// durable, since all before the superblock was synced (C-14, C-25).
    fn was_checkpointed(&self, at: &LogHead) -> bool {
        self.superblock.roots.iter().any(|root| {
            let PageRef {
                position,
                segment_use,
                ..
            } = root.page;
            let lies_behind = segment_use == at.segment_use && position >= at.position;
            segment_use >= at.segment_use
                && self
                    .header(position, segment_use)
                    .is_ok_and(|(header, _)| lies_behind || header.sequence > at.sequence)
        })
    }

    /// Length of the segment that holds the log's head, as its header says; the header of a segment in
    /// which nothing has been written may be missing.
    fn head_units(&self) -> u32 {
        let head = self.superblock.head;
        let start = self.geometry.start(head.segment);
        let mut raw = [0; SEGMENT_HEADER_BYTES];
        if self.read(&mut raw, start.0).is_err() {
            return 1;
        }
        let header = SegmentHeader::parse(&raw, &self.superblock.store_id, start.0);
        header.map_or(1, |header| {
            if header.segment_use == head.segment_use && header.index == head.segment {
                header.units.min(self.geometry.units_max())
            } else {
                1
            }
        })
    }

    /// The frame expected at `at`: its header and body verify, it links to the one before. For a closing
    /// frame, where the log goes on.
    #[expect(
        clippy::type_complexity,
        reason = "used once, right below its definition"
    )]
    fn frame(
        &self,
        at: &LogHead,
        opens: u32,
        units: u32,
    ) -> Result<(TailFrame, u32, Option<(u32, u32, u64)>), Stop> {
        let (header, crc) = self.header(at.position, at.segment_use)?;
        let wrong = |what, expected, found| {
            Stop::Bad(FormatError::new(at.position.0, what, expected, found))
        };
        if header.sequence != at.sequence {
            return Err(wrong("frame sequence", at.sequence, header.sequence));
        }
        if header.prev_crc != at.prev_crc {
            return Err(wrong(
                "frame link",
                at.prev_crc.into(),
                header.prev_crc.into(),
            ));
        }
        if header.opens < opens {
            return Err(wrong(
                "frame open number",
                opens.into(),
                header.opens.into(),
            ));
        }
        self.check_place(&header, at, units)?;
        if header.kind == FrameKind::Run {
            return Err(wrong("frame kind in the log", 1, 5));
        }
        let body_at = at.position.plus(FRAME_HEADER_BYTES as u64);
        self.check_read(body_at.0, header.body_len.into())?;
        let mut body = vec![0; header.body_len as usize];
        self.read(&mut body, body_at.0)?;
        header.check_body(&body, at.position).map_err(Stop::Bad)?;
        let frame = TailFrame {
            header,
            position: at.position,
            segment_use: at.segment_use,
        };
        let mut next_segment = None;
        if header.flags.last_in_segment {
            let replayed = Replayed { frame, body: &body };
            for item in replayed.controls() {
                if let Control::NextSegment {
                    index,
                    units,
                    segment_use,
                } = item.map_err(Stop::broken)?
                {
                    next_segment = Some((index, units, segment_use));
                }
            }
            if next_segment.is_none() {
                let what = "closing frame without a next segment";
                let error = FormatError::new(at.position.0, what, 1, 0);
                return Err(Stop::broken(error));
            }
        }
        Ok((frame, crc, next_segment))
    }

    fn header(&self, position: Position, segment_use: u64) -> Result<(FrameHeader, u32), Stop> {
        let mut raw = [0; FRAME_HEADER_BYTES];
        self.read(&mut raw, position.0)?;
        let place = Place {
            seed: StoreSeed::new(&self.superblock.store_id),
            segment_use,
            position,
        };
        FrameHeader::parse(&raw, place).map_err(|error| {
            if error.what == "frame magic" || error.what == "frame header CRC" {
                Stop::Bad(error)
            } else {
                Stop::broken(error)
            }
        })
    }

    /// Whether a frame that continues the chain ends before the last block of its segment, in which only a
    /// closing frame may lie (B-11).
    fn check_place(&self, header: &FrameHeader, at: &LogHead, units: u32) -> Result<(), Stop> {
        let segment_end = self.geometry.end(at.segment, units).0;
        let limit = segment_end - BLOCK_BYTES;
        let end = at.position.0 + FRAME_HEADER_BYTES as u64 + u64::from(header.body_len);
        let (found, most) = if header.flags.last_in_segment && at.position.0 <= limit {
            (end, segment_end)
        } else {
            (end, limit)
        };
        if found > most {
            let what = "end of a frame in its segment";
            let error = FormatError::new(at.position.0, what, most, found);
            return Err(Stop::broken(error));
        }
        Ok(())
    }

    fn segment(
        &self,
        index: u32,
        units: u32,
        segment_use: u64,
        at: &LogHead,
    ) -> Result<SegmentHeader, Stop> {
        let start = self.geometry.start(index);
        let mut raw = [0; SEGMENT_HEADER_BYTES];
        self.read(&mut raw, start.0)?;
        let header =
            SegmentHeader::parse(&raw, &self.superblock.store_id, start.0).map_err(Stop::Bad)?;
        let wrong = |what, expected, found| {
            Err(Stop::Bad(FormatError::new(start.0, what, expected, found)))
        };
        if header.segment_use != segment_use || segment_use <= at.segment_use {
            return wrong("segment use", segment_use, header.segment_use);
        }
        let agrees = header.units == units && header.index == index;
        if !agrees || header.kind != SegmentKind::Log || units > self.geometry.units_max() {
            return wrong("segment length", units.into(), header.units.into());
        }
        if header.first_sequence != at.sequence {
            let what = "first sequence of a segment";
            return wrong(what, at.sequence, header.first_sequence);
        }
        Ok(header)
    }

    /// Whether the file has so many bytes there.
    fn check_read(&self, offset: u64, len: u64) -> Result<(), Stop> {
        let end = offset.saturating_add(len);
        if end > self.file_len {
            let (found, expected) = (self.file_len, end);
            return Err(Stop::Bad(FormatError::new(
                offset,
                "end of file",
                expected,
                found,
            )));
        }
        Ok(())
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Stop> {
        self.check_read(offset, buf.len() as u64)?;
        self.storage
            .read_at(buf, offset)
            .map_err(|error| Stop::Failed(Error::io("read the log", error)))
    }

    /// Takes back the frames of a transaction whose end is missing.
    fn drop_unfinished(&self, tail: &mut Tail) {
        let unfinished = |frame: &TailFrame| {
            frame.header.kind == FrameKind::Records
                && (frame.header.flags.continued || frame.header.flags.last_in_segment)
        };
        let whole = tail
            .frames
            .iter()
            .rposition(|frame| !unfinished(frame))
            .map_or(0, |n| n + 1);
        // A closing frame alone is no part of a transaction: only what follows the last whole frame and
        // holds a continued one is dropped.
        let rest = tail.frames.get(whole..).unwrap_or_default();
        if rest.iter().any(|frame| frame.header.flags.continued) {
            tail.dropped_bytes = rest
                .iter()
                .map(|frame| u64::from(frame.header.body_len))
                .sum();
            tail.frames.truncate(whole);
        }
    }

    /// Where the log would go on behind the last adopted frame.
    fn end_of(&self, tail: &Tail) -> LogHead {
        let Some(last) = tail.frames.last() else {
            return self.superblock.head;
        };
        let crc = self
            .header(last.position, last.segment_use)
            .map_or(0, |(_, crc)| crc);
        let mut segments = tail.segments.iter();
        let segment = segments.find(|(_, _, segment_use)| *segment_use == last.segment_use);
        LogHead {
            position: last.header.next_position(last.position),
            sequence: last.header.sequence + 1,
            segment_use: last.segment_use,
            segment: segment.map_or(self.superblock.head.segment, |(index, ..)| *index),
            prev_crc: crc,
        }
    }

    /// Whether a frame behind the bad one at `at` says that the bad one had been synced (C-25).
    fn was_acknowledged(&self, at: &LogHead, tail: &Tail) -> Result<bool> {
        let units = tail
            .segments
            .iter()
            .find(|(_, _, segment_use)| *segment_use == at.segment_use)
            .map_or(1, |(_, units, _)| *units);
        let end = self.geometry.end(at.segment, units).0.min(self.file_len);
        if self.scan(at.position.0, end, at.segment_use, at.sequence)? {
            return Ok(true);
        }
        // The segments that were put to use later.
        let count = self.geometry.units_in(
            self.file_len
                .next_multiple_of(self.geometry.segment_bytes()),
        );
        for index in 0..count {
            let start = self.geometry.start(index);
            let mut raw = [0; SEGMENT_HEADER_BYTES];
            match self.read(&mut raw, start.0) {
                Ok(()) => {}
                Err(Stop::Bad(_)) => continue,
                Err(Stop::Failed(error)) => return Err(error),
            }
            let Ok(header) = SegmentHeader::parse(&raw, &self.superblock.store_id, start.0) else {
                continue;
            };
            if header.index == index && header.segment_use > at.segment_use {
                let end = self.geometry.end(index, header.units).0.min(self.file_len);
                let from = start.0 + SEGMENT_HEADER_BYTES as u64;
                if self.scan(from, end, header.segment_use, at.sequence)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Looks in 8-byte steps for a frame that was closed when frame `sequence` had been synced.
    fn scan(&self, from: u64, end: u64, segment_use: u64, sequence: u64) -> Result<bool> {
        const WINDOW: u64 = 256 << 10;
        let store_id = &self.superblock.store_id;
        let mut at = from.next_multiple_of(8);
        let mut window = Vec::new();
        while at + FRAME_HEADER_BYTES as u64 <= end {
            let len = (end - at).min(WINDOW + FRAME_HEADER_BYTES as u64);
            window.resize(usize::try_from(len).expect("a window"), 0);
            self.storage
                .read_at(&mut window, at)
                .map_err(Error::on("read the log"))?;
            let mut offset = 0;
            while let Some(raw) = window.get(offset..offset + FRAME_HEADER_BYTES) {
                let position = Position(at + offset as u64);
                let place = Place {
                    seed: StoreSeed::new(store_id),
                    segment_use,
                    position,
                };
                if raw.starts_with(&revtree_format::FRAME_MAGIC.to_le_bytes())
                    && let Ok((header, _)) = FrameHeader::parse(raw, place)
                    && header.sequence > sequence
                    && header.synced_up_to > sequence
                {
                    return Ok(true);
                }
                offset += 8;
            }
            at += offset as u64;
        }
        Ok(false)
    }
}

/// Why a walk goes no further.
enum Stop {
    /// The bytes are not what they should be.
    Bad(FormatError),
    /// The storage failed, or a frame that was written so breaks a rule.
    Failed(Error),
}

impl Stop {
    /// Of a frame whose checksums hold: no torn write makes one, so it is not the log's end (C-23).
    fn broken(error: FormatError) -> Stop {
        Stop::Failed(error.into())
    }
}
