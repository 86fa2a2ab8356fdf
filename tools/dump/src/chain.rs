//! The chain of frames behind the newest checkpoint: one after the other, each linked to the one before.
//!
//! Every log ends with bytes that are not the next frame, so the end itself is no damage. It is when a
//! later frame was closed after the missing one had been synced. Whether or not, the walk goes on at the
//! next frame of the chain that it finds, and marks it as not linked.

use std::io;

use revtree_format::{FormatError, FrameKind, Position, SEGMENT_HEADER_BYTES};

use crate::damage::Damage;
use crate::frames::{self, NextSegment};
use crate::item::{FrameItem, Item, LogEnd, Part, SegmentItem};
use crate::segments;
use crate::source::Failure;
use crate::walk::{Walk, split};

/// The next frame's place and what it must repeat.
#[derive(Clone, Copy)]
struct Expected {
    position: Position,
    segment: u32,
    segment_use: u64,
    sequence: u64,
    prev_crc: u32,
}

/// Shows the log from the newest superblock's head on.
pub(crate) fn walk(walk: &mut Walk<'_>) -> io::Result<()> {
    walk.out.part(Part::Log)?;
    let head = walk.superblock.head;
    let mut at = Expected {
        position: head.position,
        segment: head.segment,
        segment_use: head.segment_use,
        sequence: head.sequence,
        prev_crc: head.prev_crc,
    };
    let mut linked = true;
    loop {
        let bad = match split(next(walk, &at))? {
            Ok(mut frame) => {
                frame.linked = linked;
                step(walk, &frame, &mut at)?;
                continue;
            }
            Err(bad) => bad,
        };
        let Some((frame, segment)) = later(walk, &at)? else {
            let end = LogEnd {
                position: at.position,
                sequence: at.sequence,
                segment_use: at.segment_use,
                reason: bad,
                frames: walk.out.summary.log_frames,
            };
            return walk.out.emit(&Item::LogEnd(end));
        };
        if frame.header.synced_up_to > at.sequence {
            walk.out.damage(bad)?;
        }
        // Sequence numbers rise with every jump, so the walk ends.
        linked = false;
        at = Expected {
            position: frame.position,
            segment,
            segment_use: frame.segment_use,
            sequence: frame.header.sequence,
            prev_crc: frame.header.prev_crc,
        };
    }
}

/// The header of the frame at `at`, when it is the one that continues the chain.
fn next(walk: &Walk<'_>, at: &Expected) -> Result<FrameItem, Failure> {
    let store_id = &walk.superblock.store_id;
    let frame = frames::header(walk.source, store_id, at.segment_use, at.position)?;
    if at.sequence == u64::MAX {
        // No store counts so far; a chain that did could lead back to itself.
        return Err(FormatError::new(at.position.0, "frame sequence limit", 0, u64::MAX).into());
    }
    let claims = [
        ("frame sequence", at.sequence, frame.header.sequence),
        (
            "frame link",
            at.prev_crc.into(),
            frame.header.prev_crc.into(),
        ),
        (
            "run frame in the log",
            0,
            u64::from(frame.header.kind == FrameKind::Run),
        ),
    ];
    for (what, expected, found) in claims {
        if expected != found {
            return Err(FormatError::new(at.position.0, what, expected, found).into());
        }
    }
    Ok(frame)
}

/// Shows a frame and moves `at` behind it.
fn step(walk: &mut Walk<'_>, frame: &FrameItem, at: &mut Expected) -> io::Result<()> {
    let (records, closing) = walk.frame(frame)?;
    walk.out.summary.log_frames += 1;
    walk.out.summary.log_records += records;
    at.sequence = at.sequence.saturating_add(1);
    at.prev_crc = frame.header_crc;
    at.position = frame.header.next_position(frame.position);
    if let Some(NextSegment {
        index,
        units,
        segment_use,
    }) = closing
    {
        let start = walk.geometry.start(index);
        let header = split(segments::header(walk, index))?;
        if let Ok(found) = header
            && (found.segment_use, found.units) != (segment_use, units)
        {
            let stale = Damage::new(start.0, "segment use", segment_use, found.segment_use);
            // The header of an earlier use: the log's last sync did not reach this one.
            let shown = SegmentItem {
                index,
                start,
                entry: None,
                header: Some(Err(stale)),
            };
            walk.out.emit(&Item::Segment(shown))?;
        } else {
            let shown = SegmentItem {
                index,
                start,
                entry: None,
                header: Some(header),
            };
            walk.out.emit(&Item::Segment(shown))?;
        }
        at.position = start.plus(SEGMENT_HEADER_BYTES as u64);
        at.segment = index;
        at.segment_use = segment_use;
    }
    Ok(())
}

/// The next frame of the chain behind a missing one, and the first unit of its segment: in the rest of
/// the segment, else in segments that were put to use later, the earliest first.
fn later(walk: &Walk<'_>, at: &Expected) -> io::Result<Option<(FrameItem, u32)>> {
    let units = split(segments::header(walk, at.segment))?.map_or(1, |header| header.units);
    let end = walk
        .geometry
        .end(at.segment, units)
        .0
        .min(walk.source.len());
    // Behind the bad header: the frame there, if it has the next number, is the bad one itself.
    let from = at.position.plus(8);
    let sequence = at.sequence.saturating_add(1);
    if let Some(frame) = segments::next_frame(walk, from, end, at.segment_use, sequence)? {
        return Ok(Some((frame, at.segment)));
    }
    let mut uses = Vec::new();
    for index in 0..segments::count(walk) {
        if let Ok(header) = split(segments::header(walk, index))?
            && header.segment_use > at.segment_use
        {
            uses.push((header.segment_use, index, header.units));
        }
    }
    uses.sort_unstable();
    for (segment_use, index, units) in uses {
        let from = walk.geometry.start(index).plus(SEGMENT_HEADER_BYTES as u64);
        let end = walk.geometry.end(index, units).0.min(walk.source.len());
        if let Some(frame) = segments::next_frame(walk, from, end, segment_use, sequence)? {
            return Ok(Some((frame, index)));
        }
    }
    Ok(None)
}
