//! Records: one change of one key each (SPEC.md, B-40 to B-53).
//!
//! A head of 48 bytes, optional words that the flags announce, the key, the value, zeros up to a
//! multiple of 8. Two checksums: one over the record's place, head and key, one over the value, so that
//! a hop along the versions of a key checks some 80 bytes and not the value.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{FormatError, check, check_max};
use crate::ids::{ChangeId, LeaseId, Position, Revision};
use crate::limits::{REVISION_MAX, SUB_MAX, VALUE_BYTES_MAX};
use crate::place::Place;

/// Size of the fixed part of a record's head in bytes.
pub const RECORD_HEAD_BYTES: usize = 48;
/// The longest head: all optional words, without the key.
pub const RECORD_HEAD_BYTES_MAX: usize = RECORD_HEAD_BYTES + 32 + 8 + 8 + 24;

const TOMBSTONE: u16 = 1 << 0;
const STUB: u16 = 1 << 1;
const PREV: u16 = 1 << 2;
const SUBS: u16 = 1 << 3;
const LEASE: u16 = 1 << 4;
const SKIP: u16 = 1 << 5;
const WIDE: u16 = 1 << 6;
const KNOWN: u16 = TOMBSTONE | STUB | PREV | SUBS | LEASE | SKIP | WIDE;

/// The fixed part of a record's head, in order.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct RecordHeadBytes {
    /// CRC-32 over store id, segment use, own position, the head from `main` on, the optional words but
    /// for the skip hint, and the key: a record that belongs elsewhere does not pass.
    pub head_crc: U32,
    /// CRC-32 of the value.
    pub value_crc: U32,
    /// Where the previous record of the key lay when this one was written; 0 = unknown. Outside the
    /// checksums, since it changes when records move.
    pub hint: U64,
    /// Revision.
    pub main: U64,
    /// Length of the value in bytes.
    pub value_len: U32,
    /// Length of the key in bytes.
    pub key_len: U16,
    /// Bits: tombstone, stub, prev, subs, lease, skip, wide; the rest zero.
    pub flags: U16,
    /// Puts of the key in its generation, this one included; 0 in a tombstone.
    pub version: U32,
    /// `main` − create revision; 0 in a tombstone.
    pub create_delta: U32,
    /// `main` − revision of the previous record of the key, with flag prev.
    pub prev_delta: U32,
    /// Which record of the key this is, from 1, not reset by deletes.
    pub ordinal: U32,
}

/// With flag wide: the four counters that did not fit, whose narrow fields are zero.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct RecordWideBytes {
    /// As in the head.
    pub version: U64,
    /// As in the head.
    pub create_delta: U64,
    /// As in the head.
    pub prev_delta: U64,
    /// As in the head.
    pub ordinal: U64,
}

/// With flag subs: places inside the transaction that are not 0.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct RecordSubsBytes {
    /// This record's.
    pub sub: U32,
    /// The previous record's, with flag prev.
    pub prev_sub: U32,
}

/// With flag skip: a farther record of the same key.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct RecordSkipBytes {
    /// Its revision.
    pub main: U64,
    /// Its place in the transaction.
    pub sub: U32,
    /// Zero.
    pub reserved: U32,
    /// Where it lay; outside the checksums as `hint` is.
    pub hint: U64,
}

const _: () = {
    assert!(size_of::<RecordHeadBytes>() == RECORD_HEAD_BYTES);
    assert!(size_of::<RecordWideBytes>() == 32);
    assert!(size_of::<RecordSubsBytes>() == 8);
    assert!(size_of::<RecordSkipBytes>() == 24);
};

/// Another record of the same key: its identity, and where it may lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The truth.
    pub id: ChangeId,
    /// A hint; [`Position::NONE`] = unknown.
    pub hint: Position,
}

/// What a record does to its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// A value.
    Put,
    /// The end of a generation.
    Tombstone,
    /// A head whose value was given up; reserved.
    Stub,
}

/// A record's head: everything but key and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHead {
    /// What it does.
    pub kind: RecordKind,
    /// Which change it is.
    pub id: ChangeId,
    /// First revision of the generation; 0 in a tombstone.
    pub create: Revision,
    /// Puts in the generation so far; 0 in a tombstone.
    pub version: u64,
    /// The lease of this put.
    pub lease: LeaseId,
    /// Which record of the key, from 1.
    pub ordinal: u64,
    /// The previous record of the key.
    pub prev: Option<Link>,
    /// A farther one, from the eighth record on (B-50).
    pub skip: Option<Link>,
    /// CRC-32 of the value.
    pub value_crc: u32,
    /// Length of the key.
    pub key_len: u16,
    /// Length of the value.
    pub value_len: u32,
    /// Where the key begins in the record.
    pub key_at: u16,
}

