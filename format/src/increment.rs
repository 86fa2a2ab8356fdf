//! The increment of a backup: blocks of bytes, one after the other (SPEC.md, B-100 to B-106).

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{FormatError, check, check_max};
use crate::ids::{ChangeId, LeaseId, Revision};
use crate::limits::{FRAME_BODY_BYTES_MAX, REVISION_MAX, SUB_MAX, VALUE_BYTES_MAX};
use crate::record::RecordKind;

/// Size of a block's header in bytes.
pub const INCREMENT_BLOCK_BYTES: usize = 24;
/// The first four bytes of each block.
pub const INCREMENT_MAGIC: u32 = u32::from_le_bytes(*b"RTI1");
/// The version of increments that is written, and the newest that is read.
pub const INCREMENT_VERSION: u32 = 1;

/// The header of a block; its body follows.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct IncrementBlockBytes {
    /// [`INCREMENT_MAGIC`].
    pub magic: U32,
    /// CRC-32C over the `crc` of the block before (0 in the first), the rest of this header, and the body.
    pub crc: U32,
    /// Kind of block; on disk: never renumber.
    pub kind: U32,
    /// Length of the body in bytes.
    pub len: U32,
    /// Number of the block, from 0.
    pub sequence: U64,
}

/// The body of the first block.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct IncrementHeadBytes {
    /// [`INCREMENT_VERSION`].
    pub version: U32,
    /// Checksum of what the store must hold (S-11).
    pub base_crc: U32,
    /// The id of the store.
    pub store_id: [u8; 16],
    /// The revision at which the store must stand.
    pub earlier: U64,
    /// The revision at which it stands behind it.
    pub revision: U64,
    /// The compact revision then, −1: none.
    pub compact: I64,
    /// Consistent index then.
    pub index: U64,
    /// Its term.
    pub term: U64,
}

/// A change at or below `earlier` that stays.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct IncrementKeptBytes {
    /// Revision.
    pub main: U64,
    /// Place in its transaction.
    pub sub: U32,
}

/// The start of a record; key and value follow.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct IncrementRecordBytes {
    /// Revision.
    pub main: U64,
    /// First revision of the generation; 0 in a tombstone.
    pub create: U64,
    /// Puts in the generation so far; 0 in a tombstone.
    pub version: U64,
    /// The lease.
    pub lease: I64,
    /// Place in its transaction.
    pub sub: U32,
    /// Length of the value in bytes.
    pub value_len: U32,
    /// Length of the key in bytes.
    pub key_len: U16,
    /// 1: a put, 2: a tombstone.
    pub kind: U16,
}

/// The body of the last block.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct IncrementEndBytes {
    /// Records of all blocks.
    pub records: U64,
    /// Changes that stay.
    pub kept: U64,
    /// Items of side tables.
    pub items: U64,
}

const _: () = {
    assert!(size_of::<IncrementBlockBytes>() == INCREMENT_BLOCK_BYTES);
    assert!(size_of::<IncrementHeadBytes>() == 64);
    assert!(size_of::<IncrementKeptBytes>() == 12);
    assert!(size_of::<IncrementRecordBytes>() == 44);
    assert!(size_of::<IncrementEndBytes>() == 24);
};

/// What a block holds, in the order in which they come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum IncrementKind {
    /// From where to where: one, the first.
    Head,
    /// Changes at or below the earlier revision that stay; none where no compaction lies between.
    Kept,
    /// Records above it.
    Records,
    /// Side tables, as control items.
    Tables,
    /// How many of all there were: one, the last.
    End,
}

impl IncrementKind {
    fn number(self) -> u32 {
        match self {
            IncrementKind::Head => 1,
            IncrementKind::Kept => 2,
            IncrementKind::Records => 3,
            IncrementKind::Tables => 4,
            IncrementKind::End => 5,
        }
    }

    fn of(number: u32, offset: u64) -> Result<IncrementKind, FormatError> {
        let kinds = [
            IncrementKind::Head,
            IncrementKind::Kept,
            IncrementKind::Records,
            IncrementKind::Tables,
            IncrementKind::End,
        ];
        let found = kinds.into_iter().find(|kind| kind.number() == number);
        found.ok_or(FormatError::new(
            offset,
            "increment block kind",
            kinds.len() as u64,
            number.into(),
        ))
    }
}

/// A block's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IncrementBlock {
    /// What it holds.
    pub kind: IncrementKind,
    /// Length of its body in bytes.
    pub len: u32,
    /// Its checksum, with which the next one goes on.
    pub crc: u32,
}

