//! etcd's hashes over records: CRC-32C of names, revision keys and messages, nothing between them.
//!
//! Apart from the oracle because each is a pure function of records that the golden vectors pin.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use revtree_format::{ChangeId, Revision};

use crate::encoding::{write_key, write_value};
use crate::oracle::change::Change;

/// The name of the bucket in which etcd keeps the records.
pub const RECORDS: &str = "key";

/// A row of a side table that the whole-store hash leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IgnoreKey {
    /// The table's name.
    pub table: &'static str,
    /// The row's key.
    pub key: &'static [u8],
}

/// The rows that etcd leaves out: they differ between members that agree.
pub const DEFAULT_IGNORES: &[IgnoreKey] = &[
    IgnoreKey {
        table: "meta",
        key: b"consistent_index",
    },
    IgnoreKey {
        table: "meta",
        key: b"term",
    },
    IgnoreKey {
        table: "meta",
        key: b"storageVersion",
    },
];

/// The side tables: rows by key, by table name.
pub type Tables = BTreeMap<String, BTreeMap<Bytes, Bytes>>;

/// HashKV: the records up to `rev`, in revision order, without those that the compaction at
/// `compact` drops, which are those not in `keep`.
///
/// An empty `keep` drops nothing: etcd's quirk, and part of the value. A tombstone exactly at the
/// compact revision is never fed, since older servers had deleted it.
#[must_use]
pub fn hash_records(
    records: &[(&Bytes, &Change)],
    compact: Option<Revision>,
    rev: Revision,
    keep: &BTreeSet<ChangeId>,
) -> u32 {
    let mut hash = crc32c::crc32c(RECORDS.as_bytes());
    let mut buffer = Vec::new();
    for (key, change) in records.iter().filter(|(_, change)| change.id.main <= rev) {
        let below = compact.is_some_and(|compact| change.id.main <= compact);
        if below && !keep.is_empty() && !keep.contains(&change.id) {
            continue;
        }
        if compact == Some(change.id.main) && change.put.is_none() {
            continue;
        }
        hash = feed(hash, &mut buffer, key, change);
    }
    hash
}

/// The hash of the whole store. The exact order:
///
/// 1. The buckets are the record bucket, named `key`, always there, and every side table that was
///    made, with rows or without. They come in ascending byte order of their names.
/// 2. For each: the bytes of its name, then its rows in ascending order of their keys, each as key
///    bytes then value bytes. The rows of `key` are revision keys and messages of all records that
///    the last accepted compaction keeps, whether or not its physical work is done.
/// 3. A row named by `ignore` is left out; the name of its table is not.
///
/// Consistent index, term and compact revision are no rows of a table, so they are not fed.
#[must_use]
pub fn hash_store(records: &[(&Bytes, &Change)], tables: &Tables, ignore: &[IgnoreKey]) -> u32 {
    let mut hash = 0;
    let mut records_fed = false;
    for (name, rows) in tables {
        if !records_fed && name.as_str() > RECORDS {
            hash = feed_all(hash, records);
            records_fed = true;
        }
        hash = crc32c::crc32c_append(hash, name.as_bytes());
        for (key, value) in rows {
            if !ignore
                .iter()
                .any(|ignore| ignore.table == name && ignore.key == key)
            {
                hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value);
            }
        }
    }
    if records_fed {
        hash
    } else {
        feed_all(hash, records)
    }
}

fn feed_all(hash: u32, records: &[(&Bytes, &Change)]) -> u32 {
    let mut hash = crc32c::crc32c_append(hash, RECORDS.as_bytes());
    let mut buffer = Vec::new();
    for (key, change) in records {
        hash = feed(hash, &mut buffer, key, change);
    }
    hash
}

fn feed(hash: u32, buffer: &mut Vec<u8>, key: &[u8], change: &Change) -> u32 {
    buffer.clear();
    write_key(buffer, change.id, change.put.is_none());
    write_value(buffer, key, change);
    crc32c::crc32c_append(hash, buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the polynomial, and the hash of a store without records.
    #[test]
    fn constants() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        let empty = hash_records(&[], None, Revision::new(1), &BTreeSet::new());
        assert_eq!(empty, 1_084_519_789);
    }

    /// Tables sort around `key`, an empty table is its name, ignored rows leave their table's name.
    #[test]
    fn order_of_buckets() {
        let row = |k: &'static str, v: &'static str| {
            (
                Bytes::from_static(k.as_bytes()),
                Bytes::from_static(v.as_bytes()),
            )
        };
        let mut tables = Tables::new();
        tables.insert("meta".into(), [row("term", "9"), row("x", "y")].into());
        tables.insert("alarm".into(), [row("a", "b"), row("c", "")].into());
        tables.insert("none".into(), BTreeMap::new());
        assert_eq!(
            hash_store(&[], &tables, &[]),
            crc32c::crc32c(b"alarmabckeymetaterm9xynone")
        );
        assert_eq!(
            hash_store(&[], &tables, DEFAULT_IGNORES),
            crc32c::crc32c(b"alarmabckeymetaxynone")
        );
        assert_eq!(hash_store(&[], &Tables::new(), &[]), crc32c::crc32c(b"key"));
    }
}
