//! What the writer hands to a stream's receiver: topics that have become due, and a wake-up (SPEC.md, W-3).
//!
//! Apart because it is the one hand-over between threads here, and nothing else: it must not know what is read
//! for a topic, nor who watches it. Models of it are in `loom.rs`.
//!
//! # Thread safety
//! Any thread calls [`Inbox::stir`]; the holder of the append lock calls [`Inbox::mark`]; the one receiver calls
//! the rest, under its stream's lock but for [`Inbox::sleep`].
//!
//! # Invariants
//! 1. A topic's mark is 0 exactly when it is not due; whoever raises it from 0 puts it into the queue, with the
//!    revision where it becomes due. So it is there at most once, and one swap is all that a mark costs when it
//!    is due already.
//!    One that is *aside* is not marked at all, and has been put into the queue once more, so that its receiver
//!    learns of it; who has put it aside has marked it for the revision that is then stirred for.
//! 2. Who stirs has published before; who looks has cleared `stirred` before it reads what is published. Both
//!    fence in between (SeqCst, so one of the fences is first): either the look sees what was published, or
//!    the stirring sees that it has been cleared, and sets it again.
//! 3. The receiver says that it sleeps, fences, and asks whether it was stirred; who stirs says so, fences, and
//!    asks whether the receiver sleeps. One of them sees the other.

#![expect(
    clippy::disallowed_types,
    reason = "the queue is locked for one push or one look; the receiver sleeps"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use revtree_format::Revision;

use crate::sync::{
    AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, fence, lock, wait, wait_while_for,
};

/// A topic that has been due for more revisions is put aside: for a receiver that far behind it does not matter
/// which of them change its keys, and the writer pays nothing for it. At once where tests look.
const FAR_BEHIND: u32 = if cfg!(any(loom, shuttle)) {
    0
} else if cfg!(debug_assertions) {
    8
} else {
    1 << 12
};

/// A topic's part that the writer and the receiver share.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The newest revision that changed its keys and that the receiver may not have read; 0: none.
    marked: AtomicU64,
    /// The revision with which it became due, without its high bits; or [`ASIDE`].
    since: AtomicU32,
}

/// No revision: the writer does not know the topic any more.
const ASIDE: u32 = u32::MAX;

fn low_bits(rev: Revision) -> u32 {
    u32::try_from(rev.get() % u64::from(ASIDE)).expect("less than its modulus")
}

/// What a mark says of a topic's stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The stream has to be stirred when the revision is visible, and nobody has been told so before.
    pub(super) is_told: bool,
    /// The receiver is far behind, and the topic may be put aside.
    pub(super) is_far_behind: bool,
}

/// What has become due in a stream.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    /// Something may have become readable since the last look.
    stirred: AtomicBool,
    sleeping: AtomicBool,
    /// The newest revision for which the stream is on the writer's list.
    listed: AtomicU64,
    /// The lowest revision for which it is among those that wait; `u64::MAX`: none. Used with the lock of these.
    awaited: AtomicU64,
    queue: Mutex<Queue<T>>,
    woken: Condvar,
}

#[derive(Debug)]
struct Queue<T> {
    /// Topics, and where each became due.
    due: Vec<(Arc<T>, Revision)>,
    waker: Option<Waker>,
}

/// Whoever has marks.
pub(super) trait Marked {
    fn marks(&self) -> &Marks;
}

impl Marks {
    /// Makes the topic due without a queue, for who keeps it from being marked meanwhile: `up_to` may have
    /// changed its keys.
    pub(super) fn begin(&self, up_to: Revision) {
        self.since.store(low_bits(up_to), Ordering::Relaxed);
        self.marked.store(up_to.get().max(1), Ordering::Release);
    }

    /// Whatever is there at or below `rev` is to be read, marked or not; the receiver has the topic already.
    pub(super) fn raise(&self, rev: Revision) {
        self.marked.fetch_max(rev.get().max(1), Ordering::AcqRel);
    }

    /// Whether the writer does not mark the topic any more: known to who sees the revision up to which it did.
    pub(super) fn is_aside(&self) -> bool {
        // Relaxed: what is visible, and the queue, order it.
        self.since.load(Ordering::Relaxed) == ASIDE
    }

    /// As it was before it was marked, for who has read all that is visible and puts it where the writer finds it.
    pub(super) fn renew(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.marked.store(0, Ordering::Release);
    }

