//! Checking every record: what `Db::check` adds to the structure of the file (SPEC.md, C-30).

use std::collections::BTreeSet;
use std::sync::Arc;

use rayon::prelude::*;
use revtree_format::{ChangeId, LeafRun, RecordKind, Revision, check_value};

use super::hash::for_waves;
use super::keys::KeyRange;
use super::range::Scan;
use super::store::Store;
use super::versions::locate;
use super::view::ReadView;
use crate::engine::FrameCheck;
use crate::error::{Error, Result};
use crate::tree::LeafRecords;

/// What the check of the records counted and found.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordCheck {
    pub(crate) records: u64,
    pub(crate) leaves: u64,
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
    pub(crate) frames: u64,
    pub(crate) damage: Vec<Error>,
}

/// Reads every record of the tree at the current revision: heads, values, order, links, and that the
/// index leads to each key's newest record; and the frames of those up to `checkpointed`.
pub(crate) fn check_records(store: &Arc<Store>, checkpointed: Revision) -> Result<RecordCheck> {
    let (view, compact, _pin) = ReadView::current_and_compact(store)?;
    let floor = compact.unwrap_or_default();
    let rev = view.rev();
    let mut check = RecordCheck::default();
    let mut last: Option<ChangeId> = None;
    let mut frames = FrameCheck::new(&store.engine, checkpointed);
    let walked = for_waves(&store.engine.tree, rev, |wave| {
        for leaf in wave {
            if last.is_some_and(|last| last >= leaf.first) {
                check.damage.push(Error::Corrupt {
                    offset: leaf.position.0,
                    what: "order of leaves",
                    expected: last.map_or(0, |last| last.main.get()),
                    found: leaf.first.main.get(),
                });
            }
            last = Some(leaf.first);
            frames.leaf(leaf)?;
        }
        let leaves: Vec<RecordCheck> = wave
            .par_iter()
            .map(|leaf| check_leaf(store, *leaf, rev, floor))
            .collect();
        for leaf in leaves {
            check.records += leaf.records;
            check.bytes += leaf.bytes;
            check.leaves += 1;
            check.damage.extend(leaf.damage);
        }
        Ok(())
    });
    // The leaves behind a damaged page are not reached; the keys are looked at all the same.
    if let Err(error) = walked {
        check.damage.push(damage(error)?);
    }
    check.frames = frames.frames;
    // Sorted: there may be as much damage as there are leaves, and then as many frames.
    let mut told: BTreeSet<u64> = check.damage.iter().filter_map(offset).collect();
    for (bytes, error) in frames.damage {
        // What a record's own checksum tells better is told once.
        if told.range(bytes).next().is_none() {
            told.extend(offset(&error));
            check.damage.push(error);
        }
    }
    let mut scan = Scan::new(&KeyRange::all(), rev, false);
    while let Some(found) = scan.next(store, false) {
        match found {
            Ok(_) => check.keys += 1,
            Err(error) => check.damage.push(error),
        }
    }
    match view.range(..).count() {
        Ok(counted) if counted != check.keys && check.damage.is_empty() => {
            check.damage.push(Error::Corrupt {
                offset: 0,
                what: "keys in the index",
                expected: check.keys,
                found: counted,
            });
        }
        Ok(_) => {}
        Err(error) => check.damage.push(damage(error)?),
    }
    Ok(check)
}

/// Where damage is.
fn offset(error: &Error) -> Option<u64> {
    match error {
        Error::Corrupt { offset, .. } => Some(*offset),
        _ => None,
    }
}

/// Damage, for the report; what else went wrong is an error of the check itself.
fn damage(error: Error) -> Result<Error> {
    match error {
        Error::Corrupt { .. } => Ok(error),
        other => Err(other),
    }
}

fn check_leaf(store: &Store, leaf: LeafRun, rev: Revision, floor: Revision) -> RecordCheck {
    let mut check = RecordCheck::default();
    let mut before: Option<ChangeId> = None;
    for record in LeafRecords::new(&store.engine.medium, leaf) {
        let (position, head) = match record {
            Ok(record) => record,
            Err(error) => {
                check.damage.push(error);
                return check;
            }
        };
        check.records += 1;
        check.bytes += head.record_len() as u64;
        let expected = if before.is_none() {
            leaf.first
        } else {
            head.id
        };
        if before.is_some_and(|before| before >= head.id) || expected != head.id {
            check.damage.push(Error::Corrupt {
                offset: position.0,
                what: "order of records",
                expected: expected.main.get(),
                found: head.id.main.get(),
            });
        }
        before = Some(head.id);
        if head.id.main > rev {
            // Written after the check began; its leaf is still growing.
            return check;
        }
        if let Err(error) = check_record(store, position, &head, floor) {
            check.damage.push(error);
        }
    }
    if check.records != u64::from(leaf.records) && check.damage.is_empty() {
        check.damage.push(Error::Corrupt {
            offset: leaf.position.0,
            what: "records in a leaf",
            expected: leaf.records.into(),
            found: check.records,
        });
    }
    check
}

fn check_record(
    store: &Store,
    position: revtree_format::Position,
    head: &revtree_format::RecordHead,
    floor: Revision,
) -> Result<()> {
    let medium = &store.engine.medium;
    let raw = medium.bytes(position, head.value_at() + head.value_len as usize)?;
    check_value(head, &raw[head.value_at()..], position)?;
    let key = &raw[head.key_at.into()..head.value_at()];
    let wrong = |what, expected, found| {
        Err(Error::Corrupt {
            offset: position.0,
            what,
            expected,
            found,
        })
    };
    let Some((_, (_, newest))) = store.find(key)? else {
        return wrong("key that the index does not have", head.id.main.get(), 0);
    };
    if newest.id < head.id {
        return wrong(
            "newest record of a key",
            head.id.main.get(),
            newest.id.main.get(),
        );
    }
    let first = head.kind == RecordKind::Put && head.version == 1;
    if let Some(prev) = head.prev
        && prev.id.main > floor
    {
        let Some((_, found)) = locate(&store.engine.tree, position, prev)? else {
            return wrong("link to an earlier version", prev.id.main.get(), 0);
        };
        if first && found.kind == RecordKind::Put {
            return wrong(
                "version after a put",
                found.version.saturating_add(1),
                head.version,
            );
        }
    }
    Ok(())
}
