//! A disk that can be stopped inside any of its calls, and counts them.
//!
//! It only passes calls on to the disk below it, so it runs over memory and over real files.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use revtree::storage::{Access, Disk, Extent, FileIdentity, LockByte, LockMode, Storage};

/// Kinds of calls that change the file or make it durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Write,
    Sync,
    SyncAll,
    Allocate,
    SetLen,
    Show,
}

/// On which side of the call the caller is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Before,
    After,
}

/// How long anybody waits here before the test is given up: far more than any step takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    /// Stop the caller of this many further calls, of one kind or of any.
    stop: Option<(usize, Option<Call>, Side)>,
    stopped: Option<Call>,
    let_go: bool,
}

/// The handle with which a test stops calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    /// Stops whoever makes the `nth` call from now (0: the next), of `call` or of any kind.
    pub(crate) fn stop_at(&self, nth: usize, call: Option<Call>, side: Side) {
        let mut state = self.lock();
        state.stop = Some((nth, call, side));
        state.stopped = None;
        state.let_go = false;
    }

    /// Waits until a caller is stopped, or until `done` says that none will be.
    pub(crate) fn wait_stopped(&self, done: impl Fn() -> bool) -> Option<Call> {
        let mut state = self.lock();
        let mut waited = Duration::ZERO;
        while state.stopped.is_none() && !done() {
            let step = Duration::from_millis(2);
            state = self.state.1.wait_timeout(state, step).unwrap().0;
            waited += step;
            assert!(waited < PATIENCE, "nobody came to the gate");
        }
        state.stopped
    }

    /// Lets the stopped caller go on, and everybody after it.
    pub(crate) fn let_go(&self) {
        let mut state = self.lock();
        state.let_go = true;
        state.stop = None;
        drop(state);
        self.state.1.notify_all();
    }

    /// The calls since the last time that this was asked.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    fn pass<T>(&self, call: Call, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut state = self.lock();
        state.calls.push(call);
        let mut here = None;
        if let Some((nth, wanted, side)) = &mut state.stop
            && wanted.is_none_or(|wanted| wanted == call)
        {
            match nth.checked_sub(1) {
                Some(left) => *nth = left,
                None => here = Some(*side),
            }
        }
        if here.is_some() {
            state.stop = None;
        }
        let stop = |mut state: MutexGuard<'_, State>| {
            state.stopped = Some(call);
            self.state.1.notify_all();
            while !state.let_go {
                state = self.state.1.wait(state).unwrap();
            }
        };
        if here == Some(Side::Before) {
            stop(state);
        } else {
            drop(state);
        }
        let result = make();
        if here == Some(Side::After) {
            stop(self.lock());
        }
        result
    }
}

/// A disk behind a gate.
#[derive(Debug)]
pub(crate) struct GateDisk<D> {
    pub(crate) disk: D,
    pub(crate) gate: Gate,
}

#[derive(Debug)]
struct GateFile {
    file: Arc<dyn Storage>,
    gate: Gate,
}

impl<D> GateDisk<D> {
    fn wrap(&self, file: Arc<dyn Storage>) -> Arc<dyn Storage> {
        let gate = self.gate.clone();
        Arc::new(GateFile { file, gate })
    }
}

impl<D: Disk> Disk for GateDisk<D> {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Storage>> {
        self.disk.open(path, access).map(|file| self.wrap(file))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        self.disk.create_new(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn sync_directory(&self, path_of_file: &Path) -> io::Result<()> {
        self.disk.sync_directory(path_of_file)
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        self.disk.entropy()
    }
}

impl Storage for GateFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.gate
            .pass(Call::Write, || self.file.write_at(buf, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass(Call::Sync, || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.gate.pass(Call::SyncAll, || self.file.sync_all())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.gate
            .pass(Call::Allocate, || self.file.allocate(offset, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.gate.pass(Call::SetLen, || self.file.set_len(len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }

    fn show(&self, extent: &mut Extent, offset: u64, len: u64) -> io::Result<()> {
        self.gate
            .pass(Call::Show, || self.file.show(extent, offset, len))
    }

    fn try_lock_writer(&self) -> io::Result<bool> {
        self.file.try_lock_writer()
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.file.identity()
    }

    fn try_lock_byte(&self, byte: LockByte, mode: LockMode) -> io::Result<bool> {
        self.file.try_lock_byte(byte, mode)
    }

    fn unlock_byte(&self, byte: LockByte) -> io::Result<()> {
        self.file.unlock_byte(byte)
    }
}
