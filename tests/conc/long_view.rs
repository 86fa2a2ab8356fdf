//! A view that is held for very long: thousands of commits, a hundred compactions, checkpoints and full segments
//! pass it by.
//!
//! What it reads is compared by a hash of every record, also while another thread writes. That nobody waits
//! for it shows in that the test ends: the writer never lets it go.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use revtree::storage::sim::Random;
use revtree::{Db, Durability, Error, Options, ReadMode, ReadView};

const KEYS: usize = 500;
const COMMITS: u64 = 10_000;
const COMMITS_A_COMPACTION: u64 = 100;

/// Of all records of the view: keys, values, revisions, versions; forwards, backwards and key by key.
fn hash(view: &ReadView) -> u64 {
    let mut hasher = DefaultHasher::new();
    let forwards = view.range(..).collect().unwrap();
    for kv in &forwards.kvs {
        let revisions = (kv.create_revision.get(), kv.mod_revision.get());
        (&kv.key[..], &kv.value[..], revisions, kv.version).hash(&mut hasher);
        let record = view.get(&kv.key).unwrap().unwrap();
        assert_eq!(record.to_key_value(), *kv, "get and range disagree");
    }
    let mut backwards = view.range(..).reverse().collect().unwrap().kvs;
    backwards.reverse();
    assert_eq!(backwards, forwards.kvs, "there and back are not the same");
    let count = view.range(..).count().unwrap();
    assert_eq!(count, forwards.kvs.len() as u64);
    hasher.finish()
}

fn write(db: &Db, random: &mut Random, commits: u64) {
    for n in 0..commits {
        let mut txn = db.write().unwrap();
        for _ in 0..=random.below(3) {
            let key = format!("key/{:03}", random.below(KEYS));
            if random.below(5) == 0 {
                txn.delete(&key).unwrap();
            } else {
                let value = format!("{n}/{}", "x".repeat(random.below(200)));
                txn.put(&key, value).unwrap();
            }
        }
        // So that every commit has a revision.
        txn.put("counter", n.to_string()).unwrap();
        txn.commit().unwrap();
    }
}

fn run(read_mode: ReadMode) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = || {
        Options::new()
            .segment_bytes(64 << 10)
            .checkpoint_bytes(256 << 10)
            .durability(Durability::Flushed)
            .read_mode(read_mode)
    };
    let db = options().open(&path).unwrap();
    let mut random = Random::new(21);
    write(&db, &mut random, 1000);
    let view = db.read().unwrap();
    let then = hash(&view);
    let looked = AtomicU64::new(0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..COMMITS / COMMITS_A_COMPACTION {
                write(&db, &mut random, COMMITS_A_COMPACTION);
                db.compact(db.rev()).unwrap();
            }
        });
        while !writer.is_finished() {
            assert_eq!(hash(&view), then, "the view has changed");
            looked.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(hash(&view), then, "the view has changed");
    assert_eq!(db.rev().get(), view.rev().get() + COMMITS);
    let current = hash(&db.read().unwrap());
    assert_ne!(current, then);
    // What it costs can be seen, and ends with it.
    let stats = db.stats();
    assert_eq!(stats.oldest_view, Some(view.rev()));
    assert!(stats.pinned_bytes > 0 && stats.checkpoints > 0);
    eprintln!(
        "{read_mode:?}: looked {} times beside the writer, {} checkpoints, {} bytes pinned",
        looked.into_inner(),
        stats.checkpoints,
        stats.pinned_bytes
    );
    // Nobody else gets at that revision any more.
    let again = db.read_at(view.rev());
    assert!(matches!(again, Err(Error::Compacted { .. })));
    drop(view);
    let stats = db.stats();
    assert_eq!((stats.oldest_view, stats.pinned_bytes), (None, 0));
    assert!(db.check().unwrap().is_clean());
    db.close().unwrap();
    let db = options().open(&path).unwrap();
    assert_eq!(hash(&db.read().unwrap()), current);
}

/// One view over 10,000 commits and 100 compactions.
#[test]
fn a_view_is_exact_for_as_long_as_it_is_held() {
    run(ReadMode::Map);
}

/// The same by positioned reads.
#[test]
fn a_view_is_exact_by_positioned_reads_too() {
    run(ReadMode::Pread);
}
