//! What the campaign of watchers has found, each made small.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use futures_core::Stream as _;
use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{
    Db, Options, Prev, Revision, Start, Update, WatchId, WatchRequest, WatchResponse, WatchStream,
};

use super::gate::PATIENCE;
use super::hooks::{Call, HookDisk, Stage, on};

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Woken {
    fn was_called(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }

    fn poll(self: &Arc<Self>, stream: &mut WatchStream) -> Option<WatchResponse> {
        let waker = Waker::from(Arc::clone(self));
        match Pin::new(stream).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(response) => Some(response.expect("the stream is open")),
            Poll::Pending => None,
        }
    }
}

/// The id, and the revisions of the events; none where it is something else.
fn told(response: &WatchResponse) -> (i64, Vec<u64>) {
    let revisions = match &response.update {
        Update::Events(events) => events.iter().map(|event| event.id.main.get()).collect(),
        _ => vec![],
    };
    (response.id.0, revisions)
}

fn rest(stream: &mut WatchStream) -> Vec<(i64, Vec<u64>)> {
    std::iter::from_fn(|| stream.try_recv().unwrap())
        .map(|response| told(&response))
        .collect()
}

fn in_memory() -> Db {
    Options::new().open_in_memory().unwrap()
}

/// A commit that is accepted and not visible.
fn submit(db: &Db, key: &str) {
    let mut txn = db.write().unwrap();
    txn.put(key, "").unwrap();
    drop(txn.submit().unwrap());
}

/// A batch was ended by the revision that went beyond its bytes, not before it: a value of a MiB behind a small one
/// came in one response with it.
#[test]
fn a_batch_of_several_revisions_is_no_larger_than_asked_for() {
    for keys in ["a".into(), revtree::KeyRange::all()] {
        let db = in_memory();
        for value in ["small", "a larger one", "b"] {
            db.put("a", value).unwrap();
        }
        let mut stream = db.watch_stream().unwrap();
        let request = WatchRequest::new(keys, Start::Oldest).batch_bytes_max(16);
        stream.watch_with(request).unwrap();
        assert_eq!(rest(&mut stream), [(0, vec![2]), (0, vec![3, 4])]);
    }
}

/// No bytes at all in a batch made it full before its first revision: the receiver read nothing, for ever, with the
/// stream's lock.
#[test]
fn a_batch_of_no_bytes_is_one_revision() {
    for keys in ["a".into(), revtree::KeyRange::all()] {
        let db = in_memory();
        let mut stream = db.watch_stream().unwrap();
        for start in [Start::Oldest, Start::Now] {
            let request = WatchRequest::new(keys.clone(), start);
            stream.watch_with(request.batch_bytes_max(0)).unwrap();
        }
        for _ in 0..2 {
            db.put("a", "").unwrap();
        }
        let mut given = rest(&mut stream);
        given.sort();
        assert_eq!(
            given,
            [(0, vec![2]), (0, vec![3]), (1, vec![2]), (1, vec![3])]
        );
    }
}

/// Runs it, unless it waits for itself.
fn ends(what: &str, run: impl FnOnce() + Send + 'static) {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        run();
        tell.send(()).unwrap();
    });
    assert!(told.recv_timeout(PATIENCE).is_ok(), "{what}");
}

/// A filter that owned the last handle of its store was dropped with its stream's lock, and the store's close waited
/// for that: whatever ends a watcher hung.
#[test]
fn a_filter_may_own_the_last_handle() {
    for how in ["cancel", "drop", "close", "refused", "compacted"] {
        ends(how, move || {
            let (db, inner) = (in_memory(), in_memory());
            let owned = if how == "refused" { inner } else { db.clone() };
            let reads = move |event: &revtree::Event| owned.get(&event.kv.key).is_err();
            let filter = revtree::Filter::DropIf(Arc::new(reads));
            let mut stream = db.watch_stream().unwrap();
            let start = match how {
                "compacted" => Start::At(2.into()),
                _ => Start::Now,
            };
            for _ in 0..2 {
                db.put("a", "").unwrap();
            }
            db.compact(3).unwrap();
            let id = match how {
                "refused" => WatchId(-1),
                _ => WatchId(1),
            };
            let request = WatchRequest::new("a", start).filter(filter).id(id);
            let watched = stream.watch_with(request);
            assert_eq!(watched.is_err(), how == "refused");
            drop(db);
            match how {
                "cancel" => stream.cancel(id).unwrap(),
                "drop" => drop(stream),
                "close" => stream.control().close(),
                "compacted" => drop(stream.recv().unwrap()),
                _ => {}
            }
        });
    }
}

