//! What runs beside what.
//!
//! Each is a few commits, so that one schedule is short and many can be drawn. The bugs that were planted by
//! hand to see each of them fail are named beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use revtree::storage::sim::{Call, FaultPlan, SimDisk, SimOptions};
use revtree::{Db, Durability, Error, ReadView};
use shuttle::future::block_on;
use shuttle::rand::Rng;
use shuttle::thread::{self, JoinHandle};

use crate::story::{Change, ENTRY, Story, content, make};
use crate::watching;

/// One scenario; its function is one schedule.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "sync",
        run: sync,
    },
    Scenario {
        name: "flushed",
        run: flushed,
    },
    Scenario {
        name: "batched",
        run: batched,
    },
    Scenario {
        name: "checkpoints",
        run: checkpoints,
    },
    Scenario {
        name: "compactions",
        run: compactions,
    },
    Scenario {
        name: "snapshots",
        run: snapshots,
    },
    Scenario {
        name: "close",
        run: close,
    },
    Scenario {
        name: "drop",
        run: drop_handles,
    },
    Scenario {
        name: "restore",
        run: restore,
    },
    Scenario {
        name: "poison",
        run: poison,
    },
    Scenario {
        name: "watch",
        run: watching::watch,
    },
    Scenario {
        name: "watch-close",
        run: watching::watch_close,
    },
    Scenario {
        name: "watch-ask",
        run: watching::watch_ask,
    },
    Scenario {
        name: "watch-restore",
        run: watching::watch_restore,
    },
    Scenario {
        name: "watch-compactions",
        run: watching::watch_compactions,
    },
];

/// The worker syncs behind so many changes, or when time passes.
pub(crate) const BATCHED: Durability = Durability::Batched {
    changes: 2,
    interval: Duration::from_secs(1),
};

/// Two writers and a reader. Finds a commit that is published before its sync, and a leader that wakes nobody.
fn sync() {
    let story = Story::new(Durability::Sync);
    let db = story.open();
    let threads = [
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "1").expect("a commit");
            let changes = vec![put("b", "1"), ("a", None), put(ENTRY, "1")];
            story.commit(db, changes).expect("a commit");
        }),
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "2").expect("a commit");
            let changes = vec![put("c", "2"), put(ENTRY, "2")];
            story.commit(db, changes).expect("a commit");
        }),
        spawn(&story, &db, read_on),
    ];
    join(threads);
    story.close(db);
}

/// A writer of the weaker kind, one that asks for a sync in a transaction which another thread ends, and one
/// that syncs for all. Finds a commit that is not written, a revision that is called durable before the sync,
/// and a leader that wakes one of several.
fn flushed() {
    let story = Story::new(Durability::Flushed);
    let db = story.open();
    let threads = [
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "1").expect("a commit");
            story.put(db, "b", "1").expect("a commit");
        }),
        spawn(&story, &db, |story, db| {
            let mut txn = db.write().expect("a transaction");
            txn.require_sync();
            let changes = vec![put("a", "2"), put("c", "2"), put(ENTRY, "2")];
            make(&mut txn, &changes).expect("changes");
            let answer = thread::spawn(move || txn.commit())
                .join()
                .expect("no panic");
            let answer = answer.map(|commit| {
                assert!(commit.durable);
                commit.revision
            });
            story.answered(changes, true, &answer);
            story.durable(db);
        }),
        spawn(&story, &db, |story, db| {
            story.sync(db).expect("synced");
            read_on(story, db);
            story.durable(db);
        }),
    ];
    join(threads);
    story.close(db);
}

/// Commits that a task awaits, which the worker wakes; commits that nobody waits for, and a sync. Finds a worker
/// that is not woken from its interval when a sync is due at once, and tasks that ask beside a sync and are not
/// woken.
fn batched() {
    let story = Story::new(BATCHED);
    let db = story.open();
    let threads = [
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "1").expect("a commit");
            let mut txn = db.write().expect("a transaction");
            txn.require_sync();
            let changes = vec![put("b", "1")];
            make(&mut txn, &changes).expect("changes");
            let answer = block_on(txn.submit().expect("in order"));
            let answer = answer.map(|commit| commit.revision);
            story.answered(changes, true, &answer);
            answer.expect("a commit");
        }),
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "2").expect("a commit");
            story.put(db, "c", "2").expect("a commit");
            story.durable(db);
        }),
        spawn(&story, &db, |story, db| {
            read_on(story, db);
            story.sync(db).expect("synced");
        }),
    ];
    join(threads);
    story.close(db);
}

/// Each commit that finds no checkpoint being written writes one. Finds a head behind commits that came beside it.
fn checkpoints() {
    let story = Story::new(Durability::Sync).with_checkpoints();
    let db = story.open();
    let threads = [
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "1").expect("a commit");
            story.put(db, "b", "1").expect("a commit");
        }),
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "2").expect("a commit");
            story
                .commit(db, vec![put(ENTRY, "2"), put("b", "2")])
                .expect("a commit");
        }),
        spawn(&story, &db, read_on),
    ];
    join(threads);
    let report = db.check().expect("checked");
    assert!(report.is_clean(), "{:?}", report.damage);
    story.close(db);
}

