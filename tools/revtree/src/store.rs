//! Opening the store that a command names: to read, to change, or to make it.

use std::path::{Path, PathBuf};

use revtree::{Cleaner, CleanerOptions, Create, Db, Options, ReadView};

use crate::failure::{Failure, Result};
use crate::progress::Bar;

/// A store that is open, and the path that error lines name.
pub(crate) struct Store {
    pub(crate) db: Db,
    path: PathBuf,
}

impl Store {
    /// Opens a store that exists, to read.
    pub(crate) fn to_read(path: &Path) -> Result<Store> {
        Store::open(path, Options::new().read_only().create(Create::Never))
    }

    /// Opens a store that exists, to change it. Nothing is cleaned beside a command that is over in a moment.
    pub(crate) fn to_change(path: &Path) -> Result<Store> {
        let options = Options::new().cleaner(Cleaner::Manual);
        Store::open(path, options.create(Create::Never))
    }

    /// Opens a store that exists, to compact it and to clean up behind that: nobody else writes, so at full speed.
    pub(crate) fn to_compact(path: &Path) -> Result<Store> {
        let cleaner = CleanerOptions::new().bytes_per_second(u64::MAX);
        let options = Options::new().cleaner(Cleaner::Paced(cleaner));
        Store::open(path, options.create(Create::Never))
    }

    /// Opens a store to change it, and makes it when there is no file.
    pub(crate) fn to_put(path: &Path) -> Result<Store> {
        let options = Options::new().cleaner(Cleaner::Manual);
        Store::open(path, options.create(Create::IfMissing))
    }

    /// Opens a store that exists, to read; for who does so again and again, without a bar each time.
    pub(crate) fn to_follow(path: &Path) -> Result<Store> {
        let options = Options::new().read_only().create(Create::Never);
        Store::opened(path, options.open(path))
    }

    fn open(path: &Path, options: Options) -> Result<Store> {
        let bar = Bar::default();
        let db = options.on_progress(bar.listener()).open(path);
        bar.clear();
        Store::opened(path, db)
    }

    fn opened(path: &Path, db: revtree::Result<Db>) -> Result<Store> {
        let db = db.map_err(|error| Failure::store(path, &error))?;
        Ok(Store {
            db,
            path: path.to_path_buf(),
        })
    }

    /// The answer of the store, or its refusal as the tool tells it.
    pub(crate) fn told<T>(&self, result: revtree::Result<T>) -> Result<T> {
        result.map_err(|error| Failure::store(&self.path, &error))
    }

    /// The view of a command with `--rev`; none and 0 are the current revision.
    pub(crate) fn view(&self, rev: Option<u64>) -> Result<ReadView> {
        match rev {
            None | Some(0) => self.told(self.db.read()),
            Some(rev) => self.told(self.db.read_at(rev)),
        }
    }

    /// Closes the store after a change, so that a failure on the way out is told.
    pub(crate) fn close(self) -> Result {
        self.db
            .close()
            .map_err(|error| Failure::store(&self.path, &error))
    }
}
