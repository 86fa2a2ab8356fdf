//! `log STORE`: the changes of all keys in order of revisions.

use std::path::PathBuf;

use clap::Args;
use revtree::{Error, KeyRange, Revision};

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::store::Store;

/// What `log` takes.
#[derive(Args)]
pub(crate) struct Log {
    /// The store file.
    store: PathBuf,
    /// The first revision; by default the one after the compact revision.
    #[arg(long, value_name = "REVISION")]
    from: Option<u64>,
    /// The last revision; by default the current one.
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
}

impl Log {
    /// Prints the events one by one, so that memory does not grow with the history.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_read(&self.store)?;
        let view = store.view(None)?;
        let first = view.first_rev().map_or(Revision::new(1), Revision::next);
        let from = self.from.map_or(first, Revision::new);
        let to = self.to.map_or(view.rev(), Revision::new);
        // Told here, since an empty span is no error to the library: a script that asks from the revision
        // after the last it saw may be early, but never beyond, and never behind the compact revision.
        let refused = match view.first_rev() {
            Some(compacted) if from < compacted => {
                let requested = from;
                Some(Error::Compacted {
                    requested,
                    compacted,
                })
            }
            _ if from > view.rev().next() => {
                let (requested, current) = (from, view.rev());
                Some(Error::FutureRevision { requested, current })
            }
            _ => None,
        };
        if let Some(error) = refused {
            return Err(Failure::store(&self.store, &error));
        }
        // Everything up to the current revision was compacted, or nothing is new.
        if self.to.is_none() && from > to {
            return Ok(());
        }
        output.events(store.told(view.changes(KeyRange::all(), from..=to))?)
    }
}
