//! A copy of the tree with all mutants in it, and what is built of it.
//!
//! A mutant that does not compile makes the whole copy not compile. The compiler says where; those mutants are
//! taken out, and it is asked again, until it is content. They are what cargo-mutants calls unviable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Result;
use crate::list::Mutant;
use crate::weave::weave;

/// The crates with mutants: where their sources are, and how they call the function that chooses.
const CRATES: &[(&str, &str)] = &[
    ("format/src/", "crate::on::on"),
    ("src/", "revtree_format::on::on"),
];

/// What is built and run.
const SELECTION: &[&str] = &[
    "--package=revtree",
    "--package=revtree-format",
    "--package=revtree-harness",
    "--all-features",
];

/// Built for the tests, which run for seconds each: so much that they are not slow, without what a debugger needs.
const PROFILE: &[&str] = &[
    "--config=profile.dev.debug=0",
    "--config=profile.dev.opt-level=1",
];

pub struct Copy {
    root: PathBuf,
    folder: PathBuf,
}

/// What a mutant is beside those that run.
#[derive(Default)]
pub struct Out {
    /// It does not compile.
    pub unviable: BTreeSet<usize>,
    /// There is no place for a choice: in a constant, or beside a `let`.
    pub not_woven: BTreeSet<usize>,
}

impl Out {
    /// What an earlier run wrote.
    pub fn read(path: &Path, mutants: &[Mutant]) -> Out {
        let text = fs::read_to_string(path).unwrap_or_default();
        let known: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(a, b)| (b, a))
            .collect();
        let mut out = Out::default();
        for (number, mutant) in mutants.iter().enumerate() {
            match known.get(mutant.name.as_str()) {
                Some(&"unviable") => out.unviable.insert(number),
                Some(_) => out.not_woven.insert(number),
                None => continue,
            };
        }
        out
    }

    pub fn write(&self, path: &Path, mutants: &[Mutant]) -> Result<()> {
        let line = |why: &str, number: &usize| format!("{why}\t{}\n", mutants[*number].name);
        let unviable = self.unviable.iter().map(|number| line("unviable", number));
        let not_woven = self
            .not_woven
            .iter()
            .map(|number| line("not woven", number));
        Ok(fs::write(
            path,
            unviable.chain(not_woven).collect::<String>(),
        )?)
    }
}

/// A program with tests, or a campaign.
pub struct Program {
    pub name: String,
    pub path: PathBuf,
    pub folder: PathBuf,
}

/// The files that are checked out or new, with zeros between.
fn checked_out(root: &Path) -> Result<String> {
    let mut list = Command::new("git");
    list.current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    Ok(String::from_utf8(list.output()?.stdout)?)
}

impl Copy {
    /// Of what is checked out, also if it is not committed.
    pub fn of(root: &Path, folder: PathBuf) -> Result<Copy> {
        let files = checked_out(root)?;
        for file in files.split('\0').filter(|file| !file.is_empty()) {
            if root.join(file).is_file() && !is_woven(file) {
                put(&folder.join(file), &fs::read(root.join(file))?)?;
            }
        }
        let root = root.to_owned();
        Ok(Copy { root, folder })
    }

    /// Weaves all that compile.
    pub fn weave(&self, mutants: &[Mutant], mut out: Out) -> Result<Out> {
        for round in 1.. {
            let lines = self.write(mutants, &mut out)?;
            let errors = self.errors()?;
            println!("round {round}: {} places that do not compile", errors.len());
            if errors.is_empty() {
                return Ok(out);
            }
            let before = out.unviable.len() + out.not_woven.len();
            for error in &errors {
                let at = |place: &(String, usize)| {
                    lines
                        .get(&place.0)?
                        .get(place.1 - 1)
                        .filter(|at| !at.is_empty())
                };
                let Some(guilty) = error.places.iter().find_map(at) else {
                    println!("not by a mutant alone: {}", error.says);
                    continue;
                };
                if error.says.contains("E0015") {
                    out.not_woven.extend(guilty);
                } else {
                    out.unviable.extend(guilty);
                }
            }
            if out.unviable.len() + out.not_woven.len() == before {
                return Err(format!("not by a mutant: {}", errors[0].says).into());
            }
        }
        unreachable!("a round without errors ends it")
    }

