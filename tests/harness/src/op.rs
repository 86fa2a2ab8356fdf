//! Operations as data: they can be printed, replayed and left out.
//!
//! Revisions are named relative to what the store then is, so that a history still says something
//! after operations before it were dropped.

use bytes::Bytes;
use revtree_format::{LeaseId, Revision};

use crate::answer::{Applied, Facts};
use crate::hash::IgnoreKey;
use crate::keys::Keys;
use crate::model::{Begin, Expect, Finish};

/// The side tables that histories use. The first is the one that etcd's ignore list names; a
/// table named `key` is not used: it would be taken for the records.
pub const TABLES: [&str; 4] = ["meta", "Members", "lease", "täble"];

/// A value: bytes made from a number, so that a long one prints shortly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blob {
    /// What the bytes are made from.
    pub seed: u8,
    /// How many.
    pub len: u32,
}

impl Blob {
    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> Bytes {
        (0..self.len)
            .map(|i| self.seed ^ (i.wrapping_mul(31)).to_le_bytes()[0])
            .collect()
    }
}

/// A revision, seen from where the store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// The number 0, which reads and hashes take for the current one.
    Zero,
    /// So many before the current one, but not below 1.
    Back(u64),
    /// So many after the current one.
    Ahead(u64),
    /// The compact revision (1 if there is none) and so many more, not beyond the current one.
    Floor(u64),
    /// So many below the compact revision, but not below 1.
    BelowFloor(u64),
    /// Between compact and current revision, in parts of 256.
    Between(u8),
}

impl When {
    /// The revision meant.
    #[must_use]
    pub fn resolve(self, facts: &Facts) -> Revision {
        let current = facts.current.get();
        let floor = facts.compact.unwrap_or_default().get().max(1);
        Revision::new(match self {
            When::Zero => 0,
            When::Back(n) => current.saturating_sub(n).max(1),
            When::Ahead(n) => current + n,
            When::Floor(n) => (floor + n).min(current),
            When::BelowFloor(n) => floor.saturating_sub(n).max(1),
            When::Between(part) => floor + current.saturating_sub(floor) * u64::from(part) / 255,
        })
    }
}

/// Whose eyes a read outside a transaction uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eyes {
    /// A new view of the current revision.
    Now,
    /// A new view of that revision.
    At(When),
    /// A view held since earlier.
    Held(u8),
}

/// A range, before its revision is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Which keys.
    pub keys: Keys,
    /// At which revision, if not the reader's.
    pub at: Option<When>,
    /// At most so many keys.
    pub limit: Option<usize>,
    /// From the end.
    pub reverse: bool,
    /// Without values.
    pub keys_only: bool,
}

/// One read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// One key.
    Get(Bytes),
    /// Keys, collected.
    Range(Ask),
    /// How many.
    Count(Ask),
    /// Keys, taken from both ends by the bits of the number: 1 is from the back.
    BothEnds(Ask, u64),
    /// All changes of one key.
    History(Bytes),
    /// All changes of some keys between two revisions.
    Changes(Keys, When, When),
    /// One change.
    Change(When, u64),
    /// All rows of a side table.
    Table(&'static str),
    /// One row of a side table.
    Row(&'static str, Bytes),
    /// The view's own numbers.
    ViewFacts,
}

/// One step of a write transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Put, with a lease if it is not 0.
    Put(Bytes, Blob, LeaseId),
    /// Delete a key.
    Delete(Bytes),
    /// Delete keys.
    DeleteRange(Keys),
    /// Compare.
    Require(Bytes, Expect),
    /// List the changes so far.
    Changes,
    /// Ask for the revision at begin.
    Rev,
    /// Remember this place under a number.
    Savepoint(u8),
    /// Go back to it.
    RollBack(u8),
    /// Put a row of a side table.
    PutRow(&'static str, Bytes, Blob),
    /// Delete a row of a side table.
    DeleteRow(&'static str, Bytes),
    /// Save the log position with this commit.
    SetApplied(Applied),
    /// Read what the transaction sees.
    Own(Read),
    /// Read the state at begin.
    Base(Read),
    /// Read from the store, beside the transaction.
    Outside(Read),
    /// Try to open a second transaction.
    TryWrite,
}

/// One operation on a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// A transaction of one put.
    Put(Bytes, Blob),
    /// A transaction of one delete.
    Delete(Bytes),
    /// A transaction of one range delete.
    DeleteRange(Keys),
    /// A transaction.
    Txn(Begin, Vec<Step>, Finish),
    /// Raise the log index without a transaction.
    RaiseIndex(u64),
    /// Compact, and wait for its work.
    Compact(When),
    /// Give back the space that nobody needs.
    Reclaim,
    /// The one-shot read.
    Peek(Bytes),
    /// A read through a view.
    Read(Eyes, Read),
    /// The hash of the whole store.
    Hash(&'static [IgnoreKey]),
    /// etcd's HashKV.
    HashByRev(When),
    /// The remembered hashes of compactions.
    CompactionHashes,
    /// Open a view and keep it under a number.
    Hold(u8, Option<When>),
    /// Drop it.
    Release(u8),
    /// Take a snapshot and keep it under a number.
    Snapshot(u8),
    /// Put it in place of the content.
    Restore(u8),
    /// Make everything durable.
    Sync,
    /// Close and open again.
    Reopen,
    /// Compare everything that can be observed.
    State,
}

impl Op {
    /// The name of its kind, for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Put(..) => "put",
            Op::Delete(_) => "delete",
            Op::DeleteRange(_) => "delete range",
            Op::Txn(_, _, Finish::Commit | Finish::Submit) => "transaction",
            Op::Txn(_, _, Finish::Abort | Finish::Drop) => "aborted transaction",
            Op::RaiseIndex(_) => "raise index",
            Op::Compact(_) => "compact",
            Op::Reclaim => "reclaim",
            Op::Peek(_) => "peek",
            Op::Read(Eyes::Now, _) => "read",
            Op::Read(Eyes::At(_), _) => "read at",
            Op::Read(Eyes::Held(_), _) => "read held",
            Op::Hash(_) => "hash",
            Op::HashByRev(_) => "hash by rev",
            Op::CompactionHashes => "compaction hashes",
            Op::Hold(..) => "hold",
            Op::Release(_) => "release",
            Op::Snapshot(_) => "snapshot",
            Op::Restore(_) => "restore",
            Op::Sync => "sync",
            Op::Reopen => "reopen",
            Op::State => "state",
        }
    }
}
