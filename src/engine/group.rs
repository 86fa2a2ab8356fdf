//! Group commit: many wait for a sync, one of them makes it for all that have gathered (SPEC.md, C-9).
//!
//! Apart because it is a hand-over between threads and nothing else: it must not know what a sync is, nor
//! what is written before it.
//!
//! # Invariants
//! 1. At most one thread leads, and it holds no lock of ours while it does.
//! 2. `durable` never goes back, and is raised only after the sync of all frames below it.
//! 3. Whoever ends leading, by whatever way, wakes all: the next of them leads or is told why not.

#![expect(clippy::disallowed_types, reason = "commits wait for their sync")]

use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex, lock, wait};

/// What is led.
pub(super) trait Lead {
    /// Seals, writes and syncs one group; gives the number of the first frame that is not durable.
    fn lead(&self) -> Result<u64>;

    /// No more groups, and why.
    fn poison(&self, cause: Arc<io::Error>);

    fn poisoned(&self) -> Option<Arc<io::Error>>;
}

/// Which frames are durable, and who waits for more.
#[derive(Debug)]
pub(super) struct Group {
    state: Mutex<SyncState>,
    synced: Condvar,
}

#[derive(Debug)]
struct SyncState {
    /// All frames before this sequence number are durable.
    durable: u64,
    /// Somebody is syncing.
    leading: bool,
}

impl Group {
    /// All frames below this number are durable.
    pub(super) fn new(durable: u64) -> Group {
        Group {
            state: Mutex::new(SyncState {
                durable,
                leading: false,
            }),
            synced: Condvar::new(),
        }
    }

    pub(super) fn is_durable(&self, sequence: u64) -> bool {
        lock(&self.state).durable > sequence
    }

    /// Returns when the frame with this number is durable.
    pub(super) fn sync_to(&self, log: &impl Lead, sequence: u64) -> Result<()> {
        let mut sync = lock(&self.state);
        loop {
            if sync.durable > sequence {
                return Ok(());
            }
            if let Some(cause) = log.poisoned() {
                return Err(Error::Poisoned { cause });
            }
            if !sync.leading {
                break;
            }
            sync = wait(&self.synced, sync);
        }
        sync.leading = true;
        drop(sync);
        let leading = Leading { group: self, log };
        let result = match log.lead() {
            Ok(durable) => {
                let mut sync = lock(&self.state);
                sync.durable = sync.durable.max(durable);
                Ok(())
            }
            // Nothing was written: there was no room even to end the group. Another try may find some.
            Err(error @ (Error::NoSpace { .. } | Error::StoreFull { .. })) => Err(error),
            Err(error) => {
                let cause = error.into_cause();
                log.poison(Arc::clone(&cause));
                Err(Error::Poisoned { cause })
            }
        };
        drop(leading);
        result
    }
}

/// The leader's part; given back also when it panics, so that nobody waits for ever.
struct Leading<'g, L: Lead> {
    group: &'g Group,
    log: &'g L,
}

impl<L: Lead> Drop for Leading<'_, L> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let cause = io::Error::other("a sync was given up half-way");
            self.log.poison(Arc::new(cause));
        }
        lock(&self.group.state).leading = false;
        self.group.synced.notify_all();
    }
}
