//! The cleaner's thread: when it cleans, and how fast (SPEC.md, K-12).
//!
//! It sleeps until a compaction wakes it, and does what is worth doing in rounds of a bounded size. What it cannot do
//! yet, since a view or another process holds it back or the disk is full, it looks at again after a while. It
//! knows the store weakly while it sleeps, so it never keeps one open.
//!
//! How fast is told in bytes, which it reads and then sleeps for: no clock is asked.

#![expect(
    clippy::disallowed_types,
    reason = "the thread sleeps, and whoever wakes or ends it tells it so"
)]

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use revtree_format::Revision;

use super::cleaner::Cleaning;
use super::store::Store;
use crate::engine::{Round, lock};
use crate::error::{Error, Result};
use crate::options::CleanerOptions;
use crate::sync::thread::{self, JoinHandle, ThreadId};
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, Ordering, wait, wait_while_for};
use crate::trace;

/// The thread of a store, if it has one.
#[derive(Debug)]
pub(super) struct PacedCleaner {
    options: CleanerOptions,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

/// How far the thread is, for who waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Passes(Arc<Shared>);

impl Passes {
    /// Waits until the thread has done all that it could for the compaction at a revision; `false`: it has ended
    /// before, or it is the thread that asks.
    pub(crate) fn wait_for(&self, rev: Revision) -> bool {
        let mut state = lock(&self.0.state);
        let is_it = state.thread == Some(thread::current().id());
        while state.passed < Some(rev) && !state.ended && !is_it {
            state = wait(&self.0.passed, state);
        }
        state.passed >= Some(rev)
    }

    /// Bytes that this pass has cleaned, and those of which it is known that they are to be; `None` when it has passed
    /// the compaction at a revision.
    pub(crate) fn progress(&self, rev: Revision) -> Option<(u64, u64)> {
        let state = lock(&self.0.state);
        let is_over = state.passed >= Some(rev) || state.ended;
        (!is_over).then_some((state.done_bytes, state.all_bytes.max(state.done_bytes)))
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// With so many bytes of log commits begin to wait, while something is to be cleaned.
    limit: Limit,
    /// One is waiting.
    is_waited_for: AtomicBool,
    /// Told when commits may go on.
    caught_up: Condvar,
    /// Told when a pass is over.
    passed: Condvar,
}

/// So many bytes of log, or none.
#[derive(Debug)]
struct Limit(AtomicU64);

impl Default for Limit {
    fn default() -> Limit {
        Limit(AtomicU64::new(u64::MAX))
    }
}

impl Limit {
    fn set(&self, bytes: Option<u64>) {
        self.0.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed) < u64::MAX
    }

