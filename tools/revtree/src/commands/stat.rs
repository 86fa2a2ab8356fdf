//! `stat STORE`: revisions, counts and sizes.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Result;
use crate::output::{Output, compact_number};
use crate::store::Store;

/// What `stat` takes.
#[derive(Args)]
pub(crate) struct Stat {
    /// The store file.
    store: PathBuf,
}

impl Stat {
    /// Prints what the store says of itself.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_read(&self.store)?;
        let stats = store.db.stats();
        let applied = store.db.consistent_index();
        output.numbers(&[
            ("revision", stats.revision.get().into()),
            ("compact_revision", compact_number(stats.compact_revision)),
            ("keys", stats.keys.into()),
            ("file_bytes", stats.file_bytes.into()),
            ("live_bytes", stats.live_bytes.into()),
            ("applied_index", applied.index.into()),
            ("applied_term", applied.term.into()),
        ])
    }
}
