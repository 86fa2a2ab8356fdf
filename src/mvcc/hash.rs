//! Hashes: etcd's HashKV, in parallel, and the hash of the whole store (SPEC.md, H-1 to H-7).

#![expect(
    clippy::disallowed_types,
    reason = "the list of compactions, held for a look; hashes are no reads of keys"
)]

use std::sync::Arc;

use rayon::prelude::*;
use revtree_format::etcd::{HashKv as HashKvSum, HashKvFeeder, HashKvPart, KeyValue, RevisionKey};
use revtree_format::{ChangeId, LeafRun, RecordHead, RecordKind, Revision, check_value};

use super::keys::KeyRange;
use super::marks::RecordMarks;
use super::range::Scan;
use super::store::Store;
use super::superseded::Seen;
use super::table::KEYS_TABLE;
use super::view::{ReadView, check_revision};
use crate::engine::lock;
use crate::error::Result;
use crate::sync::{Mutex, MutexGuard};
use crate::sys::Stopwatch;
use crate::tree::{Direction, LeafCursor, LeafRecords, Tree};

/// A hash of the whole store: records and side tables.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// let before = db.hash(revtree::DEFAULT_IGNORES)?;
/// db.put("a", "1")?;
/// assert_ne!(db.hash(revtree::DEFAULT_IGNORES)?.hash, before.hash);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Hash {
    /// CRC-32C.
    pub hash: u32,
    /// The revision hashed.
    pub revision: Revision,
}

/// etcd's HashKV: equal on all stores with the same history and compact revision.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// assert_eq!(db.hash_by_rev(0)?.hash, 1_084_519_789); // etcd's hash of an empty store
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HashKv {
    /// CRC-32C.
    pub hash: u32,
    /// The revision hashed.
    pub revision: Revision,
    /// The compact revision that it holds for.
    pub compact_revision: Option<Revision>,
}

/// A row of a side table that [`Db::hash`](crate::Db::hash) leaves out.
///
/// ```
/// use revtree::IgnoreKey;
/// let db = revtree::Options::new().open_in_memory()?;
/// let ignore = [IgnoreKey { table: "meta", key: b"note" }];
/// let note = |text: &[u8]| -> revtree::Result<_> {
///     let mut txn = db.write()?;
///     txn.table("meta")?.put(b"note", text)?;
///     txn.commit()?;
///     db.hash(&ignore)
/// };
/// assert_eq!(note(b"1")?, note(b"2")?);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IgnoreKey<'a> {
    /// The table.
    pub table: &'a str,
    /// The key.
    pub key: &'a [u8],
}

/// What etcd leaves out of its hash of the whole store (3.6: `DefaultIgnores`).
///
/// ```
/// assert!(revtree::DEFAULT_IGNORES.iter().any(|row| row.key == b"consistent_index"));
/// ```
pub const DEFAULT_IGNORES: &[IgnoreKey<'static>] = &[
    IgnoreKey {
        table: "meta",
        key: b"consistent_index",
    },
    IgnoreKey {
        table: "meta",
        key: b"term",
    },
    IgnoreKey {
        table: "meta",
        key: b"storageVersion",
    },
];

/// The compactions of this open, whose hashes are made when they are asked for, or before the records that they
/// cover are removed. At most ten, by revision (SEMANTICS §5.4).
#[derive(Debug, Default)]
pub(crate) struct CompactionHashes {
    list: Mutex<Vec<Compacted>>,
    /// Held while one is made, and while records are removed.
    making: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Compacted {
    before: Option<Revision>,
    rev: Revision,
    /// Once it is made; an error that stays, where records that it covers may have been removed since.
    hash: Option<Result<u32>>,
}

/// How many compaction hashes are kept.
const KEPT: usize = 10;

impl CompactionHashes {
    pub(crate) fn add(&self, before: Option<Revision>, rev: Revision) {
        let mut list = lock(&self.list);
        list.push(Compacted {
            before,
            rev,
            hash: None,
        });
        list.sort_by_key(|compacted| compacted.rev);
        if list.len() > KEPT {
            list.remove(0);
        }
    }

    /// The hash of the compaction at `rev`, if it is kept.
    fn of(&self, store: &Store, rev: Revision) -> Result<Option<HashKv>> {
        let kept = || self.find(rev).filter(|kept| kept.hash.is_none());
        if kept().is_some() {
            let _making = lock(&self.making);
            // Looked at again: who was waited for may have made it.
            if let Some(compacted) = kept() {
                let hash = make(store, &compacted)?;
                self.set(rev, Ok(hash));
            }
        }
        let Some(compacted) = self.find(rev) else {
            return Ok(None);
        };
        let Some(hash) = compacted.hash.transpose()? else {
            return Ok(None);
        };
        let (revision, compact_revision) = (compacted.rev, compacted.before);
        Ok(Some(HashKv {
            hash,
            revision,
            compact_revision,
        }))
    }

    fn find(&self, rev: Revision) -> Option<Compacted> {
        let list = lock(&self.list);
        list.iter().find(|kept| kept.rev == rev).cloned()
    }

