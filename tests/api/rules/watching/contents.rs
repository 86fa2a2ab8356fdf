//! What happens to the content that is watched: records are damaged, history is compacted, another content is
//! restored.

use std::path::PathBuf;

use revtree::{
    Db, Error, KeyRange, Options, Revision, Start, Update, WatchId, WatchRequest, WatchResponse,
    WatchStream,
};

use super::super::memory;
use super::{given, received, revisions};

/// Puts the key until the store is at this revision.
fn put_up_to(db: &Db, key: &str, rev: u64) {
    while db.rev().get() < rev {
        db.put(key, "1").unwrap();
    }
}

/// The last response of a watcher that met damage.
fn failed_at(response: &WatchResponse) -> u64 {
    assert!(
        matches!(response.update, Update::Failed(Error::Corrupt { .. })),
        "{response:?}"
    );
    response.revision.get()
}

/// Who has joined others, and begins at the compact revision itself, has lost nothing where they have.
#[test]
fn who_begins_at_the_compact_revision_goes_on_where_others_end() {
    let db = memory();
    let mut stream = db.watch("a", Start::Now).unwrap();
    let later = [4, 5].map(|rev| stream.watch("a", Start::At(rev.into())).unwrap());
    // More than a compaction copies for them.
    db.put("a", vec![0; 5 << 20]).unwrap();
    put_up_to(&db, "a", 5);
    db.compact(4).unwrap();
    let (mut ended, mut given) = (vec![], vec![]);
    for response in received(&mut stream) {
        match response.update {
            Update::Events(events) => {
                given.extend(
                    events
                        .iter()
                        .map(|event| (response.id, event.id.main.get())),
                );
            }
            Update::Compacted { compact_revision } => ended.push((response.id, compact_revision)),
            other => panic!("{other:?}"),
        }
    }
    given.sort_unstable();
    assert_eq!(ended, [(WatchId(0), Revision::new(4))]);
    assert_eq!(given, [(later[0], 4), (later[0], 5), (later[1], 5)]);
}

/// A damaged record ends the watchers that need it, behind everything that is whole before it, and says where
/// one goes on behind it; other keys are watched on, and what is new.
#[test]
fn a_damaged_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = Db::open(&path).unwrap();
    for n in 2..=20u64 {
        let mut txn = db.write().unwrap();
        txn.put("all", format!("first of {n:03}")).unwrap();
        txn.put(format!("k{}", n % 4), format!("the value of {n:03}"))
            .unwrap();
        txn.commit().unwrap();
    }
    db.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let value = b"the value of 010";
    let at = bytes
        .windows(value.len())
        .position(|window| window == value)
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let db = Db::open(&path).unwrap();
    let mut stream = db.watch_stream().unwrap();
    let all = stream.watch(KeyRange::all(), Start::Oldest).unwrap();
    let damaged = stream.watch("k2", Start::Oldest).unwrap();
    let whole = stream.watch("k1", Start::Oldest).unwrap();
    let new = stream.watch("k2", Start::Now).unwrap();
    let behind = stream.watch(KeyRange::all(), Start::At(11.into())).unwrap();
    let responses = received(&mut stream);
    let of = |id: WatchId| {
        responses
            .iter()
            .filter(move |response| response.id == id)
            .collect::<Vec<_>>()
    };
    // Nothing of revision 10 is given, and all of 9 is.
    let (last, before) = of(all)
        .split_last()
        .map(|(last, before)| (*last, before.to_vec()))
        .unwrap();
    assert_eq!(
        revisions(before),
        (2..=9).flat_map(|rev| [rev, rev]).collect::<Vec<_>>()
    );
    assert_eq!(failed_at(last), 9);
    let (last, before) = of(damaged)
        .split_last()
        .map(|(last, before)| (*last, before.to_vec()))
        .unwrap();
    assert_eq!(revisions(before), [2, 6]);
    assert_eq!(failed_at(last), 9);
    assert_eq!(revisions(of(whole)), [5, 9, 13, 17]);
    assert_eq!(revisions(of(behind)).len(), 20);
    assert!(of(new).is_empty());
    // They have ended, the others go on.
    assert!(matches!(stream.cancel(all), Err(Error::Canceled(_))));
    assert!(matches!(
        stream.request_progress(damaged),
        Err(Error::Canceled(_))
    ));
    assert_eq!(db.stats().watchers, 3);
    db.put("k2", "new").unwrap();
    let told: Vec<_> = received(&mut stream)
        .iter()
        .map(|response| response.id)
        .collect();
    assert_eq!(told.len(), 2);
    assert!(told.contains(&new) && told.contains(&behind));
    // Who goes on where the response says meets the damage again; behind it there is everything.
    stream
        .watch_with(WatchRequest::new("k2", Start::After(9.into())).id(damaged))
        .unwrap();
    assert_eq!(failed_at(&stream.recv().unwrap()), 9);
    stream
        .watch_with(WatchRequest::new("k2", Start::At(11.into())).id(damaged))
        .unwrap();
    assert_eq!(given(&mut stream), [14, 18, 21]);
}

