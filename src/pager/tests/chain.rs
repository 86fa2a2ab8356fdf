//! The walk of the chain over frames made by hand: where a log ends, and what proves that it does not
//! (SPEC.md, C-22 to C-27).

use std::path::Path;
use std::sync::Arc;

use revtree_format::{
    Control, FRAME_HEADER_BYTES, FrameFlags, FrameHeader, FrameKind, Geometry, LogHead, PageRef,
    Place, Position, Revision, Root, RootKind, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind,
    StoreSeed, Superblock,
};

use crate::error::Error;
use crate::pager::{Tail, walk};
use crate::sys::{Disk, MemoryDisk, Storage};

const SEGMENT: u32 = 64 << 10;
const STORE_ID: [u8; 16] = *b"a store of tests";
const GEOMETRY: Geometry = Geometry::new(SEGMENT);
/// The use of the first segment; later ones have greater numbers.
const USE: u64 = 1 << 32;
const PADDED: FrameFlags = FrameFlags {
    padded: true,
    continued: false,
    last_in_segment: false,
};

/// A file with a chain of frames.
pub(super) struct Chain {
    pub(super) file: Arc<dyn Storage>,
    pub(super) superblock: Superblock,
    /// Where the next frame goes.
    pub(super) at: LogHead,
    /// What the next frame says is durable.
    pub(super) synced_up_to: u64,
}

impl Chain {
    /// Nothing behind the first segment's header, in a file of four segments.
    pub(super) fn new() -> Chain {
        let disk = MemoryDisk::new();
        let file = disk.create_new(Path::new("store")).expect("a fresh disk");
        file.set_len(4 * u64::from(SEGMENT)).expect("room");
        let head = LogHead {
            position: Position(16384 + SEGMENT_HEADER_BYTES as u64),
            sequence: 1,
            segment_use: USE,
            segment: 0,
            prev_crc: 0,
        };
        let superblock = Superblock {
            store_id: STORE_ID,
            generation: 1,
            edition: 0,
            opens: 1,
            segment_bytes: SEGMENT,
            head,
            revision: Revision::new(1),
            compact_revision: None,
            applied_index: 0,
            applied_term: 0,
            records: 0,
            segment_count: 1,
            roots: Vec::new(),
        };
        let chain = Chain {
            file,
            superblock,
            at: head,
            synced_up_to: 1,
        };
        chain.header(0, &chain.segment(0, 1, USE));
        chain
    }

    fn segment(&self, index: u32, units: u32, segment_use: u64) -> SegmentHeader {
        SegmentHeader {
            segment_use,
            index,
            units,
            kind: SegmentKind::Log,
            first_sequence: self.at.sequence,
        }
    }

    /// Writes a segment's header.
    fn header(&self, index: u32, header: &SegmentHeader) {
        let start = GEOMETRY.start(index).0;
        self.file
            .write_at(&header.encode(&STORE_ID), start)
            .expect("room");
    }

    /// Appends a frame.
    pub(super) fn frame(&mut self, kind: FrameKind, flags: FrameFlags, body: &[u8]) -> Position {
        let position = self.at.position;
        let header = FrameHeader {
            kind,
            flags,
            body_crc: crc32c::crc32c(body),
            prev_crc: self.at.prev_crc,
            sequence: self.at.sequence,
            synced_up_to: self.synced_up_to,
            revision: Revision::new(1),
            body_len: u32::try_from(body.len()).expect("short"),
            records_len: 0,
            record_count: 0,
            opens: 1,
        };
        let (bytes, crc) = header.encode(Place {
            seed: StoreSeed::new(&STORE_ID),
            segment_use: self.at.segment_use,
            position,
        });
        self.file.write_at(&bytes, position.0).expect("room");
        let body_at = position.0 + FRAME_HEADER_BYTES as u64;
        self.file.write_at(body, body_at).expect("room");
        self.at.position = header.next_position(position);
        self.at.sequence += 1;
        self.at.prev_crc = crc;
        position
    }

    /// A frame of its own group that changes nothing: what was before is durable.
    fn group(&mut self) -> Position {
        self.synced_up_to = self.at.sequence;
        self.frame(FrameKind::Records, PADDED, &[])
    }

