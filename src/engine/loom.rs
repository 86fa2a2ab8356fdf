//! Models of group commit, of what is published, of the background thread and of closing, explored by loom.
//!
//! The file is a few words: what was appended, what a sync has covered, and whether it failed.

use std::io;
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};
use std::time::Duration;

use revtree_format::Revision;

use super::gate::Gate;
use super::group::{Group, Lead};
use super::published::Published;
use super::worker::{Awaited, Background, Upkeep};
use super::{State, Tables};
use crate::error::{Error, Result};
use crate::options::Applied;
use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, lock, model, thread, wait};

/// A log of frames without bytes, and its file.
struct File {
    group: Group,
    /// Behind the append lock: number of the frame that is written to.
    append: Mutex<u64>,
    /// Frames below this have been synced. Without order: who is told of a sync has it behind itself.
    synced: AtomicU64,
    /// How many syncs there were, and which of them, from 1, fails how.
    syncs: AtomicU64,
    failing: Option<(u64, fn() -> Error)>,
    poison: OnceLock<Arc<io::Error>>,
    /// Twice the number of checkpoints; odd while one is written.
    maintained: AtomicU64,
    /// The checkpoint lock, around whether the file has been closed.
    gate: Gate<bool>,
}

impl File {
    fn new(failing: Option<(u64, fn() -> Error)>) -> Arc<File> {
        Arc::new(File {
            group: Group::new(1),
            append: Mutex::new(1),
            synced: AtomicU64::new(1),
            syncs: AtomicU64::new(0),
            failing,
            poison: OnceLock::new(),
            maintained: AtomicU64::new(0),
            gate: Gate::new(false),
        })
    }

    /// A commit: the number of its frame.
    fn accept(&self) -> u64 {
        *lock(&self.append)
    }

    fn sync_to(&self, sequence: u64) -> Result<()> {
        self.group.sync_to(self, sequence)
    }

    fn is_synced(&self, sequence: u64) -> bool {
        self.synced.load(Ordering::Relaxed) > sequence
    }
}

impl Lead for File {
    fn lead(&self) -> Result<u64> {
        let end = {
            let mut append = lock(&self.append);
            *append += 1;
            *append
        };
        // Alone, so loading and storing apart loses nothing.
        let sync = self.syncs.load(Ordering::Relaxed) + 1;
        self.syncs.store(sync, Ordering::Relaxed);
        match self.failing {
            Some((fails, error)) if fails == sync => Err(error()),
            _ => {
                self.synced.store(end, Ordering::Relaxed);
                Ok(end)
            }
        }
    }

    fn poison(&self, cause: Arc<io::Error>) {
        let _ = self.poison.set(cause);
    }

    fn poisoned(&self) -> Option<Arc<io::Error>> {
        self.poison.get().cloned()
    }
}

impl Upkeep for File {
    fn sync_accepted(&self) -> Result<()> {
        self.sync_to(self.accept())
    }

    fn maintain(&self) -> Result<()> {
        if let Ok(Some(closed)) = self.gate.try_enter() {
            assert!(!*closed, "a checkpoint behind that of the close");
            self.maintained.fetch_add(1, Ordering::Relaxed);
            self.maintained.fetch_add(1, Ordering::Relaxed);
            drop(closed);
        }
        Ok(())
    }

    fn retire(&self) {
        self.gate.retire();
    }

    fn is_retired(&self) -> bool {
        self.gate.is_retired()
    }
}

fn broken() -> Error {
    Error::io("sync", io::Error::other("broken"))
}

fn full() -> Error {
    Error::NoSpace { needed: 1 }
}

fn begin<R: Send + 'static>(
    file: &Arc<File>,
    run: impl FnOnce(&Arc<File>) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let file = Arc::clone(file);
    thread::spawn(move || run(&file))
}

/// Whoever is told that a commit is durable has a sync behind itself that came after the commit; one sync
/// goes on at a time, and nobody waits for ever.
#[test]
fn a_sync_for_all_who_wait() {
    model(3, || {
        let file = File::new(None);
        let commit = |file: &Arc<File>| {
            let sequence = file.accept();
            file.sync_to(sequence).expect("no sync fails");
            assert!(file.is_synced(sequence));
        };
        let others = [begin(&file, commit), begin(&file, commit)];
        commit(&file);
        for other in others {
            other.join().expect("its assertions hold");
        }
        assert!((1..=3).contains(&file.syncs.load(Ordering::Relaxed)));
    });
}

/// After a sync that failed there is none, and all who wait are told.
#[test]
fn a_failed_sync_ends_all_who_wait() {
    model(3, || {
        let file = File::new(Some((1, broken)));
        let commit = |file: &Arc<File>| file.sync_to(file.accept());
        let others = [begin(&file, commit), begin(&file, commit)];
        let mut results = vec![commit(&file)];
        results.extend(others.map(|other| other.join().expect("no assertion in it")));
        for result in results {
            assert!(matches!(result, Err(Error::Poisoned { .. })));
        }
        assert_eq!(file.syncs.load(Ordering::Relaxed), 1);
    });
}

/// Who leads and finds no room fails alone: another leads.
#[test]
fn a_leader_without_room_is_followed() {
    model(3, || {
        let file = File::new(Some((1, full)));
        let commit = |file: &Arc<File>| {
            let sequence = file.accept();
            let synced = file.sync_to(sequence).is_ok();
            assert!(!synced || file.is_synced(sequence));
            u32::from(synced)
        };
        let others = [begin(&file, commit), begin(&file, commit)];
        let mut synced = commit(&file);
        for other in others {
            synced += other.join().expect("its assertions hold");
        }
        assert_eq!(synced, 2);
    });
}

