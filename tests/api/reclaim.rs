//! Reclaiming changes how much space the file takes, and nothing that can be read (SPEC.md, K-6 to K-10).

use std::collections::VecDeque;

use revtree::{
    Cleaner, CleanerOptions, DEFAULT_IGNORES, Db, Durability, Error, Event, KeyRange, KeyValue,
    LeaseId, Options, Outcome, ReadView, Result, Revision,
};

/// The smallest segments: a few dozen records fill one.
const SEGMENT: u64 = 64 << 10;

fn options() -> Options {
    Options::new()
        .segment_bytes(SEGMENT)
        .cleaner(Cleaner::Manual)
}

/// Random numbers from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    fn size(&mut self, n: u64) -> usize {
        usize::try_from(self.below(n)).unwrap()
    }
}

/// The lowest byte.
fn byte(n: u64) -> u8 {
    n.to_le_bytes()[0]
}

fn key(n: u64) -> String {
    format!("key-{n:04}")
}

fn value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(40) {
        0 => 70_000, // longer than a segment
        1..4 => 9000,
        _ => random.below(1500),
    };
    vec![byte(random.below(256)); usize::try_from(len).unwrap()]
}

/// One random step, the same for both stores.
fn step(stores: [&Db; 2], random: &mut Random) -> Result<()> {
    match random.below(20) {
        0 => {
            let (from, n) = (random.below(60), random.below(12));
            for db in stores {
                db.delete_range(KeyRange::between(key(from), key(from + n)))?;
            }
        }
        1..4 => {
            let key = key(random.below(60));
            for db in stores {
                db.delete(&key)?;
            }
        }
        4..8 => {
            let ops: Vec<_> = (0..=random.below(12))
                .map(|_| (key(random.below(20)), random.below(4) == 0, value(random)))
                .collect();
            let lease = LeaseId(random.below(3) as i64);
            for db in stores {
                let mut txn = db.write()?;
                for (key, deletes, value) in &ops {
                    if *deletes {
                        txn.delete(key)?;
                    } else {
                        txn.put_with_lease(key, value, lease)?;
                    }
                }
                txn.table("side")?
                    .put(b"row", &ops[0].2[..ops[0].2.len().min(100)])?;
                txn.commit()?;
            }
        }
        _ => {
            let (key, value) = (key(random.below(60)), value(random));
            for db in stores {
                db.put(&key, &value)?;
            }
        }
    }
    Ok(())
}

/// Everything that a view shows.
fn contents(view: &ReadView) -> Vec<KeyValue> {
    let records = view.range(..).iter();
    let records = records.map(|record| record.unwrap().to_key_value());
    let all: Vec<KeyValue> = records.collect();
    assert_eq!(view.range(..).count().unwrap(), all.len() as u64);
    for kv in &all {
        assert_eq!(view.get(&kv.key).unwrap().unwrap().to_key_value(), *kv);
    }
    all
}

fn events(events: impl Iterator<Item = Result<Event>>) -> Vec<String> {
    events
        .map(|event| {
            let Event {
                id, kind, kv, prev, ..
            } = event.unwrap();
            format!("{id:?} {kind:?} {kv:?} {prev:?}")
        })
        .collect()
}