    /// The receiver has read up to `rev`: whether the topic is not due any more.
    pub(super) fn settle(&self, rev: Revision) -> bool {
        let marked = self.marked.load(Ordering::Acquire);
        // AcqRel: what is marked from now on is pushed, behind us.
        marked <= rev.get()
            && self
                .marked
                .compare_exchange(marked, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

impl<T> Inbox<T> {
    /// Waits for this revision too; `true`: it has not waited for as low a one.
    pub(super) fn waits_less(&self, rev: Revision) -> bool {
        self.awaited.fetch_min(rev.get(), Ordering::Relaxed) > rev.get()
    }

    /// Whether this is the lowest that it waits for.
    pub(super) fn waits_for(&self, rev: Revision) -> bool {
        self.awaited.load(Ordering::Relaxed) == rev.get()
    }

    /// The revision is visible; `true`: it was the lowest that it waited for.
    pub(super) fn waits_no_more(&self, rev: Revision) -> bool {
        let waits = self.waits_for(rev);
        if waits {
            self.awaited.store(u64::MAX, Ordering::Relaxed);
        }
        waits
    }

    pub(super) fn new() -> Inbox<T> {
        Inbox {
            stirred: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            listed: AtomicU64::new(0),
            awaited: AtomicU64::new(u64::MAX),
            queue: Mutex::new(Queue {
                due: Vec::new(),
                waker: None,
            }),
            woken: Condvar::new(),
        }
    }
}

impl<T: Marked> Inbox<T> {
    /// A key of `topic` changes at `rev`, which is not visible yet.
    pub(super) fn mark(&self, topic: &Arc<T>, rev: Revision) -> Mark {
        let marks = topic.marks();
        let is_new = marks.marked.swap(rev.get(), Ordering::AcqRel) == 0;
        if is_new {
            marks.since.store(low_bits(rev), Ordering::Relaxed);
            lock(&self.queue).due.push((Arc::clone(topic), rev));
        }
        let since = marks.since.load(Ordering::Relaxed);
        // Not at once: nobody else marks meanwhile.
        let is_listed = self.listed.load(Ordering::Relaxed) == rev.get();
        if !is_listed {
            self.listed.store(rev.get(), Ordering::Relaxed);
        }
        Mark {
            is_told: !is_listed,
            is_far_behind: !is_new && low_bits(rev).wrapping_sub(since) > FAR_BEHIND,
        }
    }

    /// The caller marks the topic no more, behind `rev` that it has marked it for.
    pub(super) fn put_aside(&self, topic: &Arc<T>, rev: Revision) {
        topic.marks().since.store(ASIDE, Ordering::Relaxed);
        lock(&self.queue).due.push((Arc::clone(topic), rev));
    }

    /// Another content is in place, and nobody writes to it yet: its revisions are others, though they may be
    /// numbered as those before.
    pub(super) fn unlist(&self) {
        // Relaxed: the writer's turn orders it with the marks.
        self.listed.store(0, Ordering::Relaxed);
    }

    /// Something has become readable: wakes the receiver if it sleeps.
    pub(super) fn stir(&self) {
        // Behind what has become readable (invariant 2).
        fence(Ordering::SeqCst);
        self.stir_fenced();
    }

    /// As [`Inbox::stir`], for who has fenced already: for several streams once.
    pub(super) fn stir_fenced(&self) {
        if !self.stirred.load(Ordering::Relaxed) {
            self.stirred.store(true, Ordering::Relaxed);
            // Before the question (invariant 3).
            fence(Ordering::SeqCst);
        }
        if self.sleeping.load(Ordering::Relaxed) {
            let mut queue = lock(&self.queue);
            self.sleeping.store(false, Ordering::Relaxed);
            let waker = queue.waker.take();
            self.woken.notify_all();
            drop(queue);
            if let Some(waker) = waker {
                // It is its task's code, and a panic of it must not end a commit.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            }
        }
    }

    /// As [`Inbox::stir`] by who holds the stream's lock, and stirs once it is given back: a waker is the user's code,
    /// and may want the lock.
    pub(super) fn stir_later(&self) {
        self.stirred.store(true, Ordering::Relaxed);
    }

    /// Looks: gives what `read` finds readable, and takes the topics that have become due, and where.
    ///
    /// In this order: what is readable has been marked before, so its topics are taken, or were before (W-3).
    pub(super) fn look<R>(&self, due: &mut Vec<(Arc<T>, Revision)>, read: impl FnOnce() -> R) -> R {
        self.stirred.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let readable = read();
        let mut queue = lock(&self.queue);
        if due.is_empty() {
            // So what has grown is the receiver's, to be given back.
            std::mem::swap(due, &mut queue.due);
        } else {
            due.append(&mut queue.due);
        }
        drop(queue);
        readable
    }

    /// Whether something may have become readable since the last look.
    pub(super) fn is_stirred(&self) -> bool {
        self.stirred.load(Ordering::Relaxed)
    }

    /// Sleeps until something may have become readable, or for so long.
    pub(super) fn sleep(&self, time: Option<Duration>) {
        let mut queue = lock(&self.queue);
        // Said again before each wait: whoever stirs takes it back, and a verb may look before we do.
        let goes_on = || {
            self.sleeping.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            !self.is_stirred()
        };
        match time {
            Some(time) => queue = wait_while_for(&self.woken, queue, time, |_| goes_on()),
            None => {
                while goes_on() {
                    queue = wait(&self.woken, queue);
                }
            }
        }
        self.sleeping.store(false, Ordering::Relaxed);
        drop(queue);
    }

    /// Leaves a waker to be called when something may have become readable; `false`: it may have already.
    pub(super) fn leave_waker(&self, waker: &Waker) -> bool {
        let is_left = |left: &Waker| left.will_wake(waker);
        let is_left = lock(&self.queue).waker.as_ref().is_some_and(is_left);
        if !is_left {
            // Cloned and dropped without the lock: both are the user's code. Nobody else leaves one meanwhile.
            let new = waker.clone();
            let old = lock(&self.queue).waker.replace(new);
            drop(old);
        }
        // Whoever takes the waker in between has stirred, and wakes with it.
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.is_stirred()
    }

    /// The stream has ended: its waker is dropped here, and not with the last topic that somebody holds.
    pub(super) fn forget_waker(&self) {
        let waker = lock(&self.queue).waker.take();
        drop(waker);
    }
}
