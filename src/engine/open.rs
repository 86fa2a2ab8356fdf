//! Opening: lock, superblock, chain, what of it is adopted, and the writing end (SPEC.md, C-20 to C-28).

#![expect(
    clippy::disallowed_types,
    reason = "opening and closing, and the making of what writers lock"
)]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use revtree_format::limits::{BLOCK_BYTES, SEGMENTS_START};
use revtree_format::{
    ChangeId, Control, FormatError, FrameKind, Geometry, LeafRun, LogHead, Position, Revision,
    Root, RootKind, SEGMENT_HEADER_BYTES, SegmentEntry, SegmentState, StoreSeed, Superblock,
    check_segments, parse_record, parse_segments,
};

use super::gate::Gate;
use super::group::Group;
use super::published::Published;
use super::{Append, Checkpoint, Counters, Engine, State, Tables};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::options::{Applied, Create, Durability, Progress, ReadMode};
use crate::pager::{
    Garbage, Log, Medium, Replayed, Space, Superblocks, Tail, TailFrame, bytes_with_upkeep, claim,
    create, read_blob, replay, walk,
};
use crate::sync::{AtomicBool, AtomicU64, Mutex};
use crate::sys::{Access, Disk, FileIdentity, LockByte, LockMode, Region, Storage, page_size};
use crate::trace;
use crate::tree::{Direction, LeafCursor, LeafRecords, Spine, Tree};

/// What opening needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) create: Create,
    pub(crate) durability: Durability,
    pub(crate) read_mode: ReadMode,
    pub(crate) segment_bytes: u32,
    pub(crate) store_bytes_max: u64,
    pub(crate) checkpoint_bytes: u64,
    /// The oldest revision that is taken.
    pub(crate) expect_at_least: Revision,
    /// The id that a store gets which is created, and how often it counts as opened; `None`: an id of its own.
    pub(crate) identity: Option<([u8; 16], u32)>,
}

/// An open engine, and what the layer above needs to build its index.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) engine: Engine,
    /// The key index run and its revision, when the newest checkpoint has one.
    pub(crate) run: Option<Root>,
    pub(crate) found: Found,
}

/// What open found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) created: bool,
    pub(crate) clean: bool,
    pub(crate) frames: u64,
    pub(crate) bytes_dropped: u64,
    pub(crate) superblocks_bad: u32,
}

impl Found {
    /// What an operator should know of it.
    fn tell(&self) {
        if !self.clean || self.bytes_dropped > 0 {
            trace::event!(
                WARN,
                frames = self.frames,
                bytes_dropped = self.bytes_dropped,
                "log replayed"
            );
        }
        if self.superblocks_bad > 0 {
            trace::event!(WARN, bad = self.superblocks_bad, "superblocks damaged");
        }
    }
}

/// The files that this process has open for writing: tells who holds a lock. Of the standard library always,
/// as a static is.
static WRITERS: std::sync::Mutex<Option<HashSet<FileIdentity>>> = std::sync::Mutex::new(None);

/// The exclusive lock on a file; the storage holds it, this entry goes with it.
#[derive(Debug)]
pub(crate) struct WriterLock {
    identity: FileIdentity,
}

impl WriterLock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(storage: &dyn Storage, path: &Path) -> Result<WriterLock> {
        let identity = storage.identity().map_err(Error::on("identify the file"))?;
        // Held over both: who does not get the lock finds its holder in the set.
        let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        if !storage
            .try_lock_writer()
            .map_err(Error::on("lock the file"))?
        {
            let by_this_process = writers.as_ref().is_some_and(|set| set.contains(&identity));
            return Err(Error::Locked {
                path: path.to_path_buf(),
                by_this_process,
            });
        }
        writers.get_or_insert_default().insert(identity);
        Ok(WriterLock { identity })
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        if let Some(writers) = WRITERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            writers.remove(&self.identity);
        }
    }
}

impl Engine {
    /// Opens the store file. `progress` is told how recovery goes on, if there is something to recover.
    pub(crate) fn open(config: &Config, progress: &dyn Fn(Progress)) -> Result<Opened> {
        let created = ensure_file(config)?;
        let access = if config.read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let storage = config
            .disk
            .open(&config.path, access)
            .map_err(|error| open_error(config, error))?;
        let mut opened = if config.read_only {
            open_to_read(config, storage, progress)?
        } else {
            open_to_write(config, storage, progress)?
        };
        opened.found.created = created;
        opened.engine.tell_metrics();
        opened.found.tell();
        Ok(opened)
    }
}

