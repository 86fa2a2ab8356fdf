//! etcd's `watchable_store_test.go`: how watchers come into step, and what happens to those who do not.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use revtree::{Db, Error, KeyRange, LeaseId, Revision, Start, Update, WatchRequest, WatchStream};

use super::{
    Saved, event, events, id, put_up_to, received, revisions, said, start, told, told_sorted,
};
use crate::support::memory;

/// TestWatchableKVWatch: a watcher of a range gets two puts in order; one of another stream that begins at
/// the second replays it, and goes on with what is new.
#[test]
fn watchable_kv_watch() {
    let db = memory();
    let mut stream = db.watch("foo".."fop", Start::Now).unwrap();
    db.put("foo", "bar").unwrap();
    assert_eq!(told(&mut stream), ["0@2: +2.0 foo"]);
    db.put("foo1", "bar1").unwrap();
    assert_eq!(told(&mut stream), ["0@3: +3.0 foo1"]);
    let mut second = db.watch("foo".."fop", Start::At(3.into())).unwrap();
    assert_eq!(told(&mut second), ["0@3: +3.0 foo1"]);
    db.put("foo1", "bar11").unwrap();
    for stream in [&mut stream, &mut second] {
        let responses = received(stream);
        assert_eq!(
            responses.iter().map(said).collect::<Vec<_>>(),
            ["0@4: +4.0 foo1"]
        );
        let event = events(&responses)[0];
        let kv = &event.kv;
        assert_eq!(
            (kv.create_revision.get(), kv.mod_revision.get(), kv.version),
            (3, 4, 2)
        );
        assert_eq!(kv.value, "bar11");
        assert!(event.is_modify());
    }
}

/// TestWatch: who begins with what is new is in step at once.
#[test]
fn watch() {
    let db = memory();
    db.put("foo", "bar").unwrap();
    let mut stream = db.watch("foo", Start::Now).unwrap();
    let stats = db.stats();
    assert_eq!((stats.watchers, stats.slow_watchers), (1, 0));
    stream.request_progress(id(0)).unwrap();
    assert_eq!(told(&mut stream), ["0@2: progress"]);
}

/// TestNewWatcherCancel: who is cancelled is gone.
#[test]
fn new_watcher_cancel() {
    let db = memory();
    let mut stream = db.watch("foo", Start::Now).unwrap();
    stream.cancel(id(0)).unwrap();
    assert_eq!(db.stats().watchers, 0);
    db.put("foo", "bar").unwrap();
    assert_eq!(told(&mut stream), [""; 0]);
}

