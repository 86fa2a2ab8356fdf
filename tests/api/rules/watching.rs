//! Watchers at the public door: their verbs and errors, filters, counters, and what they share.
//!
//! - `contents`: damage, compaction and restore under watchers in every state
//! - `ending`: what is left when stream or store is closed
//! - `waking`: receivers that sleep, and tasks on a runtime

mod contents;
mod ending;
#[cfg(not(any(loom, miri)))]
mod waking;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use revtree::{
    Error, Event, EventKind, Filter, KeyRange, Result, Start, Update, WatchId, WatchRequest,
    WatchResponse, WatchStream,
};

use super::memory;

/// All responses that are there now.
fn received(stream: &mut WatchStream) -> Vec<WatchResponse> {
    std::iter::from_fn(|| stream.try_recv().unwrap()).collect()
}

/// The revisions of the events of these, in their order.
fn revisions<'r>(responses: impl IntoIterator<Item = &'r WatchResponse>) -> Vec<u64> {
    let mut all = Vec::new();
    for response in responses {
        match &response.update {
            Update::Events(events) => all.extend(events.iter().map(|event| event.id.main.get())),
            other => panic!("unexpected: {other:?}"),
        }
    }
    all
}

/// What is there now for one watcher, as revisions.
fn given(stream: &mut WatchStream) -> Vec<u64> {
    revisions(&received(stream))
}

/// A range without a key is refused, in each form, and takes no id.
#[test]
fn an_empty_range_is_refused() {
    let db = memory();
    let stream = db.watch_stream().unwrap();
    for keys in [
        KeyRange::between("b", "b"),
        KeyRange::between("b", "a"),
        KeyRange::between("", ""),
    ] {
        assert!(matches!(
            stream.watch(keys.clone(), Start::Now),
            Err(Error::EmptyRange)
        ));
        assert!(matches!(
            db.watch(keys.clone(), Start::Now),
            Err(Error::EmptyRange)
        ));
        let with = WatchRequest::new(keys, Start::Now).id(WatchId(5));
        assert!(matches!(
            stream.control().watch_with(with),
            Err(Error::EmptyRange)
        ));
    }
    assert_eq!(stream.watch("a", Start::Now).unwrap(), WatchId(0));
    // The empty key is a key.
    stream.watch("", Start::Now).unwrap();
    assert_eq!((db.stats().watchers, db.stats().streams), (2, 1));
}

/// An id in use is refused; one of a watcher that ended by itself answers `Canceled`, once to a cancel, and
/// can be given again; one that was cancelled or never given is not there.
#[test]
fn ids_by_the_life_of_their_watcher() {
    let db = memory();
    for _ in 0..4 {
        db.put("a", "1").unwrap();
    }
    db.compact(3).unwrap();
    let mut stream = db.watch_stream().unwrap();
    let seven = |start: u64| WatchRequest::new("a", Start::At(start.into())).id(WatchId(7));
    let not_there = |result: Result<()>| {
        assert!(
            matches!(result, Err(Error::WatcherNotExist(WatchId(7)))),
            "{result:?}"
        );
    };
    let canceled = |result: Result<()>| {
        assert!(
            matches!(result, Err(Error::Canceled(WatchId(7)))),
            "{result:?}"
        );
    };
    not_there(stream.cancel(WatchId(7)));
    not_there(stream.request_progress(WatchId(7)));
    stream.watch_with(seven(9)).unwrap();
    let again = stream.watch_with(seven(9));
    assert!(matches!(again, Err(Error::WatcherDuplicateId(WatchId(7)))));
    stream.cancel(WatchId(7)).unwrap();
    not_there(stream.cancel(WatchId(7)));
    stream.watch_with(seven(2)).unwrap();
    assert!(matches!(
        stream.recv().unwrap().update,
        Update::Compacted { .. }
    ));
    canceled(stream.request_progress(WatchId(7)));
    canceled(stream.cancel(WatchId(7)));
    not_there(stream.cancel(WatchId(7)));
    stream.watch_with(seven(2)).unwrap();
    assert!(matches!(
        stream.recv().unwrap().update,
        Update::Compacted { .. }
    ));
    assert_eq!(stream.watch_with(seven(3)).unwrap(), WatchId(7));
    stream.request_progress(WatchId(7)).unwrap();
    let responses = received(&mut stream);
    assert_eq!(revisions(&responses[..1]), [3, 4, 5]);
    assert!(matches!(responses[1].update, Update::Progress));
    for refused in [-1, -7] {
        let request = WatchRequest::new("a", Start::Now).id(WatchId(refused));
        let refused = stream.watch_with(request);
        assert!(
            matches!(refused, Err(Error::WatcherDuplicateId(_))),
            "{refused:?}"
        );
    }
}

