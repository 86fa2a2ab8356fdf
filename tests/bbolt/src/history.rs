//! Revisions of keys as etcd numbers and encodes them, and what its compaction leaves.
//!
//! The smallest thing that makes realistic `key` buckets: a list of changes. Not a store; it
//! answers nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::contents::Contents;

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The revision of the transaction.
    pub main: u64,
    /// The place in the transaction.
    pub sub: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The encoded record: of a tombstone, the key alone.
    pub record: Vec<u8>,
    /// Whether the key was deleted.
    pub is_tombstone: bool,
}

/// Which tombstones a compaction keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tombstones {
    /// None, as before etcd 3.4.34 and 3.5.16.
    Drop,
    /// Those at exactly the compact revision, as since then.
    KeepAtCompaction,
}

/// Changes in order, from revision 2.
#[derive(Clone, Debug)]
pub struct History {
    main: u64,
    sub: u64,
    changes: Vec<Change>,
    /// Create revision and version of the keys that are alive.
    alive: BTreeMap<Vec<u8>, (u64, u64)>,
    leases: BTreeMap<i64, i64>,
    compacted: Option<u64>,
}

impl Default for History {
    fn default() -> History {
        History::new()
    }
}

impl History {
    /// An empty store, at revision 1.
    #[must_use]
    pub fn new() -> History {
        History {
            main: 1,
            sub: 0,
            changes: Vec::new(),
            alive: BTreeMap::new(),
            leases: BTreeMap::new(),
            compacted: None,
        }
    }

    /// Begins the next transaction; changes up to the next call belong to it.
    pub fn begin(&mut self) -> &mut History {
        self.main += 1;
        self.sub = 0;
        self
    }

    /// Puts a key; lease 0 is none.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> &mut History {
        let (create, version) = self.alive.get(key).copied().unwrap_or((self.main, 0));
        self.alive.insert(key.to_vec(), (create, version + 1));
        let record = key_value(key, create, self.main, version + 1, value, lease);
        self.push(key, record, false)
    }

    /// Deletes a key, which must be alive.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn delete(&mut self, key: &[u8]) -> &mut History {
        assert!(
            self.alive.remove(key).is_some(),
            "a delete of nothing changes nothing"
        );
        let record = key_value(key, 0, 0, 0, b"", 0);
        self.push(key, record, true)
    }

    /// Deletes the keys from `start` on that are alive, in their order.
    pub fn delete_from(&mut self, start: &[u8]) -> &mut History {
        let alive = self.alive.range(start.to_vec()..);
        let keys: Vec<Vec<u8>> = alive.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.delete(&key);
        }
        self
    }

    /// Grants a lease.
    pub fn grant(&mut self, id: i64, ttl_s: i64) -> &mut History {
        self.leases.insert(id, ttl_s);
        self
    }

    /// The current revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.main
    }

    /// The changes that are there.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Compacts at `revision`: of each key's changes up to it, the newest stays if it is a put.
    pub fn compact(&mut self, revision: u64, tombstones: Tombstones) -> &mut History {
        let mut seen = BTreeSet::new();
        let mut kept: Vec<Change> = Vec::new();
        for change in self.changes.drain(..).rev() {
            let is_newest = change.main <= revision && seen.insert(change.key.clone());
            let stays = match change.is_tombstone {
                _ if change.main > revision => true,
                true => tombstones == Tombstones::KeepAtCompaction && change.main == revision,
                false => is_newest,
            };
            if stays {
                kept.push(change);
            }
        }
        kept.reverse();
        self.changes = kept;
        self.compacted = Some(revision);
        self
    }

    /// The buckets of an etcd with this history.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::etcd();
        for change in &self.changes {
            let key = revision_key(change.main, change.sub, change.is_tombstone);
            contents.put("key", &key, &change.record);
        }
        for (&id, &ttl_s) in &self.leases {
            let mut record = Vec::new();
            push_number(&mut record, 1, id.cast_unsigned());
            push_number(&mut record, 2, ttl_s.cast_unsigned());
            contents.put("lease", &id.to_be_bytes(), &record);
        }
        if let Some(revision) = self.compacted {
            contents.finish_compaction(revision);
        }
        contents
    }

    fn push(&mut self, key: &[u8], record: Vec<u8>, is_tombstone: bool) -> &mut History {
        let (main, sub) = (self.main, self.sub);
        self.changes.push(Change {
            main,
            sub,
            key: key.to_vec(),
            record,
            is_tombstone,
        });
        self.sub += 1;
        self
    }
}

/// A key of the `key` bucket.
#[must_use]
pub fn revision_key(main: u64, sub: u64, is_tombstone: bool) -> Vec<u8> {
    let mut key = main.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend(sub.to_be_bytes());
    if is_tombstone {
        key.push(b't');
    }
    key
}

/// The revision in a key of the `key` bucket.
pub(crate) fn main_of(key: &[u8]) -> u64 {
    u64::from_be_bytes(
        key[..8]
            .try_into()
            .expect("a revision key has eight bytes first"),
    )
}

/// A value of the `key` bucket.
#[must_use]
pub fn key_value(
    key: &[u8],
    create: u64,
    modified: u64,
    version: u64,
    value: &[u8],
    lease: i64,
) -> Vec<u8> {
    let mut record = Vec::new();
    push_bytes(&mut record, 1, key);
    push_number(&mut record, 2, create);
    push_number(&mut record, 3, modified);
    push_number(&mut record, 4, version);
    push_bytes(&mut record, 5, value);
    push_number(&mut record, 6, lease.cast_unsigned());
    record
}

fn push_bytes(record: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        record.push(field * 8 + 2);
        push_varint(record, bytes.len() as u64);
        record.extend_from_slice(bytes);
    }
}

fn push_number(record: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        record.push(field * 8);
        push_varint(record, number);
    }
}

fn push_varint(record: &mut Vec<u8>, number: u64) {
    let low = (number % 128).to_le_bytes()[0];
    if number < 128 {
        record.push(low);
    } else {
        record.push(low + 128);
        push_varint(record, number / 128);
    }
}
