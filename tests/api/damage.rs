//! What a damaged or crafted file costs: one error for what is damaged, everything else as before, and an
//! end, whatever the file claims.
//!
//! Files are changed behind their checksums by `revtree-format`, which writes what the engine never would.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use revtree::{Db, Error, Options, ReadView};
use revtree_format::limits::{BLOCK_BYTES, STORE_BYTES_MAX, SUPERBLOCK_SLOTS};
use revtree_format::{
    BranchEntries, BranchPage, ChangeId, Directory, FRAME_HEADER_BYTES, FrameFlags, FrameHeader,
    FrameKind, IndexLeaf, LeafRun, LeaseId, NewRecord, PageRef, Place, Position, RECORD_HEAD_BYTES,
    RecordKind, Revision, Root, RootKind, SUPERBLOCK_BYTES, SegmentEntry, StoreSeed, Superblock,
    encode_segments, parse_segments,
};

/// A file of a closed store, to be changed.
struct File {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
}

fn key(n: u64) -> String {
    format!("key {n:04}")
}

fn value(n: u64) -> String {
    format!("the value of {n:04}")
}

fn place(position: Position) -> usize {
    usize::try_from(position.0).unwrap()
}

impl File {
    /// A closed store that `fill` has filled.
    fn new(fill: impl FnOnce(&Db)) -> File {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let db = Options::new().segment_bytes(64 << 10).open(&path).unwrap();
        fill(&db);
        db.close().unwrap();
        let bytes = fs::read(path).unwrap();
        File { dir, bytes }
    }

    /// So many keys, each in a commit, and so a leaf, of its own.
    fn of_commits(keys: u64) -> File {
        File::new(|db| {
            for n in 0..keys {
                db.put(key(n), value(n)).unwrap();
            }
        })
    }

    /// So many keys in one transaction.
    fn of_one_commit(keys: u64) -> File {
        File::new(|db| {
            let mut txn = db.write().unwrap();
            for n in 0..keys {
                txn.put(key(n), value(n)).unwrap();
            }
            txn.commit().unwrap();
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn write(&self) {
        fs::write(self.path(), &self.bytes).unwrap();
    }

    fn open(&self) -> revtree::Result<Db> {
        self.write();
        Db::open(self.path())
    }

    fn open_to_read(&self) -> revtree::Result<Db> {
        self.write();
        Options::new().read_only().open(self.path())
    }

    /// Every way to open it is refused, by an error that is right, and writes nothing.
    #[track_caller]
    fn refused(&self, is_right: impl Fn(&Error) -> bool) {
        for result in [self.open(), self.open_to_read()] {
            match result {
                Ok(db) => panic!("it opened at {}", db.rev()),
                Err(error) => assert!(is_right(&error), "{error}"),
            }
            assert!(
                fs::read(self.path()).unwrap() == self.bytes,
                "it was changed"
            );
        }
    }

    fn newest(&self) -> Superblock {
        let slots = self.bytes.chunks(SUPERBLOCK_BYTES).take(SUPERBLOCK_SLOTS);
        let valid = slots.filter_map(|slot| Superblock::parse(slot, 0).ok());
        valid.max_by_key(Superblock::age).unwrap()
    }

    /// Writes both slots of a superblock.
    fn put_superblock(&mut self, superblock: &Superblock) {
        self.put_slots(superblock.generation, &superblock.encode()[..]);
    }

    fn put_slots(&mut self, generation: u64, slot: &[u8]) {
        let first = place(Position(generation % 2 * 2 * BLOCK_BYTES));
        self.bytes[first..first + 2 * SUPERBLOCK_BYTES]
            .chunks_mut(SUPERBLOCK_BYTES)
            .for_each(|place| place.copy_from_slice(slot));
    }

    /// The newest superblock, changed.
    fn change(&mut self, change: impl FnOnce(&mut Superblock)) {
        let mut superblock = self.newest();
        change(&mut superblock);
        self.put_superblock(&superblock);
    }

    fn root(&self, kind: RootKind) -> Root {
        *self.newest().root(kind).unwrap()
    }

    fn body_at(page: &PageRef) -> usize {
        place(page.position) + FRAME_HEADER_BYTES
    }

    fn body(&self, page: &PageRef) -> &[u8] {
        &self.bytes[File::body_at(page)..][..page.body_len as usize]
    }

    /// Another body of the same length in a page's frame, with right checksums; how parents name it.
    fn replace(&mut self, page: &PageRef, body: &[u8]) -> PageRef {
        assert_eq!(body.len(), page.body_len as usize);
        let store_id = self.newest().store_id;
        let frame = Place {
            seed: StoreSeed::new(&store_id),
            segment_use: page.segment_use,
            position: page.position,
        };
        let at = place(page.position);
        let (mut header, _) = FrameHeader::parse(&self.bytes[at..], frame).unwrap();
        header.body_crc = crc32c::crc32c(body);
        let (bytes, _) = header.encode(frame);
        self.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
        let body_at = File::body_at(page);
        self.bytes[body_at..body_at + body.len()].copy_from_slice(body);
        PageRef {
            body_crc: header.body_crc,
            ..*page
        }
    }

    /// Writes a page like another, but with this body, behind the end of the log.
    fn add(&mut self, like: &PageRef, body: &[u8]) -> PageRef {
        let superblock = self.newest();
        let old = Place {
            seed: StoreSeed::new(&superblock.store_id),
            segment_use: like.segment_use,
            position: like.position,
        };
        let at = place(like.position);
        let (mut header, _) = FrameHeader::parse(&self.bytes[at..], old).unwrap();
        header.body_len = u32::try_from(body.len()).unwrap();
        header.body_crc = crc32c::crc32c(body);
        let at = self.bytes.len().next_multiple_of(4096) + 4096;
        let new = Place {
            segment_use: superblock.head.segment_use,
            position: Position(at as u64),
            ..old
        };
        self.bytes.resize(at, 0);
        self.bytes.extend(header.encode(new).0);
        self.bytes.extend(body);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(4096), 0);
        PageRef {
            position: new.position,
            segment_use: new.segment_use,
            body_len: header.body_len,
            body_crc: header.body_crc,
        }
    }

    /// The same for the page that a root names.
    fn replace_root(&mut self, kind: RootKind, body: &[u8]) {
        let page = self.root(kind).page;
        let page = self.replace(&page, body);
        self.change(|superblock| {
            let mut roots = superblock.roots.iter_mut();
            roots.find(|root| root.kind == kind).unwrap().page = page;
        });
    }

    /// Damages the key of record `n`, and with it the head.
    fn damage_key(&mut self, n: u64) {
        let both = key(n) + &value(n);
        let mut places = self.bytes.windows(both.len());
        let at = places.position(|bytes| bytes == both.as_bytes()).unwrap();
        self.bytes[at] ^= 1;
    }
}

fn is_corrupt(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. })
}