    /// Goes on in the segment at `index`, whose header `change` may spoil.
    fn next_segment(&mut self, index: u32, units: u32, change: impl FnOnce(&mut SegmentHeader)) {
        self.goes_on_in(index, units, self.at.segment_use + 1, change);
    }

    fn goes_on_in(
        &mut self,
        index: u32,
        units: u32,
        segment_use: u64,
        change: impl FnOnce(&mut SegmentHeader),
    ) {
        let mut body = Vec::new();
        Control::NextSegment {
            index,
            units,
            segment_use,
        }
        .encode(&mut body);
        let flags = FrameFlags {
            last_in_segment: true,
            ..FrameFlags::default()
        };
        self.frame(FrameKind::Records, flags, &body);
        let mut header = self.segment(index, units, segment_use);
        change(&mut header);
        self.header(index, &header);
        self.at.segment = index;
        self.at.segment_use = segment_use;
        let first = GEOMETRY.start(index).0 + SEGMENT_HEADER_BYTES as u64;
        self.at.position = Position(first);
    }

    /// Spoils the frame at a position.
    fn spoil(&self, frame: Position) {
        self.file.write_at(&[0xee; 8], frame.0 + 8).expect("room");
    }

    pub(super) fn walk(&self) -> Tail {
        walk(&*self.file, &self.superblock).expect("it ends somewhere")
    }
}

/// What is wrong with a segment's header.
type Change = fn(&mut SegmentHeader);

/// Says whether the walk that meets a damaged frame finds the proof behind it that it had been durable.
fn is_damage(chain: &Chain, frames: usize) -> bool {
    let tail = chain.walk();
    assert_eq!(tail.frames.len(), frames);
    tail.damage.is_some()
}

/// A frame behind a bad one proves that the bad one was durable if it was closed after a sync of it, and else not
/// (C-25): the mark of a frame covers what is below it.
#[test]
fn a_frame_that_was_synced_is_proved_by_a_later_one() {
    for (mark, proves) in [(1, false), (2, false), (3, true)] {
        let mut chain = Chain::new();
        chain.group();
        let bad = chain.group();
        chain.synced_up_to = mark;
        let proof = chain.frame(FrameKind::Records, PADDED, &[]);
        assert_eq!(chain.walk().frames.len(), 3);
        chain.spoil(bad);
        assert_eq!(is_damage(&chain, 1), proves, "a mark of {mark}");
        // Not by itself: without a frame behind it this is the log's end.
        chain.spoil(proof);
        assert!(!is_damage(&chain, 1));
    }
}

/// The proof may be the last thing in the file, and lie at any multiple of 8.
#[test]
fn a_proof_at_the_end_of_the_file() {
    for gap in [0, 8, 64, 4088] {
        let mut chain = Chain::new();
        let bad = chain.group();
        chain.at.position = Position(chain.at.position.0 + gap);
        let proof = chain.group();
        chain.spoil(bad);
        let end = proof.0 + FRAME_HEADER_BYTES as u64;
        for (len, proves) in [(end, true), (end - 8, false)] {
            chain.file.set_len(len).expect("shorter");
            assert_eq!(is_damage(&chain, 0), proves, "{gap}: {len} bytes");
        }
    }
}

/// It may also lie in a segment that was put to use later, wherever in the file; one of an earlier use proves
/// nothing, nor what lies in a segment that says of itself that it is another.
#[test]
fn a_proof_in_another_segment() {
    let cases: [(u32, u64, Change, bool); 5] = [
        (1, USE + 1, |_| (), true),
        (3, USE + 1, |_| (), true),
        (1, USE - 1, |_| (), false),
        (1, USE, |_| (), false),
        (1, USE + 1, |header| header.index = 2, false),
    ];
    for (index, segment_use, change, proves) in cases {
        let mut chain = Chain::new();
        let bad = chain.group();
        chain.goes_on_in(index, 1, segment_use, change);
        let proof = chain.group();
        chain.spoil(bad);
        let what = format!("segment {index}, use {segment_use:#x}");
        assert_eq!(is_damage(&chain, 0), proves, "{what}");
        // Of the last segment the file may have the beginning alone.
        let end = proof.0 + FRAME_HEADER_BYTES as u64;
        chain.file.set_len(end).expect("shorter");
        assert_eq!(is_damage(&chain, 0), proves, "{what}, cut behind it");
        let start = GEOMETRY.start(index).0;
        chain.file.set_len(start + 8).expect("shorter");
        assert!(!is_damage(&chain, 0), "{what}, cut in its header");
    }
}

