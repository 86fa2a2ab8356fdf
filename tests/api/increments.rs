//! Increments of backups: a base and what was added to it are the whole (SPEC.md, S-9 to S-12).

use std::io::{Cursor, ErrorKind, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use revtree::{
    Applied, Cleaner, Db, Durability, Error, Event, KeyValue, LeaseId, Options, ReadView, Revision,
    Start, Update,
};

fn options() -> Options {
    Options::new()
        .segment_bytes(64 << 10)
        .durability(Durability::Flushed)
        .cleaner(Cleaner::Manual)
}

fn open(path: &Path) -> Db {
    options().open(path).unwrap()
}

/// Random numbers from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

fn key(n: u64) -> String {
    format!("key {n:02}")
}

/// A few transactions of every kind.
fn change(db: &Db, random: &mut Random) {
    for _ in 0..=random.below(6) {
        let mut txn = db.write().unwrap();
        for _ in 0..=random.below(4) {
            let key = key(random.below(40));
            if random.below(4) == 0 {
                txn.delete(&key).unwrap();
            } else {
                let len = if random.below(30) == 0 {
                    70_000
                } else {
                    random.below(900)
                };
                let value = vec![b'a'; usize::try_from(len).unwrap()];
                let lease = LeaseId(i64::try_from(random.below(3)).unwrap());
                txn.put_with_lease(&key, &value, lease).unwrap();
            }
        }
        if random.below(3) == 0 {
            let row = [u8::try_from(random.below(5)).unwrap()];
            let mut table = txn.table("side").unwrap();
            if random.below(3) == 0 {
                table.delete(&row).unwrap();
            } else {
                table.put(&row, b"value").unwrap();
            }
        }
        if random.below(4) == 0 {
            let index = db.consistent_index().index + 1;
            txn.set_applied(Applied { index, term: 3 });
        }
        txn.commit().unwrap();
    }
}

fn history(db: &Db) -> Vec<Event> {
    let view = db.read().unwrap();
    let from = db.compact_rev().unwrap_or(Revision::new(1));
    let events = view.changes(.., from..=view.rev()).unwrap();
    events.collect::<Result<_, _>>().unwrap()
}

fn live(db: &Db, rev: u64) -> Vec<KeyValue> {
    db.read_at(rev).unwrap().range(..).collect().unwrap().kvs
}

/// Both hold the same: all that can be asked for.
fn same(one: &Db, other: &Db) {
    assert_eq!(one.rev(), other.rev());
    assert_eq!(one.compact_rev(), other.compact_rev());
    assert_eq!(one.consistent_index(), other.consistent_index());
    assert_eq!(one.hash(&[]).unwrap(), other.hash(&[]).unwrap());
    let first = one.compact_rev().unwrap_or(Revision::new(1)).get();
    // Hashes of compactions are kept by who made them, and cover what was there before (H-5).
    let is_kept = |db: &Db, rev: u64| {
        let hashes = db.compaction_hashes();
        hashes.iter().any(|hash| hash.revision.get() == rev)
    };
    for rev in first..=one.rev().get() {
        if is_kept(one, rev) || is_kept(other, rev) {
            continue;
        }
        assert_eq!(
            one.hash_by_rev(rev).unwrap(),
            other.hash_by_rev(rev).unwrap(),
            "{rev}"
        );
    }
    assert_eq!(live(one, first), live(other, first));
    assert_eq!(live(one, 0), live(other, 0));
    let (events, others) = (history(one), history(other));
    assert_eq!(format!("{events:?}"), format!("{others:?}"));
    for n in 0..40 {
        let of = |db: &Db| {
            let view = db.read().unwrap();
            let events = view.history(key(n)).unwrap();
            format!("{:?}", events.collect::<Result<Vec<_>, _>>().unwrap())
        };
        assert_eq!(of(one), of(other), "{n}");
    }
    let (view, others) = (one.read().unwrap(), other.read().unwrap());
    assert!(view.tables().eq(others.tables()));
    for table in view.tables() {
        let rows = |view: &ReadView| {
            let rows = view.table(table);
            format!("{:?}", rows.iter().collect::<Vec<_>>())
        };
        assert_eq!(rows(&view), rows(&others));
    }
    assert!(one.check().unwrap().is_clean());
}

fn increment(db: &Db, earlier: Revision) -> Vec<u8> {
    let mut bytes = Vec::new();
    let snapshot = db.snapshot().unwrap();
    let len = snapshot.write_since(earlier, &mut bytes).unwrap();
    assert_eq!(len, bytes.len() as u64);
    let mut again = Vec::new();
    snapshot.write_since(earlier, &mut again).unwrap();
    assert!(bytes == again, "the same snapshot gives the same bytes");
    bytes
}

/// A base and increments are the full snapshot, whatever is compacted and cleaned between them, also when the source
/// has been restored from a snapshot of itself, which has forgotten what was compacted.
#[test]
fn a_base_and_increments_are_the_whole() {
    for seed in 1..40u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let dir = tempfile::tempdir().unwrap();
        let source = open(&dir.path().join("source"));
        change(&source, &mut random);
        let copy = copy_of(&source, &dir.path().join("copy"));
        for _ in 0..5 {
            let earlier = copy.rev();
            change(&source, &mut random);
            let compact = |random: &mut Random| {
                let rev = source.rev().get().saturating_sub(random.below(12)).max(1);
                match source.compact(rev) {
                    Ok(_) | Err(Error::Compacted { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            if random.below(2) == 0 {
                compact(&mut random);
                change(&source, &mut random);
            }
            match random.below(4) {
                0 => drop(source.reclaim().unwrap()),
                1 => {
                    let received = dir.path().join("received");
                    source.snapshot().unwrap().save(&received).unwrap();
                    source.restore(&received).unwrap();
                }
                _ => {}
            }
            let bytes = increment(&source, earlier);
            let rev = copy.apply_increment(&bytes[..]).unwrap();
            assert_eq!(rev, source.rev());
            same(&source, &copy);
        }
        // It can be written, compacted and opened as any other.
        copy.put("new", "1").unwrap();
        let rev = copy.rev();
        copy.compact(rev).unwrap();
        copy.reclaim().unwrap();
        copy.close().unwrap();
        let copy = open(&dir.path().join("copy"));
        assert_eq!((copy.rev(), copy.compact_rev()), (rev, Some(rev)));
        assert!(copy.check().unwrap().is_clean());
    }
}

/// A store of its own that is what the source is now.
fn copy_of(source: &Db, path: &Path) -> Db {
    source.snapshot().unwrap().save(path).unwrap();
    open(path)
}

/// What was deleted and compacted away between the two is not there afterwards, though nothing of the source says any
/// more that it was deleted.
#[test]
fn what_was_forgotten_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let source = open(&dir.path().join("source"));
    for key in ["kept", "deleted", "again", "changed"] {
        source.put(key, "1").unwrap();
    }
    let copy = copy_of(&source, &dir.path().join("copy"));
    let earlier = source.rev();
    source.delete("deleted").unwrap();
    source.delete("again").unwrap();
    source.put("changed", "2").unwrap();
    let compact = source.put("other", "1").unwrap();
    source.put("again", "2").unwrap();
    source.compact(compact).unwrap();
    source.reclaim().unwrap();
    let received = dir.path().join("received");
    source.snapshot().unwrap().save(&received).unwrap();
    source.restore(&received).unwrap();
    copy.apply_increment(&increment(&source, earlier)[..])
        .unwrap();
    let keys = |rev: u64| {
        live(&copy, rev)
            .into_iter()
            .map(|kv| kv.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(compact.get()), ["changed", "kept", "other"]);
    assert_eq!(keys(0), ["again", "changed", "kept", "other"]);
    same(&source, &copy);
}

/// An increment for another store, another revision, or other changes of the same revision changes nothing, and it is
/// said what is wrong.
#[test]
fn it_must_fit() {
    let dir = tempfile::tempdir().unwrap();
    let source = open(&dir.path().join("source"));
    source.put("a", "1").unwrap();
    let earlier = source.put("b", "1").unwrap();
    let copies: Vec<Db> = (0..4)
        .map(|n| {
            let path = dir.path().join(n.to_string());
            copy_of(&source, &path)
        })
        .collect();
    source.put("a", "2").unwrap();
    let bytes = increment(&source, earlier);
    let refused = |db: &Db, bytes: &[u8], what: &str| {
        let (rev, hash) = (db.rev(), db.hash(&[]).unwrap());
        match db.apply_increment(bytes) {
            Err(Error::Import { what: found, .. }) => assert!(found.contains(what), "{found}"),
            other => panic!("{other:?}"),
        }
        assert_eq!((db.rev(), db.hash(&[]).unwrap()), (rev, hash));
        assert_eq!(db.put("still", "1").unwrap(), rev.next());
    };
    let other = open(&dir.path().join("other"));
    other.put("a", "1").unwrap();
    other.put("b", "1").unwrap();
    refused(&other, &bytes, "another store");
    copies[0].put("c", "1").unwrap();
    refused(
        &copies[0],
        &bytes,
        "goes on from revision 3, the store is at 4",
    );
    // The same revision, with another past.
    let since_two = increment(&source, Revision::new(2));
    refused(&copies[1], &since_two, "goes on from revision 2");
    let ahead = &copies[2];
    ahead.put("a", "not 2").unwrap();
    source.put("a", "3").unwrap();
    refused(
        ahead,
        &increment(&source, Revision::new(4)),
        "does not hold",
    );
    let compacted = &copies[3];
    compacted.compact(3).unwrap();
    refused(compacted, &bytes, "compacted further");
    let snapshot = source.snapshot().unwrap();
    let future = snapshot.write_since(Revision::new(99), std::io::sink());
    assert!(matches!(future, Err(Error::FutureRevision { .. })));
    let reader = options().read_only().open(dir.path().join("0"));
    drop(copies);
    let reader = reader
        .or_else(|_| options().read_only().open(dir.path().join("0")))
        .unwrap();
    assert!(matches!(
        reader.apply_increment(&bytes[..]),
        Err(Error::ReadOnly)
    ));
    let names = std::fs::read_dir(dir.path()).unwrap();
    assert_eq!(names.count(), 6, "nothing is left behind");
}

/// An increment that is cut anywhere, or of which any byte is another, changes nothing.
#[test]
fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let source = open(&dir.path().join("source"));
    for n in 0..20 {
        source.put(key(n), "1").unwrap();
    }
    let copy = copy_of(&source, &dir.path().join("copy"));
    let earlier = source.rev();
    let mut txn = source.write().unwrap();
    txn.put("a", "2").unwrap();
    txn.table("side").unwrap().put(b"row", b"value").unwrap();
    txn.commit().unwrap();
    source.delete(key(3)).unwrap();
    source.compact(earlier.next()).unwrap();
    let bytes = increment(&source, earlier);
    let before = copy.hash(&[]).unwrap();
    let refused = |bytes: &[u8]| match copy.apply_increment(bytes) {
        Err(Error::Import { offset, what }) => {
            assert!(offset <= bytes.len() as u64 && !what.is_empty());
        }
        other => panic!("{other:?}"),
    };
    for len in 0..bytes.len() {
        refused(&bytes[..len]);
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        refused(&damaged);
    }
    // A length that is only claimed costs nothing.
    let mut long = bytes[..24].to_vec();
    long[12..16].copy_from_slice(&(300u32 << 20).to_le_bytes());
    refused(&long);
    // A medium that fails is told as it says it.
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(ErrorKind::TimedOut.into())
        }
    }
    // A reader that wants to write to the store cannot, and does not wait for ever.
    struct Writes<'a>(&'a Db, &'a [u8]);
    impl Read for Writes<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            assert!(matches!(self.0.put("a", "1"), Err(Error::InCallback)));
            self.1.read(to)
        }
    }
    assert!(copy.apply_increment(Writes(&copy, &bytes[..200])).is_err());
    let failed = copy.apply_increment(Cursor::new(&bytes[..100]).chain(Fails));
    assert!(matches!(failed, Err(Error::Io { cause, .. }) if cause.kind() == ErrorKind::TimedOut));
    assert_eq!((copy.rev(), copy.hash(&[]).unwrap()), (earlier, before));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    copy.apply_increment(&bytes[..]).unwrap();
    same(&source, &copy);
}

