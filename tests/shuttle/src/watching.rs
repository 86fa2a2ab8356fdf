//! Scenarios of watchers: what each is given is compared with the commits that were answered.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_core::Stream as _;
use revtree::{Error, Event, EventKind, KeyRange, Start, Update, WatchId, WatchRequest};
use shuttle::future::block_on;
use shuttle::thread;

use crate::scenarios::{BATCHED, join, put, spawn};
use crate::story::Story;

/// A watcher of its own id, which is there from the beginning.
const FIRST: WatchId = WatchId(1);
/// One that comes and goes meanwhile.
const SECOND: WatchId = WatchId(2);

/// Two writers, a receiver, and one that adds a watcher of the same keys and cancels it. Finds a look that takes
/// what is due before what is visible, a stirring that asks for a sleeper before it says so, and events that a
/// power cut can take back.
pub(crate) fn watch() {
    let story = Story::new(revtree::Durability::Sync);
    let db = story.open();
    let mut stream = db.watch_stream().expect("a stream");
    let all = |id| WatchRequest::new(KeyRange::all(), Start::At(2.into())).id(id);
    stream.watch_with(all(FIRST)).expect("a watcher");
    let control = stream.control();
    let cancelled = Arc::new(AtomicBool::new(false));
    let receiver = {
        let (story, db, cancelled) = (story.clone(), db.clone(), Arc::clone(&cancelled));
        thread::spawn(move || {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            while last(&first) < 5 {
                let is_cancelled = cancelled.load(Ordering::SeqCst);
                let response = stream.recv().expect("the stream is open");
                let Update::Events(events) = &response.update else {
                    continue;
                };
                let events: Vec<_> = events.iter().map(change).collect();
                story.durable_at(last(&events));
                assert!(db.rev().get() >= last(&events), "an event of the future");
                if response.id == FIRST {
                    first.extend(events);
                } else {
                    assert!(!is_cancelled, "an event of who was cancelled");
                    second.extend(events);
                }
            }
            assert!(first.starts_with(&second), "{second:?} of {first:?}");
            story.given(first);
        })
    };
    let threads = [
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "1").expect("a commit");
            let changes = vec![put("b", "1"), ("a", None)];
            story.commit(db, changes).expect("a commit");
        }),
        spawn(&story, &db, |story, db| {
            story.put(db, "c", "2").expect("a commit");
            story.put(db, "d", "2").expect("a commit");
        }),
        spawn(&story, &db, move |_, _| {
            control.watch_with(all(SECOND)).expect("a watcher");
            control.cancel(SECOND).expect("it is there");
            cancelled.store(true, Ordering::SeqCst);
        }),
        receiver,
    ];
    join(threads);
    story.close(db);
}

/// A writer of commits that are visible at once, one that closes the store beside it, and a receiver: it is given
/// all that was answered, and then the end. Finds a close that wakes no receiver.
pub(crate) fn watch_close() {
    let story = Story::new(BATCHED);
    let db = story.open();
    story.put(&db, "a", "0").expect("a commit");
    let mut stream = db.watch(KeyRange::all(), Start::Oldest).expect("a watcher");
    let receiver = {
        let story = story.clone();
        thread::spawn(move || {
            let mut all = Vec::new();
            loop {
                match stream.recv() {
                    Ok(response) => {
                        if let Update::Events(events) = &response.update {
                            all.extend(events.iter().map(change));
                        }
                    }
                    Err(error) => {
                        assert!(matches!(error, Error::Closed), "{error}");
                        break;
                    }
                }
            }
            story.given(all);
        })
    };
    let threads = [
        spawn(&story, &db, |story, db| {
            for value in ["1", "2"] {
                if let Err(error) = story.put(db, "a", value) {
                    assert!(matches!(error, Error::Closed), "{error}");
                }
            }
        }),
        spawn(&story, &db, |_, db| db.clone().close().expect("closed")),
        receiver,
    ];
    join(threads);
    drop(db);
    story.check();
}