/// In a long segment the proof may lie in any of its units.
#[test]
fn a_proof_far_into_a_long_segment() {
    for entered in [false, true] {
        let mut chain = Chain::new();
        let first = chain.group();
        chain.next_segment(1, 3, |_| ());
        // Closed before any sync: it proves nothing itself.
        let second = chain.frame(FrameKind::Records, PADDED, &[]);
        chain.at.position = Position(3 * u64::from(SEGMENT) + 4096);
        chain.group();
        // Met from its own segment, and from the one before.
        chain.spoil(if entered { second } else { first });
        assert!(is_damage(&chain, if entered { 2 } else { 0 }));
    }
}

/// The chain goes on in the segment that the closing frame names: of that use, place and length, of a log, and
/// put to use later (C-24). Another one is where the log ends.
#[test]
fn the_next_segment_is_the_one_that_was_named() {
    let changes: [(&str, Change); 5] = [
        ("use", |header| header.segment_use += 1),
        ("index", |header| header.index += 1),
        ("units", |header| header.units += 1),
        ("kind", |header| header.kind = SegmentKind::Run),
        ("sequence", |header| header.first_sequence += 1),
    ];
    for (what, change) in changes {
        let mut chain = Chain::new();
        chain.next_segment(1, 1, change);
        chain.frame(FrameKind::Records, PADDED, &[]);
        let tail = chain.walk();
        assert_eq!(tail.frames.len(), 1, "{what}");
        assert_eq!(tail.end.segment, 0, "{what}");
    }
    // Uses rise along the chain.
    for (segment_use, frames) in [(USE - 1, 1), (USE, 1), (USE + 1, 2), (USE + 7, 2)] {
        let mut chain = Chain::new();
        chain.goes_on_in(1, 1, segment_use, |_| ());
        chain.frame(FrameKind::Records, PADDED, &[]);
        let tail = chain.walk();
        assert_eq!(tail.frames.len(), frames, "{segment_use:#x}");
    }
    // No longer than the longest frame needs.
    let most = GEOMETRY.units_max();
    for (units, frames) in [(most, 2), (most + 1, 1)] {
        let mut chain = Chain::new();
        chain.next_segment(1, units, |_| ());
        chain.frame(FrameKind::Records, PADDED, &[]);
        let tail = chain.walk();
        assert_eq!(tail.frames.len(), frames, "{units} units");
    }
}

/// Where the log goes on behind what was adopted.
#[test]
fn the_end_is_behind_the_last_frame() {
    let mut chain = Chain::new();
    assert_eq!(chain.walk().end, chain.superblock.head);
    chain.group();
    chain.next_segment(2, 1, |_| ());
    chain.group();
    let tail = chain.walk();
    assert_eq!(tail.end, chain.at);
    assert_eq!(tail.segments, [(0, 1, USE), (2, 1, USE + 1)]);
    assert!(tail.damage.is_none());
}

/// The frames of a checkpoint are durable to the end of their group, and what follows is not (C-14). A file that
/// ends in the padding of its last durable frame has been cut; one that ends behind a frame in doubt may be
/// what a crash left.
#[test]
fn the_pages_of_a_checkpoint_are_durable() {
    for (pages, padded) in [(1, 1), (2, 2), (2, 3)] {
        let mut chain = Chain::new();
        for n in 1..=padded {
            let flags = if n == padded {
                PADDED
            } else {
                FrameFlags::default()
            };
            let position = chain.frame(FrameKind::Directory, flags, &[0; 16]);
            if n == pages {
                let root = root(&chain, position);
                chain.superblock.roots.push(root);
            }
        }
        let tail = chain.walk();
        let what = format!("the root is frame {pages} of {padded}");
        assert_eq!(tail.synced_up_to, padded + 1, "{what}");
        assert!(tail.is_settled(), "{what}");
        let end = tail.end.position.0;
        for (len, cut) in [(end, false), (end - 1, true), (end - 3000, true)] {
            chain.file.set_len(len).expect("shorter");
            assert_eq!(chain.walk().damage.is_some(), cut, "{what}: {len} bytes");
        }
    }
    let mut chain = Chain::new();
    let position = chain.frame(FrameKind::Directory, PADDED, &[0; 16]);
    let root = root(&chain, position);
    chain.superblock.roots.push(root);
    let in_doubt = chain.frame(FrameKind::Records, PADDED, &[]);
    let end = in_doubt.0 + FRAME_HEADER_BYTES as u64;
    chain.file.set_len(end).expect("shorter");
    let tail = chain.walk();
    assert_eq!((tail.frames.len(), tail.synced_up_to), (2, 2));
    assert!(!tail.is_settled() && tail.damage.is_none());
    // Without a frame nothing is missing: what was allocated behind the head may be lost.
    let empty = Chain::new();
    empty.file.set_len(16384).expect("shorter");
    assert!(empty.walk().damage.is_none());
}

