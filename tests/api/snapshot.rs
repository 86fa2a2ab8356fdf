//! Snapshots: the image of a revision is a store file that reads as its source did (SPEC.md, S-1 to S-6).

use std::path::Path;

use revtree::{
    Applied, DEFAULT_IGNORES, Db, Durability, Error, Event, KeyRange, LeaseId, Options, Revision,
    Snapshot,
};
use revtree_format::{
    ChangeId, Control, Controls, FrameHeader, FrameKind, Geometry, Place, Position, SegmentHeader,
    StoreSeed, Superblock, parse_record,
};

/// Chance from a seed, so that a failure can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % n
    }
}

fn small_segments() -> Options {
    Options::new()
        .segment_bytes(64 << 10)
        .checkpoint_bytes(256 << 10)
        .durability(Durability::Batched {
            changes: 1000,
            interval: std::time::Duration::from_millis(5),
        })
}

/// Puts, deletes, several changes of a key in one transaction, tables, leases, values of all lengths.
fn write_history(db: &Db, seed: u64, transactions: u64, value_bytes_max: u64) {
    let mut chance = Chance(seed);
    for n in 0..transactions {
        let mut txn = db.write().unwrap();
        let ops = if n % 53 == 52 {
            40
        } else {
            1 + chance.below(4)
        };
        for _ in 0..ops {
            let key = format!("key/{:03}", chance.below(60));
            match chance.below(10) {
                0 | 1 => {
                    txn.delete(&key).unwrap();
                }
                2 => {
                    txn.delete(&key).unwrap();
                    txn.put_with_lease(&key, "again", LeaseId(7)).unwrap();
                }
                _ => {
                    let len = usize::try_from(chance.below(value_bytes_max)).unwrap();
                    txn.put(&key, vec![u8::try_from(n % 251).unwrap(); len])
                        .unwrap();
                }
            }
        }
        if n % 10 == 0 {
            let row = n.to_le_bytes();
            txn.table("raft").unwrap().put(&row, b"entry").unwrap();
            txn.set_applied(Applied {
                index: n + 1,
                term: 3,
            });
        }
        txn.commit().unwrap();
    }
}

/// Everything that two stores can say about revisions from `rev_from` to `rev_to`.
fn assert_same(a: &Db, b: &Db, revs: std::ops::RangeInclusive<u64>, step: usize) {
    assert_eq!(a.compact_rev(), b.compact_rev());
    let to = Revision::new(*revs.end());
    for rev in revs.clone().rev().step_by(step) {
        let (a_view, b_view) = (a.read_at(rev).unwrap(), b.read_at(rev).unwrap());
        let all = |view: &revtree::ReadView| view.range(..).collect().unwrap().kvs;
        assert_eq!(all(&a_view), all(&b_view), "at {rev}");
        assert_eq!(
            a_view.range(..).count().unwrap(),
            b_view.range(..).count().unwrap()
        );
        let (a_hash, b_hash) = (a.hash_by_rev(rev).unwrap(), b.hash_by_rev(rev).unwrap());
        // At the compact revision the source may answer with the hash that its compaction had.
        if a_hash.compact_revision == b_hash.compact_revision {
            assert_eq!(a_hash, b_hash, "at {rev}");
        }
    }
    let (a_view, b_view) = (a.read_at(to).unwrap(), b.read_at(to).unwrap());
    let events = |view: &revtree::ReadView| -> Vec<(Event, String)> {
        let first = Revision::new(*revs.start());
        let changes = view.changes(KeyRange::all(), first..=to).unwrap();
        let changes = changes.map(|event| event.unwrap());
        changes
            .map(|event| (event.clone(), format!("{:?}", event.prev)))
            .collect()
    };
    let same = |a: &[(Event, String)], b: &[(Event, String)]| {
        assert_eq!(a.len(), b.len());
        for ((a, a_prev), (b, b_prev)) in a.iter().zip(b) {
            assert_eq!((a.id, a.kind, &a.kv, a_prev), (b.id, b.kind, &b.kv, b_prev));
        }
    };
    same(&events(&a_view), &events(&b_view));
    for n in 0..60 {
        let history = |view: &revtree::ReadView| -> Vec<(Event, String)> {
            let events = view.history(format!("key/{n:03}")).unwrap();
            let events = events.map(|event| event.unwrap());
            events
                .map(|event| (event.clone(), format!("{:?}", event.prev)))
                .collect()
        };
        same(&history(&a_view), &history(&b_view));
    }
}

