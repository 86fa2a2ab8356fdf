//! Encodings of revision keys, records and leases: what is accepted, what is refused, and where.

use revtree_format::etcd::{
    Damage, EtcdError, KeyValue, Lease, MetaBucket, RevisionKey, parse_lease_key, parse_number,
};
use revtree_format::{ChangeId, LeaseId, Revision};
use revtree_test_bbolt::{Tombstones, VECTOR_A_LEASE, key_value, revision_key, vector_a};

use crate::support::Numbers;

fn at(offset: u64, what: Damage) -> EtcdError {
    EtcdError { offset, what }
}

/// Goal: the golden history encodes to the bytes that a real etcd kept.
#[test]
fn vector_a_has_its_bytes() {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let mut history = vector_a();
    history.compact(8, Tombstones::Drop);
    let contents = history.contents();
    let kept: Vec<_> = contents
        .pairs("key")
        .map(|(key, _)| {
            let key = RevisionKey::parse(key).expect("a revision key");
            format!("{}{}", key.change, if key.is_tombstone { "t" } else { "" })
        })
        .collect();
    assert_eq!(
        kept,
        [
            "4.0", "6.0", "8.0", "9.0t", "9.1t", "9.2", "10.0", "11.0t", "12.0"
        ]
    );
    let record = |main, sub, is_tombstone| {
        let change = ChangeId::new(Revision::new(main), sub);
        let key = RevisionKey {
            change,
            is_tombstone,
        }
        .encode();
        let mut pairs = contents.pairs("key");
        let (_, value) = pairs.find(|(raw, _)| *raw == key.as_ref()).expect("kept");
        let again = KeyValue::decode(value).expect("a record").to_vec();
        (hex(key.as_ref()), hex(&again))
    };
    assert_eq!(record(6, 0, false).1, "0a01641006180620012a0178");
    assert_eq!(record(8, 0, false).1, "0a0300016b1008180820012a0362696e");
    let (key, value) = record(9, 1, true);
    assert_eq!(
        (&*key, &*value),
        ("00000000000000095f000000000000000174", "0a0164")
    );
    let (key, value) = contents.pairs("lease").next().expect("a lease");
    assert_eq!(
        (hex(key), hex(value)),
        ("000006e6afd3226b".into(), "08ebc4ccfeeadc0110a08d06".into())
    );
    let lease = Lease::parse(key, value).expect("a lease");
    assert_eq!(
        lease,
        Lease {
            id: LeaseId(VECTOR_A_LEASE),
            ttl_s: 100_000,
            remaining_s: 0
        }
    );
    assert_eq!(lease.to_vec(), value);
}

/// Goal: our encoding equals an independent one at the edges of every field.
#[test]
fn edges_encode_like_the_independent_encoder() {
    let numbers = [
        0,
        1,
        127,
        128,
        16_383,
        16_384,
        u64::from(u32::MAX),
        i64::MAX.cast_unsigned(),
    ];
    let leases = [0, 1, -1, i64::MAX, i64::MIN];
    let bytes: [&[u8]; 4] = [b"", b"\0", &[0xff; 127], &[7; 128]];
    for number in numbers {
        for lease in leases {
            for (key, value) in bytes
                .iter()
                .flat_map(|key| bytes.map(|value| (*key, value)))
            {
                let revision = Revision::new(number);
                let lease = LeaseId(lease);
                let kv = KeyValue {
                    key,
                    create: revision,
                    modified: revision,
                    version: number,
                    value,
                    lease,
                };
                let expected = key_value(key, number, number, number, value, lease.0);
                assert_eq!(kv.to_vec(), expected);
                assert_eq!(kv.encoded_len(), expected.len());
                assert_eq!(KeyValue::decode(&expected), Ok(kv));
            }
        }
        for is_tombstone in [false, true] {
            let key = RevisionKey {
                change: ChangeId::new(Revision::new(number), number),
                is_tombstone,
            };
            assert_eq!(
                key.encode().as_ref(),
                revision_key(number, number, is_tombstone)
            );
            assert_eq!(RevisionKey::parse(key.encode().as_ref()), Ok(key));
        }
    }
    let largest = Lease {
        id: LeaseId(-1),
        ttl_s: i64::MIN,
        remaining_s: -2,
    };
    assert_eq!(
        largest.to_vec().len(),
        33,
        "a negative number takes ten bytes"
    );
    assert_eq!(Lease::decode(&largest.to_vec()), Ok(largest));
}

