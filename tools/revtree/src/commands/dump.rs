//! `dump STORE`: the structures of the file, read by the format crate alone. It takes no lock and
//! works on files that no open accepts.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use clap::Args;
use revtree_dump::{Item, Options};

use crate::failure::{Failure, Result};
use crate::output::Output;

/// What `dump` takes.
#[derive(Args)]
pub(crate) struct Dump {
    /// The store file.
    store: PathBuf,
    /// Also every segment, frame after frame, whether it is in use or not.
    #[arg(long)]
    all: bool,
    /// Without records and index keys; they are checked all the same.
    #[arg(long)]
    no_records: bool,
    /// With the values of records and of side tables.
    #[arg(long)]
    values: bool,
}

impl Dump {
    /// Prints what is found; damage is printed where it is met, and refuses at the end.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let refused = |error: io::Error| Failure::file(&self.store, &error);
        let file = File::open(&self.store).map_err(refused)?;
        if file.metadata().map_err(refused)?.is_dir() {
            return Err(Failure::Refused(format!(
                "{} is a directory",
                self.store.display()
            )));
        }
        let options = Options {
            all: self.all,
            records: !self.no_records,
            values: self.values,
        };
        // A failure of the output comes back through the walk; it is kept apart from one of the file.
        let mut failed = None;
        let result = revtree_dump::dump(&file, &options, &mut |item: &Item| {
            let line = if output.is_json() {
                output.line(format_args!("{}", item.to_json()))
            } else {
                output.line(format_args!("{item}"))
            };
            line.map_err(|failure| {
                failed = Some(failure);
                io::Error::other("output")
            })
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
        let summary = result.map_err(refused)?;
        if output.is_json() {
            output.line(format_args!("{}", summary.to_json()))?;
        }
        match summary.damage {
            0 => Ok(()),
            1 => Err(Failure::Refused("1 damaged place".to_owned())),
            n => Err(Failure::Refused(format!("{n} damaged places"))),
        }
    }
}
