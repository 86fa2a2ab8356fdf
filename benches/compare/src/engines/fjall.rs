//! fjall below the layer: puts go to the journal's buffer and the memtable, a sync is `persist`.
//!
//! The journal is persisted by hand (`manual_journal_persist`), which spares fjall a write call
//! for each put: the sync rule asks for one sync a batch and nothing between. Readers see a put at
//! once, so it needs no pending buffer.

use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::Result;
use crate::engines::{CACHE_BYTES, SyncRule};
use crate::layer::{Reader, Sink, Store};
use crate::measure::FileSizes;
use crate::record::REV_KEY_BYTES;

pub(crate) struct Fjall {
    database: Database,
    revisions: Keyspace,
}

pub(crate) struct FjallReader<'s>(&'s Keyspace);

struct FjallSink<'s>(&'s Keyspace);

impl Store for Fjall {
    const SHOWS_OPEN_WRITES: bool = true;

    type Reader<'s> = FjallReader<'s>;

    /// The sync rule is the same call: the layer decides how much one persist covers.
    fn open(dir: &Path, _: SyncRule) -> Result<Fjall> {
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES.into())
            .open()?;
        let options = || KeyspaceCreateOptions::default().manual_journal_persist(true);
        let revisions = database.keyspace("key", options)?;
        Ok(Fjall {
            database,
            revisions,
        })
    }

    fn write(&self, fill: &mut dyn FnMut(&mut dyn Sink) -> Result<()>) -> Result<Duration> {
        fill(&mut FjallSink(&self.revisions))?;
        let start = Instant::now();
        self.database.persist(PersistMode::SyncData)?;
        Ok(start.elapsed())
    }

    fn reader(&self) -> Result<FjallReader<'_>> {
        Ok(FjallReader(&self.revisions))
    }

    /// `major_compact` blocks its caller only; replaced files are removed later, by themselves.
    fn reclaim(&mut self, dir: &Path, _: &Path) -> Result<u64> {
        self.revisions.rotate_memtable_and_wait()?;
        self.revisions.major_compact()?;
        Ok(FileSizes::of(dir)?.allocated)
    }

    fn close(self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

impl Sink for FjallSink<'_> {
    fn put(&mut self, key: &[u8; REV_KEY_BYTES], record: &[u8]) -> Result<()> {
        Ok(self.0.insert(*key, record)?)
    }

    fn delete(&mut self, key: &[u8; REV_KEY_BYTES]) -> Result<()> {
        Ok(self.0.remove(*key)?)
    }
}

impl Reader for FjallReader<'_> {
    fn get(
        &self,
        key: &[u8; REV_KEY_BYTES],
        read: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let Some(record) = self.0.get(key)? else {
            return Ok(false);
        };
        read(&record)?;
        Ok(true)
    }

    fn scan(
        &self,
        from: &[u8; REV_KEY_BYTES],
        to: &[u8; REV_KEY_BYTES],
        mut read: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        for pair in self.0.range(&from[..]..&to[..]) {
            let (key, record) = pair.into_inner()?;
            read(&key, &record)?;
        }
        Ok(())
    }
}