fn tables(db: &Db) -> Vec<(String, Vec<(bytes::Bytes, bytes::Bytes)>)> {
    let view = db.read().unwrap();
    view.tables()
        .map(|name| {
            let rows = view.table(name).iter().map(|row| row.unwrap()).collect();
            (name.to_owned(), rows)
        })
        .collect()
}

fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    let len = snapshot.write_to(&mut bytes).unwrap();
    assert_eq!(len, bytes.len() as u64);
    assert_eq!(len, snapshot.len());
    assert!(bytes.len().is_multiple_of(4096));
    bytes
}

/// Walks the chain of all frames from the first one to the head, as no open does: what was planned and
/// what was made are the same, links lead to where their hints say.
fn check_frames(bytes: &[u8]) {
    let superblock = Superblock::parse(&bytes[..4096], 0).unwrap();
    for slot in 1..4 {
        assert_eq!(bytes[..4096], bytes[slot * 4096..(slot + 1) * 4096]);
    }
    let geometry = Geometry::new(superblock.segment_bytes);
    let store_id = superblock.store_id;
    let at_byte = |position: Position| &bytes[usize::try_from(position.0).unwrap()..];
    let segment = |index: u32| {
        let start = geometry.start(index);
        SegmentHeader::parse(at_byte(start), &store_id, start.0).unwrap()
    };
    let mut header = segment(0);
    let mut at = Position(16_384 + 64);
    let (mut sequence, mut prev_crc) = (1, 0);
    let mut last = ChangeId::default();
    let mut in_run = None;
    let mut ids = std::collections::HashMap::new();
    assert_eq!(header.segment_use, u64::from(superblock.opens) << 32 | 1);
    while at != superblock.head.position {
        let segment_use = header.segment_use;
        let place = Place {
            seed: StoreSeed::new(&store_id),
            segment_use,
            position: at,
        };
        let (frame, crc) = FrameHeader::parse(at_byte(at), place).unwrap();
        assert_eq!((frame.sequence, frame.prev_crc), (sequence, prev_crc));
        assert_eq!(
            (frame.synced_up_to, frame.opens),
            (sequence, superblock.opens)
        );
        (sequence, prev_crc) = (sequence + 1, crc);
        let body_at = at.plus(64);
        let body = &at_byte(body_at)[..frame.body_len as usize];
        frame.check_body(body, at).unwrap();
        assert!(frame.revision >= last.main);
        let (mut rest, mut record_at) = (&body[..frame.records_len as usize], body_at);
        let alone = frame.record_count == 1;
        assert!(
            alone || frame.body_len <= 256 << 10,
            "a frame is as long as B-29 allows"
        );
        if frame.record_count > 0 && in_run.is_none() {
            assert!(parse_record(rest, place.at(record_at)).unwrap().0.id.main > last.main);
        }
        while !rest.is_empty() {
            let (record, _) = parse_record(rest, place.at(record_at)).unwrap();
            assert!(record.id > last);
            last = record.id;
            for link in [record.prev, record.skip].into_iter().flatten() {
                assert_eq!(ids.get(&link.hint.0), Some(&link.id), "hints are exact");
            }
            ids.insert(record_at.0, record.id);
            rest = &rest[record.record_len()..];
            record_at = record_at.plus(record.record_len() as u64);
        }
        if frame.flags.last_in_segment {
            let mut items = Controls::new(body, body_at.0);
            let Some(Ok(Control::NextSegment {
                index,
                units,
                segment_use,
            })) = items.next()
            else {
                panic!("a closing frame names the next segment");
            };
            header = segment(index);
            assert_eq!((header.index, header.units), (index, units));
            assert_eq!(header.segment_use, segment_use);
            assert_eq!(header.first_sequence, sequence);
            at = geometry.start(index).plus(64);
        } else {
            if frame.kind == FrameKind::Records {
                in_run = frame.flags.continued.then_some(frame.revision);
            }
            at = frame.next_position(at);
        }
    }
    assert_eq!(
        (sequence, prev_crc),
        (superblock.head.sequence, superblock.head.prev_crc)
    );
    assert_eq!(ids.len() as u64, superblock.records);
    assert_eq!(in_run, None);
}

