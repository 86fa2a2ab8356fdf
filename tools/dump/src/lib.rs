//! Walks the bytes of a revtree store and tells what is there: superblocks, segments, tree pages,
//! blobs, and the frames of the log with their records.
//!
//! It is built on the format crate alone and knows nothing of the engine: what it prints is what
//! SPEC.md says of the bytes, and a second reader of them besides the store itself. It only reads,
//! takes no lock, and goes on behind damage where the format lets it: a damaged page does not hide
//! its siblings, a damaged frame not the log behind it.
//!
//! [`dump`] drives the walk and hands each [`Item`] to a closure, so that a large file needs little
//! memory; an item prints as a line of text ([`std::fmt::Display`]) or as JSON ([`Item::to_json`]).
//!
//! ```
//! use revtree_dump::{Item, Options, dump};
//! let file = vec![0; 64 << 10]; // no store
//! let mut lines = Vec::new();
//! let summary = dump(&file.as_slice(), &Options::default(), &mut |item: &Item| {
//!     lines.push(item.to_string());
//!     Ok(())
//! })?;
//! assert_eq!(summary.damage, 5); // four slots, and no valid superblock among them
//! assert!(lines[1].starts_with("  slot 0 at 0x0: bad: superblock magic"));
//! # Ok::<(), std::io::Error>(())
//! ```

mod blobs;
mod bytes;
mod chain;
mod damage;
mod frames;
mod item;
mod json;
mod segments;
mod slots;
mod source;
mod text;
mod tree;
mod walk;

pub use bytes::{base64, readable};
pub use damage::Damage;
pub use item::{
    Blob, ControlItem, FrameItem, IndexKey, IndexLeafItem, Item, LeafItem, LogEnd, PageItem, Part,
    RecordItem, SegmentItem, SlotItem,
};
pub use source::ReadAt;
pub use walk::{Options, Summary, dump};
