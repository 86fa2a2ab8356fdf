//! A record of the `key` bucket: the revision key and the `KeyValue` message.
//!
//! Apart because these bytes outlive the importer: `HashKV` of every member of a cluster is
//! computed over exactly them, so the encoding here must never change. It does not know which
//! records there are.

use core::fmt;

use super::error::{Damage, EtcdError};
use super::page::wide;
use super::proto::{Fields, Scratch, VARINT_BYTES_MAX};
use crate::{ChangeId, LeaseId, Revision};

/// Between the two numbers of a revision key. On disk: never change.
const SEPARATOR: u8 = b'_';
/// The end of a tombstone's revision key. On disk: never change.
const TOMBSTONE: u8 = b't';

/// A key of the `key` bucket: which change, and whether it is a tombstone.
///
/// ```
/// use revtree_format::{ChangeId, Revision, etcd::RevisionKey};
/// let key = RevisionKey { change: ChangeId::new(Revision::new(9), 1), is_tombstone: true };
/// assert_eq!(key.encode().as_ref(), b"\0\0\0\0\0\0\0\x09_\0\0\0\0\0\0\0\x01t");
/// assert_eq!(RevisionKey::parse(key.encode().as_ref()), Ok(key));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RevisionKey {
    /// The change.
    pub change: ChangeId,
    /// Whether the change deletes its key.
    pub is_tombstone: bool,
}

/// An encoded revision key: 17 bytes, 18 of a tombstone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RevisionKeyBytes {
    bytes: [u8; 18],
    is_tombstone: bool,
}

impl RevisionKey {
    /// The key in `bytes`, all of them.
    ///
    /// # Errors
    ///
    /// Another length, other marks, or a negative number. The offset counts in `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<RevisionKey, EtcdError> {
        let length = Damage::RevisionKeyLength {
            bytes: wide(bytes.len()),
        };
        let length = EtcdError::new(0, length);
        let (main, rest) = bytes.split_first_chunk::<8>().ok_or(length)?;
        let (&separator, rest) = rest.split_first().ok_or(length)?;
        let (sub, rest) = rest.split_first_chunk::<8>().ok_or(length)?;
        let is_tombstone = match *rest {
            [] => false,
            [mark] => {
                check_mark(TOMBSTONE, mark, 17)?;
                true
            }
            _ => return Err(length),
        };
        check_mark(SEPARATOR, separator, 8)?;
        let main = Revision::new(not_negative(*main, 0)?);
        let sub = not_negative(*sub, 9)?;
        Ok(RevisionKey {
            change: ChangeId::new(main, sub),
            is_tombstone,
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> RevisionKeyBytes {
        let [a, b, c, d, e, f, g, h] = self.change.main.get().to_be_bytes();
        let [i, j, k, l, m, n, o, p] = self.change.sub.to_be_bytes();
        let bytes = [
            a, b, c, d, e, f, g, h, SEPARATOR, i, j, k, l, m, n, o, p, TOMBSTONE,
        ];
        RevisionKeyBytes {
            bytes,
            is_tombstone: self.is_tombstone,
        }
    }
}

impl AsRef<[u8]> for RevisionKeyBytes {
    fn as_ref(&self) -> &[u8] {
        let [without_mark @ .., _] = &self.bytes;
        if self.is_tombstone {
            &self.bytes
        } else {
            without_mark
        }
    }
}

impl fmt::Debug for RevisionKeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// A value of the `key` bucket.
///
/// A tombstone has only its key; its revision is in the revision key alone.
///
/// ```
/// use revtree_format::{Revision, etcd::KeyValue};
/// let revision = Revision::new(6);
/// let put = KeyValue { key: b"d", create: revision, modified: revision, version: 1,
///     value: b"x", ..KeyValue::default() };
/// assert_eq!(put.to_vec(), b"\x0a\x01d\x10\x06\x18\x06\x20\x01\x2a\x01x");
/// assert_eq!(KeyValue::decode(&put.to_vec()), Ok(put));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyValue<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// The revision that began the key's generation.
    pub create: Revision,
    /// The revision of this change.
    pub modified: Revision,
    /// How many puts the generation has with this one.
    pub version: u64,
    /// The user's value.
    pub value: &'a [u8],
    /// The lease, or none.
    pub lease: LeaseId,
}

/// Field numbers. On disk: never renumber.
const KEY: u8 = 1;
const CREATE: u8 = 2;
const MODIFIED: u8 = 3;
const VERSION: u8 = 4;
const VALUE: u8 = 5;
const LEASE: u8 = 6;

impl<'a> KeyValue<'a> {
    /// A tombstone of `key`.
    #[must_use]
    pub fn tombstone(key: &'a [u8]) -> KeyValue<'a> {
        KeyValue {
            key,
            ..KeyValue::default()
        }
    }

    /// The message in `bytes`. Unknown fields are skipped, a repeated field counts the last time.
    ///
    /// # Errors
    ///
    /// Bytes that are no such message, and negative revisions or versions. The offset counts in
    /// `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<KeyValue<'a>, EtcdError> {
        let mut kv = KeyValue::default();
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match u8::try_from(field.number()) {
                Ok(KEY) => kv.key = field.bytes()?,
                Ok(CREATE) => kv.create = Revision::new(field.counter()?),
                Ok(MODIFIED) => kv.modified = Revision::new(field.counter()?),
                Ok(VERSION) => kv.version = field.counter()?,
                Ok(VALUE) => kv.value = field.bytes()?,
                Ok(LEASE) => kv.lease = LeaseId(field.signed()?),
                _ => {}
            }
        }
        Ok(kv)
    }

    /// Feeds the encoded message to `feed`, piece by piece: key and value are never copied, so a
    /// hash can read them where they lie.
    ///
    /// Fields are in ascending order and fields that are zero or empty are absent, which is what
    /// etcd writes, to the byte.
    pub fn encode(&self, mut feed: impl FnMut(&[u8])) {
        let mut head = Scratch::<{ 1 + VARINT_BYTES_MAX }>::new();
        head.bytes_head(KEY, self.key);
        let mut middle = Scratch::<{ 4 * (1 + VARINT_BYTES_MAX) }>::new();
        middle.number(CREATE, self.create.get());
        middle.number(MODIFIED, self.modified.get());
        middle.number(VERSION, self.version);
        middle.bytes_head(VALUE, self.value);
        let mut tail = Scratch::<{ 1 + VARINT_BYTES_MAX }>::new();
        tail.number(LEASE, self.lease.0.cast_unsigned());
        for piece in [
            head.as_slice(),
            self.key,
            middle.as_slice(),
            self.value,
            tail.as_slice(),
        ] {
            if !piece.is_empty() {
                feed(piece);
            }
        }
    }

    /// Bytes of the encoded message.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let mut len = 0;
        self.encode(|piece| len += piece.len());
        len
    }

    /// The encoded message.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        self.encode(|piece| bytes.extend_from_slice(piece));
        bytes
    }
}

fn check_mark(expected: u8, found: u8, offset: u64) -> Result<(), EtcdError> {
    if expected == found {
        return Ok(());
    }
    Err(EtcdError::new(
        offset,
        Damage::RevisionKeyMark { expected, found },
    ))
}

/// A number that etcd keeps signed, but never below zero.
fn not_negative(bytes: [u8; 8], offset: u64) -> Result<u64, EtcdError> {
    let found = i64::from_be_bytes(bytes);
    u64::try_from(found).map_err(|_| EtcdError::new(offset, Damage::RevisionNegative { found }))
}
