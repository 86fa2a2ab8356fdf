//! The bytes that etcd leaves behind, read only: its snapshot file, the bbolt database in it, and
//! the records in etcd's buckets.
//!
//! Apart from the rest of the format because nothing here is ours: an importer reads it once, and
//! `HashKV` feeds etcd's encoding to its checksum for ever. Nothing here reads a file: the bytes
//! come through [`Pages`]. Every byte is an allegation until it is checked; no input makes this
//! code panic, loop or hold more memory than the file has bytes. The layout is that of a
//! little-endian host, as all usual hosts of etcd are.
//!
//! ```
//! use revtree_format::etcd::{Bbolt, Damage};
//! let Err(error) = Bbolt::open(&[0u8; 4096][..]) else { panic!("zeros are no database") };
//! assert_eq!(error.what, Damage::NoMeta);
//! ```

mod bbolt;
mod cursor;
mod error;
mod hash;
mod lease;
mod meta;
mod page;
mod proto;
mod record;
mod schema;
mod snapshot;

pub use bbolt::{BUCKETS_MAX, Bbolt, Bucket, Pages};
pub use cursor::{Cursor, DEPTH_MAX, Pair};
pub use error::{Damage, EtcdError};
pub use hash::{HashKv, HashKvFeeder, HashKvPart};
pub use lease::{Lease, lease_key, parse_lease_key};
pub use meta::{Meta, PAGE_BYTES_MAX, PAGE_BYTES_MIN};
pub use record::{KeyValue, RevisionKey, RevisionKeyBytes};
pub use schema::{MetaBucket, bucket, parse_number};
pub use snapshot::{HASH_BYTES, SnapshotLayout};
