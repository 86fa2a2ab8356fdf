//! A real disk whose process dies in the n-th call of one kind: before it, after it, or halfway.
//!
//! Halfway is what a kill can leave of one call: a write and an allocation are ended between two of
//! their pages. The process kills itself with SIGKILL, so no destructor and no buffer of ours runs.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use revtree::storage::{Access, Disk, Extent, FileIdentity, LockByte, LockMode, RealDisk, Storage};

use super::shutdown::shutdown;

/// Kinds of calls: each of the seam's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Open,
    CreateNew,
    Rename,
    RenameNew,
    Remove,
    Exists,
    SyncDirectory,
    Entropy,
    Len,
    AllocatedBytes,
    Read,
    Write,
    SyncData,
    SyncAll,
    Allocate,
    SetLen,
    Punch,
    StartWriteback,
    Show,
    LockWriter,
    Identity,
    LockByte,
    UnlockByte,
}

/// Where in the call the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    Halfway,
    After,
}

impl Call {
    /// Those that a process makes in which nothing fails, the most telling ones several times: without
    /// [`Call::Remove`], [`Call::Punch`] and [`Call::StartWriteback`].
    const ALL: [Call; 27] = [
        Call::Write,
        Call::SyncData,
        Call::Allocate,
        Call::SyncAll,
        Call::Read,
        Call::CreateNew,
        Call::RenameNew,
        Call::SyncDirectory,
        Call::Rename,
        Call::Open,
        Call::Write,
        Call::SyncData,
        Call::Show,
        Call::Entropy,
        Call::Exists,
        Call::Len,
        Call::LockWriter,
        Call::LockByte,
        Call::UnlockByte,
        Call::Identity,
        Call::Write,
        Call::SyncData,
        Call::Allocate,
        Call::SyncAll,
        Call::AllocatedBytes,
        Call::SetLen,
        Call::Write,
    ];

    /// Each kind with each side that it has.
    pub(super) fn ways() -> Vec<(Call, Side)> {
        let sides = [Side::Before, Side::Halfway, Side::After];
        let of_side = |side| Call::ALL.map(|call| (call, side));
        sides
            .into_iter()
            .flat_map(of_side)
            .filter(|(call, side)| *side != Side::Halfway || call.has_middle())
            .collect()
    }

    fn has_middle(self) -> bool {
        matches!(self, Call::Write | Call::Allocate)
    }

    /// Whether it is only called around a file's life, not for each commit.
    pub(super) fn is_rare(self) -> bool {
        !matches!(
            self,
            Call::Write | Call::SyncData | Call::Read | Call::Show | Call::Allocate
        )
    }

    /// Its name in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Call::Open => "in open",
            Call::CreateNew => "in create_new",
            Call::Rename => "in rename",
            Call::RenameNew => "in rename_new",
            Call::Remove => "in remove",
            Call::Exists => "in exists",
            Call::SyncDirectory => "in sync_directory",
            Call::Entropy => "in entropy",
            Call::Len => "in len",
            Call::AllocatedBytes => "in allocated_bytes",
            Call::Read => "in read_at",
            Call::Write => "in write_at",
            Call::SyncData => "in sync_data",
            Call::SyncAll => "in sync_all",
            Call::Allocate => "in allocate",
            Call::SetLen => "in set_len",
            Call::Punch => "in punch",
            Call::StartWriteback => "in start_writeback",
            Call::Show => "in show",
            Call::LockWriter => "in try_lock_writer",
            Call::Identity => "in identity",
            Call::LockByte => "in try_lock_byte",
            Call::UnlockByte => "in unlock_byte",
        }
    }
}

/// The power is being cut by this process, or has been: what its other threads have to tell now comes too late.
static IS_CUT: AtomicBool = AtomicBool::new(false);

/// Whether the power is still there.
pub(super) fn has_power() -> bool {
    !IS_CUT.load(Ordering::SeqCst)
}

/// Which call kills.
#[derive(Debug)]
struct Trigger {
    kill: Option<(Call, Side)>,
    left: AtomicU64,
    /// The filesystem whose power is cut first.
    power: Option<File>,
}

/// The disk.
#[derive(Clone, Debug)]
pub(super) struct KillDisk {
    trigger: Arc<Trigger>,
}

#[derive(Debug)]
struct KillFile {
    file: Arc<dyn Storage>,
    trigger: Arc<Trigger>,
}

/// Ends this process as `kill -9` does.
pub(super) fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // Not reached but for the moment that the signal takes; if it were refused, the parent would see this.
    std::process::abort()
}

