//! The power cut of a filesystem: the call that ext4 and XFS have for it.
//!
//! Apart because the call is `unsafe`.

#![expect(unsafe_code, reason = "an ioctl that no crate has a safe function for")]

use std::fs::File;
use std::io;

use rustix::ioctl::{Setter, ioctl, opcode};

/// `FS_IOC_SHUTDOWN`, of the kernel's `include/uapi/linux/fs.h`.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// What is not yet in the journal is lost, and so is what of the journal is not on the disk.
const NO_LOG_FLUSH: u32 = 2;

/// From now on nothing reaches the disk under the filesystem of this file or folder, and every call on it
/// fails until it is mounted again.
pub(super) fn shutdown(on: &File) -> io::Result<()> {
    // SAFETY: the call reads one `u32`, as its number says; a filesystem that does not know it refuses it.
    let call = unsafe { Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
    // SAFETY: the file is open, as it is borrowed, and the number lives until the call returns.
    unsafe { ioctl(on, call) }?;
    Ok(())
}
