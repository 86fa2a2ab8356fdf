//! The name that the imported store gets, and the file that will get it (SPEC.md, C-1).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sys::Disk;

/// A file that is being built beside the place that it is for. Dropped before [`Target::take`], it is
/// removed.
#[derive(Debug)]
pub(super) struct Target {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    temporary: PathBuf,
    taken: bool,
}

impl Target {
    /// Chooses the name of a file to be built for `path`, where there must be none.
    pub(super) fn new(disk: Arc<dyn Disk>, path: &Path) -> Result<Target> {
        check_free(&*disk, path)?;
        let random = disk
            .entropy()
            .map_err(Error::on("draw a temporary file's name"))?;
        // A name that no other importer uses: two of them must not write into one file.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:08x}.import", crc32c::crc32c(&random)));
        Ok(Target {
            disk,
            path: path.to_path_buf(),
            temporary: name.into(),
            taken: false,
        })
    }

    /// Where to build.
    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the built file, which is durable, its name; gives back where it is.
    pub(super) fn take(mut self) -> Result<(Arc<dyn Disk>, PathBuf)> {
        self.disk
            .rename_new(&self.temporary, &self.path)
            .map_err(Error::on("name the imported store"))?;
        self.taken = true;
        self.disk
            .sync_directory(&self.path)
            .map_err(Error::on("sync the directory"))?;
        Ok((Arc::clone(&self.disk), self.path.clone()))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.taken {
            // It may not have been created yet; and what cannot be removed is in nobody's way.
            let _ = self.disk.remove(&self.temporary);
        }
    }
}

/// Refuses a name that a file has.
pub(super) fn check_free(disk: &dyn Disk, path: &Path) -> Result<()> {
    if disk.exists(path).map_err(Error::on("look for the file"))? {
        let taken = io::ErrorKind::AlreadyExists;
        return Err(Error::io("create the store", taken.into()));
    }
    Ok(())
}