/// What a compaction keeps for receivers that have not come was made in the writer's turn: a writer waited while two
/// hundred streams were copied for.
#[test]
fn a_compaction_copies_before_its_turn() {
    let db = in_memory();
    let mut stream = db.watch_stream().unwrap();
    let request = WatchRequest::new("a", Start::Now).batch_bytes_max(1);
    stream.watch_with(request).unwrap();
    for _ in 0..3 {
        db.put("a", "").unwrap();
    }
    let rev = db.put("b", "").unwrap();
    // It has looked, and there is more.
    assert_eq!(told(&stream.recv().unwrap()), (0, vec![2]));
    assert_eq!(db.stats().slow_watchers, 1);
    let writes = db.write().unwrap();
    let compacting = db.clone();
    let compacts = thread::spawn(move || compacting.compact(rev).map(drop).unwrap());
    let other = db.clone();
    ends("copies beside a writer", move || {
        while other.stats().slow_watchers > 0 {
            thread::yield_now();
        }
    });
    drop(writes);
    compacts.join().unwrap();
    assert_eq!(rest(&mut stream), [(0, vec![3]), (0, vec![4])]);
}

/// Who caught up with a history of which nothing was to be given read it to its end in one call, with the stream's
/// lock: a timeout passed, a task's thread was kept, and whoever cancelled or compacted waited.
#[test]
fn catching_up_gives_way() {
    let (db, woken) = (in_memory(), Arc::<Woken>::default());
    for _ in 0..150 {
        let mut txn = db.write().unwrap();
        for _ in 0..1000 {
            txn.put("a", "").unwrap();
        }
        txn.commit().unwrap();
    }
    let prefix = || revtree::KeyRange::prefix("b");
    let slow = |db: &Db| db.stats().slow_watchers;
    let mut stream = db.watch(prefix(), Start::Oldest).unwrap();
    let none = stream.recv_timeout(std::time::Duration::ZERO).unwrap();
    assert!(none.is_none());
    assert_eq!(slow(&db), 1);
    let mut polls = 0;
    while slow(&db) > 0 {
        assert!(woken.poll(&mut stream).is_none());
        polls += 1;
        assert!(woken.was_called() || slow(&db) == 0);
    }
    assert!((2..100).contains(&polls), "{polls}");
    stream.watch(prefix(), Start::Oldest).unwrap();
    assert!(stream.try_recv().unwrap().is_none());
    assert_eq!(slow(&db), 0);
}

/// Each of many ranges read the log on its own. Polls are counted, of which each is sixteen reads; and each range is
/// given what is its own, wherever it begins.
#[test]
fn many_ranges_catch_up_by_one_pass() {
    let (db, woken) = (in_memory(), Arc::<Woken>::default());
    for round in 0..20 {
        let mut txn = db.write().unwrap();
        for n in 0..1000 {
            txn.put(format!("{:03}/{round}", n % 250), "").unwrap();
        }
        txn.commit().unwrap();
    }
    let mut stream = db.watch_stream().unwrap();
    for n in 0..500 {
        let prefix = revtree::KeyRange::prefix(format!("{n:03}/"));
        let request = match n % 3 {
            0 => WatchRequest::new(prefix, Start::Oldest),
            1 => WatchRequest::new(prefix, Start::At(15.into())).prev_kv(),
            _ => WatchRequest::new(prefix, Start::Oldest).batch_bytes_max(1),
        };
        stream.watch_with(request).unwrap();
    }
    let (mut polls, mut given) = (0, vec![vec![]; 500]);
    while db.stats().slow_watchers > 0 {
        polls += 1;
        while let Some(response) = woken.poll(&mut stream) {
            let (id, revisions) = told(&response);
            given[usize::try_from(id).unwrap()].extend(revisions);
        }
    }
    for (n, given) in given.into_iter().enumerate() {
        let first = if n % 3 == 1 { 15 } else { 2 };
        let all = (first..=21).flat_map(|rev| [rev; 4]);
        let expected = Vec::from_iter(all.filter(|_| n < 250));
        assert_eq!(given, expected, "{n}");
    }
    assert!(polls < 20, "{polls}");
}

