//! The superblock: which checkpoint is the newest, and where the log goes on from it (SPEC.md, B-1 to B-9).

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{FormatError, check, check_max};
use crate::ids::{Position, Revision};
use crate::limits::{
    FORMAT_VERSION, FRAME_BODY_BYTES_MAX, REVISION_MAX, ROOTS_MAX, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SEGMENTS_START, STORE_BYTES_MAX,
};
use crate::segment::Geometry;

/// The first eight bytes of each slot.
pub const SUPERBLOCK_MAGIC: u64 = u64::from_le_bytes(*b"REVTREE1");

/// Size of a superblock slot in bytes.
pub const SUPERBLOCK_BYTES: usize = 4096;

/// The bytes of a slot, in order.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct SuperblockBytes {
    /// [`SUPERBLOCK_MAGIC`].
    pub magic: U64,
    /// CRC-32 of all bytes from `format_version` on.
    pub crc32: U32,
    /// CRC-32C of the same bytes: two polynomials, because this block decides about all others.
    pub crc32c: U32,
    /// [`FORMAT_VERSION`].
    pub format_version: U32,
    /// Features without which the file cannot be read; an unknown bit refuses the file.
    pub critical_flags: U32,
    /// The store's identity and the seed of its hashes: 128 random bits, drawn at creation.
    pub store_id: [u8; 16],
    /// Number of the checkpoint; its parity names the pair of slots.
    pub generation: U64,
    /// Rewrites of one generation in its own pair: raised by each writable open.
    pub edition: U32,
    /// Number of writable opens so far.
    pub opens: U32,
    /// Size of a segment in bytes.
    pub segment_bytes: U32,
    /// Branch of history; 0, reserved.
    pub branch: U32,
    /// Where the frame after the checkpoint begins.
    pub head_position: U64,
    /// Sequence number of that frame.
    pub head_sequence: U64,
    /// Use number of the segment that holds it.
    pub head_use: U64,
    /// Header checksum of the frame before it.
    pub head_prev_crc: U32,
    /// First unit of the segment that holds it.
    pub head_segment: U32,
    /// The store's revision at the checkpoint.
    pub revision: U64,
    /// The compact revision at the checkpoint, −1 when there was none.
    pub compact_revision: I64,
    /// Consistent index at the checkpoint.
    pub applied_index: U64,
    /// Its term.
    pub applied_term: U64,
    /// Records under the tree's root.
    pub records: U64,
    /// Units of segments that the segment table lists.
    pub segment_count: U32,
    /// Number of roots in use.
    pub root_count: U32,
    /// The roots; those beyond `root_count` are zero.
    pub roots: [RootBytes; ROOTS_MAX],
    /// Zero.
    pub reserved: [u8; 3312],
}

/// The bytes of one root.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct RootBytes {
    /// A [`RootKind`]; on disk: never renumber.
    pub kind: U16,
    /// Bit 0: critical, a reader that does not know the kind refuses the file.
    pub flags: U16,
    /// Length of the frame's body.
    pub body_len: U32,
    /// Position of the frame.
    pub position: U64,
    /// Use number of the segment that holds it.
    pub segment_use: U64,
    /// CRC-32C of the frame's body.
    pub body_crc: U32,
    /// Levels of the tree; 0 for other kinds.
    pub levels: U32,
    /// What the kind says: the index run's revision, else 0.
    pub detail: U64,
}

const _: () = {
    assert!(size_of::<SuperblockBytes>() == SUPERBLOCK_BYTES);
    assert!(size_of::<RootBytes>() == 40);
    assert!(core::mem::offset_of!(SuperblockBytes, roots) == 144);
};

/// What a root leads to. On disk: never renumber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RootKind {
    /// The root page of the revision tree.
    Tree,
    /// The directory of the segment table.
    Segments,
    /// The directory of the side tables.
    Tables,
    /// The directory of the key index run.
    Index,
    /// Named pins: reserved.
    Pins,
    /// A kind of a later format, not critical.
    Unknown(u16),
}

impl RootKind {
    fn from_u16(n: u16) -> RootKind {
        match n {
            1 => RootKind::Tree,
            2 => RootKind::Segments,
            3 => RootKind::Tables,
            4 => RootKind::Index,
            5 => RootKind::Pins,
            other => RootKind::Unknown(other),
        }
    }

