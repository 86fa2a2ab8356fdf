//! A small lessor: leases are granted, hold keys, end at a time that is given, and survive a restart.
//!
//! The store keeps the lease of each key and tells the lessor about it; when a lease ends is the
//! lessor's business. Its rows lie in a side table, so that a lease and its keys go in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use revtree::{Db, Error, EventKind, KeyRange, LeaseId, Lessor, Options, Revision, WeakDb};

/// The side table: a row for each lease, id to the second when it ends.
const TABLE: &str = "lease";

#[derive(Default)]
struct Leases {
    /// Weak: a lessor that kept the store open would keep itself alive.
    db: Mutex<Option<WeakDb>>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Leases that keys may be given, with the second when each ends.
    ends: BTreeMap<i64, u64>,
    /// The keys of each lease, in the order in which they are deleted.
    keys: BTreeMap<i64, BTreeSet<Vec<u8>>>,
}

/// The store calls these at commit; none of them writes to it.
impl Lessor for Leases {
    fn opened(&self, db: WeakDb) {
        *self.db.lock().unwrap_or_else(PoisonError::into_inner) = Some(db);
    }

    fn exists(&self, lease: LeaseId) -> bool {
        self.held().ends.contains_key(&lease.0)
    }

    fn attach(&self, lease: LeaseId, key: &[u8]) {
        self.held()
            .keys
            .entry(lease.0)
            .or_default()
            .insert(key.to_vec());
    }

    fn detach(&self, lease: LeaseId, key: &[u8]) {
        if let Some(keys) = self.held().keys.get_mut(&lease.0) {
            keys.remove(key);
        }
    }
}

impl Leases {
    /// Opens a store with its lessor. The keys were attached while it was opened; the rows are read here.
    fn open(path: &Path) -> Result<(Db, Arc<Leases>)> {
        let leases = Arc::new(Leases::default());
        let db = Options::new().lessor(leases.clone()).open(path)?;
        for row in db.read()?.table(TABLE).iter() {
            let (id, end) = row?;
            let (id, end) = (
                <[u8; 8]>::try_from(&id[..])?,
                <[u8; 8]>::try_from(&end[..])?,
            );
            leases
                .held()
                .ends
                .insert(i64::from_be_bytes(id), u64::from_be_bytes(end));
        }
        Ok((db, leases))
    }

    /// Never held over a call of the store: at commit the store calls us.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn db(&self) -> Result<Db> {
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        db.as_ref()
            .and_then(WeakDb::upgrade)
            .context("the store is closed")
    }

    /// A new lease. It exists for keys when its row is saved.
    fn grant(&self, id: LeaseId, end: u64) -> Result<()> {
        let db = self.db()?;
        let mut txn = db.write()?;
        ensure!(!self.exists(id), "lease {} exists", id.0);
        txn.table(TABLE)?
            .put(&id.0.to_be_bytes(), &end.to_be_bytes())?;
        txn.commit()?;
        self.held().ends.insert(id.0, end);
        Ok(())
    }

    /// Ends a lease: its keys in sorted order and its row, in one transaction.
    fn revoke(&self, id: LeaseId) -> Result<Revision> {
        let db = self.db()?;
        // While it is open nothing is attached, so the keys read now are all.
        let mut txn = db.write()?;
        let end = self
            .held()
            .ends
            .get(&id.0)
            .copied()
            .context("there is no such lease")?;
        let keys = self.held().keys.get(&id.0).cloned().unwrap_or_default();
        for key in &keys {
            txn.delete(key)?;
        }
        txn.table(TABLE)?.delete(&id.0.to_be_bytes())?;
        // Before the commit: the next transaction begins with it, and must not find the lease.
        self.held().ends.remove(&id.0);
        let commit = txn.commit().inspect_err(|_| {
            self.held().ends.insert(id.0, end);
        })?;
        Ok(commit.revision)
    }

    /// Revokes what ended by `now`. The time is given: whoever has the clock decides.
    fn expire(&self, now: u64) -> Result<Vec<LeaseId>> {
        let ended = |(id, end): (&i64, &u64)| (*end <= now).then_some(LeaseId(*id));
        let ended: Vec<LeaseId> = self.held().ends.iter().filter_map(ended).collect();
        for &id in &ended {
            self.revoke(id)?;
        }
        Ok(ended)
    }
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("leases.rvt");
    let (short, long) = (LeaseId(7), LeaseId(8));

    let (db, leases) = Leases::open(&path)?;
    leases.grant(short, 160)?;
    leases.grant(long, 400)?;
    let mut txn = db.write()?;
    for key in ["node/c", "node/a", "node/b"] {
        txn.put_with_lease(key, "up", short)?;
    }
    txn.put_with_lease("leader", "a", short)?;
    txn.commit()?;
    // Another lease takes the key over.
    let mut txn = db.write()?;
    txn.put_with_lease("leader", "b", long)?;
    let unknown = txn.put_with_lease("x", "", LeaseId(9));
    assert!(matches!(unknown, Err(Error::LeaseNotFound(LeaseId(9)))));
    txn.commit()?;
    assert!(leases.expire(159)?.is_empty());

    // The rows and the keys' leases are in the file.
    db.close()?;
    let (db, leases) = Leases::open(&path)?;
    let before = db.rev();
    assert_eq!(leases.expire(160)?, [short]);
    let view = db.read()?;
    assert_eq!(view.rev(), before.next(), "all in one revision");
    let gone = view.changes(KeyRange::all(), view.rev()..=view.rev())?;
    let gone: Vec<_> = gone.collect::<revtree::Result<_>>()?;
    assert!(gone.iter().all(|event| event.kind == EventKind::Delete));
    let keys: Vec<_> = gone.iter().map(|event| &event.kv.key[..]).collect();
    assert_eq!(keys, [b"node/a", b"node/b", b"node/c"], "in sorted order");
    assert!(
        view.table(TABLE).get(&short.0.to_be_bytes())?.is_none(),
        "with its row"
    );
    assert_eq!(view.get("leader")?.map(|record| record.lease()), Some(long));
    println!(
        "lease {} ended at revision {} with {} keys",
        short.0,
        view.rev(),
        keys.len()
    );
    Ok(())
}
