//! `import-etcd SNAPSHOT STORE`: a store from a snapshot of etcd.

use std::path::PathBuf;

use clap::Args;
use revtree::{Create, Db, Error, Options};

use crate::failure::{Failure, Result};
use crate::output::{Output, compact_number};
use crate::progress::Bar;

/// What `import-etcd` takes.
#[derive(Args)]
pub(crate) struct ImportEtcd {
    /// The snapshot, as `etcdctl snapshot save` writes it.
    snapshot: PathBuf,
    /// The store file to be made; it must not exist.
    store: PathBuf,
}

impl ImportEtcd {
    /// Imports and prints what was found.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let bar = Bar::default();
        let options = Options::new()
            .create(Create::New)
            .on_progress(bar.listener());
        let report = Db::import_etcd(&self.snapshot, &self.store, options);
        bar.clear();
        let report = report.map_err(|error| match &error {
            Error::Import { .. } => Failure::file(&self.snapshot, &error),
            // The machine refused the snapshot, not the store.
            Error::Io { what, .. } if what.contains("snapshot") => {
                Failure::file(&self.snapshot, &error)
            }
            _ => Failure::store(&self.store, &error),
        })?;
        output.numbers(&[
            ("revision", report.revision.get().into()),
            ("compact_revision", compact_number(report.compact_revision)),
            ("records", report.records.into()),
            ("keys", report.keys.into()),
        ])
    }
}