/// Creates the file where the options ask for it; says whether it did.
fn ensure_file(config: &Config) -> Result<bool> {
    let exists = config
        .disk
        .exists(&config.path)
        .map_err(Error::on("look for the file"))?;
    let taken = || Error::io("create the store", std::io::ErrorKind::AlreadyExists.into());
    match (config.create, exists) {
        (Create::New, true) => Err(taken()),
        (_, true) => Ok(false),
        (Create::Never, false) => Err(Error::io("open the store", missing())),
        (_, false) if config.read_only => Err(Error::io("open the store", missing())),
        (_, false) => {
            // No store is older than a new one: none is left behind where another was expected.
            check_age(config, FIRST_REVISION)?;
            let created = create(
                &*config.disk,
                &config.path,
                config.segment_bytes,
                config.identity,
            )
            .map_err(|error| on_read_only_medium(&error).unwrap_or(error))?;
            if !created && config.create == Create::New {
                return Err(taken());
            }
            // Else somebody else was first: their store is opened.
            Ok(created)
        }
    }
}

/// What a store without a change is at.
const FIRST_REVISION: Revision = Revision::new(1);

/// Refuses a store that is older than was asked for. Called before its file is changed.
fn check_age(config: &Config, found: Revision) -> Result<()> {
    let expected = config.expect_at_least;
    if found < expected {
        return Err(Error::RolledBack { found, expected });
    }
    Ok(())
}

/// The revision that replay of the tail will end at.
fn found_revision(superblock: &Superblock, tail: &Tail) -> Revision {
    let records = |frame: &&TailFrame| frame.header.kind == FrameKind::Records;
    let last = tail.frames.iter().rfind(records);
    last.map_or(superblock.revision, |frame| frame.header.revision)
}

/// What the failure of a creation is when the medium takes no file.
fn on_read_only_medium(error: &Error) -> Option<Error> {
    let read_only = std::io::ErrorKind::ReadOnlyFilesystem;
    matches!(error, Error::Io { cause, .. } if cause.kind() == read_only).then_some(Error::ReadOnly)
}

fn missing() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such file")
}

fn open_error(config: &Config, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidInput, IsADirectory, PermissionDenied, ReadOnlyFilesystem};
    match error.kind() {
        InvalidInput | IsADirectory => Error::NotAStore {
            path: config.path.clone(),
        },
        ReadOnlyFilesystem if !config.read_only => Error::ReadOnly,
        PermissionDenied if !config.read_only => Error::io("open the store for writing", error),
        _ => Error::io("open the store", error),
    }
}

/// What a superblock and the frames behind it amount to.
struct Recovered {
    state: State,
    /// Leaves of the adopted frames, by place in the file as found.
    leaves: Vec<LeafRun>,
    segments: Vec<SegmentEntry>,
    tables: Tables,
}

