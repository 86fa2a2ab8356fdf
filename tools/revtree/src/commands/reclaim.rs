//! `reclaim STORE`: gives back the space that nothing needs.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::Spinner;
use crate::store::Store;

/// What `reclaim` takes.
#[derive(Args)]
pub(crate) struct Reclaim {
    /// The store file.
    store: PathBuf,
}

impl Reclaim {
    /// Reclaims, and prints what became of the file; damage that was left where it is refuses.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let length = || std::fs::metadata(&self.store).map_or(0, |file| file.len());
        let before = length();
        let store = Store::to_change(&self.store)?;
        let spinner = Spinner::new("reclaiming");
        let reclaimed = store.told(store.db.reclaim())?;
        drop(spinner);
        store.close()?;
        let damage: Vec<String> = reclaimed.damage.iter().map(ToString::to_string).collect();
        let mut fields = vec![
            ("bytes_before", before.into()),
            ("bytes", length().into()),
            ("freed_bytes", reclaimed.freed_bytes.into()),
            ("held_bytes", reclaimed.held_bytes.into()),
            ("copied_bytes", reclaimed.copied_bytes.into()),
        ];
        if output.is_json() {
            fields.push(("damage", Value::from(damage.clone())));
        }
        output.numbers(&fields)?;
        match damage.first() {
            Some(first) => Err(Failure::file(&self.store, first)),
            None => Ok(()),
        }
    }
}
