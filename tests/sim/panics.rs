//! Panics at every call to the disk and in every callback: nobody waits for ever, what was acknowledged is
//! there, also after a power cut, and a store that a panic left half-done is not closed as if it were whole.
//!
//! The caller goes on with the same handle, as a server does that catches the panics of its requests.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use revtree::storage::sim::{Mask, SimDisk, SimOptions};
use revtree::storage::{Access, Disk, Extent, FileIdentity, LockByte, LockMode, Storage};
use revtree::{Db, Durability, Error, LeaseId, Lessor, Options, ReadMode, WeakDb};

const STORE: &str = "store";
/// What our panics say, and where.
const MEANT: &str = "meant to, in ";
/// Far more than any history takes; whoever waits longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the panic is: before or after the n-th call is made.
#[derive(Clone, Copy, Debug)]
struct Site {
    nth: u64,
    after: bool,
}

/// Counts calls, and panics in one of them.
#[derive(Debug, Default)]
struct Fuse {
    calls: AtomicU64,
    site: Mutex<Option<Site>>,
    /// The call that it panicked in.
    blown: Mutex<Option<&'static str>>,
}

impl Fuse {
    fn at(site: Option<Site>) -> Arc<Fuse> {
        Arc::new(Fuse {
            site: Mutex::new(site),
            ..Fuse::default()
        })
    }

    fn pass<T>(&self, name: &'static str, make: impl FnOnce() -> T) -> T {
        let nth = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let here = self.site.lock().unwrap().filter(|site| site.nth == nth);
        let Some(site) = here else { return make() };
        *self.blown.lock().unwrap() = Some(name);
        if site.after {
            let _ = make();
        }
        panic!("{MEANT}{name}")
    }

    fn blown(&self) -> Option<&'static str> {
        *self.blown.lock().unwrap()
    }
}

#[derive(Clone, Debug)]
struct FuseDisk {
    disk: SimDisk,
    fuse: Arc<Fuse>,
}

#[derive(Debug)]
struct FuseFile {
    file: Arc<dyn Storage>,
    fuse: Arc<Fuse>,
}

impl FuseDisk {
    fn wrap(&self, file: Arc<dyn Storage>) -> Arc<dyn Storage> {
        let fuse = Arc::clone(&self.fuse);
        Arc::new(FuseFile { file, fuse })
    }
}

