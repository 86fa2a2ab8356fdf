//! Frames: everything behind the superblocks is a frame of the log (SPEC.md, B-20 to B-32).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{FormatError, check, check_max};
use crate::ids::{Position, Revision};
use crate::limits::{FRAME_BODY_BYTES_MAX, REVISION_MAX};
use crate::place::Place;

/// The first four bytes of a frame.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"RVFM");

/// Size of a frame header in bytes.
pub const FRAME_HEADER_BYTES: usize = 64;

/// The bytes of a frame header, in order.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct FrameHeaderBytes {
    /// [`FRAME_MAGIC`].
    pub magic: U32,
    /// CRC-32 over store id, segment use, own position and the bytes from `body_crc` on: a frame that
    /// was left by an earlier use, belongs elsewhere or to another store does not pass.
    pub header_crc: U32,
    /// CRC-32C of the body: with `header_crc` 64 bits of two polynomials stand over each commit.
    pub body_crc: U32,
    /// `header_crc` of the frame before it in the log: links the chain; 0 in a run.
    pub prev_crc: U32,
    /// Counts frames of the chain; each is one more than the one before.
    pub sequence: U64,
    /// All frames with a smaller sequence were durable when this one was closed.
    pub synced_up_to: U64,
    /// The store's revision after this frame.
    pub revision: U64,
    /// Length of the body in bytes.
    pub body_len: U32,
    /// Length of the records at the start of the body; control items follow.
    pub records_len: U32,
    /// Number of records.
    pub record_count: U32,
    /// The writable open that wrote it, see `SuperblockBytes::opens`.
    pub opens: U32,
    /// A [`FrameKind`]; on disk: never renumber.
    pub kind: u8,
    /// [`FrameFlags`].
    pub flags: u8,
    /// Codec of the body; 0 = plain, others reserved.
    pub codec: u8,
    /// Branch of history; 0, reserved.
    pub branch: u8,
    /// Length of the body before the codec; equals `body_len` for codec 0.
    pub logical_len: U32,
}

const _: () = {
    assert!(size_of::<FrameHeaderBytes>() == FRAME_HEADER_BYTES);
    assert!(core::mem::offset_of!(FrameHeaderBytes, kind) == 56);
};

/// What a frame's body is. On disk: never renumber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// Records and control items: commits.
    Records,
    /// A branch page of the revision tree.
    Branch,
    /// A chunk of a blob.
    Chunk,
    /// The list of a blob's chunks.
    Directory,
    /// Records that the cleaner moved, in a run segment.
    Run,
}

impl FrameKind {
    fn to_u8(self) -> u8 {
        match self {
            FrameKind::Records => 1,
            FrameKind::Branch => 2,
            FrameKind::Chunk => 3,
            FrameKind::Directory => 4,
            FrameKind::Run => 5,
        }
    }
}

/// Bits of a frame's `flags`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameFlags {
    /// Bit 0: the next frame begins at the next block border (a synced group ends here).
    pub padded: bool,
    /// Bit 1: the transaction goes on in the next frame of records.
    pub continued: bool,
    /// Bit 2: the last frame of its segment; a control item names the next one.
    pub last_in_segment: bool,
}

impl FrameFlags {
    fn to_u8(self) -> u8 {
        u8::from(self.padded) | u8::from(self.continued) << 1 | u8::from(self.last_in_segment) << 2
    }

    fn from_u8(bits: u8) -> Option<FrameFlags> {
        (bits < 8).then_some(FrameFlags {
            padded: bits & 1 != 0,
            continued: bits & 2 != 0,
            last_in_segment: bits & 4 != 0,
        })
    }
}

/// A frame header whose checksum and fields hold. Its body is checked apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// What the body is.
    pub kind: FrameKind,
    /// How the log goes on.
    pub flags: FrameFlags,
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// Header checksum of the frame before.
    pub prev_crc: u32,
    /// Place in the chain.
    pub sequence: u64,
    /// All frames before this number were durable.
    pub synced_up_to: u64,
    /// The store's revision after this frame.
    pub revision: Revision,
    /// Length of the body.
    pub body_len: u32,
    /// Length of the records.
    pub records_len: u32,
    /// Number of records.
    pub record_count: u32,
    /// The writable open that wrote it.
    pub opens: u32,
}

