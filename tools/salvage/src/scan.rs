//! All frames of the file, wherever they lie: each verifies alone by store id, use of its segment and
//! position (SPEC.md, B-20). The superblocks only help to know uses; nothing needs them.
//!
//! A segment whose own header is lost has its use from whatever names it: closing frames, pages, the
//! segment table, superblocks. Which of the frames count is the business of `chain`.

use std::collections::{BTreeMap, BTreeSet};

use revtree_format::limits::SEGMENTS_START;
use revtree_format::{
    BranchEntries, BranchPage, Control, Controls, Directory, FRAME_HEADER_BYTES, FRAME_MAGIC,
    FrameHeader, FrameKind, Geometry, Place, Position, SEGMENT_HEADER_BYTES, SegmentHeader,
    StoreSeed, parse_segments,
};

use super::identity::Identity;
use super::source::Source;

/// A frame whose header verifies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Where its header begins.
    pub(crate) position: Position,
    /// The header.
    pub(crate) header: FrameHeader,
    /// The checksum of the header.
    pub(crate) header_crc: u32,
    /// The use of its segment.
    pub(crate) segment_use: u64,
    /// Whether the checksum of its body holds.
    pub(crate) whole: bool,
}

impl Frame {
    /// Where its body begins.
    pub(crate) fn body_at(&self) -> Position {
        self.position.plus(FRAME_HEADER_BYTES as u64)
    }

    /// Its body, if the file is long enough.
    pub(crate) fn body(&self, source: &Source) -> Option<Vec<u8>> {
        source.bytes(self.body_at().0, self.header.body_len as usize)
    }
}

/// What a scan found.
#[derive(Default)]
pub(crate) struct Found {
    /// Frames, in no order.
    pub(crate) frames: Vec<Frame>,
    /// Headers of segments that verify.
    pub(crate) segments: Vec<SegmentHeader>,
    /// Units without such a header that others name.
    pub(crate) headers_lost: u64,
    /// Frame headers with one flipped bit, put right.
    pub(crate) repaired: u64,
}

/// Looks through the whole file.
pub(crate) fn scan(source: &Source, identity: &Identity) -> Found {
    let mut scan = Scan {
        source,
        store_id: &identity.store_id,
        geometry: Geometry::new(identity.segment_bytes),
        claims: BTreeMap::new(),
        found: Found::default(),
    };
    scan.claim_by_superblocks(identity);
    let units = scan.units();
    let mut headerless = Vec::new();
    let mut index = 0;
    while index < units {
        let start = scan.geometry.start(index).0;
        let raw = source.bytes(start, SEGMENT_HEADER_BYTES);
        let header = raw
            .and_then(|raw| SegmentHeader::parse(&raw, scan.store_id, start).ok())
            .filter(|header| header.index == index);
        match header {
            Some(header) => {
                let end = scan.geometry.end(index, header.units).0;
                let first = header.first_sequence;
                scan.frames(index, end, header.segment_use, Some(first));
                scan.found.segments.push(header);
                index = index.saturating_add(header.units);
            }
            None => {
                headerless.push(index);
                index += 1;
            }
        }
    }
    scan.without_header(&headerless);
    scan.found
}

struct Scan<'a> {
    source: &'a Source,
    store_id: &'a [u8; 16],
    geometry: Geometry,
    /// Uses that something names for a unit.
    claims: BTreeMap<u32, BTreeSet<u64>>,
    found: Found,
}