/// Two writers, a task that polls a watcher of one key, and a thread that asks for progress. Finds a task that is not
/// woken, progress that is never told, and progress before the events that it speaks of.
pub(crate) fn watch_ask() {
    let story = Story::new(revtree::Durability::Sync);
    let db = story.open();
    let mut stream = db.watch("a", Start::At(2.into())).expect("a watcher");
    let control = stream.control();
    let receiver = thread::spawn(move || {
        let (mut given, mut told) = (Vec::new(), Vec::new());
        while given.len() < 3 || told.is_empty() {
            let next = poll_fn(|context| Pin::new(&mut stream).poll_next(context));
            let response = block_on(next).expect("the stream is open");
            match &response.update {
                Update::Events(events) => given.extend(events.iter().map(|event| change(event).0)),
                Update::Progress => told.push((response.revision.get(), given.len())),
                update => panic!("{update:?}"),
            }
        }
        for (rev, before) in told {
            let up_to = given.partition_point(|event| *event <= rev);
            assert_eq!(up_to, before, "progress at {rev} among {given:?}");
        }
    });
    let threads = [
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "1").expect("a commit");
            story.put(db, "b", "1").expect("a commit");
        }),
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "2").expect("a commit");
            story.put(db, "a", "3").expect("a commit");
        }),
        spawn(&story, &db, move |_, _| {
            control.request_progress_all().expect("the stream is open");
        }),
        receiver,
    ];
    join(threads);
    story.close(db);
}

/// Another content comes in place beside a writer and a receiver, who is given each revision once, of the one content
/// or the other, and then the end.
pub(crate) fn watch_restore() {
    let story = Story::new(revtree::Durability::Sync);
    let db = story.open();
    db.put("a", "1").expect("a commit");
    let snapshot = db.snapshot().expect("a snapshot");
    snapshot.save("received").expect("saved");
    db.put("a", "2").expect("a commit");
    let mut stream = db
        .watch(KeyRange::all(), Start::At(2.into()))
        .expect("a watcher");
    let receiver = thread::spawn(move || {
        let mut given = Vec::new();
        while let Ok(response) = stream.recv() {
            if let Update::Events(events) = &response.update {
                given.extend(events.iter().map(change));
            }
        }
        given
    });
    let threads = [
        spawn(&story, &db, |_, db| {
            db.put("b", "1").expect("a commit");
        }),
        spawn(&story, &db, |_, db| {
            db.restore("received").expect("restored");
        }),
    ];
    join(threads);
    let end = db.rev().get();
    db.close().expect("closed");
    let given = receiver.join().expect("no thread panics");
    let revs: Vec<u64> = given.iter().map(|event| event.0).collect();
    assert!(revs.is_sorted_by(|one, next| one < next), "{given:?}");
    for (rev, key, value) in &given {
        let value = value.as_deref().expect("nothing is deleted");
        let known = matches!(
            (rev, key.as_str(), value),
            (2, "a", "1") | (3, "a", "2") | (3 | 4, "b", "1")
        );
        assert!(known, "{given:?}");
    }
    // Whatever came first, the watcher has been given all up to where the new content ends.
    assert!(revs.last() >= Some(&end), "{given:?} up to {end}");
}

/// Two compactions beside a writer and a receiver who begins with the oldest: it is given all, or told how far it was
/// overtaken, and then all from there.
pub(crate) fn watch_compactions() {
    let story = Story::new(revtree::Durability::Sync);
    let db = story.open();
    for value in ["1", "2", "3"] {
        story.put(&db, "a", value).expect("a commit");
    }
    let mut stream = db.watch(KeyRange::all(), Start::Oldest).expect("a watcher");
    let receiver = thread::spawn(move || {
        let mut expected = 2;
        while expected <= 6 {
            match stream.recv().expect("the stream is open").update {
                Update::Events(events) => {
                    for event in &events {
                        assert_eq!(event.id.main.get(), expected);
                        expected += 1;
                    }
                }
                Update::Compacted { compact_revision } => {
                    assert!(compact_revision.get() > expected, "not overtaken");
                    expected = compact_revision.get();
                    stream
                        .watch(KeyRange::all(), Start::At(compact_revision))
                        .expect("a watcher");
                }
                update => panic!("{update:?}"),
            }
        }
    });
    let threads = [
        spawn(&story, &db, |story, db| {
            story.put(db, "a", "4").expect("a commit");
            story.put(db, "b", "5").expect("a commit");
        }),
        spawn(&story, &db, |story, db| {
            story.compact(db, 3);
            story.compact(db, 4);
        }),
        receiver,
    ];
    join(threads);
    story.close(db);
}

/// An event's revision, key and value.
fn change(event: &Event) -> (u64, String, Option<String>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let value = (event.kind == EventKind::Put).then(|| text(&event.kv.value));
    (event.id.main.get(), text(&event.kv.key), value)
}

fn last(events: &[(u64, String, Option<String>)]) -> u64 {
    events.last().map_or(0, |event| event.0)
}
