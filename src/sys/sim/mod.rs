//! A simulated disk that crashes, fails and fills up, the same way for the same seed.
//!
//! It writes down every call that changes something, so one run yields the disk after a power cut at
//! *any* operation and with *any* choice of what survived, without running again.
//!
//! # The fault model: what may break
//!
//! 1. **Power cut.** Of the sectors (512 bytes) written since the file's last successful sync, each one
//!    for itself may be as at that sync, as after any write since, torn between old and new at a
//!    border of 8 bytes, or garbage. In garbage, only the bytes written change if
//!    [`SimOptions::power_safe_overwrite`] holds, else any byte of the sector.
//! 2. **Length.** It is apart from the bytes: whatever the length was since the durable one may be on
//!    disk, with or without the bytes. `sync_data` makes durable a shorter length, and of a longer
//!    one as much as reading the written bytes needs; an allocated end behind them may be lost
//!    until `sync_all`. Bytes never written read as zero.
//! 3. **Names.** Of the changes to a directory since its last sync, the first few survive, from none
//!    to all, whatever happened to the files' bytes. A rename is not torn.
//! 4. **Failed sync.** The dirty sectors stay in the cache and are clean: reads see them, no later
//!    sync writes them, a power cut loses them, unless they are written again. With
//!    [`FaultPlan::short`], chance lets half of them reach the disk.
//! 5. **Kill.** The process ends, the cache stays: all that was written is there, and still pending.
//! 6. **Failing calls**: any call, the nth or all from the nth, with nothing or a part of it done.
//! 7. **Full disk**: a write or an allocation that needs more than the capacity fails with `ENOSPC`.
//! 8. **Damage**: bytes changed, files cut or put in place by the test.
//!
//! # What may not break
//!
//! Sectors that were synced and not written since. A sync that succeeds has written all that was
//! dirty; a disk that lies is damage, made by putting old bytes back. Reads return what was written
//! while the machine runs.

#![expect(clippy::disallowed_types, reason = "a simulated machine, for tests")]

mod choice;
mod crash;
mod fault;
mod file;
mod model;
mod operation;
mod random;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::content::Content;
use super::lock_table::LockTable;
use super::storage::{Access, Disk, Storage};
use fault::Faults;
use file::SimFile;
use model::Model;
use operation::{Inode, Operation, directory_of};

pub use choice::{
    Choice, Cut, EXHAUSTIVE_SECTORS_MAX, Mask, PendingSector, Sampled, Survival, edge_masks,
    every_mask,
};
pub use fault::FaultPlan;
pub use operation::Call;
pub use random::Random;

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
    options: SimOptions,
}

/// What a simulated disk is like.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    /// Where entropy, and chance in faults, come from.
    pub seed: u64,
    /// Does a write that the power cut interrupts leave the bytes beside it alone, in the same
    /// sector? Disks promise it, SQLite assumes it too.
    pub power_safe_overwrite: bool,
    /// Does a sync let other threads go on, as one that waits for a disk does? Without it, a thread is
    /// seldom met inside of one.
    pub yields: bool,
}

impl Default for SimOptions {
    fn default() -> SimOptions {
        SimOptions {
            seed: 0,
            power_safe_overwrite: true,
            yields: false,
        }
    }
}

/// The disk and the running system around it.
struct Machine {
    /// The disk before the first operation of the log.
    base: Model,
    log: Vec<Operation>,
    /// The disk now.
    now: Model,
    /// The disk at the operation last asked for: images in increasing order cost one step each.
    replay: Option<(usize, Model)>,
    faults: Faults,
    capacity: Option<u64>,
    random: Random,
    locks: BTreeMap<Inode, LockTable>,
    handles: u64,
    bytes_read: u64,
    /// Differs from disk to disk in this process, so that an image is never the same file as the
    /// original.
    device: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(options: SimOptions) -> SimDisk {
        SimDisk::over(Model::default(), options)
    }

    fn over(model: Model, options: SimOptions) -> SimDisk {
        static DEVICES: AtomicU64 = AtomicU64::new(1);
        let machine = Machine {
            base: model.clone(),
            log: Vec::new(),
            now: model,
            replay: None,
            faults: Faults::default(),
            capacity: None,
            random: Random::new(options.seed),
            locks: BTreeMap::new(),
            handles: 0,
            bytes_read: 0,
            device: DEVICES.fetch_add(1, Ordering::Relaxed),
        };
        SimDisk {
            machine: Arc::new(Mutex::new(machine)),
            options,
        }
    }

