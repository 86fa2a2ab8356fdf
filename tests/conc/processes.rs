//! Several processes on one store: readers beside a writer, killed writers, locks.
//!
//! The other process is this test program again, told by an environment variable what to do. It prints
//! what was acknowledged, a line each, which a kill cannot take back from the pipe. Durability itself,
//! which no kill tests, is looked at on the simulated disk.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use revtree::storage::RealDisk;
use revtree::storage::sim::{Call as SimCall, FaultPlan, Random, SimDisk, SimOptions};
use revtree::{Db, Durability, Error, Options, Revision};

use super::gate::{Call, Gate, GateDisk, Side};

/// What the child is to do, and with which store.
const ROLE: &str = "REVTREE_TEST_ROLE";
const STORE: &str = "REVTREE_TEST_STORE";
const KEYS: u64 = 64;

/// How many times CI's length the tests beside a writer run: `cargo xtask long` sets it, for a minute each.
fn scale() -> u64 {
    let scale = std::env::var("REVTREE_TEST_SCALE");
    scale.map_or(1, |scale| scale.parse().expect("a number"))
}

fn key(rev: u64) -> String {
    format!("key/{:02}", rev % KEYS)
}

/// Each value says its own revision, and is long enough that writes are torn if they can be.
fn value(rev: u64) -> Vec<u8> {
    let len = 8 + rev.wrapping_mul(0x9E37_79B9) % 900;
    let mut value = vec![rev.to_le_bytes()[0]; usize::try_from(len).unwrap()];
    value[..8].copy_from_slice(&rev.to_be_bytes());
    value
}

fn options() -> Options {
    let options = Options::new().segment_bytes(64 << 10);
    options.checkpoint_bytes(256 << 10)
}

fn say(line: &str) {
    // Past libtest, which keeps what `println` writes; it leaves a line of its own unfinished.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\nchild {line}").and_then(|()| out.flush());
}

/// Not a test but what the other process runs; as a test it does nothing.
#[test]
fn child_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let path = PathBuf::from(std::env::var(STORE).unwrap());
    let mut options = options();
    let gate = Gate::default();
    match role.as_str() {
        "flushed" => options = options.durability(Durability::Flushed),
        role if role.starts_with("stop") => {
            let disk = RealDisk;
            let gate = gate.clone();
            options = options.disk(Arc::new(GateDisk { disk, gate }));
        }
        _ => {}
    }
    let db = options.open(path).unwrap();
    say(&format!("open {}", db.rev()));
    if role == "hold" {
        wait_to_be_killed();
    }
    // Stopped in a sync: what was written is not synced, and never will be by us.
    let stop_in = role.strip_prefix("stop").map(|nth| nth.parse().unwrap());
    if let Some(nth) = stop_in {
        gate.stop_at(nth, Some(Call::Sync), Side::Before);
        let gate = gate.clone();
        thread::spawn(move || {
            gate.wait_stopped(|| false);
            say("stopped");
            wait_to_be_killed();
        });
    }
    loop {
        let next = db.rev().get() + 1;
        let rev = db.put(key(next), value(next)).unwrap().get();
        assert_eq!(rev, next);
        say(&format!("ack {rev}"));
        if role == "flushed" && rev == 20_000 * scale() {
            // Fast enough to fill the disk while the reader verifies.
            wait_to_be_killed();
        }
    }
}

fn wait_to_be_killed() -> ! {
    loop {
        thread::park();
    }
}

/// The other process; killed when it is dropped.
struct Other {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The last revision that it acknowledged, of what was read so far.
    acknowledged: Option<u64>,
}