/// Two compact, one holds views of what they take away, one writes. Finds a refusal for a compaction that has
/// not happened, and one that is not durable.
fn compactions() {
    let story = Story::new(Durability::Sync);
    let db = story.open();
    story.put(&db, "a", "1").expect("a commit");
    story
        .commit(&db, vec![("a", None), put("b", "1")])
        .expect("a commit");
    story.put(&db, "a", "2").expect("a commit");
    let threads = [
        spawn(&story, &db, |story, db| {
            story.put(db, "b", "2").expect("a commit");
            story.compact(db, 5);
        }),
        spawn(&story, &db, |story, db| {
            story.compact(db, 3);
            story.compact(db, 4);
        }),
        spawn(&story, &db, |story, db| {
            let views: Vec<ReadView> = [2, 3, 4]
                .into_iter()
                .filter_map(|rev| match db.read_at(rev) {
                    Ok(view) => Some(view),
                    Err(Error::Compacted { .. }) => None,
                    Err(error) => panic!("{error}"),
                })
                .collect();
            read_on(story, db);
            views.iter().for_each(|view| story.look(view));
        }),
    ];
    join(threads);
    let report = db.check().expect("checked");
    assert!(report.is_clean(), "{:?}", report.damage);
    story.close(db);
}

/// Images taken beside commits, checkpoints and a compaction are the store at their revision. Finds a commit that
/// is not written, and a head behind commits.
fn snapshots() {
    let story = Story::new(Durability::Flushed).with_checkpoints();
    let db = story.open();
    story.put(&db, "a", "1").expect("a commit");
    story.put(&db, "b", "1").expect("a commit");
    let taking = {
        let (story, db) = (story.clone(), db.clone());
        thread::spawn(move || {
            let snapshot = db.snapshot().expect("a snapshot");
            story.put(&db, "a", "3").expect("a commit");
            let mut bytes = Vec::new();
            snapshot.write_to(&mut bytes).expect("written");
            (snapshot.revision().get(), bytes)
        })
    };
    let threads = [
        spawn(&story, &db, |story, db| {
            story
                .commit(db, vec![("a", None), put("c", "2")])
                .expect("a commit");
            story.put(db, "b", "2").expect("a commit");
        }),
        spawn(&story, &db, |story, db| story.compact(db, 2)),
    ];
    let (rev, bytes) = taking.join().expect("no thread panics");
    join(threads);
    db.close().expect("closed");
    let states = story.replay();
    let disk = SimDisk::new(SimOptions::default());
    disk.put_bytes("store".as_ref(), &bytes);
    let image = story.open_on(&disk).expect("an image is a store");
    assert_eq!(image.rev().get(), rev);
    let shown = content(&image.read().expect("a view"));
    assert_eq!(Some(&shown), states.get(&rev));
    drop(image);
    story.check();
}

/// Two close, one writes, one awaits a commit, one reads on: each is answered, and what was answered stays. Finds
/// a close that does not wait for the writer's turn, and one that wakes no task.
fn close() {
    let story = Story::new(BATCHED).with_checkpoints();
    let db = story.open();
    let closing = |story: &Story, db: &Db| match db.clone().close() {
        Ok(()) => {
            let view = db.read();
            assert!(matches!(view, Err(Error::Closed)));
            // Whoever has closed it may rely on all that was answered.
            story.closed();
        }
        Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
    };
    let threads = [
        spawn(&story, &db, closing),
        spawn(&story, &db, closing),
        spawn(&story, &db, |story, db| {
            refused_when_closed(story.put(db, "a", "1"));
            refused_when_closed(story.put(db, "b", "1"));
        }),
        spawn(&story, &db, |story, db| {
            let Ok(mut txn) = db.write() else { return };
            txn.require_sync();
            let changes = vec![put("b", "2")];
            make(&mut txn, &changes).expect("changes");
            match txn.submit() {
                Ok(submitted) => {
                    let answer = block_on(submitted).map(|commit| commit.revision);
                    story.answered(changes, true, &answer);
                    answer.expect("what was accepted is synced");
                }
                Err(error) => refused_when_closed::<()>(Err(error)),
            }
        }),
        spawn(&story, &db, |story, db| {
            let Ok(view) = story.view(db) else { return };
            story.look(&view);
            let _ = story.view(db);
            story.look(&view);
        }),
    ];
    join(threads);
    drop(db);
    story.check();
}

/// The last handles go in threads of their own, one of them weak, with the worker at its work; a view stays. Finds
/// a worker that keeps the store, and a last handle that does not close it.
fn drop_handles() {
    let story = Story::new(BATCHED).with_checkpoints();
    let db = story.open();
    let weak = db.downgrade();
    let view = story.view(&db).expect("a view");
    let threads = [
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "1").expect("a commit");
            story.put(db, "b", "1").expect("a commit");
        }),
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "2").expect("a commit");
        }),
        spawn(&story, &db, move |story, _| {
            let view = weak.upgrade().map(|db| {
                story.put(&db, "c", "3").expect("a commit");
                story.view(&db).expect("a view")
            });
            let view = view.expect("the thread itself has a handle");
            if let Some(db) = weak.upgrade() {
                story.look(&view);
                drop(db);
            }
        }),
    ];
    drop(db);
    join(threads);
    story.look(&view);
    drop(view);
    story.check();
}

