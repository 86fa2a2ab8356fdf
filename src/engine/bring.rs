//! A store file copied from one disk to another: how a store in memory takes over a file.
//!
//! Apart because an open, a copy and a lock of the same file belong together, on a disk that is not the
//! store's. It copies bytes; what they mean is found when the copy is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::WriterLock;
use crate::error::{Error, Result};
use crate::pager::{Superblocks, bytes_with_upkeep};
use crate::sys::{Access, Disk, Storage};

/// A file that has been copied, locked until dropped.
#[derive(Debug)]
pub(crate) struct Brought {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: WriterLock,
    _file: Arc<dyn Storage>,
}

/// Copies the store file `path` of the disk `from` to a new file `name` of the disk `to`. A file that a
/// store of `store_bytes_max` would not have room for is not begun.
pub(crate) fn bring(
    from: &Arc<dyn Disk>,
    path: &Path,
    to: &dyn Disk,
    name: &Path,
    store_bytes_max: u64,
) -> Result<Brought> {
    let file = from
        .open(path, Access::ReadWrite)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::IsADirectory => Error::NotAStore {
                path: path.to_path_buf(),
            },
            _ => Error::io("open the store", error),
        })?;
    let lock = WriterLock::take(&*file, path)?;
    // What is no store is not copied.
    let segment_bytes = Superblocks::read(&*file, path)?.newest.segment_bytes;
    let max = bytes_with_upkeep(store_bytes_max, segment_bytes.into());
    let needed = file.len().map_err(Error::on("read the file's length"))?;
    if needed > max {
        return Err(Error::StoreFull { needed, max });
    }
    let copy = to
        .create_new(name)
        .map_err(Error::on("create the restored file"))?;
    if let Err(error) = copy_bytes(&*file, &*copy, needed) {
        let _ = to.remove(name);
        return Err(error);
    }
    Ok(Brought {
        disk: Arc::clone(from),
        path: path.to_path_buf(),
        _lock: lock,
        _file: file,
    })
}

impl Brought {
    /// Removes the file: its copy stands for it.
    pub(crate) fn remove(&self) -> Result<()> {
        self.disk
            .remove(&self.path)
            .map_err(Error::on("remove the restored file"))
    }
}

/// Copies `len` bytes; holes stay holes.
fn copy_bytes(from: &dyn Storage, to: &dyn Storage, len: u64) -> Result<()> {
    to.set_len(len)
        .map_err(Error::on("lengthen the restored file"))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < len {
        let size = usize::try_from(len - offset).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let bytes = &mut chunk[..size];
        from.read_at(bytes, offset)
            .map_err(Error::on("read the restored file"))?;
        if bytes.iter().any(|byte| *byte != 0) {
            to.write_at(bytes, offset)
                .map_err(Error::on("copy the restored file"))?;
        }
        offset += size as u64;
    }
    Ok(())
}

/// Bytes copied at a time.
const CHUNK_BYTES: usize = 1 << 20;