/// Goal: key and value are fed from where they lie, not from copies.
#[test]
fn encoding_feeds_the_callers_bytes() {
    let (key, value) = (vec![1u8; 100], vec![2u8; 5000]);
    let kv = KeyValue {
        key: &key,
        value: &value,
        version: 3,
        ..KeyValue::default()
    };
    let mut fed = Vec::new();
    kv.encode(|piece| fed.push((piece.as_ptr(), piece.len())));
    assert!(fed.contains(&(key.as_ptr(), 100)) && fed.contains(&(value.as_ptr(), 5000)));
}

/// Goal: a revision key that is wrong in any way is refused, with the byte.
#[test]
fn wrong_revision_keys_are_refused() {
    let good = revision_key(5, 1, true);
    for len in (0..17).chain([19, 100]) {
        let mut key = good.clone();
        key.resize(len, b't');
        let bytes = len as u64;
        assert_eq!(
            RevisionKey::parse(&key),
            Err(at(0, Damage::RevisionKeyLength { bytes }))
        );
    }
    let mut key = good.clone();
    key[8] = b'-';
    let what = Damage::RevisionKeyMark {
        expected: b'_',
        found: b'-',
    };
    assert_eq!(RevisionKey::parse(&key), Err(at(8, what)));
    let mut key = good.clone();
    key[17] = b'T';
    let what = Damage::RevisionKeyMark {
        expected: b't',
        found: b'T',
    };
    assert_eq!(RevisionKey::parse(&key), Err(at(17, what)));
    for offset in [0, 9] {
        let mut key = good.clone();
        key[offset] = 0x80;
        let error = RevisionKey::parse(&key).expect_err("negative");
        assert_eq!(error.offset, offset as u64);
        assert!(
            matches!(error.what, Damage::RevisionNegative { .. }),
            "{error}"
        );
    }
}

/// Goal: unknown fields of every encoding are skipped, and the last of a repeated field counts.
#[test]
fn unknown_fields_are_skipped() {
    let unknown: [&[u8]; 5] = [
        b"\x38\xff\x01",                         // field 7, a number
        b"\x39\x01\x02\x03\x04\x05\x06\x07\x08", // field 7, eight bytes
        b"\x3a\x02hi",                           // field 7, bytes
        b"\x3d\x01\x02\x03\x04",                 // field 7, four bytes
        b"\xfa\xff\xff\xff\x0f\x00",             // the largest field number, no bytes
    ];
    let record = key_value(b"k", 2, 3, 2, b"v", 9);
    for skipped in unknown {
        let both = [skipped, &record, skipped].concat();
        assert_eq!(KeyValue::decode(&both), KeyValue::decode(&record));
        let lease = [skipped, b"\x08\x05"].concat();
        assert_eq!(Lease::decode(&lease).map(|lease| lease.id), Ok(LeaseId(5)));
    }
    let twice = [key_value(b"old", 1, 1, 1, b"old", 1), record.clone()].concat();
    assert_eq!(KeyValue::decode(&twice), KeyValue::decode(&record));
    assert_eq!(
        KeyValue::decode(b""),
        Ok(KeyValue::default()),
        "the record of a bumped snapshot"
    );
}

