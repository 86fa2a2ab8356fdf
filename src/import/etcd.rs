//! The import of an etcd snapshot, as a story (SPEC.md, I-5 to I-7).
//!
//! 1. The SHA-256, if the file ends with one.
//! 2. The buckets beside the records, into memory: they become side tables, and their limits are known
//!    to hold before anything is written. The `meta` bucket says which revision was compacted.
//! 3. If etcd had not finished that compaction: a pass over the records that finds the dead ones.
//! 4. The records, one after the other, into the store that is built beside its name.
//! 5. The end, with the revision that an etcd would be at, and the name.
//!
//! Every page of every bucket is checked by the walk that reads it. Damage found in step 4 leaves no
//! file: see [`Importer`].

use std::path::Path;

use revtree_format::etcd::{
    Bbolt, Bucket, EtcdError, KeyValue, MetaBucket, Pair, RevisionKey, bucket,
};
use revtree_format::{Control, RecordKind, Revision};

use super::completed::Completed;
use super::importer::Importer;
use super::report::ImportReport;
use super::source::Source;
use super::target::check_free;
use crate::engine::Tables;
use crate::error::{Error, Result};
use crate::mvcc::{OpRef, check_name, check_row};
use crate::options::{Applied, Options};

/// Records between two reports of progress.
const RECORDS_A_REPORT: u64 = 10_000;

/// `Db::import_etcd`.
pub(crate) fn import_etcd(
    snapshot: &Path,
    target: &Path,
    options: Options,
) -> Result<ImportReport> {
    let disk = options.files();
    check_free(&*disk, target)?;
    let source = Source::open(&*disk, snapshot, options.progress.clone())?;
    // 1.
    let sha256_checked = source.check_hash()?;
    // 2.
    let database = Bbolt::open(source)?;
    // Only for errors: a root beyond the file is refused by the walk.
    let page_bytes = u64::from(database.meta().page_bytes);
    let root = Place(database.meta().root.saturating_mul(page_bytes));
    let buckets = database.buckets()?;
    let records = |bucket: &&Bucket| bucket.name() == bucket::KEY;
    let Some(keys) = buckets.iter().find(records) else {
        return root.refuse("there is no bucket named key: this is no database of etcd");
    };
    let mut tables = Tables::default();
    let mut meta = MetaBucket::default();
    for bucket in buckets.iter().filter(|bucket| !records(bucket)) {
        read_side_bucket(&database, bucket, root, &mut tables, &mut meta)?;
    }
    // 3.
    let compacted = meta.compact_revision();
    let completed = match compacted {
        Some(at) if meta.finished_compact < meta.scheduled_compact => {
            let secret = disk.entropy().map_err(Error::on("draw a hash key"))?;
            Some(find_dead(&database, keys, Completed::new(at, secret))?)
        }
        _ => None,
    };
    // 4.
    let mut importer = Importer::new(target, options)?;
    for (name, rows) in tables.iter() {
        importer.table_create(name)?;
        for (key, value) in rows {
            importer.table_put(name, key, value)?;
        }
    }
    let (last, records_compacted) =
        import_records(&database, keys, completed.as_ref(), &mut importer)?;
    // 5.
    let current = last
        .max(compacted.unwrap_or_default())
        .max(Revision::new(1));
    let applied = Applied {
        index: meta.consistent_index.unwrap_or(0),
        term: meta.term.unwrap_or(0),
    };
    let taken = importer.taken();
    importer.seal(current, compacted, applied)?;
    Ok(ImportReport {
        revision: current,
        compact_revision: compacted,
        applied,
        records: taken.records,
        records_compacted,
        keys: taken.keys,
        tables: tables.iter().count() as u64,
        rows: taken.rows,
        bytes_read: database.into_pages().bytes_read(),
        sha256_checked,
        storage_version: storage_version(&meta),
    })
}

/// Reads a bucket beside the records: every row into a table of its name.
fn read_side_bucket(
    database: &Bbolt<Source>,
    bucket: &Bucket,
    root: Place,
    tables: &mut Tables,
    meta: &mut MetaBucket,
) -> Result<()> {
    let Ok(table) = str::from_utf8(bucket.name()) else {
        let name = bucket.name().escape_ascii();
        return root.refuse(format!("bucket \"{name}\" is not named in UTF-8"));
    };
    root.of(check_name(table))?;
    root.of(tables.apply(&Control::TableCreate { table }))?;
    let mut rows = database.cursor(bucket);
    while let Some(Pair { key, value, offset }) = rows.next()? {
        let at = Place(offset);
        at.of(check_row(key, value))?;
        at.of(tables.apply(&Control::TablePut { table, key, value }))?;
        if bucket.name() == bucket::META {
            let after = offset + key.len() as u64;
            meta.accept(key, value)
                .map_err(|error| error.within(after))?;
        }
    }
    Ok(())
}

