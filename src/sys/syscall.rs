//! The system calls that neither std nor rustix offers: locks of open file descriptions, writing a
//! range out early, the page size.
//!
//! Apart because each needs `unsafe`; a safe function around each stands here. Knows nothing of
//! what is locked or written.
//!
//! # Thread safety
//!
//! No state: each function is one call into the kernel.
//!
//! # Invariants
//!
//! Descriptors are borrowed, so they are open for the whole call.

#![expect(unsafe_code, reason = "calls into libc")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::storage::{LockByte, LockMode};

/// Locks one byte for this open file description, without blocking; `false` if another holds it.
///
/// Such a lock (unlike POSIX record locks) belongs to the open file, so it also keeps out another
/// handle of this process, and is not lost when some other descriptor of the file is closed.
pub(super) fn try_lock_byte(
    file: BorrowedFd<'_>,
    byte: LockByte,
    mode: LockMode,
) -> io::Result<bool> {
    let kind = match mode {
        LockMode::Shared => libc::F_RDLCK,
        LockMode::Exclusive => libc::F_WRLCK,
    };
    match set_byte_lock(file, byte, kind) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Lets go of one byte.
pub(super) fn unlock_byte(file: BorrowedFd<'_>, byte: LockByte) -> io::Result<()> {
    set_byte_lock(file, byte, libc::F_UNLCK)
}

fn set_byte_lock(file: BorrowedFd<'_>, byte: LockByte, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: `flock` is plain integers, for which all zero bytes are a value.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).expect("lock kinds are 0, 1 and 2");
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).expect("SEEK_SET is 0");
    lock.l_start = byte.offset();
    lock.l_len = 1;
    // SAFETY: the descriptor is open, as it is borrowed; `lock` is a valid `flock`, which this
    // command only reads, and its `l_pid` is 0, as the command demands.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Begins to write a range out, without waiting for it.
pub(super) fn start_writeback(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let beyond = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = i64::try_from(offset).map_err(beyond)?;
    let len = i64::try_from(len).map_err(beyond)?;
    // SAFETY: the descriptor is open, as it is borrowed; the call takes no pointer.
    let result = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The size of a page of memory.
pub(crate) fn page_size() -> u64 {
    // SAFETY: takes no pointer; the name is one that every system knows.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).expect("Linux always answers with its page size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_size_is_a_power_of_two() {
        assert!(page_size().is_power_of_two());
        assert!(page_size() >= 4096);
    }
}