impl RecordHead {
    /// Where the value begins in the record.
    #[must_use]
    pub fn value_at(&self) -> usize {
        usize::from(self.key_at) + usize::from(self.key_len)
    }

    /// Length of the record, padding included.
    #[must_use]
    pub fn record_len(&self) -> usize {
        (self.value_at() + self.value_len as usize).next_multiple_of(8)
    }
}

/// What a writer knows of a record that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Put or tombstone.
    pub kind: RecordKind,
    /// Which change.
    pub id: ChangeId,
    /// First revision of the generation; ignored in a tombstone.
    pub create: Revision,
    /// Puts in the generation; ignored in a tombstone.
    pub version: u64,
    /// Lease.
    pub lease: LeaseId,
    /// Which record of the key.
    pub ordinal: u64,
    /// The previous record.
    pub prev: Option<Link>,
    /// A farther one.
    pub skip: Option<Link>,
    /// The key, at most [`crate::limits::KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The value, at most [`VALUE_BYTES_MAX`] bytes; empty in a tombstone.
    pub value: &'a [u8],
}

impl<'a> NewRecord<'a> {
    /// The record of `head` once more, with these links.
    #[must_use]
    pub fn again(
        head: &RecordHead,
        prev: Option<Link>,
        skip: Option<Link>,
        key: &'a [u8],
        value: &'a [u8],
    ) -> NewRecord<'a> {
        NewRecord {
            kind: head.kind,
            id: head.id,
            create: head.create,
            version: head.version,
            lease: head.lease,
            ordinal: head.ordinal,
            prev,
            skip,
            key,
            value,
        }
    }
}