    /// Writes all files; gives what stands in each line of them.
    fn write(
        &self,
        mutants: &[Mutant],
        out: &mut Out,
    ) -> Result<BTreeMap<String, Vec<Vec<usize>>>> {
        let files = checked_out(&self.root)?;
        let mut lines = BTreeMap::new();
        for file in files.split('\0').filter(|file| is_woven(file)) {
            let Ok(text) = fs::read_to_string(self.root.join(file)) else {
                continue;
            };
            let (_, on) = CRATES
                .iter()
                .find(|(at, _)| file.starts_with(at))
                .expect("woven");
            let here = mutants.iter().enumerate().filter(|(number, mutant)| {
                mutant.file == file
                    && !out.unviable.contains(number)
                    && !out.not_woven.contains(number)
            });
            let woven = weave(&text, &here.collect::<Vec<_>>(), on);
            out.not_woven.extend(woven.without_choice);
            out.unviable.extend(woven.not_rust);
            let mut text = woven.text;
            if file == "format/src/lib.rs" || file == "src/lib.rs" {
                // A mutant may be what a lint forbids.
                let allow = "#![allow(warnings, arithmetic_overflow, unconditional_panic)] ";
                text.insert_str(0, allow);
            }
            if file == "format/src/lib.rs" {
                text.push_str("\n/// Which mutant runs.\npub mod on;\n");
            }
            put(&self.folder.join(file), text.as_bytes())?;
            lines.insert(file.to_owned(), woven.lines);
        }
        put(
            &self.folder.join("format/src/on.rs"),
            include_bytes!("on.rs"),
        )?;
        Ok(lines)
    }

    fn cargo(&self, command: &[&str]) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&self.folder).args(command).args(PROFILE);
        // Apart from what is built of the tree itself: cargo would take one for the other.
        cargo.env("CARGO_TARGET_DIR", self.folder.with_file_name("target"));
        cargo
            .args(["--offline", "--message-format=json"])
            .stderr(Stdio::inherit());
        cargo
    }

    fn errors(&self) -> Result<Vec<Error>> {
        let mut check = self.cargo(&["check", "--quiet", "--keep-going"]);
        check.args([
            "--package=revtree",
            "--package=revtree-format",
            "--lib",
            "--all-features",
        ]);
        let output = String::from_utf8(check.output()?.stdout)?;
        let mut errors = Vec::new();
        for line in output.lines() {
            let message: Value = serde_json::from_str(line)?;
            let message = &message["message"];
            if message["level"] != "error" {
                continue;
            }
            let says = message["rendered"].as_str().unwrap_or_default().to_owned();
            let mut places = Vec::new();
            places_of(message, &mut places);
            if !places.is_empty() {
                errors.push(Error { says, places });
            }
        }
        Ok(errors)
    }

    /// Builds the programs with tests, and the campaigns.
    pub fn build(&self) -> Result<Vec<Program>> {
        let mut build = self.cargo(&["test", "--no-run", "--quiet", "--lib", "--bins", "--tests"]);
        build.args(SELECTION);
        let output = build.output()?;
        let (status, output) = (output.status, String::from_utf8(output.stdout)?);
        if !status.success() {
            for line in output.lines() {
                let message: Value = serde_json::from_str(line)?;
                if message["message"]["level"] == "error" {
                    println!(
                        "{}",
                        message["message"]["rendered"].as_str().unwrap_or_default()
                    );
                }
            }
            return Err(format!("the woven copy does not build: {status}").into());
        }
        let mut programs = Vec::new();
        for line in output.lines() {
            let message: Value = serde_json::from_str(line)?;
            let (Some(path), Some(manifest)) = (
                message["executable"].as_str(),
                message["manifest_path"].as_str(),
            ) else {
                continue;
            };
            let package = Path::new(manifest).parent().unwrap_or(Path::new("/"));
            let name = message["target"]["name"].as_str().unwrap_or_default();
            let is_test = message["profile"]["test"] == true;
            if is_test != (name == "campaign") {
                let short = package.strip_prefix(&self.folder).unwrap_or(package);
                programs.push(Program {
                    name: format!("{}:{name}", short.display()),
                    path: path.into(),
                    folder: package.to_owned(),
                });
            }
        }
        Ok(programs)
    }
}

struct Error {
    says: String,
    /// File and line, the likeliest first.
    places: Vec<(String, usize)>,
}

fn places_of(message: &Value, places: &mut Vec<(String, usize)>) {
    let empty = Vec::new();
    let spans = message["spans"].as_array().unwrap_or(&empty);
    for primary in [true, false] {
        for span in spans.iter().filter(|span| span["is_primary"] == primary) {
            if let (Some(file), Some(first), Some(last)) = (
                span["file_name"].as_str(),
                span["line_start"].as_u64(),
                span["line_end"].as_u64(),
            ) {
                for line in first..=last {
                    places.push((file.to_owned(), usize::try_from(line).unwrap_or(1)));
                }
            }
        }
    }
    for child in message["children"].as_array().unwrap_or(&empty) {
        places_of(child, places);
    }
}

fn is_woven(file: &str) -> bool {
    file.ends_with(".rs") && CRATES.iter().any(|(at, _)| file.starts_with(at))
}

/// Writes what is not there yet: cargo looks at the time.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(fs::write(path, bytes)?)
}
