//! A disk in memory: named files that nobody else sees and no crash survives.
//!
//! For stores without a file, and for tests that need no faults. It has the locks and the errors of
//! names that the real disk has, and no durability to speak of: a sync does nothing.

#![expect(
    clippy::disallowed_types,
    reason = "a disk in memory stands for the system"
)]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::content::Content;
use super::extent::Extent;
use super::file::system_entropy;
use super::lock_table::LockTable;
use super::storage::{Access, Disk, FileIdentity, LockByte, LockMode, Storage};

/// Files in memory, gone with the last handle and the disk.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    names: Mutex<BTreeMap<PathBuf, Arc<MemoryInode>>>,
    handles: AtomicU64,
}

#[derive(Debug)]
struct MemoryInode {
    number: u64,
    content: RwLock<Content>,
    locks: Mutex<LockTable>,
}

impl MemoryDisk {
    /// A disk without files.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<MemoryInode>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, inode: &Arc<MemoryInode>, access: Access) -> Arc<dyn Storage> {
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        Arc::new(MemoryFile {
            inode: Arc::clone(inode),
            handle,
            access,
        })
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Storage>> {
        let names = self.names();
        let inode = names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(inode, access))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        let mut names = self.names();
        if names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Arc::new(MemoryInode {
            number: self.handles.fetch_add(1, Ordering::Relaxed),
            content: RwLock::default(),
            locks: Mutex::default(),
        });
        names.insert(path.to_owned(), Arc::clone(&inode));
        Ok(self.handle(&inode, Access::ReadWrite))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        let inode = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        if names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.names().remove(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.names().contains_key(path))
    }

    fn sync_directory(&self, _path_of_file: &Path) -> io::Result<()> {
        Ok(())
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        system_entropy()
    }
}

/// One open file of a [`MemoryDisk`].
#[derive(Debug)]
struct MemoryFile {
    inode: Arc<MemoryInode>,
    handle: u64,
    access: Access,
}

impl MemoryFile {
    fn read<T>(&self, read: impl FnOnce(&Content) -> T) -> T {
        read(
            &self
                .inode
                .content
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn change(&self, change: impl FnOnce(&mut Content)) -> io::Result<()> {
        if self.access == Access::ReadOnly {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        change(
            &mut self
                .inode
                .content
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        Ok(())
    }

    fn locks(&self) -> MutexGuard<'_, LockTable> {
        self.inode
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.read(Content::len))
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.read(Content::allocated_bytes))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let whole = self.read(|content| content.read(buf, offset));
        if whole {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        end_of(offset, buf.len() as u64)?;
        self.change(|content| content.write(buf, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        // Memory cannot be promised, so space is not reserved, only the length is set.
        let end = end_of(offset, len)?;
        self.change(|content| {
            if content.len() < end {
                content.set_len(end);
            }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        end_of(len, 0)?;
        self.change(|content| content.set_len(len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(|content| content.punch(offset, len))
    }

    fn start_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn show(&self, extent: &mut Extent, offset: u64, len: u64) -> io::Result<()> {
        extent.show_copy(offset, len, |buf, at| self.read_at(buf, at))
    }

    fn try_lock_writer(&self) -> io::Result<bool> {
        Ok(self.locks().try_lock_writer(self.handle))
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        // Two memory disks may number alike; the inode's address tells them apart while it lives.
        let device = std::ptr::from_ref(&*self.inode).addr() as u64;
        Ok(FileIdentity {
            device,
            inode: self.inode.number,
        })
    }

    fn try_lock_byte(&self, byte: LockByte, mode: LockMode) -> io::Result<bool> {
        Ok(self.locks().try_lock_byte(self.handle, byte, mode))
    }

    fn unlock_byte(&self, byte: LockByte) -> io::Result<()> {
        self.locks().unlock_byte(self.handle, byte);
        Ok(())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.locks().release(self.handle);
    }
}

/// The end of a range, which like a real file's is below 2^63.
pub(super) fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    let end = offset
        .checked_add(len)
        .filter(|&end| i64::try_from(end).is_ok());
    end.ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Region;

    #[test]
    fn files_have_names_bytes_and_locks() {
        let (store, other) = (Path::new("store"), Path::new("other"));
        let disk = MemoryDisk::new();
        let file = disk.create_new(store).expect("new");
        let taken = disk.create_new(store).expect_err("taken").kind();
        assert_eq!(taken, io::ErrorKind::AlreadyExists);
        file.write_at(b"revision", 100).expect("written");
        disk.rename(store, other).expect("renamed");
        assert!(!disk.exists(store).expect("asked") && disk.exists(other).expect("asked"));
        let reader = disk.open(other, Access::ReadOnly).expect("opened");
        assert_eq!(
            reader.identity().expect("known"),
            file.identity().expect("known")
        );
        let mut buf = [0; 8];
        reader.read_at(&mut buf, 100).expect("read");
        assert_eq!(&buf, b"revision");
        let end = reader.read_at(&mut buf, 101).expect_err("too far").kind();
        assert_eq!(end, io::ErrorKind::UnexpectedEof);
        reader.write_at(b"x", 0).expect_err("read only");
        assert!(file.try_lock_writer().expect("asked"));
        assert!(!reader.try_lock_writer().expect("asked"));
        drop(file);
        assert!(reader.try_lock_writer().expect("asked"));
        disk.remove(other).expect("removed");
        assert_eq!(reader.len().expect("still open"), 108);
    }

    #[test]
    fn a_region_shows_its_bytes() {
        let file = MemoryDisk::new()
            .create_new(Path::new("store"))
            .expect("new");
        file.allocate(0, 1 << 16).expect("lengthened");
        file.write_at(b"revision", 4096).expect("written");
        let region = Region::reserve(1 << 16, 1 << 16).expect("a little");
        let mut extent = region.claim(0, 1 << 16).expect("free");
        file.show(&mut extent, 0, 1 << 16).expect("shown");
        extent.publish(1 << 16);
        assert_eq!(region.bytes(4096, 8), Some(&b"revision"[..]));
    }
}