    fn is_reached(&self, bytes: u64) -> bool {
        bytes >= self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct State {
    due: bool,
    /// The policy of retention is to be asked.
    asks: bool,
    ended: bool,
    thread: Option<ThreadId>,
    /// The compact revision with which the last pass began.
    passed: Option<Revision>,
    /// Bytes of this pass: cleaned, and in all.
    done_bytes: u64,
    all_bytes: u64,
}

impl PacedCleaner {
    pub(super) fn new(options: CleanerOptions) -> PacedCleaner {
        PacedCleaner {
            options,
            thread: Mutex::default(),
            shared: Arc::default(),
        }
    }

    /// Makes the thread when it is missing; without one nothing is cleaned, and nothing is lost.
    pub(super) fn begin(&self, store: &Arc<Store>) {
        let mut thread = lock(&self.thread);
        // `end` says so before it takes the lock, so it ends whatever is made here.
        if thread.is_none() && !lock(&self.shared.state).ended {
            let (options, shared) = (self.options, Arc::clone(&self.shared));
            let store = Arc::downgrade(store);
            let made = thread::Builder::new().name("revtree-clean".into());
            *thread = made.spawn(move || run(&store, options, &shared)).ok();
        }
    }

    /// Something may be dead that was not.
    pub(super) fn wake(&self, store: &Arc<Store>) {
        self.begin(store);
        // Nobody waits for what nobody does.
        if let Some(thread) = &*lock(&self.thread) {
            lock(&self.shared.state).due = true;
            self.shared.wake.notify_all();
            // It may wait for the writer's turn, whose holder may wait for this pass.
            thread.thread().unpark();
        }
    }

    /// The policy of retention is to be asked. Without a thread nobody does.
    pub(super) fn ask(&self) {
        lock(&self.shared.state).asks = true;
        self.shared.wake.notify_all();
    }

    /// How far the thread is; `None`: there is none, and nothing to wait for.
    pub(super) fn passes(&self) -> Option<Passes> {
        let has_thread = lock(&self.thread).is_some();
        has_thread.then(|| Passes(Arc::clone(&self.shared)))
    }

    /// Whether so many dead bytes among those of the segments in use are worth its while.
    pub(super) fn is_worth(&self, bytes: (u64, u64), segment_bytes: u64) -> bool {
        is_worth(self.options, bytes, segment_bytes)
    }

    /// Waits, but not for long, where garbage comes faster than it can be cleaned (K-12). `appended`: bytes of log
    /// until now. `waits` is called before.
    pub(super) fn wait_for_it(&self, appended: impl FnOnce() -> u64, waits: impl FnOnce()) {
        let shared = &*self.shared;
        if !shared.limit.is_there() {
            return;
        }
        let appended = appended();
        if !shared.limit.is_reached(appended) {
            return;
        }
        waits();
        let is_behind = |state: &mut State| shared.limit.is_reached(appended) && !state.ended;
        let state = lock(&shared.state);
        shared.is_waited_for.store(true, Ordering::Relaxed);
        shared.wake.notify_all();
        let _state = wait_while_for(&shared.caught_up, state, WAIT_MAX, is_behind);
    }

    /// Ends the thread and waits for it; none is made any more.
    pub(super) fn end(&self) {
        lock(&self.shared.state).ended = true;
        self.shared.wake.notify_all();
        self.shared.caught_up.notify_all();
        self.shared.passed.notify_all();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // The last handle of a store can be dropped by this very thread.
            if thread.thread().id() != thread::current().id() {
                // It may wait for the writer's turn, which may be ours.
                thread.thread().unpark();
                let _ = thread.join();
            }
        }
    }
}

impl Drop for PacedCleaner {
    fn drop(&mut self) {
        self.end();
    }
}

/// What there is to do.
struct Due {
    cleans: bool,
    /// The policy of retention is to be asked.
    asks: bool,
}

/// What of the work is left.
enum Left {
    Nothing,
    /// What views, another process or a full disk hold back.
    Later,
}

/// How long what is held back is left alone: at first, and at most.
const LATER_MIN: Duration = Duration::from_millis(50);
const LATER_MAX: Duration = Duration::from_secs(2);

fn run(store: &Weak<Store>, options: CleanerOptions, shared: &Shared) {
    let mut work = Work {
        pace: Pace {
            bytes_per_second: options.bytes_per_second,
            unpaid_bytes: AtomicU64::new(0),
            hurries_at: AtomicU64::new(u64::MAX),
            shared,
        },
        options,
        damaged: HashSet::new(),
        futile_bytes: None,
    };
    lock(&shared.state).thread = Some(thread::current().id());
    let mut again: Option<Duration> = None;
    // Where history is to end by the policy that was asked last.
    let mut target: Option<Revision> = None;
    while let Some(due) = shared.sleep(&mut again, target.is_some()) {
        let Some(store) = store.upgrade() else {
            return;
        };
        if due.asks {
            target = store.retention_target();
        }
        if !due.cleans {
            if let Some(rev) = target.take() {
                let wanted = || !shared.is_wanted();
                // A panic under one of the engine's locks has poisoned the store.
                match catch_unwind(AssertUnwindSafe(|| store.retain(rev, wanted))) {
                    Ok(Ok(true)) | Err(_) => {}
                    // First what it is wanted for.
                    Ok(Ok(false)) => target = Some(rev),
                    Ok(Err(_error)) => {
                        trace::event!(WARN, error = %_error, "history not given up");
                    }
                }
            }
            continue;
        }
        let compact = store.engine.compact_rev();
        // A panic under the checkpoint lock has poisoned the store; any other has lost a copy that nothing names.
        let left = catch_unwind(AssertUnwindSafe(|| work.clean(&store)));
        // Whatever is left, nothing is gained by waiting for it.
        shared.set_limit(None);
        if !store.engine.is_retired() {
            shared.has_passed(compact);
        }
        again = match left {
            Ok(Ok(Left::Nothing)) => None,
            Ok(Ok(Left::Later)) => Some(again.map_or(LATER_MIN, |time| (time * 2).min(LATER_MAX))),
            Ok(Err(_error)) => {
                trace::event!(WARN, error = %_error, "cleaning given up");
                None
            }
            Err(_panic) => None,
        };
    }
}

impl Shared {
    /// A pass is over that began with this compact revision. A failed one is, too: the next compaction tries again.
    fn has_passed(&self, compact: Option<Revision>) {
        let mut state = lock(&self.state);
        state.passed = state.passed.max(compact);
        (state.done_bytes, state.all_bytes) = (0, 0);
        drop(state);
        self.passed.notify_all();
    }

