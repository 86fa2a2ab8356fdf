//! Reclaiming beside everything else: what is read is never anything but what was written (SPEC.md, X-5).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use revtree::{
    Cleaner, CleanerOptions, Db, Durability, Error, EventKind, KeyRange, KeyValue, Options,
};

const KEYS: u64 = 300;
/// Revisions kept.
const KEPT: u64 = 400;

fn key(n: u64) -> String {
    format!("key {:03}", n % KEYS)
}

/// A value from which its key and number can be told at every byte.
fn value(n: u64) -> Vec<u8> {
    let one = format!("{}={n:08};", key(n));
    one.repeat(5 + usize::try_from(n % 60).unwrap())
        .into_bytes()
}

fn check(kv: &KeyValue) {
    let text = std::str::from_utf8(&kv.value).expect("what was written");
    let first = text.split_once(';').expect("what was written").0;
    let (name, n) = first.split_once('=').expect("what was written");
    assert_eq!(name.as_bytes(), &kv.key[..]);
    assert_eq!(kv.value, value(n.parse().expect("a number")));
}

/// Single reads, ranges in views of any age, shared bytes held beyond their views, history, hashes, transactions
/// and checks, while one thread compacts and reclaims as fast as it can, and segments are used again at once.
#[test]
fn everything_goes_on_beside_it() {
    everything_goes_on(Cleaner::Manual);
}

/// The same beside the thread that cleans of its own accord.
#[test]
fn everything_goes_on_beside_the_thread() {
    let eager = CleanerOptions::new().dead_percent(1);
    everything_goes_on(Cleaner::Paced(eager.bytes_per_second(u64::MAX)));
}

fn everything_goes_on(cleaner: Cleaner) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = || {
        let lazy = Durability::Batched {
            changes: 50,
            interval: std::time::Duration::from_millis(1),
        };
        let options = Options::new().segment_bytes(64 << 10);
        options.durability(lazy).cleaner(cleaner)
    };
    let db = options().open(&path).unwrap();
    for n in 0..KEYS {
        db.put(key(n), value(n)).unwrap();
    }
    let (done, freed) = (AtomicBool::new(false), AtomicU64::new(0));
    let running = || !done.load(Ordering::Relaxed);
    let reclaim = |db: &Db| {
        while running() {
            let rev = db.rev().get().saturating_sub(KEPT).max(1);
            match db.compact(rev) {
                Ok(_) | Err(Error::Compacted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            if cleaner != Cleaner::Manual {
                thread::sleep(std::time::Duration::from_millis(5));
                continue;
            }
            let reclaimed = db.reclaim().unwrap();
            assert!(reclaimed.damage.is_empty(), "{:?}", reclaimed.damage);
            freed.fetch_add(reclaimed.freed_bytes, Ordering::Relaxed);
        }
    };
    let gets = |db: &Db| {
        let mut n = 0;
        while running() {
            n += 7;
            check(&db.get(key(n)).unwrap().expect("never deleted"));
        }
    };
    let views = |db: &Db| {
        let (mut held, mut shared, mut n) = (Vec::new(), Vec::new(), 0);
        while running() {
            n += 1;
            let view = db.read().unwrap();
            for record in view.range(KeyRange::at_least(key(n))).iter() {
                let record = record.unwrap();
                check(&record.to_key_value());
                if n % 5 == 0 && shared.len() < 50 {
                    shared.push(record.share());
                }
            }
            match view.history(key(n)) {
                Ok(events) => {
                    for event in events.map(|event| event.unwrap()) {
                        if event.kind == EventKind::Put {
                            check(&event.kv);
                        }
                    }
                }
                // The compaction has overtaken the view.
                Err(Error::Compacted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            assert_eq!(view.range(..).count().unwrap(), KEYS);
            held.push(view);
            if held.len() > 5 {
                let old = held.remove(0);
                assert_eq!(old.range(..).iter().count() as u64, KEYS);
            }
            if shared.len() == 50 {
                shared.drain(..).for_each(|kv: KeyValue| check(&kv));
                held.clear();
            }
        }
    };
    let checks = |db: &Db| {
        while running() {
            let report = db.check().unwrap();
            assert!(report.is_clean(), "{:?}", report.damage);
            db.hash_by_rev(0).unwrap();
            db.hash(&[]).unwrap();
            assert!(!db.stats().sizes_unknown);
            let snapshot = db.snapshot().unwrap();
            let mut bytes = Vec::new();
            snapshot.write_to(&mut bytes).unwrap();
        }
    };
    thread::scope(|scope| {
        for task in [
            &reclaim as &(dyn Fn(&Db) + Sync),
            &gets,
            &views,
            &views,
            &checks,
        ] {
            scope.spawn(|| {
                let _ends = Ends(&done);
                task(&db);
            });
        }
        let _ends = Ends(&done);
        for n in 0..40_000u64 {
            let n = KEYS + n * 13;
            if n.is_multiple_of(3) {
                let mut txn = db.write().unwrap();
                check(
                    &txn.get(key(n))
                        .unwrap()
                        .expect("never deleted")
                        .to_key_value(),
                );
                txn.delete(key(n)).unwrap();
                txn.put(key(n), value(n)).unwrap();
                txn.commit().unwrap();
            } else {
                db.put(key(n), value(n)).unwrap();
            }
        }
    });
    let freed = freed.load(Ordering::Relaxed);
    let cleaned = db.stats().cleaned_bytes;
    assert!(freed.max(cleaned) > 2 << 20, "{freed} {cleaned}");
    db.close().unwrap();
    let db = options().open(&path).unwrap();
    assert!(db.check().unwrap().is_clean());
    assert_eq!(db.read().unwrap().range(..).count().unwrap(), KEYS);
}

/// Ends the others, also by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
