//! All input and output of the engine, behind one seam.
//!
//! [`Disk`] and [`Storage`] are what the engine asks for; a real file, a disk in memory and a
//! simulated disk that crashes answer. [`Region`] is the address space in which a store's bytes
//! lie; an [`Extent`] of it is written as memory first and shown from the file later. Nothing here
//! knows segments, frames or records, and nothing above opens a file, maps memory or reads a clock.
//! Linux only: locks of open file descriptions, `fallocate`, and pages replaced under their readers.

mod clock;
mod content;
mod extent;
mod file;
mod lock_table;
#[cfg(all(test, loom))]
mod loom;
mod memory;
mod process;
mod region;
#[cfg(any(test, feature = "unstable-storage"))]
pub mod sim;
mod stopwatch;
mod storage;
mod syscall;
mod window;

pub use clock::{Clock, ManualClock, RealClock};
pub use extent::Extent;
pub(crate) use extent::Unread;
pub use file::RealDisk;
pub use memory::MemoryDisk;
pub(crate) use process::{memory_bytes, start_threads};
pub use region::Region;
pub(crate) use stopwatch::Stopwatch;
pub use storage::{Access, Disk, FileIdentity, LockByte, LockMode, Storage};
pub(crate) use syscall::page_size;
pub(crate) use window::Window;
