//! Golden files: bytes of version 1 that stay readable and are written the same for ever (V-4).
//!
//! Beside each `.bin` stands a `.txt` that names every byte with the field names of SPEC.md. Both are held against
//! what the code writes now. A new file is written by `REVTREE_BLESS=1 cargo test -p revtree-format --test golden`;
//! an existing one never changes within a format version.

#![expect(
    clippy::indexing_slicing,
    reason = "tests index what they have just made"
)]

#[path = "common/spec.rs"]
mod spec;

use std::fmt::Write;
use std::path::Path;

use revtree_format::{
    BranchEntries, BranchPage, ChangeId, Control, Controls, FRAME_HEADER_BYTES, FrameFlags,
    FrameHeader, FrameKind, IndexEntry, IndexLeaf, LeafRun, LeaseId, Link, LogHead, NewRecord,
    PageRef, Place, Position, RecordKind, Revision, Root, RootKind, SegmentHeader, SegmentKind,
    StoreSeed, Superblock, check_value, parse_record,
};

const STORE: [u8; 16] = *b"golden store id!";
const SEGMENT_USE: u64 = 1 << 32 | 2;
const SEGMENT_START: u64 = 65_536;

/// Names the bytes of a golden file, piece after piece.
struct Describer<'a> {
    bytes: &'a [u8],
    at: usize,
    out: String,
    tables: Vec<spec::StructTable>,
}

