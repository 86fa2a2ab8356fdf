//! The seam: what the engine asks of a disk and of an open file.
//!
//! Every byte that the engine reads or writes goes through these two traits, so one engine runs on a
//! real file, in memory, and on a simulated disk that crashes. They speak of bytes, offsets and
//! lengths; they know nothing of segments, frames or records. Apart from `region`, which is about
//! addresses, and from the implementations, which are one file each.
//!
//! Offsets are bare `u64` here, below the newtypes of the format.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::extent::Extent;

/// Where files live: open, create, rename, remove.
///
/// None of the calls that change names is durable before [`Disk::sync_directory`].
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a file that exists.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none, `InvalidInput` if it is no regular file (found without waiting), and whatever the system says.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Storage>>;

    /// Creates an empty file that only its owner may read, and opens it for reading and writing.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if the name is taken: two creators cannot both win.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn Storage>>;

    /// Gives the file `from` the name `to`; a file that had this name loses it.
    ///
    /// # Errors
    ///
    /// `NotFound`, and whatever the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file `from` the name `to` if no file has it.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if one has; `NotFound`, and whatever the system says.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name. A file that is still open stays readable through its handles.
    ///
    /// # Errors
    ///
    /// `NotFound`, and whatever the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Is there a file of this name?
    ///
    /// # Errors
    ///
    /// When the directory cannot be searched.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes the names in the directory of this file durable.
    ///
    /// # Errors
    ///
    /// When the directory cannot be opened or synced.
    fn sync_directory(&self, path_of_file: &Path) -> io::Result<()>;

    /// Sixteen bytes that nobody can guess, for file ids and hash keys. The simulation draws them
    /// from its seed, so that a run can be repeated.
    ///
    /// # Errors
    ///
    /// When the system has no randomness to give.
    fn entropy(&self) -> io::Result<[u8; 16]>;
}

/// One open file. Calls may come from several threads at once.
pub trait Storage: Send + Sync + fmt::Debug + 'static {
    /// The file's length.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn len(&self) -> io::Result<u64>;

    /// Is the file empty?
    ///
    /// # Errors
    ///
    /// As [`Storage::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The bytes that the file takes on its disk, which holes do not.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn allocated_bytes(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset`; interrupted and short reads are continued.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file ends before; then `buf` holds anything.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `buf` at `offset`; interrupted and short writes are continued.
    ///
    /// # Errors
    ///
    /// Part of `buf` may have been written. A write of no byte that was due is `WriteZero`.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Makes written bytes durable, and as much of the length as is needed to read them again.
    /// Works on a file that is open for reading only: whoever wrote the bytes, they are durable.
    ///
    /// # Errors
    ///
    /// After an error nobody knows what is durable. Calling again is no cure: the system may have
    /// marked the lost pages clean, and then says yes.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`Storage::sync_data`], and all of the file's metadata.
    ///
    /// # Errors
    ///
    /// As [`Storage::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Gets space for a range, so that writes into it cannot find the disk full, and lengthens the
    /// file to its end. Bytes never written read as zero. Where the filesystem cannot do this, the
    /// file is only lengthened.
    ///
    /// # Errors
    ///
    /// `StorageFull` on a full disk; the length may then have any value between.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Cuts the file, or lengthens it by a hole.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Gives the space of a range back; it reads as zero, and the length stays.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the filesystem knows no holes; nothing has changed then.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Asks the system to begin writing a range out, without waiting. A hint: makes nothing
    /// durable.
    ///
    /// # Errors
    ///
    /// Callers may ignore them: a write that fails in the background fails the next sync.
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes a range of an extent show the file's bytes: a real file is mapped there, any other is
    /// copied. Offset and length are multiples of the page size and lie in the file.
    ///
    /// # Errors
    ///
    /// `InvalidData` if published bytes differ from the file's; the extent then stays as it was.
    fn show(&self, extent: &mut Extent, offset: u64, len: u64) -> io::Result<()>;

    /// Tries to become the one writer; the lock ends with this handle or with the process. A child
    /// process that is forked while the file is open shares the lock, and keeps it.
    ///
    /// # Errors
    ///
    /// Not for a lock that someone else holds: that is `false`.
    fn try_lock_writer(&self) -> io::Result<bool>;

    /// Which file this is, however it was named.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn identity(&self) -> io::Result<FileIdentity>;

    /// Tries to lock one of two bytes far behind any file's end; held by this handle, not by the
    /// process, and gone with it. A second call changes the mode. Never blocks. An exclusive lock
    /// needs a handle open for writing.
    ///
    /// # Errors
    ///
    /// Not for a lock that someone else holds: that is `false`.
    fn try_lock_byte(&self, byte: LockByte, mode: LockMode) -> io::Result<bool>;

    /// Lets go of one of the two bytes.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn unlock_byte(&self, byte: LockByte) -> io::Result<()>;
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No call may change the file, and none is tried.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// The two locked bytes; neither ever holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockByte {
    /// Shared by read-only openers; a writer that can have it exclusively may reuse space.
    Readers,
    /// Held by a writer that is alive and has not failed.
    WriterAlive,
}

impl LockByte {
    /// Where the byte lies: at 2^62 and behind it, beyond the largest file of any filesystem.
    pub(super) const fn offset(self) -> i64 {
        match self {
            LockByte::Readers => 1 << 62,
            LockByte::WriterAlive => (1 << 62) + 1,
        }
    }
}

/// How a byte is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Beside other shared locks.
    Shared,
    /// Alone.
    Exclusive,
}

/// Device and number of a file: two names of one file have the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// The device.
    pub device: u64,
    /// The file's number on its device.
    pub inode: u64,
}
