//! Runs, read back from the file frame by frame (SPEC.md, B-31, B-32).

use revtree_format::limits::{BLOCK_BYTES, FRAME_BODY_BYTES, LEAF_BYTES_MAX};
use revtree_format::{
    ChangeId, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Geometry, LeafRun, LeaseId, NewRecord,
    Position, RecordKind, Revision, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind, parse_record,
};

use crate::pager::run::RunSegment;
use crate::pager::{Medium, RunWriter, claim};
use crate::sys::{Disk, MemoryDisk, Region};

const SEGMENT: u64 = 256 << 10;
const USE: u64 = 5 << 32;
const UNITS: u32 = 32;

fn medium() -> Medium {
    let disk = MemoryDisk::new();
    let storage = disk.create_new("store".as_ref()).expect("the first");
    let region = Region::reserve(u64::from(UNITS) * SEGMENT, SEGMENT).expect("a little");
    let geometry = Geometry::new(u32::try_from(SEGMENT).expect("small"));
    Medium::new(storage, region, geometry, [3; 16], false)
}

fn put<'a>(rev: u64, key: &'a [u8], value: &'a [u8]) -> NewRecord<'a> {
    NewRecord {
        kind: RecordKind::Put,
        id: ChangeId::new(Revision::new(rev), 0),
        create: Revision::new(rev),
        version: 1,
        lease: LeaseId::NONE,
        ordinal: 1,
        prev: None,
        skip: None,
        key,
        value,
    }
}

/// Segments one behind the other, as long as is asked for.
fn segments(medium: &Medium) -> impl FnMut(usize) -> crate::error::Result<RunSegment> {
    let mut next = 1;
    move |len| {
        let bytes = (len + SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES) as u64 + BLOCK_BYTES;
        let units = u32::try_from(bytes.div_ceil(SEGMENT)).expect("small");
        let index = next;
        next += units;
        let extent = claim(medium, index, units)?;
        Ok(RunSegment::new(
            extent,
            index,
            units,
            USE + u64::from(index),
        ))
    }
}

/// Every record is found where it was said to be, in frames that are bound to store, use and place; leaves follow
/// from the frames alone; a frame ends where it is interrupted.
#[test]
fn runs_are_frames_of_records() {
    let medium = medium();
    let mut writer = RunWriter::new(&medium, 9, segments(&medium));
    let value = vec![8; 700_000];
    let mut placed = Vec::new();
    let mut interrupts = Vec::new();
    for rev in 2..700u64 {
        let len = match rev % 97 {
            0 => 20_000,
            1 if rev > 600 => value.len(),
            n => usize::try_from(n).expect("small") * 20,
        };
        let key = rev.to_be_bytes();
        if rev % 40 == 0 {
            writer.interrupt();
            interrupts.push(rev);
        }
        let position = writer.append(&put(rev, &key, &value[..len])).expect("room");
        placed.push((rev, position));
    }
    writer.write_out().expect("in memory");
    let mut run = writer.into_run();
    assert!(
        medium.region.bytes(placed[0].1.0, 8).is_none(),
        "nobody reads it yet"
    );
    run.announce(&medium);
    run.publish();
    let mut leaves: Vec<LeafRun> = Vec::new();
    let mut found = Vec::new();
    let mut index = 1;
    while index < run.end() {
        index += walk(&medium, index, &mut leaves, &mut found);
    }
    assert_eq!(found, placed);
    assert_eq!(leaves, run.leaves);
    for rev in interrupts {
        let begins = |leaf: &LeafRun| leaf.first.main.get() == rev;
        assert!(leaves.iter().any(begins), "a leaf goes on over {rev}");
    }
    for (rev, position) in placed {
        let head = medium.head(position).expect("published");
        assert_eq!(head.id.main.get(), rev);
    }
    assert_eq!(run.units(), u64::from(run.end() - 1));
}

