//! `compact STORE REV`: gives up the history below a revision.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use revtree::{Compaction, Outcome};

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
        let store = Store::to_compact(&self.store)?;
        let compaction = store.told(store.db.compact(self.revision))?;
        let outcome = wait(&compaction);
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

/// Waits for the work with a bar that follows it; most compactions have little to clean and draw none.
fn wait(compaction: &Compaction) -> Outcome {
    let bar = Bar::default();
    let outcome = std::thread::scope(|scope| {
        let work = scope.spawn(|| compaction.wait());
        let mut pause = Duration::from_millis(1);
        while !work.is_finished() {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
            if pause > Duration::from_millis(50) {
                bar.show(compaction.progress());
            }
        }
        // Only a panic in `wait` ends the thread otherwise.
        work.join().unwrap_or(Outcome::Interrupted)
    });
    bar.clear();
    outcome
}
