//! `get STORE KEY`: the value of one key.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::failure::{Failure, Result};
use crate::keys::KeyFormat;
use crate::output::{Output, Shown};
use crate::store::Store;

/// What `get` takes.
#[derive(Args)]
pub(crate) struct Get {
    /// The store file.
    store: PathBuf,
    /// The key.
    key: OsString,
    /// The revision to read at; 0: the current one.
    #[arg(long, value_name = "REVISION")]
    rev: Option<u64>,
}

impl Get {
    /// Prints the value; a key that is not there is refused.
    pub(crate) fn run(&self, keys: KeyFormat, output: &mut Output) -> Result {
        let key = keys.parse(&self.key)?;
        let store = Store::to_read(&self.store)?;
        let view = store.view(self.rev)?;
        match store.told(view.get(&key))? {
            Some(record) => output.value(&Shown::from(&record)),
            None => Err(Failure::Refused(format!(
                "key not found at revision {}",
                view.rev()
            ))),
        }
    }
}