/// A compaction right behind puts takes none of the events from a receiver that was in step, though it comes
/// late, whether it watches a key or a range, and however many revisions there are in a batch.
#[test]
fn a_compaction_behind_puts() {
    for keys in [KeyRange::single("a"), KeyRange::all()] {
        for puts in [1, 10, 3500] {
            let db = memory();
            db.put("a", "1").unwrap();
            let mut stream = db.watch(keys.clone(), Start::Now).unwrap();
            let mut second = db.watch(keys.clone(), Start::Oldest).unwrap();
            assert_eq!(given(&mut second), [2]);
            put_up_to(&db, "a", 2 + puts);
            db.compact(db.rev()).unwrap();
            for stream in [&mut stream, &mut second] {
                assert_eq!(given(stream), Vec::from_iter(3..=2 + puts), "{keys:?}");
            }
            // Again, with what was made before still there.
            put_up_to(&db, "a", 2 + 2 * puts);
            db.compact(db.rev()).unwrap();
            put_up_to(&db, "a", 3 + 2 * puts);
            db.compact(db.rev()).unwrap();
            for stream in [&mut stream, &mut second] {
                assert_eq!(
                    given(stream),
                    Vec::from_iter(3 + puts..=3 + 2 * puts),
                    "{keys:?}"
                );
            }
        }
    }
}

/// What is kept for a late receiver has an end: who lies further behind is given a part without a gap, and then
/// told of the compaction, once. What is kept holds nothing of the store.
#[test]
fn a_compaction_far_ahead_of_a_receiver() {
    let db = memory();
    let mut stream = db.watch("a", Start::Now).unwrap();
    for _ in 0..20 {
        db.put("a", vec![1; 1 << 20]).unwrap();
    }
    db.compact(db.rev()).unwrap();
    assert_eq!(db.stats().shared_handles, 0);
    let mut responses = received(&mut stream);
    let last = responses.pop().unwrap();
    assert!(
        matches!(last.update, Update::Compacted { compact_revision } if compact_revision == db.rev())
    );
    let found = revisions(&responses);
    assert_eq!(found.len(), 3);
    assert_eq!(found, Vec::from_iter((2..).take(found.len())));
    db.put("a", "1").unwrap();
    assert_eq!(given(&mut stream), [0; 0]);
}

/// What was kept at a compaction was bounded by 128 batches of a stream: of a thousand watchers of a key each, one event
/// behind, 871 were told of the compaction.
#[test]
fn a_compaction_beside_many_watchers_one_behind() {
    let db = memory();
    let mut stream = db.watch_stream().unwrap();
    for n in 0..1000 {
        stream.watch(format!("{n}"), Start::Now).unwrap();
    }
    for ends in [false, true] {
        for n in 0..1000 {
            db.put(format!("{n}"), "1").unwrap();
        }
        if ends {
            db.clone().close().unwrap();
            assert_eq!(revisions(&Vec::from_iter(&mut stream)).len(), 1000);
        } else {
            db.compact(db.rev()).unwrap();
            assert_eq!(given(&mut stream).len(), 1000);
        }
    }
}

/// The bytes of what was kept were asked for between batches: one that was as large as its watcher allowed was kept
/// whole. A revision that is larger alone is not kept, and others are.
#[test]
fn a_compaction_keeps_no_more_than_it_may() {
    let db = memory();
    let mut stream = db.watch_stream().unwrap();
    for keys in [KeyRange::single("a"), KeyRange::all(), "b".into()] {
        let request = WatchRequest::new(keys, Start::Now).batch_bytes_max(usize::MAX);
        stream.watch_with(request).unwrap();
    }
    let mut txn = db.write().unwrap();
    for n in 0..5 {
        txn.put(format!("a{n}"), vec![1; 1 << 20]).unwrap();
    }
    txn.commit().unwrap();
    for key in ["b", "a", "a", "a", "a", "a"] {
        db.put(key, vec![1; 1 << 20]).unwrap();
    }
    db.compact(db.rev()).unwrap();
    let responses = received(&mut stream);
    let (ends, kept): (Vec<_>, Vec<_>) = responses
        .iter()
        .partition(|response| matches!(response.update, Update::Compacted { .. }));
    let told: Vec<_> = ends.iter().map(|response| response.id.0).collect();
    assert_eq!(told.len(), 2);
    assert!(told.contains(&0) && told.contains(&1));
    let mut kept = revisions(kept);
    kept.sort_unstable();
    assert_eq!(kept, [3, 4, 5]);
}

