//! Segment headers, frames and control items: they come back, and no damage, misplacement, cut or
//! garbage passes or panics.

#![expect(
    clippy::indexing_slicing,
    reason = "tests index what they have just made"
)]

#[path = "common/rng.rs"]
mod rng;

use revtree_format::limits::{FRAME_BODY_BYTES_MAX, STORE_BYTES_MAX, TABLE_NAME_BYTES_MAX};
use revtree_format::{
    Control, Controls, FRAME_HEADER_BYTES, FrameFlags, FrameHeader, FrameKind, Geometry, Place,
    Position, Revision, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind, StoreSeed,
};
use rng::{Rng, enough};

const STORE: [u8; 16] = *b"0123456789abcdef";
const AT: Position = Position(0x2_0040);
const USE: u64 = 3 << 32 | 9;

fn place() -> Place {
    Place {
        seed: StoreSeed::new(&STORE),
        segment_use: USE,
        position: AT,
    }
}

/// The header of a frame with this body: records, where the kind has any.
fn header(kind: FrameKind, flags: u8, body: &[u8]) -> FrameHeader {
    let holds_records = matches!(kind, FrameKind::Records | FrameKind::Run);
    let records = if holds_records { body } else { &[] };
    FrameHeader {
        kind,
        flags: FrameFlags {
            padded: flags & 1 != 0,
            continued: flags & 2 != 0,
            last_in_segment: flags & 4 != 0,
        },
        body_crc: crc32c::crc32c(body),
        prev_crc: 0xDEAD_BEEF,
        sequence: 77,
        synced_up_to: 70,
        revision: Revision::new(1234),
        body_len: u32::try_from(body.len()).expect("short"),
        records_len: u32::try_from(records.len()).expect("short"),
        record_count: u32::try_from(records.len() / 48).expect("short"),
        opens: 3,
    }
}

const KINDS: [FrameKind; 5] = [
    FrameKind::Records,
    FrameKind::Branch,
    FrameKind::Chunk,
    FrameKind::Directory,
    FrameKind::Run,
];

/// Every kind with every set of flags comes back; the numbers on disk are those of B-24 and B-25.
#[test]
fn headers_round_trip() {
    let body = Rng::new(1).bytes(96);
    for (number, kind) in (1..).zip(KINDS) {
        for flags in 0..8 {
            let made = header(kind, flags, &body);
            let (raw, crc) = made.encode(place());
            assert_eq!((raw[56], raw[57]), (number, flags));
            assert_eq!(FrameHeader::parse(&raw, place()), Ok((made, crc)));
            assert_eq!(raw[4..8], crc.to_le_bytes());
            made.check_body(&body, AT)
                .expect("the body's checksum holds");
        }
    }
}

/// B-20, B-21: each flipped bit of header or body is seen.
#[test]
fn every_flipped_bit_is_seen() {
    let body = Rng::new(2).bytes(480);
    let made = header(FrameKind::Records, 1, &body);
    let (raw, _) = made.encode(place());
    for bit in (0..raw.len() * 8).step_by(enough(1, 11)) {
        let mut damaged = raw;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(FrameHeader::parse(&damaged, place()).is_err(), "bit {bit}");
    }
    for bit in (0..body.len() * 8).step_by(enough(1, 101)) {
        let mut damaged = body.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(made.check_body(&damaged, AT).is_err(), "bit {bit}");
    }
}

/// B-20: another store, use or position does not pass, so stale and misplaced frames do not.
#[test]
fn a_frame_is_bound_to_its_place() {
    let (raw, _) = header(FrameKind::Records, 0, &[0; 48]).encode(place());
    let other = *b"0123456789abcdeF";
    let wrong = [
        Place {
            seed: StoreSeed::new(&other),
            ..place()
        },
        Place {
            segment_use: USE + 1,
            ..place()
        },
        Place {
            position: Position(AT.0 + 8),
            ..place()
        },
    ];
    for place in wrong {
        let error = FrameHeader::parse(&raw, place).expect_err("bound to its place");
        assert_eq!(error.what, "frame header CRC");
    }
}

