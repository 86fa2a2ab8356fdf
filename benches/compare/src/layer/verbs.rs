//! The layer's answers to what the workloads ask: the batches, the gets, the compaction.

use std::ops::Bound;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::Result;
use crate::engines::{BATCH_AGE, BATCH_OPS, Compacted, Engine, Source, SyncRule};
use crate::layer::dead::Dead;
use crate::layer::{Layer, Pending, Reader, Store, Txn, load_index};
use crate::record::{Rev, key_and_create, rev_key, value};

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
        let mut dead = Dead::new(floor);
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
                    if !dead.is_complete() {
                        dead.find_chunk(&self.index);
                        continue;
                    }
                    let chunk = dead.take_chunk();
                    over = chunk.is_empty();
                    for rev in chunk {
                        sink.delete(&rev_key(rev))?;
                        batch.ops += 1;
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
        let took = start.elapsed();
        Ok(Compacted {
            call: took,
            all: took,
            deleted: Some(dead.found()),
        })
    }

    fn reclaim(&mut self, dir: &Path, scratch: &Path) -> Result<Option<u64>> {
        self.store.reclaim(dir, scratch).map(Some)
    }

    fn close(self) -> Result<()> {
        self.store.close()
    }
}