/// Step 3.
fn find_dead(
    database: &Bbolt<Source>,
    keys: &Bucket,
    mut completed: Completed,
) -> Result<Completed> {
    let mut records = database.cursor(keys);
    let mut done = 0;
    while let Some(pair) = records.next()? {
        if let Found::Record(revision, record) = parse(&pair)?
            && !completed.look(revision.change, record.key)
        {
            break;
        }
        done += 1;
        if done % RECORDS_A_REPORT == 0 {
            database.pages().tell("records looked at", done, None);
        }
    }
    Ok(completed)
}

/// Step 4: gives the main of the last change, and how many records were dead.
fn import_records(
    database: &Bbolt<Source>,
    keys: &Bucket,
    completed: Option<&Completed>,
    importer: &mut Importer,
) -> Result<(Revision, u64)> {
    let mut records = database.cursor(keys);
    let mut last = Revision::default();
    let (mut done, mut dead) = (0, 0);
    while let Some(pair) = records.next()? {
        let at = Place(pair.offset);
        match parse(&pair)? {
            Found::Mark(revision) => last = revision,
            Found::Record(revision, record) => {
                last = revision.change.main;
                if completed.is_none_or(|completed| completed.leaves(revision, record.key)) {
                    at.of(importer.record(revision.change, &as_op(revision, &record)))?;
                } else {
                    dead += 1;
                }
            }
        }
        done += 1;
        if done % RECORDS_A_REPORT == 0 {
            database.pages().tell("records imported", done, None);
        }
    }
    database.pages().tell("records imported", done, Some(done));
    Ok((last, dead))
}

/// A pair of the bucket `key`.
enum Found<'a> {
    Record(RevisionKey, KeyValue<'a>),
    /// A record without a value: a bumped snapshot's highest revision (I-6).
    Mark(Revision),
}

/// Reads a pair, and sees that nothing of it would be lost: what HashKV is computed over has to come out
/// of the store to the byte (I-7).
fn parse<'a>(pair: &Pair<'a>) -> Result<Found<'a>> {
    let at = Place(pair.offset);
    let revision = RevisionKey::parse(pair.key).map_err(|error| error.within(pair.offset))?;
    if pair.value.is_empty() && !revision.is_tombstone {
        return Ok(Found::Mark(revision.change.main));
    }
    let value_at = pair.offset + pair.key.len() as u64;
    let decode = |error: EtcdError| error.within(value_at);
    let record = KeyValue::decode(pair.value).map_err(decode)?;
    let change = revision.change;
    let stored = if revision.is_tombstone {
        KeyValue::tombstone(record.key)
    } else if record.modified == change.main {
        record
    } else {
        let modified = record.modified;
        return at.refuse(format!("the record {change} says mod revision {modified}"));
    };
    let mut rest = Some(pair.value);
    stored.encode(|piece| rest = rest.and_then(|rest| rest.strip_prefix(piece)));
    if rest != Some(&[]) {
        return Place(value_at).refuse(format!(
            "the record {change} has more than a record of etcd, or in another order"
        ));
    }
    Ok(Found::Record(revision, stored))
}

fn as_op<'a>(revision: RevisionKey, record: &KeyValue<'a>) -> OpRef<'a> {
    if revision.is_tombstone {
        return OpRef::tombstone(record.key);
    }
    OpRef {
        key: record.key,
        kind: RecordKind::Put,
        value: record.value,
        lease: record.lease,
        create: record.create,
        version: record.version,
    }
}

/// SEMANTICS §10.3.
fn storage_version(meta: &MetaBucket) -> Option<String> {
    let text = meta.storage_version.as_deref();
    let text = text.map(|text| String::from_utf8_lossy(text).into_owned());
    text.or_else(|| meta.term.map(|_| "3.5".into()))
}

/// A place in the snapshot, for errors about what stands there.
#[derive(Clone, Copy)]
struct Place(u64);

impl Place {
    fn refuse<T>(self, what: impl Into<String>) -> Result<T> {
        Err(Error::Import {
            offset: self.0,
            what: what.into(),
        })
    }

    /// What the store says of the snapshot's bytes is about this place; failures of the machine stay.
    fn of<T>(self, result: Result<T>) -> Result<T> {
        match result {
            Err(Error::Import { what, .. }) => self.refuse(what),
            Err(
                error @ (Error::KeyTooLong { .. }
                | Error::ValueTooLong { .. }
                | Error::LimitReached { .. }),
            ) => self.refuse(error.to_string()),
            other => other,
        }
    }
}