    fn to_u16(self) -> u16 {
        match self {
            RootKind::Tree => 1,
            RootKind::Segments => 2,
            RootKind::Tables => 3,
            RootKind::Index => 4,
            RootKind::Pins => 5,
            RootKind::Unknown(other) => other,
        }
    }
}

/// Where a frame with a page lies, as its parent names it: the parent's claim is checked against the
/// page, so that a stale or misplaced page cannot pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageRef {
    /// Position of the frame's header.
    pub position: Position,
    /// Use number of its segment.
    pub segment_use: u64,
    /// Length of the frame's body.
    pub body_len: u32,
    /// CRC-32C of the frame's body.
    pub body_crc: u32,
}

/// One root of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    /// What it leads to.
    pub kind: RootKind,
    /// Whether a reader must know the kind.
    pub critical: bool,
    /// The frame.
    pub page: PageRef,
    /// Levels of branch pages, for the tree.
    pub levels: u8,
    /// The index run's revision; of the tree the one up to which records may have been dropped; 0 for other kinds.
    pub detail: u64,
}

/// Where the log goes on: the place and the expectations of the next frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogHead {
    /// Where the next frame begins.
    pub position: Position,
    /// Its sequence number.
    pub sequence: u64,
    /// Use number of the segment.
    pub segment_use: u64,
    /// First unit of the segment.
    pub segment: u32,
    /// Header checksum of the frame before.
    pub prev_crc: u32,
}

/// A superblock whose checksums and bounds hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Identity and hash seed.
    pub store_id: [u8; 16],
    /// Number of the checkpoint.
    pub generation: u64,
    /// Rewrites of this generation.
    pub edition: u32,
    /// Writable opens so far.
    pub opens: u32,
    /// Segment size in bytes.
    pub segment_bytes: u32,
    /// Where the log goes on.
    pub head: LogHead,
    /// Revision at the checkpoint.
    pub revision: Revision,
    /// Compact revision at the checkpoint.
    pub compact_revision: Option<Revision>,
    /// Consistent index at the checkpoint.
    pub applied_index: u64,
    /// Its term.
    pub applied_term: u64,
    /// Records under the tree's root.
    pub records: u64,
    /// Units of segments in the segment table.
    pub segment_count: u32,
    /// The roots.
    pub roots: Vec<Root>,
}

impl Superblock {
    /// The order of superblocks: the greatest is the newest. By the open that wrote them first: one of an
    /// earlier open was not valid to the later one, whatever its generation, and what it names may be gone.
    #[must_use]
    pub fn age(&self) -> (u32, u64, u32) {
        (self.opens, self.generation, self.edition)
    }

    /// The root of `kind`, when the checkpoint has one.
    #[must_use]
    pub fn root(&self, kind: RootKind) -> Option<&Root> {
        self.roots.iter().find(|root| root.kind == kind)
    }

    /// The slot's bytes (B-1).
    #[must_use]
    pub fn encode(&self) -> Box<[u8; SUPERBLOCK_BYTES]> {
        let mut roots = [RootBytes::new_zeroed_root(); ROOTS_MAX];
        for (bytes, root) in roots.iter_mut().zip(&self.roots) {
            *bytes = RootBytes::from_root(root);
        }
        let root_count = self.roots.len().min(ROOTS_MAX);
        let mut bytes = SuperblockBytes {
            magic: SUPERBLOCK_MAGIC.into(),
            crc32: 0.into(),
            crc32c: 0.into(),
            format_version: FORMAT_VERSION.into(),
            critical_flags: 0.into(),
            store_id: self.store_id,
            generation: self.generation.into(),
            edition: self.edition.into(),
            opens: self.opens.into(),
            segment_bytes: self.segment_bytes.into(),
            branch: 0.into(),
            head_position: self.head.position.0.into(),
            head_sequence: self.head.sequence.into(),
            head_use: self.head.segment_use.into(),
            head_prev_crc: self.head.prev_crc.into(),
            head_segment: self.head.segment.into(),
            revision: self.revision.get().into(),
            compact_revision: encode_compact(self.compact_revision).into(),
            applied_index: self.applied_index.into(),
            applied_term: self.applied_term.into(),
            records: self.records.into(),
            segment_count: self.segment_count.into(),
            root_count: u32::try_from(root_count).expect("at most 16").into(),
            roots,
            reserved: [0; 3312],
        };
        let (crc32, crc32c) = checksums(bytes.as_bytes());
        bytes.crc32 = crc32.into();
        bytes.crc32c = crc32c.into();
        let mut slot = Box::new([0; SUPERBLOCK_BYTES]);
        slot.copy_from_slice(bytes.as_bytes());
        slot
    }

