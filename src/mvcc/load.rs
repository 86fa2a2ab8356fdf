//! Opening a store: the engine, then the key index from the run in the file, or from all heads, in
//! parallel.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use revtree_format::{ChangeId, IndexLeaf, LeafRun, RecordKind, Revision, Root, parse_record};

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
    };
    let opened = Engine::open(&config)?;
    let mut engine = opened.engine;
    engine.path = name.to_path_buf();
    let engine = Arc::new(engine);
    let (index, writer) = load(&engine, opened.run, options.progress.as_ref())?;
    let parts = StoreParts {
        engine,
        index,
        writer,
        lessor: Arc::clone(&options.lessor),
        threads: options.threads,
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
    match run {
        Some(root) => {
            let (index, mut writer) = load_run(engine, &root)?;
            catch_up(engine, &index, &mut writer, Revision::new(root.detail))?;
            writer.publish(rev);
            trace::event!(DEBUG, keys = index.totals().all, "index loaded");
            Ok((index, writer))
        }
        None => {
            let (index, writer) = rebuild(engine, rev, progress)?;
            trace::event!(DEBUG, keys = index.totals().all, "index built");
            Ok((index, writer))
        }
    }
}

/// Reads the run that a clean close left.
fn load_run(engine: &Engine, root: &Root) -> Result<(Arc<KeyIndex>, IndexWriter)> {
    let mut leaves = Vec::new();
    read_blob(&engine.medium, root, |chunk, body| {
        leaves.extend(IndexLeaf::parse_chunk(body, chunk.position)?);
        Ok(())
    })?;
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
    from_leaves(engine.medium.store_id, revision, leaves).map_err(|_| Error::Corrupt {
        offset: root.page.position.0,
        what: "key index run",
        expected: 0,
        found: 1,
    })
}

/// Adds the records above the run's revision, one after the other: after a clean close there are none.
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
        let mut wave = Vec::with_capacity(LEAVES_A_WAVE);
        while wave.len() < LEAVES_A_WAVE
            && let Some(leaf) = cursor.next()?
        {
            wave.push(leaf);
        }
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
            progress(Progress {
                what: "records loaded",
                done,
                total: None,
            });
        }
    }
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
    let raw = engine.medium.bytes(leaf.position, len)?;
    let mut scanned = Vec::with_capacity(leaf.records as usize);
    let mut at = leaf.position;
    let mut rest = &raw[..];
    while !rest.is_empty() {
        let (head, key) = parse_record(rest, at)?;
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
