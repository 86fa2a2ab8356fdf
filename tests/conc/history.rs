//! Recorded histories: what many threads wrote and saw, compared with a replay of all commits.
//!
//! Revisions give the total order, so checking is a replay: sort the commits by revision, apply them to
//! a plain map, and compare every observation with the map at its revision. Real time is checked with
//! one number, the newest revision whose commit has returned: whoever begins later sees at least that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use revtree::storage::sim::Random;
use revtree::{Db, Durability, Error, EventKind, KeyValue, Options, ReadView, Revision};

const KEYS: usize = 48;
const WRITERS: u64 = 4;
const READERS: u64 = 3;
const THREADS: usize = 7;
const COMMITS_A_WRITER: u64 = 500;

/// One operation: a put of a value, or a deletion.
type Op = (String, Option<String>);

/// A key's state: create and mod revision, version, value.
type State = (u64, u64, u64, String);
type Model = BTreeMap<String, State>;

#[derive(Debug)]
struct Committed {
    rev: u64,
    ops: Vec<Op>,
    /// What the transaction read before it wrote.
    read: (u64, Vec<(String, Option<State>)>),
}

/// What one read saw: the whole store, or the history of one key.
#[derive(Debug)]
struct Seen {
    rev: u64,
    kvs: Vec<(String, State)>,
}

fn key(random: &mut Random) -> String {
    format!("key/{:02}", random.below(KEYS))
}

fn state(kv: &KeyValue) -> (String, State) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let state = (
        kv.create_revision.get(),
        kv.mod_revision.get(),
        kv.version,
        text(&kv.value),
    );
    (text(&kv.key), state)
}

fn look(view: &ReadView) -> Seen {
    let result = view.range(..).collect().unwrap();
    Seen {
        rev: view.rev().get(),
        kvs: result.kvs.iter().map(state).collect(),
    }
}

fn write(db: &Db, seed: u64, returned: &AtomicU64) -> Vec<Committed> {
    let mut random = Random::new(seed);
    let mut log = Vec::new();
    for n in 0..COMMITS_A_WRITER {
        let before = returned.load(Ordering::SeqCst);
        let mut txn = db.write().unwrap();
        let base = txn.rev().get();
        assert!(
            base >= before,
            "a transaction does not see a commit that returned"
        );
        let mut ops: Vec<Op> = Vec::new();
        let mut read = Vec::new();
        for m in 0..=random.below(3) {
            let key = key(&mut random);
            if ops.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let found = txn.get(&key).unwrap().map(|record| record.to_key_value());
            read.push((key.clone(), found.as_ref().map(|kv| state(kv).1)));
            if found.is_some() && random.below(4) == 0 {
                txn.delete(&key).unwrap();
                ops.push((key, None));
            } else {
                let value = format!("{seed}/{n}/{m}/{}", "x".repeat(random.below(400)));
                txn.put(&key, &value).unwrap();
                ops.push((key, Some(value)));
            }
        }
        if random.below(16) == 0 {
            txn.abort();
            continue;
        }
        if random.below(10) == 0 {
            txn.require_sync();
        }
        let rev = txn.commit().unwrap().revision.get();
        assert!(rev > before, "revisions go against time");
        assert_eq!(rev, base + 1, "somebody wrote inside a transaction");
        assert!(db.rev().get() >= rev, "a commit that returned is not seen");
        returned.fetch_max(rev, Ordering::SeqCst);
        let read = (base, read);
        log.push(Committed { rev, ops, read });
    }
    log
}