/// Watchers are given what comes with an increment, and views stay on what was.
#[test]
fn watchers_see_it() {
    let dir = tempfile::tempdir().unwrap();
    let source = open(&dir.path().join("source"));
    let earlier = source.put("a", "1").unwrap();
    source
        .snapshot()
        .unwrap()
        .save(dir.path().join("copy"))
        .unwrap();
    for in_memory in [false, true] {
        let copy = if in_memory {
            let copy = options().open_in_memory().unwrap();
            source
                .snapshot()
                .unwrap()
                .save(dir.path().join("arrived"))
                .unwrap();
            copy.restore(dir.path().join("arrived")).unwrap();
            source.put("b", "1").unwrap();
            copy
        } else {
            open(&dir.path().join("copy"))
        };
        let (then, earlier) = (copy.read().unwrap(), earlier.max(copy.rev()));
        let mut stream = copy.watch("a", Start::Now).unwrap();
        source.put("a", "2").unwrap();
        source.delete("a").unwrap();
        source.put("a", "3").unwrap();
        copy.apply_increment(&increment(&source, earlier)[..])
            .unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let Update::Events(events) = stream.recv().unwrap().update else {
                panic!("no events")
            };
            seen.extend(events.iter().map(|event| event.kv.value.to_vec()));
        }
        assert_eq!(seen, [&b"2"[..], b"", b"3"]);
        assert_eq!(then.rev(), earlier);
        assert!(then.get("a").unwrap().is_some());
        same(&source, &copy);
        if !in_memory {
            copy.close().unwrap();
        }
    }
}

