//! A small store file, made piece by piece: two commits behind an empty checkpoint, or a checkpoint
//! with tree, side table and key index and one commit behind it. Deterministic, so that what is printed
//! of it can be compared letter by letter.

use revtree_dump::{Item, Options, Summary, dump};
use revtree_format::limits::{BLOCK_BYTES, SEGMENTS_START};
use revtree_format::{
    BranchEntries, BranchPage, ChangeId, Control, Directory, FRAME_HEADER_BYTES, FrameFlags,
    FrameHeader, FrameKind, Geometry, IndexEntry, IndexLeaf, LeafRun, LeaseId, Link, LogHead,
    NewRecord, PageRef, Place, Position, RecordKind, Revision, Root, RootKind,
    SEGMENT_HEADER_BYTES, SegmentEntry, SegmentHeader, SegmentKind, SegmentState, StoreSeed,
    Superblock, encode_segments,
};

pub(crate) const STORE_ID: [u8; 16] = *b"hand-made store!";
pub(crate) const SEGMENT_BYTES: u32 = 64 << 10;
pub(crate) const USE: u64 = 1 << 32;

/// A store file under construction.
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    /// Where the next frame goes, and what it repeats.
    pub(crate) head: LogHead,
    pub(crate) revision: u64,
    /// Where each frame begins.
    pub(crate) frames: Vec<Position>,
    synced_up_to: u64,
}

/// Where a record was put.
pub(crate) struct Placed {
    pub(crate) position: Position,
    pub(crate) len: u32,
}

impl Image {
    /// A file with one segment in use and room for `segments`.
    pub(crate) fn new(segments: usize) -> Image {
        let start = Position(SEGMENTS_START);
        let mut image = Image {
            bytes: vec![0; segments * SEGMENT_BYTES as usize],
            head: LogHead {
                position: start.plus(SEGMENT_HEADER_BYTES as u64),
                sequence: 1,
                segment_use: USE,
                segment: 0,
                prev_crc: 0,
            },
            revision: 1,
            frames: Vec::new(),
            synced_up_to: 1,
        };
        image.segment(0, 1, USE);
        image
    }

    /// Writes a segment header.
    pub(crate) fn segment(&mut self, index: u32, units: u32, segment_use: u64) {
        let header = SegmentHeader {
            segment_use,
            index,
            units,
            kind: SegmentKind::Log,
            first_sequence: self.head.sequence,
        };
        let start = Geometry::new(SEGMENT_BYTES).start(index);
        self.put(start, &header.encode(&STORE_ID));
    }

