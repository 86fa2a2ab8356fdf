//! Where the bytes come from, and the only place that asks for them.
//!
//! A read beyond the end of the file is damage and not an error, because an offset comes from the file
//! itself; and no read is longer than the file, so a damaged length cannot ask for memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use revtree_format::FormatError;

/// Bytes that can be read at any offset.
pub trait ReadAt {
    /// Up to `len` bytes from `offset` on; fewer only at the end.
    ///
    /// # Errors
    /// What the medium answers.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Number of bytes.
    ///
    /// # Errors
    /// What the medium answers.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is no byte.
    ///
    /// # Errors
    /// What the medium answers.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(<[u8]>::len(self));
        let to = from.saturating_add(len).min(<[u8]>::len(self));
        Ok(self[from..to].to_vec())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(<[u8]>::len(self) as u64)
    }
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match FileExt::read_at(self, &mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Why a piece of the file could not be had.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The bytes are not what SPEC says.
    Damage(FormatError),
    /// The medium failed.
    Io(io::Error),
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Failure {
        Failure::Damage(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

/// A file whose length is known.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    bytes: &'a dyn ReadAt,
    len: u64,
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a dyn ReadAt) -> io::Result<Source<'a>> {
        Ok(Source {
            bytes,
            len: bytes.len()?,
        })
    }

    pub(crate) fn len(self) -> u64 {
        self.len
    }

    /// Exactly `len` bytes at `offset`.
    pub(crate) fn exact(self, offset: u64, len: usize) -> Result<Vec<u8>, Failure> {
        let end = offset.saturating_add(len as u64);
        if end > self.len {
            return Err(FormatError::new(offset, "end of file", end, self.len).into());
        }
        let bytes = self.bytes.read_at(offset, len)?;
        if bytes.len() < len {
            let found = offset + bytes.len() as u64;
            return Err(FormatError::new(offset, "end of file", end, found).into());
        }
        Ok(bytes)
    }
}