/// Compares all that can be read of two stores with the same history.
fn compare(cleaned: &Db, plain: &Db, what: &str) {
    let report = cleaned.check().unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.damage);
    assert_eq!(report.keys, plain.check().unwrap().keys, "{what}");
    assert_eq!(
        cleaned.hash(DEFAULT_IGNORES).unwrap(),
        plain.hash(DEFAULT_IGNORES).unwrap(),
        "{what}"
    );
    assert_eq!(
        cleaned.compaction_hashes(),
        plain.compaction_hashes(),
        "{what}"
    );
    let (rev, compact) = (plain.rev(), plain.compact_rev());
    assert_eq!((cleaned.rev(), cleaned.compact_rev()), (rev, compact));
    let first = compact.unwrap_or(Revision::new(1));
    let (one, other) = (cleaned.read().unwrap(), plain.read().unwrap());
    let changes = |view: &ReadView| {
        let found = view.changes(.., first..=rev).unwrap();
        (
            events(view.changes(.., first..=rev).unwrap()),
            events(found.rev()),
        )
    };
    assert_eq!(changes(&one), changes(&other), "{what}");
    for n in 0..60 {
        let history = |view: &ReadView| events(view.history(key(n)).unwrap());
        assert_eq!(history(&one), history(&other), "{what}: {}", key(n));
    }
    let span = rev.get() - first.get();
    for at in (0..=8).map(|n| Revision::new(first.get() + span * n / 8)) {
        let view = |db: &Db| contents(&db.read_at(at).unwrap());
        assert_eq!(view(cleaned), view(plain), "{what}: at {at:?}");
        let hash = |db: &Db| db.hash_by_rev(at).unwrap();
        assert_eq!(hash(cleaned), hash(plain), "{what}: at {at:?}");
    }
}

/// A store that is reclaimed at random moments and one that never is have the same history: all reads, hashes,
/// views held across, images and checks agree, also when the first has been opened again.
#[test]
fn a_store_that_is_reclaimed_reads_like_one_that_never_was() {
    let seeds = std::env::var("REVTREE_SEED").map(|seed| seed.parse().unwrap());
    let seeds = seeds.map_or(1..=6, |seed: u64| seed..=seed);
    for seed in seeds {
        let what = format!("REVTREE_SEED={seed}");
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let mut cleaned = options().open(&path).unwrap();
        let plain = options().open_in_memory().unwrap();
        let mut held: VecDeque<(ReadView, ReadView)> = VecDeque::new();
        let mut shared: VecDeque<(KeyValue, KeyValue)> = VecDeque::new();
        let mut snapshots = Vec::new();
        let (mut freed, mut copied) = (0, 0);
        for n in 0..1500u64 {
            step([&cleaned, &plain], &mut random).unwrap();
            if random.below(25) == 0 {
                let first = plain.compact_rev().map_or(1, Revision::get);
                let at = first + random.below(plain.rev().get() - first + 1);
                held.push_back((cleaned.read_at(at).unwrap(), plain.read_at(at).unwrap()));
            }
            if let Some((one, _)) = held.back()
                && random.below(10) == 0
                && let Some(record) = one.range(..).iter().next()
            {
                let record = record.unwrap();
                shared.push_back((record.share(), record.to_key_value()));
            }
            if random.below(60) == 0 {
                let first = plain.compact_rev().map_or(1, Revision::get);
                let at = first + random.below(plain.rev().get() - first + 1);
                let compacted = [&cleaned, &plain].map(|db| db.compact(at).is_ok());
                assert_eq!(compacted[0], compacted[1], "{what}");
            }
            if random.below(300) == 0 {
                snapshots.push((cleaned.snapshot().unwrap(), plain.snapshot().unwrap()));
            }
            if random.below(40) == 0 {
                let done = cleaned.reclaim().unwrap();
                assert!(done.damage.is_empty(), "{what}: {:?}", done.damage);
                freed += done.freed_bytes;
                copied += done.copied_bytes;
            }
            while held.len() > random.size(4) {
                let (one, other) = held.pop_front().unwrap();
                assert_eq!(contents(&one), contents(&other), "{what}: held");
            }
            while shared.len() > random.size(6) {
                let (shared, copy) = shared.pop_front().unwrap();
                assert_eq!(shared, copy, "{what}: shared");
            }
            if n % 250 == 249 {
                compare(&cleaned, &plain, &what);
                if n < 500 {
                    let live_bytes = [&cleaned, &plain].map(|db| db.stats().live_bytes);
                    assert_eq!(live_bytes[0], live_bytes[1], "{what}");
                }
            }
            if n % 500 == 499 {
                for (one, other) in snapshots.drain(..) {
                    // They may differ by links: those of a restored store lead nowhere else.
                    let [one, other] = [one, other].map(|snapshot: revtree::Snapshot| {
                        let path = dir.path().join("image");
                        snapshot.save(&path).unwrap();
                        let image = options().open_in_memory().unwrap();
                        image.restore(&path).unwrap();
                        image
                    });
                    compare(&one, &other, &format!("{what}: images"));
                }
                held.clear();
                shared.clear();
                cleaned.reclaim().unwrap();
                // A compaction's hash is lost with the close of the one store and not of the other.
                let hashes = cleaned.compaction_hashes();
                assert_eq!(hashes, plain.compaction_hashes(), "{what}");
                cleaned.close().unwrap();
                cleaned = options().open(&path).unwrap();
                assert!(cleaned.recovery().clean, "{what}");
                let report = cleaned.check().unwrap();
                assert!(report.is_clean(), "{what}: {:?}", report.damage);
                let (one, other) = (cleaned.read().unwrap(), plain.read().unwrap());
                assert_eq!(contents(&one), contents(&other), "{what}: opened again");
                // From here on both know the same compactions again. The image's records have no links to what it
                // lacks, so they are shorter.
                let restored = dir.path().join("plain");
                plain.snapshot().unwrap().save(&restored).unwrap();
                plain.restore(&restored).unwrap();
                compare(&cleaned, &plain, &what);
            }
        }
        assert!(
            freed > 4 * SEGMENT && copied > 0,
            "{what}: {freed} {copied}"
        );
    }
}