impl IncrementBlock {
    /// Appends a block with this body to `out`; gives its checksum. `before`: that of the block before.
    pub fn encode(
        kind: IncrementKind,
        sequence: u64,
        before: u32,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> u32 {
        let mut bytes = IncrementBlockBytes {
            magic: INCREMENT_MAGIC.into(),
            crc: 0.into(),
            kind: kind.number().into(),
            len: u32::try_from(body.len())
                .expect("a block is shorter")
                .into(),
            sequence: sequence.into(),
        };
        let crc = checksum(before, &bytes, body);
        bytes.crc = crc.into();
        out.extend_from_slice(bytes.as_bytes());
        out.extend_from_slice(body);
        crc
    }

    /// Reads the header of block `sequence`, which begins at `offset`.
    ///
    /// # Errors
    /// What of it cannot be so, also a body that is longer than any.
    pub fn parse(
        bytes: &[u8; INCREMENT_BLOCK_BYTES],
        sequence: u64,
        offset: u64,
    ) -> Result<IncrementBlock, FormatError> {
        let header = IncrementBlockBytes::read_from_bytes(bytes)
            .map_err(|_| FormatError::new(offset, "increment block", 0, 0))?;
        let magic = header.magic.get();
        check(
            offset,
            "increment magic",
            INCREMENT_MAGIC.into(),
            magic.into(),
        )?;
        check(
            offset,
            "increment block number",
            sequence,
            header.sequence.get(),
        )?;
        let len = header.len.get();
        let max = FRAME_BODY_BYTES_MAX.into();
        check_max(offset, "increment block length", max, len.into())?;
        Ok(IncrementBlock {
            kind: IncrementKind::of(header.kind.get(), offset)?,
            len,
            crc: header.crc.get(),
        })
    }

    /// Checks header and body. `before`: the checksum of the block before.
    ///
    /// # Errors
    /// They are not what was written.
    pub fn check(
        &self,
        bytes: &[u8; INCREMENT_BLOCK_BYTES],
        before: u32,
        body: &[u8],
        offset: u64,
    ) -> Result<(), FormatError> {
        let header = IncrementBlockBytes::read_from_bytes(bytes)
            .map_err(|_| FormatError::new(offset, "increment block", 0, 0))?;
        let found = checksum(before, &header, body);
        check(
            offset,
            "increment block checksum",
            self.crc.into(),
            found.into(),
        )
    }
}

fn checksum(before: u32, header: &IncrementBlockBytes, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&before.to_le_bytes());
    let rest = header.as_bytes().get(8..).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c_append(crc, rest), body)
}

/// From where to where an increment goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IncrementHead {
    /// The id of the store.
    pub store_id: [u8; 16],
    /// Checksum of what the store must hold.
    pub base_crc: u32,
    /// The revision at which the store must stand.
    pub earlier: Revision,
    /// The revision behind it.
    pub revision: Revision,
    /// The compact revision then.
    pub compact: Option<Revision>,
    /// Consistent index then.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

impl IncrementHead {
    /// The compact revision, where a compaction lies between.
    #[must_use]
    pub fn compact_between(&self) -> Option<Revision> {
        self.compact.filter(|compact| *compact > self.earlier)
    }

