//! Which revision a policy of retention asks for, and when it is asked (SPEC.md, K-13).

use std::panic::{AssertUnwindSafe, catch_unwind};

use revtree_format::Revision;

use super::store::Store;
use crate::options::Retain;
use crate::sync::{AtomicU64, Ordering};
use crate::trace;

/// The policy of a store.
#[derive(Debug)]
pub(super) struct Retention {
    policy: Retain,
    /// How much log there was when it was last asked for, in bytes.
    asked_at: AtomicU64,
}

impl Retention {
    pub(super) fn new(policy: Retain) -> Retention {
        Retention {
            policy,
            asked_at: AtomicU64::new(0),
        }
    }

    /// Whether there is anything to be asked.
    pub(super) fn is_any(&self) -> bool {
        !matches!(self.policy, Retain::All)
    }

    /// Whether so much log has been written that it is to be asked again; one caller is told so.
    pub(super) fn is_due(&self, appended: u64, bytes: u64) -> bool {
        let asked_at = self.asked_at.load(Ordering::Relaxed);
        self.is_any()
            && appended.saturating_sub(asked_at) >= bytes
            && self
                .asked_at
                .compare_exchange(asked_at, appended, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// The revision to be compacted at now, if there is one. What is the user's is called here, without a lock.
    pub(super) fn target(&self, store: &Store) -> Option<Revision> {
        let target = match &self.policy {
            Retain::All => None,
            Retain::Revisions(revisions) => {
                let current = store.engine.rev().get();
                current.checked_sub(*revisions).map(Revision::new)
            }
            Retain::Since(since) => {
                let call = || Store::refuse_writes(|| since());
                let answer = catch_unwind(AssertUnwindSafe(call));
                if answer.is_err() {
                    trace::event!(WARN, "a policy of retention panicked");
                }
                answer.ok()
            }
        };
        // The first revision of a store is 1: nothing is to be given up there.
        let least = store.engine.compact_rev().unwrap_or(Revision::new(1));
        target.filter(|rev| *rev > least && *rev <= store.engine.rev())
    }
}
