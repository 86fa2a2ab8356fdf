//! The new store: every change in its order, the tables, and the revision that the old store was at.

use std::path::Path;

use revtree::{Applied, Create, Db, Error, Importer, KeyValue, Options};
use revtree_format::{ChangeId, RecordHead, RecordKind, parse_record};

use super::records::{Change, Spot};
use super::report::{Loss, Report};
use super::source::Source;
use super::state::State;
use crate::failure::{Refused, Result};

/// Writes the store and completes the report.
pub(crate) fn write(
    source: &Source,
    path: &Path,
    segment_bytes: u32,
    changes: &[Change],
    state: &State,
    report: &mut Report,
) -> Result {
    let refused = |error: Error| Refused::store(path, &error);
    let options = Options::new()
        .create(Create::New)
        .segment_bytes(segment_bytes.into());
    let mut importer = Db::importer(path, options).map_err(refused)?;
    for (table, rows) in &state.tables {
        importer.table_create(table).map_err(refused)?;
        for (key, value) in rows {
            importer.table_put(table, key, value).map_err(refused)?;
            report.rows += 1;
        }
    }
    for change in changes {
        match add(source, &mut importer, change) {
            Ok(()) => {
                report.records += 1;
                report.rebuilt += u64::from(matches!(change, Change::Rebuilt(..)));
            }
            // It was refused, and the importer goes on.
            Err(Error::Import { .. }) => {
                let (Change::Found(spot) | Change::Rebuilt(_, spot)) = change;
                report.lose([Loss::Unplaced {
                    id: change.id(),
                    offset: spot.place.position.0,
                }]);
            }
            Err(error) => return Err(refused(error)),
        }
    }
    (report.revision, report.compact) = (state.revision, state.compact);
    report.applied_found = state.applied;
    // Below a loss the index would promise what is not there.
    report.applied = if report.losses.is_empty() {
        state.applied
    } else {
        Applied::default()
    };
    let finished = importer.finish(report.revision, report.compact, report.applied);
    let db = finished.map_err(refused)?;
    report.hash = db.hash_by_rev(0).map_err(refused)?.hash;
    db.close().map_err(refused)
}

fn add(source: &Source, importer: &mut Importer, change: &Change) -> revtree::Result<()> {
    match change {
        Change::Rebuilt(id, by) => with_record(source, by, |_, key, _| importer.delete(*id, key)),
        Change::Found(spot) => with_record(source, spot, |head, key, value| {
            put_or_delete(importer, spot.id, head, key, value)
        }),
    }
}

fn put_or_delete(
    importer: &mut Importer,
    id: ChangeId,
    head: &RecordHead,
    key: &[u8],
    value: &[u8],
) -> revtree::Result<()> {
    if head.kind == RecordKind::Tombstone {
        return importer.delete(id, key);
    }
    let kv = KeyValue::new(
        key.to_vec().into(),
        value.to_vec().into(),
        head.create,
        id.main,
        head.version,
        head.lease,
    );
    match importer.put(id, &kv) {
        Err(Error::Import { .. }) => importer.put_after_loss(id, &kv),
        other => other,
    }
}

/// Reads a record again, which verified before.
fn with_record(
    source: &Source,
    spot: &Spot,
    with: impl FnOnce(&RecordHead, &[u8], &[u8]) -> revtree::Result<()>,
) -> revtree::Result<()> {
    let changed = || Error::Import {
        offset: spot.place.position.0,
        what: "the file changed while it was read".to_owned(),
    };
    let raw = source
        .bytes(spot.place.position.0, spot.len)
        .ok_or_else(changed)?;
    let (head, key) = parse_record(&raw, spot.place).map_err(|_| changed())?;
    let value = raw
        .get(head.value_at()..head.value_at() + head.value_len as usize)
        .ok_or_else(changed)?;
    with(&head, key, value)
}
