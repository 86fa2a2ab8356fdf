//! `check STORE`: verifies every byte in use.

use std::path::PathBuf;

use clap::Args;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::store::Store;

/// What `check` takes.
#[derive(Args)]
pub(crate) struct Check {
    /// The store file.
    store: PathBuf,
}

impl Check {
    /// Prints the report; damage refuses.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_read(&self.store)?;
        let _report = store.told(store.db.check())?;
        let _ = output;
        Err(Failure::Refused(String::new()))
    }
}
