//! Branch pages and blobs: they come back; a page of other bytes is refused or is exactly what its bytes
//! say; no damage inside a frame passes.

#![expect(
    clippy::indexing_slicing,
    reason = "tests index what they have just made"
)]

#[path = "common/rng.rs"]
mod rng;

use revtree_format::limits::{
    BRANCH_ENTRIES_MAX, FRAME_BODY_BYTES_MAX, LEAF_BYTES_MAX, TREE_LEVELS_MAX,
};
use revtree_format::{
    BranchEntries, BranchPage, ChangeId, Child, Directory, FrameFlags, FrameHeader, FrameKind,
    IndexEntry, IndexLeaf, LeafRun, PageRef, Place, Position, Revision, SegmentEntry, SegmentState,
    StoreSeed, check_segments, encode_segments, parse_segments,
};
use rng::{Rng, enough};

const AT: Position = Position(0x40_0040);

fn first(n: u64) -> ChangeId {
    ChangeId::new(Revision::new(10 + n / 3), n % 3)
}

fn leaves(count: usize) -> BranchPage {
    let leaf = |n: u64| LeafRun {
        first: first(n),
        position: Position(0x8000 + n * 16_384),
        segment_use: 1 << 32 | 3,
        len: 4800,
        records: 100,
    };
    BranchPage {
        level: 0,
        generation: 8,
        entries: BranchEntries::Leaves((0..count as u64).map(leaf).collect()),
    }
}

fn children(count: usize) -> BranchPage {
    let child = |n: u64| Child {
        first: first(n),
        page: page_ref(n),
        records: 12_800 + n,
    };
    BranchPage {
        level: TREE_LEVELS_MAX - 1,
        generation: u64::MAX,
        entries: BranchEntries::Children((0..count as u64).map(child).collect()),
    }
}

fn page_ref(n: u64) -> PageRef {
    PageRef {
        position: Position(0x10_0040 + n * 8192),
        segment_use: 1 << 32 | 4,
        body_len: 6160,
        body_crc: 0xABCD_0000,
    }
}

fn directory() -> Directory {
    Directory {
        items: 1 << 40,
        chunks: (0..5).map(page_ref).collect(),
    }
}

fn segments() -> Vec<SegmentEntry> {
    let used = |state, segment_use, units| SegmentEntry {
        state,
        segment_use,
        units,
        dead: 0,
    };
    vec![
        SegmentEntry {
            dead: 0x1234,
            ..used(SegmentState::Log, 1 << 32 | 1, 1)
        },
        SegmentEntry::FREE,
        SegmentEntry {
            dead: u16::MAX,
            ..used(SegmentState::Log, 2 << 32 | 1, 2)
        },
        used(SegmentState::Log, 2 << 32 | 1, 0),
        used(SegmentState::Run, 2 << 32 | 2, 1),
    ]
}

fn index_leaves() -> Vec<IndexLeaf> {
    let leaf = |separator: &[u8], prefix: &[u8], count: u32| IndexLeaf {
        separator: separator.to_vec(),
        prefix: prefix.to_vec(),
        entries: (0..count)
            .map(|n| IndexEntry {
                chunk: u64::from(n) << 40,
                hash: n.wrapping_mul(0x9E37_79B9),
                live: n % 3 != 1,
                position: Position(0x8000 + u64::from(n) * 64),
            })
            .collect(),
    };
    vec![
        leaf(b"", b"", 1),
        leaf(b"/reg", b"/registry/", 64),
        leaf(b"/registry/x", b"", 2),
        leaf(b"z", b"zz", 63),
    ]
}

fn encode_index(leaves: &[IndexLeaf]) -> Vec<u8> {
    let mut out = Vec::new();
    leaves.iter().for_each(|leaf| leaf.encode(&mut out));
    out
}

/// Re-makes the bytes of a body that parses; `None` when it does not.
type Remake = fn(&[u8]) -> Option<Vec<u8>>;

/// Every kind of page with an example and its way there and back.
fn pages() -> Vec<(&'static str, Vec<u8>, Remake)> {
    let branch: Remake = |body| BranchPage::parse(body, AT).ok().map(|page| page.encode());
    vec![
        ("leaves", leaves(7).encode(), branch),
        ("children", children(4).encode(), branch),
        ("directory", directory().encode(), |body| {
            Directory::parse(body, AT).ok().map(|page| page.encode())
        }),
        ("segment table", encode_segments(&segments()), |body| {
            parse_segments(body, AT)
                .ok()
                .map(|page| encode_segments(&page))
        }),
        ("index leaves", encode_index(&index_leaves()), |body| {
            IndexLeaf::parse_chunk(body, AT)
                .ok()
                .map(|page| encode_index(&page))
        }),
    ]
}

