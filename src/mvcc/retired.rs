//! Who may still read a segment from which the cleaner has moved what stays (SPEC.md, X-5).
//!
//! Apart because here the three ways meet in which bytes of the file are read, and the word is given on which
//! memory is used again. A retired segment is one to which no way leads: hints into it are off, the tree has other
//! leaves and pages, the index other positions. Bytes of it are read by
//!
//! 1. a pin of an older era: views, transactions, snapshots, and what iterates for them;
//! 2. a guard of the index's epoch from before: single reads and puts, which have no view;
//! 3. shared bytes, which were lent by one of the first two, and are counted by the unit in which they begin.
//!
//! Nobody else reads through the region, but for the writer of a checkpoint, which is this thread or waits for
//! it, and the one who shows a full segment from the file, who holds its claim. So when no pin of an older era is
//! left, and the epoch has passed, and then no handle is counted, nobody reads there, and nobody will.
//!
//! In this order: a handle is counted before its lender ends.

#![expect(
    clippy::disallowed_types,
    reason = "the moments of cleanings; no read of keys asks for them"
)]
#![expect(
    unsafe_code,
    reason = "gives the word that nobody reads a segment any more"
)]

use std::time::Duration;

use super::store::Store;
use crate::engine::{Held, lock};
use crate::error::Result;
use crate::index::Moment;
use crate::sync::Mutex;
use crate::sys::Unread;

/// When segments were retired.
#[derive(Debug, Default)]
pub(crate) struct Retired(Mutex<Vec<(u64, Moment)>>);

impl Retired {
    /// No way leads to what has been moved; gives the era that begins with it.
    pub(super) fn begin(&self, store: &Store) -> u64 {
        let era = store.pins.begin_era();
        lock(&self.0).push((era, Moment::now()));
        era
    }

    /// The eras before which nobody is left who began. A guard is held for the length of a read, and for longer only
    /// where its thread was interrupted in it: `tries` times a millisecond is waited for that.
    fn over(&self, store: &Store, tries: usize) -> Vec<u64> {
        let moments = lock(&self.0);
        let mut over = Vec::new();
        for (era, moment) in &*moments {
            // An older pin is older than all eras behind it, too.
            if !store.pins.are_since(*era) {
                break;
            }
            let mut left = tries;
            while !moment.is_past() && left > 0 {
                std::thread::sleep(Duration::from_millis(1));
                left -= 1;
            }
            if !moment.is_past() {
                break;
            }
            over.push(*era);
        }
        over
    }
}

/// How long is waited for a moment to be past, in milliseconds, by who wants the space now: a thread that was
/// interrupted is back by then, and one that writes to a slow disk under its guard is not waited for.
pub(super) const PATIENCE: usize = 20;

/// Frees the retired segments that nobody reads any more. Gives the bytes freed, and the bytes that are still read
/// or that another process keeps. `patience`: see [`PATIENCE`].
pub(super) fn release(store: &Store, patience: usize) -> Result<(u64, u64)> {
    let geometry = store.engine.medium.geometry;
    let held = store.engine.held()?;
    let bytes = |held: &Held| u64::from(held.units) * geometry.segment_bytes();
    let all: u64 = held.iter().map(bytes).sum();
    let over = if held.is_empty() {
        Vec::new()
    } else {
        store.retired.over(store, patience)
    };
    let mut unread = Vec::new();
    for segment in held {
        let units = segment.index..segment.index + segment.units;
        if !over.contains(&segment.era)
            || units.clone().any(|unit| store.lender.handles.is_held(unit))
        {
            continue;
        }
        let start = u64::from(segment.index) * geometry.segment_bytes();
        let end = geometry.end(segment.index, segment.units).0;
        // SAFETY: the segment is retired, so only those read there who began before its era; the file's head says
        // who they are. No pin is older than that era and the epoch has passed since it began, so all of 1 and 2
        // have ended, before the handles were looked at: no slice of theirs is alive, and 3 has none.
        let word = unsafe { Unread::vouch(start, end) };
        unread.push((segment, word));
    }
    let freed = store.engine.release(unread)?;
    let left = store.engine.held()?;
    lock(&store.retired.0).retain(|(era, _)| left.iter().any(|held| held.era == *era));
    Ok((freed, all - freed))
}