/// Backups again and again, full and incremental, beside a writer, compactions and the cleaner: each opens and is
/// whole, and what the base became by increments is what the full one is.
#[test]
fn backups_beside_everything() {
    let dir = tempfile::tempdir().unwrap();
    let source = options()
        .checkpoint_bytes(256 << 10)
        .cleaner(Cleaner::default())
        .open(dir.path().join("source"))
        .unwrap();
    change(&source, &mut Random(7));
    let base = copy_of(&source, &dir.path().join("base"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(99);
            while !done.load(Ordering::Relaxed) {
                change(&source, &mut random);
                if random.below(5) == 0 {
                    let rev = source.rev().get().saturating_sub(20).max(1);
                    let _ = source.compact(rev);
                }
                if source.rev().get() % 64 == 0 {
                    thread::yield_now();
                }
            }
        });
        for round in 0..100 {
            let snapshot = source.snapshot().unwrap();
            let mut bytes = Vec::new();
            snapshot.write_since(base.rev(), &mut bytes).unwrap();
            base.apply_increment(&bytes[..]).unwrap();
            assert_eq!(base.rev(), snapshot.revision());
            let full = dir.path().join("full");
            snapshot.save(&full).unwrap();
            let full = open(&full);
            assert_eq!(full.hash_by_rev(0).unwrap(), base.hash_by_rev(0).unwrap());
            assert_eq!(full.hash(&[]).unwrap(), base.hash(&[]).unwrap());
            assert_eq!(full.consistent_index(), base.consistent_index());
            assert!(full.check().unwrap().is_clean() && base.check().unwrap().is_clean());
            match source.hash_by_rev(snapshot.revision()) {
                Ok(hash) if hash.compact_revision == full.compact_rev() => {
                    assert_eq!(hash, full.hash_by_rev(0).unwrap());
                }
                Ok(_) | Err(Error::Compacted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            if round % 20 == 0 {
                same(&full, &base);
            }
            full.close().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}
