//! `stat STORE`: revisions, counts and sizes.

use std::path::PathBuf;

use clap::Args;

use crate::failure::{Failure, Result};
use crate::output::{Output, compact_number};
use crate::store::Store;

/// What `stat` takes.
#[derive(Args)]
pub(crate) struct Stat {
    /// The store file.
    store: PathBuf,
}

impl Stat {
    /// Prints what the file holds; counters of the process that asks would say nothing of it. Sizes that
    /// cannot be read are left out, and the reason is told.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_read(&self.store)?;
        let stats = store.db.stats();
        let applied = store.db.consistent_index();
        let recovery = store.db.recovery();
        let mut fields = vec![
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
        ];
        if !stats.sizes_unknown {
            return output.numbers(&fields);
        }
        fields.retain(|(name, value)| match *name {
            "revisions" | "live_bytes" | "dead_bytes" => false,
            // No file of a store has none.
            "file_bytes" | "allocated_bytes" => *value != 0,
            _ => true,
        });
        output.numbers(&fields)?;
        let report = store.told(store.db.check())?;
        let reason = report.damage.first().map_or_else(
            || "sizes cannot be read".to_owned(),
            |damage| format!("sizes cannot be read: {damage}"),
        );
        Err(Failure::file(&self.store, &reason))
    }
}
