//! Views that end when the store has gone on for too long (SPEC.md, X-9).

use revtree::{
    ChangeId, Cleaner, Db, Error, KeyRange, Options, ReadMode, ReadView, Result, Revision, View,
};

const SEGMENT: u64 = 64 << 10;

fn options(limit: u64) -> Options {
    let options = Options::new().segment_bytes(SEGMENT).view_limit(limit);
    options.cleaner(Cleaner::Manual)
}

fn expired<T>(read: Result<T>, view: &ReadView) {
    match read {
        Err(Error::ViewExpired { revision }) => assert_eq!(revision, view.rev()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("an ended view was read"),
    }
}

/// The last item of an iteration.
fn is_last<T>(mut items: impl DoubleEndedIterator<Item = Result<T>>, view: &ReadView) {
    expired(items.next().expect("not the end"), view);
    assert!(items.next().is_none() && items.next_back().is_none());
}

/// Up to the limit every read is right, beyond it every one says that the view has ended: the view itself, its
/// copies, and what was asked of it before, in the middle and at the end of an iteration.
#[test]
fn every_read_ends() {
    let db = options(2).open_in_memory().unwrap();
    for n in 0..300 {
        db.put(format!("key {n:03}"), "1").unwrap();
    }
    let old = db.put("key 000", "2").unwrap();
    db.compact(100).unwrap();
    let view = db.read().unwrap();
    let (half, early, owned) = (view.range(..), view.range(..), view.clone().into_range(..));
    let mut half = half.iter();
    let mut back = early.iter();
    let mut all = view.range(..).iter();
    let mut owned = owned;
    let at = view.range(..).at(200).unwrap();
    let mut at_iter = view.range(..).at(200).unwrap().iter();
    let mut history = view.history("key 000").unwrap();
    let mut changes = view.changes(.., 150.into()..=300.into()).unwrap();
    let limited = view.range(..).limit(3);
    let mut txn = db.write().unwrap();
    txn.table("side").unwrap().put(b"a", b"1").unwrap();
    txn.commit().unwrap();
    for n in 0..2 {
        db.put("key 001", n.to_string()).unwrap();
        // Still there.
        assert_eq!(view.get("key 000").unwrap().unwrap().value(), b"2");
        assert_eq!(view.range(..).count().unwrap(), 300);
        assert!(half.next().unwrap().is_ok() && back.next_back().unwrap().is_ok());
        assert!(owned.next().unwrap().is_ok() && at_iter.next().unwrap().is_ok());
        assert!(changes.next().unwrap().is_ok());
        assert_eq!(all.by_ref().take(150).filter(Result::is_ok).count(), 150);
        assert_eq!(at.count().unwrap(), 199);
    }
    history.next().unwrap().unwrap();
    assert!(view.history("key 000").is_ok() && view.change(ChangeId::new(old, 0)).is_ok());
    assert_eq!(db.stats().expired_views, 0);
    let pinned_before = db.stats().oldest_view;
    db.put("key 001", "end").unwrap();
    expired(view.get("key 000"), &view);
    expired(view.get("not there"), &view);
    expired(view.clone().get("key 000"), &view);
    expired(View::get(&view, b"key 000"), &view);
    expired(view.range("key 000").count(), &view);
    expired(view.range("x"..).collect(), &view);
    expired(View::range(&view, KeyRange::all()).collect(), &view);
    expired(limited.count(), &view);
    expired(limited.collect(), &view);
    expired(view.range(..).at(200), &view);
    expired(view.history("key 000"), &view);
    expired(view.history("not there"), &view);
    expired(view.changes(.., 150.into()..=300.into()), &view);
    expired(view.change(ChangeId::new(old, 0)), &view);
    is_last(view.range(..).iter(), &view);
    is_last(view.range("x"..).reverse().iter(), &view);
    is_last(limited.iter(), &view);
    is_last(half, &view);
    is_last(back.rev(), &view);
    is_last(all, &view);
    is_last(owned, &view);
    is_last(at_iter, &view);
    is_last(at.iter(), &view);
    expired(at.count(), &view);
    is_last(history, &view);
    is_last(changes, &view);
    is_last(view.clone().into_range(..), &view);
    assert!(view.tables().next().is_none() && view.table("side").get(b"a").unwrap().is_none());
    assert_eq!(view.rev(), old);
    let stats = db.stats();
    assert!(stats.expired_views > 0 && stats.open_views >= stats.expired_views);
    assert_eq!((pinned_before, stats.oldest_view), (Some(100.into()), None));
}

/// The age of a view counts, not how old the revision is that it reads; transactions, snapshots, hashes and checks do
/// not end.
#[test]
fn what_does_not_end() {
    let dir = tempfile::tempdir().unwrap();
    let db = options(0).open(dir.path().join("store")).unwrap();
    for n in 0..50 {
        db.put("key", n.to_string()).unwrap();
    }
    for rev in 2..=51u64 {
        let view = db.read_at(rev).unwrap();
        let value = (rev - 2).to_string();
        assert_eq!(view.get("key").unwrap().unwrap().value(), value.as_bytes());
    }
    let snapshot = db.snapshot().unwrap();
    let mut txn = db.write().unwrap();
    txn.put("key", "new").unwrap();
    assert_eq!(txn.get(b"key").unwrap().unwrap().value(), b"new");
    assert_eq!(txn.range(..).at(2).unwrap().count().unwrap(), 1);
    txn.commit().unwrap();
    db.put("other", "1").unwrap();
    db.compact(db.rev()).unwrap();
    db.reclaim().unwrap();
    snapshot.save(dir.path().join("copy")).unwrap();
    let copy = Db::open(dir.path().join("copy")).unwrap();
    assert_eq!(copy.read_at(30).unwrap().range(..).count().unwrap(), 1);
    assert!(db.check().unwrap().is_clean());
    db.hash_by_rev(0).unwrap();
}

/// At the limit a view is still exact, whatever is cleaned; one revision later what it needed goes, while the bytes
/// that it has lent stay as they were, and their space is given back when it is dropped.
#[test]
fn an_ended_view_lets_the_cleaner_go_on() {
    for (read_mode, ends) in [
        (ReadMode::Map, true),
        (ReadMode::Pread, true),
        (ReadMode::Map, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let limit = if ends { 400 } else { 401 };
        let db = options(limit).read_mode(read_mode);
        let db = db.open(dir.path().join("store")).unwrap();
        let value = |n: u64| format!("{n:04}").repeat(250);
        for n in 0..100 {
            db.put(format!("key {:02}", n % 20), value(n)).unwrap();
        }
        let view = db.read().unwrap();
        let lent = view.get("key 07").unwrap().unwrap();
        let all: Vec<_> = view.range(..).iter().map(Result::unwrap).collect();
        let exact = |view: &ReadView| {
            let records = view.range(..).collect().unwrap().kvs;
            assert_eq!(records.len(), 20);
            for (n, kv) in (80..).zip(&records) {
                assert_eq!(kv.value, value(n));
            }
        };
        for n in 100..500 {
            db.put(format!("key {:02}", n % 20), value(n)).unwrap();
        }
        db.compact(db.rev()).unwrap();
        db.reclaim().unwrap();
        // 400 revisions beyond it: nothing is missing.
        exact(&view);
        assert_eq!(db.stats().oldest_view, Some(view.rev()));
        db.put("key 00", value(500)).unwrap();
        db.compact(db.rev()).unwrap();
        let before = db.stats().revisions;
        db.reclaim().unwrap();
        let after = db.stats();
        if !ends {
            exact(&view);
            assert!(after.revisions >= 40 && after.pinned_bytes > 20_000);
            continue;
        }
        expired(view.range(..).collect(), &view);
        assert!(
            after.revisions < before && after.revisions < 40,
            "{after:?}"
        );
        assert_eq!((after.pinned_bytes, after.oldest_view), (0, None));
        assert!(after.held_bytes > 0 && after.expired_views == 1);
        // What was lent is read again once more has been written.
        for n in 501..900 {
            db.put(format!("key {:02}", n % 20), value(n)).unwrap();
        }
        db.compact(db.rev()).unwrap();
        db.reclaim().unwrap();
        assert_eq!(lent.value(), value(87).as_bytes());
        for (n, record) in (80..).zip(&all) {
            assert_eq!(record.value(), value(n).as_bytes());
        }
        drop((lent, all));
        drop(view);
        db.reclaim().unwrap();
        let freed = db.stats();
        assert!(freed.held_bytes == 0 && freed.file_bytes < after.file_bytes);
        assert!(db.check().unwrap().is_clean());
    }
}

/// An iteration at another revision keeps that revision by itself: the range that it came from may be gone.
#[test]
fn an_iteration_keeps_its_revision() {
    let db = Options::new().segment_bytes(SEGMENT);
    let db = db.cleaner(Cleaner::Manual).open_in_memory().unwrap();
    let value = |n: u64| vec![u8::try_from(n).unwrap(); 2000];
    let mut old = Revision::default();
    for round in 0..8 {
        for n in 0..150 {
            old = db.put(format!("key {n:03}"), value(round)).unwrap();
        }
    }
    let then = Revision::new(old.get() - 600);
    let view = db.read().unwrap();
    let mut records = view.range(..).at(then).unwrap().iter();
    assert_eq!(records.next().unwrap().unwrap().value(), value(3));
    db.compact(db.rev()).unwrap();
    db.reclaim().unwrap();
    let rest: Vec<_> = records
        .map(|record| record.unwrap().value().to_vec())
        .collect();
    assert_eq!(rest.len(), 149);
    assert!(rest.iter().all(|found| *found == value(3)));
}
