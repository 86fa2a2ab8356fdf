//! A pinned image of the store, to be sent, saved and restored (SPEC.md, S-1 to S-6).

#![expect(
    clippy::disallowed_types,
    reason = "planning an image once; no read of the store comes here"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use revtree_format::Revision;

use super::image::Image;
use super::increment::write_increment;
use super::pins::Pin;
use super::store::Store;
use crate::engine::{State, WriterLock, lock};
use crate::error::{Error, Result};
use crate::options::Applied;
use crate::sync::Mutex;
use crate::sys::{Access, Disk, Stopwatch, Storage};
use crate::trace;

/// A complete store file of one revision, made while the store goes on. Restoring it is opening it.
///
/// It holds what can be read at its revision: every retained revision, side tables, consistent index and
/// compact revision; not what was compacted away. Taking one costs nothing. At the first [`Snapshot::len`]
/// or read it is laid out, for which all records are read once; from then on any part of it can be read,
/// and the same snapshot gives the same bytes each time. It needs about eight bytes of memory for each
/// record, a sixtieth of the file and one segment; until it is dropped it keeps the space of what it
/// holds from being reclaimed, and the store's file open and locked.
///
/// ```
/// let dir = tempfile::tempdir().unwrap();
/// let db = revtree::Db::open(dir.path().join("store"))?;
/// db.put("a", "1")?;
/// let snapshot = db.snapshot()?;
/// db.put("a", "2")?;
/// snapshot.save(dir.path().join("copy"))?;
/// let copy = revtree::Db::open(dir.path().join("copy"))?;
/// assert_eq!(copy.get("a")?.unwrap().value, "1");
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

struct Inner {
    image: OnceLock<Image>,
    /// Held while the image is laid out, so that it is done once.
    planning: Mutex<()>,
    state: State,
    /// Where it is saved.
    disk: Arc<dyn Disk>,
    /// Given back before the store, which it belongs to.
    _pin: Pin,
    store: Arc<Store>,
}

impl Snapshot {
    /// A snapshot of the current revision, to be saved on `disk`.
    pub(crate) fn current(store: &Arc<Store>, disk: &Arc<dyn Disk>) -> Result<Snapshot> {
        store.check_open()?;
        loop {
            let (_, state) = store.engine.published();
            // What is live at the compact revision stays. The pin first, then the look: a compaction that
            // does not see the pin has raised the revision by then.
            let pin = store.pins.pin(state.compact.unwrap_or_default());
            let compact = state.compact;
            let (rev, state) = store.engine.published();
            if state.compact != compact {
                continue;
            }
            let state = State {
                rev,
                ..State::clone(&state)
            };
            return Ok(Snapshot {
                inner: Arc::new(Inner {
                    image: OnceLock::new(),
                    planning: Mutex::new(()),
                    state,
                    disk: Arc::clone(disk),
                    _pin: pin,
                    store: Arc::clone(store),
                }),
            });
        }
    }

