//! The snapshot file: its hash, and its pages by positioned reads of bounded size.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use revtree_format::etcd::{Pages, SnapshotLayout};
use revtree_format::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::mvcc::Store;
use crate::options::{Progress, ProgressFn};
use crate::sys::{Access, Disk, Storage};

/// An etcd snapshot, or a plain copy of its database, open for reading.
pub(super) struct Source {
    storage: Arc<dyn Storage>,
    layout: SnapshotLayout,
    progress: Option<ProgressFn>,
    bytes_read: Cell<u64>,
}

/// How much is hashed at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// The longest page that is read: bbolt does not split a page of four pairs, however long they are. So a
/// longer one holds something that no store could take, and a crafted length costs no more than this.
const PAGE_BYTES_MAX: usize = 4 * (VALUE_BYTES_MAX + 2 * KEY_BYTES_MAX);

impl Source {
    /// Opens the file and looks where its parts are.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        progress: Option<ProgressFn>,
    ) -> Result<Source> {
        let storage = disk
            .open(path, Access::ReadOnly)
            .map_err(Error::on("open the snapshot"))?;
        let len = storage
            .len()
            .map_err(Error::on("read the snapshot's length"))?;
        Ok(Source {
            storage,
            layout: SnapshotLayout::of(len)?,
            progress,
            bytes_read: Cell::new(0),
        })
    }

    /// Checks the SHA-256 at the end; `false` if there is none.
    pub(super) fn check_hash(&self) -> Result<bool> {
        if !self.layout.has_hash {
            return Ok(false);
        }
        let end = self.layout.database_bytes;
        let mut sum = Sha256::new();
        let mut block = vec![0; BLOCK_BYTES];
        let mut at = 0;
        while at < end {
            let len = usize::try_from(end - at).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
            self.fill(&mut block[..len], at)?;
            sum.update(&block[..len]);
            at += len as u64;
            self.tell("snapshot bytes hashed", at, Some(end));
        }
        let found = sum.finalize();
        let mut expected = found;
        self.fill(&mut expected, end)?;
        if found != expected {
            return Err(Error::Import {
                offset: end,
                what: "the snapshot does not have the SHA-256 that it ends with".into(),
            });
        }
        Ok(true)
    }

    /// Tells how far the import is.
    pub(super) fn tell(&self, what: &'static str, done: u64, total: Option<u64>) {
        if let Some(progress) = &self.progress {
            Store::refuse_writes(|| progress(Progress { what, done, total }));
        }
    }

    /// Bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    fn fill(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.storage
            .read_at(buf, offset)
            .map_err(Error::on("read the snapshot"))?;
        self.bytes_read
            .set(self.bytes_read.get() + buf.len() as u64);
        Ok(())
    }
}

impl Pages for Source {
    type Bytes = Vec<u8>;
    type Error = Error;

    fn size(&self) -> u64 {
        self.layout.database_bytes
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        if len > PAGE_BYTES_MAX {
            return Err(Error::Import {
                offset,
                what: format!("a page of {len} bytes is longer than any that could be imported"),
            });
        }
        let mut page = Vec::new();
        page.try_reserve_exact(len)
            .map_err(|_| Error::OutOfMemory {
                what: "a page of the snapshot",
                bytes: len as u64,
            })?;
        page.resize(len, 0);
        self.fill(&mut page, offset)?;
        Ok(page)
    }
}