fn root(chain: &Chain, position: Position) -> Root {
    Root {
        kind: RootKind::Tables,
        critical: true,
        page: PageRef {
            position,
            segment_use: chain.at.segment_use,
            body_len: 16,
            body_crc: 0,
        },
        levels: 0,
        detail: 0,
    }
}

/// A head that no writer makes is refused before anything of its size is asked for; one as far as a long
/// segment reaches behind the file, in which nothing has been written, may be.
#[test]
fn heads_that_no_writer_makes() {
    const LEN: u64 = 4 * SEGMENT as u64 + SEGMENT_HEADER_BYTES as u64;
    let opens = |change: &dyn Fn(&mut Superblock)| {
        let mut chain = Chain::new();
        chain.file.set_len(LEN).expect("room");
        change(&mut chain.superblock);
        match walk(&*chain.file, &chain.superblock) {
            Ok(_) => true,
            Err(Error::Corrupt { .. }) => false,
            Err(error) => panic!("{error:?}"),
        }
    };
    // The last of these begins its first frame just where the longest segment would end.
    let last = GEOMETRY.units_max() + 4;
    for (segment, may_be) in [
        (4, true),
        (last, true),
        (last + 1, false),
        (u32::MAX, false),
    ] {
        let first = GEOMETRY.start(segment).0 + SEGMENT_HEADER_BYTES as u64;
        let head = |superblock: &mut Superblock| {
            superblock.head.segment = segment;
            superblock.head.position = Position(first);
        };
        assert_eq!(opens(&head), may_be, "segment {segment}");
    }
    // Behind the first frame's place something was written, and the file has it.
    for (position, may_be) in [(LEN - 8, true), (LEN, true), (LEN + 8, false)] {
        let head = |superblock: &mut Superblock| {
            superblock.head.segment = 3;
            superblock.head.position = Position(position);
        };
        assert_eq!(opens(&head), may_be, "head at {position}");
    }
    // In the segment that it names, which is no longer than the longest.
    for (segment, may_be) in [(3, true), (2, true), (4, false)] {
        let position = 3 * u64::from(SEGMENT) + 8192;
        let head = |superblock: &mut Superblock| {
            superblock.head.segment = segment;
            superblock.head.position = Position(position);
        };
        assert_eq!(opens(&head), may_be, "segment {segment}");
    }
    // Numbers that are counted on from here are far from their ends.
    let most = u64::MAX / 2;
    for (number, may_be) in [(most, true), (most + 1, false)] {
        assert_eq!(opens(&|it| it.head.sequence = number), may_be, "{number}");
        assert_eq!(opens(&|it| it.generation = number), may_be, "{number}");
    }
}

/// The head's own segment is as long as its header says, if that is the header of this use and place; it may be
/// missing as long as nothing was written there.
#[test]
fn the_length_of_the_first_segment() {
    let cases: [(Change, u32); 3] = [
        (|_| (), 3),
        (|header| header.segment_use += 1, 1),
        (|header| header.index += 1, 1),
    ];
    for (change, units) in cases {
        let chain = Chain::new();
        let mut header = chain.segment(0, 3, USE);
        change(&mut header);
        chain.header(0, &header);
        assert_eq!(chain.walk().segments, [(0, units, USE)]);
    }
}
