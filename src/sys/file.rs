//! The real disk: files of a local Linux filesystem, read and written by position.
//!
//! Apart because it is the only file that opens one. Writes never go through a mapping, so a full
//! disk and a failing one are errors here and not signals. Crash-safe creation is not here: the
//! layer above does it with `create_new`, `rename` and `sync_directory`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use super::extent::Extent;
use super::storage::{Access, Disk, FileIdentity, LockByte, LockMode, Storage};
use super::syscall;

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Storage>> {
        let write = access == Access::ReadWrite;
        // A pipe without a writer would keep the open waiting; to a regular file the flag means nothing.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(flags)
            .open(path)?;
        if !file.metadata()?.is_file() {
            let what = "it is no regular file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(Arc::new(RealFile { file }))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn sync_directory(&self, path_of_file: &Path) -> io::Result<()> {
        // A bare file name has the empty parent; its directory is the current one.
        let directory = match path_of_file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        system_entropy()
    }
}

/// Sixteen bytes of the kernel's randomness.
pub(super) fn system_entropy() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // Up to 256 bytes come whole and uninterrupted, once the kernel's generator is seeded; before
    // that the call waits, which a signal may end.
    let got = uninterrupted(|| rustix::rand::getrandom(&mut bytes[..], GetRandomFlags::empty()))?;
    if got == bytes.len() {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// One open file of a [`RealDisk`].
#[derive(Debug)]
struct RealFile {
    file: File,
}

impl Drop for RealFile {
    fn drop(&mut self) {
        // Locks belong to the open file, of which a child that has been forked and not yet replaced by
        // its program holds a copy: without this it would keep them for a moment after us.
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
        for byte in [LockByte::Readers, LockByte::WriterAlive] {
            let _ = syscall::unlock_byte(self.file.as_fd(), byte);
        }
    }
}

impl Storage for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        // `blocks` counts units of 512 bytes whatever the filesystem's block size is.
        Ok(self.file.metadata()?.blocks().saturating_mul(512))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::empty(), offset, len) {
            Err(error) if error == Errno::OPNOTSUPP => {
                let end = offset.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
                if end > self.len()? {
                    self.file.set_len(end)
                } else {
                    Ok(())
                }
            }
            result => Ok(result?),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, mode, offset, len)?)
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        // To the kernel a length of zero means "to the end of the file".
        if len == 0 {
            Ok(())
        } else {
            syscall::start_writeback(self.file.as_fd(), offset, len)
        }
    }

    fn show(&self, extent: &mut Extent, offset: u64, len: u64) -> io::Result<()> {
        extent.show_file(&self.file, offset, len)
    }

    fn try_lock_writer(&self) -> io::Result<bool> {
        match uninterrupted(|| {
            rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive)
        }) {
            Ok(()) => Ok(true),
            Err(error) if error == Errno::WOULDBLOCK => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        let metadata = self.file.metadata()?;
        Ok(FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn try_lock_byte(&self, byte: LockByte, mode: LockMode) -> io::Result<bool> {
        syscall::try_lock_byte(self.file.as_fd(), byte, mode)
    }

    fn unlock_byte(&self, byte: LockByte) -> io::Result<()> {
        syscall::unlock_byte(self.file.as_fd(), byte)
    }
}

fn fallocate(file: &File, mode: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
    uninterrupted(|| rustix::fs::fallocate(file, mode, offset, len))
}

/// Calls again for as long as a signal interrupts.
fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(error) if error == Errno::INTR => {}
            result => return result,
        }
    }
}