impl NewRecord<'_> {
    fn create_delta(&self) -> u64 {
        match self.kind {
            RecordKind::Tombstone => 0,
            _ => self.id.main.get().saturating_sub(self.create.get()),
        }
    }

    fn version(&self) -> u64 {
        if self.kind == RecordKind::Tombstone {
            0
        } else {
            self.version
        }
    }

    fn prev_delta(&self) -> u64 {
        self.prev.map_or(0, |prev| {
            self.id.main.get().saturating_sub(prev.id.main.get())
        })
    }

    fn is_wide(&self) -> bool {
        let narrow = u64::from(u32::MAX);
        self.version() > narrow
            || self.create_delta() > narrow
            || self.prev_delta() > narrow
            || self.ordinal > narrow
    }

    fn has_subs(&self) -> bool {
        self.id.sub != 0 || self.prev.is_some_and(|prev| prev.id.sub != 0)
    }

    /// Where the key will begin.
    fn key_at(&self) -> usize {
        RECORD_HEAD_BYTES
            + if self.is_wide() { 32 } else { 0 }
            + if self.has_subs() { 8 } else { 0 }
            + if self.lease != LeaseId::NONE { 8 } else { 0 }
            + if self.skip.is_some() { 24 } else { 0 }
    }

    /// Length of the record, padding included.
    #[must_use]
    pub fn record_len(&self) -> usize {
        (self.key_at() + self.key.len() + self.value.len()).next_multiple_of(8)
    }

    /// Writes the record that will lie at `place` to `out`, which is [`NewRecord::record_len`] bytes
    /// long.
    ///
    /// # Panics
    /// When `out` has another length, or a length or `sub` is beyond its limit: the writer checks
    /// limits before it encodes.
    pub fn encode(&self, out: &mut [u8], place: Place) {
        assert_eq!(out.len(), self.record_len(), "a record fills its place");
        let wide = self.is_wide();
        let narrow = |n: u64| {
            if wide {
                0
            } else {
                u32::try_from(n).expect("not wide")
            }
        };
        let mut flags = match self.kind {
            RecordKind::Put => 0,
            RecordKind::Tombstone => TOMBSTONE,
            RecordKind::Stub => STUB,
        };
        let mut head = Head {
            bytes: [0; RECORD_HEAD_BYTES_MAX],
            len: RECORD_HEAD_BYTES,
        };
        if wide {
            flags |= WIDE;
            head.push(
                RecordWideBytes {
                    version: self.version().into(),
                    create_delta: self.create_delta().into(),
                    prev_delta: self.prev_delta().into(),
                    ordinal: self.ordinal.into(),
                }
                .as_bytes(),
            );
        }
        if self.has_subs() {
            flags |= SUBS;
            let prev_sub = self.prev.map_or(0, |prev| prev.id.sub);
            head.push(
                RecordSubsBytes {
                    sub: u32::try_from(self.id.sub)
                        .expect("sub within its limit")
                        .into(),
                    prev_sub: u32::try_from(prev_sub)
                        .expect("sub within its limit")
                        .into(),
                }
                .as_bytes(),
            );
        }
        if self.lease != LeaseId::NONE {
            flags |= LEASE;
            head.push(I64::from(self.lease.0).as_bytes());
        }
        if let Some(skip) = self.skip {
            flags |= SKIP;
            head.push(
                RecordSkipBytes {
                    main: skip.id.main.get().into(),
                    sub: u32::try_from(skip.id.sub)
                        .expect("sub within its limit")
                        .into(),
                    reserved: 0.into(),
                    hint: skip.hint.0.into(),
                }
                .as_bytes(),
            );
        }
        if self.prev.is_some() {
            flags |= PREV;
        }
        let fixed = RecordHeadBytes {
            head_crc: 0.into(),
            value_crc: crc32fast::hash(self.value).into(),
            hint: self.prev.map_or(0, |prev| prev.hint.0).into(),
            main: self.id.main.get().into(),
            value_len: u32::try_from(self.value.len())
                .expect("value within its limit")
                .into(),
            key_len: u16::try_from(self.key.len())
                .expect("key within its limit")
                .into(),
            flags: flags.into(),
            version: narrow(self.version()).into(),
            create_delta: narrow(self.create_delta()).into(),
            prev_delta: narrow(self.prev_delta()).into(),
            ordinal: narrow(self.ordinal).into(),
        };
        head.set_fixed(fixed.as_bytes());
        let (head_out, rest) = out.split_at_mut(head.len);
        let (key_out, rest) = rest.split_at_mut(self.key.len());
        let (value_out, padding) = rest.split_at_mut(self.value.len());
        head_out.copy_from_slice(head.as_slice());
        key_out.copy_from_slice(self.key);
        value_out.copy_from_slice(self.value);
        padding.fill(0);
        let crc = head_crc(place, head.as_slice(), self.skip.is_some(), self.key);
        if let Some(field) = out.first_chunk_mut::<4>() {
            *field = crc.to_le_bytes();
        }
    }
}

/// A head under construction.
struct Head {
    bytes: [u8; RECORD_HEAD_BYTES_MAX],
    len: usize,
}

impl Head {
    fn push(&mut self, word: &[u8]) {
        let end = self.len + word.len();
        self.bytes
            .get_mut(self.len..end)
            .expect("the longest head has room for every word")
            .copy_from_slice(word);
        self.len = end;
    }

    fn set_fixed(&mut self, fixed: &[u8]) {
        self.bytes
            .get_mut(..RECORD_HEAD_BYTES)
            .expect("the array is longer")
            .copy_from_slice(fixed);
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes
            .get(..self.len)
            .expect("len stays within the array")
    }
}

/// CRC-32 of the place, of the head from `main` on, without the skip hint, and of the key.
fn head_crc(place: Place, head: &[u8], has_skip: bool, key: &[u8]) -> u32 {
    let end = if has_skip {
        head.len().saturating_sub(8)
    } else {
        head.len()
    };
    let mut hasher = place.hasher();
    hasher.update(head.get(16..end).unwrap_or_default());
    hasher.update(key);
    hasher.finalize()
}

/// How many bytes a reader must have before it knows the length of head and key: the fixed part says
/// it. `raw` begins at the record.
///
/// # Errors
/// A [`FormatError`] when the fixed part is cut off or has unknown flags.
pub fn head_and_key_len(raw: &[u8], position: Position) -> Result<usize, FormatError> {
    let fixed = fixed_part(raw, position)?;
    let flags = checked_flags(fixed, position)?;
    Ok(optional_words(flags) + RECORD_HEAD_BYTES + usize::from(fixed.key_len.get()))
}