/// Reads of all kinds, which must give these keys.
fn check_keys(view: &ReadView, keys: u64) {
    assert_eq!(view.range(..).count().unwrap(), keys);
    for (n, record) in (0..).zip(view.range(..)) {
        let record = record.unwrap();
        assert_eq!(record.key(), key(n).as_bytes());
        assert_eq!(record.value(), value(n).as_bytes());
        assert!(view.get(key(n)).unwrap().is_some());
    }
}

/// Opens, and says whether the index was built from the records.
fn loads_records(file: &File, options: Options) -> (Db, bool) {
    file.write();
    let loaded = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&loaded);
    let told = move |progress: revtree::Progress| {
        seen.fetch_or(progress.what == "records loaded", Ordering::SeqCst);
    };
    let db = options.on_progress(told).open(file.path()).unwrap();
    (db, loaded.load(Ordering::SeqCst))
}

/// The key index run saves time and holds nothing of its own: damaged, it is built again from the records,
/// and `check` tells of it (B-93).
#[test]
fn a_damaged_index_run_is_built_again() {
    let file = File::of_one_commit(500);
    let directory = file.root(RootKind::Index).page;
    let parsed = Directory::parse(file.body(&directory), directory.position).unwrap();
    let places = [
        File::body_at(&directory),
        File::body_at(&parsed.chunks[0]) + 100,
        place(parsed.chunks[0].position) + 9,
    ];
    for options in [Options::new, || Options::new().read_only()] {
        let (db, loaded) = loads_records(&file, options());
        assert!(!loaded, "a sound run is used");
        drop(db);
        for at in places {
            let mut file = File {
                dir: tempfile::tempdir().unwrap(),
                bytes: file.bytes.clone(),
            };
            file.bytes[at] ^= 4;
            let (db, loaded) = loads_records(&file, options());
            assert!(loaded, "at {at}");
            check_keys(&db.read().unwrap(), 500);
            let damage = db.check().unwrap().damage;
            assert_eq!(damage.len(), 1, "at {at}: {damage:?}");
        }
    }
    // A run of a revision that the checkpoint does not have.
    let mut file = file;
    file.change(|superblock| {
        let run = superblock.roots.iter_mut();
        run.for_each(|root| root.detail *= 2);
    });
    let (db, loaded) = loads_records(&file, Options::new());
    assert!(loaded);
    check_keys(&db.read().unwrap(), 500);
}

/// A run with good checksums whose positions are those of no record is passed over too (B-93).
#[test]
fn an_index_run_that_leads_nowhere_is_built_again() {
    let changes: [fn(&mut Position); 3] = [
        |position| position.0 += 4,
        // Free, in the file or not.
        |position| position.0 += 1 << 20,
        |position| position.0 = 8192,
    ];
    for change in changes {
        let mut file = File::of_commits(20);
        let page = file.root(RootKind::Index).page;
        let mut directory = Directory::parse(file.body(&page), page.position).unwrap();
        let chunk = directory.chunks[0];
        let mut leaves = IndexLeaf::parse_chunk(file.body(&chunk), chunk.position).unwrap();
        change(&mut leaves[0].entries[7].position);
        let mut body = Vec::new();
        leaves.iter().for_each(|leaf| leaf.encode(&mut body));
        directory.chunks[0] = file.replace(&chunk, &body);
        file.replace_root(RootKind::Index, &directory.encode());
        let (db, loaded) = loads_records(&file, Options::new());
        assert!(loaded);
        check_keys(&db.read().unwrap(), 20);
    }
}

/// CRC-32, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

