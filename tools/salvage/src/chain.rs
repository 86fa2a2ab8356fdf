//! Which of the frames count: those of the log as its last writer left it (SPEC.md, C-23 to C-28).
//!
//! What an earlier open wrote and a later one had rolled back is left out, and so is what lies behind
//! the log's end: a salvage must not bring back what was never acknowledged, nor what is deleted.

use std::collections::HashMap;

use revtree_format::{
    Directory, FrameKind, Geometry, SegmentEntry, SegmentState, check_segments, parse_segments,
};

use super::identity::Identity;
use super::scan::{Found, Frame};
use super::source::Source;

/// The frames of the log, in order of sequence, and what is missing between them.
#[derive(Default)]
pub(crate) struct Chain {
    /// Frames that count.
    pub(crate) frames: Vec<Frame>,
    /// Frames of runs, into which records have been moved (B-32). No chain names them; a copy that was never named
    /// holds nothing that the log does not.
    pub(crate) runs: Vec<Frame>,
    /// Missing frames: each the sequences from and up to which none was found.
    pub(crate) gaps: Vec<Gap>,
    /// Frames behind the log's end.
    pub(crate) behind_end: u64,
    /// Frames in segments that are free.
    pub(crate) stale: u64,
}

/// Frames of the log that were not found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    /// Sequence of the first.
    pub(crate) from: u64,
    /// Sequence of the last.
    pub(crate) to: u64,
    /// How many of [`Chain::frames`] lie before it.
    pub(crate) behind: usize,
}

/// Chooses.
pub(crate) fn choose(source: &Source, identity: &Identity, found: &Found) -> Chain {
    let mut chain = Chain::default();
    let all = found.frames.iter().copied();
    let (mut runs, mut frames): (Vec<Frame>, Vec<Frame>) =
        all.partition(|frame| frame.header.kind == FrameKind::Run);
    if let Some(table) = newest_table(source, &frames) {
        let geometry = Geometry::new(identity.segment_bytes);
        let before = frames.len();
        frames.retain(|frame| is_in_use(&table, geometry, frame));
        chain.stale = (before - frames.len()) as u64;
        let before = runs.len();
        runs.retain(|frame| is_in_use(&table, geometry, frame));
        chain.stale += (before - runs.len()) as u64;
    }
    chain.runs = runs;
    // The last writer first: from where a later open went on, nothing earlier counts.
    frames.sort_unstable_by_key(|frame| {
        let header = frame.header;
        let newest = (header.opens, header.sequence, frame.segment_use);
        std::cmp::Reverse(newest)
    });
    let (mut opens, mut cut, mut least) = (u32::MAX, u64::MAX, u64::MAX);
    frames.retain(|frame| {
        if frame.header.opens != opens {
            (opens, cut) = (frame.header.opens, least);
        }
        let counts = frame.header.sequence < cut;
        if counts {
            least = least.min(frame.header.sequence);
        }
        counts
    });
    frames.sort_by_key(|frame| frame.header.sequence);
    frames.dedup_by_key(|frame| frame.header.sequence);
    // Everything below was durable once (C-26).
    let heads = identity.superblocks.iter().map(|one| one.head.sequence);
    let marks = frames.iter().map(|frame| frame.header.synced_up_to);
    let durable = heads.clone().chain(marks).max().unwrap_or(0);
    end_of_log(&mut chain, frames, durable);
    let mut next = 1;
    for (behind, frame) in chain.frames.iter().enumerate() {
        let sequence = frame.header.sequence;
        if sequence > next {
            chain.gaps.push(Gap {
                from: next,
                to: sequence - 1,
                behind,
            });
        }
        next = sequence.saturating_add(1);
    }
    if durable > next {
        chain.gaps.push(Gap {
            from: next,
            to: durable - 1,
            behind: chain.frames.len(),
        });
    }
    chain
}

