//! What can be wrong with an etcd file, and where.
//!
//! One error type for all of `etcd`: an importer that refuses a file shows one sentence with the
//! numbers an operator needs to look for himself. It knows nothing of stores and of input.

use core::fmt;

/// Something in an etcd file is not as it must be.
///
/// ```
/// use revtree_format::etcd::{Damage, EtcdError};
/// let error = EtcdError { offset: 8192, what: Damage::PageId { expected: 2, found: 7 } };
/// assert_eq!(error.to_string(), "at byte 8192: page 2 says that it is page 7");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EtcdError {
    /// The byte that is wrong, counted from the start of the bytes that were parsed: the file for
    /// pages, the key or value for a record (see [`EtcdError::within`]).
    pub offset: u64,
    /// What is wrong there.
    pub what: Damage,
}

impl EtcdError {
    /// An error at `offset`.
    pub(super) const fn new(offset: u64, what: Damage) -> EtcdError {
        EtcdError { offset, what }
    }

    /// The same error for bytes that begin at `base`: turns an offset in a value into one in the
    /// file.
    #[must_use]
    pub const fn within(self, base: u64) -> EtcdError {
        EtcdError {
            offset: self.offset.saturating_add(base),
            what: self.what,
        }
    }
}

/// The kinds of damage, each with its numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Damage {
    /// Fewer bytes than a structure needs, or than were asked for.
    Short {
        /// Bytes needed.
        wanted: u64,
        /// Bytes there.
        found: u64,
    },
    /// The file's length is that of no database, with or without a trailing hash.
    SnapshotSize {
        /// The length.
        bytes: u64,
    },
    /// Neither meta page is valid.
    NoMeta,
    /// A meta page begins with another magic number.
    MetaMagic {
        /// The number there.
        found: u32,
    },
    /// A meta page of another version.
    MetaVersion {
        /// The version there.
        found: u32,
    },
    /// A meta page whose checksum does not fit its fields.
    MetaChecksum {
        /// The checksum of the fields.
        expected: u64,
        /// The checksum there.
        found: u64,
    },
    /// A page size that is not a power of two from 1 KiB to 16 MiB, or not where its page is.
    MetaPageSize {
        /// The size there.
        found: u32,
    },
    /// The file ends before its high-water page.
    Truncated {
        /// The length that the meta page promises.
        expected: u64,
        /// The length.
        found: u64,
    },
    /// A page with the id of another.
    PageId {
        /// The id that led here.
        expected: u64,
        /// The id there.
        found: u64,
    },
    /// A page that is neither a branch nor a leaf, or not the one that must be here.
    PageKind {
        /// The page.
        id: u64,
        /// Its flags.
        flags: u16,
    },
    /// A page, or the last of its overflow pages, that lies past the high-water mark.
    PageBeyondHighWater {
        /// The page.
        id: u64,
        /// How many overflow pages it has.
        overflow: u32,
        /// The first page that is not in use.
        high_water: u64,
    },
    /// A page that is below itself.
    PageCycle {
        /// The page.
        id: u64,
    },
    /// One bucket with more pages than the file: some page is in it twice.
    PageTwice {
        /// The page that was one too many.
        id: u64,
        /// The first page that is not in use.
        high_water: u64,
    },
    /// A tree deeper than any file can need.
    TooDeep {
        /// The page that was too deep.
        id: u64,
        /// The limit.
        depth_max: usize,
    },
    /// A branch page without children.
    EmptyBranch {
        /// The page.
        id: u64,
    },
    /// More elements than the page has room for.
    ElementTable {
        /// The number of elements.
        count: u16,
        /// The page's length.
        page_bytes: u64,
    },
    /// An element whose key or value lies outside its page, or inside the element table.
    ElementBounds {
        /// The element.
        index: u16,
        /// Where its bytes begin in the page.
        start: u64,
        /// Where they end.
        end: u64,
        /// The page's length.
        page_bytes: u64,
    },
    /// Elements that add up to more bytes than their page: some share bytes.
    ElementsOverlap {
        /// The sum of their lengths.
        total: u64,
        /// The page's length.
        page_bytes: u64,
    },
    /// A leaf element that is neither a pair nor a bucket.
    ElementFlags {
        /// The element.
        index: u16,
        /// Its flags.
        flags: u32,
    },
    /// A key that is not above the one before it.
    KeyOrder {
        /// The element.
        index: u16,
    },
    /// A key outside the range that the parent page gives to its page.
    KeyRange {
        /// The element.
        index: u16,
    },
    /// A plain pair where only buckets may be.
    NotABucket,
    /// A bucket inside one of etcd's buckets, where only pairs may be.
    NestedBucket,
    /// More top-level buckets than any etcd has.
    TooManyBuckets {
        /// The limit.
        buckets_max: usize,
    },
    /// A revision key that is neither 17 nor 18 bytes long.
    RevisionKeyLength {
        /// Its length.
        bytes: u64,
    },
    /// A revision key without `_` between its numbers, or without `t` at the end of 18 bytes.
    RevisionKeyMark {
        /// The byte that must be there.
        expected: u8,
        /// The byte there.
        found: u8,
    },
    /// A negative revision.
    RevisionNegative {
        /// The number.
        found: i64,
    },
    /// A number that must have eight bytes and has not.
    NumberLength {
        /// Its length.
        bytes: u64,
    },
    /// A lease key for another lease than the record's.
    LeaseId {
        /// The id in the key.
        expected: i64,
        /// The id in the record.
        found: i64,
    },
    /// A variable-length number that does not end in time, or is larger than 64 bits.
    Varint,
    /// A field number that protocol buffers do not have.
    FieldNumber {
        /// The number.
        found: u64,
    },
    /// A field in another encoding than it must have.
    WireType {
        /// The field.
        field: u32,
        /// The encoding there.
        wire: u8,
    },
    /// A field that is longer than what is left of its message.
    FieldLength {
        /// The field.
        field: u32,
        /// Its length.
        wanted: u64,
        /// The bytes left.
        left: u64,
    },
    /// A counter below zero.
    FieldNegative {
        /// The field.
        field: u32,
        /// Its value.
        found: i64,
    },
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.what)
    }
}

