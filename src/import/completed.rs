//! The compaction that etcd had accepted and not finished, completed: which of its records are dead.
//!
//! Apart because it needs a pass of its own over the records, before the one that imports them: whether
//! a put survives is decided by what comes behind it.

use std::collections::HashMap;

use revtree_format::etcd::RevisionKey;
use revtree_format::{ChangeId, Revision};
use siphasher::sip128::SipHasher13;

/// Of each key the newest change at or before the compaction.
///
/// Keys are told apart by 128 bits of a hash under a secret of this import, so that the memory does not
/// depend on their length and nobody can make two of them meet.
pub(super) struct Completed {
    at: Revision,
    secret: [u8; 16],
    newest: HashMap<u128, ChangeId>,
}

impl Completed {
    /// A compaction at `at`, before any record was looked at.
    pub(super) fn new(at: Revision, secret: [u8; 16]) -> Completed {
        Completed {
            at,
            secret,
            newest: HashMap::new(),
        }
    }

    /// Looks at a record, in order of changes; `false` if it and all behind it survive.
    pub(super) fn look(&mut self, change: ChangeId, key: &[u8]) -> bool {
        if change.main > self.at {
            return false;
        }
        self.newest.insert(self.hash(key), change);
        true
    }

    /// Whether the compaction leaves a record (SEMANTICS §4.2 and §4.5; SPEC.md K-2).
    pub(super) fn leaves(&self, record: RevisionKey, key: &[u8]) -> bool {
        let change = record.change;
        if change.main > self.at {
            return true;
        }
        if record.is_tombstone {
            return change.main == self.at;
        }
        self.newest.get(&self.hash(key)) == Some(&change)
    }

    fn hash(&self, key: &[u8]) -> u128 {
        SipHasher13::new_with_key(&self.secret).hash(key).into()
    }
}