/// A watcher that has ended by itself is there for its stream until its last response has been received: its id
/// is not given to another, whose end that response would seem to be. Behind a cancel it is not given any more.
#[test]
fn an_id_is_free_behind_the_last_response() {
    let db = memory();
    let mut stream = db.watch_stream().unwrap();
    let request = |id: WatchId| WatchRequest::new("a", Start::Oldest).id(id);
    for id in [1, 2] {
        stream.watch_with(request(WatchId(id))).unwrap();
    }
    assert!(stream.try_recv().unwrap().is_none());
    // More than is kept for who comes late.
    for _ in 0..8 {
        db.put("a", vec![1; 1 << 20]).unwrap();
    }
    db.compact(db.rev()).unwrap();
    // They have ended together; the response of one waits.
    let first = loop {
        let response = stream.recv().unwrap();
        if matches!(response.update, Update::Compacted { .. }) {
            break response.id;
        }
    };
    let other = WatchId(3 - first.0);
    assert_eq!(db.stats().watchers, 1);
    let taken = stream.watch_with(request(other));
    assert!(
        matches!(taken, Err(Error::WatcherDuplicateId(_))),
        "{taken:?}"
    );
    assert_eq!(stream.watch_with(request(first)).unwrap(), first);
    stream.cancel(other).unwrap();
    assert!(matches!(
        stream.cancel(other),
        Err(Error::WatcherNotExist(_))
    ));
    assert_eq!(stream.watch_with(request(other)).unwrap(), other);
    for response in received(&mut stream) {
        assert!(matches!(response.update, Update::Events(_)), "{response:?}");
    }
}

/// Behind `close` each verb of stream and control answers `Closed`, whether stream or store was closed.
#[test]
fn verbs_of_what_is_closed() {
    for close_the_store in [false, true] {
        let db = memory();
        let mut stream = db.watch("a", Start::Now).unwrap();
        let control = stream.control();
        if close_the_store {
            db.clone().close().unwrap();
            assert!(matches!(db.watch_stream(), Err(Error::Closed)));
            assert!(matches!(db.watch("a", Start::Now), Err(Error::Closed)));
        } else {
            control.close();
        }
        let request = || WatchRequest::new("a", Start::Now);
        let id = WatchId(0);
        assert!(matches!(stream.watch("a", Start::Now), Err(Error::Closed)));
        assert!(matches!(stream.watch_with(request()), Err(Error::Closed)));
        assert!(matches!(stream.cancel(id), Err(Error::Closed)));
        assert!(matches!(stream.request_progress(id), Err(Error::Closed)));
        assert!(matches!(stream.request_progress_all(), Err(Error::Closed)));
        assert!(matches!(control.watch("a", Start::Now), Err(Error::Closed)));
        assert!(matches!(control.watch_with(request()), Err(Error::Closed)));
        assert!(matches!(control.cancel(id), Err(Error::Closed)));
        assert!(matches!(control.request_progress(id), Err(Error::Closed)));
        assert!(matches!(control.request_progress_all(), Err(Error::Closed)));
        assert!(matches!(stream.try_recv(), Err(Error::Closed)));
        assert!(matches!(stream.recv(), Err(Error::Closed)));
        let time = std::time::Duration::from_secs(100);
        assert!(matches!(stream.recv_timeout(time), Err(Error::Closed)));
        assert!(stream.iter().next().is_none());
        // It is of no use, and no error.
        control.close();
        assert_eq!((control.rev(), stream.rev()), (1.into(), 1.into()));
        stream.close();
    }
}