fn open_to_write(
    config: &Config,
    storage: Arc<dyn Storage>,
    progress: &dyn Fn(Progress),
) -> Result<Opened> {
    let writer_lock = WriterLock::take(&*storage, &config.path)?;
    // Whoever gave the file its name may have failed or died before the name was durable: then a power
    // cut would take with it all that is written from now on (C-1, S-7).
    config
        .disk
        .sync_directory(&config.path)
        .map_err(Error::on("sync the store's directory"))?;
    let superblocks = Superblocks::read(&*storage, &config.path)?;
    let tail = walk(&*storage, &superblocks.newest)?;
    if let Some(damage) = tail.damage {
        return Err(damage.into());
    }
    check_age(config, found_revision(&superblocks.newest, &tail))?;
    let mut superblock = superblocks.newest;
    let beyond = Error::LimitReached {
        what: "opens for writing",
        max: u32::MAX.into(),
    };
    superblock.edition = superblocks.next_edition.ok_or_else(|| beyond.clone())?;
    superblock.opens = superblock.opens.checked_add(1).ok_or(beyond)?;
    let fresh = superblock.head.segment_use == 0;
    if fresh {
        superblock.head = LogHead {
            position: Position(SEGMENTS_START + SEGMENT_HEADER_BYTES as u64),
            sequence: 1,
            segment_use: u64::from(superblock.opens) << 32,
            segment: 0,
            prev_crc: 0,
        };
        superblock.segment_count = 1;
    }
    Superblocks::refresh(&*storage, &superblock).map_err(Error::on("refresh the superblock"))?;
    let medium = medium(
        config,
        Arc::clone(&storage),
        &superblock,
        tail.unsynced_bytes(),
    )?;
    let recovered = recover(&medium, &superblock, &tail, progress)?;
    let clean = tail.is_settled();
    let found = Found {
        created: false,
        clean,
        frames: tail.frames.len() as u64,
        bytes_dropped: tail.dropped_bytes,
        superblocks_bad: superblocks.bad,
    };
    let tree = Tree::new(Arc::clone(&medium), superblock.root(RootKind::Tree));
    check_newest(&tree, superblock.revision)?;
    let spine = Spine::load(&tree, superblock.root(RootKind::Tree))?;
    let tail_list = tree.state().tails[0].clone();
    // Behind the pages of the checkpoint that a clean close wrote.
    let head = if clean && !fresh {
        tail.end
    } else {
        superblock.head
    };
    let start = medium.geometry.start(head.segment).0;
    let rev = recovered.state.rev;
    let at_start = head.position.0 == start + SEGMENT_HEADER_BYTES as u64;
    let mut segments = recovered.segments.clone();
    if fresh {
        let segment_use = head.segment_use;
        segments = vec![SegmentEntry {
            state: SegmentState::Log,
            segment_use,
            units: 1,
            dead: 0,
        }];
    }
    // Where the log can go on in its own segment; else a checkpoint has to name another first (C-28).
    let resumes = clean && (at_start || head.position.0.is_multiple_of(BLOCK_BYTES));
    let mut end = if fresh || resumes { head } else { tail.end };
    let room = if resumes { BLOCK_BYTES } else { 0 };
    let units = units_of_head(&segments, medium.geometry, end, room)?;
    if !resumes && tail.dropped_bytes > 0 {
        // Frames of a transaction without its end vouch for those before it. All say the same, and the first lies in
        // this segment, or what closes it: the rest of it stays, and where the run went on is free.
        end.position = medium.geometry.end(end.segment, units);
    }
    // Nothing above the compact revision is dead: a table that says so has counted nothing (K-11).
    let counted = superblock.root(RootKind::Segments);
    let counted = counted.map_or(0, |root| root.detail);
    let counted = Some(Revision::new(counted)).filter(|rev| Some(*rev) <= recovered.state.compact);
    let is_cleaned = tree.cleaned() > Revision::default();
    let counted = counted.unwrap_or_default();
    let garbage = Garbage::of_table(medium.geometry, &segments, counted, is_cleaned);
    let dead = garbage.shown();
    let mut space = Space::new(
        medium.geometry,
        segments,
        garbage,
        limits(config.store_bytes_max, medium.region.len()),
        superblock.opens,
    );
    // Only now is it known that the store is none that must be left as it is (C-25), and that no older
    // superblock can come back; and no byte that goes is mapped yet.
    space.cut(&*storage, &end)?;
    medium.cut(storage.len().map_err(Error::on("read the file's length"))?);
    let log = if resumes && at_start {
        show_used(&medium, space.entries(), &[head.segment])?;
        Log::first(Arc::clone(&medium), space, superblock.opens, head, rev)?
    } else if resumes {
        show_used(&medium, space.entries(), &[head.segment])?;
        let mut extent = claim(&medium, head.segment, units)?;
        if medium.copies() {
            // The log goes on in memory of its own, so what lies before in the segment is brought there.
            load(&medium, &mut extent, start, head.position.0)?;
        } else {
            show(&medium, &mut extent, start, head.position.0)?;
        }
        Log::resume(
            Arc::clone(&medium),
            space,
            superblock.opens,
            head,
            rev,
            extent,
        )
    } else {
        // What the copy replaces is not mapped: nobody reads it there, and mapped bytes never change, so
        // the segments could not be used again by this open.
        show_used(&medium, space.entries(), &tail.replaced_segments())?;
        let (before, mark) = (tail.end, tail.synced_up_to);
        Log::begin(
            Arc::clone(&medium),
            space,
            superblock.opens,
            before,
            rev,
            mark,
        )?
    };
    // What the copy of the unsynced tail will replace is left out.
    let is_unsynced = tail.unsynced_positions();
    let kept = recovered
        .leaves
        .iter()
        .filter(|leaf| clean || !is_unsynced(leaf.position));
    for leaf in kept {
        tail_list.push(*leaf);
    }
    let engine = Engine {
        tree,
        path: config.path.clone(),
        durability: config.durability,
        read_only: false,
        opens: superblock.opens,
        append: Some(Mutex::new(Append {
            accepted_sequence: 0,
            accepted_count: 0,
            published_count: 0,
            sync_sequence: 0,
            unsynced_changes: 0,
            checkpointed: 0,
            torn: false,
            frozen: 0,
            tables: recovered.tables.clone(),
            tail: tail_list,
            accepted: recovered.state.clone(),
            log,
        })),
        group: Group::new(head.sequence),
        syncing: Mutex::new(()),
        durable_rev: AtomicU64::new(recovered.state.rev.get()),
        published: Published::new(recovered.state),
        audience: OnceLock::new(),
        poison: OnceLock::new(),
        closed: AtomicBool::new(false),
        counters: Counters::default(),
        metrics: Metrics::of_store(config.store_bytes_max),
        checkpoint_bytes: config.checkpoint_bytes,
        dead: Some(dead),
        free_bytes: 0,
        _lock: Some(writer_lock),
        checkpoint: Gate::new(Checkpoint {
            spine,
            tables: recovered.tables,
            superblock: superblock.clone(),
        }),
        medium,
    };
    if !resumes {
        engine.readopt(&tail, progress)?;
    }
    // Reader processes see by this byte that a writer lives and has not failed: what they read may be
    // synced and shown. Not before recovery has written again what no sync helps (C-26).
    lock_byte(&*storage, LockByte::WriterAlive, LockMode::Exclusive)?;
    // A run describes the keys up to its own revision; what came later is read from the tree.
    let run = superblock.root(RootKind::Index).copied();
    Ok(Opened { engine, run, found })
}

