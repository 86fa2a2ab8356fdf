//! Records come back as they were made, every damaged bit is seen or harmless, and skips are short.

#![expect(
    clippy::indexing_slicing,
    reason = "tests index what they have just made"
)]

#[path = "common/rng.rs"]
mod rng;

use revtree_format::limits::{KEY_BYTES_MAX, REVISION_MAX, SUB_MAX};
use revtree_format::{
    ChangeId, LeaseId, Link, NewRecord, Place, Position, RECORD_HEAD_BYTES, RECORD_HEAD_BYTES_MAX,
    RecordKind, Revision, StoreSeed, check_value, head_and_key_len, parse_record, set_hints,
    skip_jump,
};
use rng::{Rng, enough};

const AT: Position = Position(0x1_0040);
const STORE: [u8; 16] = *b"0123456789abcdef";
const USE: u64 = 3 << 32 | 9;

fn place() -> Place {
    Place {
        seed: StoreSeed::new(&STORE),
        segment_use: USE,
        position: AT,
    }
}

/// CRC-32 of what a record at [`place`] is bound to, and of `covered`.
fn seeded_crc(covered: &[u8]) -> [u8; 4] {
    let seed = [&STORE[..], &USE.to_le_bytes(), &AT.0.to_le_bytes()].concat();
    crc32fast::hash(&[&seed, covered].concat()).to_le_bytes()
}

fn id(main: u64, sub: u64) -> ChangeId {
    ChangeId::new(Revision::new(main), sub)
}

fn link(main: u64, sub: u64, hint: u64) -> Link {
    Link {
        id: id(main, sub),
        hint: Position(hint),
    }
}

fn encoded(new: &NewRecord<'_>) -> Vec<u8> {
    let mut out = vec![0xAA; new.record_len()];
    new.encode(&mut out, place());
    out
}

/// Records with every combination of the optional words, of counters that do and do not fit 32 bits,
/// and of empty and non-empty keys and values.
fn shapes<'a>(key: &'a [u8], value: &'a [u8]) -> Vec<NewRecord<'a>> {
    let far = u64::from(u32::MAX) + 7;
    let mut shapes = Vec::new();
    for bits in 0..1_u32 << 10 {
        let bit = |n: u32| bits >> n & 1 == 1;
        let tombstone = bit(0);
        if tombstone && (bit(1) || bit(4) || bit(5)) {
            continue; // a tombstone has no lease, version or create revision
        }
        let main = 2 * far + 1000;
        let prev_main = if bit(6) { main - far } else { main - 3 };
        let prev_sub = if bit(7) { SUB_MAX } else { 0 };
        shapes.push(NewRecord {
            kind: if tombstone {
                RecordKind::Tombstone
            } else {
                RecordKind::Put
            },
            id: id(main, if bit(8) { 9 } else { 0 }),
            create: Revision::new(if bit(4) { main - far } else { main - 5 }),
            version: if bit(5) { far } else { 1 },
            lease: LeaseId(if bit(1) { -7 } else { 0 }),
            ordinal: if bit(9) { far } else { 11 },
            prev: bit(2).then(|| link(prev_main, prev_sub, 0x9_8760)),
            skip: bit(3).then(|| link(prev_main - 1, prev_sub, 0x1_2340)),
            key,
            value: if tombstone { &[] } else { value },
        });
    }
    shapes
}

fn check_round_trip(new: &NewRecord<'_>) {
    let raw = encoded(new);
    assert_eq!(raw.len() % 8, 0);
    let (head, key) = parse_record(&raw, place()).expect("what was made parses");
    let put = new.kind == RecordKind::Put;
    assert_eq!(head.kind, new.kind);
    assert_eq!(head.id, new.id);
    assert_eq!(head.create, if put { new.create } else { Revision::new(0) });
    assert_eq!(head.version, if put { new.version } else { 0 });
    assert_eq!(head.lease, new.lease);
    assert_eq!(head.ordinal, new.ordinal);
    assert_eq!(head.prev, new.prev);
    assert_eq!(head.skip, new.skip);
    assert_eq!(key, new.key);
    assert!(usize::from(head.key_at) <= RECORD_HEAD_BYTES_MAX);
    assert_eq!(head.record_len(), raw.len());
    let value_end = head.value_at() + new.value.len();
    let value = &raw[head.value_at()..value_end];
    assert_eq!(value, new.value);
    check_value(&head, value, AT).expect("the value's checksum holds");
    assert!(raw[value_end..].iter().all(|byte| *byte == 0), "padding");
    assert_eq!(head_and_key_len(&raw[..48], AT), Ok(head.value_at()));
}

