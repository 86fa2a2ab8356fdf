//! Superblock slots: they come back, each damaged bit is seen, and what is unknown refuses or is
//! skipped as V-5 says.

#![expect(
    clippy::indexing_slicing,
    reason = "tests index what they have just made"
)]

#[path = "common/rng.rs"]
mod rng;

use revtree_format::limits::{REVISION_MAX, ROOTS_MAX, TREE_LEVELS_MAX};
use revtree_format::{
    LogHead, PageRef, Position, Revision, Root, RootKind, SUPERBLOCK_BYTES, Superblock,
};
use rng::{Rng, enough};

fn root(kind: RootKind, critical: bool) -> Root {
    Root {
        kind,
        critical,
        page: PageRef {
            position: Position(0x1_2340),
            segment_use: 5 << 32 | 2,
            body_len: 6160,
            body_crc: 0x1234_5678,
        },
        levels: if kind == RootKind::Tree { 3 } else { 0 },
        detail: if kind == RootKind::Index { 99 } else { 0 },
    }
}

fn superblock() -> Superblock {
    Superblock {
        store_id: *b"0123456789abcdef",
        generation: 41,
        edition: 2,
        opens: 5,
        segment_bytes: 4 << 20,
        head: LogHead {
            position: Position(0x40_1000),
            sequence: 1000,
            segment_use: 5 << 32 | 3,
            segment: 1,
            prev_crc: 0xCAFE_F00D,
        },
        revision: Revision::new(500),
        compact_revision: Some(Revision::new(0)),
        applied_index: 77,
        applied_term: 3,
        records: 498,
        segment_count: 2,
        roots: vec![
            root(RootKind::Tree, true),
            root(RootKind::Segments, true),
            root(RootKind::Tables, true),
            root(RootKind::Index, false),
        ],
    }
}

/// The slot with bytes of its own at `at` and right checksums.
fn forged(at: usize, bytes: &[u8]) -> [u8; SUPERBLOCK_BYTES] {
    let mut slot = *superblock().encode();
    slot[at..at + bytes.len()].copy_from_slice(bytes);
    let (crc32, crc32c) = (crc32fast::hash(&slot[16..]), crc32c::crc32c(&slot[16..]));
    slot[8..12].copy_from_slice(&crc32.to_le_bytes());
    slot[12..16].copy_from_slice(&crc32c.to_le_bytes());
    slot
}

/// Full, empty, extreme: each comes back, and the numbers of kinds are those of B-9.
#[test]
fn slots_round_trip() {
    let made = superblock();
    let slot = made.encode();
    assert_eq!(Superblock::parse(&*slot, 0), Ok(made.clone()));
    for (n, number) in (0..4).zip([1, 2, 3, 4]) {
        assert_eq!(slot[144 + 40 * n], number);
    }
    let empty = Superblock {
        roots: Vec::new(),
        compact_revision: None,
        generation: 0,
        revision: Revision::new(1),
        ..made.clone()
    };
    assert_eq!(Superblock::parse(&*empty.encode(), 0), Ok(empty));
    let extreme = Superblock {
        generation: u64::MAX,
        edition: u32::MAX,
        opens: u32::MAX,
        revision: Revision::new(REVISION_MAX),
        compact_revision: Some(Revision::new(REVISION_MAX)),
        applied_index: u64::MAX,
        applied_term: u64::MAX,
        records: u64::MAX,
        roots: vec![root(RootKind::Unknown(9), false); ROOTS_MAX],
        ..made
    };
    assert_eq!(Superblock::parse(&*extreme.encode(), 0), Ok(extreme));
}

