//! `salvage OLD NEW`: a new store of what is whole in a damaged one, which is only read.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::output::{Output, compact_number};
use crate::progress::Spinner;
use revtree_salvage::Loss;

/// What `salvage` takes.
#[derive(Args)]
pub(crate) struct Salvage {
    /// The damaged store file; no writer may have it open.
    old: PathBuf,
    /// The store file to be made; it must not exist.
    new: PathBuf,
}

impl Salvage {
    /// Salvages and prints what was saved; what is lost refuses, with the new store in its place.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let spinner = Spinner::new("salvaging");
        let report = revtree_salvage::salvage(&self.old, &self.new);
        drop(spinner);
        let report = report.map_err(|error| Failure::Refused(error.to_string()))?;
        let losses: Vec<String> = report.losses.iter().map(Loss::to_string).collect();
        let mut fields: Vec<(&str, Value)> = vec![
            ("revision", report.revision.get().into()),
            ("compact_revision", compact_number(report.compact)),
            ("hash", report.hash.into()),
            ("records", report.records.into()),
            ("records_lost", report.records_lost.into()),
            ("deletes_rebuilt", report.rebuilt.into()),
            ("table_rows", report.rows.into()),
            (
                "tables_from",
                report.tables_from.map_or(Value::from(-1), Value::from),
            ),
            ("applied_index", report.applied.index.into()),
            ("applied_term", report.applied.term.into()),
            ("applied_index_found", report.applied_found.index.into()),
            ("superblocks", report.superblocks.into()),
            ("frames", report.frames.into()),
            ("frames_damaged", report.frames_damaged.into()),
            ("frames_repaired", report.frames_repaired.into()),
            ("frames_stale", report.frames_stale.into()),
            ("segments_repaired", report.segments_repaired.into()),
            ("damaged_bytes", report.damaged_bytes.into()),
            ("unreadable_bytes", report.unreadable_bytes.into()),
        ];
        if output.is_json() {
            fields.push(("losses", Value::from(losses.clone())));
        }
        output.numbers(&fields)?;
        if !output.is_json() {
            for loss in &losses {
                output.line(format_args!("{loss}"))?;
            }
        }
        let reason = match losses.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        };
        Err(Failure::file(&self.old, &reason))
    }
}
