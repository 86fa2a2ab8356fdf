//! What is left to a stream when it or its store is closed.

use std::path::PathBuf;
use std::sync::Arc;

use revtree::{
    Create, Db, Durability, Error, Event, Filter, KeyRange, Options, Start, Update, WatchRequest,
};

use super::super::{memory, waiting};
use super::{given, revisions};

fn store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    (dir, path)
}

/// What is left is given behind the close, and then the end; meanwhile the file can be opened and written to,
/// though the stream lives.
#[test]
fn a_closed_store_gives_what_is_left() {
    let (_dir, path) = store();
    let db = Db::open(&path).unwrap();
    let mut stream = db.watch("a", Start::Now).unwrap();
    let filter = Filter::DropIf(Arc::new(|event: &Event| event.id.main.get() == 3));
    let mut filtered = db.watch_stream().unwrap();
    filtered
        .watch_with(WatchRequest::new(KeyRange::all(), Start::Oldest).filter(filter))
        .unwrap();
    for n in 0..4u64 {
        db.put("a", n.to_string()).unwrap();
    }
    db.close().unwrap();
    let db = Options::new().create(Create::Never).open(&path).unwrap();
    assert!(db.recovery().clean);
    db.put("a", "of another").unwrap();
    let first = stream.recv().unwrap();
    assert_eq!(revisions([&first]), [2, 3, 4, 5]);
    let Update::Events(events) = &first.update else {
        unreachable!()
    };
    assert_eq!(events.iter().last().unwrap().kv.value, "3");
    assert_eq!(revisions([&filtered.recv().unwrap()]), [2, 4, 5]);
    for stream in [&mut stream, &mut filtered] {
        assert!(matches!(stream.recv(), Err(Error::Closed)));
        assert!(matches!(stream.try_recv(), Err(Error::Closed)));
    }
}

/// Answers that can be given at the close are; a last response that waits is too.
#[test]
fn a_closed_store_answers_first() {
    let db = memory();
    for _ in 0..3 {
        db.put("a", "1").unwrap();
    }
    db.compact(3).unwrap();
    let mut stream = db.watch_stream().unwrap();
    let old = stream.watch("a", Start::At(1.into())).unwrap();
    let now = stream.watch("a", Start::Now).unwrap();
    stream.request_progress(now).unwrap();
    stream.request_progress_all().unwrap();
    db.close().unwrap();
    let all: Vec<_> = stream.iter().collect();
    assert_eq!(all.len(), 3);
    assert!(all.iter().any(|response| response.id == old));
    let progress = all
        .iter()
        .filter(|response| matches!(response.update, Update::Progress));
    assert!(
        progress
            .into_iter()
            .all(|response| response.revision.get() == 4)
    );
}

/// What was accepted and not visible is made so by the close, and given.
#[test]
fn what_was_accepted_is_given() {
    let lazy = Durability::Batched {
        changes: u32::MAX,
        interval: std::time::Duration::from_secs(100_000),
    };
    for drops in [false, true] {
        for durability in [Durability::Sync, lazy] {
            let (_dir, path) = store();
            let db = Options::new().durability(durability).open(&path).unwrap();
            let mut stream = db.watch("a", Start::Now).unwrap();
            for _ in 0..3 {
                let mut txn = db.write().unwrap();
                txn.put("a", "1").unwrap();
                drop(txn.submit().unwrap());
            }
            if drops {
                drop(db);
            } else {
                db.close().unwrap();
            }
            let all: Vec<_> = stream.iter().collect();
            assert_eq!(revisions(&all), [2, 3, 4], "{drops} {durability:?}");
            assert_eq!(Db::open(&path).unwrap().rev().get(), 4);
        }
    }
}

/// A stream does not keep its store open: with the last handle it is closed, what is left is given, and the
/// file is free.
#[test]
fn dropping_the_last_handle_ends_streams() {
    let (_dir, path) = store();
    let db = Db::open(&path).unwrap();
    let weak = db.downgrade();
    let mut stream = db.watch("a", Start::Now).unwrap();
    let control = stream.control();
    db.put("a", "1").unwrap();
    drop(db);
    assert!(weak.upgrade().is_none());
    let db = Db::open(&path).unwrap();
    assert!(db.recovery().clean);
    db.put("a", "2").unwrap();
    assert_eq!(revisions([&stream.recv().unwrap()]), [2]);
    assert!(matches!(stream.recv(), Err(Error::Closed)));
    assert!(matches!(control.watch("a", Start::Now), Err(Error::Closed)));
    assert_eq!(control.rev().get(), 2);
}

/// Events that are held keep the file locked, as other shared bytes do, and stay what they are; copies do not.
#[test]
fn events_that_are_held_keep_the_file() {
    let (_dir, path) = store();
    let db = Db::open(&path).unwrap();
    let mut stream = db.watch("a", Start::Now).unwrap();
    db.put("a", vec![7; 5000]).unwrap();
    let Update::Events(events) = stream.recv().unwrap().update else {
        panic!("no events")
    };
    db.close().unwrap();
    assert!(matches!(Db::open(&path), Err(Error::Locked { .. })));
    let copy = events.unpinned();
    drop(events);
    Db::open(&path).unwrap().put("a", "other").unwrap();
    assert_eq!(copy.iter().next().unwrap().kv.value, vec![7; 5000]);
}

/// The end of a stream or of its store wakes a receiver that sleeps.
#[test]
fn an_end_wakes_a_receiver() {
    enum End {
        Stream,
        Close,
        Drop,
    }
    for end in [End::Stream, End::Close, End::Drop] {
        let db = memory();
        let mut stream = db.watch("a", Start::Now).unwrap();
        let control = stream.control();
        std::thread::scope(|scope| {
            let receiver = waiting(scope, move || stream.recv().map(drop));
            match end {
                End::Stream => control.close(),
                End::Close => db.close().unwrap(),
                End::Drop => drop(db),
            }
            assert!(matches!(receiver.join().unwrap(), Err(Error::Closed)));
        });
    }
}

/// A stream that is closed gives nothing more, and lets go of what it had made; others of the store go on.
#[test]
fn a_closed_stream_gives_nothing() {
    let db = memory();
    let mut stream = db.watch("a", Start::Now).unwrap();
    stream.watch("a", Start::Now).unwrap();
    let mut other = db.watch("a", Start::Now).unwrap();
    db.put("a", "1").unwrap();
    // One of two responses is made, and not given.
    drop(stream.recv().unwrap());
    stream.control().close();
    assert!(matches!(stream.recv(), Err(Error::Closed)));
    assert_eq!((db.stats().shared_handles, db.stats().streams), (0, 1));
    assert_eq!(given(&mut other), [2]);
}
