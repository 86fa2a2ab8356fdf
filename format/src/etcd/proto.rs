//! Protocol buffers, as far as etcd's records use them: numbers and bytes.
//!
//! A reader of fields that skips those it does not know, and a scratch buffer that numbers are
//! written to. It knows no message.

use super::error::{Damage, EtcdError};
use super::page::wide;

/// The most bytes of a number: 64 bits, seven to a byte.
pub(super) const VARINT_BYTES_MAX: usize = 10;

/// Wire types. On the wire: never renumber.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// One field of a message.
pub(super) struct Field<'a> {
    number: u32,
    wire: u8,
    content: Content<'a>,
    /// Where the field begins in the message.
    offset: u64,
}

/// What a field holds.
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Eight or four bytes; no record of etcd has such a field.
    Fixed,
}

/// The fields of a message, in the order of its bytes.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Fields<'a> {
        Fields {
            rest: message,
            len: message.len(),
        }
    }

    /// The next field; `None` at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, EtcdError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let offset = self.offset();
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or(EtcdError::new(
                offset,
                Damage::FieldNumber { found: tag >> 3 },
            ))?;
        // Three bits always fit.
        let wire = u8::try_from(tag & 7).unwrap_or(u8::MAX);
        let content = match wire {
            VARINT => Content::Number(self.varint()?),
            BYTES => {
                let len = self.varint()?;
                Content::Bytes(self.take(number, len)?)
            }
            FIXED_64 => self.take(number, 8).map(|_| Content::Fixed)?,
            FIXED_32 => self.take(number, 4).map(|_| Content::Fixed)?,
            // Groups and what was never assigned.
            wire => {
                return Err(EtcdError::new(
                    offset,
                    Damage::WireType {
                        field: number,
                        wire,
                    },
                ));
            }
        };
        Ok(Some(Field {
            number,
            wire,
            content,
            offset,
        }))
    }

    fn offset(&self) -> u64 {
        wide(self.len.saturating_sub(self.rest.len()))
    }

    fn varint(&mut self) -> Result<u64, EtcdError> {
        let offset = self.offset();
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some((&byte, rest)) = self.rest.split_first() else {
                break;
            };
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(EtcdError::new(offset, Damage::Varint))
    }

    fn take(&mut self, field: u32, wanted: u64) -> Result<&'a [u8], EtcdError> {
        let split = usize::try_from(wanted)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len));
        let Some((bytes, rest)) = split else {
            let what = Damage::FieldLength {
                field,
                wanted,
                left: wide(self.rest.len()),
            };
            return Err(EtcdError::new(self.offset(), what));
        };
        self.rest = rest;
        Ok(bytes)
    }
}

impl<'a> Field<'a> {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The field as bytes.
    pub(super) fn bytes(&self) -> Result<&'a [u8], EtcdError> {
        match self.content {
            Content::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong_type()),
        }
    }

    /// The field as a signed number: two's complement, so a negative one takes ten bytes.
    pub(super) fn signed(&self) -> Result<i64, EtcdError> {
        match self.content {
            Content::Number(number) => Ok(number.cast_signed()),
            _ => Err(self.wrong_type()),
        }
    }

    /// The field as a counter, which etcd keeps as a signed number but never below zero.
    pub(super) fn counter(&self) -> Result<u64, EtcdError> {
        let found = self.signed()?;
        u64::try_from(found).map_err(|_| {
            let what = Damage::FieldNegative {
                field: self.number,
                found,
            };
            EtcdError::new(self.offset, what)
        })
    }

    fn wrong_type(&self) -> EtcdError {
        let what = Damage::WireType {
            field: self.number,
            wire: self.wire,
        };
        EtcdError::new(self.offset, what)
    }
}

/// A few encoded numbers on the stack.
///
/// What does not fit is dropped; the users below are sized so that everything fits, and a test of
/// the largest values would show it.
pub(super) struct Scratch<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Scratch<N> {
    pub(super) const fn new() -> Scratch<N> {
        Scratch {
            bytes: [0; N],
            len: 0,
        }
    }

    /// Adds the tag and length of a field of bytes; nothing if it is empty.
    pub(super) fn bytes_head(&mut self, number: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.push(number << 3 | BYTES);
            self.varint(wide(bytes.len()));
        }
    }

    /// Adds a field with a number; nothing if it is zero.
    pub(super) fn number(&mut self, number: u8, value: u64) {
        if value != 0 {
            self.push(number << 3 | VARINT);
            self.varint(value);
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.push(low_byte(value));
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }
}

fn low_byte(value: u64) -> u8 {
    let [byte, ..] = value.to_le_bytes();
    byte
}
