//! A record of the `lease` bucket: an id, and how long the lease lives.
//!
//! The store keeps leases for whoever runs a lessor; it does not count their time.

use super::error::{Damage, EtcdError};
use super::page::wide;
use super::proto::{Fields, Scratch, VARINT_BYTES_MAX};
use crate::LeaseId;

/// Field numbers. On disk: never renumber.
const ID: u8 = 1;
const TTL: u8 = 2;
const REMAINING: u8 = 3;

/// A lease as etcd keeps it.
///
/// ```
/// use revtree_format::{LeaseId, etcd::Lease};
/// let lease = Lease { id: LeaseId(5), ttl_s: 300, remaining_s: 0 };
/// assert_eq!(lease.to_vec(), [0x08, 5, 0x10, 0xac, 0x02]);
/// assert_eq!(Lease::decode(&lease.to_vec()), Ok(lease));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The time to live that it was granted, in seconds.
    pub ttl_s: i64,
    /// What was left of it at the last checkpoint, in seconds; 0 if there was none.
    pub remaining_s: i64,
}

impl Lease {
    /// The message in `bytes`.
    ///
    /// # Errors
    ///
    /// Bytes that are no such message. The offset counts in `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Lease, EtcdError> {
        let mut lease = Lease::default();
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match u8::try_from(field.number()) {
                Ok(ID) => lease.id = LeaseId(field.signed()?),
                Ok(TTL) => lease.ttl_s = field.signed()?,
                Ok(REMAINING) => lease.remaining_s = field.signed()?,
                _ => {}
            }
        }
        Ok(lease)
    }

    /// The lease of a pair of the `lease` bucket, whose key and message must agree.
    ///
    /// # Errors
    ///
    /// As [`Lease::decode`] and [`parse_lease_key`], and [`Damage::LeaseId`].
    pub fn parse(key: &[u8], value: &[u8]) -> Result<Lease, EtcdError> {
        let id = parse_lease_key(key)?;
        let lease = Lease::decode(value).map_err(|error| error.within(wide(key.len())))?;
        if lease.id != id {
            let what = Damage::LeaseId {
                expected: id.0,
                found: lease.id.0,
            };
            return Err(EtcdError::new(wide(key.len()), what));
        }
        Ok(lease)
    }

    /// The encoded message.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut scratch = Scratch::<{ 3 * (1 + VARINT_BYTES_MAX) }>::new();
        scratch.number(ID, self.id.0.cast_unsigned());
        scratch.number(TTL, self.ttl_s.cast_unsigned());
        scratch.number(REMAINING, self.remaining_s.cast_unsigned());
        scratch.as_slice().to_vec()
    }
}

/// The key of a lease in the `lease` bucket.
#[must_use]
pub fn lease_key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// The lease that a key of the `lease` bucket names.
///
/// # Errors
///
/// [`Damage::NumberLength`] if it has not eight bytes.
pub fn parse_lease_key(key: &[u8]) -> Result<LeaseId, EtcdError> {
    let bytes = <[u8; 8]>::try_from(key).map_err(|_| {
        EtcdError::new(
            0,
            Damage::NumberLength {
                bytes: wide(key.len()),
            },
        )
    })?;
    Ok(LeaseId(i64::from_be_bytes(bytes)))
}
