//! `check STORE`: verifies every byte in use.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::Spinner;
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
        let spinner = Spinner::new("checking");
        let report = store.told(store.db.check())?;
        drop(spinner);
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
        let Some(first) = damage.first() else {
            return Ok(());
        };
        if !output.is_json() {
            for place in &damage {
                output.line(format_args!("{place}"))?;
            }
        }
        let reason = match damage.len() {
            1 => first.clone(),
            n => format!("{first} (and {} more)", n - 1),
        };
        Err(Failure::file(&self.store, &reason))
    }
}