/// The newest record of the pages is not above the revision of the checkpoint: else the next change would get a
/// revision that is taken (C-22). What is damaged there is told to who reads it.
fn check_newest(tree: &Tree, revision: Revision) -> Result<()> {
    let tree = tree.fixed();
    let last = ChangeId::new(Revision::new(u64::MAX), u64::MAX);
    let leaf = LeafCursor::seek(&tree, last, Direction::Backward).and_then(|mut c| c.next());
    let Ok(Some(leaf)) = leaf else {
        return Ok(());
    };
    let records = LeafRecords::new(tree.medium(), leaf).map_while(Result::ok);
    let newest = records.last().map_or(leaf.first, |(_, head)| head.id);
    if newest.main > revision {
        return Err(Error::Corrupt {
            offset: leaf.position.0,
            what: "revision of the checkpoint below its newest record",
            expected: newest.main.get(),
            found: revision.get(),
        });
    }
    Ok(())
}

/// Length of the segment in which the log ends. A crafted table may have another there than the head needs: what
/// lies behind its end would be somebody else's. Where the log goes on in it there is `room` for a frame which says
/// that the next segment follows.
fn units_of_head(
    segments: &[SegmentEntry],
    geometry: Geometry,
    head: LogHead,
    room: u64,
) -> Result<u32> {
    let units = segments
        .get(head.segment as usize)
        .map_or(1, |entry| entry.units);
    let end = geometry.end(head.segment, units).0.saturating_sub(room);
    if units == 0 || head.position.0 > end {
        let what = "log head behind its segment in the table";
        return Err(FormatError::new(head.position.0, what, end, head.position.0).into());
    }
    Ok(units)
}

