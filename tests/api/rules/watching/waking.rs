//! Receivers that sleep, and tasks: who is woken, by what, and how often.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;
use revtree::{Db, Start, Update, WatchResponse, WatchStream};

use super::super::{memory, waiting};
use super::revisions;

/// Counts how often its task is woken.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counted {
    fn taken(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

fn poll(stream: &mut WatchStream, waker: &Arc<Counted>) -> Poll<Option<WatchResponse>> {
    let waker = Waker::from(Arc::clone(waker));
    Pin::new(stream).poll_next(&mut Context::from_waker(&waker))
}

#[track_caller]
fn ready(polled: Poll<Option<WatchResponse>>) -> WatchResponse {
    match polled {
        Poll::Ready(Some(response)) => response,
        other => panic!("{other:?}"),
    }
}

/// A task that found nothing is woken by a change that it watches, once, and not by others; by a verb that
/// leaves it something; and by the end.
#[test]
fn a_task_is_woken() {
    let db = memory();
    let mut stream = db.watch("a", Start::Now).unwrap();
    let control = stream.control();
    let task = Arc::new(Counted::default());
    assert!(poll(&mut stream, &task).is_pending());
    task.taken();
    db.put("b", "1").unwrap();
    assert_eq!(task.taken(), 0);
    db.put("a", "1").unwrap();
    db.put("a", "2").unwrap();
    assert_eq!(task.taken(), 1);
    assert_eq!(revisions([&ready(poll(&mut stream, &task))]), [3, 4]);
    // It has not been told that there is nothing: nobody wakes it.
    db.put("a", "3").unwrap();
    assert_eq!(task.taken(), 0);
    assert_eq!(revisions([&ready(poll(&mut stream, &task))]), [5]);
    assert!(poll(&mut stream, &task).is_pending());
    control.request_progress_all().unwrap();
    assert_eq!(task.taken(), 1);
    assert!(matches!(
        ready(poll(&mut stream, &task)).update,
        Update::Progress
    ));
    assert!(poll(&mut stream, &task).is_pending());
    db.close().unwrap();
    assert_eq!(task.taken(), 1);
    for _ in 0..2 {
        assert!(matches!(poll(&mut stream, &task), Poll::Ready(None)));
    }
}

/// The waker of the last poll is the one that counts.
#[test]
fn a_task_may_move() {
    let db = memory();
    let mut stream = db.watch("a", Start::Now).unwrap();
    let (first, second) = (Arc::new(Counted::default()), Arc::new(Counted::default()));
    assert!(poll(&mut stream, &first).is_pending());
    assert!(poll(&mut stream, &second).is_pending());
    db.put("a", "1").unwrap();
    assert_eq!((first.taken(), second.taken()), (0, 1));
    assert_eq!(revisions([&ready(poll(&mut stream, &first))]), [2]);
}

/// A waker that panics ends no commit.
#[test]
fn a_waker_that_panics() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("in a waker");
        }
    }
    let db = memory();
    let mut stream = db.watch("a", Start::Now).unwrap();
    let waker = Waker::from(Arc::new(Panics));
    let polled = Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    assert_eq!(db.put("a", "1").unwrap().get(), 2);
    assert_eq!(revisions([&stream.recv().unwrap()]), [2]);
    assert_eq!(db.put("a", "2").unwrap().get(), 3);
}

/// A thread that sleeps is woken by a change that it watches, each time, and by a watcher that is added for it.
#[test]
fn a_thread_is_woken() {
    let db = memory();
    let mut stream = db.watch("a", Start::Now).unwrap();
    let control = stream.control();
    for rev in 2..10 {
        std::thread::scope(|scope| {
            let receiver = waiting(scope, || stream.recv().unwrap());
            db.put("a", "1").unwrap();
            assert_eq!(revisions([&receiver.join().unwrap()]), [rev]);
        });
    }
    std::thread::scope(|scope| {
        let receiver = waiting(scope, || stream.recv().unwrap());
        let id = control.watch("a", Start::At(9.into())).unwrap();
        let response = receiver.join().unwrap();
        assert_eq!((response.id, revisions([&response])), (id, vec![9]));
    });
}

/// Follows the key to the end of the store.
async fn follow(
    mut stream: WatchStream,
    mut next: impl AsyncFnMut(&mut WatchStream) -> Option<WatchResponse>,
) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(response) = next(&mut stream).await {
        found.extend(revisions([&response]));
    }
    found
}

fn put_and_close(db: Db, puts: u64) {
    for _ in 0..puts {
        db.put("a", "1").unwrap();
    }
    db.close().unwrap();
}

/// Tasks on a runtime of several threads are given everything while another thread writes; an end of the
/// store ends them.
#[test]
fn tasks_on_tokio() {
    use futures_util::StreamExt;

    const PUTS: u64 = 2000;
    let db = memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let stream = db.watch("a", Start::Now).unwrap();
            runtime.spawn(follow(stream, async |stream| stream.next().await))
        })
        .collect();
    put_and_close(db, PUTS);
    let found = runtime.block_on(async {
        let mut found = Vec::new();
        for task in tasks {
            let ended = tokio::time::timeout(std::time::Duration::from_secs(60), task).await;
            found.push(ended.expect("a task was not woken").unwrap());
        }
        found
    });
    for found in found {
        assert!(
            found == Vec::from_iter(2..=PUTS + 1),
            "{} of {PUTS}",
            found.len()
        );
    }
}

/// The same on another runtime, with the executor's own way to ask for what is next.
#[test]
fn tasks_on_smol() {
    use smol::stream::StreamExt;

    const PUTS: u64 = 2000;
    let db = memory();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let stream = db.watch("a", Start::Now).unwrap();
            smol::spawn(follow(stream, async |stream| stream.next().await))
        })
        .collect();
    put_and_close(db, PUTS);
    for task in tasks {
        let found = smol::block_on(task);
        assert!(
            found == Vec::from_iter(2..=PUTS + 1),
            "{} of {PUTS}",
            found.len()
        );
    }
}
