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
                thread::park();
            }
        } else {
            state.taken = true;
        }
        TurnHeld {
            turn: Arc::clone(self),
        }
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