/// Pages have no records (B-24).
#[test]
fn pages_have_no_records() {
    for kind in [FrameKind::Branch, FrameKind::Chunk, FrameKind::Directory] {
        let without = header(kind, 0, &[0; 48]);
        let with = FrameHeader {
            records_len: 48,
            ..without
        };
        let (raw, _) = with.encode(place());
        let error = FrameHeader::parse(&raw, place()).expect_err("records");
        assert_eq!(error.what, "records of a page frame");
        // A count without bytes is refused for any kind.
        let counted = FrameHeader {
            record_count: 1,
            ..without
        };
        let (raw, _) = counted.encode(place());
        assert!(FrameHeader::parse(&raw, place()).is_err());
    }
}

/// A header with a right checksum but a field that breaks a rule is refused, and says which.
#[test]
fn rules_hold_behind_the_checksum() {
    let cases: [(usize, &[u8], &str); 12] = [
        (56, &[0], "frame kind"),
        (56, &[6], "frame kind"),
        (57, &[8], "frame flags"),
        (58, &[1], "frame codec"),
        (59, &[1], "frame branch"),
        (40, &[49], "frame length (8 | n)"),
        (60, &[56], "frame logical length"),
        (44, &[56], "frame records length"),
        (48, &[2], "frame record count"),
        (24, &[78], "frame synced mark"),
        (32, &[0xFF; 8], "frame revision"),
        (40, &[0, 0, 0xC1, 0x12], "frame length"),
    ];
    const { assert!(0x12C1_0000 > FRAME_BODY_BYTES_MAX) };
    let (raw, _) = header(FrameKind::Records, 0, &[0; 48]).encode(place());
    for (at, bytes, what) in cases {
        let mut forged = raw;
        forged[at..at + bytes.len()].copy_from_slice(bytes);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&STORE);
        crc.update(&USE.to_le_bytes());
        crc.update(&AT.0.to_le_bytes());
        crc.update(&forged[8..]);
        forged[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
        let error = FrameHeader::parse(&forged, place()).expect_err(what);
        assert_eq!((error.what, error.offset), (what, AT.0));
    }
}

/// B-22: right behind, or at the next block border; no block is added at a border.
#[test]
fn the_next_frame_follows() {
    let plain = header(FrameKind::Records, 0, &[0; 96]);
    assert_eq!(plain.next_position(Position(8192)), Position(8192 + 160));
    let padded = header(FrameKind::Records, 1, &[0; 96]);
    assert_eq!(padded.next_position(Position(8192)), Position(8192 + 4096));
    let at_border = Position(8192 - 160);
    assert_eq!(padded.next_position(at_border), Position(8192));
}

/// Cuts and garbage are refused.
#[test]
fn cut_and_garbage_headers_are_refused() {
    let (raw, _) = header(FrameKind::Records, 0, &[0; 48]).encode(place());
    for len in 0..FRAME_HEADER_BYTES {
        assert!(FrameHeader::parse(&raw[..len], place()).is_err());
    }
    let mut rng = Rng::new(3);
    for _ in 0..enough(20_000, 50) {
        let len = rng.below(100);
        let mut bytes = rng.bytes(len);
        if bytes.len() >= 4 {
            bytes[..4].copy_from_slice(b"RVFM");
        }
        assert!(FrameHeader::parse(&bytes, place()).is_err());
        assert!(SegmentHeader::parse(&bytes, &STORE, 0).is_err());
    }
}

/// Both kinds of segment come back with the numbers of B-14; each flipped bit, another store and a cut are seen.
#[test]
fn segment_headers() {
    for (number, kind) in [(1, SegmentKind::Log), (2, SegmentKind::Run)] {
        let made = SegmentHeader {
            segment_use: USE,
            index: 5,
            units: 3,
            kind,
            first_sequence: 900,
        };
        let raw = made.encode(&STORE);
        assert_eq!(raw[24], number);
        assert_eq!(SegmentHeader::parse(&raw, &STORE, 64), Ok(made));
        for bit in (0..raw.len() * 8).step_by(enough(1, 11)) {
            let mut damaged = raw;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                SegmentHeader::parse(&damaged, &STORE, 64).is_err(),
                "bit {bit}"
            );
        }
        assert!(SegmentHeader::parse(&raw, b"another store's!", 64).is_err());
        for len in 0..SEGMENT_HEADER_BYTES {
            assert!(SegmentHeader::parse(&raw[..len], &STORE, 64).is_err());
        }
        // Reserved fields (V-9) are refused also with a right checksum.
        for at in [24, 25, 28, 40, 44, 48, 63] {
            let mut forged = raw;
            forged[at] = 9;
            let mut crc = crc32fast::Hasher::new();
            crc.update(&STORE);
            crc.update(&forged[8..]);
            forged[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
            let error = SegmentHeader::parse(&forged, &STORE, 64).expect_err("reserved");
            assert_ne!(error.what, "segment header CRC", "byte {at}");
        }
    }
}