impl Disk for FuseDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Storage>> {
        let opened = self.fuse.pass("open", || self.disk.open(path, access));
        opened.map(|file| self.wrap(file))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        let created = self.fuse.pass("create_new", || self.disk.create_new(path));
        created.map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fuse.pass("rename", || self.disk.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let rename = || self.disk.rename_new(from, to);
        self.fuse.pass("rename_new", rename)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fuse.pass("remove", || self.disk.remove(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.fuse.pass("exists", || self.disk.exists(path))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let sync = || self.disk.sync_directory(path);
        self.fuse.pass("sync_directory", sync)
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        self.fuse.pass("entropy", || self.disk.entropy())
    }
}

impl Storage for FuseFile {
    fn len(&self) -> io::Result<u64> {
        self.fuse.pass("len", || self.file.len())
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        let count = || self.file.allocated_bytes();
        self.fuse.pass("allocated_bytes", count)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let read = || self.file.read_at(buf, offset);
        self.fuse.pass("read_at", read)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let write = || self.file.write_at(buf, offset);
        self.fuse.pass("write_at", write)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fuse.pass("sync_data", || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.fuse.pass("sync_all", || self.file.sync_all())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let allocate = || self.file.allocate(offset, len);
        self.fuse.pass("allocate", allocate)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fuse.pass("set_len", || self.file.set_len(len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fuse.pass("punch", || self.file.punch(offset, len))
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        let start = || self.file.start_writeback(offset, len);
        self.fuse.pass("start_writeback", start)
    }

    fn show(&self, extent: &mut Extent, offset: u64, len: u64) -> io::Result<()> {
        let show = || self.file.show(extent, offset, len);
        self.fuse.pass("show", show)
    }

    fn try_lock_writer(&self) -> io::Result<bool> {
        let lock = || self.file.try_lock_writer();
        self.fuse.pass("try_lock_writer", lock)
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.fuse.pass("identity", || self.file.identity())
    }

    fn try_lock_byte(&self, byte: LockByte, mode: LockMode) -> io::Result<bool> {
        let lock = || self.file.try_lock_byte(byte, mode);
        self.fuse.pass("try_lock_byte", lock)
    }

    fn unlock_byte(&self, byte: LockByte) -> io::Result<()> {
        let unlock = || self.file.unlock_byte(byte);
        self.fuse.pass("unlock_byte", unlock)
    }
}

/// A lessor each of whose hooks goes through the fuse.
struct FuseLessor(Arc<Fuse>);

impl Lessor for FuseLessor {
    fn opened(&self, _db: WeakDb) {
        self.0.pass("opened", || {});
    }

    fn exists(&self, _lease: LeaseId) -> bool {
        self.0.pass("exists", || true)
    }

    fn lease_of(&self, _key: &[u8]) -> Option<LeaseId> {
        self.0.pass("lease_of", || None)
    }

    fn attach(&self, _lease: LeaseId, _key: &[u8]) {
        self.0.pass("attach", || {});
    }

    fn detach(&self, _lease: LeaseId, _key: &[u8]) {
        self.0.pass("detach", || {});
    }
}

/// A history: how it opens the store, and where it panics.
#[derive(Clone)]
struct Setup {
    durability: Durability,
    read_mode: ReadMode,
    history: fn(&Setup, &SimDisk) -> Acknowledged,
    disk: Arc<Fuse>,
    hooks: Arc<Fuse>,
}

impl Setup {
    fn new(durability: Durability, read_mode: ReadMode) -> Setup {
        Setup {
            durability,
            read_mode,
            history,
            disk: Fuse::at(None),
            hooks: Fuse::at(None),
        }
    }

    fn options(&self) -> Options {
        let options = Options::new()
            .segment_bytes(64 << 10)
            .store_bytes_max(1 << 27);
        options
            .durability(self.durability)
            .read_mode(self.read_mode)
            .checkpoint_bytes(8 << 10)
    }

    fn open(&self, disk: &SimDisk) -> revtree::Result<Db> {
        let (hooks, fuse) = (Arc::clone(&self.hooks), Arc::clone(&self.disk));
        let progress = Arc::clone(&self.hooks);
        let disk = FuseDisk {
            disk: disk.clone(),
            fuse,
        };
        self.options()
            .disk(Arc::new(disk))
            .lessor(Arc::new(FuseLessor(hooks)))
            .on_progress(move |_| progress.pass("progress", || {}))
            .open(STORE)
    }

    fn blown(&self) -> Option<&'static str> {
        self.disk.blown().or(self.hooks.blown())
    }
}

/// What was acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    puts: Vec<u64>,
    /// Of those, how many are durable.
    durable: usize,
    compacted: u64,
}

fn key(n: u64) -> String {
    format!("key/{n:03}")
}

fn value(n: u64) -> Vec<u8> {
    vec![n.to_le_bytes()[0]; 300 + usize::try_from(n * 37 % 900).unwrap()]
}

/// An error that a store may give once a panic left something half-done.
fn expected(error: &Error) {
    assert!(
        matches!(
            error,
            Error::Poisoned { .. } | Error::CommitUnknown { .. } | Error::Io { .. } | Error::Closed
        ),
        "{error:?}"
    );
}

/// Calls, and catches its panic, which must be ours.
fn caught<T>(setup: &Setup, call: impl FnOnce() -> revtree::Result<T>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            assert!(setup.blown().is_some(), "{error:?}");
            expected(&error);
            None
        }
        Err(panic) => {
            let ours = |text: &str| text.starts_with(MEANT);
            let text = panic.downcast_ref::<String>().map(String::as_str);
            assert!(text.is_some_and(ours), "{text:?}");
            None
        }
    }
}

fn put(db: &Db, n: u64) -> revtree::Result<bool> {
    let mut txn = db.write()?;
    txn.put_with_lease(key(n), value(n), LeaseId(1 + n.cast_signed() % 3))?;
    if n.is_multiple_of(5) {
        txn.put("other", value(n))?;
    }
    txn.commit().map(|commit| commit.durable)
}

/// Opens, writes, compacts, saves, restores, reads, closes, opens again; catches each panic and goes on.
fn history(setup: &Setup, disk: &SimDisk) -> Acknowledged {
    let mut told = Acknowledged::default();
    for stage in 0..2u64 {
        let Some(db) = caught(setup, || setup.open(disk)) else {
            continue;
        };
        if stage > 0 {
            // What nobody waited for may have been lost; what is there now is durable.
            let (durable, all) = (told.durable, std::mem::take(&mut told.puts));
            let kept = |(at, n): (usize, u64)| {
                let found = caught(setup, || db.get(key(n))).flatten();
                (at < durable || found.is_some()).then_some(n)
            };
            told.puts = all.into_iter().enumerate().filter_map(kept).collect();
        }
        for n in 40 * stage..40 * stage + 25 {
            if let Some(durable) = caught(setup, || put(&db, n)) {
                told.puts.push(n);
                if durable {
                    told.durable = told.puts.len();
                }
            }
            match n % 40 {
                8 => {
                    let rev = db.rev().get().saturating_sub(3);
                    if rev > told.compacted && caught(setup, || db.compact(rev)).is_some() {
                        told.compacted = rev;
                    }
                }
                12 if caught(setup, || db.sync()).is_some() => told.durable = told.puts.len(),
                15 if stage == 1 => {
                    let all = told.puts.len();
                    if caught(setup, || db.snapshot()?.save("saved")).is_some()
                        && caught(setup, || db.restore("saved")).is_some()
                    {
                        told.durable = all;
                    }
                }
                _ => {}
            }
            caught(setup, || {
                let view = db.read()?;
                view.get(key(n))?;
                view.range(..).count()
            });
        }
        let (broken, before) = (setup.blown().is_some(), disk.operations());
        if caught(setup, || db.close()).is_some() {
            told.durable = told.puts.len();
        } else if broken {
            // A store that was left half-done is left so: nothing of it becomes what a clean close writes.
            assert_eq!(disk.operations(), before, "a refused close wrote");
        }
    }
    told
}

/// Three threads on one store: puts of their own keys, compactions, syncs and reads; each catches its panics and goes
/// on, and so do the others, whose commit the panic may have been in.
fn beside(setup: &Setup, disk: &SimDisk) -> Acknowledged {
    let Some(db) = caught(setup, || setup.open(disk)) else {
        return Acknowledged::default();
    };
    let puts = Mutex::new(Vec::new());
    let work = |thread: u64| {
        for n in 100 * thread..100 * thread + 12 {
            if caught(setup, || put(&db, n)).is_some() {
                puts.lock().unwrap().push(n);
            }
            match (thread, n % 4) {
                (0, 3) => drop(caught(setup, || db.compact(db.rev()))),
                (1, 3) => drop(caught(setup, || db.sync())),
                (2, _) => drop(caught(setup, || db.read()?.range(..).count())),
                _ => {}
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = (0..3).map(|thread| scope.spawn(move || work(thread)));
        for thread in threads.collect::<Vec<_>>() {
            thread.join().unwrap();
        }
    });
    caught(setup, || db.close());
    let puts = puts.into_inner().unwrap();
    // It is for stores that sync each commit.
    Acknowledged {
        durable: puts.len(),
        puts,
        compacted: 0,
    }
}

/// The store has the first so many of what was acknowledged, each with its value, and is whole.
fn verify(setup: &Setup, disk: &SimDisk, told: &Acknowledged, least: usize) {
    let options = setup.options().disk(Arc::new(disk.clone()));
    let db = options.open(STORE).unwrap();
    for n in &told.puts[..least] {
        let found = db.get(key(*n)).unwrap();
        let found = found.unwrap_or_else(|| panic!("{} is lost", key(*n)));
        assert!(found.value == value(*n), "{} has another value", key(*n));
    }
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{report:?}");
    db.put("after", "1").unwrap();
    db.close().unwrap();
}

/// What the history left: after a power cut that takes all it may, and as it is.
fn look(setup: &Setup, disk: &SimDisk, told: &Acknowledged) {
    if !disk.exists(Path::new(STORE)).unwrap() {
        assert!(told.puts.is_empty(), "the store is gone");
        return;
    }
    let now = disk.operations();
    let sectors = disk.pending(now);
    let image = disk.image(now, &mut Mask::new(vec![false; sectors], false, false));
    if told.durable > 0 {
        verify(setup, &image, told, told.durable);
    }
    let least = match setup.durability {
        Durability::Sync | Durability::Flushed => told.puts.len(),
        _ => told.durable,
    };
    verify(setup, disk, told, least);
}

/// One history with its panic, in a thread that is watched.
fn run(setup: &Setup) {
    let (done, wait) = channel();
    let watched = setup.clone();
    let thread = std::thread::spawn(move || {
        let disk = SimDisk::new(SimOptions::default());
        let told = (watched.history)(&watched, &disk);
        let looked = catch_unwind(AssertUnwindSafe(|| look(&watched, &disk, &told)));
        let _ = done.send(());
        looked.unwrap_or_else(|_| panic!("{told:?}"));
    });
    if let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(PATIENCE) {
        panic!("somebody waits for ever");
    }
    thread.join().unwrap();
}

/// Panics that are meant say nothing: there are thousands, and looking up the names of a trace takes longer than a
/// history.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<String>();
            if !text.is_some_and(|text| text.starts_with(MEANT)) {
                before(panic);
            }
        }));
    });
}