    /// Makes a call fail. Plans add up; each counts from when it was given.
    pub fn fail(&self, plan: FaultPlan) {
        self.machine().faults.add(plan);
    }

    /// From now on calls succeed.
    pub fn clear_faults(&self) {
        self.machine().faults.clear();
    }

    /// Limits the space of all files together; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.machine().capacity = bytes;
    }

    /// How often a kind of call was made, since the start or the last reset.
    pub fn count(&self, call: Call) -> u64 {
        self.machine().faults.count(call)
    }

    /// How many bytes were read by position, since the start: what an open or a check costs.
    pub fn bytes_read(&self) -> u64 {
        self.machine().bytes_read
    }

    /// Counts from zero again.
    pub fn reset_counts(&self) {
        self.machine().faults.reset_counts();
    }

    /// The names of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.machine().now.paths()
    }

    /// A file's bytes, as a read would see them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let machine = self.machine();
        let inode = machine.now.inode(path)?;
        Some(machine.now.file(inode).cached.to_vec())
    }

    /// Puts a file in place, durable with its name. Counts as an operation. A file that is open
    /// under this name keeps its handles, which see the new bytes.
    pub fn put_bytes(&self, path: &Path, bytes: &[u8]) {
        let mut machine = self.machine();
        let inode = machine
            .now
            .inode(path)
            .unwrap_or_else(|| machine.now.next_inode());
        let content = Content::from_bytes(bytes);
        machine.perform(Operation::Replace {
            path: path.to_owned(),
            inode,
            content,
        });
    }

    /// Damages a file: `damage` changes its bytes, which are the durable ones then.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such file.
    pub fn damage(&self, path: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut bytes = self.bytes(path).ok_or(io::ErrorKind::NotFound)?;
        damage(&mut bytes);
        self.put_bytes(path, &bytes);
        Ok(())
    }

    /// Damages `len` bytes of a file.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such file, `UnexpectedEof` if it ends before.
    pub fn corrupt(
        &self,
        path: &Path,
        offset: u64,
        len: usize,
        corrupt: impl FnOnce(&mut [u8]),
    ) -> io::Result<()> {
        let mut bytes = self.bytes(path).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = start..start.saturating_add(len);
        corrupt(bytes.get_mut(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        self.put_bytes(path, &bytes);
        Ok(())
    }

    /// Cuts a file, or lengthens it by zeros, behind everyone's back.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such file.
    pub fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.damage(path, |bytes| bytes.resize(len, 0))
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, machine: &mut Machine, inode: Inode, access: Access) -> Arc<dyn Storage> {
        machine.handles += 1;
        Arc::new(SimFile::new(self.clone(), inode, machine.handles, access))
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the operations, of which there may be millions.
        f.debug_struct("SimDisk")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// Does an operation and writes it down.
    fn perform(&mut self, operation: Operation) {
        self.now.apply(&operation);
        self.log.push(operation);
    }

    /// Counts a call; fails if a plan says so.
    fn enter(&mut self, call: Call) -> io::Result<()> {
        match self.faults.enter(call) {
            Some(plan) => Err(plan.error()),
            None => Ok(()),
        }
    }

    /// Is there space for so many more bytes?
    fn has_space(&self, missing: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if missing > 0 && self.now.allocated_bytes() + missing > capacity => {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            _ => Ok(()),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Storage>> {
        let mut machine = self.machine();
        machine.enter(Call::Open)?;
        let inode = machine.now.inode(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&mut machine, inode, access))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        let mut machine = self.machine();
        machine.enter(Call::CreateNew)?;
        if machine.now.inode(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = machine.now.next_inode();
        machine.perform(Operation::Create {
            path: path.to_owned(),
            inode,
        });
        Ok(self.handle(&mut machine, inode, Access::ReadWrite))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.machine().now.inode(to).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        machine.enter(Call::Rename)?;
        machine.now.inode(from).ok_or(io::ErrorKind::NotFound)?;
        // Names are kept in order within a directory; between two there would be more cases.
        if directory_of(from) != directory_of(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        machine.perform(Operation::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        machine.enter(Call::Remove)?;
        machine.now.inode(path).ok_or(io::ErrorKind::NotFound)?;
        machine.perform(Operation::Remove {
            path: path.to_owned(),
        });
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.machine().now.inode(path).is_some())
    }

    fn sync_directory(&self, path_of_file: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        machine.enter(Call::SyncDirectory)?;
        machine.perform(Operation::SyncDirectory {
            directory: directory_of(path_of_file),
        });
        Ok(())
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        self.machine().random.fill(&mut bytes);
        Ok(bytes)
    }
}
