//! What a commit costs in calls, and that readers and writers do not wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use revtree::storage::{MemoryDisk, RealDisk};
use revtree::{Db, Options, ReadMode, Revision};

use super::gate::{Call, Gate, GateDisk, PATIENCE, Side};

fn gated() -> (Gate, Arc<GateDisk<MemoryDisk>>) {
    let gate = Gate::default();
    let disk = MemoryDisk::new();
    let disk = Arc::new(GateDisk {
        disk,
        gate: gate.clone(),
    });
    (gate, disk)
}

fn count(calls: &[Call], call: Call) -> usize {
    calls.iter().filter(|made| **made == call).count()
}

/// Runs reads in a thread of their own and fails, rather than hangs, when one of them waits.
fn at_once<T: Send + 'static>(what: &str, read: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || sender.send(read()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a read waited: {what}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(reader.join().unwrap_err())
        }
    }
}

/// n `Sync` commits one after the other, in space already allocated and between two checkpoints, are n
/// syncs, and no call that changes the file's length or what is allocated.
#[test]
fn a_commit_is_one_sync() {
    let (gate, disk) = gated();
    let db = Options::new().disk(disk).open("store").unwrap();
    // Space is allocated in steps that grow with the file; this makes them long enough.
    for n in 0..1000u32 {
        db.put(format!("k{n}"), vec![1; 4500]).unwrap();
    }
    let before = gate.take_calls();
    let (n, mut exact) = (64, 0);
    for _ in 0..20 {
        for i in 0..n {
            db.put(format!("k{i}"), "x").unwrap();
        }
        let calls = gate.take_calls();
        // The file grew, or another segment was begun.
        if count(&calls, Call::Allocate) > 0 || count(&calls, Call::Show) > 0 {
            continue;
        }
        exact += 1;
        assert_eq!(count(&calls, Call::Sync), n, "{calls:?}");
        // One of them may write zeros ahead, for an eighth of a segment (C-32).
        let writes = count(&calls, Call::Write);
        assert!((n..=n + 1).contains(&writes), "{calls:?}");
        assert_eq!(calls.len(), n + writes, "{calls:?}");
    }
    assert!(exact >= 10, "{exact} of 20");
    // The other two kinds, told apart: few allocations, and no checkpoint in so short a log.
    let allocations = count(&before, Call::Allocate);
    eprintln!(
        "1000 commits before: {} syncs, {allocations} allocations, {} checkpoints",
        count(&before, Call::Sync),
        db.stats().checkpoints
    );
    assert!(allocations <= 100, "{allocations}");
    assert_eq!(db.stats().checkpoints, 0);
}

/// Who asks for positioned reads has asked for no map (`ReadMode::Pread`), of what was written since the
/// open either.
#[test]
fn a_store_read_by_positions_is_never_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let disk = Arc::new(GateDisk {
        disk: RealDisk,
        gate: gate.clone(),
    });
    let path = dir.path().join("store");
    for mode in [ReadMode::Pread, ReadMode::Map] {
        let options = Options::new().segment_bytes(64 << 10).read_mode(mode);
        let db = options.disk(disk.clone()).open(&path).unwrap();
        for n in 0..20_u8 {
            db.put([n], vec![n; 20_000]).unwrap();
        }
        for n in 0..20_u8 {
            assert_eq!(db.get([n]).unwrap().unwrap().value, vec![n; 20_000]);
        }
        db.close().unwrap();
        let shown = count(&gate.take_calls(), Call::Show);
        assert_eq!(shown > 0, mode == ReadMode::Map, "{mode:?}: {shown}");
    }
}

/// A checkpoint adds exactly two syncs: of its pages, and of its superblock.
#[test]
fn a_checkpoint_is_two_syncs() {
    let (gate, disk) = gated();
    let options = Options::new().segment_bytes(256 << 10);
    let options = options.checkpoint_bytes(512 << 10).disk(disk);
    let db = options.open("store").unwrap();
    gate.take_calls();
    let commits = 1500u64;
    for n in 0..commits {
        db.put(format!("k{}", n % 100), n.to_string()).unwrap();
    }
    let calls = gate.take_calls();
    let syncs = count(&calls, Call::Sync) as u64;
    let checkpoints = db.stats().checkpoints;
    eprintln!(
        "{commits} commits, {checkpoints} checkpoints: {syncs} syncs, {} writes, {} allocations",
        count(&calls, Call::Write),
        count(&calls, Call::Allocate)
    );
    assert!(checkpoints >= 5, "{checkpoints}");
    assert_eq!(syncs, commits + 2 * checkpoints);
    assert_eq!(count(&calls, Call::SyncAll), 0);
    assert_eq!(count(&calls, Call::SetLen), 0);
}