/// Locks a byte that others hold for a moment only, when they look who is there; `false` if somebody
/// holds it for longer.
fn lock_byte(storage: &dyn Storage, byte: LockByte, mode: LockMode) -> Result<bool> {
    for _ in 0..LOCK_TRIES {
        let locked = storage.try_lock_byte(byte, mode);
        if locked.map_err(Error::on("lock the file"))? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

/// A second: others hold a byte for a few calls.
const LOCK_TRIES: u32 = 1000;

fn open_to_read(
    config: &Config,
    storage: Arc<dyn Storage>,
    progress: &dyn Fn(Progress),
) -> Result<Opened> {
    if !lock_byte(&*storage, LockByte::Readers, LockMode::Shared)? {
        return Err(Error::Locked {
            path: config.path.clone(),
            by_this_process: false,
        });
    }
    let superblocks = Superblocks::read(&*storage, &config.path)?;
    let superblock = superblocks.newest;
    let mut tail = walk(&*storage, &superblock)?;
    keep_durable(&*storage, &mut tail)?;
    check_age(config, found_revision(&superblock, &tail))?;
    let medium = medium(config, Arc::clone(&storage), &superblock, 0)?;
    let recovered = recover(&medium, &superblock, &tail, progress)?;
    let found = Found {
        created: false,
        clean: tail.is_settled(),
        frames: tail.frames.len() as u64,
        bytes_dropped: tail.dropped_bytes,
        superblocks_bad: superblocks.bad,
    };
    let tree = Tree::new(Arc::clone(&medium), superblock.root(RootKind::Tree));
    check_newest(&tree, superblock.revision)?;
    let tail_list = tree.state().tails[0].clone();
    for leaf in &recovered.leaves {
        tail_list.push(*leaf);
    }
    let run = index_run(&superblock);
    let file_len = medium.storage.len();
    let free_bytes = free_bytes(
        &recovered.segments,
        medium.geometry,
        file_len.map_err(Error::on("read the file's length"))?,
    );
    let engine = Engine {
        tree,
        path: config.path.clone(),
        durability: config.durability,
        read_only: true,
        opens: superblock.opens,
        append: None,
        group: Group::new(0),
        syncing: Mutex::new(()),
        durable_rev: AtomicU64::new(recovered.state.rev.get()),
        published: Published::new(recovered.state),
        audience: OnceLock::new(),
        poison: OnceLock::new(),
        closed: AtomicBool::new(false),
        counters: Counters::default(),
        metrics: Metrics::of_store(config.store_bytes_max),
        checkpoint_bytes: config.checkpoint_bytes,
        dead: None,
        free_bytes,
        _lock: None,
        checkpoint: Gate::new(Checkpoint {
            spine: Spine::default(),
            tables: recovered.tables,
            superblock,
        }),
        medium,
    };
    Ok(Opened { engine, run, found })
}

/// The key index run, which describes the keys up to its own revision; what came later is read from the
/// tree. One that claims more than the checkpoint has is none (B-93).
fn index_run(superblock: &Superblock) -> Option<Root> {
    let run = superblock.root(RootKind::Index).copied();
    run.filter(|run| run.detail <= superblock.revision.get())
}

/// Takes from the tail what is not known to be durable: frames below the mark are; the newest
/// group is when our own sync returns while a writer lives that has not failed.
fn keep_durable(storage: &dyn Storage, tail: &mut Tail) -> Result<()> {
    let writer_lives = |storage: &dyn Storage| -> Result<bool> {
        let free = storage
            .try_lock_byte(LockByte::WriterAlive, LockMode::Shared)
            .map_err(Error::on("lock the file"))?;
        if free {
            storage
                .unlock_byte(LockByte::WriterAlive)
                .map_err(Error::on("unlock the file"))?;
        }
        Ok(!free)
    };
    if writer_lives(storage)? && storage.sync_data().is_ok() && writer_lives(storage)? {
        return Ok(());
    }
    let mark = tail.synced_up_to;
    let whole = |frame: &TailFrame| frame.header.sequence < mark && !frame.header.flags.continued;
    let kept = tail.frames.iter().rposition(whole).map_or(0, |n| n + 1);
    let dropped: u64 = tail
        .frames
        .iter()
        .skip(kept)
        .map(|frame| u64::from(frame.header.body_len))
        .sum();
    tail.dropped_bytes += dropped;
    tail.frames.truncate(kept);
    Ok(())
}

/// What changes may fill, and what upkeep may, in so much address space: there may be less of it than was
/// asked for.
fn limits(store_bytes_max: u64, reserved: u64) -> (u64, u64) {
    let short = reserved < store_bytes_max;
    let most = if short { reserved / 9 * 8 } else { reserved };
    (store_bytes_max.min(most), reserved)
}

/// The medium of a file in which recovery will copy so many bytes.
fn medium(
    config: &Config,
    storage: Arc<dyn Storage>,
    superblock: &Superblock,
    copied: u64,
) -> Result<Arc<Medium>> {
    let segment_bytes = u64::from(superblock.segment_bytes);
    let copies = config.read_only || config.read_mode == ReadMode::Pread;
    let file_len = storage.len().map_err(Error::on("read the file's length"))?;
    let wanted = if config.read_only {
        segment_bytes
    } else {
        // The file may be larger than the limit that is given now, and a copy takes up to twice its bytes.
        let whole = (file_len + 2 * copied).next_multiple_of(segment_bytes);
        bytes_with_upkeep(config.store_bytes_max.max(whole), segment_bytes)
    };
    let region = Region::reserve(wanted.max(segment_bytes), segment_bytes).map_err(|_| {
        Error::OutOfMemory {
            what: "address space",
            bytes: wanted,
        }
    })?;
    let geometry = Geometry::new(superblock.segment_bytes);
    let medium = Medium::new(
        Arc::clone(&storage),
        region,
        geometry,
        superblock.store_id,
        copies,
    );
    medium.extend(file_len);
    Ok(Arc::new(medium))
}

/// Counts frames that recovery has done, and tells of it now and then.
pub(super) struct Frames<'a> {
    told: Progress,
    progress: &'a dyn Fn(Progress),
}

impl<'a> Frames<'a> {
    pub(super) fn new<'f>(
        what: &'static str,
        frames: impl Iterator<Item = &'f TailFrame>,
        progress: &'a dyn Fn(Progress),
    ) -> Frames<'a> {
        // As `replay` chooses them.
        let records = frames.filter(|frame| frame.header.kind == FrameKind::Records);
        let told = Progress {
            what,
            done: 0,
            total: Some(records.count() as u64),
        };
        Frames { told, progress }
    }

    /// One more.
    pub(super) fn done(&mut self) {
        self.told.done += 1;
        if self.told.done.is_multiple_of(FRAMES_A_REPORT) || Some(self.told.done) == self.told.total
        {
            (self.progress)(self.told);
        }
    }
}