impl FrameHeader {
    /// The header's bytes and its checksum, which the next frame repeats (B-20).
    #[must_use]
    pub fn encode(&self, place: Place) -> ([u8; FRAME_HEADER_BYTES], u32) {
        let mut bytes = FrameHeaderBytes {
            magic: FRAME_MAGIC.into(),
            header_crc: 0.into(),
            body_crc: self.body_crc.into(),
            prev_crc: self.prev_crc.into(),
            sequence: self.sequence.into(),
            synced_up_to: self.synced_up_to.into(),
            revision: self.revision.get().into(),
            body_len: self.body_len.into(),
            records_len: self.records_len.into(),
            record_count: self.record_count.into(),
            opens: self.opens.into(),
            kind: self.kind.to_u8(),
            flags: self.flags.to_u8(),
            codec: 0,
            branch: 0,
            logical_len: self.body_len.into(),
        };
        let crc = header_crc(place, bytes.as_bytes());
        bytes.header_crc = crc.into();
        let mut out = [0; FRAME_HEADER_BYTES];
        out.copy_from_slice(bytes.as_bytes());
        (out, crc)
    }

    /// Reads the header at `place` and gives it with its checksum.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn parse(raw: &[u8], place: Place) -> Result<(FrameHeader, u32), FormatError> {
        let offset = place.position.0;
        let Ok((bytes, _)) = FrameHeaderBytes::ref_from_prefix(raw) else {
            let expected = FRAME_HEADER_BYTES as u64;
            return Err(FormatError::new(
                offset,
                "frame header",
                expected,
                raw.len() as u64,
            ));
        };
        check(
            offset,
            "frame magic",
            FRAME_MAGIC.into(),
            bytes.magic.get().into(),
        )?;
        let crc = header_crc(place, bytes.as_bytes());
        check(
            offset,
            "frame header CRC",
            crc.into(),
            bytes.header_crc.get().into(),
        )?;
        let kind = match bytes.kind {
            1 => FrameKind::Records,
            2 => FrameKind::Branch,
            3 => FrameKind::Chunk,
            4 => FrameKind::Directory,
            5 => FrameKind::Run,
            other => return Err(FormatError::new(offset, "frame kind", 5, other.into())),
        };
        let Some(flags) = FrameFlags::from_u8(bytes.flags) else {
            return Err(FormatError::new(
                offset,
                "frame flags",
                7,
                bytes.flags.into(),
            ));
        };
        check(offset, "frame codec", 0, bytes.codec.into())?;
        check(offset, "frame branch", 0, bytes.branch.into())?;
        let body_len = bytes.body_len.get();
        check_max(
            offset,
            "frame length",
            FRAME_BODY_BYTES_MAX.into(),
            body_len.into(),
        )?;
        check(offset, "frame length (8 | n)", 0, u64::from(body_len % 8))?;
        check(
            offset,
            "frame logical length",
            body_len.into(),
            bytes.logical_len.get().into(),
        )?;
        let records_len = bytes.records_len.get();
        check_max(
            offset,
            "frame records length",
            body_len.into(),
            records_len.into(),
        )?;
        let record_count = bytes.record_count.get();
        check_max(
            offset,
            "frame record count",
            u64::from(records_len) / 48,
            record_count.into(),
        )?;
        if matches!(
            kind,
            FrameKind::Branch | FrameKind::Chunk | FrameKind::Directory
        ) {
            check(offset, "records of a page frame", 0, records_len.into())?;
        }
        check_max(offset, "frame revision", REVISION_MAX, bytes.revision.get())?;
        let sequence = bytes.sequence.get();
        check_max(
            offset,
            "frame synced mark",
            sequence,
            bytes.synced_up_to.get(),
        )?;
        let header = FrameHeader {
            kind,
            flags,
            body_crc: bytes.body_crc.get(),
            prev_crc: bytes.prev_crc.get(),
            sequence,
            synced_up_to: bytes.synced_up_to.get(),
            revision: Revision::new(bytes.revision.get()),
            body_len,
            records_len,
            record_count,
            opens: bytes.opens.get(),
        };
        Ok((header, crc))
    }

    /// Checks `body` against the header's CRC-32C.
    ///
    /// # Errors
    /// A [`FormatError`] at `position` when it does not match.
    pub fn check_body(&self, body: &[u8], position: Position) -> Result<(), FormatError> {
        check(
            position.0,
            "frame body length",
            self.body_len.into(),
            body.len() as u64,
        )?;
        let found = crc32c::crc32c(body);
        check(
            position.0,
            "frame body CRC",
            self.body_crc.into(),
            found.into(),
        )
    }

    /// Where the frame after one at `position` begins (B-22).
    #[must_use]
    pub fn next_position(&self, position: Position) -> Position {
        let end = position.0 + FRAME_HEADER_BYTES as u64 + u64::from(self.body_len);
        if self.flags.padded {
            Position(end.next_multiple_of(crate::limits::BLOCK_BYTES))
        } else {
            Position(end)
        }
    }
}

fn header_crc(place: Place, header: &[u8]) -> u32 {
    let mut hasher = place.hasher();
    hasher.update(header.get(8..FRAME_HEADER_BYTES).unwrap_or_default());
    hasher.finalize()
}
