//! Goal: beside a writer, readers miss no key that they know of, see order, and see counts that
//! belong to the revision beside them.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use revtree_format::Revision;

use super::super::{create, pin};
use super::{Random, Records, SECRET, enough};

const KEYS: u64 = enough(20_000, 80);

/// Key number `n`, in an order that has nothing to do with that of the numbers.
fn key(n: u64) -> Vec<u8> {
    [
        &b"/k/"[..],
        &n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(),
    ]
    .concat()
}

#[test]
fn readers_beside_a_writer() {
    let (index, mut writer) = create(SECRET);
    let (records, inserted, done) = (
        Records::default(),
        AtomicU64::new(0),
        AtomicBool::new(false),
    );
    let (index, records, inserted, done) = (&index, &records, &inserted, &done);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            scope.spawn(move || {
                let random = Random::new(seed);
                while !done.load(Ordering::Acquire) {
                    let known = inserted.load(Ordering::Acquire);
                    if known == 0 {
                        continue;
                    }
                    let wanted = key(random.next() % known);
                    let found = index.find(&wanted, records).expect("readable");
                    let (_, position) = found.expect("inserted before we asked");
                    assert_eq!(*records.key(position), *wanted);

                    // Revision r has exactly r keys.
                    let count = index.count(Bound::Unbounded, Bound::Unbounded, records);
                    let count = count.expect("readable");
                    assert_eq!(count.all, count.revision.get());
                    let mut out = Vec::new();
                    let from = Bound::Included(&*wanted);
                    index.chunk(from, Bound::Unbounded, false, 20, records, &mut out);
                    let keys: Vec<_> = out
                        .iter()
                        .map(|entry| records.key(entry.position))
                        .collect();
                    assert!(keys.is_sorted_by(|a, b| a < b), "seed {seed}");
                    assert!(keys.iter().all(|key| **key >= *wanted), "seed {seed}");
                    if cfg!(miri) {
                        // The writer's turn: four threads have one processor there.
                        std::thread::yield_now();
                    }
                }
            });
        }
        let random = Random::new(99);
        for n in 0..KEYS {
            let key = key(n);
            let id = writer
                .insert(&key, records.append(&key), true, records)
                .expect("readable");
            inserted.store(n + 1, Ordering::Release);
            if random.below(3) == 0 {
                writer.swing(id, records.append(&key));
            }
            if random.below(4) == 0 {
                writer.publish(Revision::new(n + 1));
            }
        }
        writer.publish(Revision::new(KEYS));
        done.store(true, Ordering::Release);
    });
    assert_eq!(index.totals().all, KEYS);
}

/// Keys leave and others take their ids, while readers look for keys that stay, and walk: each of those is found in
/// every look, and whatever else is met has a record of its own.
#[test]
fn readers_beside_keys_that_leave() {
    let (index, mut writer) = create(SECRET);
    let (records, done) = (Records::default(), AtomicBool::new(false));
    let (index, records, done) = (&index, &records, &done);
    let stays: Vec<_> = (0..50).map(key).collect();
    for key in &stays {
        let placed = writer.insert(key, records.append(key), true, records);
        placed.expect("readable");
    }
    writer.publish(Revision::new(50));
    let stays = &stays;
    std::thread::scope(|scope| {
        for seed in 0..3 {
            scope.spawn(move || {
                let random = Random::new(seed);
                while !done.load(Ordering::Acquire) {
                    let wanted = &stays[random.below(stays.len())];
                    let found = index.find(wanted, records).expect("readable");
                    let (_, position) = found.expect("it never leaves");
                    assert_eq!(*records.key(position), **wanted);
                    let gone = key(50 + random.next() % KEYS);
                    if let Some((_, position)) = index.find(&gone, records).expect("readable") {
                        assert_eq!(*records.key(position), *gone);
                    }
                    let _guard = pin();
                    let mut out = Vec::new();
                    index.chunk(
                        Bound::Unbounded,
                        Bound::Unbounded,
                        false,
                        400,
                        records,
                        &mut out,
                    );
                    let keys: Vec<_> = out
                        .iter()
                        .map(|entry| records.key(entry.position))
                        .collect();
                    assert!(keys.is_sorted_by(|a, b| a < b), "seed {seed}");
                    assert!(
                        stays
                            .iter()
                            .all(|key| keys.iter().any(|met| **met == **key))
                    );
                    if cfg!(miri) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut there = Vec::new();
        for n in 50..50 + KEYS {
            let key = key(n);
            let id = writer.insert(&key, records.append(&key), true, records);
            there.push((key, id.expect("readable")));
            if there.len() == 100 {
                writer.publish(Revision::new(n));
                let leave: Vec<_> = there.drain(..70).collect();
                let leave: Vec<_> = leave.iter().map(|(key, id)| (&key[..], *id)).collect();
                writer.remove(&leave);
            }
        }
        assert!(
            u64::from(writer.ids_given()) < KEYS || cfg!(miri),
            "ids come again"
        );
        done.store(true, Ordering::Release);
    });
}