/// A stream with several topics looked anew at each step while somebody asked for progress, so those that it had read
/// became due again: while the writer went on, nobody was answered.
#[test]
fn progress_is_told_beside_a_writer_that_goes_on() {
    for asks_on in [false, true] {
        for of_all in [false, true] {
            let db = in_memory();
            let mut stream = db.watch_stream().unwrap();
            for keys in ["a".into(), "b".into(), revtree::KeyRange::all()] {
                stream.watch(keys, Start::Now).unwrap();
            }
            let (mut given, mut answers) = ([1; 3], 0);
            let mut asked = None;
            for step in 0..40 {
                db.put("a", "").unwrap();
                let rev = db.put("b", "").unwrap();
                if step == 0 || asks_on {
                    asked = asked.or(Some(rev.get()));
                    if of_all {
                        stream.request_progress_all().unwrap();
                    } else {
                        stream.request_progress(WatchId(2)).unwrap();
                    }
                }
                let response = stream.try_recv().unwrap().unwrap();
                let rev = response.revision.get();
                if let Update::Progress = response.update {
                    assert!(asked.is_some_and(|asked| asked <= rev), "at {rev}");
                    let last = if of_all {
                        given.iter().min()
                    } else {
                        given.last()
                    };
                    assert!(last.is_some_and(|last| rev <= *last), "{given:?}, {rev}");
                    answers += 1;
                } else {
                    given[usize::try_from(response.id.0).unwrap()] = rev;
                }
            }
            assert!(answers >= if asks_on { 3 } else { 1 }, "{asks_on} {of_all}");
        }
    }
}

/// Requests that had been made before and behind a look were not all answered when the store was closed.
#[test]
fn a_close_answers_all_requests() {
    let db = in_memory();
    let mut stream = db.watch("a", Start::Now).unwrap();
    for _ in 0..2 {
        stream.request_progress(WatchId(0)).unwrap();
        stream.request_progress_all().unwrap();
        // Looks.
        db.put("b", "").unwrap();
        db.compact(db.rev()).unwrap();
    }
    let rev = db.rev();
    db.close().unwrap();
    let told = stream.iter().map(|told| (told.id, told.revision));
    let (one, all) = ((WatchId(0), rev), (WatchId::ALL, rev));
    assert_eq!(Vec::from_iter(told), [one, one, all, all]);
}

/// A filter that always panics was shown its batch for ever, also when its watcher had been cancelled, and nobody of its
/// stream was given anything any more.
#[test]
fn a_filter_that_always_panics_ends_its_watcher_alone() {
    for cancels in [false, true] {
        let db = in_memory();
        let mut stream = db.watch_stream().unwrap();
        let panics = |_: &revtree::Event| std::panic::resume_unwind(Box::new("always"));
        let filter = revtree::Filter::DropIf(Arc::new(panics));
        let request = WatchRequest::new("a", Start::Now).filter(filter);
        let id = stream.watch_with(request).unwrap();
        stream.watch("a", Start::Now).unwrap();
        for _ in 0..2 {
            db.put("a", "").unwrap();
        }
        let mut panics = 0;
        let responses: Vec<_> = std::iter::from_fn(|| {
            loop {
                let caught = std::panic::AssertUnwindSafe(|| stream.try_recv().unwrap());
                if let Ok(response) = std::panic::catch_unwind(caught) {
                    return response;
                }
                panics += 1;
                if cancels {
                    stream.cancel(id).unwrap();
                }
            }
        })
        .collect();
        let (last, others) = responses.split_at(usize::from(!cancels));
        assert_eq!(panics, if cancels { 1 } else { 3 });
        for response in last {
            assert_eq!((response.id, response.revision.get()), (id, 1));
            let failed = Update::Failed(revtree::Error::FilterPanicked);
            assert_eq!(format!("{:?}", response.update), format!("{failed:?}"));
        }
        let others: Vec<_> = others.iter().map(told).collect();
        assert_eq!(others, [(1, vec![2, 3])], "{cancels}");
        db.put("a", "").unwrap();
        assert_eq!(rest(&mut stream), [(1, vec![4])]);
        let is_gone = matches!(stream.cancel(id), Err(revtree::Error::WatcherNotExist(_)));
        assert_eq!((is_gone, db.stats().watchers), (cancels, 1));
    }
}

