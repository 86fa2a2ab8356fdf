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
use std::ops::Bound;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::Result;
use crate::data::KEY_BYTES;
use crate::engines::{BATCH_AGE, BATCH_OPS, Compacted, Engine, Source, SyncRule};
use crate::record::{REV_KEY_BYTES, Rev, encode, key_and_create, rev_key, value, version};

/// Superseded revisions deleted between two looks at the clock while compacting.
const COMPACT_CHUNK: usize = 500;

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

    /// Takes about `COMPACT_CHUNK` revisions superseded at or below `floor` out of the index,
    /// going on behind `after`; the last key looked at, or `None` when all are done.
    fn trim(&self, after: Option<&[u8]>, floor: u64, dead: &mut Vec<Rev>) -> Option<Box<[u8]>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut index = self.index.write();
        for (key, versions) in index.range_mut::<[u8], _>((start, Bound::Unbounded)) {
            let old = versions.revs.partition_point(|rev| rev.main() <= floor);
            dead.extend(versions.revs.drain(..old.saturating_sub(1)));
            if dead.len() >= COMPACT_CHUNK {
                return Some(key.clone());
            }
        }
        None
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

/// Operations since the last sync.
struct Batch {
    opened: Instant,
    ops: u32,
}

impl Batch {
    fn open() -> Batch {
        Batch {
            opened: Instant::now(),
            ops: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.ops >= BATCH_OPS || self.opened.elapsed() >= BATCH_AGE
    }
}

impl<S: Store> Engine for Layer<S> {
    fn open(dir: &Path, sync: SyncRule) -> Result<Layer<S>> {
        let start = Instant::now();
        let store = S::open(dir, sync)?;
        let opened_in = start.elapsed();
        let (index, rev) = load_index(&store)?;
        Ok(Layer {
            store,
            opened_in,
            index: RwLock::new(index),
            pending: RwLock::default(),
            writer: Mutex::new(rev),
        })
    }

    fn opened_in(&self) -> Duration {
        self.opened_in
    }

    fn rev(&self) -> u64 {
        *self.writer.lock()
    }

    fn write(&self, puts_per_txn: u32, source: &mut dyn Source) -> Result<()> {
        let mut current = self.writer.lock();
        let mut txn = Txn {
            main: *current + 1,
            puts: Vec::new(),
            record: Vec::new(),
        };
        let mut over = false;
        while !over {
            let mut batch = Batch::open();
            let mut put_last = false;
            let took = self.store.write(&mut |sink| {
                while !over && !batch.is_full() {
                    if put_last {
                        source.done();
                    }
                    for _ in 0..puts_per_txn {
                        let Some((key, value)) = source.next() else {
                            over = true;
                            break;
                        };
                        self.put(&mut txn, sink, key, value)?;
                        batch.ops += 1;
                    }
                    put_last = !txn.puts.is_empty();
                    if put_last {
                        self.publish(&mut txn);
                    }
                }
                Ok(())
            })?;
            self.pending.write().clear();
            if put_last {
                source.done();
            }
            source.synced(took);
            *current = txn.main - 1;
        }
        Ok(())
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut current = self.writer.lock();
        let mut txn = Txn {
            main: *current + 1,
            puts: Vec::new(),
            record: Vec::new(),
        };
        self.store
            .write(&mut |sink| self.put(&mut txn, sink, key, value))?;
        // Visible when durable, as revtree does it.
        self.publish(&mut txn);
        self.pending.write().clear();
        *current = txn.main - 1;
        Ok(())
    }

    fn get(
        &self,
        key: &[u8],
        rev: Option<u64>,
        read: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let found = self.index.read().get(key).and_then(|versions| match rev {
            None => versions.revs.last().copied(),
            Some(main) => {
                let newer = versions.revs.partition_point(|rev| rev.main() <= main);
                versions.revs[..newer].last().copied()
            }
        });
        let Some(rev) = found else { return Ok(false) };
        self.read(rev, read)?;
        Ok(true)
    }

