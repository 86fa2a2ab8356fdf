//! etcd's `watch_delay_test.go`: beside a writer at full speed, events and progress come soon.
//!
//! etcd's limits are its own; what is shown is that nobody is left behind while the writer goes on, so the
//! bound here is one that only a receiver who was left behind exceeds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use revtree::{Db, KeyRange, Start, Update, WatchId, WatchStream};

use crate::support::memory;

/// How long the writer goes on, and how long a receiver may need.
const LOAD: Duration = Duration::from_millis(300);
const BOUND: Duration = Duration::from_secs(10);

/// Runs `receive` beside a writer that goes on until it has ended.
fn beside_a_writer(db: &Db, receive: impl FnOnce()) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0u64;
            while !ended.load(Ordering::Relaxed) {
                db.put(format!("key/{:02}", n % 64), vec![b'v'; 512])
                    .unwrap();
                n += 1;
            }
        });
        receive();
        ended.store(true, Ordering::Relaxed);
    });
}

fn recv(stream: &mut WatchStream) -> revtree::WatchResponse {
    let response = stream.recv_timeout(BOUND).unwrap();
    response.expect("nothing came in time")
}

/// TestWatchDelayForManualProgressNotification: each request of progress is answered while the writer writes.
#[test]
fn manual_progress_notification() {
    let db = memory();
    beside_a_writer(&db, || {
        let mut stream = db.watch(KeyRange::prefix("key/"), Start::Oldest).unwrap();
        let end = Instant::now() + LOAD;
        while Instant::now() < end {
            let asked = db.rev();
            stream.request_progress_all().unwrap();
            let answered = loop {
                let response = recv(&mut stream);
                if response.id == WatchId::ALL {
                    break response;
                }
            };
            assert!(matches!(answered.update, Update::Progress));
            assert!(answered.revision >= asked);
        }
    });
}

/// TestWatchDelayForEvent: a change is given to its watcher soon, whatever else is written.
#[test]
fn for_event() {
    let db = memory();
    beside_a_writer(&db, || {
        let mut stream = db.watch("mine", Start::Now).unwrap();
        let end = Instant::now() + LOAD;
        while Instant::now() < end {
            let rev = db.put("mine", "v").unwrap();
            let response = recv(&mut stream);
            let Update::Events(events) = response.update else {
                panic!("no event")
            };
            assert_eq!(
                (events.len(), events.iter().next().unwrap().id.main),
                (1, rev)
            );
        }
    });
}

/// TestWatchDelayOnStreamMultiplex: the same where the stream has watchers who are given everything.
#[test]
fn on_stream_multiplex() {
    let db = memory();
    beside_a_writer(&db, || {
        let mut stream = db.watch_stream().unwrap();
        for _ in 0..10 {
            stream
                .watch(KeyRange::prefix("key/"), Start::Oldest)
                .unwrap();
        }
        let mine = stream.watch("mine", Start::Now).unwrap();
        let end = Instant::now() + LOAD;
        while Instant::now() < end {
            let rev = db.put("mine", "v").unwrap();
            let since = Instant::now();
            let response = loop {
                let response = recv(&mut stream);
                if response.id == mine {
                    break response;
                }
                assert!(since.elapsed() < BOUND, "it was left behind");
            };
            assert!(response.revision >= rev);
        }
    });
}