    /// The revision that it holds as the current one.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let snapshot = db.snapshot()?;
    /// db.put("a", "2")?;
    /// assert_eq!((snapshot.revision().get(), db.rev().get()), (2, 3));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.inner.state.rev
    }

    /// The consistent index at that revision.
    ///
    /// ```
    /// use revtree::Applied;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.set_applied(Applied { index: 5, term: 2 });
    /// txn.commit()?;
    /// let snapshot = db.snapshot()?;
    /// db.raise_consistent_index(9)?;
    /// assert_eq!(snapshot.applied(), Applied { index: 5, term: 2 }); // Raft's snapshot position
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.inner.state.applied
    }

    /// Its length in bytes, known before the first byte is read. 0 when the image cannot be made because
    /// a record that belongs into it cannot be read: [`Snapshot::read_at`] and the others then say why.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let snapshot = db.snapshot()?;
    /// let mut bytes = Vec::new();
    /// assert_eq!(snapshot.write_to(&mut bytes)?, snapshot.len());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[expect(clippy::len_without_is_empty, reason = "a store file is never empty")]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.image().map_or(0, Image::len)
    }

    /// Fills `buf` with the bytes from `offset` on, and says how many there were: fewer than asked for
    /// only at the end, 0 behind it. For transfer in chunks, in any order, from any thread.
    ///
    /// Bytes are made a segment at a time, and the segment made last is kept: reading on is cheap, jumping
    /// costs a segment.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let snapshot = db.snapshot()?;
    /// let mut magic = [0; 8];
    /// assert_eq!(snapshot.read_at(&mut magic, 0)?, 8);
    /// assert_eq!(&magic, b"REVTREE1");
    /// assert_eq!(snapshot.read_at(&mut magic, snapshot.len())?, 0);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`] when a record that belongs into it cannot be read.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.image()?.read_at(&self.inner.store, buf, offset)
    }

    /// Writes all of it and gives its length in bytes. `to` is flushed.
    ///
    /// ```
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.snapshot()?.write_to(std::fs::File::create(dir.path().join("copy")).unwrap())?;
    /// assert_eq!(revtree::Db::open(dir.path().join("copy"))?.get("a")?.unwrap().value, "1");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Snapshot::read_at`], and [`Error::Io`] with what the writer said.
    pub fn write_to(&self, mut to: impl Write) -> Result<u64> {
        let time = Stopwatch::start();
        let failed = Error::on("write the snapshot");
        let written = self.each_chunk(|bytes, _| to.write_all(bytes));
        let len = written?;
        to.flush().map_err(failed)?;
        self.inner.store.engine.metrics.snapshot(&time);
        Ok(len)
    }

    /// Writes what a store that stands at an earlier revision lacks to become this one, for
    /// [`Db::apply_increment`](crate::Db::apply_increment), and gives its length in bytes. `to` is flushed.
    ///
    /// It holds the changes above `earlier` and all side tables. Where the store has been compacted beyond `earlier`, it
    /// also names each change that stays of what was before, with 12 bytes. The heads of all records are read for it.
    ///
    /// ```
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = revtree::Db::open(dir.path().join("store"))?;
    /// let earlier = db.put("a", "1")?;
    /// db.snapshot()?.save(dir.path().join("backup"))?;
    /// db.put("a", "2")?;
    /// let mut increment = Vec::new();
    /// db.snapshot()?.write_since(earlier, &mut increment)?;
    /// let backup = revtree::Db::open(dir.path().join("backup"))?;
    /// backup.apply_increment(&increment[..])?;
    /// assert_eq!(backup.get("a")?.unwrap().value, "2");
    /// assert_eq!(backup.hash_by_rev(0)?, db.hash_by_rev(0)?);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::FutureRevision`] when `earlier` is above [`Snapshot::revision`]; [`Error::Corrupt`] and [`Error::Io`] when
    /// a record that belongs into it cannot be read; [`Error::Io`] with what the writer said.
    pub fn write_since(&self, earlier: Revision, to: impl Write) -> Result<u64> {
        write_increment(&self.inner.store, &self.inner.state, earlier, to)
    }

    /// Saves it as the file `path`, and gives its length in bytes: a file of the machine, also when the store is in
    /// memory. It is written under another name, synced and renamed into place, so that a crash leaves all
    /// of it or what was there before. A file that has the name loses it, unless it is a store that is open
    /// for writing.
    ///
    /// ```
    /// let dir = tempfile::tempdir().unwrap();
    /// let db = revtree::Db::open(dir.path().join("store"))?;
    /// let len = db.snapshot()?.save(dir.path().join("backup"))?;
    /// assert_eq!(std::fs::metadata(dir.path().join("backup")).unwrap().len(), len);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Snapshot::read_at`]; [`Error::Locked`] when an open store is in the way; [`Error::NoSpace`] and
    /// [`Error::Io`], after which the unfinished file is removed.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<u64> {
        let time = Stopwatch::start();
        let (path, disk) = (path.as_ref(), &*self.inner.disk);
        trace::span!("save", path = %path.display());
        let _kept = self.check_target(path)?;
        let name = disk.entropy().map_err(Error::on("draw a name"))?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{:08x}.new", crc32c::crc32c(&name)));
        let temporary = PathBuf::from(temporary);
        let file = disk
            .create_new(&temporary)
            .map_err(Error::on("create the snapshot's file"))?;
        let saved = self.fill(&*file).and_then(|len| {
            disk.rename(&temporary, path)
                .map_err(Error::on("rename the snapshot's file"))?;
            Ok(len)
        });
        if saved.is_err() {
            let _ = disk.remove(&temporary);
            return saved;
        }
        disk.sync_directory(path)
            .map_err(Error::on("sync the snapshot's directory"))?;
        self.inner.store.engine.metrics.snapshot(&time);
        trace::event!(INFO, revision = self.revision().get(), "snapshot saved");
        saved
    }

    /// Writes and syncs the file.
    fn fill(&self, file: &dyn Storage) -> Result<u64> {
        let len = self.image()?.len();
        file.allocate(0, len)
            .map_err(Error::on_allocate("allocate the snapshot's file", len))?;
        self.each_chunk(|bytes, offset| file.write_at(bytes, offset))?;
        file.sync_all()
            .map_err(Error::on("sync the snapshot's file"))?;
        Ok(len)
    }

    /// Refuses to take the name of a store that somebody writes; else that name's file, locked, so that
    /// nobody begins to.
    fn check_target(&self, path: &Path) -> Result<Option<(WriterLock, Arc<dyn Storage>)>> {
        let Ok(file) = self.inner.disk.open(path, Access::ReadOnly) else {
            return Ok(None);
        };
        let lock = WriterLock::take(&*file, path)?;
        Ok(Some((lock, file)))
    }

    /// Gives all bytes in order, some at a time.
    fn each_chunk(&self, mut visit: impl FnMut(&[u8], u64) -> std::io::Result<()>) -> Result<u64> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        loop {
            let read = self.read_at(&mut chunk, offset)?;
            if read == 0 {
                return Ok(offset);
            }
            visit(&chunk[..read], offset).map_err(Error::on("write the snapshot"))?;
            offset += read as u64;
        }
    }

    fn image(&self) -> Result<&Image> {
        let inner = &*self.inner;
        if let Some(image) = inner.image.get() {
            return Ok(image);
        }
        let _planning = lock(&inner.planning);
        if let Some(image) = inner.image.get() {
            return Ok(image);
        }
        let image = Image::plan(&inner.store, &inner.state)?;
        Ok(inner.image.get_or_init(|| image))
    }
}

/// Bytes written at a time.
const CHUNK_BYTES: usize = 1 << 20;

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision())
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

// What the door promises of it.
const _: () = {
    const fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Snapshot>();
};
