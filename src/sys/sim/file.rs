//! One open file of the simulated disk: each call counted, failed if planned, written down.
//!
//! Apart from the disk because it is the seam's other half. What a planned fault leaves behind is
//! decided here, call by call.

use std::io;

use super::super::extent::Extent;
use super::super::lock_table::LockTable;
use super::super::memory::end_of;
use super::super::page_size;
use super::super::storage::{Access, FileIdentity, LockByte, LockMode, Storage};
use super::operation::{Call, Inode, Operation};
use super::{Machine, SimDisk};
use crate::sync::thread;

/// A handle; its locks go with it.
#[derive(Debug)]
pub(super) struct SimFile {
    disk: SimDisk,
    inode: Inode,
    handle: u64,
    access: Access,
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, inode: Inode, handle: u64, access: Access) -> SimFile {
        SimFile {
            disk,
            inode,
            handle,
            access,
        }
    }

    fn writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    fn sync(&self, call: Call) -> io::Result<()> {
        self.let_others_go_on();
        let synced = self.sync_now(call);
        self.let_others_go_on();
        synced
    }

    fn let_others_go_on(&self) {
        if self.disk.options.yields {
            thread::yield_now();
        }
    }

    fn sync_now(&self, call: Call) -> io::Result<()> {
        let mut machine = self.disk.machine();
        let inode = self.inode;
        let Some(plan) = machine.faults.enter(call) else {
            machine.perform(Operation::Sync {
                inode,
                all: call == Call::SyncAll,
            });
            return Ok(());
        };
        let reached = plan.short.then(|| machine.random.draw());
        machine.perform(Operation::SyncFailed { inode, reached });
        Err(plan.error())
    }

    fn locked<T>(&self, change: impl FnOnce(&mut LockTable, u64) -> T, machine: &mut Machine) -> T {
        change(machine.locks.entry(self.inode).or_default(), self.handle)
    }
}

impl Storage for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.machine().now.file(self.inode).cached.len())
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self
            .disk
            .machine()
            .now
            .file(self.inode)
            .cached
            .allocated_bytes())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut machine = self.disk.machine();
        machine.enter(Call::ReadAt)?;
        machine.bytes_read += buf.len() as u64;
        let whole = machine.now.file(self.inode).cached.read(buf, offset);
        if whole {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.writable()?;
        end_of(offset, buf.len() as u64)?;
        let mut machine = self.disk.machine();
        let inode = self.inode;
        let fault = machine.faults.enter(Call::WriteAt);
        let len = match &fault {
            None => buf.len(),
            Some(plan) if plan.short => buf.len() / 2,
            Some(_) => 0,
        };
        let bytes = buf[..len].to_vec();
        if !bytes.is_empty() {
            let missing = machine
                .now
                .file(inode)
                .cached
                .missing_bytes(offset, len as u64);
            machine.has_space(missing)?;
            machine.perform(Operation::Write {
                inode,
                offset,
                bytes,
            });
        }
        fault.map_or(Ok(()), |plan| Err(plan.error()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Call::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Call::SyncAll)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writable()?;
        end_of(offset, len)?;
        let mut machine = self.disk.machine();
        let inode = self.inode;
        let fault = machine.faults.enter(Call::Allocate);
        let len = match &fault {
            None => len,
            Some(plan) if plan.short => len / 2,
            Some(_) => 0,
        };
        if len > 0 {
            machine.has_space(machine.now.file(inode).cached.missing_bytes(offset, len))?;
            machine.perform(Operation::Allocate { inode, offset, len });
        }
        fault.map_or(Ok(()), |plan| Err(plan.error()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        end_of(len, 0)?;
        let mut machine = self.disk.machine();
        machine.enter(Call::SetLen)?;
        machine.perform(Operation::SetLen {
            inode: self.inode,
            len,
        });
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writable()?;
        end_of(offset, len)?;
        let mut machine = self.disk.machine();
        machine.enter(Call::Punch)?;
        machine.perform(Operation::Punch {
            inode: self.inode,
            offset,
            len,
        });
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        // Dirty sectors may reach the disk at any time as it is.
        self.disk.machine().enter(Call::StartWriteback)
    }

    fn show(&self, extent: &mut Extent, offset: u64, len: u64) -> io::Result<()> {
        // A real file could not be mapped otherwise.
        let whole = offset.is_multiple_of(page_size()) && len.is_multiple_of(page_size());
        assert!(whole, "pages are shown: {len} bytes at {offset}");
        self.disk.machine().enter(Call::Show)?;
        extent.show_copy(offset, len, |buf, at| self.read_at(buf, at))
    }

    fn try_lock_writer(&self) -> io::Result<bool> {
        let mut machine = self.disk.machine();
        machine.enter(Call::Lock)?;
        Ok(self.locked(LockTable::try_lock_writer, &mut machine))
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity {
            device: self.disk.machine().device,
            inode: self.inode,
        })
    }

    fn try_lock_byte(&self, byte: LockByte, mode: LockMode) -> io::Result<bool> {
        if mode == LockMode::Exclusive {
            self.writable()?;
        }
        let mut machine = self.disk.machine();
        machine.enter(Call::Lock)?;
        Ok(self.locked(
            |locks, handle| locks.try_lock_byte(handle, byte, mode),
            &mut machine,
        ))
    }

    fn unlock_byte(&self, byte: LockByte) -> io::Result<()> {
        let mut machine = self.disk.machine();
        self.locked(
            |locks, handle| locks.unlock_byte(handle, byte),
            &mut machine,
        );
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut machine = self.disk.machine();
        self.locked(LockTable::release, &mut machine);
    }
}
