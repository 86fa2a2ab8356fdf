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
        self.crc = crc32c::crc32c_combine(self.crc, next.crc, next.len);
        self.len = self.len.wrapping_add(next.len);
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.len = self.len.wrapping_add(bytes.len());
    }
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
