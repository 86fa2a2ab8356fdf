//! Memory of the key index: per key, as the store says it, and none for further revisions; and of watchers.
//!
//! A program of its own with one test, because it counts every allocation of the process.

#![expect(
    unsafe_code,
    reason = "an allocator that counts is an unsafe trait; it passes every call on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use revtree::{Cleaner, Db, Durability, Options, Start};

/// Bytes allocated and not freed.
static HELD: AtomicI64 = AtomicI64::new(0);

struct Counting;

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("no object is larger than half the address space")
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(signed(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(signed(layout.size()), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        HELD.fetch_add(signed(new_size) - signed(layout.size()), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> i64 {
    HELD.load(Ordering::Relaxed)
}

const KEYS: u64 = 200_000;

/// A key of 35 bytes; `n` in no order.
fn key(n: u64) -> String {
    let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 25;
    let key = format!("/registry/pods/default/{n:012}");
    assert_eq!(key.len(), 35);
    key
}

fn put_all(db: &Db, round: u8) {
    for from in (0..KEYS).step_by(100) {
        let mut txn = db.write().unwrap();
        for n in from..from + 100 {
            txn.put(key(n), [round; 64]).unwrap();
        }
        txn.commit().unwrap();
    }
    db.sync().unwrap();
}

fn check_index(what: &str, db: &Db, taken: i64) {
    let said = i64::try_from(db.stats().index_bytes).unwrap();
    let keys = i64::try_from(KEYS).unwrap();
    eprintln!(
        "{what}: {:.1} bytes a key by stats, {:.1} allocated",
        said as f64 / keys as f64,
        taken as f64 / keys as f64
    );
    assert!(said <= keys * 100, "{said}");
    assert!(taken <= keys * 100, "{taken}");
    assert!(
        (said - taken).abs() <= taken / 10,
        "{said} said, {taken} taken"
    );
}

/// At most 100 bytes a key of 35 bytes, which is what `stats` says within a tenth; at most 16 bytes for
/// each further revision of the same keys.
#[test]
fn the_index_takes_100_bytes_a_key_and_none_for_revisions_and_a_watcher_256() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let durability = Durability::Batched {
        changes: 5000,
        interval: Duration::from_millis(50),
    };
    let open = || {
        // What a thread of the store keeps beside is not what is measured here.
        let options = Options::new().durability(durability);
        let options = options.cleaner(Cleaner::Manual);
        options.checkpoint_bytes(8 << 20).open(&path).unwrap()
    };
    let start = held();
    let db = open();
    // What every store takes is not the keys'.
    let empty = held();
    eprintln!("an empty store: {} bytes", empty - start);
    put_all(&db, 1);
    check_index("written", &db, held() - empty);
    let before = held();
    let further = 5;
    for round in 0..further {
        put_all(&db, round);
    }
    let revisions = i64::try_from(KEYS).unwrap() * i64::from(further);
    let grown = held() - before;
    eprintln!(
        "{revisions} further revisions: {:.2} bytes each",
        grown as f64 / revisions as f64
    );
    assert!(grown <= revisions * 16, "{grown}");
    db.close().unwrap();
    let closed = held();
    let db = open();
    let loaded = held() - closed - (empty - start);
    check_index("loaded", &db, loaded);
    check_watchers(&db);
    check_coming_and_going(&db);
}

/// W-11: at most 256 bytes a watcher of a key of its own, and less of one that shares its key, however full the tables
/// are: at 131,000 they have just grown. Also once an event has passed each; and nothing is left of those that are gone.
fn check_watchers(db: &Db) {
    for (what, most, watchers, key_of) in [
        ("own keys", 256, 100_000, key as fn(u64) -> String),
        ("own keys", 256, 115_000, key),
        ("own keys", 256, 131_000, key),
        ("own keys", 256, 140_000, key),
        ("own keys", 256, 200_000, key),
        ("one key", 84, 100_000, |_| key(0)),
        ("one key", 84, 115_000, |_| key(0)),
    ] {
        let before = held();
        let mut stream = db.watch_stream().unwrap();
        for n in 0..watchers {
            stream.watch(key_of(n), Start::Now).unwrap();
        }
        let taken = |what: &str, held: i64| {
            let each = held / i64::try_from(watchers).unwrap();
            eprintln!("{watchers} of {what}: {each} bytes a watcher");
            assert!(each <= most, "{watchers} of {what}: {each}");
        };
        taken(what, held() - before);
        // Further revisions take nothing: see above.
        put_all(db, 7);
        let mut given = 0;
        while stream.try_recv().unwrap().is_some() {
            given += 1;
        }
        assert!(given >= watchers, "{what}: {given}");
        taken("those, behind an event", held() - before);
        drop(stream);
        let left = held() - before;
        // The table keeps its room, by the power of two.
        assert!(left < 6_000_000, "{what}: {left}");
    }
    assert_eq!(db.stats().watchers, 0);
}

/// What a stream keeps of watchers that are gone has a bound, though nobody receives: of their requests, of their places
/// among those that catch up or wait for the future, of those that were told of their end. Each of these grew for ever.
fn check_coming_and_going(db: &Db) {
    let compacted = db.rev();
    db.put(key(0), "x").unwrap();
    db.compact(db.rev()).unwrap();
    let mut stream = db.watch_stream().unwrap();
    stream.watch(key(0), Start::Oldest).unwrap();
    stream.watch(key(1), Start::At(u64::MAX.into())).unwrap();
    let before = held();
    for round in 0..200_000 {
        let start = match round % 2 {
            0 => Start::Oldest,
            _ => Start::At((u64::MAX - round).into()),
        };
        let id = stream.watch(key(round % 3), start).unwrap();
        stream.request_progress(id).unwrap();
        stream.cancel(id).unwrap();
    }
    let grown = held() - before;
    eprintln!("200,000 watchers that came and went: {grown} bytes");
    assert!(grown < 100_000, "{grown}");
    assert!(stream.try_recv().unwrap().is_some());
    for _ in 0..200_000 {
        stream.watch(key(0), Start::At(compacted)).unwrap();
        let told = stream.try_recv().unwrap().unwrap();
        assert!(matches!(told.update, revtree::Update::Compacted { .. }));
    }
    let grown = held() - before;
    eprintln!("200,000 watchers that were compacted: {grown} bytes");
    assert!(grown < 8_000_000, "{grown}");
}