/// A newer checkpoint that says what this version must not pass over refuses the file. An older one, which
/// could be read, is no way out: the next checkpoint would be written over the newer (V-5).
#[test]
fn a_newer_checkpoint_that_refuses_is_not_passed_over() {
    let forged = |at: usize, byte: u8| {
        let mut file = File::of_commits(3);
        let mut newer = file.newest();
        newer.generation += 1;
        newer.revision = newer.revision.next();
        let mut slot = newer.encode();
        slot[at] = byte;
        let sums = [crc32(&slot[16..]), crc32c::crc32c(&slot[16..])];
        slot[8..12].copy_from_slice(&sums[0].to_le_bytes());
        slot[12..16].copy_from_slice(&sums[1].to_le_bytes());
        file.put_slots(newer.generation, &slot[..]);
        file
    };
    let roots = 144;
    // An unknown critical flag, another branch, an unknown kind and an unknown flag of a critical root.
    for (at, byte) in [(20, 1), (60, 1), (roots, 99), (roots + 2, 3)] {
        forged(at, byte).refused(is_corrupt);
    }
    // The next version of the format (V-3).
    forged(16, 2).refused(|error| {
        let right = |found, newest| found == 2 && newest == 1;
        matches!(error, Error::FormatTooNew { found, newest } if right(*found, *newest))
    });
    // With damage in it, as a crash leaves it, the older one is taken.
    let mut torn = forged(60, 0);
    torn.put_slots(torn.newest().generation, &[7; SUPERBLOCK_BYTES]);
    assert_eq!(torn.open().unwrap().rev().get(), 4);
}

/// A file that ends inside its slots is what is left of a store, and told as damage, with its length; one
/// in which no slot begins is none (C-20).
#[test]
fn a_file_shorter_than_its_slots() {
    let whole = File::of_commits(3);
    for len in (0..16 << 10).filter(|len| len % 512 < 10) {
        let file = File {
            dir: tempfile::tempdir().unwrap(),
            bytes: whole.bytes[..len].to_vec(),
        };
        if len < 8 {
            file.refused(|error| matches!(error, Error::NotAStore { .. }));
        } else {
            let found = len as u64;
            file.refused(|error| {
                matches!(error, Error::Corrupt { expected: 16384, found: len, .. } if *len == found)
            });
        }
    }
    // A store of which only a later slot is left, and a file of something else.
    let mut file = whole;
    file.bytes.truncate(9000);
    file.bytes[..4096].fill(0);
    file.refused(is_corrupt);
    file.bytes.fill(0);
    file.refused(|error| matches!(error, Error::NotAStore { .. }));
}

/// A frame with good checksums that no writer of this version makes is damage, not the log's end: one that
/// lies in its segment's last block (B-11), a page with records (B-24), a kind that is unknown (V-6). Cutting
/// the log there would drop what came behind (C-23).
#[test]
fn a_frame_that_breaks_a_rule_does_not_end_the_log() {
    const SEGMENT: usize = 64 << 10;
    /// Puts a frame at the head of the log, so many bytes before the segment's end.
    fn with_frame(from_end: usize, change: impl FnOnce(&mut [u8])) -> File {
        let mut file = File::of_commits(3);
        file.bytes.resize(SEGMENT, 0);
        file.change(|superblock| {
            assert_eq!(superblock.head.segment, 0);
            superblock.head.position = Position((SEGMENT - from_end) as u64);
        });
        let superblock = file.newest();
        let head = superblock.head;
        let body = [0; 64];
        let header = FrameHeader {
            kind: FrameKind::Chunk,
            flags: FrameFlags {
                padded: true,
                ..FrameFlags::default()
            },
            body_crc: crc32c::crc32c(&body),
            prev_crc: head.prev_crc,
            sequence: head.sequence,
            synced_up_to: head.sequence,
            revision: superblock.revision,
            body_len: 64,
            records_len: 0,
            record_count: 0,
            opens: superblock.opens,
        };
        let place = Place {
            seed: StoreSeed::new(&superblock.store_id),
            segment_use: head.segment_use,
            position: head.position,
        };
        let (mut bytes, _) = header.encode(place);
        change(&mut bytes);
        let bound = [
            &superblock.store_id[..],
            &head.segment_use.to_le_bytes(),
            &head.position.0.to_le_bytes(),
            &bytes[8..],
        ];
        let crc = crc32(&bound.concat());
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        let at = SEGMENT - from_end;
        file.bytes[at..at + 64].copy_from_slice(&bytes);
        file.bytes[at + 64..at + 128].copy_from_slice(&body);
        file
    }
    // As it should be: the last frame ends where the last block begins.
    for from_end in [8192, 4096 + 128] {
        let db = with_frame(from_end, |_| {}).open().unwrap();
        check_keys(&db.read().unwrap(), 3);
        db.put(key(3), value(3)).unwrap();
        check_keys(&db.read().unwrap(), 4);
    }
    for from_end in [4096 + 64, 4096, 128] {
        with_frame(from_end, |_| {}).refused(is_corrupt);
    }
    // Kind, records of a page, a length that is none.
    let changes: [fn(&mut [u8]); 3] = [
        |header| header[56] = 9,
        |header| header[44] = 48,
        |header| header[40] = 63,
    ];
    for change in changes {
        with_frame(8192, change).refused(is_corrupt);
    }
    // Whole, but not the one that follows: it is none of the log, which ends before it (B-23).
    let db = with_frame(8192, |_| {}).open().unwrap();
    assert_eq!(
        (db.recovery().frames_replayed, db.recovery().clean),
        (1, false)
    );
    let strangers: [fn(&mut [u8]); 2] = [
        |header| header[12] ^= 1, // the frame before it is another
        |header| header[16] += 1, // its number is another
    ];
    for change in strangers {
        let db = with_frame(8192, change).open().unwrap();
        let recovery = db.recovery();
        assert_eq!(recovery.frames_replayed, 0, "{recovery:?}");
        check_keys(&db.read().unwrap(), 3);
    }
}

