//! `cargo xtask mutants`: small changes to the code, which the tests have to notice (F35).
//!
//! cargo-mutants makes them, in a copy of the tree, and runs the tests that are named here for each. There are
//! thousands, at up to a minute each, so a run takes those of one area, or every n-th of them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Result, cargo, target};

/// Code, and the tests that have to notice a change to it.
struct Area {
    name: &'static str,
    files: &'static [&'static str],
    tests: &'static [&'static str],
    /// The least score, in percent.
    least: u64,
}

const OF_THE_ENGINE: &[&str] = &[
    "--package=revtree",
    "--package=revtree-harness",
    "--all-features",
    "--lib",
    "--tests",
];

const AREAS: &[Area] = &[
    Area {
        name: "format",
        files: &["format/src/**"],
        tests: &["--package=revtree-format"],
        least: 95,
    },
    Area {
        name: "log",
        files: &["src/pager/**", "src/engine/**"],
        tests: OF_THE_ENGINE,
        least: 95,
    },
    Area {
        name: "index",
        files: &["src/index/**"],
        tests: OF_THE_ENGINE,
        least: 85,
    },
    Area {
        name: "mvcc",
        files: &["src/mvcc/**", "src/tree/**"],
        tests: OF_THE_ENGINE,
        least: 85,
    },
];

/// Code that runs under loom only, or is a test itself.
const NOT: &[&str] = &["src/**/loom.rs", "src/index/tests/**", "src/**/tests.rs"];

/// How many mutants ended in which way.
#[derive(Clone, Copy, Default)]
struct Count {
    caught: u64,
    missed: u64,
    timeout: u64,
}

impl Count {
    /// In percent, of those that the tests ended by themselves.
    fn score(self) -> u64 {
        (self.caught * 100)
            .checked_div(self.caught + self.missed)
            .unwrap_or(0)
    }
}

/// Runs all areas, or those named, or of each the shard K of N; gives the last line.
pub(crate) fn run(options: &[&str]) -> Result<Option<String>> {
    const USAGE: &str = "mutants [--area format|log|index|mvcc] [--shard K/N]";
    let (mut only, mut shard) = (None, None);
    let mut options = options;
    while let [option, value, rest @ ..] = options {
        match *option {
            "--area" => only = Some(*value),
            "--shard" => shard = Some(*value),
            _ => return Err(USAGE.to_owned()),
        }
        options = rest;
    }
    let areas: Vec<&Area> = AREAS
        .iter()
        .filter(|area| only.is_none_or(|only| only == area.name))
        .collect();
    if !options.is_empty() || areas.is_empty() {
        return Err(USAGE.to_owned());
    }
    install()?;
    let mut all = Count::default();
    let mut too_low = Vec::new();
    for area in areas {
        let count = area.run(shard)?;
        println!(
            "{}: {} caught, {} missed, {} ran out of time: {} %",
            area.name,
            count.caught,
            count.missed,
            count.timeout,
            count.score()
        );
        if count.score() < area.least {
            too_low.push(format!("{} {} %", area.name, count.score()));
        }
        all.caught += count.caught;
        all.missed += count.missed;
        all.timeout += count.timeout;
    }
    if !too_low.is_empty() {
        return Err(format!("too many mutants live: {}", too_low.join(", ")));
    }
    let tried = all.caught + all.missed + all.timeout;
    let (missed, score) = (all.missed, all.score());
    Ok(Some(format!(
        "mutants: {tried} mutants, {missed} missed, score {score} %"
    )))
}

impl Area {
    fn run(&self, shard: Option<&str>) -> Result<Count> {
        let folder = target().join("mutants").join(self.name);
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let mut mutants = cargo(&[
            "mutants",
            "--no-shuffle",
            "--colors=never",
            "--baseline=run",
        ]);
        mutants.arg("--output").arg(&folder);
        // Of a debug build, since the checks of overflows are among what notices.
        mutants.args(["--timeout-multiplier=5", "--minimum-test-timeout=60"]);
        mutants.args(self.files.iter().flat_map(|glob| ["--file", glob]));
        mutants.args(NOT.iter().flat_map(|glob| ["--exclude", glob]));
        mutants.args(shard.iter().flat_map(|shard| ["--shard", shard]));
        mutants.args(["--test-workspace=false", "--"]);
        mutants.args(self.tests);
        // 0: all were caught; 2 and 3: some were missed, or ran out of time.
        let status = mutants.status().map_err(|error| error.to_string())?;
        if !matches!(status.code(), Some(0 | 2 | 3)) {
            return Err(format!(
                "cargo-mutants ended with {status} on {}",
                self.name
            ));
        }
        let out = folder.join("mutants.out");
        Ok(Count {
            caught: lines(&out.join("caught.txt"))?,
            missed: lines(&out.join("missed.txt"))?,
            timeout: lines(&out.join("timeout.txt"))?,
        })
    }
}

fn lines(path: &Path) -> Result<u64> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().count() as u64)
}

fn install() -> Result<()> {
    let mut version: Command = cargo(&["mutants", "--version"]);
    version.stdout(Stdio::null()).stderr(Stdio::null());
    if version.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let mut install = cargo(&[
        "install",
        "--locked",
        "cargo-mutants",
        "--version",
        "27.1.0",
    ]);
    match install.status() {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("cargo-mutants cannot be installed: {other:?}")),
    }
}