    /// So many bytes have been cleaned, and so many are dead.
    fn has_cleaned(&self, bytes: u64, dead: u64) {
        let mut state = lock(&self.state);
        state.done_bytes += bytes;
        state.all_bytes = state.done_bytes + dead;
    }

    /// Lets the log grow so far; `None`: as far as it will. Whoever waits looks again.
    fn set_limit(&self, bytes: Option<u64>) {
        let state = lock(&self.state);
        self.limit.set(bytes);
        self.is_waited_for.store(false, Ordering::Relaxed);
        drop(state);
        self.caught_up.notify_all();
    }

    /// Whether there is something to clean, or the thread is to end.
    fn is_wanted(&self) -> bool {
        let state = lock(&self.state);
        state.due || state.ended
    }

    /// Waits until there is something to do, or `again` is over; `None` when the thread is to end. `has_target`: there
    /// is something to do in any case.
    fn sleep(&self, again: &mut Option<Duration>, has_target: bool) -> Option<Due> {
        let mut state = lock(&self.state);
        let idle = |state: &mut State| !state.due && !state.asks && !state.ended && !has_target;
        let was_idle = idle(&mut state);
        if let Some(time) = *again {
            state = wait_while_for(&self.wake, state, time, idle);
        } else {
            while idle(&mut state) {
                state = wait(&self.wake, state);
            }
        }
        let asks = std::mem::take(&mut state.asks);
        let is_over = was_idle && again.is_some() && !asks && !state.due;
        let is_due = std::mem::take(&mut state.due);
        if is_due {
            *again = None;
        }
        let due = Due {
            cleans: is_due || is_over,
            asks,
        };
        (!state.ended).then_some(due)
    }
}

/// How fast records are read.
struct Pace<'s> {
    bytes_per_second: u64,
    /// Bytes that have been read and not slept for.
    unpaid_bytes: AtomicU64,
    /// With so many bytes of log it does not sleep any more.
    hurries_at: AtomicU64,
    shared: &'s Shared,
}

/// Bytes of records that are read between two sleeps.
const BYTES_A_SLEEP: u64 = 256 << 10;

impl Pace<'_> {
    /// The log has `appended` bytes, and may grow by `room`: who is a quarter of the way there does not sleep.
    fn set_limit(&self, appended: u64, room: u64) {
        self.hurries_at
            .store(appended + room / 4, Ordering::Relaxed);
        self.shared.set_limit(Some(appended + room));
    }

    /// So many bytes have been read; `false` when the thread is to end. `appended`: bytes of log until now.
    fn goes_on(&self, bytes: u64, appended: &dyn Fn() -> u64) -> bool {
        let unpaid = self.unpaid_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unpaid < BYTES_A_SLEEP {
            return true;
        }
        self.unpaid_bytes.store(0, Ordering::Relaxed);
        let hurries = appended() >= self.hurries_at.load(Ordering::Relaxed);
        let mut state = lock(&self.shared.state);
        if !hurries {
            let time = Duration::from_micros(unpaid * 1_000_000 / self.bytes_per_second);
            let nobody_waits = |state: &mut State| {
                let is_waited_for = self.shared.is_waited_for.load(Ordering::Relaxed);
                !state.ended && !is_waited_for
            };
            state = wait_while_for(&self.shared.wake, state, time, nobody_waits);
        }
        !state.ended
    }
}

