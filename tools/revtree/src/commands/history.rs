//! `history STORE KEY`: every retained change of one key.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::failure::Result;
use crate::keys::KeyFormat;
use crate::output::Output;
use crate::store::Store;

/// What `history` takes.
#[derive(Args)]
pub(crate) struct History {
    /// The store file.
    store: PathBuf,
    /// The key.
    key: OsString,
    /// Changes up to this revision; 0: all.
    #[arg(long, value_name = "REVISION")]
    rev: Option<u64>,
}

impl History {
    /// Prints the changes, the newest last.
    pub(crate) fn run(&self, keys: KeyFormat, output: &mut Output) -> Result {
        let key = keys.parse(&self.key)?;
        let store = Store::to_read(&self.store)?;
        let view = store.view(self.rev)?;
        for event in store.told(view.history(&key))? {
            match event {
                Ok(event) => output.version(&event)?,
                Err(error) => output.damage(&error),
            }
        }
        Ok(())
    }
}
