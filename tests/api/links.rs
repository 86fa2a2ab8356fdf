//! Which earlier versions a record names, read from the file of a closed store (SPEC.md, B-45, B-48, B-50).

use revtree::Options;
use revtree_format::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, Place, Position, RecordHead, SUPERBLOCK_BYTES,
    StoreSeed, Superblock, parse_record, skip_jump,
};

/// The first record of each frame of records, in the order of the file, of a store of one segment.
fn records(bytes: &[u8]) -> Vec<RecordHead> {
    let slots = bytes.chunks(SUPERBLOCK_BYTES).take(4);
    let superblocks = slots.filter_map(|slot| Superblock::parse(slot, 0).ok());
    let newest = superblocks.max_by_key(Superblock::age).unwrap();
    assert_eq!(newest.head.segment, 0);
    let place = |at: usize| Place {
        seed: StoreSeed::new(&newest.store_id),
        segment_use: newest.head.segment_use,
        position: Position(at as u64),
    };
    let mut records = Vec::new();
    for at in (16 << 10..bytes.len()).step_by(8) {
        if let Ok((header, _)) = FrameHeader::parse(&bytes[at..], place(at))
            && header.kind == FrameKind::Records
            && header.record_count > 0
        {
            let first = at + FRAME_HEADER_BYTES;
            let (head, _) = parse_record(&bytes[first..], place(first)).unwrap();
            records.push(head);
        }
    }
    records
}

/// A key's records count from 1, each names the one before, and from the ninth on another one farther back, which follows
/// from its number alone.
#[test]
fn links_follow_from_the_number_of_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Options::new().open(&path).unwrap();
    // A delete counts as a put does.
    for n in 1..=400_u64 {
        if n % 50 == 49 {
            db.delete("key").unwrap();
        } else {
            db.put("key", "value").unwrap();
        }
    }
    db.close().unwrap();
    let records = records(&std::fs::read(path).unwrap());
    assert_eq!(records.len(), 400);
    for (n, head) in (1..).zip(&records) {
        // Revisions begin at 2.
        let main_of = |ordinal: u64| ordinal + 1;
        assert_eq!((head.ordinal, head.id.main.get()), (n, main_of(n)));
        let prev = head.prev.map(|link| link.id.main.get());
        assert_eq!(prev, (n > 1).then(|| main_of(n - 1)));
        let named = match (n, n % 8) {
            (..=8, _) => 0,
            (_, 0) => 8 * skip_jump(n / 8),
            (_, above) => n - above,
        };
        let skip = head.skip.map(|link| link.id.main.get());
        assert_eq!(skip, (named > 0).then(|| main_of(named)), "number {n}");
    }
}