/// Opens a saved snapshot, which must be clean and whole.
fn open_saved(snapshot: &Snapshot, path: &Path) -> Db {
    let len = snapshot.save(path).unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().len(), len);
    let bytes = bytes_of(snapshot);
    assert!(std::fs::read(path).unwrap() == bytes);
    check_frames(&bytes);
    let copy = Db::open(path).unwrap();
    let recovery = copy.recovery();
    assert!(
        recovery.clean && recovery.frames_replayed == 0,
        "{recovery:?}"
    );
    assert_eq!(recovery.superblocks_bad, 0);
    let report = copy.check().unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!(copy.rev(), snapshot.revision());
    assert_eq!(copy.consistent_index(), snapshot.applied());
    copy
}

#[test]
fn a_snapshot_taken_under_writes_is_the_source_at_its_revision() {
    let dir = tempfile::tempdir().unwrap();
    let db = small_segments().open(dir.path().join("store")).unwrap();
    write_history(&db, 1, 300, 900);
    let snapshot = db.snapshot().unwrap();
    let tables_then = tables(&db);
    let hash_then = db.hash(DEFAULT_IGNORES).unwrap();
    let rev = db.rev();
    std::thread::scope(|scope| {
        scope.spawn(|| write_history(&db, 2, 200, 900));
        assert!(snapshot.len() > 0);
    });
    assert!(db.rev() > rev);
    let copy = open_saved(&snapshot, &dir.path().join("copy"));
    assert_eq!(copy.rev(), rev);
    assert_eq!(tables(&copy), tables_then);
    assert_eq!(copy.hash(DEFAULT_IGNORES).unwrap(), hash_then);
    assert_same(&db, &copy, 2..=rev.get(), 7);
    // It is a store as any other.
    copy.put("more", "1").unwrap();
    copy.close().unwrap();
    let copy = Db::open(dir.path().join("copy")).unwrap();
    assert_eq!(copy.get("more").unwrap().unwrap().value, "1");
    assert_same(&db, &copy, 2..=rev.get(), 50);
}

#[test]
fn after_a_compaction_what_it_dropped_is_left_out_and_nothing_else_changes() {
    let dir = tempfile::tempdir().unwrap();
    let db = small_segments().open(dir.path().join("store")).unwrap();
    write_history(&db, 3, 600, 900);
    let before = db.snapshot().unwrap();
    for compact in [100, 250, 401] {
        db.compact(compact).unwrap();
        let snapshot = db.snapshot().unwrap();
        let path = dir.path().join(format!("copy{compact}"));
        let copy = open_saved(&snapshot, &path);
        assert!(snapshot.len() < before.len());
        assert_same(&db, &copy, compact..=db.rev().get(), 11);
        assert_eq!(
            db.hash(DEFAULT_IGNORES).unwrap(),
            copy.hash(DEFAULT_IGNORES).unwrap()
        );
        assert!(matches!(
            copy.read_at(compact - 1),
            Err(Error::Compacted { .. })
        ));
        // Both go on alike: links into what was dropped are not missed.
        copy.compact(db.rev()).unwrap();
        copy.put("key/001", "next").unwrap();
        assert_eq!(copy.check().unwrap().damage.len(), 0);
    }
    // Taken before the compactions, and still exact.
    let copy = open_saved(&before, &dir.path().join("before"));
    assert_eq!(copy.compact_rev(), None);
    assert!(copy.read_at(2).unwrap().range(..).count().unwrap() > 0);
}

#[test]
fn at_the_compact_revision_deletes_and_puts_of_one_transaction_stay() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path().join("store")).unwrap();
    db.put("a", "1").unwrap();
    db.put("gone", "1").unwrap();
    db.delete("gone").unwrap();
    let mut txn = db.write().unwrap();
    txn.put("b", "1").unwrap();
    txn.delete("a").unwrap();
    txn.put("a", "2").unwrap();
    txn.put("a", "3").unwrap();
    txn.delete("b").unwrap();
    let at = txn.commit().unwrap().revision;
    db.put("a", "4").unwrap();
    for compact in [at, at.next()] {
        db.compact(compact).unwrap();
        let path = dir.path().join(format!("copy{compact}"));
        let copy = open_saved(&db.snapshot().unwrap(), &path);
        for key in ["a", "b", "gone"] {
            let history = |db: &Db| -> Vec<_> {
                let view = db.read().unwrap();
                let events = view.history(key).unwrap();
                events
                    .map(|event| event.unwrap())
                    .map(|e| (e.id, e.kind, e.kv))
                    .collect()
            };
            assert_eq!(history(&db), history(&copy), "{key} at {compact}");
        }
        assert_same(&db, &copy, compact.get()..=db.rev().get(), 1);
    }
}

