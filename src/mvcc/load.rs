//! Opening a store: the engine, then the key index from the run in the file, or from all heads, in
//! parallel.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use revtree_format::{
    ChangeId, IndexEntry, IndexLeaf, LeafRun, RecordKind, Revision, Root, parse_record,
};

use super::store::{Store, StoreParts};
use super::versions::RecordKeys;
use crate::engine::{Config, Engine, Found};
use crate::error::{Error, Result};
use crate::index::{
    BuildFault, Builder, EntryImage, ImageFault, IndexWriter, KeyIndex, LeafImage, Scanned,
    from_leaves,
};
use crate::options::{Options, Progress, ProgressFn};
use crate::pager::read_blob;
use crate::sys::Disk;
use crate::trace;
use crate::tree::{Direction, LeafCursor, LeafRecords};

/// Leaves read at a time: some 64 MiB.
const LEAVES_A_WAVE: usize = 4096;

/// Opens engine and index of the file at `path`, which has or will get the name `name`.
pub(crate) fn open_store(
    disk: &Arc<dyn Disk>,
    path: &Path,
    name: &Path,
    options: &Options,
) -> Result<(Arc<Store>, Found)> {
    let segment_bytes = options.check()?;
    let config = Config {
        disk: Arc::clone(disk),
        path: path.to_path_buf(),
        read_only: options.read_only,
        create: options.create,
        durability: options.durability,
        read_mode: options.read_mode,
        segment_bytes,
        store_bytes_max: options.store_bytes_max,
        checkpoint_bytes: options.checkpoint_bytes,
        expect_at_least: options.expect_at_least,
        identity: options.identity,
    };
    let opened = Engine::open(&config, &|told| {
        if let Some(progress) = &options.progress {
            Store::refuse_writes(|| progress(told));
        }
    })?;
    let mut engine = opened.engine;
    engine.path = name.to_path_buf();
    let engine = Arc::new(engine);
    let (index, writer) = load(&engine, opened.run, options.progress.as_ref())?;
    let parts = StoreParts {
        engine,
        index,
        writer,
        lessor: options.lessor.clone(),
        threads: options.threads,
        cleaner: options.cleaner,
        retain: options.retain.clone(),
        view_limit: options.view_limit,
    };
    Ok((Store::new(parts), opened.found))
}

/// The index of an open engine.
fn load(
    engine: &Engine,
    run: Option<Root>,
    progress: Option<&ProgressFn>,
) -> Result<(Arc<KeyIndex>, IndexWriter)> {
    let rev = engine.rev();
    let Some(root) = run.filter(|root| root.detail <= rev.get()) else {
        return rebuild(engine, rev, progress);
    };
    let loaded = load_run(engine, &root).and_then(|(index, mut writer)| {
        // After a clean close there is nothing to add; looking would read the last leaf.
        let known = Revision::new(root.detail);
        if known < rev {
            catch_up(engine, &index, &mut writer, known)?;
        }
        writer.publish(rev);
        trace::event!(DEBUG, keys = index.totals().all, "index loaded");
        Ok((index, writer))
    });
    match loaded {
        // It says nothing that the records do not (B-93).
        Err(_damage @ Error::Corrupt { .. }) => {
            trace::event!(WARN, error = %_damage, "index not loaded");
            rebuild(engine, rev, progress)
        }
        loaded => loaded,
    }
}

/// Reads the run that a clean close left.
fn load_run(engine: &Engine, root: &Root) -> Result<(Arc<KeyIndex>, IndexWriter)> {
    let mut leaves = Vec::new();
    read_blob(&engine.medium, root, |chunk, body| {
        let part = IndexLeaf::parse_chunk(body, chunk.position)?;
        let keys = part.iter().map(|leaf| leaf.entries.len() as u64).sum();
        leaves.extend(part);
        Ok(keys)
    })?;
    let corrupt = Error::Corrupt {
        offset: root.page.position.0,
        what: "key index run",
        expected: 0,
        found: 1,
    };
    let can_be_record = |entry: &IndexEntry| {
        entry.position.0.is_multiple_of(8) && engine.medium.is_in_use(entry.position)
    };
    if !leaves
        .par_iter()
        .all(|leaf| leaf.entries.iter().all(can_be_record))
    {
        return Err(corrupt);
    }
    let leaves = leaves
        .into_par_iter()
        .map(|leaf| LeafImage {
            separator: leaf.separator,
            prefix: leaf.prefix,
            entries: leaf
                .entries
                .into_iter()
                .map(|entry| EntryImage {
                    chunk: entry.chunk,
                    hash: entry.hash,
                    live: entry.live,
                    position: entry.position,
                })
                .collect(),
        })
        .collect();
    let revision = Revision::new(root.detail);
    from_leaves(engine.medium.store_id, revision, leaves).map_err(|_| corrupt)
}

