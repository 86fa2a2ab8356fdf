//! Models of the hand-over from the writer to a receiver, explored by loom. A wake-up that is lost is a deadlock
//! there, a change that is missed an assertion.

use std::sync::Arc;

use revtree_format::Revision;

use super::due::Due;
use super::inbox::{Inbox, Marked, Marks};
use crate::sync::{AtomicU64, Mutex, Ordering, lock, model, thread};

#[derive(Default)]
struct Topic(Marks);

impl Marked for Topic {
    fn marks(&self) -> &Marks {
        &self.0
    }
}

/// A stream with one topic, over a store that is only its visible revision.
struct Stream {
    inbox: Inbox<Topic>,
    topic: Arc<Topic>,
    visible: AtomicU64,
    receiver: Mutex<Receiver>,
}

/// What the stream's lock guards: where the topic is read next, and what has been read.
struct Receiver {
    cursor: u64,
    is_due: bool,
    read: Vec<u64>,
}

impl Stream {
    fn new() -> Arc<Stream> {
        Arc::new(Stream {
            inbox: Inbox::new(),
            topic: Arc::new(Topic::default()),
            visible: AtomicU64::new(1),
            receiver: Mutex::new(Receiver {
                cursor: 2,
                is_due: false,
                read: Vec::new(),
            }),
        })
    }

    /// A commit of a store whose commits are visible at once.
    fn commit(&self, rev: u64) {
        self.inbox.mark(&self.topic, Revision::new(rev));
        self.visible.fetch_max(rev, Ordering::AcqRel);
        self.inbox.stir();
    }

    /// As `State::open_store` and `State::read`: every revision changes the topic's key.
    fn look(&self) {
        self.look_and(|_| false);
    }

    /// The same; where a topic has been read as far as it is visible and `join` does not put it back into the
    /// writer's table, it settles.
    fn look_and(&self, join: impl FnOnce(&mut Receiver) -> bool) {
        let mut receiver = lock(&self.receiver);
        let mut due = Vec::new();
        let visible = self
            .inbox
            .look(&mut due, || self.visible.load(Ordering::Acquire));
        for (_, first) in due {
            if !receiver.is_due {
                receiver.cursor = receiver.cursor.max(first.get());
                receiver.is_due = true;
            }
        }
        if receiver.is_due {
            let read = receiver.cursor..=visible;
            receiver.cursor = receiver.cursor.max(visible + 1);
            receiver.read.extend(read);
            if !join(&mut receiver) {
                receiver.is_due = !self.topic.0.settle(Revision::new(visible));
            }
        }
        // Who asks for progress is answered by this (W-8).
        let read = receiver.read.last().copied().unwrap_or(1);
        assert!(
            receiver.is_due || read >= visible,
            "{visible} is visible, and not due"
        );
    }

    /// A commit of a store whose writer keeps a table: `is_in` is the append lock, and says whether the topic is
    /// in the table. As `Announcer::mark`.
    fn commit_to(&self, is_in: &Mutex<bool>, rev: u64) {
        let mut is_in = lock(is_in);
        let is_told = *is_in;
        if *is_in {
            let rev = Revision::new(rev);
            if self.inbox.mark(&self.topic, rev).is_far_behind {
                self.inbox.put_aside(&self.topic, rev);
                *is_in = false;
            }
        }
        self.visible.fetch_max(rev, Ordering::AcqRel);
        drop(is_in);
        if is_told {
            self.inbox.stir();
        }
    }

    /// As `State::join` of a topic that has been put aside.
    fn join(&self, is_in: &Mutex<bool>, receiver: &mut Receiver) -> bool {
        if !self.topic.0.is_aside() {
            return false;
        }
        self.topic.0.renew();
        let mut is_in = lock(is_in);
        let accepted = self.visible.load(Ordering::Acquire);
        receiver.is_due = accepted >= receiver.cursor;
        if receiver.is_due {
            self.topic.0.begin(Revision::new(accepted));
        }
        *is_in = true;
        drop(is_in);
        if receiver.is_due {
            self.inbox.stir();
        }
        true
    }

