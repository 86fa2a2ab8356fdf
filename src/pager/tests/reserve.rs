//! Which segments are taken, how much is allocated and asked for, and that what was reserved is there
//! (SPEC.md, B-29, C-3, C-4).

use std::path::Path;
use std::sync::Arc;

use revtree_format::limits::{BLOCK_BYTES, FRAME_BODY_BYTES, SEGMENTS_START};
use revtree_format::{
    ChangeId, Control, FRAME_HEADER_BYTES, Geometry, LeaseId, LogHead, NewRecord, Position,
    RecordKind, Revision, SEGMENT_HEADER_BYTES, SegmentEntry, SegmentState,
};

use crate::error::{Error, Result};
use crate::pager::space::{Taken, Wanted};
use crate::pager::{Log, Medium, Room, Space};
use crate::sys::sim::{Call, FaultPlan, Random, SimDisk, SimOptions};
use crate::sys::{Access, Disk, LockByte, LockMode, Region, Storage};

const SEGMENT: u64 = 64 << 10;
const GEOMETRY: Geometry = Geometry::new(64 << 10);
const STORE: &str = "store";
const NO_LIMIT: (u64, u64) = (1 << 40, 1 << 40);

/// A disk with a file that has blocks for so many bytes.
fn disk(bytes: u64) -> (SimDisk, Arc<dyn Storage>) {
    let disk = SimDisk::new(SimOptions::default());
    let file = disk.create_new(Path::new(STORE)).expect("a fresh disk");
    file.allocate(0, bytes).expect("room");
    (disk, file)
}

/// A table by letters: `L` in use, `-` free.
fn entries(table: &str) -> Vec<SegmentEntry> {
    let entry = |letter| match letter {
        'L' => SegmentEntry {
            state: SegmentState::Log,
            segment_use: 1 << 32,
            units: 1,
        },
        _ => SegmentEntry::FREE,
    };
    table.chars().map(entry).collect()
}

fn space(table: &str, file: &dyn Storage, limits: (u64, u64)) -> Space {
    let len = file.len().expect("known");
    Space::new(GEOMETRY, entries(table), len, limits, 2)
}

fn index_and_recycled(taken: Result<Taken>) -> (u32, bool) {
    let taken = taken.expect("room");
    (taken.index, taken.recycled)
}

/// Free segments are used again, the nearest to the start of the file first; long ones begin behind the last. Uses
/// are counted from the open on (B-13).
#[test]
fn free_segments_are_taken_first() {
    let (_disk, file) = disk(4 * SEGMENT);
    let mut space = space("L--L", &*file, NO_LIMIT);
    let mut take = |units: u32| {
        let taken = space.take(&*file, units, u64::from(units) * SEGMENT);
        let taken = taken.expect("room");
        (taken.index, taken.segment_use & 0xffff_ffff, taken.recycled)
    };
    assert_eq!(take(3), (4, 1, false));
    assert_eq!(take(1), (1, 2, true));
    assert_eq!(take(1), (2, 3, true));
    assert_eq!(take(1), (7, 4, false));
    assert_eq!(
        [4, 5, 1, 7].map(|index| space.units_of(index)),
        [3, 1, 1, 1]
    );
    let units: Vec<u32> = space.entries().iter().map(|entry| entry.units).collect();
    assert_eq!(units, [1, 1, 1, 1, 3, 0, 0, 1]);
    assert_eq!(file.len().expect("known"), 8 * SEGMENT);
    assert_eq!(space.free_bytes(), 0);
}

/// Not while another process reads the file; once nobody did, also beside one that came later.
#[test]
fn no_free_segment_is_taken_beside_a_reader() {
    let (disk, file) = disk(4 * SEGMENT);
    let mut space = space("L--L", &*file, NO_LIMIT);
    let reader = disk
        .open(Path::new(STORE), Access::ReadOnly)
        .expect("there");
    let shared = || reader.try_lock_byte(LockByte::Readers, LockMode::Shared);
    assert!(shared().expect("a lock"));
    assert_eq!(index_and_recycled(space.take(&*file, 1, 4096)), (4, false));
    reader.unlock_byte(LockByte::Readers).expect("a lock");
    assert_eq!(index_and_recycled(space.take(&*file, 1, 4096)), (1, true));
    assert!(shared().expect("a lock"));
    assert_eq!(index_and_recycled(space.take(&*file, 1, 4096)), (2, true));
}

