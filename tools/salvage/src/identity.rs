//! Whose file it is: the id that seeds its checksums, and the segment size. From the superblocks, or,
//! when all are lost, from the segments and frames themselves.

use std::collections::BTreeMap;

use revtree_format::limits::{
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_START, SUPERBLOCK_SLOTS,
};
use revtree_format::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind, Place, Position, SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC, SUPERBLOCK_BYTES, SegmentHeader, StoreSeed, Superblock,
};

use super::crc::{id_with_state, state_before};
use super::source::Source;
use crate::failure::{Refused, Result};

/// What every checksum and every place depends on.
pub(crate) struct Identity {
    /// The store's id, or one that its checksums cannot tell from it.
    pub(crate) store_id: [u8; 16],
    /// Size of a segment.
    pub(crate) segment_bytes: u32,
    /// The valid superblocks, the newest first.
    pub(crate) superblocks: Vec<Superblock>,
}

impl Identity {
    /// Finds it; `None` when the file has no trace of a store.
    pub(crate) fn find(source: &Source) -> Result<Option<Identity>> {
        let mut superblocks = valid_slots(source)?;
        superblocks.sort_by_key(|superblock| std::cmp::Reverse(superblock.age()));
        // A slot of another store may have been copied here: the segments say whose file it is.
        let whose = superblocks
            .iter()
            .map(|superblock| (superblock.store_id, superblock.segment_bytes))
            .max_by_key(|(id, segment_bytes)| {
                let same = superblocks.iter().filter(|other| other.store_id == *id);
                (headers(source, id, *segment_bytes), same.count())
            });
        if let Some((store_id, segment_bytes)) = whose {
            superblocks.retain(|superblock| {
                (superblock.store_id, superblock.segment_bytes) == (store_id, segment_bytes)
            });
            return Ok(Some(Identity {
                store_id,
                segment_bytes,
                superblocks,
            }));
        }
        Ok(from_segments(source))
    }
}

/// The slots that verify. What a newer version wrote is refused: see V-3.
fn valid_slots(source: &Source) -> Result<Vec<Superblock>> {
    let mut valid = Vec::new();
    for slot in 0..SUPERBLOCK_SLOTS {
        let at = (slot * SUPERBLOCK_BYTES) as u64;
        let Some(bytes) = source.bytes(at, SUPERBLOCK_BYTES) else {
            continue;
        };
        match Superblock::parse(&bytes, at) {
            Ok(superblock) => valid.push(superblock),
            Err(error) if error.what == "superblock format version" => {
                return Err(Refused(error.to_string()));
            }
            Err(_) => {}
        }
    }
    Ok(valid)
}

/// Segment headers that verify under an id.
fn headers(source: &Source, store_id: &[u8; 16], segment_bytes: u32) -> usize {
    borders(source, segment_bytes)
        .filter(|at| {
            let raw = source.bytes(*at, SEGMENT_HEADER_BYTES);
            raw.is_some_and(|raw| SegmentHeader::parse(&raw, store_id, *at).is_ok())
        })
        .count()
}

/// Where segments of this size begin.
fn borders(source: &Source, segment_bytes: u32) -> impl Iterator<Item = u64> + use<> {
    let step = u64::from(segment_bytes);
    let rest = (1..=source.len() / step).map(move |n| n * step);
    std::iter::once(SEGMENTS_START).chain(rest)
}

/// Votes for a state of the checksum behind the store id, and for segment sizes.
#[derive(Default)]
struct Votes {
    states: BTreeMap<u32, u64>,
    sizes: BTreeMap<(u32, u32), u64>,
}