/// Reads until the writers have ended; at least `least` times.
fn read(db: &Db, seed: u64, returned: &AtomicU64, ended: &AtomicBool) -> Vec<Seen> {
    let mut random = Random::new(seed);
    let mut seen = Vec::new();
    let mut held: Vec<(ReadView, Seen)> = Vec::new();
    let mut newest = 0;
    while !ended.load(Ordering::SeqCst) || seen.len() < 50 {
        let before = returned.load(Ordering::SeqCst);
        let view = db.read().unwrap();
        let rev = view.rev().get();
        assert!(rev >= before.max(newest), "a later read sees less");
        newest = rev;
        let whole = look(&view);
        let some = key(&mut random);
        let one = view.get(&some).unwrap();
        let one = one.map(|record| state(&record.to_key_value()));
        let expected = whole.kvs.iter().find(|(key, _)| *key == some).cloned();
        assert_eq!(one, expected, "get and range disagree");
        match db.read_at(rev - (random.below(100) as u64).min(rev - 1)) {
            Ok(old) => seen.push(look(&old)),
            Err(Error::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        // Views held over commits, checkpoints and compactions stay exact.
        if held.len() == 8 {
            let (view, then) = held.swap_remove(random.below(8));
            assert_eq!(look(&view).kvs, then.kvs, "a view changed");
        }
        let again = Seen {
            rev,
            kvs: whole.kvs.clone(),
        };
        held.push((view, again));
        seen.push(whole);
    }
    for (view, then) in held {
        assert_eq!(look(&view).kvs, then.kvs, "a view changed");
    }
    seen
}

fn compact(db: &Db, ended: &AtomicBool) -> u64 {
    let mut last = 0;
    while !ended.load(Ordering::SeqCst) {
        let rev = db.rev().get().saturating_sub(60);
        if rev > last + 20 {
            db.compact(rev).unwrap();
            last = rev;
            assert_eq!(db.compact_rev(), Some(Revision::new(rev)));
        }
        thread::yield_now();
    }
    last
}

fn apply(model: &mut Model, commit: &Committed) {
    for (key, value) in &commit.ops {
        match value {
            None => assert!(model.remove(key).is_some()),
            Some(value) => {
                let (create, version) = match model.get(key) {
                    Some((create, _, version, _)) => (*create, version + 1),
                    None => (commit.rev, 1),
                };
                let state = (create, commit.rev, version, value.clone());
                model.insert(key.clone(), state);
            }
        }
    }
}

/// Replays the commits and compares what was seen; gives the state at the end.
fn check(commits: &[Committed], mut seen: Vec<Seen>) -> Model {
    seen.sort_by_key(|seen| seen.rev);
    let mut seen = seen.into_iter().peekable();
    let mut model = Model::new();
    let mut rev = 1;
    let mut compare = |rev: u64, model: &Model| {
        while let Some(found) = seen.next_if(|found| found.rev == rev) {
            let expected: Vec<_> = model.clone().into_iter().collect();
            assert_eq!(found.kvs, expected, "read at {rev}");
        }
    };
    compare(rev, &model);
    for commit in commits {
        assert_eq!(commit.rev, rev + 1, "a gap, or a revision given twice");
        assert_eq!(commit.read.0, rev);
        for (key, found) in &commit.read.1 {
            assert_eq!(
                model.get(key),
                found.as_ref(),
                "read in transaction {}",
                commit.rev
            );
        }
        apply(&mut model, commit);
        rev = commit.rev;
        compare(rev, &model);
    }
    assert!(
        seen.next().is_none(),
        "a read at a revision that nobody committed"
    );
    model
}

/// The changes since the last compaction are exactly the commits.
fn check_changes(db: &Db, commits: &[Committed], from: u64) {
    let view = db.read().unwrap();
    let mut events = view.changes(.., Revision::new(from)..=view.rev()).unwrap();
    for commit in commits.iter().filter(|commit| commit.rev >= from) {
        for (sub, (key, value)) in commit.ops.iter().enumerate() {
            let event = events.next().unwrap().unwrap();
            assert_eq!(
                (event.id.main.get(), event.id.sub),
                (commit.rev, sub as u64)
            );
            assert_eq!(event.kv.key, key.as_bytes());
            assert_eq!(event.kind == EventKind::Put, value.is_some());
            if let Some(value) = value {
                assert_eq!(event.kv.value, value.as_bytes());
            }
        }
    }
    assert!(events.next().is_none());
}

fn run(durability: Durability, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = || {
        let options = Options::new()
            .segment_bytes(64 << 10)
            .durability(durability);
        options.checkpoint_bytes(256 << 10)
    };
    let db = options().open(&path).unwrap();
    let returned = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let start = Arc::new(Barrier::new(THREADS));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let (db, returned, start) = (db.clone(), Arc::clone(&returned), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                write(&db, seed + n, &returned)
            })
        })
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|n| {
            let (db, returned, start) = (db.clone(), Arc::clone(&returned), Arc::clone(&start));
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                start.wait();
                read(&db, seed + 100 + n, &returned, &ended)
            })
        })
        .collect();
    let compactor = {
        let (db, ended) = (db.clone(), Arc::clone(&ended));
        thread::spawn(move || compact(&db, &ended))
    };
    let mut commits = Vec::new();
    for writer in writers {
        commits.extend(writer.join().unwrap());
    }
    ended.store(true, Ordering::SeqCst);
    let mut seen = Vec::new();
    for reader in readers {
        seen.extend(reader.join().unwrap());
    }
    let compacted = compactor.join().unwrap();
    commits.sort_by_key(|commit| commit.rev);
    let observations = seen.len();
    let model = check(&commits, seen);
    let stats = db.stats();
    eprintln!(
        "{durability:?}: {} commits, {observations} observations, {} syncs, {} checkpoints, compacted at {compacted}",
        commits.len(),
        stats.syncs,
        stats.checkpoints
    );
    assert!(stats.checkpoints > 0);
    check_changes(&db, &commits, compacted + 1);
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    let hash = db.hash_by_rev(0).unwrap();
    db.close().unwrap();
    let db = options().open(&path).unwrap();
    assert!(db.recovery().clean);
    let end = look(&db.read().unwrap());
    assert_eq!(end.kvs, model.into_iter().collect::<Vec<_>>());
    check_changes(&db, &commits, compacted + 1);
    assert_eq!(db.hash_by_rev(0).unwrap(), hash);
    db.close().unwrap();
}

#[test]
fn under_sync_every_read_equals_the_replay() {
    run(Durability::Sync, 1);
}

#[test]
fn under_flushed_every_read_equals_the_replay() {
    run(Durability::Flushed, 1000);
}

#[test]
fn under_batched_every_read_equals_the_replay() {
    let batched = |changes, interval| Durability::Batched {
        changes,
        interval: Duration::from_millis(interval),
    };
    run(batched(100, 5), 2000);
    run(batched(1, 1000), 3000);
}
