//! The mutants, as cargo-mutants lists them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Result;

/// What kind of place a mutant has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Genre {
    /// The body of a function.
    Body,
    /// A whole arm of a match.
    Arm,
    /// An operator, a guard or a field: a part of an expression.
    Part,
}

/// One small change.
pub struct Mutant {
    /// File, place and change.
    pub name: String,
    pub file: String,
    pub genre: Genre,
    /// Line from 1 and column from 0.
    pub start: (usize, usize),
    pub end: (usize, usize),
    pub replacement: String,
}

/// All mutants of the files that `globs` name, without those that `not` names.
pub fn mutants(root: &Path, globs: &[&str], not: &[&str]) -> Result<Vec<Mutant>> {
    let mut list = Command::new("cargo");
    list.current_dir(root)
        .args(["mutants", "--list", "--json", "--no-shuffle", "--workspace"]);
    list.args(globs.iter().flat_map(|glob| ["--file", glob]));
    list.args(not.iter().flat_map(|glob| ["--exclude", glob]));
    let output = list.output()?;
    if !output.status.success() {
        let says = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo-mutants ended with {}: {says}", output.status).into());
    }
    let list: Value = serde_json::from_slice(&output.stdout)?;
    let list = list.as_array().ok_or("cargo-mutants lists an array")?;
    list.iter()
        .map(|entry| mutant(entry).ok_or_else(|| format!("not a mutant: {entry}").into()))
        .collect()
}

fn mutant(entry: &Value) -> Option<Mutant> {
    let text = |name: &str| entry[name].as_str().map(str::to_owned);
    let place = |name: &str| {
        let place = &entry["span"][name];
        let number = |of: &str| place[of].as_u64().and_then(|n| usize::try_from(n).ok());
        Some((number("line")?, number("column")? - 1))
    };
    Some(Mutant {
        name: text("name")?,
        file: text("file")?,
        genre: match text("genre")?.as_str() {
            "FnValue" => Genre::Body,
            "MatchArm" => Genre::Arm,
            _ => Genre::Part,
        },
        start: place("start")?,
        end: place("end")?,
        replacement: text("replacement")?,
    })
}