impl KillDisk {
    /// A disk that kills in the `nth` call, counted from 1; or never. With a file or a folder, its
    /// filesystem loses its power at the same moment.
    pub(super) fn new(kill: Option<(Call, Side, u64)>, power: Option<File>) -> KillDisk {
        let nth = kill.map_or(0, |(_, _, nth)| nth);
        KillDisk {
            trigger: Arc::new(Trigger {
                kill: kill.map(|(call, side, _)| (call, side)),
                left: AtomicU64::new(nth),
                power,
            }),
        }
    }

    fn wrap(&self, file: Arc<dyn Storage>) -> Arc<dyn Storage> {
        let trigger = Arc::clone(&self.trigger);
        Arc::new(KillFile { file, trigger })
    }
}

impl Trigger {
    fn pass<T>(&self, call: Call, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.pass_halves(call, || {}, make)
    }

    fn pass_halves<T>(
        &self,
        call: Call,
        half: impl FnOnce(),
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let here = self.kill.filter(|(wanted, _)| *wanted == call);
        let here = here.filter(|_| self.left.fetch_sub(1, Ordering::SeqCst) == 1);
        match here.map(|(_, side)| side) {
            None => return make(),
            Some(Side::Before) => {}
            Some(Side::Halfway) => half(),
            Some(Side::After) => {
                let _ = make();
            }
        }
        if self.power.is_some() {
            IS_CUT.store(true, Ordering::SeqCst);
        }
        if let Some(Err(error)) = self.power.as_ref().map(shutdown) {
            eprintln!("the power cannot be cut: {error}");
            std::process::abort();
        }
        die()
    }
}

impl Disk for KillDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Storage>> {
        let open = || RealDisk.open(path, access);
        self.trigger
            .pass(Call::Open, open)
            .map(|file| self.wrap(file))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        let create = || RealDisk.create_new(path);
        self.trigger
            .pass(Call::CreateNew, create)
            .map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.trigger
            .pass(Call::Rename, || RealDisk.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.trigger
            .pass(Call::RenameNew, || RealDisk.rename_new(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.trigger.pass(Call::Remove, || RealDisk.remove(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.trigger.pass(Call::Exists, || RealDisk.exists(path))
    }

    fn sync_directory(&self, path_of_file: &Path) -> io::Result<()> {
        self.trigger.pass(Call::SyncDirectory, || {
            RealDisk.sync_directory(path_of_file)
        })
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        self.trigger.pass(Call::Entropy, || RealDisk.entropy())
    }
}

impl Storage for KillFile {
    fn len(&self) -> io::Result<u64> {
        self.trigger.pass(Call::Len, || self.file.len())
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.trigger
            .pass(Call::AllocatedBytes, || self.file.allocated_bytes())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.trigger
            .pass(Call::Read, || self.file.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let half = || {
            let _ = self.file.write_at(&buf[..buf.len() / 2], offset);
        };
        let write = || self.file.write_at(buf, offset);
        self.trigger.pass_halves(Call::Write, half, write)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.trigger.pass(Call::SyncData, || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.trigger.pass(Call::SyncAll, || self.file.sync_all())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let half = || {
            let _ = self.file.allocate(offset, len / 2);
        };
        let allocate = || self.file.allocate(offset, len);
        self.trigger.pass_halves(Call::Allocate, half, allocate)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.trigger.pass(Call::SetLen, || self.file.set_len(len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.trigger
            .pass(Call::Punch, || self.file.punch(offset, len))
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.trigger.pass(Call::StartWriteback, || {
            self.file.start_writeback(offset, len)
        })
    }

    fn show(&self, extent: &mut Extent, offset: u64, len: u64) -> io::Result<()> {
        self.trigger
            .pass(Call::Show, || self.file.show(extent, offset, len))
    }

    fn try_lock_writer(&self) -> io::Result<bool> {
        self.trigger
            .pass(Call::LockWriter, || self.file.try_lock_writer())
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.trigger.pass(Call::Identity, || self.file.identity())
    }

    fn try_lock_byte(&self, byte: LockByte, mode: LockMode) -> io::Result<bool> {
        self.trigger
            .pass(Call::LockByte, || self.file.try_lock_byte(byte, mode))
    }

    fn unlock_byte(&self, byte: LockByte) -> io::Result<()> {
        self.trigger
            .pass(Call::UnlockByte, || self.file.unlock_byte(byte))
    }
}
