//! Branch pages of the revision tree (SPEC.md, B-70 to B-77).
//!
//! A page is the body of a frame: a header of 16 bytes and entries of 48 bytes in ascending order of
//! their first change. On level 0 an entry names a leaf run, above it a page of the level below.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{FormatError, check, check_max};
use crate::ids::{ChangeId, Position, Revision};
use crate::limits::{
    BRANCH_ENTRIES_MAX, FRAME_BODY_BYTES_MAX, LEAF_BYTES_MAX, REVISION_MAX, STORE_BYTES_MAX,
    TREE_LEVELS_MAX,
};
use crate::superblock::PageRef;

/// Size of a branch page's header in bytes.
pub const BRANCH_HEADER_BYTES: usize = 16;
/// Size of an entry in bytes.
pub const BRANCH_ENTRY_BYTES: usize = 48;

/// The header of a branch page.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct BranchHeaderBytes {
    /// 0: entries name leaf runs.
    pub level: u8,
    /// Zero.
    pub reserved: u8,
    /// Number of entries, at least 1.
    pub count: U16,
    /// Zero.
    pub reserved_2: U32,
    /// Checkpoint that wrote the page.
    pub generation: U64,
}

/// One entry.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct BranchEntryBytes {
    /// Revision of the first record below.
    pub main: U64,
    /// Position of the leaf's first record, or of the child page's frame.
    pub position: U64,
    /// Use number of the segment there.
    pub segment_use: U64,
    /// Place in its transaction of the first record below.
    pub sub: U32,
    /// Bytes of the leaf run, or length of the child's body.
    pub len: U32,
    /// Records below.
    pub records: U64,
    /// Running CRC-32C over the leaf's bytes; 0, reserved. For a child page: CRC-32C of its body.
    pub crc: U32,
    /// Codec of the leaf run; 0 = plain.
    pub codec: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

const _: () = {
    assert!(size_of::<BranchHeaderBytes>() == BRANCH_HEADER_BYTES);
    assert!(size_of::<BranchEntryBytes>() == BRANCH_ENTRY_BYTES);
};

/// A leaf of the revision tree: consecutive records of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafRun {
    /// Its first record.
    pub first: ChangeId,
    /// Where that record begins.
    pub position: Position,
    /// Use number of the segment.
    pub segment_use: u64,
    /// Length in bytes.
    pub len: u32,
    /// Number of records, at least 1.
    pub records: u32,
}

/// A branch page as its parent names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Child {
    /// The first record below.
    pub first: ChangeId,
    /// The page's frame.
    pub page: PageRef,
    /// Records below.
    pub records: u64,
}

/// The entries of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BranchEntries {
    /// Level 0.
    Leaves(Vec<LeafRun>),
    /// Above it.
    Children(Vec<Child>),
}

/// A branch page whose structure holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchPage {
    /// 0: the entries are leaf runs.
    pub level: u8,
    /// Checkpoint that wrote it.
    pub generation: u64,
    /// Its entries, at least one, ascending.
    pub entries: BranchEntries,
}

impl BranchPage {
    /// The page's bytes: the body of a frame (B-70).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut entries = Vec::new();
        match &self.entries {
            BranchEntries::Leaves(leaves) => entries.extend(leaves.iter().map(leaf_bytes)),
            BranchEntries::Children(children) => entries.extend(children.iter().map(child_bytes)),
        }
        let header = BranchHeaderBytes {
            level: self.level,
            reserved: 0,
            count: u16::try_from(entries.len())
                .expect("at most 128 entries")
                .into(),
            reserved_2: 0.into(),
            generation: self.generation.into(),
        };
        let mut out = Vec::with_capacity(BRANCH_HEADER_BYTES + entries.len() * BRANCH_ENTRY_BYTES);
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(entries.as_slice().as_bytes());
        out
    }

    /// Reads the body of a branch frame that begins at `position`.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn parse(body: &[u8], position: Position) -> Result<BranchPage, FormatError> {
        let at = position.0;
        let Ok((header, rest)) = BranchHeaderBytes::ref_from_prefix(body) else {
            return Err(FormatError::new(at, "branch page", 16, body.len() as u64));
        };
        let count = usize::from(header.count.get());
        check_max(
            at,
            "branch entries",
            BRANCH_ENTRIES_MAX as u64,
            count as u64,
        )?;
        check(
            at,
            "branch length",
            (count * BRANCH_ENTRY_BYTES) as u64,
            rest.len() as u64,
        )?;
        check_max(
            at,
            "branch level",
            u64::from(TREE_LEVELS_MAX - 1),
            header.level.into(),
        )?;
        let reserved = u64::from(header.reserved) | u64::from(header.reserved_2.get());
        check(at, "branch reserved bytes", 0, reserved)?;
        let Ok(raw) = <[BranchEntryBytes]>::ref_from_bytes(rest) else {
            return Err(FormatError::new(at, "branch length", 0, rest.len() as u64));
        };
        if raw.is_empty() {
            return Err(FormatError::new(at, "branch entries", 1, 0));
        }
        let mut before: Option<ChangeId> = None;
        for entry in raw {
            let first = check_entry(entry, at)?;
            if before.is_some_and(|before| before >= first) {
                return Err(FormatError::new(at, "branch order", 0, first.main.get()));
            }
            before = Some(first);
        }
        let entries = if header.level == 0 {
            BranchEntries::Leaves(
                raw.iter()
                    .map(|entry| leaf(entry, at))
                    .collect::<Result<_, _>>()?,
            )
        } else {
            BranchEntries::Children(raw.iter().map(child).collect())
        };
        Ok(BranchPage {
            level: header.level,
            generation: header.generation.get(),
            entries,
        })
    }

    /// The first record below the page.
    #[must_use]
    pub fn first(&self) -> Option<ChangeId> {
        match &self.entries {
            BranchEntries::Leaves(leaves) => leaves.first().map(|leaf| leaf.first),
            BranchEntries::Children(children) => children.first().map(|child| child.first),
        }
    }

    /// Records below the page.
    #[must_use]
    pub fn records(&self) -> u64 {
        match &self.entries {
            BranchEntries::Leaves(leaves) => {
                leaves.iter().map(|leaf| u64::from(leaf.records)).sum()
            }
            BranchEntries::Children(children) => children
                .iter()
                .fold(0, |sum: u64, child| sum.saturating_add(child.records)),
        }
    }
}

