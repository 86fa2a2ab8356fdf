//! revtree through its public door, one file per store; nothing of the layer is used.
//!
//! A get opens its own view, as a peer's get opens its own read transaction, and reads the value
//! where it lies. Records are checked by revtree itself.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use revtree::{Db, Durability, Options, Outcome};

use crate::Result;
use crate::engines::{BATCH_AGE, BATCH_OPS, Compacted, Engine, Source, SyncRule};
use crate::measure::FileSizes;

pub(crate) struct Revtree {
    db: Db,
    opened_in: Duration,
}

impl Engine for Revtree {
    fn open(dir: &Path, sync: SyncRule) -> Result<Revtree> {
        let durability = match sync {
            SyncRule::Batched => Durability::Batched {
                changes: BATCH_OPS,
                interval: BATCH_AGE,
            },
            SyncRule::Durable => Durability::Sync,
        };
        let start = Instant::now();
        let db = Options::new()
            .durability(durability)
            .open(dir.join("store.rvt"))?;
        Ok(Revtree {
            db,
            opened_in: start.elapsed(),
        })
    }

    fn opened_in(&self) -> Duration {
        self.opened_in
    }

    fn rev(&self) -> u64 {
        self.db.rev().get()
    }

    /// The store syncs by its own clock, beside the writer; only the last sync is waited for.
    fn write(&self, puts_per_txn: u32, source: &mut dyn Source) -> Result<()> {
        let mut over = false;
        while !over {
            if puts_per_txn == 1 {
                let Some((key, value)) = source.next() else {
                    break;
                };
                self.db.put(key, value)?;
            } else {
                let mut txn = self.db.write()?;
                for _ in 0..puts_per_txn {
                    let Some((key, value)) = source.next() else {
                        over = true;
                        break;
                    };
                    txn.put(key, value)?;
                }
                txn.commit()?;
            }
            source.done();
        }
        let start = Instant::now();
        self.db.sync()?;
        source.synced(start.elapsed());
        Ok(())
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.put(key, value)?;
        Ok(())
    }

    fn get(
        &self,
        key: &[u8],
        rev: Option<u64>,
        read: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let view = match rev {
            None => self.db.read()?,
            Some(rev) => self.db.read_at(rev)?,
        };
        let Some(record) = view.get(key)? else {
            return Ok(false);
        };
        read(record.value())?;
        Ok(true)
    }

    fn range(
        &self,
        start: &[u8],
        end: &[u8],
        mut read: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let view = self.db.read()?;
        for record in view.range(start..end) {
            let record = record?;
            read(record.key(), record.value())?;
        }
        Ok(())
    }

    fn count(&self) -> Result<u64> {
        Ok(self.db.read()?.range(..).count()?)
    }

    /// etcd's hash over the whole history. It takes the threads it finds, which are the two of
    /// `hash_2t` on the machine of record; one thread cannot be asked for.
    fn hash(&self, threads: u32) -> Result<Option<u32>> {
        if threads == 1 {
            return Ok(None);
        }
        Ok(Some(self.db.hash_by_rev(0u64)?.hash))
    }

    fn compact(&self, source: &mut dyn Source) -> Result<Compacted> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let compaction = scope.spawn(|| -> Result<Compacted> {
                let start = Instant::now();
                let compaction = self.db.compact(self.db.rev());
                let call = start.elapsed();
                let outcome = compaction.map(|compaction| compaction.wait());
                over.store(true, Ordering::Release);
                match outcome? {
                    Outcome::Done => Ok(Compacted {
                        call,
                        all: start.elapsed(),
                        deleted: None,
                    }),
                    other => Err(format!("the compaction was {other:?}").into()),
                }
            });
            let mut put = || -> Result<()> {
                while !over.load(Ordering::Acquire) {
                    let Some((key, value)) = source.next() else {
                        break;
                    };
                    self.db.put(key, value)?;
                    source.done();
                }
                Ok(())
            };
            let written = put();
            let compacted = compaction
                .join()
                .map_err(|_| "the compacting thread panicked")?;
            written?;
            compacted
        })
    }

    /// Space comes back in the background, behind `compact`; this moves what is left together and cuts the file.
    fn reclaim(&mut self, dir: &Path, _: &Path) -> Result<Option<u64>> {
        self.db.reclaim()?;
        Ok(Some(FileSizes::of(dir)?.allocated))
    }

    fn close(self) -> Result<()> {
        Ok(self.db.close()?)
    }
}