#[test]
fn an_empty_store_and_one_whose_keys_are_all_gone() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path().join("store")).unwrap();
    let copy = open_saved(&db.snapshot().unwrap(), &dir.path().join("empty"));
    assert_eq!(copy.rev().get(), 1);
    copy.put("a", "1").unwrap();
    copy.close().unwrap();
    let copy = Db::open(dir.path().join("empty")).unwrap();
    assert_eq!(copy.get("a").unwrap().unwrap().value, "1");
    db.put("a", "1").unwrap();
    db.delete("a").unwrap();
    db.put("b", "1").unwrap();
    db.delete("b").unwrap();
    db.raise_consistent_index(9).unwrap();
    db.compact(5).unwrap();
    let copy = open_saved(&db.snapshot().unwrap(), &dir.path().join("gone"));
    assert_eq!(copy.rev().get(), 5);
    assert_eq!(copy.consistent_index().index, 9);
    assert_same(&db, &copy, 5..=5, 1);
    assert_eq!(copy.put("b", "2").unwrap().get(), 6);
    assert_eq!(copy.get("b").unwrap().unwrap().version, 1);
}

#[test]
fn values_longer_than_a_segment_and_transactions_longer_than_a_frame() {
    let dir = tempfile::tempdir().unwrap();
    let db = small_segments().open(dir.path().join("store")).unwrap();
    write_history(&db, 4, 120, 100_000);
    // Larger than a frame, in records that are smaller, then in ones that are larger than a segment.
    for len in [3_000, 150_000] {
        let mut txn = db.write().unwrap();
        for n in 0..150 {
            txn.put(format!("key/{:03}", n % 55), vec![7; len + n])
                .unwrap();
        }
        txn.commit().unwrap();
        db.put("key/000", "between").unwrap();
    }
    let copy = open_saved(&db.snapshot().unwrap(), &dir.path().join("copy"));
    assert_same(&db, &copy, 2..=db.rev().get(), 13);
    db.compact(db.rev()).unwrap();
    let copy = open_saved(&db.snapshot().unwrap(), &dir.path().join("compacted"));
    assert_same(&db, &copy, db.rev().get()..=db.rev().get(), 1);
}

#[test]
fn a_whole_store_goes_through_many_branch_pages_and_segment_sizes() {
    let dir = tempfile::tempdir().unwrap();
    for segment_bytes in [64 << 10, 4 << 20] {
        let name = format!("store{segment_bytes}");
        let options = small_segments().segment_bytes(segment_bytes);
        let db = options.open(dir.path().join(&name)).unwrap();
        for n in 0..6000u32 {
            db.put(format!("{:05}", n * 7919 % 5000), vec![1; 600])
                .unwrap();
        }
        let snapshot = db.snapshot().unwrap();
        let copy = open_saved(&snapshot, &dir.path().join(format!("copy{name}")));
        assert_eq!(db.hash_by_rev(0).unwrap(), copy.hash_by_rev(0).unwrap());
        assert_eq!(copy.read().unwrap().range(..).count().unwrap(), 5000);
        assert_eq!(copy.get("00007").unwrap(), db.get("00007").unwrap());
    }
}

