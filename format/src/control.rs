//! Control items: what a commit changes besides the keys (SPEC.md, B-60 to B-67).
//!
//! They follow the records in the body of a frame, and a chunk of the side tables is a row of them.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{FormatError, check, check_max};
use crate::ids::Revision;
use crate::limits::{
    KEY_BYTES_MAX, REVISION_MAX, TABLE_KEY_BYTES_MAX, TABLE_NAME_BYTES_MAX, TABLE_VALUE_BYTES_MAX,
};

/// Size of an item's header in bytes.
pub const CONTROL_HEADER_BYTES: usize = 8;

/// The header of an item; its payload follows, padded with zeros to a multiple of 8.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct ControlHeaderBytes {
    /// Kind of item; on disk: never renumber.
    pub kind: U16,
    /// Bit 0: critical, a reader that does not know the kind refuses the frame.
    pub flags: U16,
    /// Length of the payload without padding.
    pub len: U32,
}

/// Payload of an applied item.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct AppliedBytes {
    /// Consistent index.
    pub index: U64,
    /// Term.
    pub term: U64,
}

/// Start of the payload of a table item; name, key and value follow.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct TableItemBytes {
    /// Length of the table's name.
    pub name_len: U16,
    /// Length of the key.
    pub key_len: U16,
    /// Length of the value.
    pub value_len: U32,
}

/// Payload of a compaction; the optional key range follows, reserved.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct CompactBytes {
    /// The new compact revision.
    pub revision: I64,
    /// Length of the range's start; 0, reserved.
    pub start_len: U32,
    /// Length of the range's end; 0, reserved.
    pub end_len: U32,
}

/// Payload of a next-segment item.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct NextSegmentBytes {
    /// Use number of the segment in which the log goes on.
    pub segment_use: U64,
    /// Its index.
    pub index: U32,
    /// Its length in segments.
    pub units: U32,
}

const _: () = {
    assert!(size_of::<ControlHeaderBytes>() == CONTROL_HEADER_BYTES);
    assert!(size_of::<AppliedBytes>() == 16);
    assert!(size_of::<TableItemBytes>() == 8);
    assert!(size_of::<CompactBytes>() == 16);
    assert!(size_of::<NextSegmentBytes>() == 16);
};

const APPLIED: u16 = 1;
const TABLE_PUT: u16 = 2;
const TABLE_DELETE: u16 = 3;
const TABLE_CREATE: u16 = 4;
const COMPACT: u16 = 5;
const NEXT_SEGMENT: u16 = 6;

/// One item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control<'a> {
    /// The consistent index and term from here on.
    Applied {
        /// Index.
        index: u64,
        /// Term.
        term: u64,
    },
    /// A side table's entry is set.
    TablePut {
        /// The table.
        table: &'a str,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// A side table's entry is removed.
    TableDelete {
        /// The table.
        table: &'a str,
        /// The key.
        key: &'a [u8],
    },
    /// A side table exists from here on.
    TableCreate {
        /// The table.
        table: &'a str,
    },
    /// The compact revision from here on.
    Compact {
        /// Compact revision.
        revision: Revision,
    },
    /// The log goes on in another segment.
    NextSegment {
        /// Its index.
        index: u32,
        /// Its length in segments.
        units: u32,
        /// The number of that use.
        segment_use: u64,
    },
}

impl Control<'_> {
    /// Length of the item with header and padding.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let payload = match self {
            Control::Applied { .. } | Control::Compact { .. } | Control::NextSegment { .. } => 16,
            Control::TablePut { table, key, value } => 8 + table.len() + key.len() + value.len(),
            Control::TableDelete { table, key } => 8 + table.len() + key.len(),
            Control::TableCreate { table } => 8 + table.len(),
        };
        CONTROL_HEADER_BYTES + payload.next_multiple_of(8)
    }

    /// Appends the item to `out`.
    ///
    /// # Panics
    /// When a length is beyond its limit (L-7 to L-9): the writer checks them first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let item = |out: &mut Vec<u8>, kind: u16, payload: usize| {
            let header = ControlHeaderBytes {
                kind: kind.into(),
                flags: 1.into(),
                len: u32::try_from(payload)
                    .expect("limits keep items below 4 GiB")
                    .into(),
            };
            out.extend_from_slice(header.as_bytes());
        };
        let table_item = |out: &mut Vec<u8>, kind: u16, table: &str, key: &[u8], value: &[u8]| {
            item(out, kind, 8 + table.len() + key.len() + value.len());
            let lengths = TableItemBytes {
                name_len: u16::try_from(table.len())
                    .expect("name within its limit")
                    .into(),
                key_len: u16::try_from(key.len())
                    .expect("key within its limit")
                    .into(),
                value_len: u32::try_from(value.len())
                    .expect("value within its limit")
                    .into(),
            };
            out.extend_from_slice(lengths.as_bytes());
            out.extend_from_slice(table.as_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        };
        match *self {
            Control::Applied { index, term } => {
                item(out, APPLIED, 16);
                let payload = AppliedBytes {
                    index: index.into(),
                    term: term.into(),
                };
                out.extend_from_slice(payload.as_bytes());
            }
            Control::TablePut { table, key, value } => {
                table_item(out, TABLE_PUT, table, key, value);
            }
            Control::TableDelete { table, key } => table_item(out, TABLE_DELETE, table, key, &[]),
            Control::TableCreate { table } => table_item(out, TABLE_CREATE, table, &[], &[]),
            Control::Compact { revision } => {
                item(out, COMPACT, 16);
                let revision = i64::try_from(revision.get()).expect("revision within its limit");
                let payload = CompactBytes {
                    revision: revision.into(),
                    start_len: 0.into(),
                    end_len: 0.into(),
                };
                out.extend_from_slice(payload.as_bytes());
            }
            Control::NextSegment {
                index,
                units,
                segment_use,
            } => {
                item(out, NEXT_SEGMENT, 16);
                let payload = NextSegmentBytes {
                    segment_use: segment_use.into(),
                    index: index.into(),
                    units: units.into(),
                };
                out.extend_from_slice(payload.as_bytes());
            }
        }
        out.resize(start + self.encoded_len(), 0);
    }
}