/// A free segment that is a hole gets its blocks before it is taken; where there are none, one that has blocks is
/// taken. A disk that fails is told so.
#[test]
fn a_free_segment_with_holes() {
    let (disk, file) = disk(SEGMENT);
    file.set_len(2 * SEGMENT).expect("a hole");
    file.allocate(2 * SEGMENT, SEGMENT).expect("room");
    disk.set_capacity(Some(2 * SEGMENT));
    let mut space = space("L-", &*file, NO_LIMIT);
    assert_eq!(
        index_and_recycled(space.take(&*file, 1, SEGMENT)),
        (2, false)
    );
    let full = space.take(&*file, 1, SEGMENT);
    assert!(matches!(full, Err(Error::NoSpace { .. })), "{full:?}");
    disk.set_capacity(None);
    disk.fail(FaultPlan::once(Call::Allocate, 1, libc::EIO));
    let failed = space.take(&*file, 1, SEGMENT);
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert_eq!(
        index_and_recycled(space.take(&*file, 1, SEGMENT)),
        (1, true)
    );
}

/// Free segments get their blocks each for itself, when it is taken.
#[test]
fn each_free_segment_gets_its_blocks() {
    let (_disk, file) = disk(SEGMENT);
    file.set_len(4 * SEGMENT).expect("a hole");
    let mut space = space("L---", &*file, NO_LIMIT);
    for taken in 1..=3 {
        let index = index_and_recycled(space.take(&*file, 1, 4096)).0;
        assert_eq!(u64::from(index), taken);
        let blocks = file.allocated_bytes().expect("known");
        assert_eq!(blocks, (taken + 1) * SEGMENT);
    }
}

/// What is kept for upkeep has blocks behind the log's end: in its segment, in free segments that had none, behind the
/// last; half as much again where it is not in one piece, and not much more (C-6).
#[test]
fn what_is_kept_has_blocks() {
    let end = SEGMENT / 2;
    for (table, kept) in [
        ("L", 8192),
        ("L", 100_000),
        ("L---", 8192),
        ("L---", 20_000),
        ("L---", 100_000),
        ("L---", 150_000),
        ("L---", 300_000),
    ] {
        // The log goes on in its segment, takes a free or a fresh one, or two; or a fresh one is left nearly empty.
        for (short, unused) in [(0, 0), (1, 0), (2, 0), (1, 40_000)] {
            let units = table.len() as u64;
            let (_disk, file) = disk(if units > 1 { SEGMENT } else { end });
            if units > 1 {
                file.set_len(units * SEGMENT).expect("a hole");
            }
            let mut space = space(table, &*file, (0, NO_LIMIT.1));
            let room = Room::Upkeep;
            if short == 0 {
                space.reserve_within(&*file, SEGMENT, end, room, kept)
            } else {
                let wanted = Wanted {
                    short,
                    long_units: 0,
                    last_is_short: true,
                    unused,
                };
                space.reserve(&*file, wanted, room, kept)
            }
            .expect("room");
            let what = format!("{table}, {kept} behind {short} segments, {unused} unused");
            let blocks = file.allocated_bytes().expect("known") - end;
            // Free segments are taken before fresh ones, of which alone the end is known.
            let unused = if units > 1 { 0 } else { unused };
            let taken = u64::from(short) * SEGMENT - unused;
            assert!(blocks >= taken + kept, "{what}: {blocks} bytes");
            let most = taken + unused.max(kept + kept / 2 + 2 * SEGMENT);
            assert!(blocks <= most, "{what}: {blocks} bytes of {most}");
            if unused > kept {
                // What is left empty is enough, to a block.
                let most = end + taken + kept + BLOCK_BYTES;
                assert!(blocks <= most, "{what}: {blocks} bytes of {most}");
            }
        }
    }
}

