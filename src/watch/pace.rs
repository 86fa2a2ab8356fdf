//! How receivers wait, so that what is written costs few wake-ups (SPEC.md, W-5).
//!
//! Apart because it is all that is known here of time, and nothing depends on it: an event is given later or
//! earlier by it, never lost. It must not know what a stream is.
//!
//! # Turns
//! A wake-up costs the writer as much as a commit, and a receiver that takes one event after the other keeps
//! fetching the cache lines that the writer needs for the next one. So a receiver that has been given all that
//! there was takes a *turn* before it looks again: the receivers of a handle have one every [`TURN`], in the order in
//! which they come. Until its turn it is not awake and nobody wakes it; what is written meanwhile gathers for
//! it. Where events come seldom its turn is at once.

use std::ops::Deref;
use std::time::Duration;

use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::sys::{Clock, RealClock};

/// How long a receiver waits awake before it sleeps.
pub(super) const AWAKE: Duration = Duration::from_micros(20);

/// Between two turns. A wake-up takes some microseconds of the writer's time and as much of a core: both lose less
/// than a tenth.
const TURN: Duration = Duration::from_micros(50);

/// No receiver waits longer for its turn.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// Of all receivers of a handle.
#[derive(Debug)]
pub(super) struct Pace {
    clock: RealClock,
    /// Nanoseconds of the clock up to which turns have been given.
    given: AtomicU64,
    /// Receivers that wait awake.
    awake: AtomicUsize,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            clock: RealClock::new(),
            given: AtomicU64::new(0),
            awake: AtomicUsize::new(0),
        }
    }

    /// Waits for a receiver's turn, but no longer than `time`.
    pub(super) fn wait_for_turn(&self, time: Option<Duration>) {
        let now = self.clock.now();
        let wait = self.take_turn(now).saturating_sub(now);
        let wait = time.map_or(wait, |time| wait.min(time));
        // No time passes in a model.
        if !wait.is_zero() && cfg!(not(any(loom, shuttle))) {
            std::thread::sleep(wait);
        }
    }

    /// When the turn is of one who comes `now`.
    fn take_turn(&self, now: Duration) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (now, last) = (nanos(now), nanos(now + WAIT_MAX));
        let turn = |given: u64| given.clamp(now, last);
        let next = |given: u64| Some(turn(given) + nanos(TURN));
        // Relaxed: turns order nothing but themselves. The closure always gives a value.
        let given = self
            .given
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Duration::from_nanos(turn(given.unwrap_or(now)))
    }

    /// A permit to wait awake; one at a time has it, since others need the processors.
    pub(super) fn may_wait_awake(&self) -> Option<Awake<'_>> {
        let awake = self.awake.fetch_add(1, Ordering::Relaxed);
        let permit = Awake(self);
        (awake == 0).then_some(permit)
    }
}

/// Held by who waits awake.
#[derive(Debug)]
pub(super) struct Awake<'p>(&'p Pace);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.awake.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What stands on cache lines of its own: what receivers change takes none away from the writer.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// The first turn is at once, those that are asked for meanwhile follow, and none waits beyond the bound.
    #[test]
    fn turns_follow_each_other() {
        let pace = Pace::new();
        let now = Duration::from_secs(1);
        assert_eq!(pace.take_turn(now), now);
        assert_eq!(pace.take_turn(now), now + TURN);
        assert_eq!(pace.take_turn(now + TURN), now + 2 * TURN);
        let later = now + 10 * TURN;
        assert_eq!(pace.take_turn(later), later);
        for _ in 0..1000 {
            assert!(pace.take_turn(later) <= later + WAIT_MAX);
        }
        assert_eq!(pace.take_turn(later), later + WAIT_MAX);
    }
}
