//! Frames and segments over the file: append, write out, read back, recover; superblocks and space.
//!
//! The pager knows that a log is a chain of frames and where each lies; what records and pages mean is
//! known above. One [`Log`] appends; everybody else reads through [`Medium`].

mod ahead;
mod blob;
mod garbage;
mod growing;
mod image;
mod log;
mod medium;
mod recover;
mod run;
mod space;
mod superblocks;
#[cfg(test)]
mod tests;

pub(crate) use blob::{BlobWriter, read_blob};
pub(crate) use garbage::{DeadInUnit, DeadRecords, Garbage, ShownDead};
pub(crate) use growing::Growing;
pub(crate) use image::{ImageLog, Reach, SegmentStart};
pub(crate) use log::{Appended, Log, Sealed, claim, empty};
pub(crate) use medium::{Medium, Raw};
pub(crate) use recover::{Replayed, Tail, TailFrame, replay, walk};
pub(crate) use run::{Run, RunSegment, RunWriter};
pub(crate) use space::{Held, Pages, Room, Space, Wanted, bytes_with_upkeep};
pub(crate) use superblocks::{Superblocks, create};
