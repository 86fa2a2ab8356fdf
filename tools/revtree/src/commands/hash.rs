//! `hash STORE`: the hash that etcd's HashKV gives for the same keys.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Result;
use crate::output::{Output, compact_number};
use crate::progress::Spinner;
use crate::store::Store;

/// What `hash` takes.
#[derive(Args)]
pub(crate) struct Hash {
    /// The store file.
    store: PathBuf,
    /// The revision up to which is hashed; 0: the current one.
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    rev: u64,
}

impl Hash {
    /// Prints the hash and the two revisions that it depends on.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_read(&self.store)?;
        let spinner = Spinner::new("hashing");
        let found = store.told(store.db.hash_by_rev(self.rev))?;
        drop(spinner);
        output.numbers(&[
            ("hash", found.hash.into()),
            ("hash_revision", found.revision.get().into()),
            ("compact_revision", compact_number(found.compact_revision)),
        ])
    }
}