impl Scan<'_> {
    fn units(&self) -> u32 {
        let step = self.geometry.segment_bytes();
        self.geometry
            .units_in(self.source.len().next_multiple_of(step))
    }

    /// Looks through the units that have no header, with every use that was named for them, until
    /// nothing new is named.
    fn without_header(&mut self, units: &[u32]) {
        let mut tried: BTreeSet<(u32, u64)> = BTreeSet::new();
        loop {
            let mut next = Vec::new();
            for unit in units {
                let uses = self.claims.get(unit).into_iter().flatten();
                next.extend(uses.map(|segment_use| (*unit, *segment_use)));
            }
            next.retain(|one| tried.insert(*one));
            if next.is_empty() {
                return;
            }
            for (unit, segment_use) in next {
                let before = self.found.frames.len();
                let end = self.geometry.end(unit, 1).0;
                self.frames(unit, end, segment_use, None);
                self.found.headers_lost += u64::from(self.found.frames.len() > before);
            }
        }
    }

    /// The frames of one use between the beginning of a unit and `end`.
    fn frames(&mut self, unit: u32, end: u64, segment_use: u64, first_sequence: Option<u64>) {
        let end = end.min(self.source.len());
        let start = self.geometry.start(unit);
        let mut at = start.plus(SEGMENT_HEADER_BYTES as u64).0;
        // What the frame at `at` must continue, where that is known.
        let mut expected = first_sequence.map(|sequence| (sequence, None));
        while at + FRAME_HEADER_BYTES as u64 <= end {
            let frame = self
                .frame(Position(at), segment_use)
                .or_else(|| self.repair(Position(at), segment_use, expected?));
            let Some(frame) = frame else {
                expected = None;
                at = self.next_magic(at + 8, end);
                continue;
            };
            at = frame.header.next_position(frame.position).0;
            let next = frame.header.sequence.saturating_add(1);
            expected = Some((next, Some(frame.header_crc)));
            self.claim_by_frame(&frame);
            self.found.frames.push(frame);
        }
    }

    fn frame(&self, position: Position, segment_use: u64) -> Option<Frame> {
        let raw = self.source.bytes(position.0, FRAME_HEADER_BYTES)?;
        self.parse(&raw, position, segment_use)
    }

    fn parse(&self, raw: &[u8], position: Position, segment_use: u64) -> Option<Frame> {
        let place = Place {
            seed: StoreSeed::new(self.store_id),
            segment_use,
            position,
        };
        let (header, header_crc) = FrameHeader::parse(raw, place).ok()?;
        let mut frame = Frame {
            position,
            header,
            header_crc,
            segment_use,
            whole: false,
        };
        let body = frame.body(self.source);
        frame.whole = body.is_some_and(|body| header.check_body(&body, position).is_ok());
        Some(frame)
    }

    /// A frame with a single flipped bit in its header: put right, its checksum must hold, that of its
    /// body too, and it must continue the log where it lies. So nothing but the frame itself passes.
    fn repair(
        &mut self,
        position: Position,
        segment_use: u64,
        (sequence, prev_crc): (u64, Option<u32>),
    ) -> Option<Frame> {
        let mut raw = self.source.bytes(position.0, FRAME_HEADER_BYTES)?;
        let magic = u32::from_le_bytes(*raw.first_chunk()?);
        if (magic ^ FRAME_MAGIC).count_ones() > 1 {
            return None;
        }
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            raw[bit / 8] ^= 1 << (bit % 8);
            let place = Place {
                seed: StoreSeed::new(self.store_id),
                segment_use,
                position,
            };
            if FrameHeader::parse(&raw, place).is_ok() {
                let frame = self.parse(&raw, position, segment_use).filter(|frame| {
                    frame.whole
                        && frame.header.sequence == sequence
                        && prev_crc.is_none_or(|crc| crc == frame.header.prev_crc)
                });
                if frame.is_some() {
                    self.found.repaired += 1;
                    return frame;
                }
            }
            raw[bit / 8] ^= 1 << (bit % 8);
        }
        None
    }

    /// The next place before `end` that may be a frame, or `end`.
    fn next_magic(&self, from: u64, end: u64) -> u64 {
        const WINDOW: u64 = 256 << 10;
        let magic = FRAME_MAGIC.to_le_bytes();
        let mut at = from.next_multiple_of(8);
        while at + FRAME_HEADER_BYTES as u64 <= end {
            let len = usize::try_from((end - at).min(WINDOW)).expect("a window");
            let Some(window) = self.source.bytes(at, len) else {
                return end;
            };
            let step = window
                .chunks_exact(8)
                .position(|word| word.starts_with(&magic));
            if let Some(step) = step {
                return at + step as u64 * 8;
            }
            at += WINDOW;
        }
        end
    }

    fn claim(&mut self, position: Position, segment_use: u64) {
        if let Some(unit) = self.geometry.index_of(position) {
            self.claims.entry(unit).or_default().insert(segment_use);
        }
    }

    fn claim_by_superblocks(&mut self, identity: &Identity) {
        // The first segment's first use, if it is the one of the first open (B-7).
        self.claim(Position(SEGMENTS_START), 1 << 32);
        for superblock in &identity.superblocks {
            let head = superblock.head;
            let start = self.geometry.start(head.segment);
            self.claim(start, head.segment_use);
            for root in &superblock.roots {
                self.claim(root.page.position, root.page.segment_use);
            }
        }
    }

    /// Takes down which uses a whole frame names.
    fn claim_by_frame(&mut self, frame: &Frame) {
        if !frame.whole {
            return;
        }
        let Some(body) = frame.body(self.source) else {
            return;
        };
        match frame.header.kind {
            FrameKind::Records if frame.header.flags.last_in_segment => {
                for item in Controls::new(&body, frame.position.0).flatten() {
                    if let Control::NextSegment {
                        index, segment_use, ..
                    } = item
                    {
                        self.claim(self.geometry.start(index), segment_use);
                    }
                }
            }
            FrameKind::Branch => {
                let page = BranchPage::parse(&body, frame.position);
                match page.map(|page| page.entries) {
                    Ok(BranchEntries::Leaves(leaves)) => {
                        for leaf in leaves {
                            self.claim(leaf.position, leaf.segment_use);
                        }
                    }
                    Ok(BranchEntries::Children(children)) => {
                        for child in children {
                            self.claim(child.page.position, child.page.segment_use);
                        }
                    }
                    Err(_) => {}
                }
            }
            FrameKind::Directory => {
                if let Ok(directory) = Directory::parse(&body, frame.position) {
                    for chunk in directory.chunks {
                        self.claim(chunk.position, chunk.segment_use);
                    }
                }
            }
            FrameKind::Chunk => {
                // If it is no segment table, what it seems to name verifies no frame.
                if let Ok(entries) = parse_segments(&body, frame.position)
                    && body.len() <= TABLE_BYTES_MAX
                {
                    for (index, entry) in (0..).zip(entries) {
                        if entry.segment_use >> 32 != 0 {
                            self.claim(self.geometry.start(index), entry.segment_use);
                        }
                    }
                }
            }
            FrameKind::Records | FrameKind::Run => {}
        }
    }
}

/// A longer chunk has its first entries elsewhere, or is none of a segment table.
const TABLE_BYTES_MAX: usize = 256 << 10;