/// Records that no writer puts into a frame are damage, whatever its checksums say: not in ascending order, not above
/// what was there, above the revision of their frame, more or fewer than it counts (B-26, B-27, C-23).
#[test]
fn records_that_break_a_rule_are_refused() {
    /// A store at revision 4, and behind its log's head a frame with these records.
    fn with_records(ids: &[(u64, u64)], change: impl FnOnce(&mut FrameHeader)) -> File {
        let mut file = File::of_commits(3);
        let superblock = file.newest();
        let head = superblock.head;
        let seed = StoreSeed::new(&superblock.store_id);
        let at = |offset: usize| Place {
            seed,
            segment_use: head.segment_use,
            position: Position(head.position.0 + offset as u64),
        };
        let mut body = Vec::new();
        for (n, (main, sub)) in (3..).zip(ids) {
            let (key, value) = (key(n), value(n));
            let record = NewRecord {
                kind: RecordKind::Put,
                id: ChangeId::new(Revision::new(*main), *sub),
                create: Revision::new(*main),
                version: 1,
                lease: LeaseId::default(),
                ordinal: 1,
                prev: None,
                skip: None,
                key: key.as_bytes(),
                value: value.as_bytes(),
            };
            let start = body.len();
            body.resize(start + record.record_len(), 0);
            record.encode(&mut body[start..], at(FRAME_HEADER_BYTES + start));
        }
        let len = u32::try_from(body.len()).unwrap();
        let mut header = FrameHeader {
            kind: FrameKind::Records,
            flags: FrameFlags {
                padded: true,
                ..FrameFlags::default()
            },
            body_crc: 0,
            prev_crc: head.prev_crc,
            sequence: head.sequence,
            synced_up_to: head.sequence,
            revision: Revision::new(5),
            body_len: len,
            records_len: len,
            record_count: u32::try_from(ids.len()).unwrap(),
            opens: superblock.opens,
        };
        change(&mut header);
        body.truncate(header.body_len as usize);
        header.body_crc = crc32c::crc32c(&body);
        file.bytes.truncate(place(head.position));
        file.bytes.extend(header.encode(at(0)).0);
        file.bytes.extend(body);
        let whole = file.bytes.len().next_multiple_of(4096);
        file.bytes.resize(whole, 0);
        file
    }
    for (ids, keys) in [
        (&[(5, 0)][..], 4),
        (&[(5, 0), (5, 1)], 5),
        (&[(5, 3), (5, 7)], 5),
        (&[], 3),
    ] {
        let db = with_records(ids, |_| ()).open().unwrap();
        assert_eq!(db.rev().get(), 5, "{ids:?}");
        check_keys(&db.read().unwrap(), keys);
        assert!(db.check().unwrap().is_clean());
    }
    // To read, a frame that nothing proves to be durable is not shown at all.
    let refused = |file: &File, what: &str| match file.open() {
        Ok(db) => panic!("{what}: it opened at {}", db.rev()),
        Err(error) => assert!(is_corrupt(&error), "{what}: {error}"),
    };
    let orders: [&[(u64, u64)]; 5] = [
        &[(5, 1), (5, 0)],
        &[(5, 0), (5, 0)],
        &[(4, 0)],
        &[(6, 0)],
        &[(5, 0), (6, 0)],
    ];
    for ids in orders {
        refused(&with_records(ids, |_| ()), &format!("{ids:?}"));
    }
    let changes: [fn(&mut FrameHeader); 4] = [
        |header| header.record_count = 1,
        |header| header.record_count = 3,
        |header| header.revision = Revision::new(3),
        // The last record goes on behind the frame.
        |header| {
            header.body_len -= 8;
            header.records_len -= 8;
        },
    ];
    for change in changes {
        refused(&with_records(&[(5, 0), (5, 1)], change), "a header");
    }
    // Without records too a revision does not fall.
    let fallen = with_records(&[], |header| header.revision = Revision::new(3));
    refused(&fallen, "a revision that falls");
}

/// The pages of a blob are a quarter of a segment and not much less, and an item is in one of them (B-82); the segment
/// table is written once when it fits its segment.
#[test]
fn blobs_are_cut_into_chunks() {
    let file = File::new(|db| {
        for n in 0..2000 {
            db.put(key(n) + &"k".repeat(40), value(n)).unwrap();
        }
        let mut txn = db.write().unwrap();
        for n in 0..200_u64 {
            let mut table = txn.table("rows").unwrap();
            table.put(&n.to_be_bytes(), &[7; 300]).unwrap();
        }
        // One that is longer than a chunk has one alone.
        let mut table = txn.table("rows").unwrap();
        table.put(&[0x80], &[7; 20_000]).unwrap();
        table.put(&[0x90], &[7; 300]).unwrap();
        txn.commit().unwrap();
    });
    const LIMIT: u32 = 16 << 10;
    let chunks = |kind| {
        let page = file.root(kind).page;
        let directory = Directory::parse(file.body(&page), page.position).unwrap();
        let lens: Vec<u32> = directory
            .chunks
            .iter()
            .map(|chunk| chunk.body_len)
            .collect();
        lens
    };
    let tables = chunks(RootKind::Tables);
    let (alone, others): (Vec<u32>, Vec<u32>) = tables.iter().partition(|len| **len > LIMIT);
    assert!(
        matches!(alone[..], [len] if len < LIMIT + 5000),
        "{tables:?}"
    );
    // But the last before it, and the last.
    assert!(others.len() > 4, "{tables:?}");
    let short = others.iter().filter(|len| **len < LIMIT - 400);
    assert!(short.count() <= 2, "{tables:?}");
    // A leaf of the index may be cut by no chunk, and so reach beyond its limit.
    let index = chunks(RootKind::Index);
    let (last, others) = index.split_last().unwrap();
    assert!(others.len() > 1 && *last <= 2 * LIMIT, "{index:?}");
    assert!(
        others.iter().all(|len| (LIMIT..2 * LIMIT).contains(len)),
        "{index:?}"
    );
    // Directories: of the segments, the tables and the index.
    let words = file.bytes[16 << 10..].chunks(8).enumerate();
    let frames = words.filter(|(_, word)| word.starts_with(b"RVFM"));
    let kinds = frames.map(|(n, _)| file.bytes[(16 << 10) + n * 8 + 56]);
    assert_eq!(kinds.filter(|kind| *kind == 4).count(), 3);
}

