//! Blobs: what a checkpoint holds besides the tree — the segment table, the side tables, the key index
//! run — as chunks with a directory (SPEC.md, B-80 to B-95).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{FormatError, check, check_max};
use crate::ids::Position;
use crate::limits::{FRAME_BODY_BYTES_MAX, STORE_BYTES_MAX};
use crate::superblock::PageRef;

/// The header of a directory.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct DirectoryHeaderBytes {
    /// Items in all chunks.
    pub items: U64,
    /// Number of chunks.
    pub chunks: U32,
    /// Zero.
    pub reserved: U32,
}

/// One chunk in a directory.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct ChunkRefBytes {
    /// Position of the chunk's frame.
    pub position: U64,
    /// Use number of its segment.
    pub segment_use: U64,
    /// Length of its body.
    pub body_len: U32,
    /// CRC-32C of its body.
    pub body_crc: U32,
}

const _: () = {
    assert!(size_of::<DirectoryHeaderBytes>() == 16);
    assert!(size_of::<ChunkRefBytes>() == 24);
};

/// The chunks of a blob, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Directory {
    /// Items in all chunks: segments, control items, or keys.
    pub items: u64,
    /// The chunks.
    pub chunks: Vec<PageRef>,
}

impl Directory {
    /// The directory's bytes: the body of a frame (B-80).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let header = DirectoryHeaderBytes {
            items: self.items.into(),
            chunks: u32::try_from(self.chunks.len())
                .expect("a frame's worth of chunks")
                .into(),
            reserved: 0.into(),
        };
        let mut out = header.as_bytes().to_vec();
        for chunk in &self.chunks {
            let bytes = ChunkRefBytes {
                position: chunk.position.0.into(),
                segment_use: chunk.segment_use.into(),
                body_len: chunk.body_len.into(),
                body_crc: chunk.body_crc.into(),
            };
            out.extend_from_slice(bytes.as_bytes());
        }
        out
    }

    /// Reads the body of a directory frame that begins at `position`.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn parse(body: &[u8], position: Position) -> Result<Directory, FormatError> {
        let at = position.0;
        let Ok((header, rest)) = DirectoryHeaderBytes::ref_from_prefix(body) else {
            return Err(FormatError::new(at, "directory", 16, body.len() as u64));
        };
        check(
            at,
            "directory reserved bytes",
            0,
            header.reserved.get().into(),
        )?;
        let len = u64::from(header.chunks.get()) * size_of::<ChunkRefBytes>() as u64;
        check(at, "directory length", len, rest.len() as u64)?;
        let Ok(raw) = <[ChunkRefBytes]>::ref_from_bytes(rest) else {
            return Err(FormatError::new(
                at,
                "directory length",
                len,
                rest.len() as u64,
            ));
        };
        let mut chunks = Vec::with_capacity(raw.len());
        for chunk in raw {
            check_max(at, "chunk position", STORE_BYTES_MAX, chunk.position.get())?;
            let max = FRAME_BODY_BYTES_MAX.into();
            check_max(at, "chunk length", max, chunk.body_len.get().into())?;
            chunks.push(PageRef {
                position: Position(chunk.position.get()),
                segment_use: chunk.segment_use.get(),
                body_len: chunk.body_len.get(),
                body_crc: chunk.body_crc.get(),
            });
        }
        Ok(Directory {
            items: header.items.get(),
            chunks,
        })
    }
}

/// One unit of the segment table.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct SegmentEntryBytes {
    /// Use number; 0 when free.
    pub segment_use: U64,
    /// Length in segments; 0 in the units after a long segment's first.
    pub units: U32,
    /// A [`SegmentState`]; on disk: never renumber.
    pub state: u8,
    /// Share of its bytes in dead records, in 65535ths; 0 in the units after a long segment's first.
    pub dead: U16,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<SegmentEntryBytes>() == 16);

/// What a unit of the file is used for. On disk: never renumber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentState {
    /// Nothing.
    Free,
    /// A piece of the log.
    Log,
    /// Runs of moved records.
    Run,
}

/// One unit of the segment table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentEntry {
    /// What it is used for.
    pub state: SegmentState,
    /// Use number; 0 when free.
    pub segment_use: u64,
    /// Length in segments; 0 in the units after a long segment's first.
    pub units: u32,
    /// Share of its bytes in dead records, in 65535ths; 0 in the units after a long segment's first.
    pub dead: u16,
}

