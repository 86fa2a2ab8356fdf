//! `apply STORE FILE...`: adds increments to a backup.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use clap::Args;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::Spinner;
use crate::store::Store;

/// What `apply` takes.
#[derive(Args)]
pub(crate) struct Apply {
    /// The store file: a backup that was made without `--since`.
    store: PathBuf,
    /// Increments, in the order in which they were made.
    #[arg(required = true)]
    increments: Vec<PathBuf>,
}

impl Apply {
    /// Adds one after the other, and prints the revision that the store is at then. One that does not fit, or is damaged,
    /// changes nothing, and ends it.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_change(&self.store)?;
        let spinner = Spinner::new("adding increments");
        for path in &self.increments {
            let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
            let applied = store.db.apply_increment(BufReader::new(file));
            applied.map_err(|error| Failure::file(path, &error))?;
        }
        drop(spinner);
        let revision = store.db.rev();
        store.close()?;
        output.numbers(&[("revision", revision.get().into())])
    }
}
