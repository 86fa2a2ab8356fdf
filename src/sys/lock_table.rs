//! The locks of one file that exists in memory only.
//!
//! Follows the kernel's rules for `flock` and for locks of open file descriptions, as far as the seam
//! shows them: a lock belongs to a handle, a second request changes its mode, dropping the handle
//! lets go. Apart because the memory disk and the simulated disk share it.

use super::storage::{LockByte, LockMode};

/// Who holds what; handles are numbers that no other open handle of the disk has.
#[derive(Debug, Default)]
pub(super) struct LockTable {
    writer: Option<u64>,
    bytes: Vec<ByteLock>,
}

#[derive(Debug)]
struct ByteLock {
    handle: u64,
    byte: LockByte,
    mode: LockMode,
}

impl LockTable {
    /// Makes a handle the writer; `false` if another is.
    pub(super) fn try_lock_writer(&mut self, handle: u64) -> bool {
        *self.writer.get_or_insert(handle) == handle
    }

    /// Locks a byte for a handle, or changes its lock; `false` if another's lock forbids it.
    pub(super) fn try_lock_byte(&mut self, handle: u64, byte: LockByte, mode: LockMode) -> bool {
        let forbids = |held: &ByteLock| {
            held.handle != handle
                && held.byte == byte
                && (held.mode == LockMode::Exclusive || mode == LockMode::Exclusive)
        };
        if self.bytes.iter().any(forbids) {
            return false;
        }
        self.unlock_byte(handle, byte);
        self.bytes.push(ByteLock { handle, byte, mode });
        true
    }

    /// Lets go of a byte; nothing happens if the handle does not hold it.
    pub(super) fn unlock_byte(&mut self, handle: u64, byte: LockByte) {
        self.bytes
            .retain(|held| held.handle != handle || held.byte != byte);
    }

    /// Lets go of all that a handle holds.
    pub(super) fn release(&mut self, handle: u64) {
        self.writer.take_if(|writer| *writer == handle);
        self.bytes.retain(|held| held.handle != handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_kernel() {
        // The same steps as the test of the real file.
        let mut locks = LockTable::default();
        assert!(locks.try_lock_writer(1));
        assert!(!locks.try_lock_writer(2));
        assert!(locks.try_lock_writer(1));
        assert!(locks.try_lock_byte(1, LockByte::Readers, LockMode::Shared));
        assert!(locks.try_lock_byte(2, LockByte::Readers, LockMode::Shared));
        assert!(!locks.try_lock_byte(2, LockByte::Readers, LockMode::Exclusive));
        assert!(locks.try_lock_byte(2, LockByte::WriterAlive, LockMode::Exclusive));
        locks.unlock_byte(1, LockByte::Readers);
        assert!(locks.try_lock_byte(2, LockByte::Readers, LockMode::Exclusive));
        assert!(!locks.try_lock_byte(1, LockByte::Readers, LockMode::Shared));
        locks.release(2);
        assert!(locks.try_lock_byte(1, LockByte::WriterAlive, LockMode::Exclusive));
        assert!(!locks.try_lock_writer(2));
        locks.release(1);
        assert!(locks.try_lock_writer(2));
    }
}