/// A cleaner that begins as soon as it may, and does not sleep.
fn eager() -> Cleaner {
    let options = CleanerOptions::new().dead_percent(1);
    Cleaner::Paced(options.bytes_per_second(u64::MAX))
}

/// Waits until something holds of a store, for which its thread has a minute.
fn wait_until(db: &Db, what: &str, holds: impl Fn(&revtree::Stats) -> bool) {
    for _ in 0..60_000 {
        if holds(&db.stats()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("{what} did not come: {:?}", db.stats());
}

/// The same history with a thread that cleans whenever it can: nobody asks it to, and nobody waits for it.
#[test]
fn a_store_that_cleans_itself_reads_like_one_that_never_is() {
    let seeds = std::env::var("REVTREE_SEED").map(|seed| seed.parse().unwrap());
    let seeds = seeds.map_or(1..=4, |seed: u64| seed..=seed);
    for seed in seeds {
        let what = format!("REVTREE_SEED={seed}");
        let mut random = Random(seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let open = || options().cleaner(eager()).open(&path).unwrap();
        let mut cleaned = open();
        let plain = options().open_in_memory().unwrap();
        let mut held: VecDeque<(ReadView, ReadView)> = VecDeque::new();
        let mut cleaned_bytes = 0;
        for n in 0..1500u64 {
            step([&cleaned, &plain], &mut random).unwrap();
            let first = plain.compact_rev().map_or(1, Revision::get);
            let at = first + random.below(plain.rev().get() - first + 1);
            if random.below(25) == 0 {
                held.push_back((cleaned.read_at(at).unwrap(), plain.read_at(at).unwrap()));
            }
            if random.below(20) == 0 {
                let compacted = [&cleaned, &plain].map(|db| db.compact(at).is_ok());
                assert_eq!(compacted[0], compacted[1], "{what}");
            }
            if random.below(100) == 0 {
                let first = plain.compact_rev().map_or(1, Revision::get);
                let at = first + random.below(plain.rev().get() - first + 1);
                let hashes = [&cleaned, &plain].map(|db| db.hash_by_rev(at).unwrap());
                assert_eq!(hashes[0], hashes[1], "{what}: at {at}");
            }
            while held.len() > random.size(4) {
                let (one, other) = held.pop_front().unwrap();
                assert_eq!(contents(&one), contents(&other), "{what}: held");
            }
            if n % 250 == 249 {
                compare(&cleaned, &plain, &what);
            }
            if n % 500 == 499 {
                held.clear();
                cleaned_bytes += cleaned.stats().cleaned_bytes;
                cleaned.close().unwrap();
                cleaned = open();
                assert!(cleaned.recovery().clean, "{what}");
                let restored = dir.path().join("plain");
                plain.snapshot().unwrap().save(&restored).unwrap();
                plain.restore(&restored).unwrap();
                compare(&cleaned, &plain, &what);
            }
        }
        assert!(cleaned_bytes > 4 * SEGMENT, "{what}: {cleaned_bytes}");
    }
}

/// What is dead is cleaned away behind a compaction, without a call.
#[test]
fn the_thread_cleans_behind_a_compaction() {
    let db = options().cleaner(eager()).open_in_memory().unwrap();
    overwrite(&db);
    assert_eq!(db.compaction().wait(), Outcome::Done);
    wait_until(&db, "a cleaned store", |stats| {
        stats.cleaned_bytes > 10 * SEGMENT && stats.held_bytes == 0 && stats.free_bytes > 0
    });
    check_overwritten(&db);
    // Free segments are used again before the file grows.
    let before = db.stats().file_bytes;
    for _ in 0..5 {
        overwrite(&db);
        assert_eq!(db.compaction().wait(), Outcome::Done);
        wait_until(&db, "free space", |stats| stats.free_bytes > before / 2);
    }
    // But for one step of what is allocated ahead (C-4).
    assert!(
        db.stats().file_bytes <= before / 8 * 9 + 4 * SEGMENT,
        "{:?}",
        db.stats()
    );
    check_overwritten(&db);
}

/// A view keeps what it can read, and when it ends the thread comes back for it.
#[test]
fn the_thread_comes_back_for_what_a_view_has_kept() {
    let db = options().cleaner(eager()).open_in_memory().unwrap();
    for n in 0..400 {
        db.put(key(n), vec![1; 1000]).unwrap();
    }
    let view = db.read().unwrap();
    for n in 0..400 {
        db.put(key(n), vec![2; 1000]).unwrap();
    }
    db.compact(db.rev()).unwrap();
    assert_eq!(contents(&view).len(), 400);
    let pinned = db.stats().pinned_bytes;
    assert!(pinned > 350_000, "{pinned}");
    drop(view);
    wait_until(&db, "what the view has kept", |stats| {
        stats.cleaned_bytes > 4 * SEGMENT && stats.held_bytes == 0
    });
    assert!(
        contents(&db.read().unwrap())
            .iter()
            .all(|kv| kv.value[0] == 2)
    );
}

/// What a close has left is cleaned by the next open: which segments hold how much that is dead is in the file.
#[test]
fn the_next_open_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = options().open(&path).unwrap();
    overwrite(&db);
    assert_eq!(db.stats().cleaned_bytes, 0);
    db.close().unwrap();
    let db = options().cleaner(eager()).open(&path).unwrap();
    wait_until(&db, "a cleaned store", |stats| {
        stats.cleaned_bytes > 10 * SEGMENT
    });
    check_overwritten(&db);
    db.close().unwrap();
    let db = options().open(&path).unwrap();
    assert!(db.check().unwrap().is_clean());
    check_overwritten(&db);
}

/// Closing does not wait for a slow cleaner to finish, and neither does a restore.
#[test]
fn a_slow_thread_ends_when_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let slow = CleanerOptions::new().dead_percent(1).bytes_per_second(1);
    let db = options()
        .cleaner(Cleaner::Paced(slow))
        .durability(Durability::Flushed)
        .open(dir.path().join("store"))
        .unwrap();
    // At a megabyte a second it would take most of a minute for these.
    for n in 0..40_000 {
        db.put(key(n % 8000), vec![byte(n); 500]).unwrap();
    }
    db.snapshot()
        .unwrap()
        .save(dir.path().join("saved"))
        .unwrap();
    db.compact(db.rev().get() - 500).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    db.restore(dir.path().join("saved")).unwrap();
    let compaction = db.compact(db.rev().get() - 500).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let waiting = std::thread::spawn({
        let compaction = compaction.clone();
        move || compaction.wait()
    });
    db.close().unwrap();
    assert_eq!(waiting.join().unwrap(), Outcome::Interrupted);
    assert_eq!(compaction.wait(), Outcome::Interrupted);
}

/// The file comes near the size of what is live, and stays there under churn.
#[test]
fn the_file_shrinks_to_what_is_live() {
    let db = options().open_in_memory().unwrap();
    let mut random = Random(7);
    let mut write = |rounds: u64| {
        for n in 0..rounds * 200 {
            let value = vec![byte(n); 900 + random.size(200)];
            db.put(key(n % 200), value).unwrap();
        }
    };
    write(50);
    let before = db.stats();
    assert!(before.file_bytes > 10_000_000);
    db.compact(db.rev()).unwrap();
    let done = db.reclaim().unwrap();
    let after = db.stats();
    assert!(
        done.freed_bytes > 9_000_000 && done.held_bytes == 0,
        "{done:?}"
    );
    assert!(after.live_bytes > 200_000, "{after:?}");
    // Live records, the log's segment and what is kept for upkeep.
    assert!(
        after.file_bytes < after.live_bytes + 12 * SEGMENT,
        "{after:?}"
    );
    assert!(db.check().unwrap().is_clean());
    for _ in 0..10 {
        write(10);
        db.compact(db.rev()).unwrap();
        db.reclaim().unwrap();
        let now = db.stats();
        assert!(now.file_bytes < now.live_bytes + 14 * SEGMENT, "{now:?}");
        assert!(db.check().unwrap().is_clean());
    }
    // Another one has nothing to do.
    let again = db.reclaim().unwrap();
    assert!(again.copied_bytes < 2 * SEGMENT, "{again:?}");
}

/// Puts 20 keys so often that only the last of many segments holds something live, and compacts.
fn overwrite(db: &Db) -> u64 {
    for n in 0..1200u64 {
        db.put(key(n % 20), vec![byte(n); 1000]).unwrap();
    }
    db.compact(db.rev()).unwrap();
    db.stats().file_bytes
}

fn check_overwritten(db: &Db) {
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    for n in 1180..1200u64 {
        let kv = db.get(key(n % 20)).unwrap().unwrap();
        assert_eq!(kv.value, vec![byte(n); 1000]);
    }
}

/// While another process (here: another handle with a file description of its own) reads the file, nothing that it
/// may know is written over or cut off; once it is gone that goes on.
#[test]
fn a_reader_beside_keeps_what_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = options().open(&path).unwrap();
    let before = overwrite(&db);
    let reader = options().read_only().open(&path).unwrap();
    let done = db.reclaim().unwrap();
    assert_eq!(done.freed_bytes, 0);
    assert!(done.held_bytes > 10 * SEGMENT, "{done:?}");
    assert!(db.stats().file_bytes >= before);
    for n in 0..300u64 {
        db.put(key(100 + n % 20), vec![1; 1000]).unwrap();
    }
    check_overwritten(&reader);
    check_overwritten(&db);
    // One that comes now finds the new tree.
    let other = options().read_only().open(&path).unwrap();
    check_overwritten(&other);
    reader.close().unwrap();
    drop(other);
    let done = db.reclaim().unwrap();
    assert!(
        done.freed_bytes > 10 * SEGMENT && done.held_bytes == 0,
        "{done:?}"
    );
    assert!(db.stats().file_bytes < before / 2);
    check_overwritten(&db);
    db.close().unwrap();
    check_overwritten(&options().open(&path).unwrap());
}

