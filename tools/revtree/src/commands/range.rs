//! `range STORE [KEY [END]]`: the keys of a range, streamed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use revtree::KeyRange;
use serde_json::Value;

use crate::failure::Result;
use crate::keys::{KeyFormat, RangeArguments};
use crate::output::{Output, Shown};
use crate::store::Store;

/// What `range` takes.
#[derive(Args)]
pub(crate) struct Range {
    /// The store file.
    store: PathBuf,
    #[command(flatten)]
    keys: RangeArguments,
    /// All keys from this one on.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["key", "prefix"])]
    from_key: Option<OsString>,
    /// At most so many keys; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: usize,
    /// Without values.
    #[arg(long)]
    keys_only: bool,
    /// Only the number of keys, the limit ignored.
    #[arg(long)]
    count_only: bool,
    /// The revision to read at; 0: the current one.
    #[arg(long, value_name = "REVISION")]
    rev: Option<u64>,
}

impl Range {
    /// Prints the keys one by one, so that memory does not grow with the range.
    pub(crate) fn run(&self, format: KeyFormat, output: &mut Output) -> Result {
        let keys = match &self.from_key {
            Some(key) => KeyRange::at_least(format.parse(key)?),
            None => self.keys.range(format)?.unwrap_or_else(KeyRange::all),
        };
        let store = Store::to_read(&self.store)?;
        let view = store.view(self.rev)?;
        let mut range = view.range(keys);
        if self.count_only {
            let count = store.told(range.count())?;
            if output.is_json() {
                let fields = [
                    ("count", count.into()),
                    ("revision", Value::from(view.rev().get())),
                ];
                return output.numbers(&fields);
            }
            return output.line(format_args!("{count}"));
        }
        if self.limit > 0 {
            range = range.limit(self.limit);
        }
        if self.keys_only {
            range = range.keys_only();
        }
        for record in range.iter() {
            match record {
                Ok(record) => output.key_value(&Shown::from(&record), self.keys_only)?,
                Err(error) => output.damage(&error),
            }
        }
        Ok(())
    }
}
