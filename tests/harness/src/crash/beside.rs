//! Other ways to open what a crash has left: for reading only, and by positioned reads.
//!
//! An open for writing decides what is there. Who reads only, without a writer, may leave out what is not
//! known to be durable, and so shows the same state or an accepted one before it; beside the writer he
//! shows the same. How reads reach the file makes no difference.

use std::path::Path;

use revtree::ReadMode;
use revtree::storage::sim::{SimDisk, SimOptions};

use super::history::{History, STORE, Setup, end_process, state_of};
use crate::state::State;
use crate::subject::{Store, snapshot_path};

/// What was seen of a disk before an open for writing.
#[derive(Debug)]
pub(super) struct Beside {
    read_only: Option<State>,
    positioned: State,
}

impl Beside {
    /// Opens the disk in the other ways; it stays as it is.
    pub(super) fn look(history: &History, disk: &SimDisk) -> Result<Beside, String> {
        let setup = history.setup;
        let before = disk.operations();
        let paths = disk.paths();
        let has = |name: &Path| paths.iter().any(|path| path == name);
        let read_only = if has(Path::new(STORE)) {
            Some(read(setup, disk, Path::new(STORE))?)
        } else {
            None
        };
        // A saved snapshot has its name from when it is complete.
        for slot in 0..3 {
            let path = snapshot_path(Path::new(STORE), slot);
            if has(&path) {
                let saved = read(setup, disk, &path)?;
                if !history.states.contains(&saved) {
                    return Err(format!("wrong: the snapshot {slot} holds {saved:?}"));
                }
            }
        }
        if disk.operations() != before {
            return Err("wrong: an open for reading only has written".to_owned());
        }
        let other = match setup.read_mode {
            ReadMode::Map => ReadMode::Pread,
            _ => ReadMode::Map,
        };
        let copy = copy(disk);
        let opened = setup.reading_by(other).open(&copy);
        let mut store = opened.map_err(|error| format!("wrong: opened by {other:?}: {error}"))?;
        let positioned = state_of(&mut store)?;
        end_process(store, &copy);
        Ok(Beside {
            read_only,
            positioned,
        })
    }

    /// Compares with the store, open for writing, that shows the state `found`.
    pub(super) fn compare(
        &self,
        history: &History,
        disk: &SimDisk,
        store: &Store,
        found: usize,
    ) -> Result<(), String> {
        let state = &history.states[found];
        if self.positioned != *state {
            return Err(format!(
                "wrong: read the other way it is {:?}",
                self.positioned
            ));
        }
        let clean = store.db().recovery().clean;
        if let Some(seen) = &self.read_only {
            let known = history.states[..=found].contains(seen);
            if !known || clean && seen != state {
                return Err(format!(
                    "wrong: for reading only it is {seen:?}, for writing (clean: {clean}) {state:?}"
                ));
            }
        }
        let beside = read(history.setup, disk, Path::new(STORE))?;
        if beside != *state {
            return Err(format!("wrong: beside the writer it is {beside:?}"));
        }
        Ok(())
    }
}

/// The state that an open for reading only shows.
fn read(setup: Setup, disk: &SimDisk, path: &Path) -> Result<State, String> {
    let wrong = |error| format!("wrong: {} for reading only: {error}", path.display());
    let mut store = setup.open_read_only(disk, path).map_err(wrong)?;
    let state = state_of(&mut store)?;
    store.close().map_err(wrong)?;
    Ok(state)
}

/// Another disk with the same files. It draws other names for new ones than the disk has.
fn copy(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new(SimOptions {
        seed: 0xBE51DE,
        ..SimOptions::default()
    });
    for path in disk.paths() {
        if let Some(bytes) = disk.bytes(&path) {
            copy.put_bytes(&path, &bytes);
        }
    }
    copy
}