/// What is watched is told with its revision, whatever the receiver calls.
#[test]
fn every_way_to_receive() {
    let db = memory();
    let mut stream = db.watch("a", Start::Now).unwrap();
    let time = std::time::Duration::from_millis(1);
    assert!(stream.try_recv().unwrap().is_none());
    assert!(stream.recv_timeout(time).unwrap().is_none());
    let next = || db.put("a", "1").unwrap();
    let rev = next();
    assert_eq!(stream.recv().unwrap().revision, rev);
    let rev = next();
    assert_eq!(stream.try_recv().unwrap().unwrap().revision, rev);
    let rev = next();
    assert_eq!(stream.recv_timeout(time).unwrap().unwrap().revision, rev);
    let rev = next();
    assert_eq!(
        stream
            .recv_timeout(std::time::Duration::MAX)
            .unwrap()
            .unwrap()
            .revision,
        rev
    );
    let rev = next();
    assert_eq!(stream.iter().next().unwrap().revision, rev);
    let rev = next();
    let response = (&mut stream).into_iter().next();
    assert_eq!(response.unwrap().revision, rev);
}

/// A write from inside a filter is refused with `InCallback`, each kind of it; reads go on.
#[test]
fn a_write_inside_a_filter_is_refused() {
    let db = memory();
    let weak = db.downgrade();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let writes = Filter::DropIf(Arc::new(move |event: &Event| {
        let db = weak.upgrade().unwrap();
        let refused =
            |result: Result<()>| assert!(matches!(result, Err(Error::InCallback)), "{result:?}");
        refused(db.put("b", "1").map(drop));
        refused(db.delete("a").map(drop));
        refused(db.write().map(drop));
        refused(db.try_write().map(drop));
        refused(db.compact(2).map(drop));
        refused(db.close());
        let db = weak.upgrade().unwrap();
        assert_eq!(db.get("a").unwrap().unwrap().value, event.kv.value);
        count.fetch_add(1, Ordering::Relaxed);
        false
    }));
    let mut stream = db.watch_stream().unwrap();
    stream
        .watch_with(WatchRequest::new("a", Start::Now).filter(writes))
        .unwrap();
    db.put("a", "1").unwrap();
    assert_eq!(given(&mut stream), [2]);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    db.put("a", "2").unwrap();
    assert_eq!(given(&mut stream), [3]);
}

/// A filter may call the verbs of its stream: it runs without a lock.
#[test]
fn a_filter_may_cancel() {
    let db = memory();
    let mut stream = db.watch_stream().unwrap();
    let control = stream.control();
    let once = Filter::DropIf(Arc::new(move |_: &Event| {
        let _ = control.watch("other", Start::Now).unwrap();
        control.cancel(WatchId(0)).unwrap();
        false
    }));
    stream
        .watch_with(WatchRequest::new("a", Start::Now).filter(once))
        .unwrap();
    db.put("a", "1").unwrap();
    // Cancelled: nothing is given for it.
    assert!(stream.try_recv().unwrap().is_none());
    db.put("other", "1").unwrap();
    assert_eq!(stream.recv().unwrap().id, WatchId(1));
}

/// When a filter panics the panic goes on from the receiver; the next call shows it the same events again, and
/// neither its watcher nor another of the stream loses one.
#[test]
fn a_panic_in_a_filter_loses_nothing() {
    let db = memory();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let panics = Arc::new(AtomicUsize::new(2));
    let (log, left) = (Arc::clone(&seen), Arc::clone(&panics));
    let filter = Filter::DropIf(Arc::new(move |event: &Event| {
        log.lock().unwrap().push(event.id.main.get());
        let panics = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
        assert!(panics.is_err() || event.id.main.get() != 3, "at three");
        left.store(
            usize::from(panics.is_ok()) * panics.unwrap_or(0),
            Ordering::Relaxed,
        );
        event.kind == EventKind::Delete
    }));
    let mut stream = db.watch_stream().unwrap();
    stream
        .watch_with(WatchRequest::new("a", Start::Now).filter(filter))
        .unwrap();
    stream.watch("a", Start::Now).unwrap();
    db.put("a", "1").unwrap();
    db.put("a", "2").unwrap();
    db.delete("a").unwrap();
    for _ in 0..2 {
        let caught = catch_unwind(AssertUnwindSafe(|| stream.try_recv()));
        assert!(caught.is_err());
        // The stream goes on beside it.
        db.put("b", "1").unwrap();
    }
    assert_eq!(seen.lock().unwrap().as_slice(), [2, 3, 2, 3]);
    db.put("a", "3").unwrap();
    let responses = received(&mut stream);
    let of = |id| {
        responses
            .iter()
            .filter(move |response| response.id == WatchId(id))
    };
    assert_eq!(revisions(of(0)), [2, 3, 7]);
    assert_eq!(revisions(of(1)), [2, 3, 4, 7]);
}

