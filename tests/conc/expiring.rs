//! Views that end while they are read, beside a writer and the cleaner (SPEC.md, X-9).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use revtree::{Cleaner, Db, Durability, Error, KeyRange, Options, ReadMode, ReadView, Result};

const KEYS: u64 = 64;
/// A view is whole for so many revisions.
const LIMIT: u64 = 200;
const REVISIONS: u64 = 30_000;

fn key(n: u64) -> String {
    format!("key {:02}", n % KEYS)
}

fn value(n: u64) -> Vec<u8> {
    format!("{n:08};")
        .repeat(20 + usize::try_from(n % 50).unwrap())
        .into_bytes()
}

/// The number of the put that a key has at a revision: the puts go round all keys, one a revision.
fn number_at(slot: u64, rev: u64) -> u64 {
    let newest = rev - 2;
    newest - (newest + KEYS - slot) % KEYS
}

/// Reads all that a view can be asked for; what comes is exact, or the view has ended.
fn read(view: &ReadView, asked: u64) -> Result<()> {
    let rev = view.rev().get();
    let slot = asked % KEYS;
    let exact = |found: &[u8], slot: u64, rev: u64| {
        assert_eq!(found, value(number_at(slot, rev)), "key {slot} at {rev}");
    };
    match asked % 6 {
        0 => {
            let record = view.get(key(slot))?.expect("each key lives");
            exact(record.value(), slot, rev);
        }
        1 => {
            let mut slots = 0..KEYS;
            for record in view.range(..).iter() {
                let record = record?;
                exact(record.value(), slots.next().expect("no more"), rev);
            }
            assert_eq!(slots.next(), None, "a range ended too early at {rev}");
        }
        2 => {
            let mut slots = (0..KEYS).rev();
            for record in view.range(KeyRange::all()).reverse().iter() {
                let record = record?;
                exact(record.value(), slots.next().expect("no more"), rev);
            }
            assert_eq!(slots.next(), None, "a range ended too early at {rev}");
        }
        3 => assert_eq!(view.range(..).count()?, KEYS),
        4 => {
            let history = match view.history(key(slot)) {
                Err(Error::Compacted { .. }) => return Ok(()),
                other => other?,
            };
            let mut newest = None;
            for event in history {
                let event = event?;
                let n = event.id.main.get() - 2;
                assert!(Some(n) > newest && n % KEYS == slot);
                assert_eq!(event.kv.value, value(n));
                newest = Some(n);
            }
            assert_eq!(newest, Some(number_at(slot, rev)));
        }
        _ => {
            let mut slots = 0..KEYS;
            for record in view.clone().into_range(..) {
                let record = record?;
                exact(&record.value, slots.next().expect("no more"), rev);
            }
            assert_eq!(slots.next(), None, "a range ended too early at {rev}");
        }
    }
    Ok(())
}

fn run(read_mode: ReadMode) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new()
        .segment_bytes(64 << 10)
        .durability(Durability::Flushed)
        .cleaner(Cleaner::Manual)
        .read_mode(read_mode)
        .view_limit(LIMIT);
    let db = options.open(dir.path().join("store")).unwrap();
    for n in 0..2 * KEYS {
        db.put(key(n), value(n)).unwrap();
    }
    let done = AtomicBool::new(false);
    let (exact, ended, freed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let reads = |db: &Db, mut asked: u64| {
        let mut forgotten = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let view = db.read().unwrap();
            let lent = view.get(key(asked)).ok().flatten();
            let lent = lent.map(|record| (record.share(), record.mod_revision().get()));
            loop {
                asked += 7;
                match read(&view, asked) {
                    Ok(()) => exact.fetch_add(1, Ordering::Relaxed),
                    Err(Error::ViewExpired { revision }) => {
                        assert_eq!(revision, view.rev());
                        assert!(db.rev().get() > view.store_rev().get() + LIMIT);
                        break;
                    }
                    Err(error) => panic!("{error}"),
                };
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
            ended.fetch_add(1, Ordering::Relaxed);
            // What it has lent stays, also under views that are kept long after their end.
            if let Some((kv, rev)) = &lent {
                assert_eq!(kv.value, value(rev - 2));
            }
            forgotten.push((view, lent));
            if forgotten.len() > 3 {
                let (view, lent) = forgotten.remove(0);
                assert!(read(&view, asked).is_err());
                assert!(lent.is_none_or(|(kv, rev)| kv.value == value(rev - 2)));
            }
        }
    };
    thread::scope(|scope| {
        for seed in 0..2 {
            let (db, reads) = (&db, &reads);
            scope.spawn(move || reads(db, seed));
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match db.compact(db.rev()) {
                    Ok(_) | Err(Error::Compacted { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                let reclaimed = db.reclaim().unwrap();
                assert!(reclaimed.damage.is_empty(), "{:?}", reclaimed.damage);
                freed.fetch_add(reclaimed.freed_bytes, Ordering::Relaxed);
            }
        });
        for n in 2 * KEYS..REVISIONS {
            db.put(key(n), value(n)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert!(count(&exact) > 0 && count(&ended) > 2 && count(&freed) > 0);
    assert!(db.check().unwrap().is_clean());
    let last = db.reclaim().unwrap();
    assert_eq!((last.held_bytes, db.stats().open_views), (0, 0));
}

/// No read of a view that ends meanwhile gives anything but what was there, and the cleaner goes on beside views that
/// are forgotten.
#[test]
fn a_read_is_exact_or_refused() {
    run(ReadMode::Map);
}

/// The same by positioned reads.
#[test]
fn a_positioned_read_is_exact_or_refused() {
    run(ReadMode::Pread);
}