fn fixed_part(raw: &[u8], position: Position) -> Result<&RecordHeadBytes, FormatError> {
    match RecordHeadBytes::ref_from_prefix(raw) {
        Ok((fixed, _)) => Ok(fixed),
        Err(_) => {
            let expected = RECORD_HEAD_BYTES as u64;
            Err(FormatError::new(
                position.0,
                "record head",
                expected,
                raw.len() as u64,
            ))
        }
    }
}

fn checked_flags(fixed: &RecordHeadBytes, position: Position) -> Result<u16, FormatError> {
    let flags = fixed.flags.get();
    check(
        position.0,
        "record flags",
        (flags & KNOWN).into(),
        flags.into(),
    )?;
    Ok(flags)
}

fn optional_words(flags: u16) -> usize {
    usize::from(flags & WIDE != 0) * 32
        + usize::from(flags & SUBS != 0) * 8
        + usize::from(flags & LEASE != 0) * 8
        + usize::from(flags & SKIP != 0) * 24
}

/// Reads and checks the head and the key of the record whose bytes begin at `place`; the value is not
/// looked at. Gives the head and the key.
///
/// # Errors
/// A [`FormatError`] at the record's position when a bound, the checksum or a field does not hold.
pub fn parse_record(raw: &[u8], place: Place) -> Result<(RecordHead, &[u8]), FormatError> {
    let position = place.position;
    let fixed = fixed_part(raw, position)?;
    let flags = checked_flags(fixed, position)?;
    let key_at = RECORD_HEAD_BYTES + optional_words(flags);
    let key_end = key_at + usize::from(fixed.key_len.get());
    let (Some(head), Some(key)) = (raw.get(..key_at), raw.get(key_at..key_end)) else {
        let found = raw.len() as u64;
        return Err(FormatError::new(
            position.0,
            "record key",
            key_end as u64,
            found,
        ));
    };
    let crc = head_crc(place, head, flags & SKIP != 0, key);
    check(
        position.0,
        "record head CRC",
        crc.into(),
        fixed.head_crc.get().into(),
    )?;
    let head = decode_head(fixed, flags, head, position)?;
    Ok((head, key))
}

/// The fields of a head whose checksum holds.
fn decode_head(
    fixed: &RecordHeadBytes,
    flags: u16,
    head: &[u8],
    position: Position,
) -> Result<RecordHead, FormatError> {
    let at = position.0;
    let main = fixed.main.get();
    check_max(at, "record revision", REVISION_MAX, main)?;
    let mut words = head.get(RECORD_HEAD_BYTES..).unwrap_or_default();
    let mut counters = (
        u64::from(fixed.version.get()),
        u64::from(fixed.create_delta.get()),
        u64::from(fixed.prev_delta.get()),
        u64::from(fixed.ordinal.get()),
    );
    if flags & WIDE != 0 {
        let wide: &RecordWideBytes = take(&mut words, at)?;
        check(
            at,
            "record narrow fields",
            0,
            counters.0 | counters.1 | counters.2 | counters.3,
        )?;
        counters = (
            wide.version.get(),
            wide.create_delta.get(),
            wide.prev_delta.get(),
            wide.ordinal.get(),
        );
    }
    let (version, create_delta, prev_delta, ordinal) = counters;
    let (mut sub, mut prev_sub) = (0, 0);
    if flags & SUBS != 0 {
        let subs: &RecordSubsBytes = take(&mut words, at)?;
        (sub, prev_sub) = (subs.sub.get().into(), subs.prev_sub.get().into());
    }
    let mut lease = LeaseId::NONE;
    if flags & LEASE != 0 {
        let word: &I64 = take(&mut words, at)?;
        lease = LeaseId(word.get());
    }
    let mut skip = None;
    if flags & SKIP != 0 {
        let word: &RecordSkipBytes = take(&mut words, at)?;
        check(at, "record skip reserved", 0, word.reserved.get().into())?;
        check_max(at, "record skip revision", main, word.main.get())?;
        let id = ChangeId::new(Revision::new(word.main.get()), word.sub.get().into());
        skip = Some(Link {
            id,
            hint: Position(word.hint.get()),
        });
    }
    check_max(at, "record create revision", main, create_delta)?;
    check_max(at, "record previous revision", main, prev_delta)?;
    let kind = match flags & (TOMBSTONE | STUB) {
        0 => RecordKind::Put,
        TOMBSTONE => RecordKind::Tombstone,
        STUB => RecordKind::Stub,
        both => return Err(FormatError::new(at, "record kind", 1, both.into())),
    };
    let value_len = fixed.value_len.get();
    let value_max = if kind == RecordKind::Put {
        VALUE_BYTES_MAX as u64
    } else {
        0
    };
    check_max(at, "record value length", value_max, value_len.into())?;
    check_max(at, "record sub", SUB_MAX, sub)?;
    if kind == RecordKind::Tombstone {
        check(at, "tombstone version", 0, version)?;
        check(at, "tombstone create revision", 0, create_delta)?;
        check(at, "tombstone lease", 0, u64::from(lease != LeaseId::NONE))?;
    } else if version == 0 {
        return Err(FormatError::new(at, "record version", 1, 0));
    }
    if ordinal == 0 {
        return Err(FormatError::new(at, "record ordinal", 1, 0));
    }
    let id = ChangeId::new(Revision::new(main), sub);
    let prev = (flags & PREV != 0).then(|| Link {
        id: ChangeId::new(Revision::new(main - prev_delta), prev_sub),
        hint: Position(fixed.hint.get()),
    });
    if let Some(prev) = prev
        && prev.id >= id
    {
        let expected = id.main.get();
        return Err(FormatError::new(
            at,
            "record order",
            expected,
            prev.id.main.get(),
        ));
    }
    // A walk along the versions of a key ends because both links lead down.
    if let Some(skip) = skip
        && skip.id >= id
    {
        let found = skip.id.main.get();
        return Err(FormatError::new(at, "record skip order", main, found));
    }
    let create = match kind {
        RecordKind::Tombstone => 0,
        _ => main - create_delta,
    };
    let key_at = u16::try_from(head.len()).expect("at most 120");
    Ok(RecordHead {
        kind,
        id,
        create: Revision::new(create),
        version,
        lease,
        ordinal,
        prev,
        skip,
        value_crc: fixed.value_crc.get(),
        key_len: fixed.key_len.get(),
        value_len,
        key_at,
    })
}

