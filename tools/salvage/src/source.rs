//! The damaged file: locked against a writer, only ever read. What the medium refuses to read counts as
//! zeros, which no checksum accepts, and is remembered for the report.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use revtree_format::limits::BLOCK_BYTES;

use crate::failure::{Refused, Result};

/// A file of known length, and its blocks that could not be read.
pub(crate) struct Source {
    file: File,
    len: u64,
    unreadable: RefCell<BTreeSet<u64>>,
}

impl Source {
    /// Opens the file for reading, and keeps writers away while it is open.
    pub(crate) fn open(path: &Path) -> Result<Source> {
        let refused = |error: io::Error| Refused::file(path, &error);
        let file = File::open(path).map_err(refused)?;
        let metadata = file.metadata().map_err(refused)?;
        if !metadata.is_file() {
            return Err(Refused(format!("{} is no file", path.display())));
        }
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                return Err(Refused(format!(
                    "{path} is locked: it is open for writing elsewhere"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
        Ok(Source {
            file,
            len: metadata.len(),
            unreadable: RefCell::default(),
        })
    }

    /// Length of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// `len` bytes from `at` on; `None` when the file ends before.
    pub(crate) fn bytes(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        if at.checked_add(len as u64)? > self.len {
            return None;
        }
        let mut bytes = vec![0; len];
        if self.file.read_exact_at(&mut bytes, at).is_err() {
            self.read_blocks(&mut bytes, at);
        }
        Some(bytes)
    }

    /// Bytes in blocks that the medium refused.
    pub(crate) fn unreadable_bytes(&self) -> u64 {
        self.unreadable.borrow().len() as u64 * BLOCK_BYTES
    }

    /// Reads block by block, so that a bad one costs no other.
    fn read_blocks(&self, bytes: &mut [u8], at: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let from = at + done as u64;
            let left = BLOCK_BYTES - from % BLOCK_BYTES;
            let step = usize::try_from(left).map_or(1, |left| left.min(bytes.len() - done));
            let piece = &mut bytes[done..done + step];
            if self.file.read_exact_at(piece, from).is_err() {
                piece.fill(0);
                self.unreadable.borrow_mut().insert(from / BLOCK_BYTES);
            }
            done += step;
        }
    }
}
