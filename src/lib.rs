//! etcd's MVCC store as an embeddable crate, on its own storage engine.

mod db;
mod engine;
mod error;
mod index;
mod lessor;
mod mvcc;
mod options;
mod pager;
mod sync;
#[cfg_attr(
    not(feature = "unstable-storage"),
    expect(unreachable_pub, reason = "reachable with the feature: one seam, two visibilities")
)]
#[cfg_attr(
    not(feature = "unstable-storage"),
    allow(dead_code, unused_imports, reason = "the simulated disk is for tests only")
)]
pub(crate) mod sys;
mod tree;

/// The storage seam, for tests of the engine and for storage of one's own. Not covered by the
/// crate's promise of stability.
#[cfg(feature = "unstable-storage")]
pub mod storage {
    pub use crate::sys::{
        Access, Clock, Disk, Extent, FileIdentity, LockByte, LockMode, ManualClock, MemoryDisk,
        RealClock, RealDisk, Region, Storage, sim,
    };
}