/// Frames between two reports; a frame is some hundred kilobytes at most, but for one large value.
const FRAMES_A_REPORT: u64 = 256;

/// Replays the tail on top of the checkpoint.
fn recover(
    medium: &Medium,
    superblock: &Superblock,
    tail: &Tail,
    progress: &dyn Fn(Progress),
) -> Result<Recovered> {
    let mut segments = read_segments(medium, superblock)?;
    let mut tables = Tables::default();
    if let Some(root) = superblock.root(RootKind::Tables) {
        read_blob(medium, root, |chunk, body| {
            let mut items = 0;
            for item in revtree_format::Controls::new(body, chunk.position.0) {
                tables.apply(&item?)?;
                items += 1;
            }
            Ok(items)
        })?;
    }
    let mut state = State {
        rev: superblock.revision,
        applied: Applied {
            index: superblock.applied_index,
            term: superblock.applied_term,
        },
        compact: superblock.compact_revision,
        tables: tables.clone(),
    };
    check_compact(&state, 0)?;
    let mut leaves = Vec::new();
    let mut last = ChangeId::new(superblock.revision, u64::MAX);
    let mut frames = Frames::new("frames replayed", tail.frames.iter(), progress);
    replay(&*medium.storage, &tail.frames, |frame| {
        replay_frame(&frame, medium.seed, &mut state, &mut leaves, &mut last)?;
        frames.done();
        Ok(())
    })?;
    mark_chain(tail, &mut segments);
    set_uses(medium, &segments);
    Ok(Recovered {
        state,
        leaves,
        segments,
        tables,
    })
}

/// Bytes of the file in segments that are in no use.
fn free_bytes(segments: &[SegmentEntry], geometry: Geometry, file_len: u64) -> u64 {
    let free = (0u32..).zip(segments);
    let free = free.filter(|(_, entry)| entry.state == SegmentState::Free);
    free.map(|(index, _)| {
        let end = geometry.end(index, 1).0.min(file_len);
        end.saturating_sub(geometry.start(index).0)
    })
    .sum()
}

/// Tells the medium which segments are in use.
fn set_uses(medium: &Medium, segments: &[SegmentEntry]) {
    let mut units = 0;
    let mut segment_use = 0;
    for (index, entry) in (0u32..).zip(segments) {
        // Units after a long segment's first carry its number too.
        if entry.units > 0 {
            (units, segment_use) = (entry.units, entry.segment_use);
        }
        if units > 0 && entry.state != SegmentState::Free {
            medium.set_use(index, segment_use);
        }
    }
}