/// Panics before and after each call, or each `step`-th, of a history.
fn each_site(durability: Durability, read_mode: ReadMode, hooks: bool, step: usize) {
    each_site_of(&Setup::new(durability, read_mode), hooks, step);
}

/// The same with the history of this setup. With several threads the calls are not the same each time: the last may
/// not come.
fn each_site_of(like: &Setup, hooks: bool, step: usize) {
    let (durability, read_mode) = (like.durability, like.read_mode);
    let new = || Setup {
        history: like.history,
        ..Setup::new(durability, read_mode)
    };
    quiet();
    let setup = new();
    run(&setup);
    let calls = |setup: &Setup| {
        let fuse = if hooks { &setup.hooks } else { &setup.disk };
        fuse.calls.load(Ordering::SeqCst)
    };
    let sites = calls(&setup);
    let mut blown = BTreeMap::<&str, u64>::new();
    for nth in (1..=sites).step_by(step) {
        for after in [false, true] {
            let fuse = Fuse::at(Some(Site { nth, after }));
            let mut setup = new();
            *(if hooks {
                &mut setup.hooks
            } else {
                &mut setup.disk
            }) = fuse;
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&setup)));
            let place = setup.blown();
            if outcome.is_err() {
                panic!(
                    "{durability:?}, {read_mode:?}: a panic in call {nth}, {place:?}, after it: {after}"
                );
            }
            *blown.entry(place.unwrap_or("none")).or_default() += 1;
        }
    }
    println!("{durability:?}, {read_mode:?}: {sites} calls, {blown:?}");
}