/// B-1: each flipped bit of the block is seen.
#[test]
fn every_flipped_bit_is_seen() {
    let mut slot = *superblock().encode();
    for bit in (0..slot.len() * 8).step_by(enough(1, 1009)) {
        slot[bit / 8] ^= 1 << (bit % 8);
        assert!(Superblock::parse(&slot, 0).is_err(), "bit {bit}");
        slot[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(Superblock::parse(&slot, 0).is_ok());
}

/// B-2: the open first, then generation and edition.
#[test]
fn age_orders_slots() {
    let age = |opens, generation, edition| {
        let made = superblock();
        Superblock {
            opens,
            generation,
            edition,
            ..made
        }
        .age()
    };
    assert!(age(3, 2, 0) > age(3, 1, 9));
    assert!(age(3, 2, 1) > age(3, 2, 0));
    assert!(age(4, 1, 1) > age(3, 2, 0));
}

/// Rules behind right checksums: each names its field.
#[test]
fn rules_hold_behind_the_checksums() {
    let cases: [(usize, &[u8], &str); 23] = [
        (16, &[2], "superblock format version"),
        (20, &[1], "superblock critical flags"),
        (56, &[0, 0, 0, 0], "superblock segment size"),
        (56, &[0, 128, 0, 0], "superblock segment size"),
        (56, &[0, 0, 0, 8], "superblock segment size"),
        (56, &[0, 0, 65, 0], "superblock segment size"),
        (60, &[1], "superblock branch"),
        (64, &[0, 0x10, 0, 0], "superblock log head"),
        (64, &[4], "superblock log head"),
        (70, &[0xFF], "superblock log head"),
        (92, &[2], "superblock log head segment"),
        (92, &[0xFF; 4], "superblock log head segment"),
        (96, &[0xFF; 8], "superblock revision"),
        (
            104,
            &[0xFE, 255, 255, 255, 255, 255, 255, 255],
            "superblock compact revision below zero",
        ),
        (136, &[255; 4], "superblock segments"),
        (140, &[17], "superblock roots"),
        (144 + 2, &[2], "root flags"),
        (144 + 28, &[TREE_LEVELS_MAX + 1], "root levels"),
        (144 + 28, &[0], "root levels"),
        (144 + 40 + 28, &[1], "root levels"),
        (144 + 80, &[2], "root kind twice"),
        (144 + 40 * 4, &[1], "superblock unused root"),
        (4095, &[1], "superblock reserved bytes"),
    ];
    for (at, bytes, what) in cases {
        let error = Superblock::parse(&forged(at, bytes), 8192).expect_err(what);
        assert_eq!((error.what, error.offset), (what, 8192));
    }
}

/// V-2, V-3: a newer version is told by its number, not by what else differs.
#[test]
fn a_newer_version_is_told_by_name() {
    let error = Superblock::parse(&forged(16, &[7]), 0).expect_err("too new");
    let told = (error.what, error.expected, error.found);
    assert_eq!(told, ("superblock format version", 1, 7));
}

/// V-5: an unknown root is kept and passed over; critical, it refuses. So does a critical pins root (B-9).
#[test]
fn unknown_roots() {
    let skipped = Superblock::parse(&forged(144 + 3 * 40, &[200, 1, 0, 0]), 0).expect("skipped");
    assert_eq!(skipped.roots[3].kind, RootKind::Unknown(456));
    assert_eq!(skipped.root(RootKind::Index), None);
    for kind in [[200, 1], [5, 0]] {
        let slot = forged(144 + 3 * 40, &[kind[0], kind[1], 1, 0]);
        let error = Superblock::parse(&slot, 0).expect_err("critical");
        assert_eq!(error.what, "critical root kind");
    }
    assert!(Superblock::parse(&forged(144 + 3 * 40, &[5, 0, 0, 0]), 0).is_ok());
}

/// Any cut, and garbage with right magic and checksums, is refused or parses; nothing panics.
#[test]
fn cuts_and_garbage_never_panic() {
    let slot = superblock().encode();
    for len in (0..SUPERBLOCK_BYTES).step_by(enough(1, 211)) {
        assert!(Superblock::parse(&slot[..len], 0).is_err());
    }
    let mut rng = Rng::new(1);
    let mut parsed = 0;
    let changes = enough(4000, 40);
    for _ in 0..changes {
        let at = 16 + rng.below(800);
        let len = 1 + rng.below(16);
        let bytes = rng.bytes(len);
        if let Ok(found) = Superblock::parse(&forged(at, &bytes), 0) {
            parsed += 1;
            let again = found.encode();
            assert_eq!(*again, forged(at, &bytes), "parsed means understood");
        }
    }
    assert!(
        parsed > changes / 40,
        "many fields take any value: {parsed}"
    );
}
