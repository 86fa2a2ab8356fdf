//! The writer's turn: one holder at a time, first come first served.
//!
//! Not a mutex guard, because a write transaction may be sent to another thread while it holds the turn.

#![expect(clippy::disallowed_types, reason = "writers wait for their turn")]

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::thread::{self, Thread};
use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// Who may write.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    state: Mutex<TurnState>,
}

#[derive(Debug, Default)]
struct TurnState {
    taken: bool,
    waiting: VecDeque<Arc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    /// Release when the turn is handed over, Acquire when it is taken: what the last holder wrote is
    /// seen.
    granted: AtomicBool,
    thread: Thread,
}

/// The turn, held.
#[derive(Debug)]
pub(crate) struct TurnHeld {
    turn: Arc<Turn>,
}

impl Turn {
    /// Waits for the turn.
    pub(crate) fn take(self: &Arc<Turn>) -> TurnHeld {
        match self.take_while(|| true) {
            Some(held) => held,
            None => unreachable!("it is wanted for ever"),
        }
    }

    /// Waits for the turn as long as it is wanted, which is asked again when the thread is unparked.
    pub(crate) fn take_while(self: &Arc<Turn>, wanted: impl Fn() -> bool) -> Option<TurnHeld> {
        let mut state = lock(&self.state);
        if state.taken {
            let granted = AtomicBool::new(false);
            let waiter = Arc::new(Waiter {
                granted,
                thread: thread::current(),
            });
            state.waiting.push_back(Arc::clone(&waiter));
            drop(state);
            while !waiter.granted.load(Ordering::Acquire) {
                // Who is not in the queue any more is given it in this moment, and has to take it.
                if !wanted() && self.give_up(&waiter) {
                    return None;
                }
                // Looked at again behind a lock: under loom a thread that waits for one loses who unparks it.
                if !waiter.granted.load(Ordering::Acquire) {
                    thread::park();
                }
            }
        } else {
            state.taken = true;
        }
        Some(TurnHeld {
            turn: Arc::clone(self),
        })
    }

    /// Leaves the queue; `false`: the turn has been given.
    fn give_up(&self, waiter: &Arc<Waiter>) -> bool {
        let mut state = lock(&self.state);
        let before = state.waiting.len();
        state.waiting.retain(|other| !Arc::ptr_eq(other, waiter));
        state.waiting.len() < before
    }

    /// Takes the turn if nobody has it.
    pub(crate) fn try_take(self: &Arc<Turn>) -> Option<TurnHeld> {
        let mut state = lock(&self.state);
        if state.taken {
            return None;
        }
        state.taken = true;
        drop(state);
        Some(TurnHeld {
            turn: Arc::clone(self),
        })
    }
}

impl Drop for TurnHeld {
    fn drop(&mut self) {
        let mut state = lock(&self.turn.state);
        match state.waiting.pop_front() {
            Some(next) => {
                drop(state);
                next.granted.store(true, Ordering::Release);
                next.thread.unpark();
            }
            None => state.taken = false,
        }
    }
}
