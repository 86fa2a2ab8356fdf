//! Issues of etcd that concern watching: each shown not to be one here.

use std::collections::BTreeMap;
use std::thread;

use revtree::{Error, KeyRange, Start, Update, WatchId, WatchRequest};

use super::{Saved, event, events, id, put_up_to, received, revisions, told, told_sorted};
use crate::support::memory;

/// Issue 15220: progress at a revision comes behind all events up to it, whoever asks and whenever.
#[test]
fn issue_15220_progress_does_not_overtake_events() {
    const LAST: u64 = 2001;
    let db = memory();
    let mut stream = db.watch(KeyRange::all(), Start::Oldest).unwrap();
    let control = stream.control();
    thread::scope(|scope| {
        scope.spawn(|| put_up_to(&db, "foo", LAST));
        scope.spawn(move || {
            while control.rev().get() < LAST {
                control.request_progress_all().unwrap();
                control.request_progress(id(0)).unwrap();
                thread::yield_now();
            }
            control.request_progress_all().unwrap();
        });
        let (mut given, mut told) = (1, 1);
        while told < LAST {
            let response = stream.recv().unwrap();
            let revision = response.revision.get();
            match response.update {
                Update::Events(events) => {
                    for rev in revisions(&events) {
                        assert_eq!(rev, given + 1);
                        assert!(rev > told, "{rev} behind progress at {told}");
                        given = rev;
                    }
                }
                Update::Progress => {
                    assert_eq!(revision, given, "{:?}", response.id);
                    told = revision;
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

/// Issue 15271: nobody travels back in time. A watcher that was given everything up to a revision is given
/// nothing of it again when an older content is restored, and goes on above it.
#[test]
fn issue_15271_no_travel_back_in_time() {
    let db = memory();
    put_up_to(&db, "foo", 4);
    let saved = Saved::of(&db);
    let mut stream = db.watch("foo", Start::Oldest).unwrap();
    let late = db.watch("foo", Start::Oldest).unwrap();
    put_up_to(&db, "foo", 8);
    assert_eq!(
        revisions(events(&received(&mut stream))),
        Vec::from_iter(2..=8)
    );
    saved.restore_into(&db);
    assert_eq!(db.rev().get(), 4);
    assert_eq!(told(&mut stream), [""; 0]);
    // Another history, up to the revision that was given and beyond it.
    put_up_to(&db, "foo", 8);
    assert_eq!(told(&mut stream), [""; 0]);
    stream.request_progress(id(0)).unwrap();
    put_up_to(&db, "foo", 10);
    let responses = received(&mut stream);
    let of_events = responses
        .iter()
        .filter(|r| matches!(r.update, Update::Events(_)));
    assert_eq!(revisions(events(of_events)), [9, 10]);
    // Who had been given nothing is given the new history from its beginning.
    let mut late = late;
    assert_eq!(
        revisions(events(&received(&mut late))),
        Vec::from_iter(2..=10)
    );
}

/// Issue 17529: a watcher that is told of a compaction late is given no event of behind the gap before, and
/// none afterwards.
#[test]
fn issue_17529_no_event_is_skipped_at_a_compaction() {
    let db = memory();
    put_up_to(&db, "foo", 3000);
    let mut stream = db.watch_stream().unwrap();
    for _ in 0..8 {
        stream.watch("foo", Start::At(2.into())).unwrap();
    }
    // Some have a batch, some none.
    let mut all: Vec<_> = (0..3).map(|_| stream.recv().unwrap()).collect();
    db.compact(2500).unwrap();
    put_up_to(&db, "foo", 3010);
    all.extend(received(&mut stream));
    let mut by_id: BTreeMap<WatchId, Vec<_>> = BTreeMap::new();
    for response in &all {
        by_id.entry(response.id).or_default().push(response);
    }
    assert_eq!(by_id.len(), 8);
    for (id, mut responses) in by_id {
        let last = responses.pop().unwrap();
        assert!(
            matches!(last.update, Update::Compacted { .. }),
            "{id:?}: {last:?}"
        );
        let found = revisions(events(responses));
        assert_eq!(found, Vec::from_iter((2..).take(found.len())), "{id:?}");
    }
    db.put("foo", "bar").unwrap();
    assert_eq!(told(&mut stream), [""; 0]);
}

/// Issue 18089: a watch from the compact revision is given the delete that was made there.
#[test]
fn issue_18089_watch_from_a_delete_at_the_compact_revision() {
    let db = memory();
    db.put("foo", "bar").unwrap();
    db.delete("foo").unwrap();
    db.put("other", "bar").unwrap();
    db.compact(3).unwrap();
    for keys in [KeyRange::from("foo"), KeyRange::prefix("foo")] {
        for start in [Start::At(3.into()), Start::Oldest, Start::After(2.into())] {
            let mut stream = db.watch(keys.clone(), start).unwrap();
            let responses = received(&mut stream);
            let found: Vec<String> = events(&responses).into_iter().map(event).collect();
            assert_eq!(found, ["-3.0 foo"], "{keys:?} {start:?}");
        }
    }
}

/// Issue 19179: the same of a store that was opened again, where the delete is all that is left of the key.
#[test]
fn issue_19179_watch_from_a_lone_tombstone_after_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let db = revtree::Db::open(&path).unwrap();
    db.put("foo", "bar").unwrap();
    db.delete("foo").unwrap();
    db.compact(3).unwrap();
    db.close().unwrap();
    let db = revtree::Db::open(&path).unwrap();
    let mut stream = db.watch("foo", Start::At(3.into())).unwrap();
    assert_eq!(told(&mut stream), ["0@3: -3.0 foo"]);
    db.put("foo", "bar").unwrap();
    assert_eq!(told(&mut stream), ["0@4: +4.0 foo"]);
    db.compact(4).unwrap();
    assert_eq!(
        told(&mut db.watch("foo", Start::Oldest).unwrap()),
        ["0@4: +4.0 foo"]
    );
}

/// Issue 20221: a watcher that waits for the future when a content is restored is neither given what is older
/// nor told of progress there, whether the restored content reaches its beginning or not.
#[test]
fn issue_20221_future_watchers_across_a_restore() {
    let other = memory();
    put_up_to(&other, "foo", 6);
    let six = Saved::of(&other);
    put_up_to(&other, "foo", 12);
    let twelve = Saved::of(&other);
    let db = memory();
    put_up_to(&db, "foo", 3);
    let mut stream = db.watch("foo", Start::At(9.into())).unwrap();
    stream.request_progress(id(0)).unwrap();
    stream.request_progress_all().unwrap();
    six.restore_into(&db);
    assert_eq!(told(&mut stream), [""; 0]);
    put_up_to(&db, "foo", 8);
    assert_eq!(told(&mut stream), [""; 0]);
    twelve.restore_into(&db);
    let responses = received(&mut stream);
    let (of_events, of_progress): (Vec<_>, Vec<_>) = responses
        .iter()
        .partition(|r| matches!(r.update, Update::Events(_)));
    assert_eq!(revisions(events(of_events)), Vec::from_iter(9..=12));
    let progress: Vec<_> = of_progress
        .iter()
        .map(|r| (r.id, r.revision.get()))
        .collect();
    assert_eq!(progress, [(id(0), 12), (WatchId::ALL, 12)]);
    assert!(matches!(responses.last().unwrap().update, Update::Progress));
}

/// Issue 22294: a thousand watchers who begin below the compact revision are told so once each; they do not
/// stand in the way of progress of the others, and their ids can be given again.
#[test]
fn issue_22294_one_compact_response_for_a_thousand_watchers() {
    let db = memory();
    put_up_to(&db, "foo", 10);
    db.compact(5).unwrap();
    let mut stream = db.watch_stream().unwrap();
    for n in 1..=1000 {
        let request = WatchRequest::new(format!("foo{}", n % 700), Start::At(2.into()));
        stream.watch_with(request.id(id(n))).unwrap();
    }
    let in_step = stream.watch("foo", Start::Now).unwrap();
    let mut expected: Vec<String> = (1..=1000)
        .map(|n| format!("{n}@0: compacted at 5"))
        .collect();
    expected.sort();
    assert_eq!(told_sorted(&mut stream), expected);
    for _ in 0..3 {
        assert_eq!(told(&mut stream), [""; 0]);
        assert_eq!(db.stats().watchers, 1);
        assert_eq!(db.stats().slow_watchers, 0);
    }
    stream.request_progress_all().unwrap();
    assert_eq!(told(&mut stream), ["-1@10: progress"]);
    assert!(matches!(
        stream.request_progress(id(3)),
        Err(Error::Canceled(_))
    ));
    let again = WatchRequest::new("foo", Start::Oldest).id(id(3));
    stream.watch_with(again).unwrap();
    assert_eq!(
        revisions(events(&received(&mut stream))),
        Vec::from_iter(5..=10)
    );
    stream.cancel(in_step).unwrap();
    assert!(matches!(stream.cancel(id(4)), Err(Error::Canceled(_))));
    assert!(matches!(
        stream.cancel(id(4)),
        Err(Error::WatcherNotExist(_))
    ));
}