/// Every header that looks like one names the state that would make it right: noise and other stores
/// name others, the store's own headers all the same.
fn from_segments(source: &Source) -> Option<Identity> {
    let mut votes = Votes::default();
    for at in borders(source, SEGMENT_BYTES_MIN) {
        vote_segment(source, at, &mut votes);
    }
    // Without its segment's header, the log's first frames: their use is known (B-7, B-13). Others there would all
    // name one state, and not the right one.
    for opens in 1..=4 {
        let mut at = Position(SEGMENTS_START + SEGMENT_HEADER_BYTES as u64);
        let first = claimed_frame(source, at, opens << 32);
        let begins_log =
            |header: &FrameHeader| header.sequence == 1 && header.kind != FrameKind::Run;
        if !first.is_some_and(|(_, header)| begins_log(&header)) {
            break;
        }
        while let Some(next) = vote_frame(source, at, opens << 32, &mut votes) {
            at = next;
        }
    }
    let (state, count) = votes.states.iter().max_by_key(|(_, count)| **count)?;
    // One header alone proves nothing: it names a state whatever its bytes are.
    if *count < 2 {
        return None;
    }
    let sizes = votes.sizes.iter().filter(|((of, _), _)| of == state);
    let size = sizes.max_by_key(|(_, count)| **count);
    let segment_bytes = size.map_or_else(|| least_size(source), |((_, size), _)| *size);
    Some(Identity {
        store_id: id_with_state(*state),
        segment_bytes,
        superblocks: Vec::new(),
    })
}

fn vote_segment(source: &Source, at: u64, votes: &mut Votes) {
    let Some((state, header)) = source
        .bytes(at, SEGMENT_HEADER_BYTES)
        .filter(|raw| raw.starts_with(&SEGMENT_MAGIC.to_le_bytes()))
        .and_then(|raw| {
            let state = claimed_state(&raw, &[])?;
            let header = SegmentHeader::parse(&raw, &id_with_state(state), at).ok()?;
            Some((state, header))
        })
    else {
        return;
    };
    let size = match header.index {
        0 if at == SEGMENTS_START => None,
        0 => return,
        index if !at.is_multiple_of(index.into()) => return,
        index => match u32::try_from(at / u64::from(index)) {
            Ok(size) if is_size(size) => Some(size),
            _ => return,
        },
    };
    *votes.states.entry(state).or_default() += 1;
    if let Some(size) = size {
        *votes.sizes.entry((state, size)).or_default() += 1;
    }
    let first = Position(at + SEGMENT_HEADER_BYTES as u64);
    vote_frame(source, first, header.segment_use, votes);
}

/// Counts what a frame header says, and gives the place of the one behind it.
fn vote_frame(
    source: &Source,
    at: Position,
    segment_use: u64,
    votes: &mut Votes,
) -> Option<Position> {
    let (state, header) = claimed_frame(source, at, segment_use)?;
    *votes.states.entry(state).or_default() += 1;
    Some(header.next_position(at))
}

/// A frame header, and the state that makes it right.
fn claimed_frame(source: &Source, at: Position, segment_use: u64) -> Option<(u32, FrameHeader)> {
    let raw = source.bytes(at.0, FRAME_HEADER_BYTES)?;
    if !raw.starts_with(&FRAME_MAGIC.to_le_bytes()) {
        return None;
    }
    let place = [segment_use.to_le_bytes(), at.0.to_le_bytes()].concat();
    let state = claimed_state(&raw, &place)?;
    let place = Place {
        seed: StoreSeed::new(&id_with_state(state)),
        segment_use,
        position: at,
    };
    let (header, _) = FrameHeader::parse(&raw, place).ok()?;
    Some((state, header))
}

/// The state behind the store id that the checksum at 4..8 of a header asks for.
fn claimed_state(raw: &[u8], place: &[u8]) -> Option<u32> {
    let crc = u32::from_le_bytes(*raw.get(4..)?.first_chunk()?);
    Some(state_before(crc, &[place, raw.get(8..)?].concat()))
}

fn is_size(size: u32) -> bool {
    size.is_power_of_two() && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&size)
}

/// With no second segment to tell, all of the file is the first.
fn least_size(source: &Source) -> u32 {
    let len = u32::try_from(source.len()).unwrap_or(SEGMENT_BYTES_MAX);
    len.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
        .next_power_of_two()
}