/// Asks its stream for something when it is dropped.
struct Parting(revtree::WatchControl);

impl Wake for Parting {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Parting {
    fn drop(&mut self) {
        let _ = self.0.request_progress_all();
    }
}

/// A waker was cloned and dropped with a lock that its own code may want.
#[test]
fn a_waker_that_is_dropped_may_use_its_stream() {
    ends("replaced, and ended", || {
        let db = in_memory();
        let mut stream = db.watch("a", Start::Now).unwrap();
        let poll = |stream: &mut WatchStream| {
            let waker = Waker::from(Arc::new(Parting(stream.control())));
            let polled = Pin::new(stream).poll_next(&mut Context::from_waker(&waker));
            polled.is_pending()
        };
        assert!(poll(&mut stream));
        // It is woken, by the parting of the first, with what that has asked for.
        while poll(&mut stream) {}
        drop(stream);
    });
}

/// A watcher that had caught up joined the others of its keys before its last batch was given, began behind it from
/// then on, and lost it.
#[test]
fn who_joins_others_is_given_its_last_batch() {
    let db = in_memory();
    db.put("a", "1").unwrap();
    let mut stream = db.watch("a", Start::Now).unwrap();
    stream.watch("a", Start::Oldest).unwrap();
    assert_eq!(rest(&mut stream), [(1, vec![2])]);
    db.put("a", "2").unwrap();
    assert_eq!(rest(&mut stream), [(0, vec![3]), (1, vec![3])]);
}

/// The last response of a watcher that had ended by itself was given after its id had been cancelled, and given to
/// another, which then seemed to have ended.
#[test]
fn an_id_that_is_given_again_is_not_told_of_the_end_of_another() {
    let db = in_memory();
    let mut stream = db.watch_stream().unwrap();
    for id in [1, 2] {
        let request = WatchRequest::new("a", Start::Now).id(WatchId(id));
        stream.watch_with(request.batch_bytes_max(1)).unwrap();
    }
    for _ in 0..500 {
        db.put("a", vec![1; 16 << 10]).unwrap();
    }
    db.compact(db.rev()).unwrap();
    // More than a compaction saves: both are compacted, and one is told.
    let first = std::iter::from_fn(|| stream.try_recv().unwrap())
        .find(|response| matches!(response.update, Update::Compacted { .. }))
        .unwrap();
    let other = WatchId(3 - first.id.0);
    // It has ended too, and has not been told.
    stream.cancel(other).unwrap();
    stream
        .watch_with(WatchRequest::new("a", Start::Now).id(other))
        .unwrap();
    let rev = db.put("a", "2").unwrap();
    assert_eq!(rest(&mut stream), [(other.0, vec![rev.get()])]);
}

/// Whoever waits for a revision and has asked for progress was not woken by one that changes none of its keys.
#[test]
fn progress_of_the_future_wakes() {
    let (db, woken) = (in_memory(), Arc::<Woken>::default());
    let mut stream = db.watch("a", Start::At(Revision::new(3))).unwrap();
    stream.request_progress(WatchId(0)).unwrap();
    stream.request_progress_all().unwrap();
    db.put("b", "1").unwrap();
    assert!(woken.poll(&mut stream).is_none());
    db.put("b", "2").unwrap();
    assert!(woken.was_called());
    for id in [WatchId(0), WatchId::ALL] {
        let response = woken.poll(&mut stream).unwrap();
        assert_eq!((response.id, response.revision.get()), (id, 3));
    }
}

/// Whoever came between a commit's being accepted and its being visible was not woken for it.
#[test]
fn what_was_accepted_before_a_watcher_came_wakes_it() {
    let (db, woken) = (in_memory(), Arc::<Woken>::default());
    submit(&db, "a");
    submit(&db, "a");
    let mut stream = db.watch("a", Start::Now).unwrap();
    assert!(woken.poll(&mut stream).is_none());
    db.sync().unwrap();
    assert!(woken.was_called());
    assert_eq!(told(&woken.poll(&mut stream).unwrap()), (0, vec![2, 3]));
}

/// Two streams waited for revisions that were accepted before their watchers came. When the first became visible, all
/// that was waited for was forgotten, and only who asked for progress said it again: the other slept through its own.
#[test]
fn who_waits_for_a_later_revision_is_not_forgotten_with_an_earlier_one() {
    let stage = Stage::default();
    let hooked = {
        let stage = stage.clone();
        HookDisk::new(&SimDisk::new(SimOptions::default()), move |call| {
            if matches!(call, Call::SyncBegins) && on("first") && stage.reach(1) {
                stage.wait(2, PATIENCE);
            }
        })
    };
    let disk = Arc::new(hooked.clone());
    let db = Options::new().disk(disk).open("store").unwrap();
    let putting = db.clone();
    let first = thread::Builder::new().name("first".into());
    let first = first.spawn(move || putting.put("a", "").unwrap()).unwrap();
    stage.wait(1, PATIENCE);
    let (early, late) = (Arc::<Woken>::default(), Arc::<Woken>::default());
    let mut of_a = db.watch("a", Start::At(2.into())).unwrap();
    assert!(early.poll(&mut of_a).is_none());
    submit(&db, "b");
    let mut of_b = db.watch("b", Start::At(3.into())).unwrap();
    assert!(late.poll(&mut of_b).is_none());
    stage.reach(2);
    assert_eq!(first.join().unwrap(), Revision::new(2));
    assert!(early.was_called());
    assert_eq!(told(&early.poll(&mut of_a).unwrap()), (0, vec![2]));
    // Stirred with the others, and for nothing.
    assert!(late.poll(&mut of_b).is_none());
    late.was_called();
    db.sync().unwrap();
    assert!(late.was_called());
    assert_eq!(told(&late.poll(&mut of_b).unwrap()), (0, vec![3]));
}

/// Another store of these puts, saved.
fn saved(path: &std::path::Path, keys: &[&str]) {
    let db = in_memory();
    for key in keys {
        db.put(key, "").unwrap();
    }
    db.snapshot().unwrap().save(path).unwrap();
}

/// A watcher that was due from a revision that was accepted and not visible went on there after a restore, and
/// missed what the new content has below.
#[test]
fn a_restore_takes_back_what_was_not_visible() {
    let folder = tempfile::tempdir().unwrap();
    let (db, path) = (in_memory(), folder.path().join("other"));
    saved(&path, &["b", "a", "a"]);
    db.put("b", "1").unwrap();
    let mut stream = db.watch("a", Start::Now).unwrap();
    submit(&db, "b");
    submit(&db, "a");
    assert!(stream.try_recv().unwrap().is_none());
    db.restore(&path).unwrap();
    assert_eq!(rest(&mut stream), [(0, vec![3, 4])]);
}

/// A write right after a restore to a lower revision was taken for one of the old content: a watcher that had been
/// told of progress there, but of no event, travelled back to it.
#[test]
fn nobody_travels_back_to_a_write_behind_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    let (db, path) = (in_memory(), folder.path().join("lower"));
    saved(&path, &["b"]);
    let mut stream = db.watch("a", Start::Now).unwrap();
    for _ in 2..=5 {
        db.put("b", "1").unwrap();
    }
    stream.request_progress(WatchId(0)).unwrap();
    assert_eq!(stream.recv().unwrap().revision.get(), 5);
    db.restore(&path).unwrap();
    for _ in 3..=6 {
        db.put("a", "2").unwrap();
    }
    assert_eq!(rest(&mut stream), [(0, vec![6])]);
}

