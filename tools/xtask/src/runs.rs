//! What campaigns printed: each that succeeds leaves a line, from which the report is made.
//!
//! A line has, between tabs, the day and commit of the code that ran (with a `+` when there were
//! changes), the command, the seconds that it took, and its last line. CI and the commands here write to the
//! folder of the build; [`crate::report`] takes the lines from there into the repository.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::{Result, root, target};

/// The campaigns: the word before the colon in their last line. On record: never renamed.
pub(crate) const CAMPAIGNS: &[&str] = &[
    "calls",
    "crash",
    "crash-threads",
    "damage",
    "faults",
    "fuzz",
    "histories",
    "inject",
    "kill",
    "loom",
    "memory",
    "miri",
    "model",
    "mutants",
    "planted",
    "power",
    "shuttle",
    "soak",
    "asan",
    "tsan",
    "watch",
    "worlds",
];

/// One campaign that was run.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Run {
    /// The day of the commit, as `2026-11-26`.
    pub(crate) day: String,
    /// The commit, in short.
    pub(crate) commit: String,
    /// What was typed, without what starts it.
    pub(crate) command: String,
    /// How long it took.
    pub(crate) seconds: String,
    /// The last line that it printed.
    pub(crate) line: String,
}

impl Run {
    /// The campaign's name.
    pub(crate) fn campaign(&self) -> &str {
        self.line.split(':').next().unwrap_or_default()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run {
            day,
            commit,
            command,
            seconds,
            line,
        } = self;
        write!(f, "{day}\t{commit}\t{command}\t{seconds}\t{line}")
    }
}

/// Reads lines as they are written; what is no such line is an error with its number.
pub(crate) fn parse(text: &str) -> Result<Vec<Run>> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty());
    let run = |(number, line): (usize, &str)| {
        let [day, commit, command, seconds, line] = line
            .split('\t')
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| format!("line {number}: not five fields between tabs"))?;
        let run = Run {
            day: day.to_owned(),
            commit: commit.to_owned(),
            command: command.to_owned(),
            seconds: seconds.to_owned(),
            line: line.to_owned(),
        };
        if CAMPAIGNS.contains(&run.campaign()) {
            Ok(run)
        } else {
            Err(format!("line {number}: no campaign: {}", run.line))
        }
    };
    lines.map(run).collect()
}

/// Where runs of this build are written.
pub(crate) fn file() -> PathBuf {
    target().join("reliability-runs.tsv")
}

/// Writes down that a command succeeded with this last line, if it is one of a campaign.
pub(crate) fn write_down(command: &str, took: Duration, line: &str) {
    let name = line.split(':').next().unwrap_or_default();
    if !CAMPAIGNS.contains(&name) {
        return;
    }
    let (day, commit) = head();
    let run = Run {
        day,
        commit,
        command: typed(command, name),
        seconds: took.as_secs().to_string(),
        line: line.to_owned(),
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file());
    // A record that cannot be kept is no reason for a campaign to fail.
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{run}")) {
        eprintln!("xtask: the run is not on record: {error}");
    }
}

/// The command that runs a campaign: its name, but for one that the word `watch` alone would not explain.
pub(crate) fn command_of(name: &str) -> &str {
    match name {
        "watch" => "watch-check",
        name => name,
    }
}

/// What was typed: a command from the campaign's name on, if it has it.
fn typed(command: &str, name: &str) -> String {
    let words: Vec<&str> = command
        .split(' ')
        .skip_while(|word| *word != name && *word != command_of(name))
        .collect();
    if words.is_empty() {
        name.to_owned()
    } else {
        words.join(" ")
    }
}

/// Day and name of the commit that is checked out.
pub(crate) fn head() -> (String, String) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(root())
            .output();
        let text = output.ok().filter(|output| output.status.success());
        text.map(|text| String::from_utf8_lossy(&text.stdout).trim().to_owned())
    };
    let day = git(&["log", "-1", "--format=%cs"]).unwrap_or_else(|| "unknown".to_owned());
    let commit = git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|changes| !changes.is_empty());
    (day, commit + if changed { "+" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::{parse, typed};

    const LINE: &str = "2026-11-26\tabc\tcrash --images 5\t3\tcrash: 5 images, 0 lost, 0 wrong";

    /// Where a program lies is nobody's business, and differs from machine to machine.
    #[test]
    fn commands_begin_with_the_campaign() {
        let command = "cargo run --bin campaign -- crash --images 5";
        assert_eq!(typed(command, "crash"), "crash --images 5");
        assert_eq!(typed("/somewhere/crush", "crash"), "crash");
        let command = "campaign watch-check --histories 5";
        assert_eq!(typed(command, "watch"), "watch-check --histories 5");
    }

    /// What is written is read; other lines are refused.
    #[test]
    fn lines_come_back() {
        let runs = parse(&format!("{LINE}\n\n{LINE}\n")).unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[0].to_string(), LINE);
        assert_eq!(runs[0].campaign(), "crash");
        assert!(parse("abc").is_err());
        assert!(parse(&LINE.replace("crash:", "crush:")).is_err());
    }
}
