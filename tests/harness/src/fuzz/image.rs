//! The bytes of a store with what is where, so that they can be changed and sealed again.
//!
//! Sealing repairs what a writer would have computed: checksums of values, heads, bodies and headers, the
//! links of the chain, and the checksums by which pages, directories and superblocks name other pages. It uses
//! the offsets of SPEC.md and the places of the unchanged store; what has been changed so that it fits nothing
//! stays as it is.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use revtree_format::limits::SEGMENTS_START;
use revtree_format::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, Geometry, Place, Position, SEGMENT_HEADER_BYTES,
    SUPERBLOCK_BYTES, SegmentHeader, StoreSeed, Superblock, head_and_key_len,
};

/// A frame of the unchanged store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) position: usize,
    pub(crate) body_len: usize,
    pub(crate) segment_use: u64,
    pub(crate) kind: FrameKind,
    pub(crate) records_len: usize,
    header_crc: u32,
}

/// A store's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<Spot>,
    pub(crate) segments: Vec<usize>,
    pub(crate) store_id: [u8; 16],
}

/// Where slots lie.
pub(super) const SLOTS: [usize; 4] = [0, 4096, 8192, 12288];

impl Image {
    /// Finds the frames of a whole store.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Image> {
        let slots = SLOTS.iter().filter_map(|slot| {
            let raw = bytes.get(*slot..*slot + SUPERBLOCK_BYTES)?;
            Superblock::parse(raw, *slot as u64).ok()
        });
        let newest = slots.max_by_key(Superblock::age)?;
        let geometry = Geometry::new(newest.segment_bytes);
        let mut image = Image {
            frames: Vec::new(),
            segments: Vec::new(),
            store_id: newest.store_id,
            bytes,
        };
        let units = geometry
            .units_in((image.bytes.len() as u64).next_multiple_of(geometry.segment_bytes()));
        let mut frames = Vec::new();
        for index in 0..units {
            let start = geometry.start(index).0.max(SEGMENTS_START);
            image.walk(start, geometry.end(index, 1).0, &mut frames);
        }
        frames.sort_by_key(|(sequence, _)| *sequence);
        image.frames = frames.into_iter().map(|(_, spot)| spot).collect();
        Some(image)
    }

    /// The frames of the segment that begins here.
    fn walk(&mut self, start: u64, end: u64, frames: &mut Vec<(u64, Spot)>) {
        let at = usize::try_from(start).unwrap_or(usize::MAX);
        let raw = self
            .bytes
            .get(at..at + SEGMENT_HEADER_BYTES)
            .unwrap_or_default();
        let Ok(segment) = SegmentHeader::parse(raw, &self.store_id, start) else {
            return;
        };
        self.segments.push(at);
        let mut position = Position(start + SEGMENT_HEADER_BYTES as u64);
        while position.0 < end {
            let place = Place {
                seed: StoreSeed::new(&self.store_id),
                segment_use: segment.segment_use,
                position,
            };
            let at = usize::try_from(position.0).unwrap_or(usize::MAX);
            let raw = self
                .bytes
                .get(at..at + FRAME_HEADER_BYTES)
                .unwrap_or_default();
            let Ok((header, header_crc)) = FrameHeader::parse(raw, place) else {
                return;
            };
            let spot = Spot {
                position: at,
                body_len: header.body_len as usize,
                segment_use: segment.segment_use,
                kind: header.kind,
                records_len: header.records_len as usize,
                header_crc,
            };
            frames.push((header.sequence, spot));
            position = header.next_position(position);
        }
    }

    /// The records of all frames, each with its key.
    pub(crate) fn records(&self) -> Vec<(Range<usize>, Bytes)> {
        let mut records = Vec::new();
        for spot in self
            .frames
            .iter()
            .filter(|spot| spot.kind == FrameKind::Records)
        {
            let mut at = spot.position + FRAME_HEADER_BYTES;
            let end = (at + spot.records_len).min(self.bytes.len());
            while at < end {
                let Ok(len) = head_and_key_len(&self.bytes[at..end], Position(at as u64)) else {
                    break;
                };
                let key_len = u16::from_le_bytes([self.bytes[at + 28], self.bytes[at + 29]]);
                let key = &self.bytes[at + len - usize::from(key_len)..at + len];
                let value_len = self.number(at + 24) as usize;
                let all = at..(at + len + value_len).min(end);
                records.push((all, Bytes::copy_from_slice(key)));
                at += (len + value_len).next_multiple_of(8);
            }
        }
        records
    }

    fn number(&self, at: usize) -> u32 {
        let raw = self.bytes.get(at..at + 4);
        raw.and_then(|raw| raw.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    }

    fn wide(&self, at: usize) -> u64 {
        let raw = self.bytes.get(at..at + 8);
        raw.and_then(|raw| raw.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    }

    fn set(&mut self, at: usize, value: u32) {
        if let Some(field) = self.bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Repairs all checksums and links, in the order in which they depend on each other.
    pub(super) fn seal(&mut self) {
        for segment in self.segments.clone() {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&self.store_id);
            crc.update(
                self.bytes
                    .get(segment + 8..segment + 64)
                    .unwrap_or_default(),
            );
            self.set(segment + 4, crc.finalize());
        }
        // By place: the checksum that the body has now.
        let mut bodies: HashMap<u64, u32> = HashMap::new();
        let mut headers: HashMap<u32, u32> = HashMap::new();
        for spot in self.frames.clone() {
            let body = spot.position + FRAME_HEADER_BYTES;
            match spot.kind {
                FrameKind::Records | FrameKind::Run => {
                    self.seal_records(spot.segment_use, body, spot.records_len);
                }
                FrameKind::Branch => {
                    self.seal_references(body + 16, 48, 8, 40, spot.body_len, &bodies);
                }
                FrameKind::Directory => {
                    self.seal_references(body + 16, 24, 0, 20, spot.body_len, &bodies);
                }
                FrameKind::Chunk => {}
            }
            let claimed = self.number(spot.position + 40) as usize;
            let claimed = self.bytes.get(body..body + claimed);
            let sealed = claimed.or_else(|| self.bytes.get(body..body + spot.body_len));
            let body_crc = crc32c::crc32c(sealed.unwrap_or_default());
            self.set(spot.position + 8, body_crc);
            bodies.insert(spot.position as u64, body_crc);
            let before = self.number(spot.position + 12);
            if let Some(now) = headers.get(&before) {
                self.set(spot.position + 12, *now);
            }
            let mut crc = crc32fast::Hasher::new();
            crc.update(&self.store_id);
            crc.update(&spot.segment_use.to_le_bytes());
            crc.update(&(spot.position as u64).to_le_bytes());
            crc.update(self.bytes.get(spot.position + 8..body).unwrap_or_default());
            let crc = crc.finalize();
            self.set(spot.position + 4, crc);
            headers.insert(spot.header_crc, crc);
        }
        for slot in SLOTS {
            let count = (self.number(slot + 140) as usize).min(16);
            for root in (0..count).map(|n| slot + 144 + n * 40) {
                if let Some(crc) = bodies.get(&self.wide(root + 8)) {
                    self.set(root + 24, *crc);
                }
            }
            if let Some(crc) = headers.get(&self.number(slot + 88)) {
                self.set(slot + 88, *crc);
            }
            let covered = self
                .bytes
                .get(slot + 16..slot + SUPERBLOCK_BYTES)
                .unwrap_or_default();
            let (first, second) = (crc32fast::hash(covered), crc32c::crc32c(covered));
            self.set(slot + 8, first);
            self.set(slot + 12, second);
        }
    }

    /// Heads and values of the records of a body, by the lengths that they claim now.
    fn seal_records(&mut self, segment_use: u64, body: usize, records_len: usize) {
        let end = (body + records_len).min(self.bytes.len());
        let mut at = body;
        while at < end {
            let Ok(len) = head_and_key_len(&self.bytes[at..end], Position(at as u64)) else {
                return;
            };
            let key_len = usize::from(u16::from_le_bytes([
                self.bytes[at + 28],
                self.bytes[at + 29],
            ]));
            let has_skip = self.bytes[at + 30] >> 5 & 1 == 1;
            let value_len = self.number(at + 24) as usize;
            let head_end = at + len - key_len - if has_skip { 8 } else { 0 };
            let key = at + len - key_len..at + len;
            let value = at + len..(at + len).saturating_add(value_len);
            let mut crc = crc32fast::Hasher::new();
            crc.update(&self.store_id);
            crc.update(&segment_use.to_le_bytes());
            crc.update(&(at as u64).to_le_bytes());
            crc.update(self.bytes.get(at + 16..head_end).unwrap_or_default());
            crc.update(self.bytes.get(key).unwrap_or_default());
            let value_crc = self.bytes.get(value).map(crc32fast::hash);
            self.set(at, crc.finalize());
            if let Some(crc) = value_crc {
                self.set(at + 4, crc);
            }
            at = at.saturating_add((len + value_len).next_multiple_of(8));
        }
    }

    /// Entries of a page that name other pages by position and checksum; those that name leaves have none.
    fn seal_references(
        &mut self,
        first: usize,
        size: usize,
        position: usize,
        crc: usize,
        body_len: usize,
        bodies: &HashMap<u64, u32>,
    ) {
        let count = body_len.saturating_sub(16) / size;
        for entry in (0..count).map(|n| first + n * size) {
            if let Some(now) = bodies.get(&self.wide(entry + position)) {
                self.set(entry + crc, *now);
            }
        }
    }
}