/// Pages of every size come back.
#[test]
fn pages_round_trip() {
    for count in [1, 2, 127, BRANCH_ENTRIES_MAX] {
        for page in [leaves(count), children(count)] {
            let body = page.encode();
            assert_eq!(body.len(), 16 + 48 * count);
            assert_eq!(BranchPage::parse(&body, AT), Ok(page.clone()));
            assert_eq!(page.first(), Some(first(0)));
        }
    }
    assert_eq!(leaves(7).records(), 700);
    assert_eq!(children(3).records(), 3 * 12_800 + 3);
    let body = directory().encode();
    assert_eq!(Directory::parse(&body, AT), Ok(directory()));
    let empty = Directory::default();
    assert_eq!(Directory::parse(&empty.encode(), AT), Ok(empty));
    let table = encode_segments(&segments());
    assert_eq!(parse_segments(&table, AT), Ok(segments()));
    let states: Vec<u8> = table.chunks(16).map(|entry| entry[12]).collect();
    assert_eq!(states, [1, 0, 1, 1, 2], "numbers of B-85");
    let chunk = encode_index(&index_leaves());
    assert_eq!(chunk.len() % 8, 0);
    assert_eq!(IndexLeaf::parse_chunk(&chunk, AT), Ok(index_leaves()));
}