/// Another content comes in place beside a writer, and a reader who has views of both.
fn restore() {
    let story = Story::new(Durability::Sync).with_checkpoints();
    let db = story.open();
    db.put("a", "1").expect("a commit");
    db.snapshot()
        .expect("a snapshot")
        .save("received")
        .expect("saved");
    db.put("a", "2").expect("a commit");
    // Old content is at 3 with 2, new at 2 with 1; the writer's key comes behind either.
    let returned = Arc::new(AtomicBool::new(false));
    let writer = {
        let (db, returned) = (db.clone(), Arc::clone(&returned));
        thread::spawn(move || {
            let behind = returned.load(Ordering::SeqCst);
            let rev = db.put("b", "1").expect("a commit").get();
            assert!(rev == 3 || !behind, "a commit on the old content");
            rev
        })
    };
    let restorer = {
        let db = db.clone();
        thread::spawn(move || {
            let recovery = db.restore("received").expect("restored");
            assert_eq!(recovery.revision.get(), 2);
            returned.store(true, Ordering::SeqCst);
            assert_eq!(values(&db.read().expect("a view")).0, "1");
        })
    };
    let reader = {
        let db = db.clone();
        thread::spawn(move || {
            let mut restored = false;
            for _ in 0..3 {
                let view = db.read().expect("a view");
                let (a, b) = values(&view);
                let expected = match (a.as_str(), b) {
                    ("2", false) | ("1", true) => 3,
                    ("1", false) => 2,
                    _ => 4,
                };
                assert_eq!(view.rev().get(), expected, "{a}, {b}");
                assert!(a == "1" || !restored, "the old content again");
                restored = a == "1";
                let other = db.get("a").expect("a read").expect("there");
                assert!(other.value == "1" || !restored);
                assert_eq!(values(&view), (a, b), "a view changes");
            }
        })
    };
    let written = writer.join().expect("no thread panics");
    restorer.join().expect("no thread panics");
    reader.join().expect("no thread panics");
    let end = ("1".to_owned(), written == 3);
    assert_eq!(values(&db.read().expect("a view")), end);
    let operations = story.disk.operations();
    db.close().expect("closed");
    for disk in [story.after_power_cut(operations), story.disk.clone()] {
        let db = story.open_on(&disk).expect("a store opens");
        assert_eq!(values(&db.read().expect("a view")), end);
    }
}

/// One sync fails, of a commit or of a checkpoint: none that overlaps it or follows it is believed.
fn poison() {
    let story = Story::new(Durability::Sync).with_checkpoints();
    let db = story.open();
    let nth = shuttle::rand::thread_rng().gen_range(1..=8);
    story.disk.fail(FaultPlan::once(Call::SyncData, nth, 5));
    let write = |story: &Story, db: &Db| {
        let first = story.put(db, "a", "1");
        let second = story.put(db, "b", "1");
        if first.is_err() {
            assert!(matches!(second, Err(Error::Poisoned { .. })), "{second:?}");
        }
        for answer in [first, second] {
            let told = matches!(
                answer,
                Ok(_) | Err(Error::Poisoned { .. } | Error::CommitUnknown { .. })
            );
            assert!(told, "{answer:?}");
        }
    };
    let threads = [
        spawn(&story, &db, write),
        spawn(&story, &db, write),
        spawn(&story, &db, read_on),
    ];
    join(threads);
    read_on(&story, &db);
    let _ = db.close();
    story.disk.clear_faults();
    story.check();
}

/// Views of one moment each, looked at twice.
fn read_on(story: &Story, db: &Db) {
    let mut newest = 0;
    for _ in 0..3 {
        let view = story.view(db).expect("a view");
        assert!(view.rev().get() >= newest, "a later view is older");
        newest = view.rev().get();
        story.look(&view);
        story.look(&view);
    }
}

fn refused_when_closed<T>(answer: revtree::Result<T>) {
    if let Err(error) = answer {
        assert!(matches!(error, Error::Closed), "{error}");
    }
}

/// The value of `a`, and whether there is `b`.
fn values(view: &ReadView) -> (String, bool) {
    let content: BTreeMap<_, _> = content(view);
    let a = content.get("a").map(|state| state.3.clone());
    (a.unwrap_or_default(), content.contains_key("b"))
}

pub(crate) fn put(key: &'static str, value: &str) -> Change {
    (key, Some(value.to_owned()))
}

pub(crate) fn spawn(
    story: &Story,
    db: &Db,
    run: impl FnOnce(&Story, &Db) + Send + 'static,
) -> JoinHandle<()> {
    let (story, db) = (story.clone(), db.clone());
    thread::spawn(move || run(&story, &db))
}

pub(crate) fn join<const N: usize>(threads: [JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().expect("no thread panics");
    }
}