    /// The body of the first block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let compact = self
            .compact
            .map_or(-1, |compact| compact.get().cast_signed());
        let bytes = IncrementHeadBytes {
            version: INCREMENT_VERSION.into(),
            base_crc: self.base_crc.into(),
            store_id: self.store_id,
            earlier: self.earlier.get().into(),
            revision: self.revision.get().into(),
            compact: compact.into(),
            index: self.index.into(),
            term: self.term.into(),
        };
        bytes.as_bytes().to_vec()
    }

    /// Reads the body of the first block, which begins at `offset`.
    ///
    /// # Errors
    /// A field that cannot be so.
    pub fn parse(body: &[u8], offset: u64) -> Result<IncrementHead, FormatError> {
        let bytes = IncrementHeadBytes::read_from_bytes(body).map_err(|_| {
            let (expected, found) = (size_of::<IncrementHeadBytes>(), body.len());
            FormatError::new(
                offset,
                "increment head length",
                expected as u64,
                found as u64,
            )
        })?;
        let version = bytes.version.get().into();
        check(
            offset,
            "increment version",
            INCREMENT_VERSION.into(),
            version,
        )?;
        let (earlier, revision) = (bytes.earlier.get(), bytes.revision.get());
        check_max(offset, "increment revision", REVISION_MAX, revision)?;
        check_max(offset, "increment earlier revision", revision, earlier)?;
        let compact = match bytes.compact.get() {
            -1 => None,
            compact => Some(compact.cast_unsigned()),
        };
        check_max(
            offset,
            "increment compact revision",
            revision,
            compact.unwrap_or(0),
        )?;
        Ok(IncrementHead {
            store_id: bytes.store_id,
            base_crc: bytes.base_crc.get(),
            earlier: Revision::new(earlier),
            revision: Revision::new(revision),
            compact: compact.map(Revision::new),
            index: bytes.index.get(),
            term: bytes.term.get(),
        })
    }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IncrementRecord<'a> {
    /// Which change.
    pub id: ChangeId,
    /// A put or a tombstone.
    pub kind: RecordKind,
    /// First revision of the generation.
    pub create: Revision,
    /// Puts in it so far.
    pub version: u64,
    /// The lease.
    pub lease: LeaseId,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl<'a> IncrementRecord<'a> {
    /// Bytes that it takes in a body.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        size_of::<IncrementRecordBytes>() + self.key.len() + self.value.len()
    }

    /// Appends it to a body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = if self.kind == RecordKind::Put { 1 } else { 2 };
        let narrow = |len: usize| u32::try_from(len).expect("a value is shorter");
        let bytes = IncrementRecordBytes {
            main: self.id.main.get().into(),
            create: self.create.get().into(),
            version: self.version.into(),
            lease: self.lease.0.into(),
            sub: u32::try_from(self.id.sub).expect("within L-18").into(),
            value_len: narrow(self.value.len()).into(),
            key_len: u16::try_from(self.key.len()).expect("within L-1").into(),
            kind: kind.into(),
        };
        out.extend_from_slice(bytes.as_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
    }

    /// Takes the first record off a body, which begins at `offset`.
    ///
    /// # Errors
    /// A field that cannot be so, or a body that ends within it.
    pub fn parse(body: &mut &'a [u8], offset: u64) -> Result<IncrementRecord<'a>, FormatError> {
        let cut = |needed: usize, found: usize| {
            FormatError::new(
                offset,
                "increment record length",
                needed as u64,
                found as u64,
            )
        };
        let (bytes, rest) = IncrementRecordBytes::read_from_prefix(body)
            .map_err(|_| cut(size_of::<IncrementRecordBytes>(), body.len()))?;
        let value_len = u64::from(bytes.value_len.get());
        check_max(
            offset,
            "increment value length",
            VALUE_BYTES_MAX as u64,
            value_len,
        )?;
        let kind = match bytes.kind.get() {
            1 => RecordKind::Put,
            2 => RecordKind::Tombstone,
            other => {
                return Err(FormatError::new(
                    offset,
                    "increment record kind",
                    2,
                    other.into(),
                ));
            }
        };
        let key_len = usize::from(bytes.key_len.get());
        let needed = key_len + bytes.value_len.get() as usize;
        let (key, rest) = rest
            .split_at_checked(key_len)
            .ok_or_else(|| cut(needed, rest.len()))?;
        let (value, rest) = rest
            .split_at_checked(needed - key_len)
            .ok_or_else(|| cut(needed, rest.len() + key_len))?;
        *body = rest;
        Ok(IncrementRecord {
            id: change_id(bytes.main.get(), bytes.sub.get(), offset)?,
            kind,
            create: Revision::new(bytes.create.get()),
            version: bytes.version.get(),
            lease: LeaseId(bytes.lease.get()),
            key,
            value,
        })
    }
}

/// Appends a change that stays to a body.
pub fn encode_kept(id: ChangeId, out: &mut Vec<u8>) {
    let bytes = IncrementKeptBytes {
        main: id.main.get().into(),
        sub: u32::try_from(id.sub).expect("within L-18").into(),
    };
    out.extend_from_slice(bytes.as_bytes());
}

/// Reads a body of changes that stay, which begins at `offset`.
///
/// # Errors
/// It ends within one, or one cannot be so.
pub fn parse_kept(body: &[u8], offset: u64) -> Result<Vec<ChangeId>, FormatError> {
    let each = size_of::<IncrementKeptBytes>();
    check(
        offset,
        "increment kept length",
        0,
        (body.len() % each) as u64,
    )?;
    let changes = body.chunks_exact(each).map(|bytes| {
        let bytes = IncrementKeptBytes::read_from_bytes(bytes)
            .map_err(|_| FormatError::new(offset, "increment kept length", each as u64, 0))?;
        change_id(bytes.main.get(), bytes.sub.get(), offset)
    });
    changes.collect()
}

fn change_id(main: u64, sub: u32, offset: u64) -> Result<ChangeId, FormatError> {
    check_max(offset, "increment change revision", REVISION_MAX, main)?;
    check_max(offset, "increment change place", SUB_MAX, sub.into())?;
    Ok(ChangeId::new(Revision::new(main), sub.into()))
}

/// How much there was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IncrementEnd {
    /// Records.
    pub records: u64,
    /// Changes that stay.
    pub kept: u64,
    /// Items of side tables.
    pub items: u64,
}

impl IncrementEnd {
    /// The body of the last block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = IncrementEndBytes {
            records: self.records.into(),
            kept: self.kept.into(),
            items: self.items.into(),
        };
        bytes.as_bytes().to_vec()
    }

    /// Checks the body of the last block, which begins at `offset`, against what came.
    ///
    /// # Errors
    /// It says another number.
    pub fn check(&self, body: &[u8], offset: u64) -> Result<(), FormatError> {
        let bytes = IncrementEndBytes::read_from_bytes(body).map_err(|_| {
            let (expected, found) = (size_of::<IncrementEndBytes>(), body.len());
            FormatError::new(
                offset,
                "increment end length",
                expected as u64,
                found as u64,
            )
        })?;
        check(
            offset,
            "increment records",
            bytes.records.get(),
            self.records,
        )?;
        check(
            offset,
            "increment kept changes",
            bytes.kept.get(),
            self.kept,
        )?;
        check(offset, "increment items", bytes.items.get(), self.items)
    }
}
