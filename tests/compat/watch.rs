//! Watching as etcd's tests pin it, and the issues that its users have met.
//!
//! etcd gives a watcher a response for each commit; revtree gives it all that is there when it looks, in
//! whole revisions. So these tests compare events, their order and their revisions, and count responses only
//! where there can be one.
//!
//! - `store`: `watchable_store_test.go`, and the row of `kv_test.go`
//! - `watcher`: `watcher_test.go`
//! - `delay`: `watch_delay_test.go`
//! - `issues`: by number

mod delay;
mod issues;
mod store;
mod watcher;

use std::path::PathBuf;

use revtree::{Db, Event, Start, Update, WatchId, WatchResponse, WatchStream};
use tempfile::TempDir;

use crate::support::change_of;

/// A response as text: `0@3: +2.0 foo, -3.0 foo`, `-1@3: progress`, `0@0: compacted at 5`.
fn said(response: &WatchResponse) -> String {
    let what = match &response.update {
        Update::Events(events) => events.iter().map(event).collect::<Vec<_>>().join(", "),
        Update::Progress => "progress".to_owned(),
        Update::Compacted { compact_revision } => format!("compacted at {compact_revision}"),
        other => panic!("unexpected: {other:?}"),
    };
    format!("{}@{}: {what}", response.id.0, response.revision)
}

fn event(event: &Event) -> String {
    format!("{} {}", change_of(event), event.kv.key.escape_ascii())
}

/// All responses that are there now.
fn received(stream: &mut WatchStream) -> Vec<WatchResponse> {
    std::iter::from_fn(|| stream.try_recv().unwrap()).collect()
}

/// The same as text.
fn told(stream: &mut WatchStream) -> Vec<String> {
    received(stream).iter().map(said).collect()
}

/// The same of several watchers, whose order does not matter.
fn told_sorted(stream: &mut WatchStream) -> Vec<String> {
    let mut all = told(stream);
    all.sort();
    all
}

/// The events of responses, in their order.
fn events<'r>(responses: impl IntoIterator<Item = &'r WatchResponse>) -> Vec<&'r Event> {
    let mut all = Vec::new();
    for response in responses {
        match &response.update {
            Update::Events(events) => all.extend(events),
            other => panic!("unexpected: {other:?}"),
        }
    }
    all
}

/// The revisions of events, each once, which must be in order and not mixed.
fn revisions<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<u64> {
    let mut all: Vec<u64> = events
        .into_iter()
        .map(|event| event.id.main.get())
        .collect();
    all.dedup();
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    all
}

/// Puts the key until the store is at this revision.
fn put_up_to(db: &Db, key: &str, rev: u64) {
    while db.rev().get() < rev {
        db.put(key, "bar").unwrap();
    }
}

/// etcd's start revision: 0 is from now on.
fn start(rev: u64) -> Start {
    match rev {
        0 => Start::Now,
        rev => Start::At(rev.into()),
    }
}

/// A snapshot of a store, to be restored.
struct Saved {
    _folder: TempDir,
    path: PathBuf,
}

impl Saved {
    fn of(db: &Db) -> Saved {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved");
        db.snapshot().unwrap().save(&path).unwrap();
        Saved {
            _folder: folder,
            path,
        }
    }

    fn restore_into(self, db: &Db) {
        db.restore(&self.path).unwrap();
    }
}

fn id(number: i64) -> WatchId {
    WatchId(number)
}