/// Tells the medium of a reader which segments are in use by a superblock that came since. What was in use before
/// is not in another use: the reader's byte keeps it.
pub(super) fn set_uses_of(medium: &Medium, superblock: &Superblock) -> Result<()> {
    let mut segments = read_segments(medium, superblock)?;
    mark_chain(&walk(&*medium.storage, superblock)?, &mut segments);
    set_uses(medium, &segments);
    Ok(())
}

fn replay_frame(
    frame: &Replayed<'_>,
    seed: StoreSeed,
    state: &mut State,
    leaves: &mut Vec<LeafRun>,
    last: &mut ChangeId,
) -> Result<()> {
    let wrong = |offset: Position, what, expected: u64, found: u64| {
        Err(Error::Corrupt {
            offset: offset.0,
            what,
            expected,
            found,
        })
    };
    let header = frame.frame.header;
    let place = frame.place(seed);
    let mut at = place.position;
    let mut rest = frame.records();
    let mut records = 0;
    let mut leaf: Option<LeafRun> = None;
    while !rest.is_empty() {
        let (head, _) = parse_record(rest, place.at(at))?;
        let len = head.record_len();
        if head.id <= *last || head.id.main > header.revision {
            return wrong(at, "record order", last.main.get(), head.id.main.get());
        }
        *last = head.id;
        let Some(after) = rest.get(len..) else {
            return wrong(at, "record beyond its frame", rest.len() as u64, len as u64);
        };
        let narrow = u32::try_from(len).expect("a record is shorter than 4 GiB");
        leaf = Some(match leaf {
            Some(open) if open.len as usize + len <= revtree_format::limits::LEAF_BYTES_MAX => {
                LeafRun {
                    len: open.len + narrow,
                    records: open.records + 1,
                    ..open
                }
            }
            full => {
                leaves.extend(full);
                let segment_use = frame.frame.segment_use;
                LeafRun {
                    first: head.id,
                    position: at,
                    segment_use,
                    len: narrow,
                    records: 1,
                }
            }
        });
        records += 1;
        rest = after;
        at = at.plus(len as u64);
    }
    leaves.extend(leaf);
    if records != header.record_count {
        let (expected, found) = (header.record_count.into(), records.into());
        return wrong(frame.frame.position, "frame record count", expected, found);
    }
    for item in frame.controls() {
        match item? {
            Control::Applied { index, term } => state.applied = Applied { index, term },
            Control::Compact { revision } => state.compact = Some(revision),
            Control::NextSegment { .. } => {}
            item => state.tables.apply(&item)?,
        }
    }
    if header.revision < state.rev {
        let (expected, found) = (state.rev.get(), header.revision.get());
        return wrong(frame.frame.position, "frame revision", expected, found);
    }
    state.rev = header.revision;
    check_compact(state, frame.frame.position.0)
}

/// Nothing is compacted that has not been made (B-65): who waits for a view that is not below would wait for
/// ever.
fn check_compact(state: &State, offset: u64) -> Result<()> {
    match state.compact {
        Some(compact) if compact > state.rev => Err(Error::Corrupt {
            offset,
            what: "compact revision above the revision",
            expected: state.rev.get(),
            found: compact.get(),
        }),
        _ => Ok(()),
    }
}

fn read_segments(medium: &Medium, superblock: &Superblock) -> Result<Vec<SegmentEntry>> {
    let mut segments = Vec::new();
    if let Some(root) = superblock.root(RootKind::Segments) {
        read_blob(medium, root, |chunk, body| {
            let part = parse_segments(body, chunk.position)?;
            let units = part.len() as u64;
            segments.extend(part);
            Ok(units)
        })?;
        check_segments(&segments, root.page.position)?;
        if segments.len() != superblock.segment_count as usize {
            return Err(Error::Corrupt {
                offset: root.page.position.0,
                what: "segments in the table",
                expected: superblock.segment_count.into(),
                found: segments.len() as u64,
            });
        }
        check_units(&segments, root.page.position)?;
        let file_len = medium.storage.len();
        check_inside(
            &segments,
            medium.geometry,
            root.page.position,
            file_len.map_err(Error::on("read the file's length"))?,
        )?;
    }
    Ok(segments)
}

/// Every segment in use begins in the file: its header was written before the table was (B-86).
fn check_inside(
    segments: &[SegmentEntry],
    geometry: Geometry,
    table: Position,
    file_len: u64,
) -> Result<()> {
    let used = (0u32..)
        .zip(segments)
        .filter(|(_, entry)| entry.units > 0 && entry.state != SegmentState::Free);
    if let Some((index, _)) = used.last()
        && geometry.start(index).0 >= file_len
    {
        return Err(Error::Corrupt {
            offset: table.0,
            what: "segment in use behind the end of the file",
            expected: file_len,
            found: geometry.start(index).0,
        });
    }
    Ok(())
}