/// Adds the records above the run's revision, one after the other.
fn catch_up(
    engine: &Engine,
    index: &KeyIndex,
    writer: &mut IndexWriter,
    from: Revision,
) -> Result<()> {
    let keys = RecordKeys(&engine.medium);
    let first = ChangeId::new(from.next(), 0);
    let mut cursor = LeafCursor::seek(&engine.tree, first, Direction::Forward)?;
    while let Some(leaf) = cursor.next()? {
        for record in LeafRecords::new(&engine.medium, leaf) {
            let (position, head) = record?;
            if head.id < first {
                continue;
            }
            let live = head.kind == RecordKind::Put;
            let key = engine.medium.with_head(position, |_, key| key.to_vec())?;
            match index.find(&key, &keys)? {
                Some((id, newest)) => {
                    let before = engine.medium.head(newest)?.kind == RecordKind::Put;
                    writer.swing(id, position);
                    if before != live {
                        writer.set_live(&key, id, live);
                    }
                }
                None => {
                    writer.insert(&key, position, live, &keys)?;
                }
            }
        }
    }
    Ok(())
}

/// Reads every head, in parallel, wave by wave.
fn rebuild(
    engine: &Engine,
    rev: Revision,
    progress: Option<&ProgressFn>,
) -> Result<(Arc<KeyIndex>, IndexWriter)> {
    let (empty, _) = crate::index::create(engine.medium.store_id);
    let keys = RecordKeys(&engine.medium);
    let mut builder = Builder::new();
    let first = ChangeId::new(Revision::new(0), 0);
    let mut cursor = LeafCursor::seek(&engine.tree, first, Direction::Forward)?;
    let mut done = 0;
    loop {
        let wave = cursor.wave(LEAVES_A_WAVE)?;
        if wave.is_empty() {
            break;
        }
        let scanned: Result<Vec<Vec<Scanned>>> = wave
            .par_iter()
            .map(|leaf| scan_leaf(engine, &empty, *leaf))
            .collect();
        let scanned = scanned?.concat();
        done += scanned.len() as u64;
        builder.absorb(scanned, &keys)?;
        if let Some(progress) = progress {
            let told = Progress {
                what: "records loaded",
                done,
                total: None,
            };
            Store::refuse_writes(|| progress(told));
        }
    }
    trace::event!(DEBUG, records = done, "index built");
    builder
        .finish(engine.medium.store_id, rev, &keys)
        .map_err(|fault| match fault {
            BuildFault::Keys(error) => error,
            BuildFault::Image(ImageFault::TooManyKeys) => Error::LimitReached {
                what: "keys",
                max: 3 << 30,
            },
            BuildFault::Image(_) => Error::Corrupt {
                offset: 0,
                what: "keys that changed while they were read",
                expected: 0,
                found: 1,
            },
        })
}

fn scan_leaf(engine: &Engine, hasher: &KeyIndex, leaf: LeafRun) -> Result<Vec<Scanned>> {
    let len = leaf.len as usize;
    engine.medium.check_use(leaf.position, leaf.segment_use)?;
    let raw = engine.medium.bytes(leaf.position, len)?;
    let mut scanned = Vec::with_capacity(leaf.records as usize);
    let place = engine.medium.place(leaf.segment_use, leaf.position);
    let mut at = leaf.position;
    let mut rest = &raw[..];
    while !rest.is_empty() {
        let (head, key) = parse_record(rest, place.at(at))?;
        let live = head.kind == RecordKind::Put;
        scanned.push(Scanned {
            hash: hasher.hash(key),
            position: at,
            live,
        });
        let record_len = head.record_len();
        rest = rest.get(record_len..).ok_or(Error::Corrupt {
            offset: at.0,
            what: "record beyond its leaf",
            expected: rest.len() as u64,
            found: record_len as u64,
        })?;
        at = at.plus(record_len as u64);
    }
    Ok(scanned)
}
