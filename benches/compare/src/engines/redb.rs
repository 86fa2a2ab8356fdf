//! redb below the layer: one write transaction a batch, committed with `Durability::Immediate`.
//!
//! A transaction of `Durability::None` for each put would cost a commit each; the open batch with
//! the layer's buffer of pending records is the quicker way to the same sync rule. A get opens its
//! own read transaction, as a request would.

use std::path::Path;
use std::time::{Duration, Instant};

use redb::{Database, ReadOnlyTable, ReadableDatabase, Table, TableDefinition};

use crate::Result;
use crate::engines::{CACHE_BYTES, SyncRule};
use crate::layer::{Reader, Sink, Store};
use crate::measure::FileSizes;
use crate::record::REV_KEY_BYTES;

type RevTable = TableDefinition<'static, &'static [u8; REV_KEY_BYTES], &'static [u8]>;
const REVISIONS: RevTable = TableDefinition::new("key");

pub(crate) struct Redb(Database);

pub(crate) struct RedbReader(ReadOnlyTable<&'static [u8; REV_KEY_BYTES], &'static [u8]>);

struct RedbSink<'t>(Table<'t, &'static [u8; REV_KEY_BYTES], &'static [u8]>);

impl Store for Redb {
    const SHOWS_OPEN_WRITES: bool = false;

    type Reader<'s> = RedbReader;

    /// The sync rule is the same call: the layer decides how much one transaction holds.
    fn open(dir: &Path, _: SyncRule) -> Result<Redb> {
        let cache_bytes = usize::try_from(CACHE_BYTES)?;
        let database = Database::builder()
            .set_cache_size(cache_bytes)
            .create(dir.join("store.redb"))?;
        let txn = database.begin_write()?;
        txn.open_table(REVISIONS)?;
        txn.commit()?;
        Ok(Redb(database))
    }

    fn write(&self, fill: &mut dyn FnMut(&mut dyn Sink) -> Result<()>) -> Result<Duration> {
        let txn = self.0.begin_write()?;
        let mut sink = RedbSink(txn.open_table(REVISIONS)?);
        fill(&mut sink)?;
        drop(sink);
        let start = Instant::now();
        txn.commit()?;
        Ok(start.elapsed())
    }

    fn reader(&self) -> Result<RedbReader> {
        Ok(RedbReader(self.0.begin_read()?.open_table(REVISIONS)?))
    }

    /// `compact` may meet no transaction at all: every request waits while it runs.
    fn reclaim(&mut self, dir: &Path, _: &Path) -> Result<u64> {
        self.0.compact()?;
        Ok(FileSizes::of(dir)?.allocated)
    }

    fn close(self) -> Result<()> {
        self.0.close()?;
        Ok(())
    }
}

impl Sink for RedbSink<'_> {
    fn put(&mut self, key: &[u8; REV_KEY_BYTES], record: &[u8]) -> Result<()> {
        self.0.insert(key, record)?;
        Ok(())
    }

    fn delete(&mut self, key: &[u8; REV_KEY_BYTES]) -> Result<()> {
        self.0.remove(key)?;
        Ok(())
    }
}

impl Reader for RedbReader {
    fn get(
        &self,
        key: &[u8; REV_KEY_BYTES],
        read: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let Some(record) = self.0.get(key)? else {
            return Ok(false);
        };
        read(record.value())?;
        Ok(true)
    }

    fn scan(
        &self,
        from: &[u8; REV_KEY_BYTES],
        to: &[u8; REV_KEY_BYTES],
        mut read: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        for pair in self.0.range::<&[u8; REV_KEY_BYTES]>(from..to)? {
            let (key, record) = pair?;
            read(key.value(), record.value())?;
        }
        Ok(())
    }
}