/// Inside its frame, each flipped bit of each page is seen (B-21).
#[test]
fn every_flipped_bit_is_seen_by_the_frame() {
    let place = Place {
        seed: StoreSeed::new(b"0123456789abcdef"),
        segment_use: 7,
        position: AT,
    };
    for (name, body, _) in pages() {
        let len = u32::try_from(body.len()).expect("short");
        let made = FrameHeader {
            kind: FrameKind::Chunk,
            flags: FrameFlags::default(),
            body_crc: crc32c::crc32c(&body),
            prev_crc: 1,
            sequence: 2,
            synced_up_to: 1,
            revision: Revision::new(3),
            body_len: len,
            records_len: 0,
            record_count: 0,
            opens: 1,
        };
        let (raw, _) = made.encode(place);
        let mut frame = raw.to_vec();
        frame.extend_from_slice(&body);
        for bit in (0..frame.len() * 8).step_by(enough(1, 4001)) {
            frame[bit / 8] ^= 1 << (bit % 8);
            let seen = match FrameHeader::parse(&frame, place) {
                Ok((header, _)) => header.check_body(&frame[64..], AT).is_err(),
                Err(_) => true,
            };
            assert!(seen, "bit {bit} of {name}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Without the frame's checksum, a page with a flipped bit or random bytes is refused, or it parses to what
/// exactly these bytes say: nothing is ignored, nothing panics.
#[test]
fn what_parses_is_understood_to_the_last_bit() {
    let mut rng = Rng::new(1);
    for (name, body, remake) in pages() {
        for bit in (0..body.len() * 8).step_by(enough(1, 1009)) {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Some(again) = remake(&damaged) {
                assert_eq!(again, damaged, "bit {bit} of {name}");
            }
        }
        for _ in 0..enough(20_000, 20) {
            let mut damaged = body.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(damaged.len());
                damaged[at] = rng.bytes(1)[0];
            }
            damaged.truncate(body.len() - 8 * rng.below(3) * rng.below(2));
            if let Some(again) = remake(&damaged) {
                assert_eq!(again, damaged, "{name}");
            }
        }
        for _ in 0..enough(5000, 20) {
            let len = rng.below(200);
            let garbage = rng.bytes(len);
            if let Some(again) = remake(&garbage) {
                assert_eq!(again, garbage, "{name}");
            }
        }
    }
}

/// A cut page is refused, except where the cut leaves whole entries of a plain row.
#[test]
fn cut_pages_are_refused() {
    for (name, body, remake) in pages() {
        for len in (0..body.len()).step_by(enough(1, 16)) {
            let borders: Vec<usize> = match name {
                "segment table" => (0..5).map(|n| n * 16).collect(),
                "index leaves" => {
                    let leaves = index_leaves();
                    (0..4).map(|n| encode_index(&leaves[..n]).len()).collect()
                }
                _ => Vec::new(),
            };
            let parsed = remake(&body[..len]).is_some();
            assert_eq!(parsed, borders.contains(&len), "{name} cut at {len}");
        }
    }
}

/// Rules of B-70 to B-92 that a damaged field breaks, each by its name.
#[test]
fn rules_of_pages() {
    type Case = (&'static str, usize, &'static [u8], &'static str);
    let cases: [Case; 20] = [
        ("leaves", 2, &[129], "branch entries"),
        ("leaves", 2, &[6], "branch length"),
        ("leaves", 0, &[TREE_LEVELS_MAX], "branch level"),
        ("leaves", 1, &[1], "branch reserved bytes"),
        ("leaves", 4, &[1], "branch reserved bytes"),
        // Both reserved fields, with the same in them.
        ("leaves", 1, &[1, 7, 0, 1], "branch reserved bytes"),
        ("leaves", 16, &[200], "branch order"),
        ("leaves", 24, &[1], "branch entry alignment"),
        ("leaves", 16 + 40, &[1], "leaf running CRC (reserved)"),
        ("leaves", 16 + 44, &[1], "branch entry codec"),
        ("leaves", 16 + 45, &[1], "branch entry reserved bytes"),
        ("leaves", 16 + 32, &[0], "branch entry records"),
        ("leaves", 16 + 32, &[101], "leaf records"),
        ("leaves", 16 + 28, &[1, 64], "leaf bytes"),
        ("directory", 12, &[1], "directory reserved bytes"),
        ("directory", 8, &[6], "directory length"),
        ("segment table", 12, &[3], "segment state"),
        ("segment table", 15, &[1], "segment entry reserved byte"),
        ("index leaves", 0, &[2], "index leaf live bits"),
        ("index leaves", 16, &[65], "index leaf entries"),
    ];
    for (name, at, bytes, what) in cases {
        let (_, mut body, _) = pages()
            .into_iter()
            .find(|page| page.0 == name)
            .expect("a page of this name");
        body[at..at + bytes.len()].copy_from_slice(bytes);
        let error = match name {
            "leaves" => BranchPage::parse(&body, AT).map(drop),
            "directory" => Directory::parse(&body, AT).map(drop),
            "segment table" => parse_segments(&body, AT).map(drop),
            _ => IndexLeaf::parse_chunk(&body, AT).map(drop),
        };
        assert_eq!(error.expect_err(what).what, what, "{name} byte {at}");
    }
}

/// B-71: one record may be longer than a leaf of several, up to the longest frame.
#[test]
fn the_longest_leaves() {
    let parsed = |len: u32, records: u32| {
        let mut page = leaves(1);
        let BranchEntries::Leaves(leaves) = &mut page.entries else {
            unreachable!("level 0");
        };
        (leaves[0].len, leaves[0].records) = (len, records);
        BranchPage::parse(&page.encode(), AT).map_err(|error| error.what)
    };
    let several = u32::try_from(LEAF_BYTES_MAX).expect("a 32-bit length");
    assert!(parsed(several, 2).is_ok());
    assert_eq!(parsed(several + 1, 2), Err("leaf bytes"));
    assert!(parsed(FRAME_BODY_BYTES_MAX, 1).is_ok());
    assert_eq!(parsed(FRAME_BODY_BYTES_MAX + 1, 1), Err("leaf bytes"));
}

/// B-85: what the entries of a segment table say together, also where each is right alone.
#[test]
fn rules_of_a_segment_table() {
    assert_eq!(check_segments(&segments(), AT), Ok(()));
    type Case = (usize, fn(&mut SegmentEntry), &'static str);
    let cases: [Case; 9] = [
        (1, |free| free.segment_use = 1, "use of a free segment"),
        (1, |free| free.dead = 1, "dead bytes of a free segment"),
        (3, |unit| unit.dead = 1, "units of a long segment"),
        (1, |free| free.units = 2, "length of a free segment"),
        (0, |log| log.units = 0, "segment length in the table"),
        (4, |last| last.units = 2, "segment length in the table"),
        (3, |unit| unit.units = 1, "units of a long segment"),
        (3, |unit| unit.segment_use += 1, "units of a long segment"),
        (
            3,
            |unit| unit.state = SegmentState::Run,
            "units of a long segment",
        ),
    ];
    for (index, change, what) in cases {
        let mut entries = segments();
        change(&mut entries[index]);
        let error = check_segments(&entries, AT).expect_err(what);
        assert_eq!((error.what, error.offset), (what, AT.0), "entry {index}");
    }
}

/// An error says what, where and both numbers in one line, as positions are printed: in hexadecimal.
#[test]
fn an_error_says_where() {
    let error = Directory::parse(&[0; 15], AT).expect_err("it is too short");
    let says = error.to_string();
    assert!(says.contains("directory"), "{says}");
    assert!(
        says.contains(&format!("at offset {AT}: expected 0x")),
        "{says}"
    );
    assert!(says.ends_with("found 0xf"), "{says}");
}