/// B-10: where segments begin and end, and which one holds a position.
#[test]
fn geometry() {
    let geometry = Geometry::new(65_536);
    assert_eq!(geometry.start(0), Position(16_384));
    assert_eq!(geometry.end(0, 1), Position(65_536));
    assert_eq!(geometry.start(3), Position(3 * 65_536));
    assert_eq!(geometry.end(3, 2), Position(5 * 65_536));
    let cases = [
        (0, None),
        (16_383, None),
        (16_384, Some(0)),
        (65_535, Some(0)),
        (65_536, Some(1)),
        (STORE_BYTES_MAX - 1, Some(268_435_455)),
        (STORE_BYTES_MAX, None),
        (u64::MAX, None),
    ];
    for (position, index) in cases {
        assert_eq!(geometry.index_of(Position(position)), index, "{position}");
    }
    let cases = [
        (0, 0),
        (65_535, 0),
        (3 * 65_536, 3),
        (STORE_BYTES_MAX, 268_435_456),
        (u64::MAX, u32::MAX),
    ];
    for (bytes, units) in cases {
        assert_eq!(geometry.units_in(bytes), units, "{bytes} bytes");
    }
}

/// B-12: the longest segment is the first of the file, with the longest frame and its padding.
#[test]
fn the_longest_segment() {
    let longest = 16_384 + 64 + 64 + FRAME_BODY_BYTES_MAX + 4096;
    for (segment_bytes, units) in [(longest, 1), (longest - 1, 2), (65_536, 4801)] {
        assert_eq!(
            Geometry::new(segment_bytes).units_max(),
            units,
            "{segment_bytes}"
        );
    }
}

fn items<'a>(long: &'a str, blob: &'a [u8]) -> Vec<Control<'a>> {
    vec![
        Control::Applied {
            index: u64::MAX,
            term: 7,
        },
        Control::TableCreate { table: "lease" },
        Control::TableCreate { table: long },
        Control::TablePut {
            table: "m",
            key: b"",
            value: b"",
        },
        Control::TablePut {
            table: "größe",
            key: blob,
            value: blob,
        },
        Control::TableDelete {
            table: "meta",
            key: b"term",
        },
        Control::Compact {
            revision: Revision::new(17),
        },
        Control::NextSegment {
            index: 4,
            units: 2,
            segment_use: USE,
        },
    ]
}

fn parse_items(bytes: &[u8]) -> Result<Vec<Control<'_>>, &'static str> {
    Controls::new(bytes, 4096)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.what)
}

/// All items come back in order, with the numbers of B-60, critical, padded with zeros.
#[test]
fn control_items_round_trip() {
    let long = "x".repeat(TABLE_NAME_BYTES_MAX);
    let blob = Rng::new(4).bytes(1001);
    let items = items(&long, &blob);
    let mut bytes = Vec::new();
    let mut numbers = Vec::new();
    for item in &items {
        let start = bytes.len();
        item.encode(&mut bytes);
        assert_eq!(bytes.len() - start, item.encoded_len());
        assert_eq!(bytes.len() % 8, 0);
        numbers.push(bytes[start]);
        assert_eq!(bytes[start + 1..start + 4], [0, 1, 0], "critical");
    }
    assert_eq!(numbers, [1, 4, 4, 2, 2, 3, 5, 6]);
    assert_eq!(parse_items(&bytes), Ok(items));
}

