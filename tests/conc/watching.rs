//! What the campaign of watchers has found, each made small.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use futures_core::Stream as _;
use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{
    Db, Options, Revision, Start, Update, WatchId, WatchRequest, WatchResponse, WatchStream,
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
        db.put("a", "1").unwrap();
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
