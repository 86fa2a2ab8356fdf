//! Segments: the table of the newest checkpoint, and all frames of all segments for those who ask.

use std::io;

use revtree_format::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FormatError, Position, RootKind, SEGMENT_HEADER_BYTES,
    SegmentEntry, SegmentHeader, SegmentState, parse_segments,
};

use crate::blobs;
use crate::frames;
use crate::item::{FrameItem, Item, Part, SegmentItem};
use crate::source::Failure;
use crate::walk::{Walk, split};

/// Shows the segment table and gives its entries.
pub(crate) fn table(walk: &mut Walk<'_>) -> io::Result<Vec<SegmentEntry>> {
    let Some(root) = walk.superblock.root(RootKind::Segments).copied() else {
        return Ok(Vec::new());
    };
    walk.out.part(Part::SegmentTable)?;
    let mut entries = Vec::new();
    blobs::chunks(walk, &root, |walk, chunk, body| {
        let parsed = parse_segments(body, chunk.position).map_err(Failure::from);
        let parsed = walk.tell(parsed)?.unwrap_or_default();
        let count = parsed.len() as u64;
        entries.extend(parsed);
        Ok(count)
    })?;
    let (expected, found) = (walk.superblock.segment_count.into(), entries.len() as u64);
    walk.expect(
        root.page.position.0,
        "units in the segment table",
        expected,
        found,
    )?;
    for (index, entry) in (0..).zip(&entries) {
        let start = walk.geometry.start(index);
        let named = entry.state != SegmentState::Free && entry.units > 0;
        let header = if named {
            Some(split(named_header(walk, index, entry))?)
        } else {
            None
        };
        walk.out.summary.damage += u64::from(matches!(header, Some(Err(_))));
        let item = SegmentItem {
            index,
            start,
            entry: Some(*entry),
            header,
        };
        walk.out.emit(&Item::Segment(item))?;
    }
    Ok(entries)
}

/// The header of the segment that begins at `index`.
pub(crate) fn header(walk: &Walk<'_>, index: u32) -> Result<SegmentHeader, Failure> {
    let start = walk.geometry.start(index).0;
    let raw = walk.source.exact(start, SEGMENT_HEADER_BYTES)?;
    let header = SegmentHeader::parse(&raw, &walk.superblock.store_id, start)?;
    if header.index != index {
        let (expected, found) = (index.into(), header.index.into());
        return Err(FormatError::new(start, "segment index", expected, found).into());
    }
    Ok(header)
}

/// The same, held against what the table says.
fn named_header(
    walk: &Walk<'_>,
    index: u32,
    entry: &SegmentEntry,
) -> Result<SegmentHeader, Failure> {
    let header = header(walk, index)?;
    let start = walk.geometry.start(index).0;
    let claims = [
        ("segment use", entry.segment_use, header.segment_use),
        ("segment length", entry.units.into(), header.units.into()),
    ];
    for (what, expected, found) in claims {
        if expected != found {
            return Err(FormatError::new(start, what, expected, found).into());
        }
    }
    Ok(header)
}

/// Shows every segment of the file with a valid header, frame after frame.
pub(crate) fn all(walk: &mut Walk<'_>, table: &[SegmentEntry]) -> io::Result<()> {
    walk.out.part(Part::Segments)?;
    let units = count(walk);
    let mut index = 0;
    while index < units {
        let entry = table.get(index as usize).copied();
        let header = split(header(walk, index))?;
        let free = entry.is_none_or(|entry| entry.state == SegmentState::Free);
        let start = walk.geometry.start(index);
        // A unit in no use keeps the bytes of an earlier one, or none: neither is damage.
        let shown = if free && header.is_err() {
            None
        } else {
            Some(header)
        };
        walk.out.emit(&Item::Segment(SegmentItem {
            index,
            start,
            entry,
            header: shown,
        }))?;
        let mut length = 1;
        if let Ok(header) = header {
            let end = walk
                .geometry
                .end(index, header.units)
                .0
                .min(walk.source.len());
            frames_of(
                walk,
                start.plus(SEGMENT_HEADER_BYTES as u64),
                end,
                header.segment_use,
            )?;
            length = header.units;
        }
        index = index.saturating_add(length);
    }
    Ok(())
}

/// Units of segments that the file reaches into.
pub(crate) fn count(walk: &Walk<'_>) -> u32 {
    let len = walk
        .source
        .len()
        .next_multiple_of(walk.geometry.segment_bytes());
    walk.geometry.units_in(len)
}

/// All frames of one use of a segment, with gaps passed over.
fn frames_of(walk: &mut Walk<'_>, from: Position, end: u64, segment_use: u64) -> io::Result<()> {
    let mut at = from;
    while let Some(mut frame) = next_frame(walk, at, end, segment_use, 0)? {
        frame.linked = frame.position == at;
        walk.frame(&frame)?;
        at = frame.header.next_position(frame.position);
    }
    Ok(())
}

/// The first frame at or behind `from` of the given use whose sequence is at least `sequence`.
pub(crate) fn next_frame(
    walk: &Walk<'_>,
    from: Position,
    end: u64,
    segment_use: u64,
    sequence: u64,
) -> io::Result<Option<FrameItem>> {
    const WINDOW: u64 = 256 << 10;
    let magic = FRAME_MAGIC.to_le_bytes();
    let mut at = from.0.next_multiple_of(8);
    while at + FRAME_HEADER_BYTES as u64 <= end {
        let len = usize::try_from((end - at).min(WINDOW)).expect("a window");
        let Ok(window) = split(walk.source.exact(at, len))? else {
            return Ok(None);
        };
        for (step, word) in (0..).zip(window.chunks_exact(8)) {
            let position = Position(at + step * 8);
            if !word.starts_with(&magic) || position.0 + FRAME_HEADER_BYTES as u64 > end {
                continue;
            }
            let store_id = &walk.superblock.store_id;
            let found = split(frames::header(walk.source, store_id, segment_use, position))?;
            if let Ok(frame) = found
                && frame.header.sequence >= sequence
            {
                return Ok(Some(frame));
            }
        }
        at += WINDOW;
    }
    Ok(None)
}