/// TestNewWatcherCountGauge: the number of watchers goes up and down by one, for those in step, those that
/// were compacted, and where cancel and close meet.
#[test]
fn new_watcher_count_gauge() {
    let db = memory();
    put_up_to(&db, "foo", 6);
    db.compact(4).unwrap();
    let watchers = || db.stats().watchers;
    let mut stream = db.watch_stream().unwrap();
    let in_step = stream.watch("foo", Start::Now).unwrap();
    let lost = stream.watch("foo", Start::At(1.into())).unwrap();
    assert_eq!(watchers(), 2);
    assert_eq!(told(&mut stream), ["1@0: compacted at 4"]);
    // It has ended by itself, which its cancel is told; it is counted down once.
    assert_eq!(watchers(), 1);
    assert!(matches!(stream.cancel(lost), Err(Error::Canceled(_))));
    assert_eq!(watchers(), 1);
    stream.cancel(in_step).unwrap();
    assert_eq!(watchers(), 0);
    for _ in 0..100 {
        let stream = db.watch_stream().unwrap();
        let ids: Vec<_> = (0..4)
            .map(|_| stream.watch("foo", Start::Oldest).unwrap())
            .collect();
        let together = Barrier::new(2);
        thread::scope(|scope| {
            let control = stream.control();
            let together = &together;
            scope.spawn(move || {
                together.wait();
                for id in ids {
                    match control.cancel(id) {
                        Ok(()) | Err(Error::Closed) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
            together.wait();
            stream.close();
        });
        let stats = db.stats();
        assert_eq!((stats.watchers, stats.streams), (0, 1));
    }
}

/// TestCancelUnsynced: who is cancelled before it came into step is given nothing.
#[test]
fn cancel_unsynced() {
    let db = memory();
    db.put("foo", "bar").unwrap();
    let mut stream = db.watch_stream().unwrap();
    let ids: Vec<_> = (0..100)
        .map(|_| stream.watch("foo", Start::At(1.into())).unwrap())
        .collect();
    assert_eq!(db.stats().slow_watchers, 100);
    for id in ids {
        stream.cancel(id).unwrap();
    }
    let stats = db.stats();
    assert_eq!((stats.watchers, stats.slow_watchers), (0, 0));
    assert_eq!(told(&mut stream), [""; 0]);
}

/// TestSyncWatchers: all who begin in the past are given it once, and are in step then.
#[test]
fn sync_watchers() {
    let db = memory();
    db.put("foo", "bar").unwrap();
    let mut stream = db.watch_stream().unwrap();
    for _ in 0..100 {
        stream.watch("foo", Start::At(1.into())).unwrap();
    }
    assert_eq!(db.stats().slow_watchers, 100);
    let mut expected: Vec<String> = (0..100).map(|n| format!("{n}@2: +2.0 foo")).collect();
    expected.sort();
    assert_eq!(told_sorted(&mut stream), expected);
    let stats = db.stats();
    assert_eq!((stats.watchers, stats.slow_watchers), (100, 0));
    assert_eq!(told(&mut stream), [""; 0]);
}

/// TestRangeEvents: who begins at a revision is given what changed from there on, a revision before the first
/// included; a delete says key and revision and nothing else.
#[test]
fn range_events() {
    let db = memory();
    for (key, lease) in [("foo", 1), ("foo1", 2), ("foo2", 3)] {
        let mut txn = db.write().unwrap();
        txn.put_with_lease(key, "bar", LeaseId(lease)).unwrap();
        txn.commit().unwrap();
    }
    db.delete("foo1").unwrap();
    let all = ["+2.0 foo", "+3.0 foo1", "+4.0 foo2", "-5.0 foo1"];
    for (from, skipped) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 2), (5, 3), (6, 4)] {
        let from = Start::At(Revision::new(from));
        for keys in [
            KeyRange::all(),
            KeyRange::prefix("foo"),
            ("foo".."foo3").into(),
        ] {
            let mut stream = db.watch(keys.clone(), from).unwrap();
            let responses = received(&mut stream);
            let found: Vec<String> = events(&responses).into_iter().map(event).collect();
            assert_eq!(found, all[skipped..], "{keys:?} from {from:?}");
        }
    }
    let mut stream = db.watch("foo1", Start::At(5.into())).unwrap();
    let responses = received(&mut stream);
    let kv = &events(&responses)[0].kv;
    assert_eq!((kv.key.as_ref(), kv.mod_revision.get()), (&b"foo1"[..], 5));
    assert_eq!(
        (kv.create_revision.get(), kv.version, kv.lease.0),
        (0, 0, 0)
    );
    assert!(kv.value.is_empty());
}

/// TestWatchCompacted: who begins below the compact revision is told it once, without events, and nothing
/// afterwards; who begins at it is not.
#[test]
fn watch_compacted() {
    let db = memory();
    put_up_to(&db, "foo", 10);
    db.compact(5).unwrap();
    let mut stream = db.watch("foo", Start::At(4.into())).unwrap();
    assert_eq!(told(&mut stream), ["0@0: compacted at 5"]);
    db.put("foo", "bar").unwrap();
    assert_eq!(told(&mut stream), [""; 0]);
    let mut stream = db.watch("foo", Start::At(5.into())).unwrap();
    assert_eq!(
        revisions(events(&received(&mut stream))),
        Vec::from_iter(5..=11)
    );
}

/// TestWatchNoEventLossOnCompact: of many watchers who are behind when the history is compacted, those who need
/// what is gone are told so, and all others get every event.
#[test]
fn watch_no_event_loss_on_compact() {
    let db = memory();
    put_up_to(&db, "foo", 20);
    let mut stream = db.watch_stream().unwrap();
    // A revision in each response, so that nobody is far when the compaction comes.
    let mut starts = BTreeMap::new();
    for from in 1..=20 {
        let request = WatchRequest::new("foo", Start::At(Revision::new(from)));
        let id = stream.watch_with(request.batch_bytes_max(1)).unwrap();
        starts.insert(id, from);
    }
    let mut before = Vec::new();
    for _ in 0..30 {
        before.push(stream.recv().unwrap());
    }
    db.compact(12).unwrap();
    put_up_to(&db, "foo", 25);
    let after = received(&mut stream);
    for (id, from) in starts {
        let of = |response: &&revtree::WatchResponse| response.id == id;
        let mut responses: Vec<_> = before.iter().chain(&after).filter(of).collect();
        let last = responses.last().unwrap();
        let compacted = matches!(last.update, Update::Compacted { compact_revision } if compact_revision.get() == 12);
        if compacted {
            responses.pop();
        }
        let found = revisions(events(responses));
        let first = from.max(2);
        // Each once and in order, until it ends; who ends had been given nothing at or above the compact one.
        assert_eq!(found, Vec::from_iter((first..).take(found.len())), "{from}");
        let last = found.last().copied().unwrap_or(first - 1);
        if compacted {
            assert!(last < 11, "{from}: {last}");
        } else {
            assert_eq!(last, 25, "{from}");
        }
        assert!(
            compacted || from >= 12 || before.iter().any(|r| of(&r)),
            "{from}"
        );
    }
}

/// TestWatchFutureRev: who begins at a revision that is not there yet is given exactly that first.
#[test]
fn watch_future_rev() {
    let db = memory();
    let mut stream = db.watch("foo", Start::At(10.into())).unwrap();
    assert_eq!(db.stats().slow_watchers, 0);
    while db.rev().get() < 9 {
        db.put("foo", "bar").unwrap();
        assert_eq!(told(&mut stream), [""; 0]);
    }
    db.put("foo", "bar").unwrap();
    assert_eq!(told(&mut stream), ["0@10: +10.0 foo"]);
    // The same where nobody looks meanwhile.
    let mut stream = db.watch("foo", Start::At(15.into())).unwrap();
    put_up_to(&db, "foo", 15);
    assert_eq!(told(&mut stream), ["0@15: +15.0 foo"]);
}

/// TestWatchRestore: wherever a watcher began, and whether it came into step before the restore or after it,
/// it is given each event once, and nothing of before its beginning.
#[test]
fn watch_restore() {
    for from in 0..=4 {
        for looks in [[false, false], [true, false], [false, true], [true, true]] {
            let db = memory();
            db.put("foo", "bar").unwrap();
            let mut stream = db.watch("foo", start(from)).unwrap();
            let saved = Saved::of(&db);
            let mut found = Vec::new();
            if looks[0] {
                found.extend(received(&mut stream));
            }
            saved.restore_into(&db);
            if looks[1] {
                found.extend(received(&mut stream));
            }
            db.delete("foo").unwrap();
            found.extend(received(&mut stream));
            let all = ["+2.0 foo", "-3.0 foo"];
            let found: Vec<String> = events(&found).into_iter().map(event).collect();
            let skipped = [1, 0, 0, 1, 2][usize::try_from(from).unwrap()];
            assert_eq!(found, all[skipped..], "from {from}, looks {looks:?}");
            db.put("foo", "bar").unwrap();
            assert_eq!(
                told(&mut stream),
                ["0@4: +4.0 foo"],
                "from {from}, looks {looks:?}"
            );
        }
    }
}

/// TestWatchBatchUnsynced: the past comes in batches of at most a thousand revisions, all events of a revision
/// together; the watcher is in step then.
#[test]
fn watch_batch_unsynced() {
    let db = memory();
    for n in 0..2500 {
        let mut txn = db.write().unwrap();
        for _ in 0..1 + n % 3 {
            txn.put("foo", "bar").unwrap();
        }
        txn.commit().unwrap();
    }
    for keys in [KeyRange::from("foo"), KeyRange::all()] {
        let mut stream = db.watch(keys.clone(), Start::At(1.into())).unwrap();
        assert_eq!(db.stats().slow_watchers, 1);
        let responses = received(&mut stream);
        let all = events(&responses);
        assert_eq!(all.len(), 4999, "{keys:?}");
        assert_eq!(revisions(all), Vec::from_iter(2..=2501), "{keys:?}");
        let mut next = 2;
        for response in &responses {
            let of_batch = revisions(events([response]));
            assert!(of_batch.len() <= 1000, "{keys:?}: {}", of_batch.len());
            // A revision is in one batch alone.
            assert_eq!(of_batch[0], next, "{keys:?}");
            next = of_batch.last().unwrap() + 1;
            assert!(response.revision.get() >= next - 1, "{keys:?}");
        }
        assert_eq!(db.stats().slow_watchers, 0);
    }
}

/// TestNewMapwatcherToEventMap: each event goes to those who watch its key, and to nobody else.
#[test]
fn new_mapwatcher_to_event_map() {
    let db = memory();
    let mut stream = db.watch_stream().unwrap();
    for key in ["k0", "k1", "k1", "k2"] {
        stream.watch(key, Start::Now).unwrap();
    }
    stream.watch("k1".."k3", Start::Now).unwrap();
    let put = |keys: &[&str]| {
        let mut txn = db.write().unwrap();
        for key in keys {
            txn.put(key, "v").unwrap();
        }
        txn.commit().unwrap();
    };
    put(&["k3"]);
    assert_eq!(told(&mut stream), [""; 0]);
    put(&["k0"]);
    assert_eq!(told(&mut stream), ["0@3: +3.0 k0"]);
    put(&["k1"]);
    let of_k1 = ["1@4: +4.0 k1", "2@4: +4.0 k1", "4@4: +4.0 k1"];
    assert_eq!(told_sorted(&mut stream), of_k1);
    put(&["k2", "k1", "k0", "k3"]);
    let of_all = [
        "0@5: +5.2 k0",
        "1@5: +5.1 k1",
        "2@5: +5.1 k1",
        "3@5: +5.0 k2",
        "4@5: +5.0 k2, +5.1 k1",
    ];
    assert_eq!(told_sorted(&mut stream), of_all);
}

/// TestWatchVictims: 256 watchers who are slower than the writer get every event once and in order.
#[test]
fn watch_victims() {
    const PUTS: u64 = 400;
    let db = memory();
    let mut streams: Vec<WatchStream> = (0..256)
        .map(|_| db.watch("foo", Start::Now).unwrap())
        .collect();
    thread::scope(|scope| {
        let writer = scope.spawn(|| put_up_to(&db, "foo", PUTS + 1));
        let mut found = vec![1; streams.len()];
        while found.iter().any(|last| *last < PUTS + 1) {
            for (stream, last) in streams.iter_mut().zip(&mut found) {
                let Some(response) = stream.try_recv().unwrap() else {
                    continue;
                };
                for rev in revisions(events([&response])) {
                    assert_eq!(rev, *last + 1);
                    *last = rev;
                }
                assert_eq!(response.revision.get(), *last);
            }
        }
        writer.join().unwrap();
    });
    for stream in &mut streams {
        assert_eq!(told(stream), [""; 0]);
    }
}

/// TestStressWatchCancelClose: watchers come and go and streams end beside a writer.
#[test]
fn stress_watch_cancel_close() {
    let db = memory();
    let key = |n: usize| format!("foo{}", n % 7);
    let worker = |db: &Db| {
        for n in 0..40 {
            let mut stream = db.watch_stream().unwrap();
            let ids: Vec<_> = (0..10)
                .map(|k| stream.watch(key(n + k), Start::Oldest).unwrap())
                .collect();
            thread::scope(|scope| {
                let control = stream.control();
                scope.spawn(move || {
                    for id in ids {
                        // The stream may have ended.
                        let _ = control.cancel(id);
                    }
                });
                while let Ok(Some(response)) = stream.try_recv() {
                    assert!(matches!(response.update, Update::Events(_)));
                }
                drop(stream);
            });
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| worker(&db))).collect();
        let mut n = 0;
        while workers.iter().any(|worker| !worker.is_finished()) {
            db.put(key(n), "bar").unwrap();
            n += 1;
        }
    });
    let stats = db.stats();
    assert_eq!(
        (stats.watchers, stats.slow_watchers, stats.streams),
        (0, 0, 0)
    );
}