/// A store whose syncs are made by its own thread.
fn batched() -> Durability {
    Durability::Batched {
        changes: 4,
        interval: Duration::from_secs(1000),
    }
}

#[test]
fn a_panic_in_any_call_loses_nothing_acknowledged() {
    each_site(Durability::Sync, ReadMode::Map, false, 1);
}

#[test]
fn a_panic_in_any_call_of_a_flushed_store_loses_nothing_acknowledged() {
    each_site(Durability::Flushed, ReadMode::Pread, false, 1);
}

#[test]
fn a_panic_in_any_call_of_a_batched_store_loses_a_suffix() {
    each_site(batched(), ReadMode::Map, false, 1);
}

#[test]
fn a_panic_in_any_callback_loses_nothing_acknowledged() {
    each_site(Durability::Sync, ReadMode::Map, true, 1);
    each_site(Durability::Flushed, ReadMode::Map, true, 3);
}

/// Several threads on a store that syncs each commit.
fn threads() -> Setup {
    Setup {
        history: beside,
        ..Setup::new(Durability::Sync, ReadMode::Map)
    }
}

#[test]
fn a_panic_beside_other_threads_loses_nothing_acknowledged() {
    each_site_of(&threads(), false, 3);
    each_site_of(&threads(), true, 3);
}

/// Which thread comes first is another one each time.
#[test]
#[ignore = "minutes"]
fn a_panic_beside_other_threads_twenty_times() {
    for _ in 0..20 {
        each_site_of(&threads(), false, 1);
        each_site_of(&threads(), true, 1);
    }
}