impl Other {
    /// Starts it and waits until it has the store open; gives the revision that it found.
    fn start(role: &str, store: &Path) -> (Other, u64) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["processes::child_process", "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(STORE, store)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut other = Other {
            child,
            lines,
            acknowledged: None,
        };
        let opened = other.next("open");
        (other, opened.parse().unwrap())
    }

    /// The rest of the next line that begins with `what`, or `None` at the end.
    fn try_next(&mut self, what: &str) -> Option<String> {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            let Some(said) = line.strip_prefix("child ") else {
                continue;
            };
            if let Some(rev) = said.strip_prefix("ack ") {
                // The kill may cut the last line short; a shorter number is an older revision.
                self.acknowledged = self.acknowledged.max(rev.parse().ok());
            }
            if let Some(rest) = said.strip_prefix(what) {
                return Some(rest.trim().to_owned());
            }
        }
        None
    }

    fn next(&mut self, what: &str) -> String {
        let said = self.try_next(what);
        said.unwrap_or_else(|| panic!("the other process ended without {what}"))
    }

    /// Kills it at once, with SIGKILL, and waits until it is gone.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The last revision that it acknowledged, read to the end of the pipe.
    fn last_acknowledged(&mut self) -> Option<u64> {
        while self.try_next("ack").is_some() {}
        self.acknowledged
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything up to the store's revision is as the child writes it; of a long history, its end.
fn verify(db: &Db) -> u64 {
    const MOST: u64 = 3000;
    let view = db.read().unwrap();
    let rev = view.rev().get();
    let mut next = rev.saturating_sub(MOST).max(2);
    for event in view.changes(.., Revision::new(next)..=view.rev()).unwrap() {
        let event = event.unwrap();
        assert_eq!(event.id.main.get(), next);
        assert_eq!(event.kv.key, key(next));
        assert_eq!(event.kv.value, value(next));
        next += 1;
    }
    assert_eq!(next, rev + 1);
    let kvs = view.range(..).collect().unwrap().kvs;
    assert_eq!(kvs.len() as u64, (rev - 1).min(KEYS));
    for kv in kvs {
        let modified = kv.mod_revision.get();
        assert!(modified > rev.saturating_sub(KEYS) && modified <= rev);
        assert_eq!(
            (kv.key, kv.value),
            (key(modified).into(), value(modified).into())
        );
    }
    rev
}

fn is_locked(result: Result<Db, Error>, by_this: bool) -> bool {
    matches!(result, Err(Error::Locked { by_this_process, .. }) if by_this_process == by_this)
}

/// A read-only opener beside a writer at full speed opens again and again: it never fails, sees at least
/// what was acknowledged before it opened, never goes back, and every record that it reads is right.
#[test]
fn a_reader_opens_again_and_again_beside_a_writer() {
    for role in ["sync", "flushed"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let (mut other, _) = Other::start(role, &path);
        let acknowledged = Arc::new(AtomicU64::new(1));
        let enough = Arc::new(AtomicBool::new(false));
        let follower = {
            let (acknowledged, enough) = (Arc::clone(&acknowledged), Arc::clone(&enough));
            thread::spawn(move || {
                let mut rev = 0;
                while !enough.load(Ordering::SeqCst) && rev < 20_000 * scale() {
                    rev = other.next("ack").parse().unwrap();
                    acknowledged.store(rev, Ordering::SeqCst);
                }
                while !enough.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                other.kill();
                let last = other.last_acknowledged();
                last.unwrap_or(0).max(acknowledged.load(Ordering::SeqCst))
            })
        };
        let (mut opens, mut newest) = (0, 1);
        let mut held = Vec::new();
        while opens < 40 * scale() || newest < 1000 {
            let before = acknowledged.load(Ordering::SeqCst);
            let db = Options::new().read_only().open(&path).unwrap();
            let rev = verify(&db);
            assert!(rev >= before.max(newest), "{rev}, {before}, {newest}");
            assert!(matches!(db.put("x", "y"), Err(Error::ReadOnly)));
            newest = rev;
            opens += 1;
            if opens % 20 == 0 {
                held.push((db, rev));
            }
        }
        enough.store(true, Ordering::SeqCst);
        let last = follower.join().unwrap();
        eprintln!("{role}: {opens} opens beside a writer up to {newest}, which ended at {last}");
        // One commit may have been done and not yet told.
        assert!(newest <= last + 1);
        for (db, rev) in held {
            assert_eq!(verify(&db), rev);
        }
        let db = options().open(&path).unwrap();
        assert!(verify(&db) >= last);
    }
}

/// The kill campaign met it: a reader's check reads the superblocks of now, and what a writer's later
/// checkpoint names lay beyond the file's end at the time that the reader opened. It was called damage.
#[test]
fn a_readers_check_follows_the_writer_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let writer = options().checkpoint_bytes(1).open(&path).unwrap();
    writer.put(key(2), value(2)).unwrap();
    let reader = Options::new().read_only().open(&path).unwrap();
    let end = std::fs::metadata(&path).unwrap().len();
    while std::fs::metadata(&path).unwrap().len() <= 4 * end {
        let rev = writer.rev().get() + 1;
        writer.put(key(rev), value(rev)).unwrap();
    }
    let report = reader.check().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(verify(&reader), 2);
}

/// kill -9 at random times, again and again on one store: every acknowledged revision is there.
#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut random = Random::new(7);
    let mut rev = 1;
    let mut acks = 0;
    for cycle in 0..50 {
        let role = ["sync", "flushed"][cycle % 2];
        let (mut other, found) = Other::start(role, &path);
        assert!(found >= rev, "cycle {cycle}");
        let wanted = random.below(60);
        for _ in 0..wanted {
            other.next("ack");
        }
        other.kill();
        let last = other.last_acknowledged().unwrap_or(found);
        acks += last - found;
        // Read without writing first, then recovered.
        let db = Options::new().read_only().open(&path).unwrap();
        let seen = db.rev().get();
        drop(db);
        if role == "sync" {
            assert!(seen <= last + 1, "cycle {cycle}");
        }
        if cycle % 5 == 4 {
            let db = options().open(&path).unwrap();
            rev = verify(&db);
            assert!(db.check().unwrap().is_clean());
            db.close().unwrap();
        } else {
            rev = last;
        }
        assert!(
            rev == last || rev == last + 1,
            "cycle {cycle}: {rev}, {last}"
        );
    }
    eprintln!("50 kills, {acks} acknowledged commits, at revision {rev}");
}

