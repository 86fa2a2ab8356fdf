//! A commit that is accepted and not waited for yet.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::store::Store;
use super::txn::Commit;
use crate::engine::{Ticket, Waiting};
use crate::error::Result;

/// A commit in order, accepted, not awaited. Dropping it does not undo the commit.
///
/// It is also a future that needs no particular runtime; the store then syncs on a thread of its own.
#[must_use = "whether the commit is durable is known only after waiting"]
#[derive(Debug)]
pub struct Submitted {
    store: Arc<Store>,
    ticket: Ticket,
    commit: Commit,
    /// What the last poll left with the thread that syncs.
    waiting: Option<Arc<Waiting>>,
}

impl Submitted {
    pub(crate) fn new(store: Arc<Store>, ticket: Ticket, commit: Commit) -> Submitted {
        Submitted {
            store,
            ticket,
            commit,
            waiting: None,
        }
    }

    /// The store's revision after the commit.
    #[must_use]
    pub fn revision(&self) -> revtree_format::Revision {
        self.commit.revision
    }

    /// Waits until the commit is as durable as was asked for, and visible.
    ///
    /// # Errors
    /// [`Error::CommitUnknown`](crate::Error::CommitUnknown) when the sync failed.
    pub fn wait(self) -> Result<Commit> {
        let durable = self.store.settle(self.ticket)?;
        Ok(Commit {
            durable,
            ..self.commit
        })
    }
}

impl Future for Submitted {
    type Output = Result<Commit>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (store, waiting) = (&this.store, &mut this.waiting);
        match store.poll_settled(this.ticket, waiting, context.waker()) {
            Some(Ok(durable)) => Poll::Ready(Ok(Commit {
                durable,
                ..this.commit
            })),
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }
}