    fn range(
        &self,
        start: &[u8],
        end: &[u8],
        mut read: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let revs: Vec<Rev> = self
            .index
            .read()
            .range::<[u8], _>(bounds)
            .filter_map(|(_, versions)| versions.revs.last().copied())
            .collect();
        // Pending records are taken before the read transaction opens, for the reason in `read`.
        let pending: Pending = {
            let pending = self.pending.read();
            let copy = |rev: &Rev| Some((*rev, pending.get(rev)?.clone()));
            if pending.is_empty() {
                Pending::default()
            } else {
                revs.iter().filter_map(copy).collect()
            }
        };
        let reader = self.store.reader()?;
        for rev in revs {
            let mut show = |record: &[u8]| read(key_and_create(record)?.0, value(record)?);
            if let Some(record) = pending.get(&rev) {
                show(record)?;
            } else if !reader.get(&rev_key(rev), show)? {
                return Err(format!("{rev:?} is missing").into());
            }
        }
        Ok(())
    }

    fn count(&self) -> Result<u64> {
        let index = self.index.read();
        Ok(index
            .range::<[u8], _>(..)
            .filter(|(_, versions)| !versions.revs.is_empty())
            .count() as u64)
    }

    fn hash(&self, threads: u32) -> Result<Option<u32>> {
        let end = self.rev() + 1;
        let part = |thread: u32| Rev::new(end * u64::from(thread) / u64::from(threads), 0);
        let hash_part = |from: Rev, to: Rev| -> Result<u32> {
            let mut crc = 0;
            self.store
                .reader()?
                .scan(&rev_key(from), &rev_key(to), |key, record| {
                    crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), record);
                    Ok(())
                })?;
            Ok(crc)
        };
        // The parts' hashes are mixed, not combined: what is timed is the reading.
        thread::scope(|scope| {
            let spawn = |thread| scope.spawn(move || hash_part(part(thread), part(thread + 1)));
            let workers: Vec<_> = (0..threads).map(spawn).collect();
            let mut hash = 0;
            for worker in workers {
                hash ^= worker.join().map_err(|_| "a hashing thread panicked")??;
            }
            Ok(Some(hash))
        })
    }

    /// Deletes what is superseded in chunks between the puts that are due.
    fn compact(&self, source: &mut dyn Source) -> Result<Compacted> {
        let start = Instant::now();
        let mut current = self.writer.lock();
        let floor = *current;
        let mut txn = Txn {
            main: *current + 1,
            puts: Vec::new(),
            record: Vec::new(),
        };
        let mut after: Option<Box<[u8]>> = None;
        let mut deleted = 0;
        let mut over = false;
        while !over {
            let mut batch = Batch::open();
            let mut put_last = false;
            let took = self.store.write(&mut |sink| {
                while !over && !batch.is_full() {
                    if put_last {
                        source.done();
                        put_last = false;
                    }
                    if source.ready() {
                        let Some((key, value)) = source.next() else {
                            continue;
                        };
                        self.put(&mut txn, sink, key, value)?;
                        self.publish(&mut txn);
                        batch.ops += 1;
                        put_last = true;
                        continue;
                    }
                    let mut dead = Vec::with_capacity(COMPACT_CHUNK);
                    after = self.trim(after.as_deref(), floor, &mut dead);
                    over = after.is_none();
                    for &rev in &dead {
                        sink.delete(&rev_key(rev))?;
                        batch.ops += 1;
                    }
                    deleted += dead.len() as u64;
                }
                Ok(())
            })?;
            self.pending.write().clear();
            if put_last {
                source.done();
            }
            source.synced(took);
            *current = txn.main - 1;
        }
        let took = start.elapsed();
        Ok(Compacted {
            call: took,
            all: took,
            deleted: Some(deleted),
        })
    }

    fn reclaim(&mut self, dir: &Path, scratch: &Path) -> Result<Option<u64>> {
        self.store.reclaim(dir, scratch).map(Some)
    }

    fn close(self) -> Result<()> {
        self.store.close()
    }
}
