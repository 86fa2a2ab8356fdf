//! `cargo xtask mutants`: small changes to the code, which the tests have to notice (F35).
//!
//! cargo-mutants lists them; `tools/mutants` puts all of them into one build and runs on each the tests that
//! meet it, since a build for each of thousands would take a week. Here stand which code it is, what is left
//! out, and which score is enough.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::{Result, cargo, root, target};

/// Code that the tests have to notice changes of.
struct Area {
    name: &'static str,
    files: &'static [&'static str],
    /// The least score, in percent.
    least: u64,
}

const AREAS: &[Area] = &[
    Area {
        name: "format",
        files: &["format/src/**"],
        least: 95,
    },
    Area {
        name: "log",
        files: &["src/pager/**", "src/engine/**"],
        least: 95,
    },
    Area {
        name: "index",
        files: &["src/index/**"],
        least: 85,
    },
    Area {
        name: "mvcc",
        files: &["src/mvcc/**", "src/tree/**"],
        least: 85,
    },
    Area {
        name: "watch",
        files: &["src/watch/**"],
        least: 85,
    },
];

/// Code that runs under loom only, or is a test itself.
const NOT: &[&str] = &["src/**/loom.rs", "src/**/tests/**", "src/**/tests.rs"];

/// How many mutants ended in which way.
#[derive(Clone, Copy, Default)]
struct Count {
    caught: u64,
    missed: u64,
    timeout: u64,
}

impl Count {
    /// In percent. As cargo-mutants has it, what ran out of time is neither caught nor missed.
    fn score(self) -> u64 {
        (self.caught * 100)
            .checked_div(self.caught + self.missed)
            .unwrap_or(0)
    }
}

/// Runs all areas or one, all mutants of each or so many in equal distances; gives the last line.
pub(crate) fn run(options: &[&str]) -> Result<Option<String>> {
    const USAGE: &str = "mutants [--area format|log|index|mvcc|watch] [--sample N] [--seed S] [--seconds N] [--again]";
    let mut tool = Vec::new();
    let mut rest = options;
    while let [option, others @ ..] = rest {
        rest = match (*option, others) {
            ("--again", _) => {
                tool.push("--again");
                others
            }
            ("--area", [area, others @ ..]) if AREAS.iter().any(|a| a.name == *area) => {
                tool.extend(["--only", area]);
                others
            }
            ("--sample" | "--seed" | "--seconds", [number, others @ ..])
                if number.parse::<u64>().is_ok() =>
            {
                tool.extend([option, number]);
                others
            }
            _ => return Err(USAGE.to_owned()),
        };
    }
    install()?;
    let counts = run_tool(&tool)?;
    let mut all = Count::default();
    let mut too_low = Vec::new();
    for (area, count) in counts {
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

/// What came of the mutants of each area that was run.
fn run_tool(options: &[&str]) -> Result<Vec<(&'static Area, Count)>> {
    let manifest = root().join("tools/mutants/Cargo.toml");
    let mut tool = cargo(&["run", "--quiet", "--manifest-path"]);
    tool.arg(manifest).arg("--target-dir");
    tool.arg(target().join("mutants/tool")).arg("--");
    tool.arg("--root").arg(root());
    tool.arg("--folder").arg(target().join("mutants"));
    tool.args(NOT.iter().flat_map(|glob| ["--not", glob]));
    for area in AREAS {
        let files = area.files.iter();
        tool.args(files.flat_map(|glob| ["--area", area.name, glob]));
    }
    tool.args(options).stdout(Stdio::piped());
    let mut child = tool.spawn().map_err(|error| error.to_string())?;
    let lines = child.stdout.take().into_iter().map(BufReader::new);
    let mut counts = Vec::new();
    for line in lines.flat_map(BufRead::lines) {
        let line = line.map_err(|error| error.to_string())?;
        println!("{line}");
        counts.extend(count(&line));
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() {
        Ok(counts)
    } else {
        Err(format!("the mutants ended with {status}"))
    }
}

/// Of a line `log: 1280 mutants, 1280 tried, 1100 caught, 20 missed, …`.
fn count(line: &str) -> Option<(&'static Area, Count)> {
    let (name, rest) = line.split_once(": ")?;
    let area = AREAS.iter().find(|area| area.name == name)?;
    let of = |what: &str| {
        let part = rest.split(", ").find_map(|part| part.strip_suffix(what))?;
        part.trim().parse().ok()
    };
    Some((
        area,
        Count {
            caught: of("caught")?,
            missed: of("missed")?,
            timeout: of("out of time")?,
        },
    ))
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