impl<'a> Describer<'a> {
    fn new(title: &str, bytes: &'a [u8]) -> Describer<'a> {
        Describer {
            bytes,
            at: 0,
            out: format!("{title}\n"),
            tables: spec::struct_tables(&spec::text()),
        }
    }

    /// The next bytes, 16 a line; a row of zeros is one line.
    fn piece(&mut self, what: &str, len: usize) {
        let bytes = &self.bytes[self.at..self.at + len];
        if len > 16 && bytes.iter().all(|byte| *byte == 0) {
            let _ = writeln!(self.out, "{:06x}  00 × {len}  {what}", self.at);
        } else {
            for (n, row) in bytes.chunks(16).enumerate() {
                let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
                let at = self.at + 16 * n;
                let what = if n == 0 { what } else { "" };
                let line = format!("{at:06x}  {:<47}  {what}", hex.join(" "));
                let _ = writeln!(self.out, "{}", line.trim_end());
            }
        }
        self.at += len;
    }

    fn text(&mut self, what: &str, len: usize) {
        let text = String::from_utf8_lossy(&self.bytes[self.at..self.at + len]).into_owned();
        if len > 0 {
            self.piece(&format!("{what} \"{text}\""), len);
        }
    }

    /// The struct of this name, field by field.
    fn structure(&mut self, name: &str) {
        let table = self.tables.iter().find(|table| table.name == name);
        let table = table.expect("SPEC.md has the struct's table");
        let fields = table.fields.clone();
        let end = self.at + table.size;
        let _ = writeln!(self.out, "{name}");
        for (field, _, size) in fields {
            self.piece(&format!("  {field}"), size);
        }
        assert_eq!(self.at, end, "the fields fill {name}");
    }

    fn finish(self) -> String {
        assert_eq!(self.at, self.bytes.len(), "every byte has a name");
        self.out
    }
}

/// Holds a file against what the code makes now.
fn check(name: &str, bytes: &[u8], description: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (suffix, now) in [("bin", bytes), ("txt", description.as_bytes())] {
        let path = folder.join(format!("{name}.{suffix}"));
        if std::env::var_os("REVTREE_BLESS").is_some() && !path.exists() {
            std::fs::write(&path, now).expect("a new golden file");
        }
        let golden = std::fs::read(&path).expect("a golden file");
        let differs = golden.iter().zip(now).position(|(was, is)| was != is);
        assert_eq!(differs, None, "{name}.{suffix} differs from there on");
        assert_eq!(golden.len(), now.len(), "length of {name}.{suffix}");
    }
}

#[test]
fn superblock() {
    let page = |n: u32| PageRef {
        position: Position(SEGMENT_START + 4096 * u64::from(n)),
        segment_use: SEGMENT_USE,
        body_len: 64 * n,
        body_crc: 0x0101_0101 * n,
    };
    let root = |kind, n, critical, levels, detail| Root {
        kind,
        critical,
        page: page(n),
        levels,
        detail,
    };
    let made = Superblock {
        store_id: STORE,
        generation: 3,
        edition: 1,
        opens: 2,
        segment_bytes: 65_536,
        head: LogHead {
            position: Position(SEGMENT_START + 4096),
            sequence: 11,
            segment_use: SEGMENT_USE,
            segment: 1,
            prev_crc: 0x5555_AAAA,
        },
        revision: Revision::new(9),
        compact_revision: None,
        applied_index: 7,
        applied_term: 2,
        records: 8,
        segment_count: 2,
        roots: vec![
            root(RootKind::Tree, 2, true, 1, 0),
            root(RootKind::Segments, 3, true, 0, 0),
            root(RootKind::Tables, 4, true, 0, 0),
            root(RootKind::Index, 5, false, 0, 9),
        ],
    };
    let bytes = made.encode();
    assert_eq!(Superblock::parse(&*bytes, 0), Ok(made));
    let mut text = Describer::new("A superblock of generation 3 with four roots.", &*bytes);
    let before_roots = 144;
    let fields = text.tables[0].fields.clone();
    text.out.push_str("SuperblockBytes\n");
    for (field, offset, size) in fields {
        if offset < before_roots {
            text.piece(&format!("  {field}"), size);
        }
    }
    for _ in 0..4 {
        text.structure("RootBytes");
    }
    text.piece("unused roots", 12 * 40);
    text.piece("  reserved", 3312);
    check("superblock", &*bytes, &text.finish());
}

fn id(main: u64, sub: u64) -> ChangeId {
    ChangeId::new(Revision::new(main), sub)
}

fn put<'a>(main: u64, key: &'a [u8], value: &'a [u8]) -> NewRecord<'a> {
    NewRecord {
        kind: RecordKind::Put,
        id: id(main, 0),
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

/// One frame to be written: records, items, how it ends.
struct NewFrame<'a> {
    records: Vec<NewRecord<'a>>,
    items: Vec<Control<'a>>,
    flags: FrameFlags,
    revision: u64,
}

fn frames() -> Vec<NewFrame<'static>> {
    let link = |main, sub, hint| Link {
        id: id(main, sub),
        hint: Position(hint),
    };
    let first_record = SEGMENT_START + 128;
    let overwrite = NewRecord {
        create: Revision::new(2),
        version: 2,
        lease: LeaseId(0x1122_3344),
        ordinal: 2,
        prev: Some(link(2, 0, first_record)),
        ..put(3, b"alpha", b"second")
    };
    let tombstone = NewRecord {
        kind: RecordKind::Tombstone,
        ordinal: 3,
        prev: Some(link(3, 0, 0)),
        ..put(4, b"alpha", b"")
    };
    let again = NewRecord {
        id: id(4, 1),
        ordinal: 4,
        prev: Some(link(4, 0, 0)),
        ..put(4, b"alpha", b"reborn")
    };
    let wide = NewRecord {
        version: 1 << 40,
        ordinal: 17,
        create: Revision::new(2),
        prev: Some(link(4, 1, 0)),
        skip: Some(link(3, 0, 0)),
        ..put(5, b"alpha", b"")
    };
    let flags = FrameFlags::default();
    vec![
        NewFrame {
            records: vec![put(2, b"alpha", b"first"), overwrite],
            items: vec![
                Control::Applied { index: 6, term: 2 },
                Control::TableCreate { table: "lease" },
                Control::TablePut {
                    table: "meta",
                    key: b"k",
                    value: b"v",
                },
            ],
            flags,
            revision: 3,
        },
        NewFrame {
            records: vec![tombstone, again, wide],
            items: vec![Control::Compact {
                revision: Revision::new(3),
            }],
            flags: FrameFlags {
                padded: true,
                ..flags
            },
            revision: 5,
        },
        NewFrame {
            records: Vec::new(),
            items: vec![Control::NextSegment {
                index: 2,
                units: 1,
                segment_use: SEGMENT_USE + 1,
            }],
            flags: FrameFlags {
                last_in_segment: true,
                ..flags
            },
            revision: 5,
        },
    ]
}

#[test]
fn segment() {
    let header = SegmentHeader {
        segment_use: SEGMENT_USE,
        index: 1,
        units: 1,
        kind: SegmentKind::Log,
        first_sequence: 5,
    };
    let mut bytes = header.encode(&STORE).to_vec();
    let mut prev_crc = 0x0BAD_CAFE;
    for (sequence, new) in (5..).zip(frames()) {
        let place = Place {
            seed: StoreSeed::new(&STORE),
            segment_use: SEGMENT_USE,
            position: Position(SEGMENT_START + bytes.len() as u64),
        };
        let mut body = Vec::new();
        for record in &new.records {
            let start = body.len();
            body.resize(start + record.record_len(), 0);
            let at = place.position.plus((FRAME_HEADER_BYTES + start) as u64);
            record.encode(&mut body[start..], place.at(at));
        }
        let records_len = u32::try_from(body.len()).expect("short");
        new.items.iter().for_each(|item| item.encode(&mut body));
        let frame = FrameHeader {
            kind: FrameKind::Records,
            flags: new.flags,
            body_crc: crc32c::crc32c(&body),
            prev_crc,
            sequence,
            synced_up_to: 4,
            revision: Revision::new(new.revision),
            body_len: u32::try_from(body.len()).expect("short"),
            records_len,
            record_count: u32::try_from(new.records.len()).expect("few"),
            opens: 1,
        };
        let (raw, crc) = frame.encode(place);
        prev_crc = crc;
        bytes.extend_from_slice(&raw);
        bytes.extend_from_slice(&body);
        let next = frame.next_position(place.position).0 - SEGMENT_START;
        bytes.resize(usize::try_from(next).expect("short"), 0);
    }
    let title = "Segment 1 (64 KiB segments): three frames; the last closes it.";
    check("segment", &bytes, &describe_segment(title, &bytes));
}

/// Reads the segment as recovery does, frame by frame, and names its bytes.
fn describe_segment(title: &str, bytes: &[u8]) -> String {
    let mut text = Describer::new(title, bytes);
    SegmentHeader::parse(bytes, &STORE, SEGMENT_START).expect("a segment header");
    text.structure("SegmentHeaderBytes");
    let mut crc_before = 0x0BAD_CAFE;
    for sequence in 5..8 {
        let position = Position(SEGMENT_START + text.at as u64);
        let place = Place {
            seed: StoreSeed::new(&STORE),
            segment_use: SEGMENT_USE,
            position,
        };
        let (header, crc) = FrameHeader::parse(&bytes[text.at..], place).expect("a frame");
        assert_eq!((header.sequence, header.prev_crc), (sequence, crc_before));
        crc_before = crc;
        text.structure("FrameHeaderBytes");
        let body = text.at..text.at + header.body_len as usize;
        let items_at = text.at + header.records_len as usize;
        let check = header.check_body(&bytes[body.clone()], position);
        check.expect("a body with its checksum");
        for _ in 0..header.record_count {
            describe_record(&mut text);
        }
        assert_eq!(text.at, items_at);
        for item in Controls::new(&bytes[items_at..body.end], 0) {
            describe_item(&mut text, item.expect("an item"));
        }
        assert_eq!(text.at, body.end);
        let next = header.next_position(position).0 - SEGMENT_START;
        let next = usize::try_from(next).expect("short");
        text.piece("up to the block border", next - text.at);
    }
    text.finish()
}

fn describe_record(text: &mut Describer<'_>) {
    let raw = &text.bytes[text.at..];
    let at = Position(SEGMENT_START + text.at as u64);
    let place = Place {
        seed: StoreSeed::new(&STORE),
        segment_use: SEGMENT_USE,
        position: at,
    };
    let (head, _) = parse_record(raw, place).expect("a record");
    let value_end = head.value_at() + head.value_len as usize;
    check_value(&head, &raw[head.value_at()..value_end], at).expect("a value");
    let flags = raw[30];
    text.structure("RecordHeadBytes");
    if flags & 1 << 6 != 0 {
        text.structure("RecordWideBytes");
    }
    if flags & 1 << 3 != 0 {
        text.structure("RecordSubsBytes");
    }
    if flags & 1 << 4 != 0 {
        text.piece("  lease", 8);
    }
    if flags & 1 << 5 != 0 {
        text.structure("RecordSkipBytes");
    }
    text.text("  key", usize::from(head.key_len));
    text.text("  value", head.value_len as usize);
    text.piece("  padding", head.record_len() - value_end);
}

fn describe_item(text: &mut Describer<'_>, item: Control<'_>) {
    let end = text.at + item.encoded_len();
    text.structure("ControlHeaderBytes");
    match item {
        Control::Applied { .. } => text.structure("AppliedBytes"),
        Control::Compact { .. } => text.structure("CompactBytes"),
        Control::NextSegment { .. } => text.structure("NextSegmentBytes"),
        Control::TablePut { table, key, value } => {
            text.structure("TableItemBytes");
            text.text("  name", table.len());
            text.text("  key", key.len());
            text.text("  value", value.len());
        }
        Control::TableDelete { table, .. } | Control::TableCreate { table } => {
            text.structure("TableItemBytes");
            text.text("  name", table.len());
        }
    }
    text.piece("  padding", end - text.at);
}

#[test]
fn branch_page() {
    let leaf = |n: u64, records: u32| LeafRun {
        first: id(2 + n, n),
        position: Position(SEGMENT_START + 128 + 16_384 * n),
        segment_use: SEGMENT_USE,
        len: 16_000,
        records,
    };
    let made = BranchPage {
        level: 0,
        generation: 3,
        entries: BranchEntries::Leaves(vec![leaf(0, 250), leaf(1, 200), leaf(2, 1)]),
    };
    let bytes = made.encode();
    assert_eq!(BranchPage::parse(&bytes, Position(4096)), Ok(made));
    let mut text = Describer::new("A branch page of level 0 with three leaves.", &bytes);
    text.structure("BranchHeaderBytes");
    for _ in 0..3 {
        text.structure("BranchEntryBytes");
    }
    check("branch", &bytes, &text.finish());
}

#[test]
fn index_chunk() {
    let entry = |chunk: &[u8; 8], hash, live, position| IndexEntry {
        chunk: u64::from_be_bytes(*chunk),
        hash,
        live,
        position: Position(position),
    };
    let made = vec![
        IndexLeaf {
            separator: Vec::new(),
            prefix: b"/a/".to_vec(),
            entries: vec![
                entry(b"one\0\0\0\0\0", 0x1111_2222, true, SEGMENT_START + 128),
                entry(b"two\0\0\0\0\0", 0x3333_4444, false, SEGMENT_START + 192),
            ],
        },
        IndexLeaf {
            separator: b"/b".to_vec(),
            prefix: Vec::new(),
            entries: vec![entry(b"/beta/12", 0x5555_6666, true, SEGMENT_START + 256)],
        },
    ];
    let mut bytes = Vec::new();
    made.iter().for_each(|leaf| leaf.encode(&mut bytes));
    let parsed = IndexLeaf::parse_chunk(&bytes, Position(4096));
    assert_eq!(parsed.as_ref(), Ok(&made));
    let mut text = Describer::new("A chunk of the key index run with two leaves.", &bytes);
    for leaf in &made {
        text.structure("IndexLeafBytes");
        text.text("  separator", leaf.separator.len());
        text.text("  prefix", leaf.prefix.len());
        for _ in &leaf.entries {
            text.structure("IndexEntryBytes");
        }
        let padded = text.at.next_multiple_of(8);
        text.piece("  padding", padded - text.at);
    }
    check("index", &bytes, &text.finish());
}