/// A stream that had been put on the writer's list for a revision was not put there for the same number in another
/// content, and slept on.
#[test]
fn the_same_revision_of_another_content_wakes() {
    let folder = tempfile::tempdir().unwrap();
    let (db, path, woken) = (
        in_memory(),
        folder.path().join("lower"),
        Arc::<Woken>::default(),
    );
    saved(&path, &[]);
    let mut stream = db.watch("a", Start::Now).unwrap();
    db.put("a", "1").unwrap();
    assert_eq!(rest(&mut stream), [(0, vec![2])]);
    db.restore(&path).unwrap();
    stream.watch("a", Start::Now).unwrap();
    assert!(woken.poll(&mut stream).is_none());
    let _ = woken.was_called();
    db.put("a", "2").unwrap();
    assert!(woken.was_called());
    assert_eq!(told(&woken.poll(&mut stream).unwrap()), (1, vec![2]));
}

/// In step, and not given yet what a compaction passes: of its own revision, too, all changes were there.
#[test]
fn a_compaction_takes_nothing_of_the_revision_that_is_due() {
    for keys in [revtree::KeyRange::single("a"), revtree::KeyRange::all()] {
        let db = in_memory();
        let mut stream = db.watch_stream().unwrap();
        let request = WatchRequest::new(keys, Start::Now).prev_kv();
        stream.watch_with(request).unwrap();
        db.put("a", "0").unwrap();
        assert!(stream.try_recv().unwrap().is_some());
        let mut txn = db.write().unwrap();
        txn.put("a", "1").unwrap();
        txn.put("a", "2").unwrap();
        let rev = txn.commit().unwrap().revision;
        db.compact(rev).unwrap();
        let Update::Events(events) = stream.try_recv().unwrap().unwrap().update else {
            panic!("no events");
        };
        let given = events.iter().map(|event| {
            let Prev::Value(prev) = &event.prev else {
                panic!("{event:?}");
            };
            (prev.value.to_vec(), event.kv.value.to_vec())
        });
        let step = |to: &str| (b"0".to_vec(), to.into());
        assert_eq!(Vec::from_iter(given), [step("1"), step("2")]);
    }
}

