//! The header at the start of each segment in use (SPEC.md, B-10 to B-14).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{FormatError, check};
use crate::frame::FRAME_HEADER_BYTES;
use crate::ids::Position;
use crate::limits::{BLOCK_BYTES, FRAME_BODY_BYTES_MAX, SEGMENTS_START, STORE_BYTES_MAX};

/// The first four bytes of a segment in use.
pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"RVSG");

/// Size of a segment header in bytes.
pub const SEGMENT_HEADER_BYTES: usize = 64;

/// The bytes of a segment header, in order.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct SegmentHeaderBytes {
    /// [`SEGMENT_MAGIC`].
    pub magic: U32,
    /// CRC-32 over the store id and the bytes from `segment_use` on.
    pub crc: U32,
    /// The number of this use of the segment: greater than that of every earlier use of any segment.
    pub segment_use: U64,
    /// Which segment this is: tells a misplaced one.
    pub index: U32,
    /// Length in segments; more than 1 for a long segment.
    pub units: U32,
    /// A [`SegmentKind`]; on disk: never renumber.
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Encryption key id; 0 = none, reserved.
    pub key_id: U32,
    /// Sequence number of the first frame in it.
    pub first_sequence: U64,
    /// Branch of history; 0, reserved.
    pub branch: U32,
    /// Zero.
    pub reserved_2: U32,
    /// Authentication tag; zero, reserved.
    pub tag: [u8; 16],
}

const _: () = {
    assert!(size_of::<SegmentHeaderBytes>() == SEGMENT_HEADER_BYTES);
    assert!(core::mem::offset_of!(SegmentHeaderBytes, first_sequence) == 32);
};

/// What a segment in use holds. On disk: never renumber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// A piece of the log: frames of the chain.
    Log,
    /// Runs: frames of records that the cleaner moved, outside the chain.
    Run,
}

/// A segment header whose checksum and fields hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The number of this use.
    pub segment_use: u64,
    /// Which segment.
    pub index: u32,
    /// Length in segments.
    pub units: u32,
    /// What it holds.
    pub kind: SegmentKind,
    /// Sequence number of its first frame.
    pub first_sequence: u64,
}

impl SegmentHeader {
    /// The header's bytes (B-10).
    #[must_use]
    pub fn encode(&self, store_id: &[u8; 16]) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = SegmentHeaderBytes {
            magic: SEGMENT_MAGIC.into(),
            crc: 0.into(),
            segment_use: self.segment_use.into(),
            index: self.index.into(),
            units: self.units.into(),
            kind: match self.kind {
                SegmentKind::Log => 1,
                SegmentKind::Run => 2,
            },
            reserved: [0; 3],
            key_id: 0.into(),
            first_sequence: self.first_sequence.into(),
            branch: 0.into(),
            reserved_2: 0.into(),
            tag: [0; 16],
        };
        bytes.crc = header_crc(store_id, bytes.as_bytes()).into();
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out.copy_from_slice(bytes.as_bytes());
        out
    }

    /// Reads the header at `offset` of the file.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn parse(
        raw: &[u8],
        store_id: &[u8; 16],
        offset: u64,
    ) -> Result<SegmentHeader, FormatError> {
        let Ok((bytes, _)) = SegmentHeaderBytes::ref_from_prefix(raw) else {
            let expected = SEGMENT_HEADER_BYTES as u64;
            return Err(FormatError::new(
                offset,
                "segment header",
                expected,
                raw.len() as u64,
            ));
        };
        check(
            offset,
            "segment magic",
            SEGMENT_MAGIC.into(),
            bytes.magic.get().into(),
        )?;
        let crc = header_crc(store_id, bytes.as_bytes());
        check(
            offset,
            "segment header CRC",
            crc.into(),
            bytes.crc.get().into(),
        )?;
        let kind = match bytes.kind {
            1 => SegmentKind::Log,
            2 => SegmentKind::Run,
            other => return Err(FormatError::new(offset, "segment kind", 2, other.into())),
        };
        check(offset, "segment key id", 0, bytes.key_id.get().into())?;
        check(offset, "segment branch", 0, bytes.branch.get().into())?;
        let zero = bytes.reserved == [0; 3] && bytes.reserved_2.get() == 0 && bytes.tag == [0; 16];
        check(offset, "segment reserved bytes", 0, u64::from(!zero))?;
        if bytes.units.get() == 0 {
            return Err(FormatError::new(offset, "segment length", 1, 0));
        }
        Ok(SegmentHeader {
            segment_use: bytes.segment_use.get(),
            index: bytes.index.get(),
            units: bytes.units.get(),
            kind,
            first_sequence: bytes.first_sequence.get(),
        })
    }
}

fn header_crc(store_id: &[u8; 16], header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(store_id);
    hasher.update(header.get(8..SEGMENT_HEADER_BYTES).unwrap_or_default());
    hasher.finalize()
}

/// Where segments lie: segment `i` ends at `(i + 1) × segment size` and begins at `i × segment size`,
/// but the first begins behind the superblocks (B-10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    segment_bytes: u32,
}

impl Geometry {
    /// The geometry of a store whose superblock names `segment_bytes`.
    #[must_use]
    pub const fn new(segment_bytes: u32) -> Geometry {
        Geometry { segment_bytes }
    }

    /// Size of a segment in bytes.
    #[must_use]
    pub const fn segment_bytes(self) -> u64 {
        self.segment_bytes as u64
    }

    /// Where segment `index` begins.
    #[must_use]
    pub const fn start(self, index: u32) -> Position {
        if index == 0 {
            Position(SEGMENTS_START)
        } else {
            Position(index as u64 * self.segment_bytes as u64)
        }
    }

    /// Where the segment of `units` units that begins at `index` ends.
    #[must_use]
    pub const fn end(self, index: u32, units: u32) -> Position {
        Position((index as u64 + units as u64) * self.segment_bytes as u64)
    }

    /// Which segment holds `position`; `None` inside the superblocks and beyond L-5.
    #[must_use]
    pub fn index_of(self, position: Position) -> Option<u32> {
        if !(SEGMENTS_START..STORE_BYTES_MAX).contains(&position.0) {
            return None;
        }
        u32::try_from(position.0 / u64::from(self.segment_bytes)).ok()
    }

    /// The most units that a segment has: those that the longest frame needs (B-12).
    #[must_use]
    pub fn units_max(self) -> u32 {
        let headers = (SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES) as u64;
        let bytes = SEGMENTS_START + headers + u64::from(FRAME_BODY_BYTES_MAX) + BLOCK_BYTES;
        u32::try_from(bytes.div_ceil(u64::from(self.segment_bytes))).unwrap_or(u32::MAX)
    }

    /// Number of segments that a store of at most `bytes` can have.
    #[must_use]
    pub fn units_in(self, bytes: u64) -> u32 {
        u32::try_from(bytes / u64::from(self.segment_bytes)).unwrap_or(u32::MAX)
    }
}