/// Reads the items of `bytes`, which lie at `offset` of the file. An unknown item that is not critical
/// is passed over.
#[derive(Clone, Debug)]
pub struct Controls<'a> {
    bytes: &'a [u8],
    offset: u64,
}

impl<'a> Controls<'a> {
    /// The items in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8], offset: u64) -> Controls<'a> {
        Controls { bytes, offset }
    }

    fn read(&mut self) -> Result<Option<Control<'a>>, FormatError> {
        let at = self.offset;
        let left = self.bytes.len() as u64;
        let Ok((header, rest)) = ControlHeaderBytes::ref_from_prefix(self.bytes) else {
            return Err(FormatError::new(at, "control item", 8, left));
        };
        let len = header.len.get() as usize;
        let padded = len.next_multiple_of(8);
        let (Some(payload), Some(padding)) = (rest.get(..len), rest.get(len..padded)) else {
            return Err(FormatError::new(
                at,
                "control item length",
                left,
                len as u64,
            ));
        };
        let zero = padding.iter().all(|byte| *byte == 0);
        check(at, "control item padding", 0, u64::from(!zero))?;
        check_max(at, "control item flags", 1, header.flags.get().into())?;
        self.bytes = rest.get(padded..).unwrap_or_default();
        self.offset += (CONTROL_HEADER_BYTES + padded) as u64;
        let item = match header.kind.get() {
            APPLIED => {
                let applied: &AppliedBytes = exact(payload, at)?;
                Control::Applied {
                    index: applied.index.get(),
                    term: applied.term.get(),
                }
            }
            TABLE_PUT => {
                let (table, key, value) = table_item(payload, at)?;
                Control::TablePut { table, key, value }
            }
            TABLE_DELETE => {
                let (table, key, value) = table_item(payload, at)?;
                check(at, "table item value", 0, value.len() as u64)?;
                Control::TableDelete { table, key }
            }
            TABLE_CREATE => {
                let (table, key, value) = table_item(payload, at)?;
                check(
                    at,
                    "table item key and value",
                    0,
                    (key.len() + value.len()) as u64,
                )?;
                Control::TableCreate { table }
            }
            COMPACT => {
                let compact: &CompactBytes = exact(payload, at)?;
                let lengths = compact.start_len.get() | compact.end_len.get();
                check(at, "compaction range (reserved)", 0, lengths.into())?;
                let revision = u64::try_from(compact.revision.get()).unwrap_or(u64::MAX);
                check_max(at, "compact revision", REVISION_MAX, revision)?;
                Control::Compact {
                    revision: Revision::new(revision),
                }
            }
            NEXT_SEGMENT => {
                let next: &NextSegmentBytes = exact(payload, at)?;
                Control::NextSegment {
                    index: next.index.get(),
                    units: next.units.get(),
                    segment_use: next.segment_use.get(),
                }
            }
            _ if header.flags.get() == 0 => return Ok(None),
            other => {
                return Err(FormatError::new(
                    at,
                    "critical control item",
                    6,
                    other.into(),
                ));
            }
        };
        Ok(Some(item))
    }
}

impl<'a> Iterator for Controls<'a> {
    type Item = Result<Control<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.bytes.is_empty() {
            match self.read() {
                Ok(Some(item)) => return Some(Ok(item)),
                Ok(None) => {}
                Err(error) => {
                    self.bytes = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

fn exact<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    payload: &[u8],
    at: u64,
) -> Result<&T, FormatError> {
    T::ref_from_bytes(payload).map_err(|_| {
        FormatError::new(
            at,
            "control item length",
            size_of::<T>() as u64,
            payload.len() as u64,
        )
    })
}

type TableItem<'a> = (&'a str, &'a [u8], &'a [u8]);

fn table_item(payload: &[u8], at: u64) -> Result<TableItem<'_>, FormatError> {
    let Ok((lengths, rest)) = TableItemBytes::ref_from_prefix(payload) else {
        return Err(FormatError::new(at, "table item", 8, payload.len() as u64));
    };
    let name_len = usize::from(lengths.name_len.get());
    let key_len = usize::from(lengths.key_len.get());
    let value_len = lengths.value_len.get() as usize;
    check(
        at,
        "table item length",
        (name_len + key_len + value_len) as u64,
        rest.len() as u64,
    )?;
    check_max(
        at,
        "table name length",
        TABLE_NAME_BYTES_MAX as u64,
        name_len as u64,
    )?;
    check_max(
        at,
        "table key length",
        TABLE_KEY_BYTES_MAX.min(KEY_BYTES_MAX) as u64,
        key_len as u64,
    )?;
    check_max(
        at,
        "table value length",
        TABLE_VALUE_BYTES_MAX as u64,
        value_len as u64,
    )?;
    let (name, rest) = rest.split_at_checked(name_len).unwrap_or_default();
    let (key, value) = rest.split_at_checked(key_len).unwrap_or_default();
    match core::str::from_utf8(name) {
        Ok(table) if !table.is_empty() => Ok((table, key, value)),
        Ok(_) => Err(FormatError::new(at, "table name length", 1, 0)),
        Err(error) => Err(FormatError::new(
            at,
            "table name (UTF-8)",
            0,
            error.valid_up_to() as u64,
        )),
    }
}