/// An answer for all was made, and waited behind another; then a watcher of the past came, which had not been given
/// what the answer said.
#[test]
fn an_answer_for_all_is_also_for_who_has_come_before_it_is_given() {
    let db = in_memory();
    let mut stream = db.watch("b", Start::Now).unwrap();
    for _ in 0..3 {
        db.put("a", "").unwrap();
    }
    stream.request_progress(WatchId(0)).unwrap();
    for _ in 0..2 {
        stream.request_progress_all().unwrap();
    }
    let answer = stream.try_recv().unwrap().unwrap();
    assert_eq!((answer.id, answer.revision.get()), (WatchId(0), 4));
    let late = stream.watch("a", Start::Oldest).unwrap();
    let mut ids = vec![];
    while let Some(response) = stream.try_recv().unwrap() {
        ids.push(response.id);
    }
    assert_eq!(ids, [late, WatchId::ALL, WatchId::ALL]);
}

/// One stream that waits for revisions of which no mark tells it woke all the others with each: who waits for the
/// future, who came beside a commit, and who joined others behind a restore of what is older.
#[test]
fn only_who_waits_is_woken() {
    let asleep = |db: &Db, count: u32| {
        let woken = Arc::<Woken>::default();
        let streams = (0..count).map(|_| {
            let mut stream = db.watch("nobody", Start::Now).unwrap();
            assert!(woken.poll(&mut stream).is_none());
            stream
        });
        let streams = Vec::from_iter(streams);
        assert!(!woken.was_called());
        (streams, woken)
    };
    let db = in_memory();
    let (_others, others) = asleep(&db, 20);
    let (mut stream, own) = (db.watch_stream().unwrap(), Arc::<Woken>::default());
    for first in 3..40 {
        let id = stream.watch("a", Start::At(Revision::new(first)));
        stream.request_progress(id.unwrap()).unwrap();
    }
    let mut answers = 0;
    for _ in 0..50 {
        while own.poll(&mut stream).is_some() {
            answers += 1;
        }
        db.put("b", "").unwrap();
    }
    assert_eq!(answers, 37);
    let mut watchers = vec![];
    for n in 0..50 {
        submit(&db, "b");
        watchers.push(db.watch(format!("k{n}"), Start::Now).unwrap());
        db.sync().unwrap();
    }
    assert!(!others.was_called());

    let folder = tempfile::tempdir().unwrap();
    let older = folder.path().join("older");
    in_memory().snapshot().unwrap().save(&older).unwrap();
    let db = in_memory();
    for _ in 0..1000 {
        db.put("b", "").unwrap();
    }
    let mut stream = db.watch("a", Start::Now).unwrap();
    db.restore(&older).unwrap();
    assert!(own.poll(&mut stream).is_none());
    stream.watch("a", Start::Now).unwrap();
    while own.poll(&mut stream).is_some() {}
    let (_others, others) = asleep(&db, 20);
    // By its verb.
    assert!(own.was_called());
    for _ in 0..100 {
        db.put("b", "").unwrap();
    }
    assert!(!own.was_called() && !others.was_called());
}
