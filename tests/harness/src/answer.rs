//! What a store answers, as plain owned values that can be compared, printed and hashed.
//!
//! The names follow the public door of the crate, so that translating an answer of the real store
//! is copying fields; the types are our own, so that the model does not depend on what it judges.

use std::fmt;

use bytes::Bytes;
use revtree_format::{ChangeId, LeaseId, Revision};

/// One live key with its value.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Kv {
    /// The key.
    pub key: Bytes,
    /// Its value; empty in keys-only answers and in deletes.
    pub value: Bytes,
    /// The revision of the first put of this generation; 0 in a delete.
    pub create: Revision,
    /// The revision of this change.
    pub modified: Revision,
    /// Puts in this generation up to here, from 1; 0 in a delete.
    pub version: u64,
    /// The lease given to this put.
    pub lease: LeaseId,
}

impl fmt::Debug for Kv {
    /// One line; a long value is shown by length and checksum, since differences are read by people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}=", self.key)?;
        if self.value.len() <= 24 {
            write!(f, "{:?}", self.value)?;
        } else {
            write!(
                f,
                "<{} bytes, crc {:08x}>",
                self.value.len(),
                crc32c::crc32c(&self.value)
            )?;
        }
        write!(
            f,
            "@{}(create {}, version {}",
            self.modified, self.create, self.version
        )?;
        if self.lease != LeaseId::NONE {
            write!(f, ", lease {}", self.lease.0)?;
        }
        f.write_str(")")
    }
}

/// What an event did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EventKind {
    /// A put.
    Put,
    /// A delete.
    Delete,
}

/// What the key was before the event's revision.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Prev {
    /// The answer does not carry it.
    NotAsked,
    /// There was none. A put that creates its key always says this, as in etcd.
    None,
    /// The key's state at the revision before.
    Value(Kv),
    /// It is below the compact revision.
    Compacted,
}

/// One change, as history and watchers tell it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Event {
    /// Its revision and place.
    pub id: ChangeId,
    /// Put or delete.
    pub kind: EventKind,
    /// The record; of a delete only key and mod revision.
    pub kv: Kv,
    /// What was there before.
    pub prev: Prev,
}

/// Why a store did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// The revision lies below the compact revision (for a compaction: not above it).
    Compacted {
        /// What was asked.
        requested: Revision,
        /// The compact revision.
        compacted: Revision,
    },
    /// The revision does not exist yet.
    Future {
        /// What was asked.
        requested: Revision,
        /// The newest revision that the reader may see.
        current: Revision,
    },
    /// Nothing was written there.
    NotFound(ChangeId),
    /// A `require` that does not hold.
    Conflict {
        /// The key.
        key: Bytes,
        /// What is there.
        found: Option<Box<Kv>>,
    },
    /// The key is longer than a key may be.
    KeyTooLong {
        /// Its length.
        len: u64,
    },
    /// The view, savepoint or snapshot of that number does not exist: an error of the caller.
    NoSuchSlot(u8),
    /// Anything else, which the oracle never says.
    Other(String),
}

/// An answer or a refusal.
pub type Answer<T> = Result<T, Refusal>;

/// The position in a replicated log, saved with the data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Applied {
    /// The index of the last applied entry, 0 before any.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// What a delete did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Deleted {
    /// Keys deleted.
    pub count: u64,
    /// The transaction's next revision if it has changes, else the one at begin.
    pub revision: Revision,
}

/// What a commit did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Committed {
    /// The revision it made, or the current one if it changed no key.
    pub revision: Revision,
    /// Records written.
    pub changes: u64,
}

/// The answer of a range read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RangeAnswer {
    /// The records, in the order asked, cut by the limit.
    pub kvs: Vec<Kv>,
    /// The store's revision as the reader knows it, not the one asked for.
    pub revision: Revision,
    /// All keys in the range, the limit ignored.
    pub count: u64,
    /// Whether the limit cut something off.
    pub more: bool,
}

/// The hash of all records up to a revision, equal to etcd's HashKV.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HashKv {
    /// CRC-32C.
    pub hash: u32,
    /// The revision hashed.
    pub revision: Revision,
    /// The compact revision it was made under.
    pub compact_revision: Option<Revision>,
}

/// The hash of the whole store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hash {
    /// CRC-32C.
    pub hash: u32,
    /// The current revision.
    pub revision: Revision,
}

/// The numbers of a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Facts {
    /// The current revision.
    pub current: Revision,
    /// The compact revision, if it was ever compacted.
    pub compact: Option<Revision>,
    /// The log position.
    pub applied: Applied,
}

/// The numbers of a view.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ViewFacts {
    /// The revision it reads.
    pub rev: Revision,
    /// The store's revision when it was opened.
    pub store_rev: Revision,
    /// The compact revision when it was opened.
    pub first_rev: Option<Revision>,
}

/// A call that the store made to its lessor.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LeaseCall {
    /// The key now hangs on the lease.
    Attach(LeaseId, Bytes),
    /// It no longer does.
    Detach(LeaseId, Bytes),
}

/// The rows of a side table, in key order.
pub type Rows = Vec<(Bytes, Bytes)>;
