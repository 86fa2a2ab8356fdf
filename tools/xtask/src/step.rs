//! Steps: each is announced, run, timed, and its tests counted from the lines that it prints.
//!
//! A failed step does not end the run: a badly formatted line should not hide a failing test. What
//! failed is said again at the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Result, runs};

/// Numbers of tests, added up over all steps.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// A run of steps.
pub(crate) struct Steps {
    began: Instant,
    done: Vec<(String, Duration, Result<()>)>,
    counts: Counts,
}

impl Steps {
    pub(crate) fn new() -> Steps {
        Steps {
            began: Instant::now(),
            done: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Runs a command; its tests are counted.
    pub(crate) fn command(&mut self, title: &str, command: Command) -> bool {
        self.step(title, |counts| {
            let (outcome, found) = run(command);
            counts.add(found);
            outcome
        })
    }

    /// Runs a command that runs tests. One that ran none has shown nothing: a filter that no test has any
    /// more would pass for ever.
    pub(crate) fn tests(&mut self, title: &str, command: Command) -> bool {
        self.step(title, |counts| {
            let (outcome, found) = run(command);
            counts.add(found);
            outcome.and_then(|()| some_ran(found))
        })
    }

    /// Runs a function of this program.
    pub(crate) fn call(&mut self, title: &str, work: impl FnOnce() -> Result<()>) -> bool {
        self.step(title, |_| work())
    }

    fn step(&mut self, title: &str, work: impl FnOnce(&mut Counts) -> Result<()>) -> bool {
        say(&format!("\n==> {title}"));
        let began = Instant::now();
        let outcome = work(&mut self.counts);
        let took = began.elapsed();
        let passed = outcome.is_ok();
        match &outcome {
            Ok(()) => say(&format!("<== {title}: ok in {}", seconds(took))),
            Err(why) => say(&format!("<== {title}: FAILED in {}: {why}", seconds(took))),
        }
        self.done.push((title.to_owned(), took, outcome));
        passed
    }

    /// Lists the steps with their times, and sums up in one last line.
    pub(crate) fn finish(self) -> Result<()> {
        say("");
        for (title, took, outcome) in &self.done {
            let mark = if outcome.is_ok() { "ok    " } else { "FAILED" };
            say(&format!("{mark} {:>8}  {title}", seconds(*took)));
        }
        let failed = self.done.iter().filter(|done| done.2.is_err()).count();
        let Counts {
            passed,
            failed: tests_failed,
            ignored,
        } = self.counts;
        let line = format!(
            "ci: {}: {} steps, {failed} failed; {passed} tests passed, {tests_failed} failed, \
             {ignored} ignored; in {}",
            if failed == 0 { "ok" } else { "FAILED" },
            self.done.len(),
            seconds(self.began.elapsed()),
        );
        say(&line);
        if failed == 0 {
            Ok(())
        } else {
            Err(format!("{failed} steps failed"))
        }
    }
}

fn some_ran(counts: Counts) -> Result<()> {
    match counts.passed {
        0 => Err("no test ran".to_owned()),
        _ => Ok(()),
    }
}

fn seconds(duration: Duration) -> String {
    let all = duration.as_secs();
    if all < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", all / 60, all % 60)
    }
}

/// A line on standard output at once. A closed pipe is not worth a panic.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Runs a command without standard input, passes on all that it prints, and counts its tests. The last
/// line of a campaign goes on record.
pub(crate) fn run(mut command: Command) -> (Result<()>, Counts) {
    let text = shown(&command);
    say(&format!("$ {text}"));
    let began = Instant::now();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return (
                Err(format!("could not be started: {error}")),
                Counts::default(),
            );
        }
    };
    let out = child.stdout.take().expect("it is piped");
    let err = child.stderr.take().expect("it is piped");
    let mut counts = Counts::default();
    let mut last = String::new();
    std::thread::scope(|scope| {
        // cargo test sums up on one of them, nextest on the other.
        let errors = scope.spawn(|| pass_on(err, std::io::stderr()).0);
        let (found, line) = pass_on(out, std::io::stdout());
        last = line;
        counts.add(found);
        counts.add(errors.join().unwrap_or_default());
    });
    let outcome = match child.wait() {
        Ok(status) if status.success() => {
            runs::write_down(&text, began.elapsed(), &last);
            Ok(())
        }
        Ok(status) => Err(format!("{status}")),
        Err(error) => Err(format!("was lost: {error}")),
    };
    (outcome, counts)
}

/// The command as one would type it, with the variables that were set for it.
fn shown(command: &Command) -> String {
    let mut words: Vec<String> = command
        .get_envs()
        .filter_map(|(name, value)| {
            Some(format!(
                "{}={:?}",
                name.to_string_lossy(),
                value?.to_string_lossy()
            ))
        })
        .collect();
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    words.push(name.to_string_lossy().into_owned());
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// Passes on what is read; gives the tests that it tells of, and its last line that is not empty.
fn pass_on(from: impl Read, mut to: impl Write) -> (Counts, String) {
    let mut counts = Counts::default();
    let mut last = String::new();
    let mut line = Vec::new();
    let mut lines = BufReader::new(from);
    while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
        let _ = to.write_all(&line).and_then(|()| to.flush());
        let text = String::from_utf8_lossy(&line);
        counts.add(summary(&text));
        if !text.trim().is_empty() {
            last = text.trim_end().to_owned();
        }
        line.clear();
    }
    (counts, last)
}

/// What a line of `cargo test` or of nextest says about the tests of a run; zeros for other lines.
fn summary(line: &str) -> Counts {
    let line = line.trim_start();
    let of_cargo = line.starts_with("test result: ");
    let of_nextest = line.starts_with("Summary [") && line.contains(" tests run: ");
    if !of_cargo && !of_nextest {
        return Counts::default();
    }
    let number_before = |word: &str| -> u64 {
        let words: Vec<&str> = line
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        words
            .windows(2)
            .find(|pair| pair[1] == word)
            .and_then(|pair| pair[0].parse().ok())
            .unwrap_or(0)
    };
    Counts {
        passed: number_before("passed"),
        failed: number_before("failed"),
        ignored: number_before("ignored") + number_before("skipped"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, some_ran, summary};

    /// A step of tests without a test is a failure.
    #[test]
    fn no_tests_are_no_success() {
        assert!(some_ran(summary("test result: ok. 0 passed; 0 failed; 3 ignored")).is_err());
        assert!(some_ran(summary("test result: ok. 1 passed; 0 failed; 3 ignored")).is_ok());
    }

    /// Both runners' last lines are understood, and nothing else is taken for one.
    #[test]
    fn summaries_are_counted() {
        let counts = |passed, failed, ignored| Counts {
            passed,
            failed,
            ignored,
        };
        for (line, expected) in [
            (
                "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 7 filtered out; finished",
                counts(12, 0, 3),
            ),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured",
                counts(1, 2, 0),
            ),
            (
                "     Summary [   0.131s] 35 tests run: 33 passed (1 slow), 2 failed, 4 skipped",
                counts(33, 2, 4),
            ),
            ("test result_is_named ... ok", counts(0, 0, 0)),
            ("12 passed", counts(0, 0, 0)),
        ] {
            assert_eq!(summary(line), expected, "{line}");
        }
    }
}
