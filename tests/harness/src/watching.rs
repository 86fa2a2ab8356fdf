//! Watchers of a store, and a check of all that each was told.
//!
//! * [`record`]: contents, requests and responses as plain values.
//! * [`rules`], `follow`, [`check`](mod@check): what a watcher may be told. They know nothing of the store, and
//!   nothing is read from it for them: whoever writes keeps the contents.
//! * `draw`, `store`, [`stepped`]: a history of one thread, which the seed brings back; a store is restored,
//!   closed, and loses its power in it.
//! * [`threads`]: writers, receivers, and those who add and cancel, on threads. The seed brings back what each
//!   asks, not which came first.

use crate::campaign::Tally;
use crate::random::Random;

pub mod check;
mod draw;
mod follow;
pub mod record;
#[cfg(test)]
mod refusals;
pub mod rules;
pub mod stepped;
mod store;
pub mod threads;

pub use check::{Checked, Refused, check};
pub use rules::Rule;

/// Runs a history of a seed and checks it.
///
/// # Errors
///
/// The rule that is broken, with the watcher's story.
pub fn watching(seed: u64) -> Result<Tally, String> {
    let is_stepped = !Random::new(seed ^ 0x0A7C).once_in(4);
    let history = if is_stepped {
        stepped::run(seed)?
    } else {
        threads::run(seed)?
    };
    let checked = check(&history).map_err(|refused| format!("wrong: {refused}"))?;
    Ok(Tally {
        units: 1,
        operations: history.moments.len() as u64,
        kinds: [
            ("stepped", u64::from(is_stepped)),
            ("watchers", checked.watchers),
            ("events", checked.events),
            ("watchers that were told of a compaction", checked.compacted),
            ("answers to who asked for progress", checked.progress),
            ("filters that panicked", checked.panics),
        ]
        .into(),
        ..Tally::default()
    })
}