/// Each stream had copies of its own: two hundred whose receivers were dead cost two hundred times 4 MiB.
#[test]
fn a_compaction_keeps_no_more_for_many_streams() {
    let db = memory();
    let mut streams: Vec<_> = (0..40)
        .map(|_| db.watch(KeyRange::all(), Start::Now).unwrap())
        .collect();
    for _ in 0..2 {
        for _ in 0..8 {
            db.put("a", vec![1; 1 << 20]).unwrap();
        }
        db.compact(db.rev()).unwrap();
    }
    let mut kept = 0;
    for stream in &mut streams {
        let mut responses = received(stream);
        responses.pop_if(|last| matches!(last.update, Update::Compacted { .. }));
        kept += revisions(&responses).len();
    }
    assert!((40..64).contains(&kept), "{kept}");
    // And there is room again.
    let mut stream = db.watch("a", Start::Now).unwrap();
    db.put("a", "1").unwrap();
    db.compact(db.rev()).unwrap();
    assert_eq!(given(&mut stream).len(), 1);
}

/// A compaction that is refused changes nothing for those who watch.
#[test]
fn a_compaction_that_is_refused() {
    let db = memory();
    put_up_to(&db, "a", 5);
    db.compact(4).unwrap();
    let mut stream = db.watch("a", Start::Now).unwrap();
    put_up_to(&db, "a", 8);
    assert!(matches!(db.compact(3), Err(Error::Compacted { .. })));
    assert!(matches!(db.compact(100), Err(Error::FutureRevision { .. })));
    assert_eq!(given(&mut stream), [6, 7, 8]);
    // Nothing is kept aside either for one that has been given a part.
    put_up_to(&db, "a", 1100);
    assert!(stream.try_recv().unwrap().is_some());
    assert_eq!(db.stats().slow_watchers, 1);
    assert!(matches!(db.compact(4), Err(Error::Compacted { .. })));
    assert!(matches!(
        db.compact(2000),
        Err(Error::FutureRevision { .. })
    ));
    assert_eq!(db.stats().slow_watchers, 1);
    assert_eq!(given(&mut stream).last(), Some(&1100));
}

/// A saved content of one key up to a revision, compacted or not.
fn saved(dir: &tempfile::TempDir, up_to: u64, compacted: Option<u64>) -> PathBuf {
    let path = dir.path().join(format!("{up_to} {compacted:?}"));
    let db = memory();
    put_up_to(&db, "a", up_to);
    if let Some(compacted) = compacted {
        db.compact(compacted).unwrap();
    }
    db.snapshot().unwrap().save(&path).unwrap();
    path
}

/// Watchers in every state go on in a restored content where they stood, older or newer as it may be: nothing
/// twice, no gap, nothing below where they began, and those whose next revision it has compacted are told.
#[test]
fn a_restore_under_watchers_in_every_state() {
    for (up_to, compacted) in [
        (6, None),
        (12, None),
        (20, None),
        (20, Some(9)),
        (20, Some(16)),
    ] {
        for looks in [false, true] {
            check_restore(up_to, compacted, looks);
        }
    }
}