    /// A thread that receives up to `last`.
    fn receive(self: &Arc<Stream>, last: u64) -> thread::JoinHandle<()> {
        let stream = Arc::clone(self);
        thread::spawn(move || {
            loop {
                stream.look();
                if lock(&stream.receiver).read.last() == Some(&last) {
                    return;
                }
                stream.inbox.sleep(None);
            }
        })
    }

    fn check(&self, last: u64) {
        let receiver = lock(&self.receiver);
        assert_eq!(receiver.read, (2..=last).collect::<Vec<_>>());
    }
}

/// Two commits while a receiver goes to sleep and wakes: each is read once, and no wake-up is lost.
#[test]
fn a_receiver_is_woken_for_each_commit() {
    model(3, || {
        let stream = Stream::new();
        let receiver = stream.receive(3);
        stream.commit(2);
        stream.commit(3);
        receiver.join().expect("no assertion in it");
        stream.check(3);
    });
}

/// Another thread's verb looks in between, which takes the stirring away from the receiver that sleeps: it gives
/// it back.
#[test]
fn a_verb_does_not_take_a_wake_up_away() {
    model(2, || {
        let stream = Stream::new();
        let receiver = stream.receive(2);
        let verb = {
            let stream = Arc::clone(&stream);
            thread::spawn(move || {
                stream.look();
                stream.inbox.stir();
            })
        };
        stream.commit(2);
        verb.join().expect("no assertion in it");
        receiver.join().expect("no assertion in it");
        stream.check(2);
    });
}

/// A commit that is not visible when it is accepted: the writer lists the stream, another thread publishes.
/// Whichever comes first, the receiver is woken when the revision is visible, and reads nothing before.
#[test]
fn a_commit_that_is_published_later_wakes() {
    model(3, || {
        let stream = Stream::new();
        let due = Arc::new(Due::new());
        let accepted = Arc::new(AtomicU64::new(1));
        let receiver = stream.receive(2);
        let publisher = {
            let (stream, due, accepted) =
                (Arc::clone(&stream), Arc::clone(&due), Arc::clone(&accepted));
            thread::spawn(move || {
                let rev = accepted.load(Ordering::Acquire);
                stream.visible.fetch_max(rev, Ordering::AcqRel);
                due.take(Revision::new(rev))
                    .iter()
                    .for_each(|_| stream.inbox.stir());
                rev
            })
        };
        stream.inbox.mark(&stream.topic, Revision::new(2));
        accepted.store(2, Ordering::Release);
        let visible = || Revision::new(stream.visible.load(Ordering::Acquire));
        let listed = due.list(Revision::new(2), std::iter::once(()), visible);
        listed.iter().for_each(|_| stream.inbox.stir());
        if publisher.join().expect("no assertion in it") == 1 {
            // It came before the commit: the next sync publishes it.
            stream.visible.fetch_max(2, Ordering::AcqRel);
            due.take(Revision::new(2))
                .iter()
                .for_each(|_| stream.inbox.stir());
        }
        receiver.join().expect("no assertion in it");
        stream.check(2);
    });
}

/// A topic is put aside, since it is due for longer than its receiver needs, and joins again: whatever is committed
/// before, between and behind that is read once.
#[test]
fn a_topic_that_is_put_aside_misses_nothing() {
    model(2, || {
        let stream = Stream::new();
        let is_in = Arc::new(Mutex::new(true));
        let receiver = {
            let (stream, is_in) = (Arc::clone(&stream), Arc::clone(&is_in));
            thread::spawn(move || {
                loop {
                    stream.look_and(|receiver| stream.join(&is_in, receiver));
                    if lock(&stream.receiver).read.last() == Some(&4) {
                        return;
                    }
                    stream.inbox.sleep(None);
                }
            })
        };
        for rev in 2..=4 {
            stream.commit_to(&is_in, rev);
        }
        receiver.join().expect("no assertion in it");
        stream.check(4);
    });
}