    fn set(&self, rev: Revision, hash: Result<u32>) {
        let mut list = lock(&self.list);
        if let Some(entry) = list.iter_mut().find(|entry| entry.rev == rev) {
            entry.hash = Some(hash);
        }
    }

    /// Makes all that have not been made, and lets none be made before the guard is dropped: for who removes
    /// records that they cover. One that cannot be made never will be.
    pub(super) fn make_all(&self, store: &Store) -> MutexGuard<'_, ()> {
        let making = lock(&self.making);
        let missing = |kept: &&Compacted| kept.hash.is_none();
        let missing: Vec<Compacted> = lock(&self.list).iter().filter(missing).cloned().collect();
        for compacted in missing {
            self.set(compacted.rev, make(store, &compacted));
        }
        making
    }

    /// All that can be made.
    pub(crate) fn all(&self, store: &Store) -> Vec<HashKv> {
        let revs: Vec<Revision> = lock(&self.list).iter().map(|kept| kept.rev).collect();
        let hashes = revs.into_iter().map(|rev| self.of(store, rev));
        hashes.filter_map(|hash| hash.ok().flatten()).collect()
    }
}

/// The hash of a compaction. While `making` is held nobody removes records, nor frees the memory in which they lie:
/// so no pin is needed, which would look like a view of somebody's.
fn make(store: &Store, compacted: &Compacted) -> Result<u32> {
    let rev = compacted.rev;
    let none_kept = !any_live(store, rev)? && !any_tombstone(store, rev)?;
    hash_kv(store, rev, compacted.before, none_kept)
}

/// `Db::hash_by_rev`.
pub(crate) fn hash_by_rev(store: &Arc<Store>, rev: Revision) -> Result<HashKv> {
    let time = Stopwatch::start();
    let hash = hash_at(store, rev)?;
    store.engine.metrics.hash_by_rev(&time);
    Ok(hash)
}

fn hash_at(store: &Arc<Store>, rev: Revision) -> Result<HashKv> {
    store.check_open()?;
    if rev.get() != 0
        && let Some(kept) = store.compactions.of(store, rev)?
    {
        return Ok(kept);
    }
    let (view, compact, _pin) = ReadView::current_and_compact(store)?;
    let rev = if rev.get() == 0 { view.rev() } else { rev };
    check_revision(rev, view.rev(), compact)?;
    let hash = hash_kv(store, rev, compact, !any_live(store, rev)?)?;
    Ok(HashKv {
        hash,
        revision: rev,
        compact_revision: compact,
    })
}

/// Leaves that one task hashes, 1 MiB.
pub(crate) const LEAVES_A_PART: usize = 64;
/// Parts that are hashed at a time: what bounds the memory.
const PARTS_A_WAVE: usize = 64;

/// HashKV at `rev` of a store compacted at `compact`, as if the compaction had finished.
///
/// A compaction's own hash is the same sum: at its revision, for the compact revision before it. Its keep
/// set has the tombstones at its revision besides; those lie above that compact revision, so they only
/// matter for whether the set is empty.
///
/// Of a store in which `none_kept` is live, etcd hashes everything that the compaction left, superseded
/// since or not: an empty keep set is taken for no set (H-3).
fn hash_kv(
    store: &Store,
    rev: Revision,
    compact: Option<Revision>,
    none_kept: bool,
) -> Result<u32> {
    let seen = Seen::now(store);
    let superseded = match compact {
        Some(compact) => {
            let by = if none_kept { rev.min(compact) } else { rev };
            Some((compact, seen.superseded(store, by, compact)?))
        }
        None => None,
    };
    let mut hash = HashKvSum::new();
    for_waves(&seen.tree, rev, |wave| {
        let parts: Vec<Result<HashKvPart>> = wave
            .par_chunks(LEAVES_A_PART)
            .map(|leaves| hash_leaves(store, leaves, rev, superseded.as_ref()))
            .collect();
        for part in parts {
            hash.join(&part?);
        }
        Ok(())
    })?;
    Ok(hash.finish())
}

/// Whether any key is live at `rev`: mostly the first that is asked.
fn any_live(store: &Store, rev: Revision) -> Result<bool> {
    let mut scan = Scan::new(&KeyRange::all(), rev, false);
    Ok(scan.next(store, false).transpose()?.is_some())
}

