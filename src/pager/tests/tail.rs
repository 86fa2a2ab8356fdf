//! What a tail is taken for: settled, in doubt, to be replaced (SPEC.md, C-26 to C-28).

use revtree_format::{
    FRAME_HEADER_BYTES, FrameFlags, FrameHeader, FrameKind, LogHead, Position, Revision,
};

use crate::pager::{Tail, TailFrame};

/// A frame of 64 bytes of body, number `sequence`, in the segment with this use.
fn frame(sequence: u64, segment_use: u64) -> TailFrame {
    TailFrame {
        header: FrameHeader {
            kind: FrameKind::Records,
            flags: FrameFlags::default(),
            body_crc: 0,
            prev_crc: 0,
            sequence,
            synced_up_to: 1,
            revision: Revision::new(1),
            body_len: 64,
            records_len: 0,
            record_count: 0,
            opens: 1,
        },
        position: Position(sequence * 1024),
        segment_use,
    }
}

fn tail(frames: Vec<TailFrame>, synced_up_to: u64) -> Tail {
    Tail {
        frames,
        end: LogHead {
            position: Position(1 << 20),
            sequence: 100,
            segment_use: 1,
            segment: 0,
            prev_crc: 0,
        },
        synced_up_to,
        segments: vec![(0, 1, 1)],
        dropped_bytes: 0,
        damage: None,
    }
}

/// Only pages, closing frames and what holds nothing may follow the checkpoint of a clean close, all of it
/// durable, to the end of a group.
#[test]
fn settled_is_what_a_clean_close_leaves() {
    type Change = fn(&mut FrameHeader);
    let cases: [(&str, Change, bool); 6] = [
        ("a page", |it| it.kind = FrameKind::Branch, true),
        ("nothing", |it| it.body_len = 0, true),
        (
            "a closing frame",
            |it| it.flags.last_in_segment = true,
            true,
        ),
        ("records", |_| (), false),
        (
            "no end of a group",
            |it| {
                it.kind = FrameKind::Branch;
                it.flags.padded = false;
            },
            false,
        ),
        (
            "a page in doubt",
            |it| {
                it.kind = FrameKind::Branch;
                it.sequence = 3;
            },
            false,
        ),
    ];
    for (what, change, settled) in cases {
        let mut last = frame(2, 1);
        last.header.flags.padded = true;
        change(&mut last.header);
        let mut page = frame(1, 1);
        page.header.kind = FrameKind::Chunk;
        let tail = tail(vec![page, last], 3);
        assert_eq!(tail.is_settled(), settled, "{what}");
    }
    assert!(tail(Vec::new(), 1).is_settled());
    let mut page = frame(2, 1);
    page.header.kind = FrameKind::Chunk;
    page.header.flags.padded = true;
    assert!(
        !tail(vec![frame(1, 1), page], 3).is_settled(),
        "records before a page"
    );
}

/// Frames from the mark on are in doubt, with every byte of their bodies and no other.
#[test]
fn what_is_in_doubt() {
    let tail = tail(vec![frame(1, 1), frame(2, 1), frame(3, 1)], 2);
    let numbers: Vec<u64> = tail.unsynced().map(|it| it.header.sequence).collect();
    assert_eq!(numbers, [2, 3]);
    let in_doubt = tail.unsynced_positions();
    for (sequence, doubt) in [(1, false), (2, true), (3, true)] {
        let body = sequence * 1024 + FRAME_HEADER_BYTES as u64;
        let at = [body, body + 56].map(|at| in_doubt(Position(at)));
        assert_eq!(at, [doubt; 2], "frame {sequence}");
        let beside = [body - 8, body + 64].map(|at| in_doubt(Position(at)));
        assert_eq!(beside, [false; 2], "beside frame {sequence}");
    }
}

/// A copy of what is in doubt replaces the segments that hold nothing else; never the first, where the checkpoint
/// is.
#[test]
fn segments_that_a_copy_replaces() {
    let mut tail = tail(vec![frame(1, 1), frame(2, 2), frame(3, 3), frame(4, 4)], 3);
    tail.segments = vec![(0, 1, 1), (7, 1, 2), (2, 3, 3), (1, 1, 4)];
    assert_eq!(tail.replaced_segments(), [2, 3, 4, 1]);
    tail.synced_up_to = 2;
    assert_eq!(tail.replaced_segments(), [7, 2, 3, 4, 1]);
    tail.synced_up_to = 1;
    assert_eq!(tail.replaced_segments(), [7, 2, 3, 4, 1]);
}
