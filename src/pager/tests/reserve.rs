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
use crate::pager::space::{Kept, Taken, Wanted};
use crate::pager::{Garbage, Log, Medium, Pages, Room, Space};
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

/// A table by letters: `L` in use, `D` and `d` in use by one segment of two units, `-` free.
fn entries(table: &str) -> Vec<SegmentEntry> {
    let used = |units| SegmentEntry {
        state: SegmentState::Log,
        segment_use: 1 << 32,
        units,
        dead: 0,
    };
    let entry = |letter| match letter {
        'L' => used(1),
        'D' => used(2),
        'd' => used(0),
        _ => SegmentEntry::FREE,
    };
    table.chars().map(entry).collect()
}

fn head(segment: u32, position: u64) -> LogHead {
    LogHead {
        position: Position(position),
        sequence: 1,
        segment_use: 2 << 32,
        segment,
        prev_crc: 0,
    }
}

/// A space that takes the file to have blocks as far as it goes.
fn space(table: &str, file: &dyn Storage, limits: (u64, u64)) -> Space {
    let mut space = Space::new(GEOMETRY, entries(table), Garbage::new(GEOMETRY), limits, 2);
    let last = u32::try_from(table.len() - 1).expect("a short table");
    let end = head(last, file.len().expect("known"));
    space.cut(file, &end).expect("nothing is cut");
    space
}

/// A segment of so many units is asked for, and taken.
fn take(space: &mut Space, file: &dyn Storage, units: u32) -> Result<Taken> {
    let is_short = units == 1;
    let wanted = Wanted {
        short: u32::from(is_short),
        long_units: if is_short { 0 } else { units },
        last_is_short: is_short,
        ..Wanted::default()
    };
    space.reserve(file, None, wanted, Room::Upkeep, Kept::default())?;
    space.take(file, units, u64::from(units) * SEGMENT)
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
    let mut taken = |units| {
        let taken = take(&mut space, &*file, units).expect("room");
        (taken.index, taken.segment_use & 0xffff_ffff, taken.recycled)
    };
    assert_eq!(taken(3), (4, 1, false));
    assert_eq!(taken(1), (1, 2, true));
    assert_eq!(taken(1), (2, 3, true));
    assert_eq!(taken(1), (7, 4, false));
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
    let mut taken = || index_and_recycled(take(&mut space, &*file, 1));
    assert_eq!(taken(), (4, false));
    reader.unlock_byte(LockByte::Readers).expect("a lock");
    assert_eq!(taken(), (1, true));
    assert!(shared().expect("a lock"));
    assert_eq!(taken(), (2, true));
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
    assert_eq!(index_and_recycled(take(&mut space, &*file, 1)), (2, false));
    let full = take(&mut space, &*file, 1);
    assert!(matches!(full, Err(Error::NoSpace { .. })), "{full:?}");
    disk.set_capacity(None);
    disk.fail(FaultPlan::once(Call::Allocate, 1, libc::EIO));
    let failed = take(&mut space, &*file, 1);
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert_eq!(index_and_recycled(take(&mut space, &*file, 1)), (1, true));
}

/// Free segments get their blocks each for itself, when it is taken.
#[test]
fn each_free_segment_gets_its_blocks() {
    let (_disk, file) = disk(SEGMENT);
    file.set_len(4 * SEGMENT).expect("a hole");
    let mut space = space("L---", &*file, NO_LIMIT);
    for taken in 1..=3 {
        let index = index_and_recycled(take(&mut space, &*file, 1)).0;
        assert_eq!(u64::from(index), taken);
        let blocks = file.allocated_bytes().expect("known");
        assert_eq!(blocks, (taken + 1) * SEGMENT);
    }
}

