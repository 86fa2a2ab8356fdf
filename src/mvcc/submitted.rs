//! A commit that is accepted and not waited for yet.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::store::Store;
use super::txn::Commit;
use crate::engine::Ticket;
use crate::error::Result;

/// A commit in order, accepted, not awaited. Dropping it does not undo the commit.
///
/// It is also a future that needs no particular runtime; the store then syncs on a thread of its own.
///
/// ```
/// use std::task::{Context, Poll, Waker};
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut txn = db.write()?;
/// txn.put("a", "1")?;
/// let mut submitted = std::pin::pin!(txn.submit()?);
/// // Any runtime polls it; this one waits by itself.
/// let mut context = Context::from_waker(Waker::noop());
/// let commit = loop {
///     match submitted.as_mut().poll(&mut context) {
///         Poll::Ready(commit) => break commit?,
///         Poll::Pending => std::thread::yield_now(),
///     }
/// };
/// assert!(commit.durable);
/// # Ok::<(), revtree::Error>(())
/// ```
#[must_use = "whether the commit is durable is known only after waiting"]
#[derive(Debug)]
pub struct Submitted {
    store: Arc<Store>,
    ticket: Ticket,
    commit: Commit,
}

impl Submitted {
    pub(crate) fn new(store: Arc<Store>, ticket: Ticket, commit: Commit) -> Submitted {
        Submitted {
            store,
            ticket,
            commit,
        }
    }

    /// The store's revision after the commit.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put("a", "1")?;
    /// let submitted = txn.submit()?;
    /// let rev = submitted.revision(); // known before it is durable
    /// assert_eq!(submitted.wait()?.revision, rev);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn revision(&self) -> revtree_format::Revision {
        self.commit.revision
    }

    /// Waits until the commit is as durable as was asked for, and visible.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put("a", "1")?;
    /// let commit = txn.submit()?.wait()?;
    /// assert_eq!((commit.durable, commit.revision), (true, db.rev()));
    /// # Ok::<(), revtree::Error>(())
    /// ```
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
        match self.store.poll_settled(self.ticket, context.waker()) {
            Some(Ok(durable)) => Poll::Ready(Ok(Commit {
                durable,
                ..self.commit
            })),
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }
}