/// All filters of a watcher have to keep an event; the response says up to where everything was seen, also what
/// they dropped.
#[test]
fn filters_together() {
    let db = memory();
    let odd = Filter::DropIf(Arc::new(|event: &Event| event.id.main.get() % 2 == 1));
    let request = WatchRequest::new("a", Start::Oldest)
        .filter(Filter::NoDelete)
        .filter(odd);
    for _ in 0..3 {
        db.put("a", "1").unwrap();
        db.put("a", "2").unwrap();
        db.delete("a").unwrap();
    }
    let mut stream = db.watch_stream().unwrap();
    stream.watch_with(request).unwrap();
    let responses = received(&mut stream);
    assert_eq!(revisions(&responses), [2, 6, 8]);
    assert_eq!(responses.last().unwrap().revision.get(), 10);
}

/// `stats` counts streams, watchers, those who are behind, and events by whether they were reported.
#[test]
fn counters() {
    let db = memory();
    let counted = || {
        let stats = db.stats();
        (stats.streams, stats.watchers, stats.slow_watchers)
    };
    assert_eq!(counted(), (0, 0, 0));
    let mut stream = db.watch_stream().unwrap();
    let other = db.watch("b", Start::At(100.into())).unwrap();
    assert_eq!(counted(), (2, 1, 0));
    for _ in 0..3 {
        db.put("a", "1").unwrap();
    }
    stream.watch("a", Start::Oldest).unwrap();
    stream.watch("a", Start::Now).unwrap();
    assert_eq!(counted(), (2, 3, 1));
    assert_eq!(given(&mut stream), [2, 3, 4]);
    assert_eq!(counted(), (2, 3, 0));
    let events = || (db.stats().pending_events, db.stats().events);
    assert_eq!(events(), (3, 0));
    db.report_events_received(2);
    assert_eq!(events(), (1, 2));
    // More than was given: nothing goes below 0.
    db.report_events_received(5);
    assert_eq!(events(), (0, 7));
    stream.cancel(WatchId(0)).unwrap();
    assert_eq!(counted(), (2, 2, 0));
    drop(stream);
    assert_eq!(counted(), (1, 1, 0));
    other.close();
    assert_eq!(counted(), (0, 0, 0));
}

/// Events share the store's bytes, in every watcher's batch the same; a copy lets go of them.
#[test]
fn events_share_bytes_and_copies_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let db = revtree::Db::open(dir.path().join("store")).unwrap();
    let shared = || db.stats().shared_handles;
    let mut stream = db.watch_stream().unwrap();
    let request = || WatchRequest::new("a", Start::Now).prev_kv();
    stream.watch_with(request()).unwrap();
    stream.watch_with(request()).unwrap();
    db.put("a", vec![1; 1000]).unwrap();
    db.put("a", vec![2; 1000]).unwrap();
    let batches: Vec<_> = received(&mut stream)
        .into_iter()
        .map(|response| match response.update {
            Update::Events(events) => events,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((batches.len(), batches[0].len()), (2, 2));
    let value = |n: usize| batches[n].iter().next().unwrap().kv.value.as_ptr();
    assert_eq!(value(0), value(1));
    assert!(shared() > 0);
    let copies: Vec<_> = batches.iter().map(revtree::EventBatch::unpinned).collect();
    let kept = shared();
    drop(batches);
    assert_eq!(shared(), 0, "of {kept}");
    for (n, event) in copies[1].iter().enumerate() {
        assert_eq!(event.kv.value, vec![u8::try_from(n).unwrap() + 1; 1000]);
    }
    assert!(
        matches!(&copies[0].iter().last().unwrap().prev, revtree::Prev::Value(kv) if kv.value == vec![1; 1000])
    );
}

/// Several watchers of one stream that want the same of the past are each given all of it, though all but the
/// first come into step by joining another.
#[test]
fn the_past_is_given_to_each_of_several() {
    let db = memory();
    for _ in 0..3 {
        db.put("a", "1").unwrap();
    }
    let mut stream = db.watch_stream().unwrap();
    let ids: Vec<_> = (1..=3)
        .map(|rev| stream.watch("a", Start::At(rev.into())).unwrap())
        .collect();
    let responses = received(&mut stream);
    for (id, first) in ids.into_iter().zip([2, 2, 3]) {
        let of_id = responses.iter().filter(|response| response.id == id);
        assert_eq!(revisions(of_id), Vec::from_iter(first..=4), "from {first}");
    }
}