/// Views and shared bytes hold the memory that they may be looking at, each as long as it lives, also beyond a
/// close.
#[test]
fn what_is_looked_at_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = options().open(&path).unwrap();
    db.put("first", vec![7; 3000]).unwrap();
    let shared = db.read().unwrap().get("first").unwrap().unwrap().share();
    let before = overwrite(&db);
    let view = db.read().unwrap();
    let record = view.get(key(3)).unwrap().unwrap();
    let done = db.reclaim().unwrap();
    assert!(done.held_bytes > 10 * SEGMENT, "{done:?}");
    assert_eq!(record.value(), vec![byte(1183); 1000]);
    drop(view);
    let done = db.reclaim().unwrap();
    assert_eq!(done.held_bytes, SEGMENT, "{done:?}"); // of the shared bytes alone
    assert!(db.stats().file_bytes < before / 2);
    overwrite(&db);
    let view = db.read().unwrap();
    db.reclaim().unwrap();
    db.close().unwrap();
    assert_eq!(shared.value, vec![7; 3000]);
    assert_eq!(contents(&view).len(), 21);
    drop((shared, view));
    check_overwritten(&options().open(&path).unwrap());
}

/// A transaction that is open while space is reclaimed commits what it would have without.
#[test]
fn a_transaction_goes_on_across() {
    let db = options().open_in_memory().unwrap();
    overwrite(&db);
    let mut txn = db.write().unwrap();
    txn.put(key(5), "changed").unwrap();
    assert!(db.reclaim().unwrap().held_bytes > 0);
    assert_eq!(txn.get(key(6)).unwrap().unwrap().value().len(), 1000);
    txn.put(key(6), "changed").unwrap();
    txn.delete(key(7)).unwrap();
    let rev = txn.commit().unwrap().revision;
    assert!(db.reclaim().unwrap().held_bytes == 0);
    assert!(db.get(key(7)).unwrap().is_none());
    let events = events(db.read().unwrap().changes(.., rev..=rev).unwrap());
    assert_eq!(events.len(), 3);
    assert!(db.check().unwrap().is_clean());
}