fn state(rev: u64, compact: Option<u64>) -> State {
    State {
        rev: Revision::new(rev),
        applied: Applied::default(),
        compact: compact.map(Revision::new),
        tables: Tables::default(),
    }
}

/// A revision is seen with the state that belongs to it, and what was written before it.
#[test]
fn a_revision_with_its_state() {
    model(3, || {
        let published = Arc::new(Published::new(state(1, None)));
        let record = Arc::new(AtomicU64::new(1));
        let reader = {
            let (published, record) = (Arc::clone(&published), Arc::clone(&record));
            thread::spawn(move || {
                let (rev, state) = published.both();
                assert!(record.load(Ordering::Relaxed) >= rev.get());
                // From the third revision on the store is compacted at the second.
                assert!(rev.get() < 3 || state.compact == Some(Revision::new(2)));
                assert!(state.rev <= rev);
                let (later, _) = published.both();
                assert!(later >= rev);
            })
        };
        for (rev, compact) in [(2, None), (3, Some(2)), (4, Some(2))] {
            record.store(rev, Ordering::Relaxed);
            published.publish(&state(rev, compact));
        }
        reader.join().expect("the reader's assertions hold");
    });
}

/// A checkpoint in passing and a close: none is begun, nor still written, once `retire` has returned.
#[test]
fn no_checkpoint_behind_a_close() {
    model(3, || {
        let file = File::new(None);
        let passing = |file: &Arc<File>| file.maintain().expect("it does not fail");
        let others = [begin(&file, passing), begin(&file, passing)];
        file.retire();
        let maintained = file.maintained.load(Ordering::Relaxed);
        assert!(maintained.is_multiple_of(2), "one is not waited for");
        *file.gate.enter().expect("nobody panics") = true;
        for other in others {
            other.join().expect("the assertion in it holds");
        }
        passing(&file);
        assert_eq!(file.maintained.load(Ordering::Relaxed), maintained);
    });
}

/// What the thread waits when nothing is due: under loom no time passes.
const LONG: Duration = Duration::from_secs(3600);

/// A task, woken. Not parked: loom forgets to end a park when the thread was just waiting for a lock.
#[derive(Default)]
struct Task {
    woken: Mutex<bool>,
    wake: Condvar,
}

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        *lock(&self.woken) = true;
        self.wake.notify_one();
    }
}

struct Settling<'f>(&'f File, u64);

impl Awaited for Settling<'_> {
    type Outcome = Result<()>;

    fn look(&self) -> Option<Result<()>> {
        if self.0.group.is_durable(self.1) {
            return Some(Ok(()));
        }
        let cause = self.0.poisoned()?;
        Some(Err(Error::Poisoned { cause }))
    }

    fn failed(&self, error: Error) -> Result<()> {
        Err(error)
    }
}

/// Waits for a commit as a task does, until the store is closed and the thread gone.
fn settle(file: &Arc<File>, background: &Background, sequence: u64) -> Option<Result<()>> {
    let task = Arc::new(Task::default());
    let waker = Waker::from(Arc::clone(&task));
    let mut waiting = None;
    loop {
        let outcome = background.look(&Settling(file, sequence), &mut waiting, &waker);
        if outcome.is_some() {
            return outcome;
        }
        if !background.call(file, LONG, |worker| worker.changed(true)) {
            return None;
        }
        let mut woken = lock(&task.woken);
        while !*woken {
            woken = wait(&task.wake, woken);
        }
        *woken = false;
    }
}

/// The thread syncs for a task and wakes it, whatever it was just doing; the end of the store ends it.
#[test]
fn a_task_is_woken() {
    model(3, || {
        let (file, background) = (File::new(None), Background::default());
        let sequence = file.accept();
        let settled = settle(&file, &background, sequence).expect("nobody ends it");
        settled.expect("no sync fails");
        assert!(file.is_synced(sequence));
        // It may still be about what comes after the sync.
        let sequence = file.accept();
        let settled = settle(&file, &background, sequence).expect("nobody ends it");
        settled.expect("no sync fails");
        assert!(file.is_synced(sequence));
        background.end(&*file);
    });
}

/// A task whose sync finds no room is told so, and asks no more.
#[test]
fn a_task_is_told_of_a_failure() {
    model(3, || {
        let (file, background) = (File::new(Some((1, full))), Background::default());
        let sequence = file.accept();
        let settled = settle(&file, &background, sequence).expect("nobody ends it");
        assert!(matches!(settled, Err(Error::NoSpace { .. })));
        assert!(!file.is_synced(sequence));
        background.end(&*file);
    });
}

/// A close while a task waits: the task has its sync, or learns that there is no thread; none is left behind,
/// nor made again.
#[test]
fn a_close_beside_a_task() {
    model(3, || {
        let file = File::new(None);
        let background = Arc::new(Background::default());
        let closing = {
            let background = Arc::clone(&background);
            begin(&file, move |file| background.end(&**file))
        };
        let sequence = file.accept();
        let settled = settle(&file, &background, sequence);
        if let Some(settled) = settled {
            settled.expect("no sync fails");
            assert!(file.is_synced(sequence));
        }
        closing.join().expect("no assertion in it");
        assert!(!background.call(&file, LONG, |_| ()));
    });
}