#[test]
fn odd_chunks_in_any_order_are_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let db = small_segments().open(dir.path().join("store")).unwrap();
    write_history(&db, 5, 200, 3_000);
    let snapshot = db.snapshot().unwrap();
    let len = snapshot.len();
    let bytes = bytes_of(&snapshot);
    // Another snapshot of the same revision, read in pieces: its length first, then from the end.
    let other = db.snapshot().unwrap();
    assert_eq!(other.len(), len);
    let mut chance = Chance(9);
    for _ in 0..200 {
        let offset = chance.below(len);
        let mut buf = vec![0; usize::try_from(1 + chance.below(90_000)).unwrap()];
        let read = other.read_at(&mut buf, offset).unwrap();
        let at = usize::try_from(offset).unwrap();
        assert_eq!(read, buf.len().min(bytes.len() - at));
        assert_eq!(buf[..read], bytes[at..at + read], "at {offset}");
    }
    let mut buf = vec![0; 777];
    let mut all = Vec::new();
    loop {
        let read = other.read_at(&mut buf, all.len() as u64).unwrap();
        if read == 0 {
            break;
        }
        all.extend_from_slice(&buf[..read]);
    }
    assert!(all == bytes);
    assert_eq!(other.read_at(&mut buf, u64::MAX).unwrap(), 0);
    assert_eq!(other.read_at(&mut [], 0).unwrap(), 0);
}

#[test]
fn a_snapshot_of_a_snapshot_is_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let db = small_segments().open(dir.path().join("store")).unwrap();
    write_history(&db, 6, 400, 2_000);
    db.compact(150).unwrap();
    let snapshot = db.snapshot().unwrap();
    let path = dir.path().join("copy");
    snapshot.save(&path).unwrap();
    // Opened for reading only, so that it counts no writable open.
    let copy = Options::new().read_only().open(&path).unwrap();
    let again = copy.snapshot().unwrap();
    assert!(bytes_of(&again) == bytes_of(&snapshot));
}

#[test]
fn a_snapshot_outlives_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    db.put("a", "1").unwrap();
    let snapshot = db.snapshot().unwrap();
    db.close().unwrap();
    assert!(matches!(Db::open(&path), Err(Error::Locked { .. })));
    let copy = open_saved(&snapshot, &dir.path().join("copy"));
    assert_eq!(copy.get("a").unwrap().unwrap().value, "1");
    drop(snapshot);
    Db::open(&path).unwrap();
}

#[test]
fn saving_replaces_a_file_but_no_open_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    db.put("a", "1").unwrap();
    let snapshot = db.snapshot().unwrap();
    let error = snapshot.save(&path).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Locked {
                by_this_process: true,
                ..
            }
        ),
        "{error:?}"
    );
    let other = dir.path().join("other");
    std::fs::write(&other, "something").unwrap();
    snapshot.save(&other).unwrap();
    let copy = Db::open(&other).unwrap();
    assert!(matches!(snapshot.save(&other), Err(Error::Locked { .. })));
    drop(copy);
    assert!(snapshot.save(dir.path().join("no/where")).is_err());
    let names = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 2, "no unfinished file is left");
}

#[test]
fn a_damaged_value_is_not_copied_under_a_new_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    db.put("a", "the value to be damaged").unwrap();
    db.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|w| w == b"to be da").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let db = Db::open(&path).unwrap();
    let snapshot = db.snapshot().unwrap();
    assert_eq!(snapshot.len(), 0);
    assert!(matches!(
        snapshot.read_at(&mut [0], 0),
        Err(Error::Corrupt { .. })
    ));
    assert!(matches!(
        snapshot.save(dir.path().join("copy")),
        Err(Error::Corrupt { .. })
    ));
    assert!(!dir.path().join("copy").exists());
}

/// Records in a long segment, behind its long record, may lie in the unit behind the one in which their
/// leaf begins; they were not found to be superseded, and hashed.
#[test]
fn hashes_do_not_depend_on_the_segment_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = |segment_bytes: u64| {
        let name = format!("store{segment_bytes}");
        let options = small_segments().segment_bytes(segment_bytes);
        let db = options.open(dir.path().join(name)).unwrap();
        // Ends just before the border of its second unit.
        db.put("long", vec![1; 127_200]).unwrap();
        for n in 0..60 {
            db.put(format!("key/{:03}", n % 9), vec![2; 100]).unwrap();
        }
        db.compact(db.rev()).unwrap();
        db
    };
    let (small, large) = (store(64 << 10), store(4 << 20));
    assert_eq!(small.hash_by_rev(0).unwrap(), large.hash_by_rev(0).unwrap());
    assert_eq!(small.stats().live_bytes, large.stats().live_bytes);
}