/// The file grows by an eighth, within bounds, to the limit of the store; on a nearly full disk by what is needed.
/// A failure that is no full disk is told and not tried again (C-4).
#[test]
fn the_file_is_allocated_in_steps() {
    const MIB: u64 = 1 << 20;
    for (len, step) in [
        (SEGMENT, 16 << 10),
        (2 * MIB, MIB / 4),
        (256 * MIB, 16 * MIB),
    ] {
        let (disk, file) = disk(SEGMENT);
        file.set_len(len).expect("a hole");
        let mut space = space("L", &*file, NO_LIMIT);
        space.allocate(&*file, len).expect("there");
        assert_eq!(file.len().expect("known"), len);
        space.allocate(&*file, len + 1).expect("room");
        assert_eq!(file.len().expect("known"), len + step);
        assert_eq!(space.allocated(), len + step);
        disk.set_capacity(Some(SEGMENT + step + 8192));
        space.allocate(&*file, len + step + 8192).expect("room");
        assert_eq!(space.allocated(), len + step + 8192);
        let full = space.allocate(&*file, len + step + 8200);
        assert!(
            matches!(full, Err(Error::NoSpace { needed: 8 })),
            "{full:?}"
        );
        disk.set_capacity(None);
        disk.fail(FaultPlan::once(Call::Allocate, 1, libc::EIO));
        let failed = space.allocate(&*file, len + step + 8193);
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    }
    let (_disk, file) = disk(SEGMENT);
    let mut limited = space("L", &*file, (SEGMENT + 5000, NO_LIMIT.1));
    limited.allocate(&*file, SEGMENT + 1).expect("room");
    assert_eq!(file.len().expect("known"), SEGMENT + 5000);
    limited.allocate(&*file, SEGMENT + 6000).expect("room");
    assert_eq!(file.len().expect("known"), SEGMENT + 6000);
}

/// The file is cut behind the log's end where nothing lies behind it that is in use and nobody reads it.
#[test]
fn the_file_is_cut_where_nobody_misses_it() {
    for (table, end, cut) in [
        ("L--", SEGMENTS_START + 4096, true),
        ("L-L", SEGMENTS_START + 4096, false),
        ("L-L", 2 * SEGMENT + 4096, true),
        ("LL-", SEGMENT, false),
        ("L--", SEGMENT, true),
        ("L--", 3 * SEGMENT, false),
        ("L--", 3 * SEGMENT + 4096, false),
    ] {
        let (_disk, file) = disk(3 * SEGMENT);
        let mut space = space(table, &*file, NO_LIMIT);
        space.cut(&*file, Position(end)).expect("no failure");
        let len = if cut { end } else { 3 * SEGMENT };
        assert_eq!(file.len().expect("known"), len, "{table} cut at {end}");
        assert_eq!(space.allocated(), len);
    }
    let (disk, file) = disk(3 * SEGMENT);
    let mut space = space("L--", &*file, NO_LIMIT);
    let reader = disk
        .open(Path::new(STORE), Access::ReadOnly)
        .expect("there");
    let shared = reader.try_lock_byte(LockByte::Readers, LockMode::Shared);
    assert!(shared.expect("a lock"));
    space.cut(&*file, Position(SEGMENT)).expect("no failure");
    assert_eq!(file.len().expect("known"), 3 * SEGMENT);
}

