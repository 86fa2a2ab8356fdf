//! Writes bbolt files in memory, as etcd's snapshots are, and damages them in known places.
//!
//! For tests of readers. It shares no code with the reader, not even encodings, so that both
//! cannot be wrong in the same way; and it asserts instead of returning errors.
//!
//! ```
//! use revtree_test_bbolt::{Options, vector_a, write};
//! let image = write(&Options::default(), &vector_a().contents());
//! assert_eq!(image.file().len() % 512, 32, "a snapshot ends with a hash");
//! ```
//!
//! - `contents`: what is in a file: buckets of pairs
//! - `history`: revisions of keys as etcd encodes them, and their compaction
//! - `vectors`: two golden histories with their hashes, as plain data
//! - `writer`: contents to pages
//! - `image`: the file, what its pages are, and ways to damage it

mod contents;
mod history;
mod image;
mod vectors;
mod writer;

pub use contents::{Contents, Pairs};
pub use history::{Change, History, Tombstones, key_value, revision_key};
pub use image::{Image, PageKind, PageNote};
pub use vectors::{
    Pinned, Step, VECTOR_A, VECTOR_A_HASHES, VECTOR_A_LEASE, VECTOR_B_LAST, VECTOR_B_MIDDLE,
    vector_a, vector_a_snapshot, vector_b_key, vector_b_steps,
};
pub use writer::{Freelist, Metas, Options, write};
