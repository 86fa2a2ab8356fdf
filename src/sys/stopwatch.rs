//! How long a step took, for the features `metrics` and `tracing`: without both no clock is read.
//!
//! Apart from the clock so that the layers above can hold one whatever the features are. Nothing may
//! decide by it: it is for telling only.

#[cfg(any(feature = "metrics", feature = "tracing"))]
use super::clock::{Clock, RealClock};

/// Runs from when it is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    clock: RealClock,
}

impl Stopwatch {
    /// Starts.
    pub(crate) fn start() -> Stopwatch {
        Stopwatch {
            #[cfg(any(feature = "metrics", feature = "tracing"))]
            clock: RealClock::new(),
        }
    }

    /// The time since.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.clock.now()
    }
}