fn take<'a, T: FromBytes + KnownLayout + Immutable + Unaligned>(
    words: &mut &'a [u8],
    at: u64,
) -> Result<&'a T, FormatError> {
    match T::ref_from_prefix(words) {
        Ok((word, rest)) => {
            *words = rest;
            Ok(word)
        }
        Err(_) => Err(FormatError::new(
            at,
            "record head",
            size_of::<T>() as u64,
            words.len() as u64,
        )),
    }
}

/// Checks a value against its record's head.
///
/// # Errors
/// A [`FormatError`] at the record's position.
pub fn check_value(head: &RecordHead, value: &[u8], position: Position) -> Result<(), FormatError> {
    let found = crc32fast::hash(value);
    check(
        position.0,
        "record value CRC",
        head.value_crc.into(),
        found.into(),
    )
}

/// Writes new hints into an encoded record: they are outside its checksums (B-46).
pub fn set_hints(record: &mut [u8], head: &RecordHead, prev: Position, skip: Position) {
    if head.prev.is_some()
        && let Some(field) = record.get_mut(8..16)
    {
        field.copy_from_slice(&prev.0.to_le_bytes());
    }
    let key_at = usize::from(head.key_at);
    if head.skip.is_some()
        && let Some(field) = record.get_mut(key_at - 8..key_at)
    {
        field.copy_from_slice(&skip.0.to_le_bytes());
    }
}

/// The jump of the skew-binary stack (B-50): to which element `k ≥ 1` of the stack's first elements
/// points; 0 is the empty stack. It follows from `k` alone.
///
/// ```
/// use revtree_format::skip_jump;
/// assert_eq!([1, 2, 3, 4, 5, 6, 7].map(skip_jump), [0, 1, 0, 3, 4, 3, 0]);
/// ```
#[must_use]
pub fn skip_jump(k: u64) -> u64 {
    // k is a sum of skew-binary digits 2^i − 1, greatest first, where only the last may come twice.
    // Dropping the last digit is the jump.
    let mut rest = k;
    let mut jump = 0;
    while rest > 0 {
        let bits = 64 - rest.leading_zeros();
        let full = if bits == 64 {
            u64::MAX
        } else {
            (1 << bits) - 1
        };
        let digit = if rest == full { full } else { full >> 1 };
        rest -= digit;
        if rest > 0 {
            jump += digit;
        }
    }
    jump
}
