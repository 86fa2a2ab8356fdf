//! etcd's `watcher_test.go`: ids, ranges, filters and progress of the watchers of a stream.

use std::collections::BTreeSet;

use revtree::{Error, Filter, KeyRange, Prev, Start, Update, WatchRequest};

use super::{event, events, id, received, said, start, told, told_sorted};
use crate::support::memory;

/// TestWatcherWatchID: each watcher has an id of its own, with which its responses come.
#[test]
fn watch_id() {
    let db = memory();
    let mut stream = db.watch_stream().unwrap();
    let mut seen = BTreeSet::new();
    let mut check = |start: Start, puts_first: bool| {
        if puts_first {
            db.put("foo", "bar").unwrap();
        }
        let id = stream.watch("foo", start).unwrap();
        assert!(seen.insert(id));
        if !puts_first {
            db.put("foo", "bar").unwrap();
        }
        let responses = received(&mut stream);
        assert!(responses.iter().all(|response| response.id == id));
        assert_eq!(events(&responses).last().unwrap().id.main, db.rev());
        stream.cancel(id).unwrap();
    };
    for _ in 0..10 {
        check(Start::Now, false);
    }
    for _ in 10..20 {
        check(Start::At(1.into()), true);
    }
}

/// TestWatcherRequestsCustomID: an id of one's own is taken, refused when it is in use, and skipped by those
/// that are chosen; a cancelled one can be given again. (The id that answers for all is refused here.)
#[test]
fn requests_custom_id() {
    let db = memory();
    let stream = db.watch_stream().unwrap();
    let watch =
        |number: i64| stream.watch_with(WatchRequest::new("foo", Start::Now).id(id(number)));
    assert_eq!(watch(1).unwrap(), id(1));
    assert!(matches!(watch(1), Err(Error::WatcherDuplicateId(n)) if n == id(1)));
    assert_eq!(watch(0).unwrap(), id(0));
    assert_eq!(watch(0).unwrap(), id(2));
    assert!(matches!(watch(0), Ok(n) if n == id(3)));
    stream.cancel(id(1)).unwrap();
    assert_eq!(watch(1).unwrap(), id(1));
    assert!(matches!(watch(-1), Err(Error::WatcherDuplicateId(_))));
    assert_eq!(stream.watch("foo", Start::Now).unwrap(), id(4));
}

/// TestWatcherWatchPrefix: a prefix is watched as a key is, in step and from the past on.
#[test]
fn watch_prefix() {
    for (start, puts_first) in [(Start::Now, false), (Start::At(1.into()), true)] {
        let db = memory();
        let mut stream = db.watch_stream().unwrap();
        for n in 0..10 {
            let prefix = format!("foo{n}/");
            let put = || {
                db.put(format!("foo{n}"), "beside").unwrap();
                db.put(format!("{prefix}bar"), "in").unwrap();
            };
            if puts_first {
                put();
            }
            let id = stream.watch(KeyRange::prefix(&prefix), start).unwrap();
            if !puts_first {
                put();
            }
            let rev = db.rev();
            assert_eq!(
                told(&mut stream),
                [format!("{}@{rev}: +{rev}.0 {prefix}bar", id.0)]
            );
        }
        assert_eq!((db.stats().watchers, db.stats().slow_watchers), (10, 0));
    }
}

/// TestWatchResponseEventsNotSharedAcrossWatchers: what one watcher's events say is not changed by another's
/// wishes.
#[test]
fn response_events_not_shared_across_watchers() {
    let db = memory();
    db.put("foo", "old").unwrap();
    let mut stream = db.watch_stream().unwrap();
    let plain = stream.watch("foo", Start::Now).unwrap();
    let with_prev = stream
        .watch_with(WatchRequest::new("foo", Start::Now).prev_kv())
        .unwrap();
    let filtered = stream
        .watch_with(WatchRequest::new("foo", Start::Now).filter(Filter::NoDelete))
        .unwrap();
    let mut txn = db.write().unwrap();
    txn.put("foo", "new").unwrap();
    txn.delete("foo").unwrap();
    txn.commit().unwrap();
    let responses = received(&mut stream);
    let of = |id| {
        let of_id = responses.iter().filter(|response| response.id == id);
        events(of_id)
    };
    assert!(
        of(plain)
            .iter()
            .all(|event| matches!(event.prev, Prev::NotAsked))
    );
    assert_eq!(of(plain).len(), 2);
    for event in of(with_prev) {
        assert!(matches!(&event.prev, Prev::Value(kv) if kv.value == "old"));
    }
    assert_eq!(
        of(filtered).into_iter().map(event).collect::<Vec<_>>(),
        ["+3.0 foo"]
    );
}

/// TestWatcherWatchWrongRange: a range that ends at or before its start is refused; all keys from one on are
/// not. No id is used up.
#[test]
fn watch_wrong_range() {
    let db = memory();
    let stream = db.watch_stream().unwrap();
    for (key, end) in [("foa", "foa"), ("fob", "foa")] {
        let keys = KeyRange::from_etcd(key.as_bytes(), Some(end.as_bytes()));
        assert!(matches!(
            stream.watch(keys, Start::Now),
            Err(Error::EmptyRange)
        ));
    }
    let from_key = KeyRange::from_etcd(b"foo", Some(b""));
    assert_eq!(stream.watch(from_key, Start::Now).unwrap(), id(0));
}