// Not under Miri, which has no such files.
#[cfg(all(test, not(miri)))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tempfile::TempDir;

    use super::*;
    use crate::sys::Region;
    use crate::sys::syscall::page_size;

    fn file() -> (TempDir, Arc<dyn Storage>, Arc<dyn Storage>) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store");
        let first = RealDisk.create_new(&path).expect("a new file");
        let second = RealDisk
            .open(&path, Access::ReadWrite)
            .expect("a second handle");
        (directory, first, second)
    }

    #[test]
    fn creates_a_private_file_once() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let (path, other) = (
            directory.path().join("store"),
            directory.path().join("other"),
        );
        assert!(!RealDisk.exists(&path).expect("searched"));
        RealDisk.create_new(&path).expect("a new file");
        let mode = fs::metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o077, 0);
        let error = RealDisk.create_new(&path).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        RealDisk.rename(&path, &other).expect("renamed");
        RealDisk.sync_directory(&other).expect("synced");
        assert!(!RealDisk.exists(&path).expect("searched"));
        RealDisk.remove(&other).expect("removed");
        let error = RealDisk
            .open(&other, Access::ReadOnly)
            .expect_err("removed");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn reads_what_was_written_and_not_past_the_end() {
        let (_directory, file, other) = file();
        file.write_at(b"revision", 4096).expect("written");
        assert_eq!(other.len().expect("a length"), 4104);
        let mut buf = [0; 8];
        other.read_at(&mut buf, 4096).expect("read");
        assert_eq!(&buf, b"revision");
        let error = other.read_at(&mut buf, 4097).expect_err("one byte too far");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        file.sync_data().expect("synced");
        file.sync_all().expect("synced");
        file.start_writeback(0, 8192).expect("a hint");
    }

    #[test]
    fn a_read_only_handle_can_sync_but_not_write() {
        let (directory, _file, _) = file();
        let reader = RealDisk
            .open(&directory.path().join("store"), Access::ReadOnly)
            .expect("opened");
        reader.sync_data().expect("allowed on Linux");
        reader.write_at(b"x", 0).expect_err("read only");
        assert!(
            reader
                .try_lock_byte(LockByte::Readers, LockMode::Shared)
                .expect("asked")
        );
    }

    #[test]
    fn allocation_takes_space_and_punching_gives_it_back() {
        let (_directory, file, _) = file();
        file.allocate(0, 1 << 20).expect("allocated");
        assert_eq!(file.len().expect("a length"), 1 << 20);
        assert!(file.allocated_bytes().expect("counted") >= 1 << 20);
        file.write_at(&[1; 100], 65_536).expect("written");
        file.punch(0, 1 << 19).expect("punched");
        assert_eq!(file.len().expect("a length"), 1 << 20);
        assert!(file.allocated_bytes().expect("counted") < 1 << 20);
        let mut buf = [1; 100];
        file.read_at(&mut buf, 65_536).expect("read");
        assert_eq!(buf, [0; 100]);
        file.set_len(10).expect("cut");
        assert_eq!(file.len().expect("a length"), 10);
        file.allocate(0, 0).expect("nothing to do");
        file.punch(0, 0).expect("nothing to do");
    }

    #[test]
    fn one_writer_at_a_time() {
        let (_directory, first, second) = file();
        assert!(first.try_lock_writer().expect("asked"));
        assert!(!second.try_lock_writer().expect("asked"));
        assert!(first.try_lock_writer().expect("its own"));
        drop(first);
        assert!(second.try_lock_writer().expect("asked"));
    }

    #[test]
    fn byte_locks_are_held_by_handles() {
        let (_directory, first, second) = file();
        let try_lock = |file: &Arc<dyn Storage>, mode| {
            file.try_lock_byte(LockByte::Readers, mode).expect("asked")
        };
        assert!(try_lock(&first, LockMode::Shared));
        assert!(try_lock(&second, LockMode::Shared));
        assert!(!try_lock(&second, LockMode::Exclusive));
        let alive = second.try_lock_byte(LockByte::WriterAlive, LockMode::Exclusive);
        assert!(alive.expect("asked"), "the other byte is free");
        first.unlock_byte(LockByte::Readers).expect("let go");
        assert!(try_lock(&second, LockMode::Exclusive));
        assert!(!try_lock(&first, LockMode::Shared));
        assert!(
            try_lock(&second, LockMode::Shared),
            "gives exclusiveness up"
        );
        assert!(try_lock(&first, LockMode::Shared));
        drop(first);
        assert!(try_lock(&second, LockMode::Exclusive));
    }

    #[test]
    fn two_names_are_one_file() {
        let (directory, first, second) = file();
        assert_eq!(
            first.identity().expect("known"),
            second.identity().expect("known")
        );
        let other = RealDisk
            .create_new(&directory.path().join("other"))
            .expect("a new file");
        assert_ne!(
            first.identity().expect("known"),
            other.identity().expect("known")
        );
    }

    #[test]
    fn entropy_differs() {
        assert_ne!(
            RealDisk.entropy().expect("random"),
            RealDisk.entropy().expect("random")
        );
    }

    /// The region's promise: while a reader runs in a loop over published bytes, memory becomes
    /// mapping and nobody can tell; slices taken before stay valid.
    #[test]
    fn pages_are_replaced_under_a_reader() {
        const EXTENT: u64 = 256 << 10;
        const EXTENTS: u64 = 32;
        let (_directory, file, _) = file();
        file.allocate(0, EXTENT * EXTENTS).expect("allocated");
        let region = Region::reserve(EXTENT * EXTENTS, EXTENT).expect("eight megabytes");
        let byte_of = |at: u64| u8::try_from(at / 512 * 7 % 251).expect("below 251");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for at in (0..EXTENT * EXTENTS).step_by(512) {
                        let Some(bytes) = region.bytes(at, 512) else {
                            break;
                        };
                        assert!(bytes.iter().all(|&byte| byte == byte_of(at)), "at {at}");
                    }
                }
            });
            for start in (0..EXTENTS).map(|n| n * EXTENT) {
                let mut extent = region.claim(start, EXTENT).expect("free");
                for at in (start..extent.end()).step_by(512) {
                    extent
                        .write(at, &[byte_of(at); 512])
                        .expect("above the floor");
                }
                let len = usize::try_from(EXTENT).expect("small");
                file.write_at(extent.bytes(start, len).expect("its own"), start)
                    .expect("written");
                extent.publish(extent.end());
                let before = region.bytes(start, len).expect("published");
                file.sync_data().expect("synced");
                file.show(&mut extent, start, EXTENT).expect("shown");
                assert!(before.iter().step_by(512).enumerate().all(|(n, &byte)| {
                    byte == byte_of(start + 512 * u64::try_from(n).expect("small"))
                }));
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn neighbours_become_one_mapping() {
        // Each process has a limit of 65,530 mappings: segments must not take one each.
        let (_directory, file, _) = file();
        let (page, count) = (page_size(), 64);
        file.set_len(page * count).expect("lengthened");
        let region = Region::reserve(page * count, page).expect("a little");
        let mut extents = Vec::new();
        for n in 0..count {
            let mut extent = region.claim(n * page, page).expect("free");
            extent.publish(extent.end());
            file.show(&mut extent, n * page, page).expect("shown");
            extents.push(extent);
        }
        let inode = file.identity().expect("known").inode.to_string();
        let maps = fs::read_to_string("/proc/self/maps").expect("Linux has it");
        let mine = maps
            .lines()
            .filter(|line| line.split_whitespace().nth(4) == Some(&inode));
        assert_eq!(mine.count(), 1);
    }

    #[test]
    fn shows_no_page_behind_the_end_and_no_other_bytes() {
        let (_directory, file, _) = file();
        let page = page_size();
        file.set_len(page).expect("lengthened");
        let region = Region::reserve(16 * page, 16 * page).expect("a little");
        let mut extent = region.claim(0, 16 * page).expect("free");
        let error = file
            .show(&mut extent, 0, 2 * page)
            .expect_err("behind the end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        extent
            .write(0, b"not in the file")
            .expect("above the floor");
        extent.publish(15);
        let error = file.show(&mut extent, 0, page).expect_err("other bytes");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(region.bytes(0, 15), Some(&b"not in the file"[..]));
        file.write_at(b"not in the file", 0).expect("written");
        file.show(&mut extent, 0, page).expect("now it is");
        assert_eq!(region.bytes(0, 15), Some(&b"not in the file"[..]));
        assert_eq!(extent.write(15, b"x"), None, "a shown page is not written");
        extent.write(page, b"x").expect("plain memory behind it");
        region.populate(0, page);
        region.read_ahead(0, page);
    }
}
