//! LMDB (through heed) below the layer: `MDB_APPEND`, since revision keys only grow.
//!
//! Under the batched rule the environment is opened `MDB_NOSYNC` and synced once after the commit:
//! one flush for data and meta page instead of two. LMDB gives up its order of writes for that (a
//! crash may leave a meta page whose tree is not on disk), so it is the quickest that LMDB can be,
//! not what one would run. Durable puts use its default, two flushes.
#![expect(unsafe_code, reason = "heed marks opening a map of a file unsafe")]

use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, Instant};

use heed::types::Bytes;
use heed::{
    CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn,
    RwTxn, WithTls,
};

use crate::Result;
use crate::engines::SyncRule;
use crate::layer::{Reader, Sink, Store};
use crate::measure::FileSizes;
use crate::record::REV_KEY_BYTES;

/// Address space only; larger than any workload's file.
const MAP_BYTES: usize = 64 << 30;

type Revisions = Database<'static, Bytes, Bytes>;

pub(crate) struct Lmdb {
    env: Env,
    revisions: Revisions,
    sync: SyncRule,
}

pub(crate) struct LmdbReader<'s> {
    txn: RoTxn<'s, WithTls>,
    revisions: Revisions,
}

struct LmdbSink<'t, 's> {
    txn: &'t mut RwTxn<'s>,
    revisions: Revisions,
}

impl Store for Lmdb {
    const SHOWS_OPEN_WRITES: bool = false;

    type Reader<'s> = LmdbReader<'s>;

    fn open(dir: &Path, sync: SyncRule) -> Result<Lmdb> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        if sync == SyncRule::Batched {
            // SAFETY: NO_SYNC endangers the data at a power loss, not memory; the store is thrown
            // away at the end of the run.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: the directory was made by this run and nobody else knows it, so no other process
        // changes the file under the map.
        let env = unsafe { options.open(dir) }?;
        let revisions = env
            .create_databases_and_commit(env.write_txn()?, |opener, txn| {
                opener
                    .create_database(txn, None)
                    .map(CommitOrAbort::<_, ()>::Commit)
            })?
            .commit()
            .ok_or("the database was not made")?;
        Ok(Lmdb {
            env,
            revisions,
            sync,
        })
    }

    fn write(&self, fill: &mut dyn FnMut(&mut dyn Sink) -> Result<()>) -> Result<Duration> {
        let mut txn = self.env.write_txn()?;
        fill(&mut LmdbSink {
            txn: &mut txn,
            revisions: self.revisions,
        })?;
        let start = Instant::now();
        txn.commit()?;
        if self.sync == SyncRule::Batched {
            self.env.force_sync()?;
        }
        Ok(start.elapsed())
    }

    fn reader(&self) -> Result<LmdbReader<'_>> {
        Ok(LmdbReader {
            txn: self.env.read_txn()?,
            revisions: self.revisions,
        })
    }

    /// The file never shrinks in place: what comes back is what a compacting copy would leave.
    fn reclaim(&mut self, _: &Path, scratch: &Path) -> Result<u64> {
        let copy = scratch.join("data.mdb");
        self.env
            .copy_to_path(&copy, CompactionOption::Enabled)?
            .sync_data()?;
        let allocated = FileSizes::of(&copy)?.allocated;
        fs::remove_file(&copy)?;
        Ok(allocated)
    }

    fn close(self) -> Result<()> {
        if self.sync == SyncRule::Batched {
            self.env.force_sync()?;
        }
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

impl Sink for LmdbSink<'_, '_> {
    fn put(&mut self, key: &[u8; REV_KEY_BYTES], record: &[u8]) -> Result<()> {
        Ok(self
            .revisions
            .put_with_flags(self.txn, PutFlags::APPEND, key, record)?)
    }

    fn delete(&mut self, key: &[u8; REV_KEY_BYTES]) -> Result<()> {
        self.revisions.delete(self.txn, key)?;
        Ok(())
    }
}

impl Reader for LmdbReader<'_> {
    fn get(
        &self,
        key: &[u8; REV_KEY_BYTES],
        read: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let Some(record) = self.revisions.get(&self.txn, key)? else {
            return Ok(false);
        };
        read(record)?;
        Ok(true)
    }

    fn scan(
        &self,
        from: &[u8; REV_KEY_BYTES],
        to: &[u8; REV_KEY_BYTES],
        mut read: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        for pair in self.revisions.range(&self.txn, &bounds)? {
            let (key, record) = pair?;
            read(key, record)?;
        }
        Ok(())
    }
}