/// TestWatchDeleteRange: the deletes of one call come in one response, in the order of keys, at its revision.
#[test]
fn watch_delete_range() {
    let db = memory();
    for n in 0..3 {
        db.put(format!("foo_{n}"), "bar").unwrap();
    }
    let mut stream = db.watch("foo_0".."foo_99", Start::Now).unwrap();
    db.delete_range("foo_0".."foo_3").unwrap();
    assert_eq!(
        told(&mut stream),
        ["0@5: -5.0 foo_0, -5.1 foo_1, -5.2 foo_2"]
    );
}

/// TestWatchStreamCancelWatcherByID: an id is cancelled once; others are refused.
#[test]
fn stream_cancel_watcher_by_id() {
    let db = memory();
    let stream = db.watch_stream().unwrap();
    let given = stream.watch("foo", Start::Now).unwrap();
    assert!(matches!(stream.cancel(id(1)), Err(Error::WatcherNotExist(n)) if n == id(1)));
    assert!(matches!(
        stream.cancel(id(-1)),
        Err(Error::WatcherNotExist(_))
    ));
    stream.cancel(given).unwrap();
    assert!(matches!(
        stream.cancel(given),
        Err(Error::WatcherNotExist(_))
    ));
}

/// TestWatcherRequestProgressBadId: for an id that was never given there is no answer. (etcd says nothing;
/// here it is an error.)
#[test]
fn request_progress_bad_id() {
    let db = memory();
    let mut stream = db.watch_stream().unwrap();
    let asked = stream.request_progress(id(1000));
    assert!(matches!(asked, Err(Error::WatcherNotExist(n)) if n == id(1000)));
    assert_eq!(told(&mut stream), [""; 0]);
}

/// TestWatcherRequestProgress: who is in step is answered at once; who is behind behind its events (etcd does
/// not answer it); who begins in the future when that is there, and not before.
#[test]
fn request_progress() {
    let check = |from: u64, now: &[&str], later: &[&str], last: &[&str]| {
        let db = memory();
        db.put("foo", "bar").unwrap();
        let mut stream = db.watch("foo", start(from)).unwrap();
        stream.request_progress(id(0)).unwrap();
        assert_eq!(told(&mut stream), now, "from {from}");
        // Answered once.
        assert_eq!(told(&mut stream), [""; 0], "from {from}");
        db.put("other", "bar").unwrap();
        assert_eq!(told(&mut stream), later, "from {from}");
        db.put("other", "bar").unwrap();
        assert_eq!(told(&mut stream), last, "from {from}");
    };
    check(0, &["0@2: progress"], &[], &[]);
    check(1, &["0@2: +2.0 foo", "0@2: progress"], &[], &[]);
    check(2, &["0@2: +2.0 foo", "0@2: progress"], &[], &[]);
    check(3, &[], &["0@3: progress"], &[]);
    check(4, &[], &[], &["0@4: progress"]);
}

/// TestWatcherRequestProgressAll: one answer for all, with an id that no watcher has, when all are in step.
#[test]
fn request_progress_all() {
    let db = memory();
    db.put("foo", "bar").unwrap();
    let mut stream = db.watch_stream().unwrap();
    // Nobody is behind where there is nobody.
    stream.request_progress_all().unwrap();
    assert_eq!(told(&mut stream), ["-1@2: progress"]);
    for start in [
        Start::At(1.into()),
        Start::Now,
        Start::At(2.into()),
        Start::At(4.into()),
    ] {
        stream.watch("foo", start).unwrap();
    }
    stream.request_progress_all().unwrap();
    assert_eq!(told_sorted(&mut stream), ["0@2: +2.0 foo", "2@2: +2.0 foo"]);
    db.put("other", "bar").unwrap();
    assert_eq!(told(&mut stream), [""; 0]);
    db.put("other", "bar").unwrap();
    assert_eq!(told(&mut stream), ["-1@4: progress"]);
}

/// TestWatcherWatchWithFilter: what a filter drops is not given, and nothing is where all is dropped; progress
/// is not filtered.
#[test]
fn watch_with_filter() {
    let db = memory();
    let mut stream = db.watch_stream().unwrap();
    let request = WatchRequest::new("foo", Start::Now).filter(Filter::NoPut);
    let watched = stream.watch_with(request).unwrap();
    db.put("foo", "bar").unwrap();
    assert_eq!(told(&mut stream), [""; 0]);
    db.delete("foo").unwrap();
    assert_eq!(told(&mut stream), ["0@3: -3.0 foo"]);
    db.put("foo", "bar").unwrap();
    stream.request_progress(watched).unwrap();
    let responses = received(&mut stream);
    assert_eq!(
        responses.iter().map(said).collect::<Vec<_>>(),
        ["0@4: progress"]
    );
    assert!(matches!(responses[0].update, Update::Progress));
}