/// Commits that arrive while a sync is under way share the next one: 32 threads, two syncs.
#[test]
fn commits_of_many_threads_share_a_sync() {
    let (gate, disk) = gated();
    let db = Options::new().disk(disk).open("store").unwrap();
    gate.take_calls();
    gate.stop_at(0, Some(Call::Sync), Side::Before);
    let put = |n: u32| {
        let db = db.clone();
        thread::spawn(move || db.put(format!("k{n}"), n.to_string()).unwrap())
    };
    let first = put(0);
    gate.wait_stopped(|| false).unwrap();
    let others: Vec<_> = (1..32).map(put).collect();
    let mut waited = std::time::Duration::ZERO;
    while db.stats().commits < 32 {
        thread::sleep(std::time::Duration::from_millis(1));
        waited += std::time::Duration::from_millis(1);
        assert!(waited < PATIENCE, "a commit waited for the sync of another");
    }
    // Not durable, so not visible.
    assert_eq!(db.rev(), Revision::new(1));
    assert_eq!(db.get("k0").unwrap(), None);
    gate.let_go();
    first.join().unwrap();
    let mut revs: Vec<u64> = others
        .into_iter()
        .map(|thread| thread.join().unwrap().get())
        .collect();
    revs.sort_unstable();
    assert_eq!(revs, (3..=33).collect::<Vec<_>>());
    assert_eq!(count(&gate.take_calls(), Call::Sync), 2);
    let stats = db.stats();
    assert_eq!((stats.syncs, stats.group_max), (2, 31));
}