/// Takes the frames up to the log's end.
fn end_of_log(chain: &mut Chain, frames: Vec<Frame>, durable: u64) {
    let all = frames.len();
    for frame in frames {
        let sequence = frame.header.sequence;
        if sequence >= durable {
            let linked = match chain.frames.last() {
                Some(last) if last.header.sequence.saturating_add(1) == sequence => {
                    last.header_crc == frame.header.prev_crc
                }
                // Behind a missing frame that was durable, or at the very beginning.
                _ => sequence == durable || sequence == 1,
            };
            if !linked || !frame.whole {
                break;
            }
        }
        chain.frames.push(frame);
    }
    // A transaction without its end, where the end was never durable (C-27).
    let ends = |frame: &Frame| {
        let closing = frame.header.flags.last_in_segment;
        frame.header.kind != FrameKind::Records
            || !closing && !frame.header.flags.continued
            || closing && frame.header.sequence < durable
    };
    let mut kept = chain.frames.len();
    while let Some(last) = kept.checked_sub(1).map(|n| chain.frames[n])
        && last.header.sequence.saturating_add(1) >= durable
        && !ends(&last)
    {
        kept -= 1;
    }
    // Closing frames behind a whole transaction stay.
    let continued = chain.frames[kept..]
        .iter()
        .any(|frame| frame.header.flags.continued);
    if continued {
        chain.frames.truncate(kept);
    }
    chain.behind_end = (all - chain.frames.len()) as u64;
}

/// The newest segment table that is whole.
fn newest_table(source: &Source, frames: &[Frame]) -> Option<Vec<SegmentEntry>> {
    let mut directories: Vec<&Frame> = frames
        .iter()
        .filter(|frame| frame.whole && frame.header.kind == FrameKind::Directory)
        .collect();
    directories.sort_by_key(|frame| std::cmp::Reverse((frame.header.opens, frame.header.sequence)));
    let pages = Pages::of(frames);
    directories.into_iter().find_map(|frame| {
        let chunks = pages.chunks(source, frame)?;
        let mut entries = Vec::new();
        for (body, at) in &chunks.bodies {
            entries.extend(parse_segments(body, at.position).ok()?);
        }
        check_segments(&entries, frame.position).ok()?;
        (!entries.is_empty() && entries.len() as u64 == chunks.items).then_some(entries)
    })
}

/// The chunks of a directory.
pub(crate) struct Chunks {
    /// Items that the directory counts.
    pub(crate) items: u64,
    /// Bodies, each with its frame.
    pub(crate) bodies: Vec<(Vec<u8>, Frame)>,
}

/// Whole chunks by position and use.
pub(crate) struct Pages(HashMap<(u64, u64), Frame>);

impl Pages {
    /// Those among `frames`.
    pub(crate) fn of(frames: &[Frame]) -> Pages {
        let chunks = frames
            .iter()
            .filter(|frame| frame.whole && frame.header.kind == FrameKind::Chunk);
        Pages(
            chunks
                .map(|frame| ((frame.position.0, frame.segment_use), *frame))
                .collect(),
        )
    }

    /// Reads the chunks that a directory names, if all are whole (B-83).
    pub(crate) fn chunks(&self, source: &Source, directory: &Frame) -> Option<Chunks> {
        let body = directory.body(source)?;
        let parsed = Directory::parse(&body, directory.position).ok()?;
        let mut bodies = Vec::new();
        for chunk in parsed.chunks {
            let frame = self.0.get(&(chunk.position.0, chunk.segment_use))?;
            let same =
                frame.header.body_crc == chunk.body_crc && frame.header.body_len == chunk.body_len;
            if !same {
                return None;
            }
            bodies.push((frame.body(source)?, *frame));
        }
        Some(Chunks {
            items: parsed.items,
            bodies,
        })
    }
}

/// Whether a table leaves a frame's segment in use: it names it with this use, or the use is newer than
/// all that it names (B-86).
fn is_in_use(table: &[SegmentEntry], geometry: Geometry, frame: &Frame) -> bool {
    let newest = table.iter().map(|entry| entry.segment_use).max();
    if newest.is_some_and(|newest| frame.segment_use > newest) {
        return true;
    }
    let unit = geometry.index_of(frame.position);
    let entry = unit.and_then(|unit| table.get(unit as usize));
    entry.is_some_and(|entry| {
        entry.state != SegmentState::Free && entry.segment_use == frame.segment_use
    })
}