/// Every shape with keys and values of many lengths comes back.
#[test]
fn every_shape_round_trips() {
    let mut rng = Rng::new(1);
    for (key_len, value_len) in [(0, 0), (0, 5), (1, 0), (7, 1), (35, 512), (256, 8)] {
        let (key, value) = (rng.bytes(key_len), rng.bytes(value_len));
        for new in shapes(&key, &value).iter().step_by(enough(1, 61)) {
            check_round_trip(new);
        }
    }
}

/// The greatest key, revision, sub and counters fit.
#[test]
fn limits_round_trip() {
    let mut rng = Rng::new(2);
    let key = rng.bytes(KEY_BYTES_MAX);
    let value = rng.bytes(enough(3 << 20, 3 << 10));
    check_round_trip(&NewRecord {
        kind: RecordKind::Put,
        id: id(REVISION_MAX, SUB_MAX),
        create: Revision::new(0),
        version: u64::MAX,
        lease: LeaseId(i64::MIN),
        ordinal: u64::MAX,
        prev: Some(link(REVISION_MAX, SUB_MAX - 1, u64::MAX)),
        skip: Some(link(0, SUB_MAX, u64::MAX)),
        key: &key,
        value: &value,
    });
}

/// B-49: counters that fit need no wide word, also the greatest; one that does not moves all four there.
#[test]
fn no_word_without_need() {
    let most = u64::from(u32::MAX);
    let len = |version: u64, create_delta: u64, prev_delta: u64, ordinal: u64| {
        let main = 2 * most + 9;
        let new = NewRecord {
            kind: RecordKind::Put,
            id: id(main, 0),
            create: Revision::new(main - create_delta),
            version,
            lease: LeaseId::NONE,
            ordinal,
            prev: Some(link(main - prev_delta, 0, 64)),
            skip: None,
            key: b"key",
            value: b"value",
        };
        encoded(&new).len()
    };
    let narrow = RECORD_HEAD_BYTES + 8;
    assert_eq!(len(3, 7, 5, 3), narrow);
    assert_eq!(len(most, most, most, most), narrow);
    for wide in [
        len(most + 1, 7, 5, 3),
        len(3, most + 1, 5, 3),
        len(3, 7, most + 1, 3),
        len(3, 7, 5, most + 1),
    ] {
        assert_eq!(wide, narrow + 32);
    }
}

/// B-41, B-46: each flipped bit is found by the head's or the value's checksum or by a rule, or it lies
/// in a hint or in the padding and changes nothing else.
#[test]
fn every_flipped_bit_is_seen_or_harmless() {
    let shapes = shapes(b"/registry/pods/a", b"some value 1");
    for new in shapes.iter().step_by(enough(7, 500)).chain(&shapes[..4]) {
        let raw = encoded(new);
        let (head, key) = parse_record(&raw, place()).expect("it parses");
        let value_at = head.value_at();
        let value_end = value_at + new.value.len();
        let skip_hint = usize::from(head.key_at) - 8..usize::from(head.key_at);
        for bit in (0..raw.len() * 8).step_by(enough(1, 11)) {
            let byte = bit / 8;
            let mut damaged = raw.clone();
            damaged[byte] ^= 1 << (bit % 8);
            let harmless = (8..16).contains(&byte)
                || (head.skip.is_some() && skip_hint.contains(&byte))
                || byte >= value_end;
            if harmless {
                let (mut found, found_key) = parse_record(&damaged, place()).expect("only a hint");
                for (found, made) in [(&mut found.prev, head.prev), (&mut found.skip, head.skip)] {
                    if let (Some(found), Some(made)) = (found, made) {
                        found.hint = made.hint;
                    }
                }
                assert_eq!((found, found_key), (head, key), "bit {bit} of {new:?}");
                continue;
            }
            if let Ok((found, _)) = parse_record(&damaged, place()) {
                assert!(
                    (4..8).contains(&byte) || byte >= value_at,
                    "bit {bit} of {new:?}"
                );
                let value = &damaged[value_at..value_end];
                assert!(
                    check_value(&found, value, AT).is_err(),
                    "bit {bit} of {new:?}"
                );
            }
        }
    }
}