/// V-5, B-67: an unknown item is refused when critical and skipped when not.
#[test]
fn unknown_items() {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&[99, 0, 0, 0, 5, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0]);
    Control::Compact {
        revision: Revision::new(3),
    }
    .encode(&mut bytes);
    let known = Control::Compact {
        revision: Revision::new(3),
    };
    assert_eq!(parse_items(&bytes), Ok(vec![known]));
    bytes[2] = 1;
    assert_eq!(parse_items(&bytes), Err("critical control item"));
    bytes[2] = 2;
    assert_eq!(parse_items(&bytes), Err("control item flags"));
    bytes[2] = 0;
    bytes[15] = 1;
    assert_eq!(parse_items(&bytes), Err("control item padding"));
}

/// B-60 to B-66: fields that an item of its kind must not have, each alone and two alike, which a comparison
/// of the two would not see.
#[test]
fn fields_that_an_item_has_not() {
    let item = |item: Control<'_>| {
        let mut bytes = Vec::new();
        item.encode(&mut bytes);
        bytes
    };
    let put = |table, key, value| item(Control::TablePut { table, key, value });
    let mut cases = Vec::new();
    for (key, value) in [(&b"k"[..], &b""[..]), (b"", b"v"), (b"k", b"v")] {
        let mut create = put("t", key, value);
        create[0] = 4;
        cases.push((create, "table item key and value"));
    }
    let mut delete = put("t", b"k", b"v");
    delete[0] = 3;
    cases.push((delete, "table item value"));
    cases.push((put("", b"k", b"v"), "table name length"));
    let revision = Revision::new(17);
    for (start, end) in [(5, 0), (0, 5), (5, 5)] {
        let mut compact = item(Control::Compact { revision });
        let lengths = compact.len() - 8;
        compact[lengths] = start;
        compact[lengths + 4] = end;
        cases.push((compact, "compaction range (reserved)"));
    }
    for (bytes, what) in cases {
        assert_eq!(parse_items(&bytes), Err(what), "{bytes:?}");
    }
}

/// An error names the place of the item, also of one behind others.
#[test]
fn an_item_is_named_by_its_place() {
    let mut bytes = Vec::new();
    Control::TableCreate { table: "lease" }.encode(&mut bytes);
    let second = bytes.len();
    Control::Applied { index: 1, term: 2 }.encode(&mut bytes);
    let third = bytes.len();
    bytes.extend_from_slice(&[99, 0, 1, 0, 0, 0, 0, 0]);
    let at = |bytes: &[u8]| {
        Controls::new(bytes, 4096)
            .find_map(Result::err)
            .map(|error| error.offset)
    };
    assert_eq!(at(&bytes), Some(4096 + third as u64));
    bytes[second + 2] = 2;
    assert_eq!(at(&bytes), Some(4096 + second as u64));
}

/// Cut between items is a shorter list; cut elsewhere is an error. Flipped bits and garbage never panic, and
/// what still parses without a skipped item is what its bytes say.
#[test]
fn damaged_items_never_panic() {
    let blob = Rng::new(5).bytes(20);
    let items = items("n", &blob);
    let mut bytes = Vec::new();
    let mut borders = vec![0];
    for item in &items {
        item.encode(&mut bytes);
        borders.push(bytes.len());
    }
    for len in (0..=bytes.len()).step_by(enough(1, 8)) {
        let parsed = parse_items(&bytes[..len]);
        assert_eq!(parsed.is_ok(), borders.contains(&len), "cut at {len}");
    }
    let encode = |items: &[Control<'_>]| {
        let mut out = Vec::new();
        items.iter().for_each(|item| item.encode(&mut out));
        out
    };
    for bit in (0..bytes.len() * 8).step_by(enough(1, 61)) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = parse_items(&damaged)
            && found.len() == items.len()
        {
            let mut again = encode(&found);
            // The critical bit is all that encoding does not keep.
            for border in &borders[..items.len()] {
                again[border + 2] = damaged[border + 2];
            }
            assert_eq!(again, damaged, "bit {bit}");
        }
    }
    let mut rng = Rng::new(6);
    for _ in 0..enough(50_000, 50) {
        let len = 8 * rng.below(12);
        let mut garbage = rng.bytes(len);
        if garbage.len() >= 8 {
            garbage[..8].copy_from_slice(&[0, 0, 1, 0, 0, 0, 0, 0]);
            garbage[0] = u8::try_from(1 + rng.below(7)).expect("a kind");
            garbage[4] = u8::try_from(rng.below(64)).expect("a length");
        }
        let _ = parse_items(&garbage);
    }
}