/// Goal: a message that is wrong is refused, with the byte and the reason.
#[test]
fn wrong_messages_are_refused() {
    let table: [(&[u8], u64, Damage); 13] = [
        (b"\x08\x01", 0, Damage::WireType { field: 1, wire: 0 }),
        (b"\x12\x01a", 0, Damage::WireType { field: 2, wire: 2 }),
        (
            b"\x0a\x01k\x29\0\0\0\0\0\0\0\0",
            3,
            Damage::WireType { field: 5, wire: 1 },
        ),
        (b"\x0b", 0, Damage::WireType { field: 1, wire: 3 }),
        (b"\x3f", 0, Damage::WireType { field: 7, wire: 7 }),
        (b"\x02\x00", 0, Damage::FieldNumber { found: 0 }),
        (
            b"\x80\x80\x80\x80\x10",
            0,
            Damage::FieldNumber { found: 1 << 29 },
        ),
        (b"\x10", 1, Damage::Varint),
        (b"\x10\xff\xff", 1, Damage::Varint),
        (
            b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            1,
            Damage::Varint,
        ),
        (
            b"\x0a\x05four",
            2,
            Damage::FieldLength {
                field: 1,
                wanted: 5,
                left: 4,
            },
        ),
        (
            b"\x3d\x01\x02",
            1,
            Damage::FieldLength {
                field: 7,
                wanted: 4,
                left: 2,
            },
        ),
        (
            b"\x0a\x00\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            2,
            Damage::FieldNegative {
                field: 4,
                found: -1,
            },
        ),
    ];
    for (message, offset, what) in table {
        assert_eq!(
            KeyValue::decode(message),
            Err(at(offset, what)),
            "{message:02x?}"
        );
    }
}

/// Goal: a record that is cut anywhere but between two fields is refused.
#[test]
fn cut_records_are_refused() {
    let kv = key_value(b"some key", 300, 70_000, 200, &[9; 300], -5);
    let whole = KeyValue::decode(&kv).expect("a record");
    let boundaries: Vec<usize> = {
        let KeyValue {
            key,
            create,
            modified,
            version,
            value,
            ..
        } = whole;
        let mut cut = KeyValue::tombstone(key);
        let mut ends = vec![0, cut.encoded_len()];
        cut.create = create;
        ends.push(cut.encoded_len());
        cut.modified = modified;
        ends.push(cut.encoded_len());
        cut.version = version;
        ends.push(cut.encoded_len());
        cut.value = value;
        ends.push(cut.encoded_len());
        ends
    };
    for len in 0..kv.len() {
        let is_cut = KeyValue::decode(&kv[..len]).is_err();
        assert_eq!(is_cut, !boundaries.contains(&len), "at {len}");
    }
}

/// Goal: no bytes make a parser panic, and what is accepted encodes to what decodes the same.
#[test]
fn random_bytes_are_harmless() {
    let mut numbers = Numbers(0x5eed_0001);
    let mut accepted = 0;
    for _ in 0..200_000 {
        let len = numbers.below(40);
        let mut bytes = numbers.bytes(len);
        if let Some(first) = bytes.first_mut() {
            *first &= 0x3f;
        }
        let _ = RevisionKey::parse(&bytes);
        let _ = Lease::parse(&bytes, &bytes);
        if let Ok(kv) = KeyValue::decode(&bytes) {
            accepted += 1;
            assert_eq!(KeyValue::decode(&kv.to_vec()), Ok(kv));
        }
        if let Ok(lease) = Lease::decode(&bytes) {
            assert_eq!(Lease::decode(&lease.to_vec()), Ok(lease));
        }
    }
    assert!(
        accepted > 1000,
        "only {accepted} were messages: the test says little"
    );
}

/// Goal: numbers of other lengths, and leases under the key of another, are refused.
#[test]
fn wrong_numbers_are_refused() {
    for len in [0, 7, 9] {
        let what = Damage::NumberLength { bytes: len as u64 };
        assert_eq!(parse_number(&vec![0; len]), Err(at(0, what)));
        assert_eq!(parse_lease_key(&vec![0; len]), Err(at(0, what)));
        assert_eq!(
            MetaBucket::default().accept(b"term", &vec![0; len]),
            Err(at(0, what))
        );
    }
    let what = Damage::RevisionKeyLength { bytes: 8 };
    assert_eq!(
        MetaBucket::default().accept(b"finishedCompactRev", &[0; 8]),
        Err(at(0, what))
    );
    assert_eq!(MetaBucket::default().accept(b"unknown", &[0; 8]), Ok(()));
    let error = Lease::parse(&5i64.to_be_bytes(), b"\x08\x06").expect_err("another lease");
    assert_eq!(
        error,
        at(
            8,
            Damage::LeaseId {
                expected: 5,
                found: 6
            }
        )
    );
    assert_eq!(
        error.within(1000).to_string(),
        "at byte 1008: the record of lease 5 is that of lease 6"
    );
}