/// Kept for pieces of which none is longer than a segment, in whatever segment there is.
fn of_bytes(bytes: u64) -> Kept {
    Kept {
        bytes,
        ..Kept::default()
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
            let wanted = Wanted {
                short,
                last_is_short: short > 0,
                left: if short > 0 { unused } else { SEGMENT - end },
                ..Wanted::default()
            };
            space
                .reserve(&*file, Some(SEGMENT), wanted, Room::Upkeep, of_bytes(kept))
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

/// Segments for the cleaner are whole ones: free ones with blocks, or such as come behind the last; never what is left of
/// the log's. What is kept besides may lie there, also while one of them is taken for a run (C-6).
#[test]
fn what_is_kept_for_the_cleaner_is_whole_segments() {
    for (table, segments, fresh) in [
        ("L", 2, 2),
        ("L-", 2, 1),
        ("L---", 2, 0),
        ("L-L", 2, 1),
        ("L", 0, 0),
    ] {
        for (for_run, short) in [(false, 0), (true, 1)] {
            let units = table.len() as u64;
            let what = format!("{table} {segments} {for_run}");
            let (_disk, file) = disk(SEGMENT / 2);
            file.set_len(units * SEGMENT).expect("a hole");
            let mut space = space(table, &*file, (0, NO_LIMIT.1));
            let wanted = Wanted {
                short,
                for_run,
                left: SEGMENT / 2,
                ..Wanted::default()
            };
            let kept = Kept {
                bytes: 8192,
                segments,
                ..Kept::default()
            };
            space
                .reserve(&*file, Some(SEGMENT), wanted, Room::Upkeep, kept)
                .expect("room");
            let free = table.matches('-').count() as u64;
            let behind = (u64::from(segments + short)).saturating_sub(free);
            assert!(for_run || behind == fresh, "{what}");
            let len = file.len().expect("known") - units * SEGMENT;
            assert_eq!(len, behind * SEGMENT, "{what}");
        }
    }
}

/// No free segment is counted on for a piece that is longer than one, nor what is left of a segment that cannot be cut
/// off for a recovery. One that has blocks is counted on though another cannot have them (C-6).
#[test]
fn what_is_kept_lies_where_it_can_be_used() {
    let kept = |has_long, for_recovery| Kept {
        bytes: 8192,
        has_long,
        for_recovery,
        segments: 0,
    };
    // The table, with the log in the middle of its first segment; how many free ones have blocks; what is kept; how many
    // bytes behind the last segment it takes.
    for (table, backed, kept, behind) in [
        ("L-L", 1, kept(false, false), 0),
        ("L-L", 1, kept(true, false), 0),
        ("L-L", 1, kept(false, true), 0),
        ("L-L", 0, kept(false, true), 12_288),
        ("L-L", 0, kept(true, true), 12_288),
        ("L", 0, kept(true, true), 0),
    ] {
        let units = table.len() as u64;
        let what = format!("{table} {kept:?}");
        let reserve = |capacity: u64| {
            let (disk, file) = disk(SEGMENT);
            file.set_len(units * SEGMENT).expect("a hole");
            disk.set_capacity(Some(capacity));
            let mut space = space(table, &*file, (0, NO_LIMIT.1));
            let wanted = Wanted {
                left: SEGMENT / 2,
                ..Wanted::default()
            };
            space.reserve(&*file, Some(SEGMENT), wanted, Room::Upkeep, kept)?;
            Ok(file.len().expect("known") - units * SEGMENT)
        };
        let capacity = (1 + backed) * SEGMENT + behind;
        assert_eq!(reserve(capacity).expect(&what), behind, "{what}");
        let full: Result<u64> = reserve(capacity - BLOCK_BYTES);
        let is_full = matches!(full, Err(Error::NoSpace { .. }));
        assert_eq!(is_full, behind > 0, "{what}: {full:?}");
    }
    // The first free one has a hole that the disk cannot fill.
    let (disk, file) = disk(SEGMENT);
    file.set_len(4 * SEGMENT).expect("a hole");
    file.allocate(2 * SEGMENT, SEGMENT).expect("room");
    disk.set_capacity(Some(2 * SEGMENT));
    let mut space = space("L--L", &*file, NO_LIMIT);
    let kept = kept(false, true);
    space
        .reserve(&*file, Some(SEGMENT), Wanted::default(), Room::Upkeep, kept)
        .expect("room");
    assert_eq!(index_and_recycled(take(&mut space, &*file, 1)), (2, true));
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
        let mut allocate = |end| {
            let result = space.allocate(&*file, 0, end, end);
            result.map(|()| space.allocated())
        };
        assert_eq!(allocate(len).expect("there"), len);
        assert_eq!(file.len().expect("known"), len);
        assert_eq!(allocate(len + 1).expect("room"), len + step);
        assert_eq!(file.len().expect("known"), len + step);
        disk.set_capacity(Some(SEGMENT + step + 8192));
        let enough = len + step + 8192;
        assert_eq!(allocate(enough).expect("room"), enough);
        let full = allocate(enough + 8);
        assert!(
            matches!(full, Err(Error::NoSpace { needed: 8 })),
            "{full:?}"
        );
        disk.set_capacity(None);
        disk.fail(FaultPlan::once(Call::Allocate, 1, libc::EIO));
        let failed = allocate(enough + 1);
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    }
    let (_disk, file) = disk(SEGMENT);
    let mut limited = space("L", &*file, (SEGMENT + 5000, NO_LIMIT.1));
    for (end, len) in [
        (SEGMENT + 1, SEGMENT + 5000),
        (SEGMENT + 6000, SEGMENT + 6000),
    ] {
        limited.allocate(&*file, 0, end, end).expect("room");
        assert_eq!(file.len().expect("known"), len);
    }
    // What no log will reach needs no blocks; what may be left out is, on a full disk.
    let (disk, file) = disk(SEGMENT);
    let mut space = space("L", &*file, (0, NO_LIMIT.1));
    disk.set_capacity(Some(SEGMENT + 8192));
    let start = 2 * SEGMENT;
    space
        .allocate(&*file, start, start + 8192, start + 12_288)
        .expect("room");
    assert_eq!(file.len().expect("known"), start + 8192);
    assert_eq!(file.allocated_bytes().expect("known"), SEGMENT + 8192);
}

/// The file is cut behind the last segment in use, or behind the log's end where that lies in it; not where somebody
/// reads it. Free segments behind its end are none any more (C-4).
#[test]
fn the_file_is_cut_where_nobody_misses_it() {
    for (table, head, len, left) in [
        (
            "L--",
            head(0, SEGMENTS_START + 4096),
            SEGMENTS_START + 4096,
            "L",
        ),
        ("L--", head(0, SEGMENT), SEGMENT, "L"),
        ("L-L", head(0, SEGMENTS_START + 4096), 3 * SEGMENT, "L-L"),
        ("L-L--", head(0, SEGMENT), 3 * SEGMENT, "L-L"),
        ("LL---", head(0, SEGMENT), 2 * SEGMENT, "LL"),
        (
            "L-L-",
            head(2, 2 * SEGMENT + 4096),
            2 * SEGMENT + 4096,
            "L-L",
        ),
        (
            "L-Dd-",
            head(2, 2 * SEGMENT + 4096),
            2 * SEGMENT + 4096,
            "L-Dd",
        ),
        ("L-Dd-", head(0, SEGMENT), 4 * SEGMENT, "L-Dd"),
        // A head in a segment that recovery has not put to use yet.
        (
            "L---",
            head(2, 2 * SEGMENT + 4096),
            2 * SEGMENT + 4096,
            "L--",
        ),
    ] {
        let (disk, file) = disk(table.len() as u64 * SEGMENT);
        let mut space = Space::new(
            GEOMETRY,
            entries(table),
            Garbage::new(GEOMETRY),
            NO_LIMIT,
            2,
        );
        let reader = disk
            .open(Path::new(STORE), Access::ReadOnly)
            .expect("there");
        let shared = reader.try_lock_byte(LockByte::Readers, LockMode::Shared);
        assert!(shared.expect("a lock"));
        space.cut(&*file, &head).expect("no failure");
        let whole = table.len() as u64 * SEGMENT;
        assert_eq!(file.len().expect("known"), whole, "{table} read by another");
        // What lies behind may have holes: blocks are asked for from there.
        assert_eq!(space.allocated(), len, "{table}");
        assert_eq!(space.entries(), entries(table), "{table}");
        reader.unlock_byte(LockByte::Readers).expect("a lock");
        space.cut(&*file, &head).expect("no failure");
        assert_eq!(file.len().expect("known"), len, "{table}");
        assert_eq!(space.allocated(), len, "{table}");
        assert_eq!(space.entries(), entries(left), "{table}");
        let free = left.chars().filter(|letter| *letter == '-').count() as u64;
        assert_eq!(space.free_bytes(), free * SEGMENT, "{table}");
    }
    // A file that ends before its head.
    let (_disk, file) = disk(SEGMENTS_START);
    let mut space = Space::new(GEOMETRY, entries("L"), Garbage::new(GEOMETRY), NO_LIMIT, 2);
    space.cut(&*file, &head(0, SEGMENT)).expect("no failure");
    assert_eq!(space.allocated(), SEGMENTS_START);
}

/// How far changes and upkeep may go, when free segments are there and when not.
#[test]
fn limits_of_what_is_reserved() {
    let full = |result: Result<()>| match result {
        Ok(()) => false,
        Err(Error::StoreFull { .. }) => true,
        Err(error) => panic!("{error:?}"),
    };
    // Short and long segments wanted, with so much left of the last, and whether changes and upkeep may have them
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
    for (table, short, long_units, left, may) in cases {
        for (room, may) in [(Room::Changes, may[0]), (Room::Upkeep, may[1])] {
            let (_disk, file) = disk(table.len() as u64 * SEGMENT);
            let mut space = space(table, &*file, (4 * SEGMENT, 6 * SEGMENT));
            let wanted = Wanted {
                short,
                long_units,
                last_is_short: short > 0,
                left,
                ..Wanted::default()
            };
            let refused = full(space.reserve(&*file, None, wanted, room, Kept::default()));
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
        let segment_end = last * SEGMENT;
        let wanted = Wanted {
            left: segment_end - end,
            ..Wanted::default()
        };
        let room = Room::Changes;
        let reserved = space.reserve(&*file, Some(segment_end), wanted, room, Kept::default());
        assert_eq!(!full(reserved), may, "{table} to {end}");
    }
    // What changes leave for upkeep is below its limit too: behind the log's end, or behind its segment, half as much
    // again.
    let end = SEGMENT / 2;
    for (kept, max) in [(8192, end + 8192), (SEGMENT, SEGMENT + SEGMENT * 3 / 2)] {
        for (max, may) in [(max, true), (max - 1, false)] {
            let (_disk, file) = disk(end);
            let mut space = space("L", &*file, (end, max));
            let wanted = Wanted {
                left: SEGMENT - end,
                ..Wanted::default()
            };
            let room = Room::Changes;
            let reserved = space.reserve(&*file, Some(SEGMENT), wanted, room, of_bytes(kept));
            assert_eq!(!full(reserved), may, "{kept} kept below {max}");
        }
    }
}

/// A log in the first segment of an empty file.
fn log_of(file: &Arc<dyn Storage>, geometry: Geometry, space: Space) -> Log {
    let segment_bytes = geometry.segment_bytes();
    let region = Region::reserve(1 << 30, segment_bytes).expect("addresses");
    let medium = Medium::new(Arc::clone(file), region, geometry, [7; 16], false);
    let head = head(0, SEGMENTS_START + SEGMENT_HEADER_BYTES as u64);
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
            let wanted = log.wanted(pieces.iter().copied());
            log.reserve(wanted, Room::Upkeep, Pages::default())
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
            Space::new(geometry, entries("L"), Garbage::new(geometry), NO_LIMIT, 2),
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
