//! The trait through which the store tells the user's lessor which keys hold which leases.

use revtree_format::LeaseId;

use crate::db::WeakDb;

/// The user's lessor. The store keeps the lease of each put; when a lease ends is the lessor's business:
/// it deletes the keys then.
///
/// `attach` and `detach` come at commit, in revision order and before the next write begins, and after
/// open and restore for each live key with a lease; an aborted transaction calls nothing. They cannot
/// fail, and must not write to the store: that is refused with
/// [`Error::InCallback`](crate::Error::InCallback). (The rules are etcd's, `mvcc` package: a put detaches
/// the old lease and attaches the new one when they differ, a delete detaches.)
///
/// ```
/// use revtree::{LeaseId, Lessor, Options};
/// use std::sync::{Arc, Mutex};
/// #[derive(Default)]
/// struct Log(Mutex<Vec<String>>);
/// impl Lessor for Log {
///     fn attach(&self, lease: LeaseId, key: &[u8]) {
///         self.0.lock().unwrap().push(format!("+{} {}", lease.0, key.escape_ascii()));
///     }
/// }
/// let log = Arc::new(Log::default());
/// let db = Options::new().lessor(log.clone()).open_in_memory()?;
/// let mut txn = db.write()?;
/// txn.put_with_lease("a", "1", LeaseId(7))?;
/// txn.commit()?;
/// assert_eq!(*log.0.lock().unwrap(), ["+7 a"]);
/// # Ok::<(), revtree::Error>(())
/// ```
pub trait Lessor: Send + Sync + 'static {
    /// Is called once the store is open: the way back, to revoke a lease by deleting its keys.
    fn opened(&self, db: WeakDb) {
        let _ = db;
    }

    /// Whether the lease may be given to a key: asked by `put_with_lease`.
    fn exists(&self, lease: LeaseId) -> bool {
        let _ = lease;
        true
    }

    /// The lease that the key holds by the lessor's own account; `None`: the record's own counts.
    fn lease_of(&self, key: &[u8]) -> Option<LeaseId> {
        let _ = key;
        None
    }

    /// The key holds the lease from now on.
    fn attach(&self, lease: LeaseId, key: &[u8]) {
        let _ = (lease, key);
    }

    /// The key no longer holds the lease.
    fn detach(&self, lease: LeaseId, key: &[u8]) {
        let _ = (lease, key);
    }
}

/// The lessor of a store without leases: it knows every lease and keeps none.
///
/// ```
/// use revtree::{LeaseId, NoLessor, Options};
/// let db = Options::new().lessor(std::sync::Arc::new(NoLessor)).open_in_memory()?;
/// let mut txn = db.write()?;
/// txn.put_with_lease("a", "1", LeaseId(7))?; // any lease will do
/// txn.commit()?;
/// assert_eq!(db.get("a")?.unwrap().lease, LeaseId(7));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoLessor;

impl Lessor for NoLessor {}