/// What the thread knows from one time to the next.
struct Work<'s> {
    options: CleanerOptions,
    pace: Pace<'s>,
    /// Segments that are left alone for the damage in them, by unit and use.
    damaged: HashSet<(u32, u64)>,
    /// So many bytes were dead when nothing was to be gained by a round.
    futile_bytes: Option<u64>,
}

impl Work<'_> {
    /// Cleans until nothing is worth it.
    fn clean(&mut self, store: &Arc<Store>) -> Result<Left> {
        let engine = &store.engine;
        let segment_bytes = engine.medium.geometry.segment_bytes();
        let mut copied_bytes_max = ROUND_SEGMENTS * segment_bytes;
        let Work {
            options,
            pace,
            damaged,
            futile_bytes,
        } = self;
        let shared = pace.shared;
        let goes_on = |bytes| pace.goes_on(bytes, &|| engine.appended().unwrap_or(u64::MAX));
        let mut allowed = 0;
        loop {
            if engine.is_retired() {
                return Ok(Left::Nothing);
            }
            engine.check_writable()?;
            let _alone = lock(&store.cleaning);
            let appended = engine.appended()?;
            let (used_before, dead_before) = engine.used_bytes()?;
            if allowed == 0 {
                // What the compaction that begins this has made dead was live until then.
                let live_before = used_before.saturating_sub(dead_before);
                allowed = live_before / 3 * 4 + SLACK_SEGMENTS * segment_bytes;
                pace.set_limit(appended, allowed.saturating_sub(used_before));
            }
            let cleaning = Cleaning::begin(store, &goes_on)?;
            let held_bytes = cleaning.release(0)?.1;
            let (used, dead) = engine.used_bytes()?;
            // Of what was there before the count all that is dead has been counted.
            let live = used_before.saturating_sub(dead);
            allowed = allowed.max(live / 2 * 3 + SLACK_SEGMENTS * segment_bytes);
            pace.set_limit(appended, allowed.saturating_sub(used_before));
            *futile_bytes = futile_bytes.map(|futile: u64| futile.min(dead));
            let is_futile = futile_bytes.is_some_and(|futile| dead < futile + 2 * segment_bytes);
            if is_futile || !is_worth(*options, (used, dead), segment_bytes) {
                let held_back = held_bytes > 0 || cleaning.is_held_back();
                return Ok(if held_back {
                    Left::Later
                } else {
                    Left::Nothing
                });
            }
            shared.has_cleaned(0, dead);
            let cleaned = cleaning.clean(Round {
                cleaned: cleaning.cleaned(),
                copied_bytes_max,
                moves_last: false,
                damaged: &mut *damaged,
            });
            match cleaned {
                Ok(cleaned) => {
                    for _error in &cleaned.damage {
                        trace::event!(WARN, error = %_error, "segment not cleaned");
                    }
                    shared.has_cleaned(cleaned.given_up_bytes, 0);
                    *futile_bytes = (cleaned.given_up_bytes == 0).then_some(dead);
                    let more = copied_bytes_max.saturating_mul(4);
                    copied_bytes_max = more.clamp(segment_bytes, ROUND_SEGMENTS * segment_bytes);
                }
                // One segment's copy is kept for this, and what is wholly dead makes room without one.
                Err(Error::NoSpace { .. } | Error::StoreFull { .. }) if copied_bytes_max > 0 => {
                    let less = copied_bytes_max > segment_bytes;
                    copied_bytes_max = if less { segment_bytes } else { 0 };
                }
                Err(Error::NoSpace { .. } | Error::StoreFull { .. }) => return Ok(Left::Later),
                Err(error) => return Err(error),
            }
            cleaning.release(0)?;
        }
    }
}

/// Whether so many dead bytes among those of the segments in use are worth a round.
fn is_worth(options: CleanerOptions, (used, dead): (u64, u64), segment_bytes: u64) -> bool {
    dead >= 2 * segment_bytes && dead >= used / 100 * u64::from(options.dead_percent)
}

/// How far segments in use may go beyond their share before commits wait.
const SLACK_SEGMENTS: u64 = 4;

/// How long one commit waits at most.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// Segments that one round copies at most.
const ROUND_SEGMENTS: u64 = 8;
