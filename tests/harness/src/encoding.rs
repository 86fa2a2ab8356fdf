//! etcd's bytes of one record, as the hashes read them: revision key and `KeyValue` message.
//!
//! Written from the description alone and apart from the crate's own encoder, so that the two can
//! disagree. It only writes; nothing here reads bytes.

use revtree_format::ChangeId;

use crate::oracle::change::Change;

/// Appends the revision key: main, `_`, sub, big-endian; `t` behind a tombstone's.
pub fn write_key(to: &mut Vec<u8>, id: ChangeId, tombstone: bool) {
    to.extend_from_slice(&id.main.get().to_be_bytes());
    to.push(b'_');
    to.extend_from_slice(&id.sub.to_be_bytes());
    if tombstone {
        to.push(b't');
    }
}

/// Appends the message: fields in ascending number, those with default values left out. A
/// tombstone has only its key.
pub fn write_value(to: &mut Vec<u8>, key: &[u8], change: &Change) {
    bytes_field(to, 1, key);
    if let Some(put) = &change.put {
        number_field(to, 2, put.create.get());
        number_field(to, 3, change.id.main.get());
        number_field(to, 4, put.version);
        bytes_field(to, 5, &put.value);
        number_field(to, 6, put.lease.0.cast_unsigned());
    }
}

fn bytes_field(to: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        to.push(field << 3 | 2);
        varint(to, bytes.len() as u64);
        to.extend_from_slice(bytes);
    }
}

fn number_field(to: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        to.push(field << 3);
        varint(to, number);
    }
}

/// Seven bits a byte, lowest first; a negative lease is the unsigned number of the same bits.
fn varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use revtree_format::{LeaseId, Revision};

    use super::*;
    use crate::oracle::change::Put;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The three sample records that a real etcd wrote, and a negative lease.
    #[test]
    fn samples() {
        let check = |key: &[u8], change: &Change, key_hex: &str, value_hex: &str| {
            let (mut k, mut v) = (Vec::new(), Vec::new());
            write_key(&mut k, change.id, change.put.is_none());
            write_value(&mut v, key, change);
            assert_eq!((hex(&k).as_str(), hex(&v).as_str()), (key_hex, value_hex));
        };
        let put = |main: u64, value: &'static [u8], lease: i64| Change {
            id: ChangeId::new(Revision::new(main), 0),
            put: Some(Put {
                value: Bytes::from_static(value),
                create: Revision::new(main),
                version: 1,
                lease: LeaseId(lease),
            }),
        };
        check(
            b"d",
            &put(6, b"x", 0),
            "00000000000000065f0000000000000000",
            "0a01641006180620012a0178",
        );
        check(
            &[0, 1, 0x6b],
            &put(8, b"bin", 0),
            "00000000000000085f0000000000000000",
            "0a0300016b1008180820012a0362696e",
        );
        check(
            b"d",
            &Change {
                id: ChangeId::new(Revision::new(9), 1),
                put: None,
            },
            "00000000000000095f000000000000000174",
            "0a0164",
        );
        check(
            b"",
            &put(2, b"", -1),
            "00000000000000025f0000000000000000",
            "10021802200130ffffffffffffffffff01",
        );
    }
}
