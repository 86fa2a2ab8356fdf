//! Revisions over the engine and the key index: read views, write transactions, history, logical
//! compaction, hashes.
//!
//! [`Store`] holds one open store; what users hold (views, transactions, records) holds it by `Arc`.

mod check;
mod cleaner;
mod dead;
mod events;
mod given;
mod hash;
mod image;
mod increment;
mod keys;
mod load;
#[cfg(all(test, loom))]
mod loom;
mod marks;
mod overlay;
mod paced;
mod pass;
mod pins;
mod range;
mod record;
mod retention;
mod retired;
mod since;
mod snapshot;
mod space;
mod store;
mod submitted;
mod superseded;
mod table;
mod turn;
mod txn;
mod versions;
mod view;
mod watched;

pub use events::{Event, EventKind, Events, Prev};
pub use hash::{DEFAULT_IGNORES, Hash, HashKv, IgnoreKey};
pub use keys::KeyRange;
pub use range::{OwnedRecords, Range, RangeResult, Records};
pub use record::{KeyValue, Record};
pub use snapshot::Snapshot;
pub use submitted::Submitted;
pub use table::{Table, TableIter, TableMut};
pub use txn::{Commit, Deleted, Expect, Savepoint, WriteTxn};
pub use view::{ReadView, View};

pub(crate) use check::check_records;
pub(crate) use cleaner::{Reclaim, reclaim};
pub(crate) use events::AskedPrev;
pub(crate) use hash::{hash_all, hash_by_rev};
pub(crate) use image::Held;
pub(crate) use increment::BaseSum;
pub(crate) use load::open_store;
pub(crate) use paced::Passes;
pub(crate) use pass::{Part, PassLimits, read_pass};
pub(crate) use since::{BatchLimits, Wanted, read_batch};
pub(crate) use space::record_space;
pub(crate) use store::{OpRef, Store};
pub(crate) use table::{check_name, check_row};
pub(crate) use turn::{Turn, TurnHeld};
pub(crate) use txn::{KeepOpen, check_lengths};
pub(crate) use watched::Watched;