fn check_entry(entry: &BranchEntryBytes, at: u64) -> Result<ChangeId, FormatError> {
    check_max(at, "branch entry revision", REVISION_MAX, entry.main.get())?;
    check_max(
        at,
        "branch entry position",
        STORE_BYTES_MAX,
        entry.position.get(),
    )?;
    check(at, "branch entry alignment", 0, entry.position.get() % 8)?;
    check(at, "branch entry codec", 0, entry.codec.into())?;
    let zero = entry.reserved == [0; 3];
    check(at, "branch entry reserved bytes", 0, u64::from(!zero))?;
    if entry.records.get() == 0 {
        return Err(FormatError::new(at, "branch entry records", 1, 0));
    }
    Ok(ChangeId::new(
        Revision::new(entry.main.get()),
        entry.sub.get().into(),
    ))
}

fn leaf(entry: &BranchEntryBytes, at: u64) -> Result<LeafRun, FormatError> {
    check(at, "leaf running CRC (reserved)", 0, entry.crc.get().into())?;
    let (len, records) = (u64::from(entry.len.get()), entry.records.get());
    check_max(at, "leaf records", len / 48, records)?;
    let longest = if records == 1 {
        u64::from(FRAME_BODY_BYTES_MAX)
    } else {
        LEAF_BYTES_MAX as u64
    };
    check_max(at, "leaf bytes", longest, len)?;
    Ok(LeafRun {
        first: ChangeId::new(Revision::new(entry.main.get()), entry.sub.get().into()),
        position: Position(entry.position.get()),
        segment_use: entry.segment_use.get(),
        len: entry.len.get(),
        records: u32::try_from(records).expect("at most len / 48"),
    })
}

fn child(entry: &BranchEntryBytes) -> Child {
    Child {
        first: ChangeId::new(Revision::new(entry.main.get()), entry.sub.get().into()),
        page: PageRef {
            position: Position(entry.position.get()),
            segment_use: entry.segment_use.get(),
            body_len: entry.len.get(),
            body_crc: entry.crc.get(),
        },
        records: entry.records.get(),
    }
}

fn leaf_bytes(leaf: &LeafRun) -> BranchEntryBytes {
    BranchEntryBytes {
        main: leaf.first.main.get().into(),
        position: leaf.position.0.into(),
        segment_use: leaf.segment_use.into(),
        sub: u32::try_from(leaf.first.sub)
            .expect("sub within its limit")
            .into(),
        len: leaf.len.into(),
        records: u64::from(leaf.records).into(),
        crc: 0.into(),
        codec: 0,
        reserved: [0; 3],
    }
}

fn child_bytes(child: &Child) -> BranchEntryBytes {
    BranchEntryBytes {
        main: child.first.main.get().into(),
        position: child.page.position.0.into(),
        segment_use: child.page.segment_use.into(),
        sub: u32::try_from(child.first.sub)
            .expect("sub within its limit")
            .into(),
        len: child.page.body_len.into(),
        records: child.records.into(),
        crc: child.page.body_crc.into(),
        codec: 0,
        reserved: [0; 3],
    }
}