/// Use numbers never repeat: an open beyond their range is refused (B-13). To read, none is needed.
#[test]
fn opens_do_not_wrap() {
    let mut file = File::of_commits(3);
    file.change(|superblock| superblock.opens = u32::MAX);
    assert!(matches!(file.open(), Err(Error::LimitReached { .. })));
    assert_eq!(file.bytes, fs::read(file.path()).unwrap());
    assert_eq!(file.open_to_read().unwrap().rev().get(), 4);
    file.change(|superblock| (superblock.opens, superblock.edition) = (7, u32::MAX));
    assert!(matches!(file.open(), Err(Error::LimitReached { .. })));
}

/// A compact revision that has not been made yet is refused: a hash would wait for it for ever.
#[test]
fn a_compact_revision_of_the_future_is_refused() {
    let mut file = File::of_commits(3);
    file.change(|superblock| superblock.compact_revision = Some(superblock.revision.next()));
    file.refused(is_corrupt);
    file.change(|superblock| superblock.compact_revision = Some(superblock.revision));
    file.open().unwrap().hash(&[]).unwrap();
}

/// A checkpoint below its own newest record is refused: the next change would get a revision that is taken (C-22).
#[test]
fn a_revision_below_the_newest_record_is_refused() {
    for (less, opens) in [(0, true), (1, false), (2, false)] {
        let mut file = File::of_commits(3);
        file.change(|superblock| {
            superblock.revision = Revision::new(superblock.revision.get() - less);
            superblock.roots.retain(|root| root.kind != RootKind::Index);
        });
        if opens {
            check_keys(&file.open_to_read().unwrap().read().unwrap(), 3);
        } else {
            file.refused(is_corrupt);
        }
    }
}

/// A log head far beyond the file asks for no memory for the segments before it.
#[test]
fn a_log_head_beyond_the_file_is_refused() {
    for terabytes in [1u64, 15] {
        let mut file = File::of_commits(3);
        file.change(|superblock| {
            let head = &mut superblock.head;
            head.position = Position((terabytes << 40) + 4096);
            head.segment = u32::try_from((terabytes << 40) / (64 << 10)).unwrap();
        });
        file.refused(is_corrupt);
    }
    let mut file = File::of_commits(3);
    file.change(|superblock| superblock.head.segment = u32::MAX);
    file.refused(is_corrupt);
}

/// A segment table whose entries contradict each other is damage, not a way to walk for ever (B-85).
#[test]
fn a_crafted_segment_table_is_refused() {
    let changes: [fn(&mut [SegmentEntry]); 8] = [
        // A long segment is one use in one state.
        |entries| {
            entries[0].units = 2;
            entries[1].units = 0;
        },
        |entries| {
            entries[0].units = 2;
            entries[1] = SegmentEntry {
                segment_use: entries[0].segment_use,
                units: 0,
                ..SegmentEntry::FREE
            };
        },
        // Free units stand each for itself.
        |entries| {
            let free = |units| SegmentEntry {
                units,
                ..SegmentEntry::FREE
            };
            (entries[0], entries[1]) = (free(2), free(0));
        },
        |entries| entries[0].units = u32::MAX,
        |entries| entries[0].units = 2,
        |entries| entries[1].units = 0,
        |entries| entries.last_mut().unwrap().units = 2,
        |entries| {
            entries[1] = SegmentEntry {
                segment_use: 5,
                ..SegmentEntry::FREE
            }
        },
    ];
    for change in changes {
        let mut file = File::of_commits(60);
        let page = file.root(RootKind::Segments).page;
        let mut directory = Directory::parse(file.body(&page), page.position).unwrap();
        let chunk = directory.chunks[0];
        let mut entries = parse_segments(file.body(&chunk), chunk.position).unwrap();
        assert!(entries.len() > 2);
        change(&mut entries);
        directory.chunks[0] = file.replace(&chunk, &encode_segments(&entries));
        file.replace_root(RootKind::Segments, &directory.encode());
        file.refused(is_corrupt);
    }
}