/// The same on a real file, free running: fewer syncs than commits, none lost.
#[test]
fn many_threads_on_a_real_file_make_fewer_syncs_than_commits() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let disk = Arc::new(GateDisk {
        disk: RealDisk,
        gate: gate.clone(),
    });
    let db = Options::new()
        .disk(disk)
        .open(dir.path().join("store"))
        .unwrap();
    gate.take_calls();
    let threads: Vec<_> = (0..32)
        .map(|t| {
            let db = db.clone();
            thread::spawn(move || {
                for n in 0..50 {
                    db.put(format!("{t}/{n}"), "x").unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let syncs = count(&gate.take_calls(), Call::Sync);
    eprintln!(
        "1600 commits of 32 threads: {syncs} syncs, at most {} a sync",
        db.stats().group_max
    );
    assert!(syncs < 1600, "{syncs}");
    assert_eq!(db.rev(), Revision::new(1601));
    assert_eq!(db.read().unwrap().range(..).count().unwrap(), 1600);
}

/// Every kind of read gives the state at `rev` while somebody else is stopped.
fn read_everything(db: &Db, rev: u64) {
    let view = db.read().unwrap();
    assert_eq!(view.rev().get(), rev);
    let kvs = view.range(..).collect().unwrap().kvs;
    assert_eq!(kvs.len() as u64, (rev - 1).min(8));
    for kv in kvs {
        let n = kv.mod_revision.get();
        assert!(n <= rev);
        assert_eq!(kv.value[..8], n.to_be_bytes());
        assert_eq!(kv.key, format!("k{}", n % 8));
    }
    let newest = db.get(format!("k{}", rev % 8)).unwrap();
    assert_eq!(
        newest.map(|kv| kv.mod_revision.get()),
        (rev > 1).then_some(rev)
    );
    let all = Revision::new(2)..=view.rev();
    assert_eq!(view.changes(.., all).unwrap().count() as u64, rev - 1);
    let middle = rev / 2 + 1;
    let then = db.read_at(middle).unwrap();
    assert_eq!(then.range(..).count().unwrap(), (middle - 1).min(8));
    if rev > 8 {
        let events = view.history("k3").unwrap().count() as u64;
        assert_eq!(events, (2..=rev).filter(|n| n % 8 == 3).count() as u64);
    }
    db.hash_by_rev(rev).unwrap();
}

/// Wherever inside a commit, a change of segment or a checkpoint the writer is stopped, on either side
/// of each call, reads go on and see all that was acknowledged and nothing more.
#[test]
fn reads_go_on_while_the_writer_is_stopped_anywhere() {
    let value = |rev: u64| {
        let mut value = vec![7; 6000];
        value[..8].copy_from_slice(&rev.to_be_bytes());
        value
    };
    let mut stopped_in = Vec::new();
    for side in [Side::Before, Side::After] {
        let (gate, disk) = gated();
        let options = Options::new().segment_bytes(64 << 10);
        let options = options.checkpoint_bytes(100 << 10).disk(disk);
        let db = options.open("store").unwrap();
        let mut rev = 1;
        // One commit is stopped at its first call, the next at its second, and so on; in between, at the
        // kinds of calls that few commits make.
        for n in 0..160 {
            let done = Arc::new(AtomicBool::new(false));
            match n % 10 {
                0..8 => gate.stop_at(n % 10, None, side),
                8 => gate.stop_at(0, Some(Call::Show), side),
                _ => gate.stop_at(0, Some(Call::Allocate), side),
            }
            let writer = {
                let (db, done) = (db.clone(), Arc::clone(&done));
                thread::spawn(move || {
                    let written = db.put(format!("k{}", (rev + 1) % 8), value(rev + 1));
                    done.store(true, Ordering::SeqCst);
                    written
                })
            };
            if let Some(call) = gate.wait_stopped(|| done.load(Ordering::SeqCst)) {
                stopped_in.push(call);
                let db = db.clone();
                at_once(&format!("stopped {side:?} {call:?}"), move || {
                    // Published already if it is stopped in what follows the acknowledgement.
                    let seen = db.rev().get();
                    assert!(seen == rev || seen == rev + 1);
                    read_everything(&db, seen);
                });
            }
            gate.let_go();
            writer.join().unwrap().unwrap();
            rev += 1;
            read_everything(&db, rev);
        }
        assert!(db.stats().checkpoints > 1);
        assert!(db.check().unwrap().is_clean());
    }
    eprintln!("stopped {} times", stopped_in.len());
    for call in [Call::Write, Call::Sync, Call::Allocate, Call::Show] {
        assert!(stopped_in.contains(&call), "never stopped in {call:?}");
    }
}

/// An open write transaction is in nobody's way: reads go on and do not see it.
#[test]
fn reads_go_on_while_a_transaction_is_open() {
    let (_, disk) = gated();
    let db = Options::new().disk(disk).open("store").unwrap();
    for rev in 2..=9u64 {
        let key = format!("k{}", rev % 8);
        db.put(key, rev.to_be_bytes()).unwrap();
    }
    let mut txn = db.write().unwrap();
    for rev in 2..=9u64 {
        let key = format!("k{}", rev % 8);
        txn.put(key, "not yet").unwrap();
    }
    txn.delete("k1").unwrap();
    let reader = db.clone();
    at_once("an open transaction", move || {
        assert!(reader.try_write().unwrap().is_none());
        read_everything(&reader, 9);
    });
    txn.abort();
    read_everything(&db, 9);
}

/// A reader stopped in the middle of an iterator is in nobody's way: commits, segments, checkpoints and
/// compactions go on, and the iterator then goes on with what it began with.
#[test]
fn writes_go_on_while_a_reader_stands_in_an_iterator() {
    let (_, disk) = gated();
    let options = Options::new().segment_bytes(64 << 10);
    let options = options.checkpoint_bytes(128 << 10).disk(disk);
    let db = options.open("store").unwrap();
    let keys = 300u64;
    for n in 0..keys {
        db.put(format!("{n:03}"), n.to_string()).unwrap();
    }
    let view = db.read().unwrap();
    let mut records = view.range(..).iter();
    let mut events = view.changes(.., Revision::new(2)..=view.rev()).unwrap();
    let mut seen = 0;
    let mut check_next = |writes: u64| {
        for _ in 0..50 {
            let record = records.next().unwrap().unwrap();
            assert_eq!(record.key(), format!("{seen:03}").as_bytes(), "{writes}");
            assert_eq!(record.value(), seen.to_string().as_bytes());
            let event = events.next().unwrap().unwrap();
            assert_eq!(event.id.main.get(), seen + 2);
            seen += 1;
        }
        seen
    };
    let mut round = 0;
    loop {
        let seen = check_next(round);
        if seen == keys {
            break;
        }
        let writer = db.clone();
        at_once("a reader in an iterator", move || {
            for n in 0..keys {
                let key = format!("{n:03}");
                if n % 3 == 0 {
                    writer.delete(key).unwrap();
                } else {
                    writer.put(key, vec![9; 200]).unwrap();
                }
            }
            writer.put(format!("new {round}"), "").unwrap();
            writer.compact(writer.rev()).unwrap();
        });
        round += 1;
    }
    assert!(records.next().is_none());
    assert!(events.next().is_none());
    assert!(db.stats().checkpoints > 1);
    assert!(db.check().unwrap().is_clean());
}