impl core::error::Error for EtcdError {}

impl fmt::Display for Damage {
    /// One arm for each kind, in the order above; without a catch-all, so that none is forgotten.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Damage::Short { wanted, found } => {
                write!(f, "{wanted} bytes are needed and {found} are there")
            }
            Damage::SnapshotSize { bytes } => write!(
                f,
                "a file of {bytes} bytes is no etcd snapshot: it must be whole blocks of 512, \
                 with or without 32 bytes of hash"
            ),
            Damage::NoMeta => write!(f, "neither meta page is valid"),
            Damage::MetaMagic { found } => {
                write!(f, "the meta page has magic number {found:#010x}")
            }
            Damage::MetaVersion { found } => write!(f, "the meta page has version {found}, not 2"),
            Damage::MetaChecksum { expected, found } => {
                write!(
                    f,
                    "the meta page has checksum {found:#018x}, not {expected:#018x}"
                )
            }
            Damage::MetaPageSize { found } => write!(f, "the meta page has page size {found}"),
            Damage::Truncated { expected, found } => {
                write!(f, "the file must have {expected} bytes and has {found}")
            }
            Damage::PageId { expected, found } => {
                write!(f, "page {expected} says that it is page {found}")
            }
            Damage::PageKind { id, flags } => {
                write!(f, "page {id} has flags {flags:#06x}, which cannot be here")
            }
            Damage::PageBeyondHighWater {
                id,
                overflow,
                high_water,
            } => {
                write!(
                    f,
                    "page {id} with {overflow} more passes the high-water page {high_water}"
                )
            }
            Damage::PageCycle { id } => write!(f, "page {id} is below itself"),
            Damage::PageTwice { id, high_water } => {
                write!(
                    f,
                    "page {id} makes more pages than the {high_water} of the file"
                )
            }
            Damage::TooDeep { id, depth_max } => {
                write!(f, "page {id} is deeper than {depth_max} levels")
            }
            Damage::EmptyBranch { id } => write!(f, "branch page {id} has no children"),
            Damage::ElementTable { count, page_bytes } => {
                write!(
                    f,
                    "{count} elements do not fit into a page of {page_bytes} bytes"
                )
            }
            Damage::ElementBounds {
                index,
                start,
                end,
                page_bytes,
            } => write!(
                f,
                "element {index} is at {start} to {end}, which is no place in a page of \
                 {page_bytes} bytes"
            ),
            Damage::ElementsOverlap { total, page_bytes } => {
                write!(
                    f,
                    "elements of {total} bytes overlap in a page of {page_bytes} bytes"
                )
            }
            Damage::ElementFlags { index, flags } => {
                write!(f, "element {index} has flags {flags:#x}")
            }
            Damage::KeyOrder { index } => {
                write!(
                    f,
                    "the key of element {index} is not above the one before it"
                )
            }
            Damage::KeyRange { index } => {
                write!(
                    f,
                    "the key of element {index} is outside the range of its page"
                )
            }
            Damage::NotABucket => write!(f, "a plain pair is among the buckets"),
            Damage::NestedBucket => write!(f, "a bucket is among the pairs of a bucket"),
            Damage::TooManyBuckets { buckets_max } => write!(f, "more than {buckets_max} buckets"),
            Damage::RevisionKeyLength { bytes } => {
                write!(f, "a revision key has {bytes} bytes, not 17 or 18")
            }
            Damage::RevisionKeyMark { expected, found } => {
                write!(
                    f,
                    "a revision key has byte {found:#04x} where {expected:#04x} must be"
                )
            }
            Damage::RevisionNegative { found } => write!(f, "revision {found} is negative"),
            Damage::NumberLength { bytes } => write!(f, "a number has {bytes} bytes, not 8"),
            Damage::LeaseId { expected, found } => {
                write!(f, "the record of lease {expected} is that of lease {found}")
            }
            Damage::Varint => write!(f, "a variable-length number has no end within 64 bits"),
            Damage::FieldNumber { found } => write!(f, "{found} is no field number"),
            Damage::WireType { field, wire } => {
                write!(
                    f,
                    "field {field} has wire type {wire}, which it cannot have"
                )
            }
            Damage::FieldLength {
                field,
                wanted,
                left,
            } => {
                write!(f, "field {field} has {wanted} bytes where {left} are left")
            }
            Damage::FieldNegative { field, found } => {
                write!(f, "field {field} is {found}, below zero")
            }
        }
    }
}
