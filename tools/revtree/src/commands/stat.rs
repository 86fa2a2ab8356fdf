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
    /// Prints what the file holds; counters of the process that asks would say nothing of it.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_read(&self.store)?;
        let stats = store.db.stats();
        let applied = store.db.consistent_index();
        let recovery = store.db.recovery();
        output.numbers(&[
            ("revision", stats.revision.get().into()),
            ("compact_revision", compact_number(stats.compact_revision)),
            ("keys", stats.keys.into()),
            ("revisions", stats.revisions.into()),
            ("file_bytes", stats.file_bytes.into()),
            ("allocated_bytes", stats.allocated_bytes.into()),
            ("live_bytes", stats.live_bytes.into()),
            ("dead_bytes", stats.dead_bytes.into()),
            ("free_bytes", stats.free_bytes.into()),
            ("table_bytes", stats.table_bytes.into()),
            ("applied_index", applied.index.into()),
            ("applied_term", applied.term.into()),
            ("clean", recovery.clean.into()),
            ("frames_replayed", recovery.frames_replayed.into()),
            ("bytes_dropped", recovery.bytes_dropped.into()),
            ("superblocks_bad", recovery.superblocks_bad.into()),
        ])
    }
}