/// Whether a key was deleted exactly at `rev`.
fn any_tombstone(store: &Store, rev: Revision) -> Result<bool> {
    let tree = &store.engine.tree;
    let mut cursor = LeafCursor::seek(tree, ChangeId::new(rev, 0), Direction::Forward)?;
    while let Some(leaf) = cursor.next()? {
        for record in LeafRecords::new(tree.medium(), leaf) {
            let (_, head) = record?;
            if head.id.main > rev {
                return Ok(false);
            }
            if head.id.main == rev && head.kind == RecordKind::Tombstone {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Gives all leaves with records at or before `rev`, in order, some thousand at a time.
pub(crate) fn for_waves(
    tree: &Tree,
    rev: Revision,
    visit: impl FnMut(&[LeafRun]) -> Result<()>,
) -> Result<()> {
    for_waves_from(tree, ChangeId::default(), rev, visit)
}

/// The same, of those with records from `first` on.
pub(crate) fn for_waves_from(
    tree: &Tree,
    first: ChangeId,
    rev: Revision,
    mut visit: impl FnMut(&[LeafRun]) -> Result<()>,
) -> Result<()> {
    let mut cursor = LeafCursor::seek(tree, first, Direction::Forward)?;
    let mut wave = Vec::new();
    loop {
        let leaf = cursor.next()?.filter(|leaf| leaf.first.main <= rev);
        let ended = leaf.is_none();
        wave.extend(leaf);
        if ended || wave.len() == LEAVES_A_PART * PARTS_A_WAVE {
            visit(&wave)?;
            wave.clear();
        }
        if ended {
            return Ok(());
        }
    }
}

fn hash_leaves(
    store: &Store,
    leaves: &[LeafRun],
    rev: Revision,
    superseded: Option<&(Revision, RecordMarks)>,
) -> Result<HashKvPart> {
    let medium = &store.engine.medium;
    let mut part = HashKvFeeder::new();
    for leaf in leaves {
        let mut records = LeafRecords::new(medium, *leaf);
        while let Some(record) = records.next() {
            let (position, head) = record?;
            if head.id.main > rev {
                break;
            }
            // At or before the compact revision only what a compaction leaves counts, and of that no
            // tombstone: those at C are left out, so that all versions of etcd agree.
            if let Some((compact, superseded)) = superseded
                && head.id.main <= *compact
                && (head.kind == RecordKind::Tombstone || superseded.has(position))
            {
                continue;
            }
            let (key, value) = key_and_value(&head, records.bytes());
            check_value(&head, value, position)?;
            let (revision, record) = as_etcd(&head, key, value);
            part.record(revision, &record);
        }
    }
    Ok(part.finish())
}

/// Key and value in a record's bytes.
fn key_and_value<'a>(head: &RecordHead, record: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let value_end = head.value_at() + head.value_len as usize;
    (
        &record[head.key_at.into()..head.value_at()],
        &record[head.value_at()..value_end],
    )
}

/// A record in etcd's terms.
fn as_etcd<'a>(head: &RecordHead, key: &'a [u8], value: &'a [u8]) -> (RevisionKey, KeyValue<'a>) {
    let is_tombstone = head.kind == RecordKind::Tombstone;
    let revision = RevisionKey {
        change: head.id,
        is_tombstone,
    };
    if is_tombstone {
        return (revision, KeyValue::tombstone(key));
    }
    let record = KeyValue {
        key,
        create: head.create,
        modified: head.id.main,
        version: head.version,
        value,
        lease: head.lease,
    };
    (revision, record)
}

/// `Db::hash`: the tables in ascending order of name with the keys among them as table `key`: name, then
/// key and value of each row.
pub(crate) fn hash_all(store: &Arc<Store>, ignore: &[IgnoreKey<'_>]) -> Result<Hash> {
    let time = Stopwatch::start();
    let (view, compact, _pin) = ReadView::current_and_compact(store)?;
    let rev = view.rev();
    let mut crc = 0;
    let mut keys_done = false;
    let keys = |crc: &mut u32| -> Result<()> {
        *crc = crc32c::crc32c_append(*crc, KEYS_TABLE.as_bytes());
        for_waves(&store.engine.tree, rev, |wave| {
            for leaf in wave {
                *crc = hash_retained(store, *leaf, rev, compact, *crc)?;
            }
            Ok(())
        })
    };
    for (name, rows) in view.state().tables.iter() {
        if !keys_done && name > KEYS_TABLE {
            keys(&mut crc)?;
            keys_done = true;
        }
        crc = crc32c::crc32c_append(crc, name.as_bytes());
        for (key, value) in rows {
            if !ignore.iter().any(|row| row.table == name && row.key == key) {
                crc = crc32c::crc32c_append(crc, key);
                crc = crc32c::crc32c_append(crc, value);
            }
        }
    }
    if !keys_done {
        keys(&mut crc)?;
    }
    store.engine.metrics.hash(&time);
    Ok(Hash {
        hash: crc,
        revision: rev,
    })
}

/// Goes on with `crc` over the retained records of a leaf.
fn hash_retained(
    store: &Store,
    leaf: LeafRun,
    rev: Revision,
    compact: Option<Revision>,
    mut crc: u32,
) -> Result<u32> {
    let medium = &store.engine.medium;
    let mut records = LeafRecords::new(medium, leaf);
    while let Some(record) = records.next() {
        let (position, head) = record?;
        if head.id.main > rev {
            break;
        }
        if !super::events::is_retained(store, &(position, head), compact)? {
            continue;
        }
        let (key, value) = key_and_value(&head, records.bytes());
        check_value(&head, value, position)?;
        let (revision, record) = as_etcd(&head, key, value);
        crc = crc32c::crc32c_append(crc, revision.encode().as_ref());
        record.encode(|piece| crc = crc32c::crc32c_append(crc, piece));
    }
    Ok(crc)
}