impl SegmentEntry {
    /// A unit in no use.
    pub const FREE: SegmentEntry = SegmentEntry {
        state: SegmentState::Free,
        segment_use: 0,
        units: 1,
        dead: 0,
    };
}

/// A chunk of the segment table (B-85).
#[must_use]
pub fn encode_segments(entries: &[SegmentEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * 16);
    for entry in entries {
        let bytes = SegmentEntryBytes {
            segment_use: entry.segment_use.into(),
            units: entry.units.into(),
            state: match entry.state {
                SegmentState::Free => 0,
                SegmentState::Log => 1,
                SegmentState::Run => 2,
            },
            dead: entry.dead.into(),
            reserved: 0,
        };
        out.extend_from_slice(bytes.as_bytes());
    }
    out
}

/// Reads a chunk of the segment table whose frame begins at `position`.
///
/// # Errors
/// The first rule that does not hold.
pub fn parse_segments(body: &[u8], position: Position) -> Result<Vec<SegmentEntry>, FormatError> {
    let at = position.0;
    let Ok(raw) = <[SegmentEntryBytes]>::ref_from_bytes(body) else {
        return Err(FormatError::new(
            at,
            "segment table length",
            16,
            body.len() as u64,
        ));
    };
    let mut entries = Vec::with_capacity(raw.len());
    for entry in raw {
        let state = match entry.state {
            0 => SegmentState::Free,
            1 => SegmentState::Log,
            2 => SegmentState::Run,
            other => return Err(FormatError::new(at, "segment state", 2, other.into())),
        };
        let reserved = entry.reserved.into();
        check(at, "segment entry reserved byte", 0, reserved)?;
        entries.push(SegmentEntry {
            state,
            segment_use: entry.segment_use.get(),
            units: entry.units.get(),
            dead: entry.dead.get(),
        });
    }
    Ok(entries)
}

/// Checks what the entries of the whole segment table say together (B-85): a free unit has no use, nothing dead and
/// length 1, a long segment lies in the table, and its other units repeat its state and use. `position`
/// is that of the table's directory.
///
/// # Errors
/// The first rule that does not hold.
pub fn check_segments(entries: &[SegmentEntry], position: Position) -> Result<(), FormatError> {
    let at = position.0;
    let mut rest = entries;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if first.state == SegmentState::Free {
            check(at, "use of a free segment", 0, first.segment_use)?;
            check(at, "length of a free segment", 1, first.units.into())?;
            check(at, "dead bytes of a free segment", 0, first.dead.into())?;
            continue;
        }
        let wrong = |found| FormatError::new(at, "segment length in the table", 1, found);
        let others = first.units.checked_sub(1).ok_or(wrong(0))? as usize;
        let (others, behind) = rest
            .split_at_checked(others)
            .ok_or(wrong(first.units.into()))?;
        let other = SegmentEntry {
            units: 0,
            dead: 0,
            ..*first
        };
        let same = others.iter().all(|entry| *entry == other);
        check(at, "units of a long segment", 0, u64::from(!same))?;
        rest = behind;
    }
    Ok(())
}

/// The header of one leaf in a chunk of the key index run.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct IndexLeafBytes {
    /// Bit `i`: the key of entry `i` is live at the run's revision.
    pub live: U64,
    /// Length of the separator: a lower bound of the leaf's keys, above all keys before it.
    pub separator_len: U32,
    /// Length of the prefix that all its keys share.
    pub prefix_len: U32,
    /// Number of entries, 1 to 64.
    pub count: U32,
    /// Zero.
    pub reserved: U32,
}

/// One key of a leaf.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct IndexEntryBytes {
    /// Eight bytes of the key behind the prefix, big-endian, padded with zeros.
    pub chunk: U64,
    /// Where the key's newest record lies.
    pub position: U64,
    /// Upper half of the key's hash.
    pub hash: U32,
}

const _: () = {
    assert!(size_of::<IndexLeafBytes>() == 24);
    assert!(size_of::<IndexEntryBytes>() == 20);
};

