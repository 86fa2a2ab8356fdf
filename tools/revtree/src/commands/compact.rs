//! `compact STORE REV`: gives up the history below a revision.

use std::path::PathBuf;

use clap::Args;
use revtree::Outcome;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::Bar;
use crate::store::Store;

/// What `compact` takes.
#[derive(Args)]
pub(crate) struct Compact {
    /// The store file.
    store: PathBuf,
    /// The revision that becomes the compact revision.
    revision: u64,
}

impl Compact {
    /// Compacts, waits for the work behind it, and prints both revisions.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_change(&self.store)?;
        let compaction = store.told(store.db.compact(self.revision))?;
        let bar = Bar::default();
        bar.show(compaction.progress());
        let outcome = compaction.wait();
        bar.clear();
        let revision = store.db.rev();
        store.close()?;
        if outcome == Outcome::Interrupted {
            let text = "the compaction is durable, its work ended early".to_owned();
            return Err(Failure::Refused(text));
        }
        output.numbers(&[
            ("compact_revision", self.revision.into()),
            ("revision", revision.get().into()),
        ])
    }
}