/// A damaged record keeps its segment: it is told, nothing gets a good checksum, and nothing else is lost.
#[test]
fn damage_is_left_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = options().open(&path).unwrap();
    db.put("live", vec![0xA7; 500]).unwrap();
    overwrite(&db);
    db.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(500)
        .position(|run| run == [0xA7; 500])
        .unwrap();
    bytes[at + 250] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let db = options().open(&path).unwrap();
    let damaged = |db: &Db| match db.get("live") {
        Err(Error::Corrupt { offset, .. }) => offset,
        other => panic!("{other:?}"),
    };
    let offset = damaged(&db);
    let done = db.reclaim().unwrap();
    assert_eq!(done.damage.len(), 1, "{done:?}");
    assert!(matches!(done.damage[0], Error::Corrupt { offset: at, .. } if at == offset));
    assert!(done.freed_bytes > 10 * SEGMENT, "{done:?}");
    assert_eq!(damaged(&db), offset); // still there, still told
    let report = db.check().unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    for n in 1180..1200u64 {
        assert_eq!(
            db.get(key(n % 20)).unwrap().unwrap().value,
            vec![byte(n); 1000]
        );
    }
}

/// Nothing is reclaimed by who may not write, nor of a store without records.
#[test]
fn refusals_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = options().open(&path).unwrap();
    let done = db.reclaim().unwrap();
    assert_eq!(
        (done.freed_bytes, done.held_bytes, done.copied_bytes),
        (0, 0, 0)
    );
    let reader = options().read_only().open(&path).unwrap();
    assert!(matches!(reader.reclaim(), Err(Error::ReadOnly)));
    let other = db.clone();
    db.close().unwrap();
    assert!(matches!(other.reclaim(), Err(Error::Closed)));
}