    pub(crate) fn put(&mut self, at: Position, bytes: &[u8]) {
        let at = usize::try_from(at.0).expect("a small file");
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Appends a frame.
    pub(crate) fn frame(
        &mut self,
        kind: FrameKind,
        flags: FrameFlags,
        body: &[u8],
        records: (usize, u32),
    ) {
        let position = self.head.position;
        let header = FrameHeader {
            kind,
            flags,
            body_crc: crc32c::crc32c(body),
            prev_crc: self.head.prev_crc,
            sequence: self.head.sequence,
            synced_up_to: self.synced_up_to,
            revision: Revision::new(self.revision),
            body_len: u32::try_from(body.len()).expect("a small body"),
            records_len: u32::try_from(records.0).expect("a small body"),
            record_count: records.1,
            opens: 1,
        };
        let segment_use = self.head.segment_use;
        let (bytes, crc) = header.encode(Place {
            seed: StoreSeed::new(&STORE_ID),
            segment_use,
            position,
        });
        self.put(position, &bytes);
        self.put(position.plus(FRAME_HEADER_BYTES as u64), body);
        self.frames.push(position);
        self.head.position = header.next_position(position);
        self.head.sequence += 1;
        self.head.prev_crc = crc;
        if flags.padded {
            self.synced_up_to = self.head.sequence;
        }
    }

    /// Appends a synced commit of records and control items; gives where the records lie.
    pub(crate) fn commit(
        &mut self,
        records: &[NewRecord<'_>],
        controls: &[Control<'_>],
    ) -> Vec<Placed> {
        let mut body = Vec::new();
        let mut placed = Vec::new();
        let start = self.head.position.plus(FRAME_HEADER_BYTES as u64);
        for record in records {
            let at = body.len();
            body.resize(at + record.record_len(), 0);
            let place = Place {
                seed: StoreSeed::new(&STORE_ID),
                segment_use: self.head.segment_use,
                position: start.plus(at as u64),
            };
            record.encode(&mut body[at..], place);
            let len = u32::try_from(record.record_len()).expect("a small record");
            placed.push(Placed {
                position: start.plus(at as u64),
                len,
            });
        }
        let records_len = body.len();
        controls
            .iter()
            .for_each(|control| control.encode(&mut body));
        let flags = FrameFlags {
            padded: true,
            ..FrameFlags::default()
        };
        let count = u32::try_from(records.len()).expect("a small commit");
        self.frame(FrameKind::Records, flags, &body, (records_len, count));
        placed
    }

    /// Ends the segment: the log goes on in segment `index`.
    pub(crate) fn close_segment(&mut self, index: u32, segment_use: u64) {
        let mut body = Vec::new();
        Control::NextSegment {
            index,
            units: 1,
            segment_use,
        }
        .encode(&mut body);
        let flags = FrameFlags {
            last_in_segment: true,
            ..FrameFlags::default()
        };
        self.frame(FrameKind::Records, flags, &body, (0, 0));
        self.segment(index, 1, segment_use);
        let start = Geometry::new(SEGMENT_BYTES).start(index);
        self.head.position = start.plus(SEGMENT_HEADER_BYTES as u64);
        self.head.segment = index;
        self.head.segment_use = segment_use;
    }

    /// Appends a page.
    pub(crate) fn page(&mut self, kind: FrameKind, body: &[u8]) -> PageRef {
        let position = self.head.position;
        self.frame(kind, FrameFlags::default(), body, (0, 0));
        PageRef {
            position,
            segment_use: self.head.segment_use,
            body_len: u32::try_from(body.len()).expect("a small page"),
            body_crc: crc32c::crc32c(body),
        }
    }

    /// Appends a blob of one chunk.
    pub(crate) fn blob(&mut self, kind: RootKind, items: u64, body: &[u8], detail: u64) -> Root {
        let chunk = self.page(FrameKind::Chunk, body);
        let directory = Directory {
            items,
            chunks: vec![chunk],
        };
        let page = self.page(FrameKind::Directory, &directory.encode());
        Root {
            kind,
            critical: kind != RootKind::Index,
            page,
            levels: 0,
            detail,
        }
    }

    /// A superblock that names `head` and `roots`.
    pub(crate) fn superblock(
        &self,
        generation: u64,
        head: LogHead,
        roots: Vec<Root>,
    ) -> Superblock {
        Superblock {
            store_id: STORE_ID,
            generation,
            edition: 1,
            opens: 1,
            segment_bytes: SEGMENT_BYTES,
            head,
            revision: Revision::new(self.revision),
            compact_revision: None,
            applied_index: 0,
            applied_term: 0,
            records: 0,
            segment_count: 0,
            roots,
        }
    }

    /// Writes a superblock into both slots of its pair.
    pub(crate) fn write_superblock(&mut self, superblock: &Superblock) {
        let first = superblock.generation % 2 * 2 * BLOCK_BYTES;
        for slot in [first, first + BLOCK_BYTES] {
            self.put(Position(slot), &superblock.encode()[..]);
        }
    }
}

/// A put of a key that was not there.
pub(crate) fn create<'a>(main: u64, sub: u64, key: &'a [u8], value: &'a [u8]) -> NewRecord<'a> {
    NewRecord {
        kind: RecordKind::Put,
        id: ChangeId::new(Revision::new(main), sub),
        create: Revision::new(main),
        version: 1,
        lease: LeaseId::NONE,
        ordinal: 1,
        prev: None,
        skip: None,
        key,
        value,
    }
}

/// Two commits behind the checkpoint of an empty store: puts with a lease and with any bytes, then a
/// tombstone, a side table, an applied index and a compaction.
pub(crate) fn log_only() -> Image {
    let mut image = Image::new(2);
    let head = image.head;
    for generation in [0, 1] {
        let superblock = image.superblock(generation, head, Vec::new());
        image.write_superblock(&superblock);
    }
    image.revision = 2;
    let leased = NewRecord {
        lease: LeaseId(77),
        ..create(2, 0, b"colour", b"blue\n")
    };
    let placed = image.commit(&[leased, create(2, 1, b"\xff\0", b"")], &[]);
    image.revision = 3;
    let gone = NewRecord {
        kind: RecordKind::Tombstone,
        create: Revision::new(0),
        version: 0,
        ordinal: 2,
        prev: Some(Link {
            id: ChangeId::new(Revision::new(2), 0),
            hint: placed[0].position,
        }),
        ..create(3, 0, b"colour", b"")
    };
    let controls = [
        Control::Applied { index: 9, term: 4 },
        Control::TableCreate { table: "meta" },
        Control::TablePut {
            table: "meta",
            key: b"k",
            value: b"v",
        },
        Control::TableDelete {
            table: "meta",
            key: b"k",
        },
        Control::Compact {
            revision: Revision::new(2),
        },
    ];
    image.commit(&[gone], &controls);
    image
}

/// A checkpoint with all kinds of roots, and a commit behind it in a second segment.
pub(crate) fn checkpointed() -> Image {
    let mut image = Image::new(2);
    image.revision = 2;
    let records = [create(2, 0, b"a", b"1"), create(2, 1, b"b", b"2")];
    let placed = image.commit(&records, &[]);
    let leaf = LeafRun {
        first: records[0].id,
        position: placed[0].position,
        segment_use: USE,
        len: placed.iter().map(|placed| placed.len).sum(),
        records: 2,
    };
    let page = BranchPage {
        level: 0,
        generation: 2,
        entries: BranchEntries::Leaves(vec![leaf]),
    };
    let page = image.page(FrameKind::Branch, &page.encode());
    let tree = Root {
        kind: RootKind::Tree,
        critical: true,
        page,
        levels: 1,
        detail: 0,
    };
    let mut items = Vec::new();
    Control::TableCreate { table: "meta" }.encode(&mut items);
    Control::TablePut {
        table: "meta",
        key: b"x",
        value: b"\0",
    }
    .encode(&mut items);
    let tables = image.blob(RootKind::Tables, 2, &items, 0);
    let mut leaves = Vec::new();
    let entry = |byte: u8, position| IndexEntry {
        chunk: u64::from(byte) << 56,
        hash: 0x1234_5678,
        live: true,
        position,
    };
    let entries = vec![
        entry(b'a', placed[0].position),
        entry(b'b', placed[1].position),
    ];
    IndexLeaf {
        separator: Vec::new(),
        prefix: Vec::new(),
        entries,
    }
    .encode(&mut leaves);
    let index = image.blob(RootKind::Index, 2, &leaves, 2);
    let used = SegmentEntry {
        state: SegmentState::Log,
        segment_use: USE,
        units: 1,
        dead: 8192,
    };
    let table = encode_segments(&[used, SegmentEntry::FREE]);
    let segments = image.blob(RootKind::Segments, 2, &table, 0);
    let mut superblock = image.superblock(2, image.head, vec![tree, tables, index, segments]);
    superblock.records = 2;
    superblock.segment_count = 2;
    for generation in [1, 2] {
        superblock.generation = generation;
        image.write_superblock(&superblock);
    }
    image.close_segment(1, USE + 1);
    image.revision = 3;
    image.commit(&[create(3, 0, b"c", b"3")], &[]);
    image
}

/// All items of a dump of `bytes`.
pub(crate) fn items(bytes: &[u8], options: &Options) -> (Vec<Item>, Summary) {
    let mut items = Vec::new();
    let summary = dump(&bytes, options, &mut |item| {
        items.push(item.clone());
        Ok(())
    })
    .expect("memory does not fail");
    (items, summary)
}

/// The dump as text.
pub(crate) fn text(bytes: &[u8], options: &Options) -> String {
    items(bytes, options)
        .0
        .iter()
        .map(|item| format!("{item}\n"))
        .collect()
}
