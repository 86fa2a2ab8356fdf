//! What the simulated disk writes down: each call that can change what a crash leaves.
//!
//! Apart because the log of operations is all that a crash image is made from. Calls that fail
//! without effect are not in it, reads neither.

use std::path::{Path, PathBuf};

use super::super::content::Content;

/// The number of a file, whatever its names.
pub(super) type Inode = u64;

/// One effective call.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// A new, empty file under a name.
    Create { path: PathBuf, inode: Inode },
    /// Another name; who had it loses it.
    Rename { from: PathBuf, to: PathBuf },
    /// A name less.
    Remove { path: PathBuf },
    /// The names of a directory become durable.
    SyncDirectory { directory: PathBuf },
    /// Bytes into the cache.
    Write {
        inode: Inode,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Another length.
    SetLen { inode: Inode, len: u64 },
    /// Space for a range, and the length to its end.
    Allocate { inode: Inode, offset: u64, len: u64 },
    /// A hole.
    Punch { inode: Inode, offset: u64, len: u64 },
    /// A sync that succeeds; of all metadata, or of what reading the data needs.
    Sync { inode: Inode, all: bool },
    /// A sync that fails; a part of the sectors may have reached the disk.
    SyncFailed { inode: Inode, reached: Option<u64> },
    /// Not a call of the engine: a test replaced the file, on disk and in the cache.
    Replace {
        path: PathBuf,
        inode: Inode,
        content: Content,
    },
}

/// The directory of a file, in which its name stands.
pub(super) fn directory_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

/// The kinds of calls, for counting and for faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `Disk::open`.
    Open,
    /// `Disk::create_new`.
    CreateNew,
    /// `Disk::rename`.
    Rename,
    /// `Disk::remove`.
    Remove,
    /// `Disk::sync_directory`.
    SyncDirectory,
    /// `Storage::read_at`, also when a range is shown.
    ReadAt,
    /// `Storage::write_at`.
    WriteAt,
    /// `Storage::sync_data`.
    SyncData,
    /// `Storage::sync_all`.
    SyncAll,
    /// `Storage::allocate`.
    Allocate,
    /// `Storage::set_len`.
    SetLen,
    /// `Storage::punch`.
    Punch,
    /// `Storage::start_writeback`.
    StartWriteback,
    /// `Storage::show`.
    Show,
    /// `Storage::try_lock_writer` and `Storage::try_lock_byte`.
    Lock,
}