/// Hints can be rewritten without any checksum noticing, and only where the record has links.
#[test]
fn hints_are_rewritten_in_place() {
    for new in shapes(b"key", b"value").iter().step_by(enough(1, 61)) {
        let mut raw = encoded(new);
        let (head, _) = parse_record(&raw, place()).expect("it parses");
        set_hints(&mut raw, &head, Position(0x7000), Position(0x8000));
        let (moved, key) = parse_record(&raw, place()).expect("still parses");
        assert_eq!(key, b"key");
        assert_eq!(
            moved.prev,
            new.prev.map(|prev| Link {
                hint: Position(0x7000),
                ..prev
            })
        );
        assert_eq!(
            moved.skip,
            new.skip.map(|skip| Link {
                hint: Position(0x8000),
                ..skip
            })
        );
        let again = NewRecord {
            prev: moved.prev,
            skip: moved.skip,
            ..*new
        };
        assert_eq!(encoded(&again), raw, "as if made with these hints");
    }
}

/// B-41: a record of another store, another use of the segment or another place does not pass.
#[test]
fn a_record_is_bound_to_its_place() {
    let wrong = [
        Place {
            seed: StoreSeed::new(b"0123456789abcdeF"),
            ..place()
        },
        Place {
            segment_use: USE + 1,
            ..place()
        },
        place().at(Position(AT.0 + 8)),
        place().at(Position(AT.0 + (1 << 32))),
    ];
    for new in shapes(b"some key", b"value").iter().step_by(enough(5, 101)) {
        let raw = encoded(new);
        for place in wrong {
            let error = parse_record(&raw, place).expect_err("bound to its place");
            assert_eq!(
                (error.what, error.offset),
                ("record head CRC", place.position.0)
            );
        }
    }
}

/// Cut anywhere before the value, a record does not parse; nothing panics.
#[test]
fn a_cut_record_is_refused() {
    for new in shapes(b"some key", b"value").iter().step_by(enough(5, 101)) {
        let raw = encoded(new);
        let (head, _) = parse_record(&raw, place()).expect("it parses");
        for len in 0..raw.len() {
            let parsed = parse_record(&raw[..len], place());
            assert_eq!(parsed.is_ok(), len >= head.value_at(), "cut at {len}");
        }
    }
}

/// Garbage, and heads that are plausible but for random fields with a right checksum, never panic; what
/// parses keeps the rules.
#[test]
fn garbage_never_panics() {
    let mut rng = Rng::new(3);
    let mut parsed = 0;
    let tries = enough(200_000, 200);
    for _ in 0..tries {
        let len = 48 + rng.below(160);
        let mut raw = rng.bytes(len);
        // Get behind the checksum: few flags, a short key, the right CRC.
        raw[28] %= 16;
        raw[29] = 0;
        raw[30] &= 0x7F;
        raw[31] = 0;
        raw[23] &= 0x7F;
        for at in [
            24, 25, 26, 27, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
        ] {
            if rng.below(2) == 0 {
                raw[at] = 0;
            }
        }
        let flags = raw[30];
        let mut key_at = 48;
        for (bit, len) in [(6, 32), (3, 8), (4, 8), (5, 24)] {
            key_at += usize::from(flags >> bit & 1) * len;
        }
        let key_end = key_at + usize::from(raw[28]);
        if key_end > raw.len() {
            assert!(parse_record(&raw, place()).is_err());
            continue;
        }
        if flags >> 6 & 1 == 1 && rng.below(2) == 0 {
            raw[32..48].fill(0);
        }
        if flags >> 5 & 1 == 1 {
            raw[key_at - 12..key_at - 8].fill(0);
            raw[key_at - 17] = 0;
        }
        let covered_end = if flags >> 5 & 1 == 1 {
            key_at - 8
        } else {
            key_at
        };
        let mut covered = raw[16..covered_end].to_vec();
        covered.extend_from_slice(&raw[key_at..key_end]);
        let crc = seeded_crc(&covered);
        raw[..4].copy_from_slice(&crc);
        if let Ok((head, key)) = parse_record(&raw, place()) {
            parsed += 1;
            assert_eq!(key, &raw[key_at..key_end]);
            assert!(head.prev.is_none_or(|prev| prev.id < head.id));
            assert!(head.skip.is_none_or(|skip| skip.id < head.id));
            assert!(head.create <= head.id.main);
            assert!(head.record_len() >= head.value_at());
        }
    }
    assert!(
        parsed > tries / 200,
        "the generator reaches behind the checks: {parsed}"
    );
}