/// A table that has segments in use where there is no file is refused, however many; with free ones it opens.
#[test]
fn a_segment_table_beyond_the_file_is_refused() {
    for (count, used) in [(1, false), (1, true), (2000, true)] {
        let mut file = File::of_commits(60);
        let page = file.root(RootKind::Segments).page;
        let mut directory = Directory::parse(file.body(&page), page.position).unwrap();
        let chunk = directory.chunks[0];
        let mut entries = parse_segments(file.body(&chunk), chunk.position).unwrap();
        let last = *entries.last().unwrap();
        let more = SegmentEntry {
            segment_use: last.segment_use + 1,
            units: 1,
            ..last
        };
        let free = SegmentEntry::FREE;
        entries.extend((1..=count).map(|n| if used && n == count { more } else { free }));
        directory.items = entries.len() as u64;
        directory.chunks[0] = file.add(&chunk, &encode_segments(&entries));
        file.replace_root(RootKind::Segments, &directory.encode());
        file.change(|superblock| superblock.segment_count = entries.len().try_into().unwrap());
        if used {
            file.refused(|error| error.to_string().contains("behind the end of the file"));
        } else {
            check_keys(&file.open_to_read().unwrap().read().unwrap(), 60);
        }
    }
}

/// Leaves that a page puts behind the end of the file are damage, and found at once: there may be many, and from each
/// it is 2^28 segments back to the first.
#[test]
fn leaves_far_behind_the_file_are_damage() {
    let mut file = File::of_commits(100);
    let page = file.root(RootKind::Tree).page;
    let mut root = BranchPage::parse(file.body(&page), page.position).unwrap();
    let BranchEntries::Leaves(leaves) = &mut root.entries else {
        panic!("100 leaves fit a page");
    };
    for leaf in leaves.iter_mut() {
        leaf.position = Position(leaf.position.0 + STORE_BYTES_MAX / 2);
    }
    let (first, count) = (leaves[0].position.0, leaves.len());
    file.replace_root(RootKind::Tree, &root.encode());
    let db = file.open_to_read().unwrap();
    let report = db.check().unwrap();
    let far = |error: &&Error| matches!(error, Error::Corrupt { offset, .. } if *offset >= first);
    // Each is told once.
    assert_eq!(report.damage.iter().filter(far).count(), count);
}

/// A leaf of one long record is that record (B-71, B-73): its head is read before the rest, since a page may name many,
/// each as long as the file.
#[test]
fn a_long_leaf_is_the_record_that_it_begins_with() {
    let long = || {
        File::new(|db| {
            for n in 0..3 {
                db.put(key(n), vec![7; 20 << 10]).unwrap();
            }
        })
    };
    type Change = fn(&mut [LeafRun]);
    let changes: [(Change, &str); 3] = [
        (
            |leaves| leaves[1].len -= 8,
            "length of a leaf of one record",
        ),
        (
            |leaves| leaves[1].len += 8,
            "length of a leaf of one record",
        ),
        (
            |leaves| {
                (leaves[1].position, leaves[1].segment_use) =
                    (leaves[0].position, leaves[0].segment_use);
            },
            "first record of a leaf",
        ),
    ];
    for (change, expected) in changes {
        let mut file = long();
        let page = file.root(RootKind::Tree).page;
        let mut root = BranchPage::parse(file.body(&page), page.position).unwrap();
        let BranchEntries::Leaves(leaves) = &mut root.entries else {
            panic!("three leaves fit a page");
        };
        change(leaves);
        file.replace_root(RootKind::Tree, &root.encode());
        let report = file.open_to_read().unwrap().check().unwrap();
        let is_told =
            |error: &Error| matches!(error, Error::Corrupt { what, .. } if *what == expected);
        assert!(report.damage.iter().any(is_told), "{:?}", report.damage);
    }
}

/// A check walks each segment once, though a page names leaves of two segments by turns.
#[test]
fn a_check_reads_each_frame_once() {
    let mut file = File::of_commits(60);
    let frames = |file: &File| {
        let db = file.open_to_read().unwrap();
        db.check().unwrap().frames
    };
    let whole = frames(&file);
    let page = file.root(RootKind::Tree).page;
    let mut root = BranchPage::parse(file.body(&page), page.position).unwrap();
    let BranchEntries::Leaves(leaves) = &mut root.entries else {
        panic!("60 leaves fit a page");
    };
    let places: Vec<_> = leaves
        .iter()
        .map(|leaf| (leaf.position, leaf.segment_use))
        .collect();
    let (front, back) = places.split_at(places.len() / 2);
    let by_turns = front
        .iter()
        .zip(back)
        .flat_map(|(one, other)| [*one, *other]);
    for (leaf, (position, segment_use)) in leaves.iter_mut().zip(by_turns) {
        (leaf.position, leaf.segment_use) = (position, segment_use);
    }
    file.replace_root(RootKind::Tree, &root.encode());
    assert!(frames(&file) <= whole);
}

/// A page that is not the one that its parent means is damage (B-73), and no page is walked twice.
#[test]
fn a_page_in_the_place_of_another_is_refused() {
    let mut file = File::of_commits(300);
    let page = file.root(RootKind::Tree).page;
    let mut root = BranchPage::parse(file.body(&page), page.position).unwrap();
    let BranchEntries::Children(children) = &mut root.entries else {
        panic!("300 leaves are more than a page");
    };
    children[1].page = children[0].page;
    file.replace_root(RootKind::Tree, &root.encode());
    // The run leads to every key without the tree; what needs the tree is told.
    let db = file.open_to_read().unwrap();
    check_keys(&db.read().unwrap(), 300);
    assert!(is_corrupt(&db.hash_by_rev(0).unwrap_err()));
    assert!(!db.check().unwrap().is_clean());
    drop(db);
    file.change(|superblock| superblock.roots.retain(|root| root.kind != RootKind::Index));
    file.refused(is_corrupt);
}

