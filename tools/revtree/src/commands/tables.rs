//! `tables STORE [NAME]`: the side tables, or the rows of one.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::store::Store;

/// What `tables` takes.
#[derive(Args)]
pub(crate) struct Tables {
    /// The store file.
    store: PathBuf,
    /// The table whose rows are printed.
    name: Option<String>,
}

impl Tables {
    /// Prints the names with their numbers of rows, or the rows of one table.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let store = Store::to_read(&self.store)?;
        let view = store.view(None)?;
        let Some(name) = &self.name else {
            for name in view.tables() {
                let rows = view.table(name).iter().count() as u64;
                if output.is_json() {
                    let fields = [("table", Value::from(name)), ("rows", rows.into())];
                    output.numbers(&fields)?;
                } else {
                    output.line(format_args!("{name}\t{rows}"))?;
                }
            }
            return Ok(());
        };
        if !view.tables().any(|table| table == name) {
            return Err(Failure::Refused(format!("there is no table {name:?}")));
        }
        for row in view.table(name).iter() {
            match row {
                Ok((key, value)) => output.row(&key, &value)?,
                Err(error) => output.damage(&error),
            }
        }
        Ok(())
    }
}