fn check_restore(up_to: u64, compacted: Option<u64>, looks: bool) {
    let what = format!("{up_to} {compacted:?} {looks}");
    let dir = tempfile::tempdir().unwrap();
    let path = saved(&dir, up_to, compacted);
    let db = Options::new().open(dir.path().join("store")).unwrap();
    let mut stream = db.watch_stream().unwrap();
    let mut first = Vec::new();
    let mut watch = |from: u64, request: WatchRequest| {
        first.push(from);
        stream
            .watch_with(request.id(WatchId(i64::try_from(first.len()).unwrap())))
            .unwrap();
    };
    let request = |start| WatchRequest::new("a", start);
    put_up_to(&db, "a", 4);
    // In step, of a key and of a range; one who begins in the future and is reached, and one who is not.
    watch(5, request(Start::Now));
    watch(5, WatchRequest::new(KeyRange::all(), Start::Now));
    watch(8, request(Start::At(8.into())));
    watch(30, request(Start::At(30.into())));
    watch(18, request(Start::At(18.into())));
    put_up_to(&db, "a", 7);
    let mut all = received(&mut stream);
    let mut watch = |from: u64, request: WatchRequest| {
        first.push(from);
        stream
            .watch_with(request.id(WatchId(i64::try_from(first.len()).unwrap())))
            .unwrap();
    };
    // Who catches up: one that has been given nothing, and one that has been given a part of it, below.
    watch(2, request(Start::Oldest).batch_bytes_max(1));
    watch(
        2,
        WatchRequest::new(KeyRange::all(), Start::Oldest).batch_bytes_max(1),
    );
    for _ in 0..3 {
        all.extend(stream.try_recv().unwrap());
    }
    stream.watch("a", Start::At(3.into())).unwrap();
    first.push(3);
    // Due, and not read: those in step of above.
    put_up_to(&db, "a", 10);
    stream.watch("a", Start::Now).unwrap();
    first.push(11);
    db.restore(&path).unwrap();
    if looks {
        all.extend(received(&mut stream));
    }
    put_up_to(&db, "a", 25);
    all.extend(received(&mut stream));
    for (n, from) in first.into_iter().enumerate() {
        // Ids that were chosen are 0 and 8: see above.
        let id = match n {
            0..=6 => i64::try_from(n + 1).unwrap(),
            7 => 0,
            _ => 8,
        };
        let mut of_id: Vec<_> = all
            .iter()
            .filter(|response| response.id == WatchId(id))
            .collect();
        let is_end =
            |response: &&WatchResponse| matches!(response.update, Update::Compacted { .. });
        let told = of_id.pop_if(|last| is_end(last)).is_some();
        let found = revisions(of_id);
        assert_eq!(
            found,
            Vec::from_iter((from..).take(found.len())),
            "{what}: from {from}"
        );
        let next = found.last().map_or(from, |last| last + 1);
        if told {
            let compacted = compacted.expect(&what);
            assert!(
                next < compacted && from < compacted,
                "{what}: from {from}, next {next}"
            );
        } else {
            assert_eq!(next, from.max(26), "{what}: from {from}");
        }
    }
}

/// Progress behind a restore is of the new content: it is not told before the watchers have been given that.
#[test]
fn progress_behind_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(&dir, 9, None);
    let db = memory();
    put_up_to(&db, "a", 4);
    let mut stream = db.watch("a", Start::Now).unwrap();
    assert!(stream.try_recv().unwrap().is_none());
    stream.request_progress_all().unwrap();
    db.restore(&path).unwrap();
    let responses = received(&mut stream);
    assert_eq!(revisions(&responses[..1]), [5, 6, 7, 8, 9]);
    assert_eq!(
        (responses[1].id, responses[1].revision),
        (WatchId::ALL, Revision::new(9))
    );
    assert_eq!(responses.len(), 2);
}

/// A watcher of the future that had begun, and whose beginning a restore takes away again, waits for it again: for
/// all of its stream progress is told no earlier than for itself.
#[test]
fn progress_where_a_restore_takes_a_beginning_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(&dir, 5, None);
    let db = memory();
    let mut stream = db.watch("b", Start::At(8.into())).unwrap();
    put_up_to(&db, "a", 9);
    stream.request_progress_all().unwrap();
    let told = |stream: &mut WatchStream| -> Vec<(i64, u64)> {
        let of = |told: WatchResponse| (told.id.0, told.revision.get());
        received(stream).into_iter().map(of).collect()
    };
    assert_eq!(told(&mut stream), [(-1, 9)]);
    db.restore(&path).unwrap();
    stream.request_progress_all().unwrap();
    stream.request_progress(WatchId(0)).unwrap();
    assert_eq!(told(&mut stream), []);
    put_up_to(&db, "a", 7);
    assert_eq!(told(&mut stream), []);
    put_up_to(&db, "a", 8);
    assert_eq!(told(&mut stream), [(0, 8), (-1, 8)]);
}

/// Who has caught up joins watchers that stand behind it: what it is told of progress then is no less than what it has
/// been given, though they have not been given that yet.
#[test]
fn progress_is_not_told_below_what_was_given() {
    for received_before in 0..4 {
        let db = Options::new().open_in_memory().unwrap();
        let mut stream = db.watch_stream().unwrap();
        stream.watch(.., Start::Now).unwrap();
        for _ in 0..received_before {
            db.put("a", "1").unwrap();
            assert!(stream.try_recv().unwrap().is_some());
        }
        db.put("a", "2").unwrap();
        let late = stream.watch(.., Start::Oldest).unwrap();
        stream.request_progress(late).unwrap();
        let (mut given, mut told) = (Revision::default(), false);
        for _ in 0..6 {
            let response = stream.try_recv().unwrap();
            // Beside each response that is taken two more revisions are made.
            db.put("a", "3").unwrap();
            db.put("a", "4").unwrap();
            if let Some(response) = response.filter(|response| response.id == late) {
                assert!(response.revision >= given, "{response:?} behind {given}");
                given = response.revision;
                told |= matches!(response.update, Update::Progress);
            }
        }
        assert!(told, "{received_before} before");
    }
}
