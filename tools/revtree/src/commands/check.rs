//! `check STORE`: verifies every byte in use.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::Bar;
use crate::store::Store;

/// What `check` takes.
#[derive(Args)]
pub(crate) struct Check {
    /// The store file.
    store: PathBuf,
}

impl Check {
    /// Prints what was read and what is wrong; damage refuses.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_read(&self.store)?;
        let report = store.told(Bar::during("checking", || store.db.check()))?;
        let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
        let mut fields = vec![
            ("revision", report.revision.get().into()),
            ("superblocks", report.superblocks.into()),
            ("pages", report.pages.into()),
            ("frames", report.frames.into()),
            ("leaves", report.leaves.into()),
            ("records", report.records.into()),
            ("record_bytes", report.record_bytes.into()),
            ("keys", report.keys.into()),
        ];
        if output.is_json() {
            fields.push(("damage", Value::from(damage.clone())));
        }
        output.numbers(&fields)?;
        match damage.as_slice() {
            [] => Ok(()),
            [only] => Err(Failure::file(&self.store, only)),
            [first, rest @ ..] => {
                let more = format!("{first} (and {} more)", rest.len());
                if !output.is_json() {
                    for place in &damage {
                        output.line(format_args!("{place}"))?;
                    }
                }
                Err(Failure::file(&self.store, &more))
            }
        }
    }
}