/// One leaf of the key index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexLeaf {
    /// A lower bound of the leaf's keys; empty in the first leaf.
    pub separator: Vec<u8>,
    /// What all its keys begin with.
    pub prefix: Vec<u8>,
    /// Its keys, ascending.
    pub entries: Vec<IndexEntry>,
}

/// One key of the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexEntry {
    /// Eight bytes of the key behind the leaf's prefix, big-endian, padded with zeros.
    pub chunk: u64,
    /// Upper half of the key's hash.
    pub hash: u32,
    /// Whether the key is live at the run's revision.
    pub live: bool,
    /// Where its newest record lies.
    pub position: Position,
}

/// Most entries of a leaf: the bits of the live word.
pub const INDEX_LEAF_ENTRIES_MAX: usize = 64;

impl IndexLeaf {
    /// Appends the leaf to a chunk (B-90).
    ///
    /// # Panics
    /// When it has more than 64 entries.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(
            self.entries.len() <= INDEX_LEAF_ENTRIES_MAX,
            "a leaf has at most 64 entries"
        );
        let mut live = 0;
        for (n, entry) in self.entries.iter().enumerate() {
            live |= u64::from(entry.live) << n;
        }
        let narrow = |len: usize| u32::try_from(len).expect("a key's length at most");
        let header = IndexLeafBytes {
            live: live.into(),
            separator_len: narrow(self.separator.len()).into(),
            prefix_len: narrow(self.prefix.len()).into(),
            count: narrow(self.entries.len()).into(),
            reserved: 0.into(),
        };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&self.separator);
        out.extend_from_slice(&self.prefix);
        for entry in &self.entries {
            let bytes = IndexEntryBytes {
                chunk: entry.chunk.into(),
                position: entry.position.0.into(),
                hash: entry.hash.into(),
            };
            out.extend_from_slice(bytes.as_bytes());
        }
        out.resize(out.len().next_multiple_of(8), 0);
    }

    /// Reads all leaves of a chunk whose frame begins at `position`.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn parse_chunk(body: &[u8], position: Position) -> Result<Vec<IndexLeaf>, FormatError> {
        let at = position.0;
        let mut leaves = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let Ok((header, after)) = IndexLeafBytes::ref_from_prefix(rest) else {
                return Err(FormatError::new(at, "index leaf", 24, rest.len() as u64));
            };
            let count = header.count.get() as usize;
            check_max(
                at,
                "index leaf entries",
                INDEX_LEAF_ENTRIES_MAX as u64,
                count as u64,
            )?;
            if count == 0 {
                return Err(FormatError::new(at, "index leaf entries", 1, 0));
            }
            check(
                at,
                "index leaf reserved bytes",
                0,
                header.reserved.get().into(),
            )?;
            let live = header.live.get();
            if count < 64 {
                check(at, "index leaf live bits", 0, live >> count)?;
            }
            let separator_len = header.separator_len.get() as usize;
            let prefix_len = header.prefix_len.get() as usize;
            let cut = || FormatError::new(at, "index leaf length", 0, after.len() as u64);
            let (separator, after) = after.split_at_checked(separator_len).ok_or_else(cut)?;
            let (prefix, after) = after.split_at_checked(prefix_len).ok_or_else(cut)?;
            let entries_len = count * size_of::<IndexEntryBytes>();
            let (raw, _) = after.split_at_checked(entries_len).ok_or_else(cut)?;
            let Ok(raw) = <[IndexEntryBytes]>::ref_from_bytes(raw) else {
                return Err(cut());
            };
            let entries = raw
                .iter()
                .enumerate()
                .map(|(n, entry)| IndexEntry {
                    chunk: entry.chunk.get(),
                    hash: entry.hash.get(),
                    live: live >> n & 1 == 1,
                    position: Position(entry.position.get()),
                })
                .collect();
            leaves.push(IndexLeaf {
                separator: separator.to_vec(),
                prefix: prefix.to_vec(),
                entries,
            });
            let len = 24 + separator_len + prefix_len + entries_len;
            let padded = len.next_multiple_of(8);
            let padding = rest.get(len..padded).ok_or_else(cut)?;
            let zero = padding.iter().all(|byte| *byte == 0);
            check(at, "index leaf padding", 0, u64::from(!zero))?;
            rest = rest.get(padded..).unwrap_or_default();
        }
        Ok(leaves)
    }
}
