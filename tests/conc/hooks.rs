//! A simulated disk that calls the test before and after its calls, so that one thread can be held
//! inside a call while another goes on.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use revtree::storage::sim::SimDisk;
use revtree::storage::{Access, Disk, Extent, FileIdentity, LockByte, LockMode, Storage};

/// Where a thread is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call<'a> {
    RenameNewBegins,
    LenEnded,
    /// These bytes were read at this offset.
    ReadEnded(u64, &'a [u8]),
    /// A write begins at this offset.
    WriteBegins(u64),
    SyncBegins,
    SyncEnded,
    /// Whether the lock was had.
    LockEnded(LockByte, LockMode, bool),
}

type Hook = dyn Fn(Call<'_>) + Send + Sync;

/// A disk with a hook.
#[derive(Clone)]
pub(crate) struct HookDisk {
    pub(crate) disk: SimDisk,
    pub(crate) hook: Arc<Hook>,
}

impl HookDisk {
    pub(crate) fn new(disk: &SimDisk, hook: impl Fn(Call<'_>) + Send + Sync + 'static) -> HookDisk {
        HookDisk {
            disk: disk.clone(),
            hook: Arc::new(hook),
        }
    }

    fn wrap(&self, file: Arc<dyn Storage>) -> Arc<dyn Storage> {
        let hook = Arc::clone(&self.hook);
        Arc::new(HookFile { file, hook })
    }
}

impl std::fmt::Debug for HookDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

/// Whether this is the thread of that name.
pub(crate) fn on(name: &str) -> bool {
    std::thread::current().name() == Some(name)
}

/// How far a test has come: threads wait for each other's steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stage {
    reached: Arc<(Mutex<u32>, Condvar)>,
}

impl Stage {
    /// Says that `step` is reached; `false` if it was before.
    pub(crate) fn reach(&self, step: u32) -> bool {
        let mut reached = self.reached.0.lock().unwrap();
        let first = *reached < step;
        *reached = step.max(*reached);
        self.reached.1.notify_all();
        first
    }

    pub(crate) fn has(&self, step: u32) -> bool {
        *self.reached.0.lock().unwrap() >= step
    }

    /// Waits for a step; not for ever, where a step need not come.
    pub(crate) fn wait(&self, step: u32, at_most: Duration) {
        let reached = self.reached.0.lock().unwrap();
        let behind = |reached: &mut u32| *reached < step;
        let _ = self.reached.1.wait_timeout_while(reached, at_most, behind);
    }
}

struct HookFile {
    file: Arc<dyn Storage>,
    hook: Arc<Hook>,
}

impl std::fmt::Debug for HookFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(f)
    }
}

impl Disk for HookDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Storage>> {
        self.disk.open(path, access).map(|file| self.wrap(file))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        self.disk.create_new(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)(Call::RenameNewBegins);
        self.disk.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn sync_directory(&self, path_of_file: &Path) -> io::Result<()> {
        self.disk.sync_directory(path_of_file)
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        self.disk.entropy()
    }
}

impl Storage for HookFile {
    fn len(&self) -> io::Result<u64> {
        let len = self.file.len();
        (self.hook)(Call::LenEnded);
        len
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buf, offset)?;
        (self.hook)(Call::ReadEnded(offset, buf));
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        (self.hook)(Call::WriteBegins(offset));
        self.file.write_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.hook)(Call::SyncBegins);
        let synced = self.file.sync_data();
        (self.hook)(Call::SyncEnded);
        synced
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }

    fn show(&self, extent: &mut Extent, offset: u64, len: u64) -> io::Result<()> {
        self.file.show(extent, offset, len)
    }

    fn try_lock_writer(&self) -> io::Result<bool> {
        self.file.try_lock_writer()
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.file.identity()
    }

    fn try_lock_byte(&self, byte: LockByte, mode: LockMode) -> io::Result<bool> {
        let had = self.file.try_lock_byte(byte, mode)?;
        (self.hook)(Call::LockEnded(byte, mode, had));
        Ok(had)
    }

    fn unlock_byte(&self, byte: LockByte) -> io::Result<()> {
        self.file.unlock_byte(byte)
    }
}