/// The record with bytes of its own at `at` and the right head checksum.
fn forged(new: &NewRecord<'_>, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut raw = encoded(new);
    raw[at..at + bytes.len()].copy_from_slice(bytes);
    let key_at = raw.len() - (new.key.len() + new.value.len()).next_multiple_of(8);
    let end = key_at - if new.skip.is_some() { 8 } else { 0 };
    let covered = [&raw[16..end], new.key].concat();
    raw[..4].copy_from_slice(&seeded_crc(&covered));
    raw
}

/// Rules behind a right checksum: links lead down, so that no walk along a key's versions goes in a circle
/// (B-45, B-50); versions and ordinals begin at 1 (B-43, B-48); a tombstone has no lease (B-44).
#[test]
fn rules_hold_behind_the_checksum() {
    let put = NewRecord {
        kind: RecordKind::Put,
        id: id(500, 2),
        create: Revision::new(400),
        version: 9,
        lease: LeaseId(7),
        ordinal: 17,
        prev: Some(link(499, 1, 0)),
        skip: Some(link(450, 3, 0)),
        key: b"some key",
        value: b"",
    };
    assert!(parse_record(&forged(&put, 4, &[]), place()).is_ok());
    // Behind head, subs and lease stands the word skip: main, sub.
    let skip_at = 48 + 8 + 8;
    let itself = [&500_u64.to_le_bytes()[..], &2_u32.to_le_bytes()].concat();
    let later = [&500_u64.to_le_bytes()[..], &3_u32.to_le_bytes()].concat();
    let cases: [(usize, &[u8], &str); 6] = [
        (skip_at, &itself, "record skip order"),
        (skip_at, &later, "record skip order"),
        (skip_at, &501_u64.to_le_bytes(), "record skip revision"),
        (40, &0_u32.to_le_bytes(), "record order"),
        (32, &0_u32.to_le_bytes(), "record version"),
        (44, &0_u32.to_le_bytes(), "record ordinal"),
    ];
    for (at, bytes, what) in cases {
        let mut raw = forged(&put, at, bytes);
        if what == "record order" {
            // Of the same revision, and not before it.
            raw = forged(
                &NewRecord {
                    prev: Some(link(500, 1, 0)),
                    ..put
                },
                52,
                &[2],
            );
        }
        let error = parse_record(&raw, place()).expect_err(what);
        assert_eq!((error.what, error.offset), (what, AT.0));
    }
    // The flag tombstone, and what it takes away, but not the lease.
    let dead = NewRecord {
        kind: RecordKind::Tombstone,
        ..put
    };
    let error = parse_record(&forged(&dead, 4, &[]), place()).expect_err("a lease");
    assert_eq!(error.what, "tombstone lease");
}