/// Checks that each entry stands for as many units as it says (B-85).
fn check_units(segments: &[SegmentEntry], table: Position) -> Result<()> {
    let mut rest = segments;
    while let Some((first, behind)) = rest.split_first() {
        let (others, next) = first
            .units
            .checked_sub(1)
            .and_then(|others| behind.split_at_checked(others as usize))
            .unwrap_or((behind, &[]));
        let repeats = |entry: &SegmentEntry| {
            let same = entry.state == first.state && entry.segment_use == first.segment_use;
            same && entry.units == 0
        };
        let free = first.state == SegmentState::Free;
        let long = others.len() as u64 + 1;
        if u64::from(first.units) != long
            || free && *first != SegmentEntry::FREE
            || !others.iter().all(repeats)
        {
            return Err(Error::Corrupt {
                offset: table.0,
                what: "units in the segment table",
                expected: long,
                found: first.units.into(),
            });
        }
        rest = next;
    }
    Ok(())
}

/// Puts the segments that the chain entered since the checkpoint into the table.
fn mark_chain(tail: &Tail, segments: &mut Vec<SegmentEntry>) {
    for (index, units, segment_use) in &tail.segments {
        let end = *index as usize + *units as usize;
        if segments.len() < end {
            segments.resize(end, SegmentEntry::FREE);
        }
        let known = segments.get(*index as usize).is_some_and(|entry| {
            entry.state != SegmentState::Free && entry.segment_use == *segment_use
        });
        if known {
            continue;
        }
        for unit in 0..*units {
            let entry = SegmentEntry {
                state: SegmentState::Log,
                segment_use: *segment_use,
                units: if unit == 0 { *units } else { 0 },
                dead: 0,
            };
            if let Some(place) = segments.get_mut((*index + unit) as usize) {
                *place = entry;
            }
        }
    }
}

/// Lets readers see all segments in use but some: where the log goes on, or what is to be replaced.
fn show_used(medium: &Medium, segments: &[SegmentEntry], but: &[u32]) -> Result<()> {
    let file_len = medium
        .storage
        .len()
        .map_err(Error::on("read the file's length"))?;
    let mut index = 0u32;
    while (index as usize) < segments.len() {
        // As many neighbours as are in use share one mapping.
        let mut end = index;
        while segments
            .get(end as usize)
            .is_some_and(|entry| entry.state != SegmentState::Free)
            && !but.contains(&end)
        {
            end += segments
                .get(end as usize)
                .map_or(1, |entry| entry.units.max(1));
        }
        if end > index {
            let mut extent = claim(medium, index, end - index)?;
            let start = medium.geometry.start(index).0;
            let stop = medium.geometry.end(index, end - index).0.min(file_len);
            show(medium, &mut extent, start, stop)?;
        }
        let units = segments
            .get(end as usize)
            .map_or(1, |entry| entry.units.max(1));
        index = end + units;
    }
    Ok(())
}

/// Lets readers see the file's bytes from `start` to `end`, which lie in the file.
fn show(medium: &Medium, extent: &mut crate::sys::Extent, start: u64, end: u64) -> Result<()> {
    if medium.copies() {
        return Ok(());
    }
    // Pages may be larger than blocks; the slots before the first segment are in its extent.
    let page = page_size();
    let (start, whole) = (start - start % page, end - end % page);
    if start < whole {
        medium
            .storage
            .show(extent, start, whole - start)
            .map_err(Error::on("map the file"))?;
    }
    // The file may have been cut inside a block.
    load(medium, extent, whole.max(start), end)
}

/// Copies the file's bytes from `start` to `end` into memory and lets readers see them.
fn load(medium: &Medium, extent: &mut crate::sys::Extent, start: u64, end: u64) -> Result<()> {
    if start < end {
        let mut bytes = vec![0; usize::try_from(end - start).expect("within a segment")];
        let read = medium.storage.read_at(&mut bytes, start);
        read.map_err(Error::on("read the file"))?;
        let _ = extent.write(start, &bytes);
    }
    extent.publish(end.max(start));
    Ok(())
}