/// A page that is whole by itself, of the right kind, length and place, and yet not the one that was written last: its
/// parent's copy of the checksum tells (B-73). Planted, a page taken without that was found by nothing, since what
/// chance puts there is not whole.
#[test]
fn a_whole_page_that_is_not_the_one_meant_is_refused() {
    let older = |body: &[u8]| {
        let mut body = body.to_vec();
        body[8..16].copy_from_slice(&[0; 8]);
        body
    };
    let fill = |db: &Db| {
        for n in 0..300 {
            let mut txn = db.write().unwrap();
            txn.put(key(n), value(n)).unwrap();
            let row = n.to_be_bytes();
            txn.table("rows").unwrap().put(b"newest", &row).unwrap();
            txn.commit().unwrap();
        }
    };
    // A child in the tree: another generation, everything else as it was.
    let mut file = File::new(fill);
    let root = file.root(RootKind::Tree).page;
    let top = BranchPage::parse(file.body(&root), root.position).unwrap();
    let BranchEntries::Children(children) = top.entries else {
        panic!("300 leaves are more than a page");
    };
    let child = children[0].page;
    let body = older(file.body(&child));
    assert!(BranchPage::parse(&body, child.position).is_ok());
    file.replace(&child, &body);
    let db = file.open_to_read().unwrap();
    assert!(is_corrupt(&db.hash_by_rev(0).unwrap_err()));
    assert!(!db.check().unwrap().is_clean());
    // The top page.
    let mut file = File::new(fill);
    let root = file.root(RootKind::Tree).page;
    let body = older(file.body(&root));
    file.replace(&root, &body);
    assert!(is_corrupt(&file.open().unwrap_err()));
    assert!(!file.open_to_read().unwrap().check().unwrap().is_clean());
    // A chunk of the side tables: the row that was there before.
    let mut file = File::new(fill);
    let directory = file.root(RootKind::Tables).page;
    let chunks = Directory::parse(file.body(&directory), directory.position).unwrap();
    let chunk = chunks.chunks[0];
    let mut body = file.body(&chunk).to_vec();
    let newest = 299_u64.to_be_bytes();
    let row = body.windows(8).position(|bytes| bytes == newest).unwrap();
    body[row + 7] -= 1;
    file.replace(&chunk, &body);
    file.refused(is_corrupt);
}

/// A hint that leads to a whole record, but not to the one that is meant, costs time and never truth (B-46). Planted, a
/// hint that was believed was found by nothing.
#[test]
fn a_hint_to_another_record_is_not_believed() {
    let mut file = File::new(|db| {
        db.put("one key", "its first value").unwrap();
        db.put("another key", "not its value").unwrap();
        db.put("one key", "its second value").unwrap();
    });
    let record = |text: &str| {
        let mut places = file.bytes.windows(text.len());
        places.position(|bytes| bytes == text.as_bytes()).unwrap() - RECORD_HEAD_BYTES
    };
    let first = record("one keyits first value") as u64;
    let other = record("another keynot its value") as u64;
    let hint = record("one keyits second value") + 8;
    assert_eq!(file.bytes[hint..hint + 8], first.to_le_bytes());
    file.bytes[hint..hint + 8].copy_from_slice(&other.to_le_bytes());
    for db in [file.open_to_read().unwrap(), file.open().unwrap()] {
        let before = db.read_at(2).unwrap();
        let found = before.get("one key").unwrap().unwrap();
        assert_eq!(found.value(), b"its first value");
        let view = db.read().unwrap();
        let history = view.history("one key").unwrap();
        let values: Vec<_> = history
            .map(|event| event.unwrap().kv.value.to_vec())
            .collect();
        assert_eq!(values, [&b"its first value"[..], b"its second value"]);
    }
}

/// A damaged page of the tree is one error of a walk over changes, which then ends, from either end; it is
/// in the report of a check, and no error of it; reads that do not need the page go on.
#[test]
fn a_damaged_page_ends_a_walk() {
    for keys in [20, 300] {
        let mut file = File::of_commits(keys);
        let page = file.root(RootKind::Tree).page;
        file.bytes[File::body_at(&page) + 20] ^= 1;
        let db = file.open_to_read().unwrap();
        let view = db.read().unwrap();
        check_keys(&view, keys);
        let changes = || view.changes(.., 2.into()..=view.rev()).unwrap().take(1000);
        let backward = view.changes(.., 2.into()..=view.rev()).unwrap().rev();
        assert_eq!(changes().count(), 1);
        assert!(is_corrupt(&changes().next().unwrap().unwrap_err()));
        assert_eq!(backward.take(1000).count(), 1);
        let report = db.check().unwrap();
        assert!(report.damage.iter().all(is_corrupt));
        assert!(!report.is_clean());
        assert_eq!(report.keys, keys);
    }
}

/// A damaged head is one error of a walk over changes. What lies before it in its leaf is given, from
/// either end; behind it the walk goes on with the next leaf.
#[test]
fn changes_around_a_damaged_head() {
    let mut file = File::new(|db| {
        for commit in 0..3 {
            let mut txn = db.write().unwrap();
            for n in 0..50 {
                let n = commit * 50 + n;
                txn.put(key(n), value(n)).unwrap();
            }
            txn.commit().unwrap();
        }
    });
    file.damage_key(70);
    let db = file.open_to_read().unwrap();
    let view = db.read().unwrap();
    let seen = |event: revtree::Result<revtree::Event>| event.ok().map(|event| event.kv.key);
    let changes = || view.changes(.., 2.into()..=view.rev()).unwrap().take(1000);
    let known = |numbers: &mut dyn Iterator<Item = u64>| -> Vec<Option<bytes::Bytes>> {
        numbers.map(|n| Some(key(n).into())).collect()
    };
    // One transaction is a frame, and 50 small records are a leaf of it.
    let (before, behind) = (known(&mut (0..70)), known(&mut (100..150)));
    let forward: Vec<_> = changes().map(seen).collect();
    assert_eq!(
        forward,
        [before.clone(), vec![None], behind.clone()].concat()
    );
    let all = view.changes(.., 2.into()..=view.rev()).unwrap();
    let mut backward: Vec<_> = all.rev().take(1000).map(seen).collect();
    backward.reverse();
    assert_eq!(backward, [before, vec![None], behind].concat());
}