/// How far changes and upkeep may go, when free segments are there and when not.
#[test]
fn limits_of_what_is_reserved() {
    let full = |result: Result<()>| match result {
        Ok(()) => false,
        Err(Error::StoreFull { .. }) => true,
        Err(error) => panic!("{error:?}"),
    };
    // Short and long segments wanted, with so much of the last unused, and whether changes and upkeep may have them
    // in a store of four segments whose upkeep may have two more.
    let cases = [
        ("LLL", 1, 0, 0, [true, true]),
        ("LLL", 2, 0, 0, [false, true]),
        ("LLL", 2, 0, SEGMENT, [true, true]),
        ("LLL", 2, 0, SEGMENT - 1, [false, true]),
        ("LLL", 4, 0, 0, [false, false]),
        ("LLL", 0, 1, 0, [true, true]),
        ("LLL", 0, 2, 0, [false, true]),
        ("LLL", 1, 1, 0, [false, true]),
        ("L-L-", 2, 0, 0, [true, true]),
        ("L-L-", 3, 0, 0, [false, true]),
        ("L-L-", 2, 1, 0, [false, true]),
        ("L-L-", 0, 1, 0, [false, true]),
        ("L-L-", 4, 0, 0, [false, true]),
        ("L-L-", 5, 0, 0, [false, false]),
    ];
    for (table, short, long_units, unused, may) in cases {
        for (room, may) in [(Room::Changes, may[0]), (Room::Upkeep, may[1])] {
            let (_disk, file) = disk(3 * SEGMENT);
            let mut space = space(table, &*file, (4 * SEGMENT, 6 * SEGMENT));
            let wanted = Wanted {
                short,
                long_units,
                last_is_short: short > 0,
                unused,
            };
            let refused = full(space.reserve(&*file, wanted, room, 0));
            assert_eq!(refused, !may, "{table} {wanted:?} {room:?}");
        }
    }
    // Within its segment the log may go on up to the limit, and so much further as is free.
    let max = 2 * SEGMENT + 8192;
    for (table, last, end, may) in [
        ("LLL", 3, max, true),
        ("LLL", 3, max + 1, false),
        ("LL-L", 4, max + SEGMENT, true),
        ("LL-L", 4, max + SEGMENT + 1, false),
        ("L--L", 4, max + SEGMENT + 1, true),
        // In a segment that is used again the file does not become longer.
        ("LLLL", 2, SEGMENT + 8192, false),
        ("LL-L", 2, SEGMENT + 8192, true),
    ] {
        let (_disk, file) = disk(4 * SEGMENT);
        let mut space = space(table, &*file, (max, NO_LIMIT.1));
        let reserved = space.reserve_within(&*file, last * SEGMENT, end, Room::Changes, 0);
        assert_eq!(!full(reserved), may, "{table} to {end}");
    }
}

/// A log in the first segment of an empty file.
fn log_of(file: &Arc<dyn Storage>, geometry: Geometry, space: Space) -> Log {
    let segment_bytes = geometry.segment_bytes();
    let region = Region::reserve(1 << 30, segment_bytes).expect("addresses");
    let medium = Medium::new(Arc::clone(file), region, geometry, [7; 16], false);
    let head = LogHead {
        position: Position(SEGMENTS_START + SEGMENT_HEADER_BYTES as u64),
        sequence: 1,
        segment_use: 2 << 32,
        segment: 0,
        prev_crc: 0,
    };
    let log = Log::first(Arc::new(medium), space, 2, head, Revision::new(1));
    log.expect("addresses")
}

/// One in small segments. Nothing is allocated beyond what is asked for.
fn log(file: &Arc<dyn Storage>) -> Log {
    log_of(file, GEOMETRY, space("L", &**file, (0, 1 << 30)))
}

/// Appends a record of `len` bytes.
fn append(log: &mut Log, len: usize, in_run: bool) {
    let value = vec![7; len - 56];
    let record = NewRecord {
        kind: RecordKind::Put,
        id: ChangeId::new(Revision::new(2), 0),
        create: Revision::new(2),
        version: 1,
        lease: LeaseId::default(),
        ordinal: 1,
        prev: None,
        skip: None,
        key: b"some key",
        value: &value,
    };
    assert_eq!(record.record_len(), len);
    let put = log.append(&record, in_run).expect("it was reserved");
    assert_eq!(put.position.0 % 8, 0);
}

