//! `HashKV`: the checksum by which members of an etcd cluster compare their histories.
//!
//! Only the arithmetic: CRC-32C over the bucket's name, then each record's two encodings, in
//! order. Which records count is decided by who feeds them. Parts can be computed apart, by
//! several threads, and joined in order.

use super::record::{KeyValue, RevisionKey};
use super::schema::bucket;

/// The checksum of some consecutive records, to be joined with others. It counts its bytes in a
/// `usize`: on 32-bit machines a part that is joined must stay below 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HashKvPart {
    crc: u32,
    len: usize,
}

/// The checksum from the start.
///
/// ```
/// use revtree_format::etcd::{HashKv, HashKvPart};
/// assert_eq!(HashKv::new().finish(), 1_084_519_789, "an empty store");
///
/// let (mut one, mut two, mut whole) = (HashKvPart::new(), HashKvPart::new(), HashKv::new());
/// one.pair(b"revision 2", b"first");
/// two.pair(b"revision 3", b"second");
/// whole.pair(b"revision 2", b"first");
/// whole.pair(b"revision 3", b"second");
/// let mut joined = HashKv::new();
/// joined.join(&one);
/// joined.join(&two);
/// assert_eq!(joined.finish(), whole.finish());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashKv {
    all: HashKvPart,
}

impl HashKvPart {
    /// No records.
    #[must_use]
    pub const fn new() -> HashKvPart {
        HashKvPart { crc: 0, len: 0 }
    }

    /// Feeds a record that is encoded already.
    pub fn pair(&mut self, revision_key: &[u8], value: &[u8]) {
        self.feed(revision_key);
        self.feed(value);
    }

    /// Feeds a record, encoding it on the way; key and value are read where they lie.
    pub fn record(&mut self, revision_key: RevisionKey, kv: &KeyValue<'_>) {
        self.feed(revision_key.encode().as_ref());
        kv.encode(|piece| self.feed(piece));
    }

    /// Appends the records of `next`, which follow these.
    pub fn join(&mut self, next: &HashKvPart) {
        self.crc = joined(self.crc, next.crc, next.len);
        self.len = self.len.wrapping_add(next.len);
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.len = self.len.wrapping_add(bytes.len());
    }
}

/// Feeds a [`HashKvPart`] record by record, in pieces of many records: a CRC of a short piece ends with
/// a wait for its last byte, and one over 24 KiB runs three at a time.
#[derive(Clone, Debug)]
pub struct HashKvFeeder {
    part: HashKvPart,
    /// Encoded records that have not been fed yet.
    pending: Vec<u8>,
}

/// Fed at once; also the length from which a value is fed where it lies instead of being copied.
const PIECE_BYTES: usize = 24 << 10;

impl HashKvFeeder {
    /// A feeder of a part of no records.
    #[must_use]
    pub fn new() -> HashKvFeeder {
        HashKvFeeder {
            part: HashKvPart::new(),
            pending: Vec::with_capacity(2 * PIECE_BYTES),
        }
    }

    /// Feeds a record, encoding it on the way.
    pub fn record(&mut self, revision_key: RevisionKey, kv: &KeyValue<'_>) {
        self.pending
            .extend_from_slice(revision_key.encode().as_ref());
        kv.encode(|piece| {
            if piece.len() >= PIECE_BYTES {
                self.part.feed(&self.pending);
                self.pending.clear();
                self.part.feed(piece);
            } else {
                self.pending.extend_from_slice(piece);
            }
        });
        if self.pending.len() >= PIECE_BYTES {
            self.part.feed(&self.pending);
            self.pending.clear();
        }
    }

    /// The part of all records fed.
    #[must_use]
    pub fn finish(mut self) -> HashKvPart {
        self.part.feed(&self.pending);
        self.part
    }
}

impl Default for HashKvFeeder {
    fn default() -> HashKvFeeder {
        HashKvFeeder::new()
    }
}

/// The polynomial of CRC-32C without its highest term; the highest bit is the coefficient of 1.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The product of two polynomials modulo [`POLYNOMIAL`].
fn product(a: u32, mut b: u32) -> u32 {
    let mut sum = 0;
    let mut term = 1 << 31;
    while term != 0 {
        if a & term != 0 {
            sum ^= b;
        }
        // Times x.
        b = if b & 1 == 0 {
            b >> 1
        } else {
            b >> 1 ^ POLYNOMIAL
        };
        term >>= 1;
    }
    sum
}

/// The CRC-32C of bytes whose first part has `first` and whose last `len` bytes have `last`.
///
/// A CRC is linear: the first part's is moved on by `len` bytes of zeros, a product with `x^(8 len)`.
/// [`crc32c::crc32c_combine`] gives the same by matrices and takes as long as hashing 400 KiB, once for
/// each part and on one thread; this is some fifty times shorter.
fn joined(first: u32, last: u32, len: usize) -> u32 {
    // x^8, x^16, x^32, …: the length in bytes, bit by bit.
    let (mut power, mut shift, mut rest) = (1 << (31 - 8), 1 << 31, len);
    while rest > 0 {
        if rest & 1 == 1 {
            shift = product(power, shift);
        }
        power = product(power, power);
        rest >>= 1;
    }
    product(shift, first) ^ last
}

impl HashKv {
    /// The checksum of no records: that of the bucket's name.
    #[must_use]
    pub fn new() -> HashKv {
        let mut all = HashKvPart::new();
        all.feed(bucket::KEY);
        HashKv { all }
    }

    /// Feeds a record that is encoded already.
    pub fn pair(&mut self, revision_key: &[u8], value: &[u8]) {
        self.all.pair(revision_key, value);
    }

    /// Feeds a record, encoding it on the way.
    pub fn record(&mut self, revision_key: RevisionKey, kv: &KeyValue<'_>) {
        self.all.record(revision_key, kv);
    }

    /// Appends records that were computed apart.
    pub fn join(&mut self, next: &HashKvPart) {
        self.all.join(next);
    }

    /// The hash, as etcd answers it.
    #[must_use]
    pub fn finish(&self) -> u32 {
        self.all.crc
    }
}

impl Default for HashKv {
    fn default() -> HashKv {
        HashKv::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_those_of_the_library_at_any_length() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let half = |number: u64| u32::try_from(number >> 32).expect("shifted");
        // Under Miri, where the library's way takes seconds for one, few.
        let (step, each) = if cfg!(miri) { (9, 1) } else { (1, 20) };
        for bits in (0..64u32).step_by(step) {
            for _ in 0..each {
                let (first, mut last) = (half(random()), half(random()));
                let len = usize::try_from(random() >> bits).unwrap_or(usize::MAX);
                if len == 0 {
                    last = crc32c::crc32c(b"");
                }
                let expected = crc32c::crc32c_combine(first, last, len);
                assert_eq!(
                    joined(first, last, len),
                    expected,
                    "{first:#x} {last:#x} {len}"
                );
            }
        }
    }
}
