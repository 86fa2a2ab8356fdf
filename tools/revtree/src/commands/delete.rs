//! `delete STORE KEY [END]`: a key or a range, one commit.

use std::path::PathBuf;

use clap::Args;

use crate::failure::{Failure, Result};
use crate::keys::{KeyFormat, RangeArguments};
use crate::output::Output;
use crate::store::Store;

/// What `delete` takes.
#[derive(Args)]
pub(crate) struct Delete {
    /// The store file.
    store: PathBuf,
    #[command(flatten)]
    keys: RangeArguments,
}

impl Delete {
    /// Deletes the keys; prints how many there were and the store's revision.
    pub(crate) fn run(&self, format: KeyFormat, output: &mut Output) -> Result {
        let Some(keys) = self.keys.range(format)? else {
            return Err(Failure::Usage("delete needs KEY or --prefix".to_owned()));
        };
        let store = Store::to_change(&self.store)?;
        let deleted = store.told(store.db.delete_range(keys))?;
        store.close()?;
        output.numbers(&[
            ("deleted", deleted.count.into()),
            ("revision", deleted.revision.get().into()),
        ])
    }
}