/// Walks the frames of a segment; gives its length.
fn walk(
    medium: &Medium,
    index: u32,
    leaves: &mut Vec<LeafRun>,
    found: &mut Vec<(u64, Position)>,
) -> u32 {
    let read = |at: Position, len: usize| {
        let mut bytes = vec![0; len];
        let read = medium.storage.read_at(&mut bytes, at.0);
        read.map(|()| bytes)
    };
    let start = medium.geometry.start(index);
    let raw = read(start, SEGMENT_HEADER_BYTES).expect("written");
    let header = SegmentHeader::parse(&raw, &medium.store_id, start.0).expect("whole");
    assert_eq!((header.kind, header.first_sequence), (SegmentKind::Run, 1));
    assert_eq!(
        (header.index, header.segment_use),
        (index, USE + u64::from(index))
    );
    let limit = medium.geometry.end(index, header.units).0 - BLOCK_BYTES;
    let mut at = start.plus(SEGMENT_HEADER_BYTES as u64);
    let mut sequence = 1;
    while let Ok(raw) = read(at, FRAME_HEADER_BYTES)
        && let Ok((frame, _)) = FrameHeader::parse(&raw, medium.place(header.segment_use, at))
    {
        assert_eq!((frame.kind, frame.sequence), (FrameKind::Run, sequence));
        assert_eq!((frame.prev_crc, frame.synced_up_to, frame.opens), (0, 0, 9));
        assert_eq!(frame.body_len, frame.records_len);
        let mut place = at.plus(FRAME_HEADER_BYTES as u64);
        let body = read(place, frame.body_len as usize).expect("written");
        frame.check_body(&body, at).expect("whole");
        assert!(frame.record_count == 1 || body.len() <= FRAME_BODY_BYTES);
        let mut rest = &body[..];
        let (mut count, mut last) = (0, 0);
        while !rest.is_empty() {
            let (head, _) =
                parse_record(rest, medium.place(header.segment_use, place)).expect("whole");
            let len = head.record_len();
            found.push((head.id.main.get(), place));
            match leaves.last_mut() {
                Some(leaf) if count > 0 && leaf.len as usize + len <= LEAF_BYTES_MAX => {
                    leaf.len += u32::try_from(len).expect("small");
                    leaf.records += 1;
                }
                _ => leaves.push(LeafRun {
                    first: head.id,
                    position: place,
                    segment_use: header.segment_use,
                    len: u32::try_from(len).expect("small"),
                    records: 1,
                }),
            }
            last = head.id.main.get();
            count += 1;
            rest = &rest[len..];
            place = place.plus(len as u64);
        }
        assert_eq!((frame.record_count, frame.revision.get()), (count, last));
        assert!(place.0 <= limit, "frames leave the last block");
        sequence += 1;
        at = frame.next_position(at);
    }
    assert!(sequence > 1, "a segment without a frame");
    header.units
}

/// A run that is given up leaves plain memory, so that its segments can be written as fresh ones.
#[test]
fn a_run_that_is_given_up_leaves_nothing() {
    let medium = medium();
    let mut writer = RunWriter::new(&medium, 9, segments(&medium));
    for rev in 2..900u64 {
        writer
            .append(&put(rev, &rev.to_be_bytes(), &[7; 500]))
            .expect("room");
    }
    let run = writer.into_run();
    run.announce(&medium);
    let end = run.end();
    let given_up = run.give_up(&medium);
    assert_eq!(given_up, (1..end).collect::<Vec<u32>>());
    for index in given_up {
        let extent = claim(&medium, index, 1).expect("given back");
        assert_eq!(extent.floor(), extent.start());
        let len = usize::try_from(SEGMENT).expect("small");
        let bytes = extent.bytes(extent.start(), len).expect("its own");
        assert!(bytes.iter().all(|byte| *byte == 0));
        assert!(!medium.is_in_use(medium.geometry.start(index)));
    }
}