/// A key's history up to an older revision had nothing when the key was deleted there and is put again
/// later: the walk stopped at the put that began the new life.
#[test]
fn the_history_of_a_key_that_was_deleted_then_and_lives_again_now() {
    let db = Options::new().open_in_memory().unwrap();
    db.put("a", "1").unwrap();
    let deleted = db.delete("a").unwrap().revision;
    db.put("a", "2").unwrap();
    let events = |rev: Revision| {
        let view = db.read_at(rev).unwrap();
        let events = view.history("a").unwrap();
        events
            .map(|event| event.unwrap().id.main.get())
            .collect::<Vec<_>>()
    };
    assert_eq!(events(deleted), [2, 3]);
    db.compact(deleted).unwrap();
    assert_eq!(events(deleted), [3]);
    assert_eq!(events(db.rev()), [3, 4]);
}

#[test]
fn an_imported_store_with_gaps_and_a_revision_above_its_last_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut importer = Db::importer(dir.path().join("store"), Options::new()).unwrap();
    let put = |main: u64, create: u64, version: u64| {
        let (main, create) = (Revision::new(main), Revision::new(create));
        let lease = LeaseId(-3);
        revtree::KeyValue::new("key/001".into(), "1".into(), create, main, version, lease)
    };
    for (main, version) in [(7, 4), (9, 5), (30, 6)] {
        let id = ChangeId::new(Revision::new(main), 0);
        importer.put(id, &put(main, 3, version)).unwrap();
    }
    let applied = Applied { index: 8, term: 1 };
    let compacted = Some(Revision::new(8));
    let db = importer
        .finish(Revision::new(50), compacted, applied)
        .unwrap();
    let copy = open_saved(&db.snapshot().unwrap(), &dir.path().join("copy"));
    assert_eq!(copy.rev().get(), 50);
    assert_same(&db, &copy, 8..=50, 1);
}

/// The frames of an image are one chain, whatever pieces it was made in: their numbers rise by one, and their revisions
/// never fall, to that of the store (B-23, B-27).
#[test]
fn the_frames_of_an_image_are_a_chain() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_bytes(64 << 10);
    let db = options.open(dir.path().join("store")).unwrap();
    for n in 0..200_u64 {
        db.put(n.to_be_bytes(), vec![7; 3000]).unwrap();
    }
    let saved = dir.path().join("saved");
    db.snapshot().unwrap().save(&saved).unwrap();
    let bytes = std::fs::read(saved).unwrap();
    let words = bytes[16 << 10..].chunks(8).enumerate();
    let frames = words.filter(|(_, word)| word.starts_with(b"RVFM"));
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut frames: Vec<(u64, u64)> = frames
        .map(|(n, _)| (16 << 10) + n * 8)
        .map(|at| (number(at + 16), number(at + 32)))
        .collect();
    frames.sort_unstable();
    assert!(frames.len() > 20, "{frames:?}");
    assert!(frames.windows(2).all(|two| two[0].0 + 1 == two[1].0));
    assert!(
        frames.windows(2).all(|two| two[0].1 <= two[1].1),
        "{frames:?}"
    );
    // Behind the first closing frame none is at the beginning again.
    let newest = db.rev().get();
    assert_eq!(frames.last().map(|frame| frame.1), Some(newest));
}

/// An image's frames hold whole transactions, as a store's do (B-29): one that does not fit beside the others has the
/// next frame, and is no run.
#[test]
fn transactions_of_an_image_are_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new().open(dir.path().join("store")).unwrap();
    for _ in 0..8 {
        let mut txn = db.write().unwrap();
        for n in 0..5_u8 {
            txn.put([n], vec![n; 20_000]).unwrap();
        }
        txn.commit().unwrap();
    }
    let saved = dir.path().join("saved");
    db.snapshot().unwrap().save(&saved).unwrap();
    let bytes = std::fs::read(saved).unwrap();
    let words = bytes[16 << 10..].chunks(8).enumerate();
    let headers = words.filter(|(_, word)| word.starts_with(b"RVFM"));
    let headers = headers.map(|(n, _)| &bytes[(16 << 10) + n * 8..][..64]);
    let of_records = headers.filter(|header| header[56] == 1 && header[48..52] != [0; 4]);
    // Number of records, and whether the transaction goes on.
    let frames: Vec<(u8, u8)> = of_records
        .map(|header| (header[48], header[57] & 2))
        .collect();
    assert_eq!(frames, [(10, 0); 4]);
}