/// What was reserved can be appended, and its group be sealed, without another call for space; and not much more
/// was asked for. By chance: short and long pieces, also such as need segments of their own.
#[test]
fn what_was_reserved_is_there() {
    let mut random = Random::new(1);
    for round in 0..60 {
        let (disk, file) = disk(SEGMENTS_START);
        let mut log = log(&file);
        for _ in 0..6 {
            let longest = [200, 3000, 20_000, 70_000, 200_000][random.below(5)];
            let count = 1 + random.below(if longest > 10_000 { 6 } else { 60 });
            let piece = |random: &mut Random| 56 + 8 * random.below(longest / 8);
            let pieces: Vec<usize> = (0..count).map(|_| piece(&mut random)).collect();
            let sum = pieces.iter().sum::<usize>();
            let before = log.head().position;
            let had = log.space().allocated();
            log.reserve(pieces.iter().copied(), Room::Upkeep, 0)
                .expect("room");
            let asked = log.space().allocated();
            disk.reset_counts();
            log.begin_transaction(sum).expect("written");
            for (n, len) in pieces.iter().enumerate() {
                append(&mut log, *len, n > 0);
            }
            log.seal().expect("written");
            let what = format!("round {round}: {pieces:?} behind {before:?}");
            assert_eq!(disk.count(Call::Allocate), 0, "{what}");
            // Frames' headers, and blocks at the ends of groups and segments.
            let segments = pieces.iter().map(|len| *len as u64 + SEGMENT);
            let most = if before.0 % SEGMENT + sum as u64 + 1000 < SEGMENT - 3 * BLOCK_BYTES {
                before.0 + sum as u64 + (pieces.len() * 72) as u64 + 2 * BLOCK_BYTES
            } else {
                log.space().entries().len() as u64 * SEGMENT + segments.max().unwrap_or(0)
            };
            assert!(asked <= most.max(had), "{what}: {asked} of {most}");
            log.synced(log.head().sequence);
        }
    }
}

/// A frame is closed before the transaction, the record or the item that would make it longer than L-15, and not
/// before (B-29).
#[test]
fn frames_are_as_long_as_they_may_be() {
    const MOST: usize = FRAME_BODY_BYTES - FRAME_HEADER_BYTES;
    let large = || {
        let disk = SimDisk::new(SimOptions::default());
        let file = disk.create_new(Path::new(STORE)).expect("a fresh disk");
        let geometry = Geometry::new(4 << 20);
        log_of(
            &file,
            geometry,
            Space::new(geometry, entries("L"), 0, NO_LIMIT, 2),
        )
    };
    let item = |value: &'static [u8]| Control::TablePut {
        table: "t",
        key: b"k",
        value,
    };
    static VALUE: [u8; 1000] = [7; 1000];
    let item_len = item(&VALUE).encoded_len();
    for (before, more, frames) in [(1000, MOST - 1000, 1), (1000, MOST - 992, 2)] {
        let mut log = large();
        append(&mut log, before, false);
        log.begin_transaction(more).expect("written");
        assert_eq!(log.sequence(), frames, "a transaction of {more}");
        let mut log = large();
        append(&mut log, before, false);
        append(&mut log, more, false);
        assert_eq!(log.sequence(), frames, "a record of {more}");
        // Items count as records do.
        let mut log = large();
        log.control(&item(&VALUE), false).expect("written");
        append(&mut log, before, false);
        append(&mut log, more - item_len, false);
        assert_eq!(log.sequence(), frames, "a record of {more} with an item");
        let mut log = large();
        log.control(&item(&VALUE), false).expect("written");
        append(&mut log, before, false);
        log.begin_transaction(more - item_len).expect("written");
        assert_eq!(
            log.sequence(),
            frames,
            "a transaction of {more} with an item"
        );
        let mut log = large();
        append(&mut log, before + more - item_len, false);
        log.control(&item(&VALUE), false).expect("written");
        assert_eq!(log.sequence(), frames, "an item");
    }
    // What is longer has a frame alone, and does not leave an empty one before it.
    let mut log = large();
    append(&mut log, 2 * FRAME_BODY_BYTES, false);
    assert_eq!(log.sequence(), 1);
    append(&mut log, 56, false);
    assert_eq!(log.sequence(), 2);
}

/// Chunks of a checkpoint are a quarter of a segment, and no longer than frames (B-82).
#[test]
fn chunks_fit_their_segments() {
    let (_disk, file) = disk(SEGMENTS_START);
    assert_eq!(log(&file).chunk_bytes() as u64, SEGMENT / 4);
}
