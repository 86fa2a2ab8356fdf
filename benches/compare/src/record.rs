//! The peers' records: revision keys and encoded values, 17 + 581 bytes for the bench's keys.
//!
//! The fields are those of etcd's `KeyValue`; a CRC-32C over all of them and the value stands in
//! front, since a store that checks what it reads is compared with stores that do not. The layer
//! is the only user.

use crate::Result;

/// Main revision, `_`, sub revision, both big-endian: etcd's key, so that order is revision order.
pub(crate) const REV_KEY_BYTES: usize = 17;
/// crc u32 | create u64 | mod u64 | version u32 | lease u64 | key length u16
const HEADER_BYTES: usize = 34;
const SUB_BITS: u32 = 10;

/// A revision with its place in the transaction, in one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Rev(u64);

impl Rev {
    pub(crate) const FIRST: Rev = Rev(0);
    pub(crate) const LAST: Rev = Rev(u64::MAX);

    pub(crate) fn new(main: u64, sub: u64) -> Rev {
        debug_assert!(
            sub < 1 << SUB_BITS,
            "the workloads put at most 100 keys in a transaction"
        );
        Rev(main << SUB_BITS | sub)
    }

    pub(crate) fn main(self) -> u64 {
        self.0 >> SUB_BITS
    }

    pub(crate) fn from_key(key: &[u8]) -> Result<Rev> {
        let key: &[u8; REV_KEY_BYTES] = key.try_into()?;
        let number = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().expect("8 bytes"));
        Ok(Rev::new(number(0), number(9)))
    }
}

pub(crate) fn rev_key(rev: Rev) -> [u8; REV_KEY_BYTES] {
    let mut key = [b'_'; REV_KEY_BYTES];
    key[..8].copy_from_slice(&rev.main().to_be_bytes());
    key[9..].copy_from_slice(&(rev.0 & ((1 << SUB_BITS) - 1)).to_be_bytes());
    key
}

/// Makes `record` the encoding of one put.
pub(crate) fn encode(
    record: &mut Vec<u8>,
    key: &[u8],
    value: &[u8],
    create: u64,
    modified: u64,
    version: u64,
) {
    let version = u32::try_from(version).unwrap_or(u32::MAX);
    let key_len = u16::try_from(key.len()).expect("keys of 35 bytes");
    record.clear();
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(&create.to_le_bytes());
    record.extend_from_slice(&modified.to_le_bytes());
    record.extend_from_slice(&version.to_le_bytes());
    record.extend_from_slice(&0u64.to_le_bytes());
    record.extend_from_slice(&key_len.to_le_bytes());
    record.extend_from_slice(key);
    record.extend_from_slice(value);
    let crc = crc32c::crc32c(&record[4..]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
}

/// The value of a record, after its checksum was found right.
pub(crate) fn value(record: &[u8]) -> Result<&[u8]> {
    let (crc, rest) = record
        .split_first_chunk::<4>()
        .ok_or("a record without checksum")?;
    if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
        return Err("a record's checksum does not match".into());
    }
    let key = key_and_create(record)?.0;
    Ok(&record[HEADER_BYTES + key.len()..])
}

/// The key and the create revision of a record.
pub(crate) fn key_and_create(record: &[u8]) -> Result<(&[u8], u64)> {
    let (header, rest) = record
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or("a record without header")?;
    let create = u64::from_le_bytes(header[4..12].try_into().expect("8 bytes"));
    let key_len = u16::from_le_bytes(header[32..].try_into().expect("2 bytes"));
    let key = rest
        .get(..usize::from(key_len))
        .ok_or("a record shorter than its key")?;
    Ok((key, create))
}

/// The version of a record: the writes of its key up to it.
pub(crate) fn version(record: &[u8]) -> Result<u64> {
    let version = record.get(20..24).ok_or("a record without header")?;
    Ok(u32::from_le_bytes(version.try_into().expect("4 bytes")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_what_was_put_in_and_notices_damage() {
        let mut record = Vec::new();
        encode(&mut record, b"key", b"a value", 5, 9, 3);
        assert_eq!(value(&record).unwrap(), b"a value");
        assert_eq!(key_and_create(&record).unwrap(), (&b"key"[..], 5));
        assert_eq!(version(&record).unwrap(), 3);
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 1;
            assert!(value(&damaged).is_err(), "byte {at}");
        }
        assert!(value(&record[..3]).is_err());
    }

    #[test]
    fn a_record_of_the_bench_is_598_bytes_with_its_key() {
        let mut record = Vec::new();
        encode(&mut record, &[b'k'; 35], &[0; 512], 1, 1, 1);
        assert_eq!(REV_KEY_BYTES + record.len(), 598);
    }

    #[test]
    fn revision_keys_sort_as_revisions() {
        let revs = [
            (1, 0),
            (1, 1),
            (1, 99),
            (2, 0),
            (255, 3),
            (256, 0),
            (1 << 40, 0),
        ];
        let revs = revs.map(|(main, sub)| Rev::new(main, sub));
        assert!(revs.map(rev_key).is_sorted());
        for rev in revs {
            assert_eq!(Rev::from_key(&rev_key(rev)).unwrap(), rev);
        }
    }
}