    /// Reads the slot whose bytes begin at `offset` of the file.
    ///
    /// # Errors
    /// A [`FormatError`] that names the first rule that does not hold. A format version above
    /// [`FORMAT_VERSION`] is reported with the field `superblock format version`, also when the rest
    /// cannot be checked.
    pub fn parse(slot: &[u8], offset: u64) -> Result<Superblock, FormatError> {
        let Ok((bytes, _)) = SuperblockBytes::ref_from_prefix(slot) else {
            let expected = SUPERBLOCK_BYTES as u64;
            return Err(FormatError::new(
                offset,
                "superblock length",
                expected,
                slot.len() as u64,
            ));
        };
        check(
            offset,
            "superblock magic",
            SUPERBLOCK_MAGIC,
            bytes.magic.get(),
        )?;
        let (crc32, crc32c) = checksums(bytes.as_bytes());
        check(
            offset,
            "superblock CRC-32",
            crc32.into(),
            bytes.crc32.get().into(),
        )?;
        check(
            offset,
            "superblock CRC-32C",
            crc32c.into(),
            bytes.crc32c.get().into(),
        )?;
        check_max(
            offset,
            "superblock format version",
            FORMAT_VERSION.into(),
            bytes.format_version.get().into(),
        )?;
        check(
            offset,
            "superblock critical flags",
            0,
            bytes.critical_flags.get().into(),
        )?;
        check(offset, "superblock branch", 0, bytes.branch.get().into())?;
        let zero = bytes.reserved.iter().all(|byte| *byte == 0);
        check(offset, "superblock reserved bytes", 0, u64::from(!zero))?;
        let segment_bytes = bytes.segment_bytes.get();
        if !segment_bytes.is_power_of_two()
            || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
        {
            let expected = SEGMENT_BYTES_MIN.into();
            return Err(FormatError::new(
                offset,
                "superblock segment size",
                expected,
                segment_bytes.into(),
            ));
        }
        let head = LogHead {
            position: Position(bytes.head_position.get()),
            sequence: bytes.head_sequence.get(),
            segment_use: bytes.head_use.get(),
            segment: bytes.head_segment.get(),
            prev_crc: bytes.head_prev_crc.get(),
        };
        check_max(
            offset,
            "superblock log head",
            STORE_BYTES_MAX,
            head.position.0,
        )?;
        if head.position.0 < SEGMENTS_START || !head.position.0.is_multiple_of(8) {
            return Err(FormatError::new(
                offset,
                "superblock log head",
                SEGMENTS_START,
                head.position.0,
            ));
        }
        let segment_start = Geometry::new(segment_bytes).start(head.segment);
        check_max(
            offset,
            "superblock log head segment",
            head.position.0,
            segment_start.0,
        )?;
        check_max(
            offset,
            "superblock revision",
            REVISION_MAX,
            bytes.revision.get(),
        )?;
        let compact_revision = decode_compact(offset, bytes.compact_revision.get())?;
        let units_max = STORE_BYTES_MAX / u64::from(segment_bytes);
        check_max(
            offset,
            "superblock segments",
            units_max,
            bytes.segment_count.get().into(),
        )?;
        let root_count = bytes.root_count.get();
        check_max(
            offset,
            "superblock roots",
            ROOTS_MAX as u64,
            root_count.into(),
        )?;
        let mut roots: Vec<Root> = Vec::new();
        for (n, root) in bytes.roots.iter().enumerate() {
            if (n as u64) < u64::from(root_count) {
                let root = root.to_root(offset)?;
                let known = !matches!(root.kind, RootKind::Unknown(_));
                if known && roots.iter().any(|other| other.kind == root.kind) {
                    let found = root.kind.to_u16().into();
                    return Err(FormatError::new(offset, "root kind twice", 0, found));
                }
                roots.push(root);
            } else {
                let zero = root.as_bytes().iter().all(|byte| *byte == 0);
                check(offset, "superblock unused root", 0, u64::from(!zero))?;
            }
        }
        Ok(Superblock {
            store_id: bytes.store_id,
            generation: bytes.generation.get(),
            edition: bytes.edition.get(),
            opens: bytes.opens.get(),
            segment_bytes,
            head,
            revision: Revision::new(bytes.revision.get()),
            compact_revision,
            applied_index: bytes.applied_index.get(),
            applied_term: bytes.applied_term.get(),
            records: bytes.records.get(),
            segment_count: bytes.segment_count.get(),
            roots,
        })
    }
}

