//! What a medium knows of the uses of segments (SPEC.md, B-46, B-47).

use std::path::Path;

use revtree_format::limits::STORE_BYTES_MAX;
use revtree_format::{Geometry, Position};

use crate::error::Error;
use crate::pager::Medium;
use crate::sys::{Disk, MemoryDisk, Region};

const SEGMENT: u64 = 64 << 10;

/// A hint holds when its target's segment has not been put to use later than the record's own; into a segment that is
/// free, or is none of the store's, none does.
#[test]
fn a_hint_holds_by_the_order_of_uses() {
    let file = MemoryDisk::new()
        .create_new(Path::new("store"))
        .expect("a fresh disk");
    let region = Region::reserve(16 * SEGMENT, SEGMENT).expect("addresses");
    let medium = Medium::new(file, region, Geometry::new(64 << 10), [7; 16], false);
    let at = |segment: u64| Position(segment * SEGMENT + 16384 + 64);
    // One early, one late, one free, and a long one.
    for (segment, segment_use) in [(0, 5), (1, 9), (2, 0), (3, 7), (4, 7), (5, 7)] {
        medium.set_use(segment, segment_use);
    }
    for (from, to, holds) in [
        (0, 0, true),
        (1, 1, true),
        (1, 0, true),
        (0, 1, false),
        (3, 0, true),
        (3, 1, false),
        (3, 5, true),
        (1, 2, false),
        (1, 6, false),
        (1, 1 << 20, false),
    ] {
        let valid = medium.is_hint_valid(at(from), at(to));
        assert_eq!(valid, holds, "from {from} to {to}");
    }
    for (segment, used) in [(0, true), (1, true), (2, false), (5, true), (6, false)] {
        assert_eq!(medium.is_in_use(at(segment)), used, "segment {segment}");
    }
    for (segment, start) in [
        (0, Some(16384)),
        (1, Some(SEGMENT)),
        (2, None),
        (3, Some(3 * SEGMENT)),
        (4, Some(3 * SEGMENT)),
        (5, Some(3 * SEGMENT)),
        (6, None),
        // Back to the first from there would be a walk of seconds.
        (STORE_BYTES_MAX / SEGMENT - 1, None),
        (u64::MAX / SEGMENT - 1, None),
    ] {
        let found = medium.segment_start(at(segment)).map(|start| start.0);
        assert_eq!(found, start, "segment {segment}");
    }
}

/// Bytes are read up to the end of what may be read, and not beyond.
#[test]
fn bytes_end_where_the_file_does() {
    let disk = MemoryDisk::new();
    let file = disk.create_new(Path::new("store")).expect("a fresh disk");
    file.write_at(&[7; 4096], SEGMENT).expect("room");
    let region = Region::reserve(16 * SEGMENT, SEGMENT).expect("addresses");
    let medium = Medium::new(file, region, Geometry::new(64 << 10), [7; 16], true);
    let end = SEGMENT + 2048;
    medium.extend(end);
    medium.extend(SEGMENT);
    let last = medium.bytes(Position(end - 8), 8).expect("the last");
    assert_eq!(*last, [7; 8]);
    for (at, len) in [(end - 8, 9), (end, 1), (u64::MAX - 4, 8)] {
        let beyond = medium.bytes(Position(at), len);
        assert!(matches!(beyond, Err(Error::Corrupt { .. })), "{beyond:?}");
    }
}