/// B-49: where the word wide has the counters, the narrow ones are zero: each alone, and all with the same.
#[test]
fn no_counter_twice() {
    let put = NewRecord {
        kind: RecordKind::Put,
        id: id(500, 2),
        create: Revision::new(400),
        version: 9,
        lease: LeaseId::NONE,
        ordinal: u64::MAX,
        prev: Some(link(499, 1, 0)),
        skip: None,
        key: b"some key",
        value: b"",
    };
    let none = [0; 4];
    let mut cases = vec![[7; 4], [7, 7, 0, 0], [0, 0, 7, 7], [0, 7, 7, 0]];
    cases.extend((0..4).map(|counter| {
        let mut narrow = none;
        narrow[counter] = 7_u32;
        narrow
    }));
    let parsed = |narrow: [u32; 4]| {
        let bytes: Vec<u8> = narrow.iter().flat_map(|n| n.to_le_bytes()).collect();
        let raw = forged(&put, 32, &bytes);
        parse_record(&raw, place())
            .map(drop)
            .map_err(|error| error.what)
    };
    assert_eq!(parsed(none), Ok(()));
    for narrow in cases {
        assert_eq!(parsed(narrow), Err("record narrow fields"), "{narrow:?}");
    }
}

/// B-50's words as a recurrence: a stack's element jumps where two equal jumps below it meet.
#[test]
#[cfg_attr(miri, ignore = "numbers alone, and many")]
fn jump_follows_the_recurrence() {
    let mut jump = vec![0_u64];
    for k in 1..300_000_u64 {
        let at = |n: u64| jump[usize::try_from(n).expect("small")];
        let (one, two) = (at(k - 1), at(at(k - 1)));
        let expected = if k > 1 && k - 1 - one == one - two {
            two
        } else {
            k - 1
        };
        assert_eq!(skip_jump(k), expected, "jump({k})");
        // What a writer relies on: it reads prev's skip and at most two heads more.
        assert!(expected == k - 1 || expected == two);
        jump.push(expected);
    }
    assert_eq!(skip_jump(0), 0);
    assert_eq!(skip_jump(u64::MAX), 0, "2^64 − 1 is one digit");
    assert_eq!(skip_jump(u64::MAX - 1), u64::MAX / 2);
}

/// The skip of record `n` of a key by B-50: its ordinal, 0 if none.
fn skip_of(n: usize, jumps: &[u32]) -> usize {
    match n {
        0..9 => 0,
        _ if n.is_multiple_of(8) => 8 * jumps[n / 8] as usize,
        _ => n / 8 * 8,
    }
}

/// How many hops R-5 takes from record `n` to record `to` when each revision wrote the key once.
fn hops(mut n: usize, to: usize, jumps: &[u32]) -> usize {
    let mut hops = 0;
    while n > to {
        let skip = skip_of(n, jumps);
        n = if skip > to { skip } else { n - 1 };
        hops += 1;
    }
    hops
}

/// B-51: any of ten million versions reaches any older one in at most 120 hops.
#[test]
#[cfg_attr(miri, ignore = "numbers alone, and many")]
fn any_version_is_near() {
    let jumps: Vec<u32> = (0..=10_000_000 / 8)
        .map(|k| u32::try_from(skip_jump(k)).expect("below k"))
        .collect();
    for n in 1..2048 {
        for to in 1..n {
            assert!(hops(n, to, &jumps) <= 120, "{n} to {to}");
        }
    }
    let mut rng = Rng::new(4);
    let mut worst = 0;
    // Places where the stack has many single steps, and random ones.
    let hard = (0..64).map(|back| 10_000_000 - back * 77_777);
    let random: Vec<usize> = (0..256).map(|_| 1 + rng.below(10_000_000)).collect();
    for n in hard.chain(random) {
        for _ in 0..512 {
            worst = worst.max(hops(n, 1 + rng.below(n), &jumps));
        }
        for to in [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 4095, 4096] {
            worst = worst.max(hops(n, to.min(n), &jumps));
        }
    }
    // The longest that a search by hill climbing has found: 82 hops.
    for (n, to) in [
        (9_437_047, 4_194_296),
        (9_305_978, 2_097_144),
        (9_869_980, 6_291_440),
    ] {
        worst = worst.max(hops(n, to, &jumps));
    }
    assert!(worst <= 120, "{worst} hops");
    assert!(worst >= 82, "the walk is really measured: {worst}");
}