/// kill -9 exactly between the write and the sync of a commit: what was acknowledged before is there.
#[test]
fn a_writer_killed_between_write_and_sync_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut last = 1;
    for nth in [0, 1, 2, 7, 30, 90, 91, 92, 93, 94] {
        let (mut other, found) = Other::start(&format!("stop{nth}"), &path);
        assert!(found == last || found == last + 1, "{nth}");
        other.next("stopped");
        // Stopped, it still has the lock and the word of a living writer: others may read.
        assert!(is_locked(options().open(&path), false));
        let db = Options::new().read_only().open(&path).unwrap();
        verify(&db);
        drop(db);
        other.kill();
        last = other.last_acknowledged().unwrap_or(found);
        let db = options().open(&path).unwrap();
        let rev = verify(&db);
        assert!(rev == last || rev == last + 1, "{nth}: {rev}, {last}");
        assert!(db.check().unwrap().is_clean());
        // Dropped without a close of our own now and then.
        last = rev;
        if nth % 2 == 0 {
            db.close().unwrap();
        }
    }
}

/// A second opener is told at once who has the store, and kill -9 frees it.
#[test]
fn the_second_opener_is_refused_and_a_kill_frees_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (mut other, _) = Other::start("hold", &path);
    let before = std::fs::read(&path).unwrap();
    for _ in 0..100 {
        assert!(is_locked(options().open(&path), false));
    }
    assert_eq!(
        std::fs::read(&path).unwrap(),
        before,
        "a refused opener wrote"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let reader = Options::new().read_only().open(&path).unwrap();
    assert_eq!(reader.rev().get(), 1);
    other.kill();
    let db = options().open(&path).unwrap();
    // Our own lock, by every name of the file.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let name = dir.path().join("name");
    std::fs::hard_link(&path, &name).unwrap();
    for path in [&path, &link, &name] {
        assert!(is_locked(options().open(path), true), "{path:?}");
    }
    // A view keeps the file locked after the close.
    db.put("a", "b").unwrap();
    let view = db.read().unwrap();
    db.close().unwrap();
    assert!(is_locked(options().open(&path), true));
    assert_eq!(view.get("a").unwrap().unwrap().value(), b"b");
    drop(view);
    let db = options().open(&path).unwrap();
    assert_eq!(db.rev().get(), 2);
}

/// Of many openers in one process exactly one wins, again and again.
#[test]
fn one_of_many_openers_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    for _ in 0..30 {
        let barrier = Arc::new(std::sync::Barrier::new(6));
        let openers: Vec<_> = (0..6)
            .map(|_| {
                let (path, barrier) = (path.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    let opened = options().open(path);
                    barrier.wait();
                    match opened {
                        Ok(_) => true,
                        Err(Error::Locked {
                            by_this_process, ..
                        }) => {
                            assert!(by_this_process);
                            false
                        }
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        let winners = openers.into_iter().map(|opener| opener.join().unwrap());
        assert_eq!(winners.filter(|won| *won).count(), 1);
    }
}

/// What a reader shows is durable: after it was opened beside a writer, in whatever state, no power cut
/// takes back the revision that it shows. With a writer that failed it shows only what is known.
#[test]
fn a_reader_shows_nothing_that_a_power_cut_takes_back() {
    let mut shown = 0;
    for (seed, durability) in [(1, Durability::Sync), (2, Durability::Flushed)] {
        for fails_at in [None, Some(3), Some(10)] {
            let disk = SimDisk::new(SimOptions {
                seed,
                ..SimOptions::default()
            });
            let open = || options().disk(Arc::new(disk.clone()));
            let db = open().durability(durability).open("store").unwrap();
            if let Some(nth) = fails_at {
                disk.fail(FaultPlan::sticky(SimCall::SyncData, nth, 5));
            }
            let mut submitted = Vec::new();
            for n in 2..24u64 {
                let Ok(mut txn) = db.write() else { break };
                txn.put(key(n), value(n)).unwrap();
                if n % 5 == 0 {
                    txn.require_sync();
                }
                let Ok(commit) = txn.submit() else { break };
                if n % 3 == 0 {
                    let _ = commit.wait();
                } else {
                    // Accepted, perhaps written, not waited for.
                    submitted.push(commit);
                }
                let Ok(reader) = open().read_only().open("store") else {
                    continue;
                };
                let rev = verify(&reader);
                drop(reader);
                shown += 1;
                for (what, image) in disk.images(disk.operations(), 20) {
                    let options = options().disk(Arc::new(image));
                    let after = options.open("store").unwrap();
                    let found = after.rev().get();
                    assert!(
                        found >= rev,
                        "{durability:?} {n}: {rev} shown, {found} after {what}"
                    );
                }
            }
        }
    }
    assert!(shown > 60, "{shown}");
}