/// A damaged head is one error of a range, wherever in it: every other key is read.
#[test]
fn a_range_goes_on_behind_a_damaged_head() {
    for damaged in [0, 1, 126, 127, 128, 129, 255, 299] {
        let mut file = File::of_one_commit(300);
        file.damage_key(damaged);
        let db = file.open_to_read().unwrap();
        let view = db.read().unwrap();
        let expected = |ascends: bool| -> Vec<Option<String>> {
            let all = (0..300).map(|n| (n != damaged).then(|| key(n)));
            if ascends {
                all.collect()
            } else {
                all.rev().collect()
            }
        };
        let name = |kv: revtree::Record<'_>| String::from_utf8(kv.key().to_vec()).unwrap();
        let forward: Vec<_> = view.range(..).iter().map(|kv| kv.ok().map(name)).collect();
        assert_eq!(forward, expected(true), "{damaged} of 300");
        let backward = view.range(..).iter().rev();
        let backward: Vec<_> = backward.map(|kv| kv.ok().map(name)).collect();
        assert_eq!(backward, expected(false), "{damaged} of 300, from the back");
    }
}

/// what no read looks at, the header of a frame before the log's head, a record's hint and its padding, is
/// told by a check, with its place; every read is right.
#[test]
fn a_check_tells_of_headers_hints_and_padding() {
    let mut file = File::new(|db| {
        for n in 0..9 {
            db.put("key", format!("the value {n}")).unwrap();
        }
    });
    // Of one in the middle, and of the newest.
    for value in [b"the value 7", b"the value 8"] {
        let mut records = file.bytes.windows(value.len());
        let value_at = records.position(|bytes| bytes == value).unwrap();
        let magic = |at: &usize| file.bytes[*at..].starts_with(b"RVFM");
        let frame = (0..value_at).rev().find(magic).unwrap();
        let hint = frame + FRAME_HEADER_BYTES + 8;
        assert_ne!(file.bytes[hint..hint + 8], [0; 8]);
        let padding = value_at + value.len();
        assert_eq!(file.bytes[padding], 0);
        for at in [frame + 9, frame + 60, hint, padding] {
            file.bytes[at] ^= 1;
            let db = file.open_to_read().unwrap();
            let found = db.get("key").unwrap().unwrap();
            assert_eq!((&found.value[..], found.version), (&b"the value 8"[..], 9));
            assert_eq!(db.read().unwrap().history("key").unwrap().count(), 9);
            let report = db.check().unwrap();
            assert!(
                matches!(&report.damage[..], [Error::Corrupt { offset, .. }] if *offset == frame as u64),
                "{at:#x}: {:?}",
                report.damage
            );
            file.bytes[at] ^= 1;
        }
    }
    let report = file.open_to_read().unwrap().check().unwrap();
    assert!(report.is_clean(), "{report:?}");
    // Nine commits; a page of the tree, a chunk of the index and one of the segments.
    assert_eq!((report.frames, report.leaves, report.pages), (9, 9, 3));
    // Damage in one frame does not hide that in another.
    for value in [b"the value 2", b"the value 5"] {
        let mut records = file.bytes.windows(value.len());
        let value_at = records.position(|bytes| bytes == value).unwrap();
        file.bytes[value_at + value.len()] ^= 1;
    }
    let report = file.open_to_read().unwrap().check().unwrap();
    assert_eq!(report.damage.len(), 2, "{report:?}");
}

/// A crafted superblock whose log goes on where no frame fits is refused. It was opened, and the next put asked
/// for bytes behind the segment's end, which panicked.
#[test]
fn a_log_head_at_the_end_of_its_segment() {
    let opened = |from_end: u64| {
        let mut file = File::of_commits(3);
        file.bytes.resize(64 << 10, 0);
        file.change(|superblock| {
            assert_eq!(superblock.head.segment, 0);
            superblock.head.position = Position((64 << 10) - from_end);
        });
        file.open()
    };
    let refused = opened(0).unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
    // One block before it a frame fits that says where the log goes on.
    opened(4096).unwrap().put(key(3), value(3)).unwrap();
}

/// A crafted superblock whose log goes on before pages that it names. An open for writing took the log to end there, and
/// cut them off; they are evidence that what lies before them had been durable (C-25).
#[test]
fn a_log_head_before_the_pages_of_its_checkpoint() {
    let mut file = File::of_commits(20);
    let page = file.root(RootKind::Tree).page.position.0;
    file.change(|superblock| superblock.head.position = Position(page / 4096 * 4096));
    let refused = file.open().unwrap_err();
    assert!(is_corrupt(&refused), "{refused}");
    assert!(fs::read(file.path()).unwrap() == file.bytes);
    check_keys(&file.open_to_read().unwrap().read().unwrap(), 20);
}
