//! Storage that keeps what is written from one offset on, in memory, and nothing else.
//!
//! Apart because it is no file: an image of a store is made by the code that writes a store, and what
//! it would write into one piece of the file is caught here. It cannot be read, mapped or locked.

#![expect(
    clippy::disallowed_types,
    reason = "filled by whoever writes an image, read by nobody else"
)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::extent::Extent;
use super::storage::{FileIdentity, LockByte, LockMode, Storage};

/// The piece of a file that is wanted: from an offset on.
#[derive(Debug)]
pub(crate) struct Window {
    from: AtomicU64,
    bytes: Mutex<Vec<u8>>,
}

impl Window {
    /// Keeps what is written at `from` and behind it.
    pub(crate) fn new(from: u64) -> Window {
        Window {
            from: AtomicU64::new(from),
            bytes: Mutex::default(),
        }
    }

    /// Keeps nothing for now.
    pub(crate) fn closed() -> Window {
        Window::new(u64::MAX)
    }

    /// Keeps from now on what is written at `from` and behind it.
    pub(crate) fn open(&self, from: u64) {
        self.from.store(from, Ordering::Relaxed);
    }

    /// What was kept: bytes from the offset on, with zeros where nothing was written.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes())
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Window {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let from = self.from.load(Ordering::Relaxed);
        let before = usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(buf) = buf.get(before..).filter(|buf| !buf.is_empty()) else {
            return Ok(());
        };
        let at = offset.saturating_sub(from);
        let at = usize::try_from(at).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let end = at
            .checked_add(buf.len())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let mut bytes = self.bytes();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(at..end) {
            place.copy_from_slice(buf);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn show(&self, _extent: &mut Extent, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn try_lock_writer(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn try_lock_byte(&self, _byte: LockByte, _mode: LockMode) -> io::Result<bool> {
        Ok(false)
    }

    fn unlock_byte(&self, _byte: LockByte) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the wanted piece is kept, and what was not written reads as zero.
    #[test]
    fn keeps_the_wanted_piece() {
        let window = Window::closed();
        window.write_at(b"before", 4090).expect("dropped");
        window.open(4096);
        window.write_at(b"cut first", 4092).expect("kept in part");
        window.write_at(b"below", 0).expect("dropped");
        window.write_at(b"second", 4104).expect("kept");
        assert_eq!(window.take(), b"first\0\0\0second");
        assert!(window.take().is_empty());
    }
}
