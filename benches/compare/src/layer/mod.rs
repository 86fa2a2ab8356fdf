//! The thin MVCC layer that turns a key-value engine into a revision store, the same for all peers.
//!
//! It is etcd's shape: a 17-byte revision key → the encoded record in the engine, and in memory an
//! index key → revisions behind one lock. One batch of puts is one write transaction of the
//! engine; where readers cannot see an open one, a buffer of its records stands in for it (etcd's
//! read buffer). It pays for what revtree has to pay for as well: the checksum of each record that
//! it reads (none of the peers checks one on every read), a lookup for the header of each put, a
//! read transaction for each request. What it leaves out (deletes, leases, watchers) costs nothing
//! here, in the peers' favour.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::Result;
use crate::data::KEY_BYTES;
use crate::engines::SyncRule;
use crate::record::{REV_KEY_BYTES, Rev, encode, key_and_create, rev_key, value, version};

mod dead;
mod verbs;

/// A key-value engine below the layer.
pub(crate) trait Store: Sized + Send + Sync {
    /// Whether readers see a record as soon as it is put, before its batch is committed.
    const SHOWS_OPEN_WRITES: bool;

    type Reader<'s>: Reader
    where
        Self: 's;

    fn open(dir: &Path, sync: SyncRule) -> Result<Self>;
    /// Runs `fill` in one write transaction, then commits and syncs; how long the second took.
    fn write(&self, fill: &mut dyn FnMut(&mut dyn Sink) -> Result<()>) -> Result<Duration>;
    fn reader(&self) -> Result<Self::Reader<'_>>;
    fn reclaim(&mut self, dir: &Path, scratch: &Path) -> Result<u64>;
    fn close(self) -> Result<()>;
}

/// An open write transaction.
pub(crate) trait Sink {
    /// Keys only grow.
    fn put(&mut self, key: &[u8; REV_KEY_BYTES], record: &[u8]) -> Result<()>;
    fn delete(&mut self, key: &[u8; REV_KEY_BYTES]) -> Result<()>;
}

/// An open read transaction.
pub(crate) trait Reader {
    fn get(
        &self,
        key: &[u8; REV_KEY_BYTES],
        read: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<bool>;
    /// Shows `read` each pair in `[from, to)`, in order.
    fn scan(
        &self,
        from: &[u8; REV_KEY_BYTES],
        to: &[u8; REV_KEY_BYTES],
        read: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()>;
}

/// What the index knows of a key.
struct Versions {
    create: u64,
    version: u64,
    /// Oldest first.
    revs: Vec<Rev>,
}

type Index = BTreeMap<Box<[u8]>, Versions>;
type Pending = HashMap<Rev, Box<[u8]>, BuildHasherDefault<RevHasher>>;

/// Revisions are dense, so one multiplication spreads them well enough.
#[derive(Default)]
struct RevHasher(u64);

impl Hasher for RevHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The layer over a store.
pub(crate) struct Layer<S> {
    store: S,
    opened_in: Duration,
    index: RwLock<Index>,
    /// Records of the open batch, if the store hides it.
    pending: RwLock<Pending>,
    /// The writer's turn, and the current revision.
    writer: Mutex<u64>,
}

/// The puts of the open transaction, and the bytes that encoding uses again.
struct Txn {
    main: u64,
    puts: Vec<([u8; KEY_BYTES], Rev)>,
    record: Vec<u8>,
}

impl<S: Store> Layer<S> {
    /// Puts into the open transaction: the record goes to the sink, the index waits for `publish`.
    fn put(&self, txn: &mut Txn, sink: &mut dyn Sink, key: &[u8], value: &[u8]) -> Result<()> {
        let rev = Rev::new(txn.main, txn.puts.len() as u64);
        let key: [u8; KEY_BYTES] = key.try_into()?;
        let (create, version) = match self.index.read().get(&key[..]) {
            Some(versions) => (versions.create, versions.version + 1),
            None => (txn.main, 1),
        };
        encode(&mut txn.record, &key, value, create, txn.main, version);
        sink.put(&rev_key(rev), &txn.record)?;
        if !S::SHOWS_OPEN_WRITES {
            self.pending
                .write()
                .insert(rev, txn.record.as_slice().into());
        }
        txn.puts.push((key, rev));
        Ok(())
    }

    /// Ends the open transaction: its puts become visible together.
    fn publish(&self, txn: &mut Txn) {
        let mut index = self.index.write();
        for (key, rev) in txn.puts.drain(..) {
            add_version(&mut index, &key, rev);
        }
        txn.main += 1;
    }

    /// Reads one record, checked; the pending ones first, since a batch leaves them only after its
    /// commit, which the read transaction opened afterwards then sees.
    fn read(&self, rev: Rev, read: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        if !S::SHOWS_OPEN_WRITES
            && let Some(record) = self.pending.read().get(&rev)
        {
            return read(value(record)?);
        }
        let found = self
            .store
            .reader()?
            .get(&rev_key(rev), |record| read(value(record)?))?;
        if found {
            Ok(())
        } else {
            Err(format!("{rev:?} is missing").into())
        }
    }
}

fn add_version(index: &mut Index, key: &[u8], rev: Rev) {
    if let Some(versions) = index.get_mut(key) {
        versions.version += 1;
        versions.revs.push(rev);
    } else {
        let versions = Versions {
            create: rev.main(),
            version: 1,
            revs: vec![rev],
        };
        index.insert(key.into(), versions);
    }
}

/// Builds the index from all records, in revision order as etcd does.
fn load_index<S: Store>(store: &S) -> Result<(Index, u64)> {
    let mut index = Index::new();
    let mut current = 1;
    store
        .reader()?
        .scan(&rev_key(Rev::FIRST), &rev_key(Rev::LAST), |rev, record| {
            let rev = Rev::from_key(rev)?;
            value(record)?;
            let (key, create) = key_and_create(record)?;
            add_version(&mut index, key, rev);
            let versions = index.get_mut(key).ok_or("just added")?;
            (versions.create, versions.version) = (create, version(record)?);
            current = rev.main();
            Ok(())
        })?;
    Ok((index, current))
}