impl RootBytes {
    fn new_zeroed_root() -> RootBytes {
        <RootBytes as FromBytes>::read_from_bytes(&[0; 40]).expect("40 bytes are a root")
    }

    fn from_root(root: &Root) -> RootBytes {
        RootBytes {
            kind: root.kind.to_u16().into(),
            flags: u16::from(root.critical).into(),
            body_len: root.page.body_len.into(),
            position: root.page.position.0.into(),
            segment_use: root.page.segment_use.into(),
            body_crc: root.page.body_crc.into(),
            levels: u32::from(root.levels).into(),
            detail: root.detail.into(),
        }
    }

    fn to_root(self, offset: u64) -> Result<Root, FormatError> {
        let kind = RootKind::from_u16(self.kind.get());
        check_max(offset, "root flags", 1, self.flags.get().into())?;
        let critical = self.flags.get() == 1;
        if critical && matches!(kind, RootKind::Unknown(_) | RootKind::Pins) {
            return Err(FormatError::new(
                offset,
                "critical root kind",
                4,
                self.kind.get().into(),
            ));
        }
        check_max(
            offset,
            "root length",
            FRAME_BODY_BYTES_MAX.into(),
            self.body_len.get().into(),
        )?;
        check_max(
            offset,
            "root position",
            STORE_BYTES_MAX,
            self.position.get(),
        )?;
        let levels = u8::try_from(self.levels.get())
            .ok()
            .filter(|levels| *levels <= crate::limits::TREE_LEVELS_MAX)
            .ok_or_else(|| {
                let max = crate::limits::TREE_LEVELS_MAX.into();
                FormatError::new(offset, "root levels", max, self.levels.get().into())
            })?;
        // Below what an unknown root leads to nothing can be said.
        match kind {
            RootKind::Unknown(_) => {}
            RootKind::Tree if levels == 0 => {
                return Err(FormatError::new(offset, "root levels", 1, 0));
            }
            RootKind::Tree => {}
            _ => check(offset, "root levels", 0, levels.into())?,
        }
        let page = PageRef {
            position: Position(self.position.get()),
            segment_use: self.segment_use.get(),
            body_len: self.body_len.get(),
            body_crc: self.body_crc.get(),
        };
        Ok(Root {
            kind,
            critical,
            page,
            levels,
            detail: self.detail.get(),
        })
    }
}

/// Both checksums of a slot: over everything behind them.
fn checksums(slot: &[u8]) -> (u32, u32) {
    let covered = slot.get(16..).unwrap_or_default();
    (crc32fast::hash(covered), crc32c::crc32c(covered))
}

fn encode_compact(compact: Option<Revision>) -> i64 {
    compact.map_or(-1, |rev| i64::try_from(rev.get()).unwrap_or(i64::MAX))
}

fn decode_compact(offset: u64, compact: i64) -> Result<Option<Revision>, FormatError> {
    match u64::try_from(compact) {
        Ok(rev) => {
            check_max(offset, "superblock compact revision", REVISION_MAX, rev)?;
            Ok(Some(Revision::new(rev)))
        }
        Err(_) => {
            let found = compact.unsigned_abs();
            check(offset, "superblock compact revision below zero", 1, found)?;
            Ok(None)
        }
    }
}
