//! `cargo xtask fuzz`: the harness's fuzz targets under libFuzzer with AddressSanitizer (F19).
//!
//! The package `tests/fuzz` is built with the flags that count which branches an input takes; a stable
//! compiler does that when it is told that it may. Inputs that reach something new are kept in the folder of the
//! build, so a later run goes on from there. An input that is a finding is named, with its file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Result, cargo, root, target};

const TARGETS: &[&str] = &["open", "decode", "import", "ops", "salvage"];
#[cfg(target_arch = "x86_64")]
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
#[cfg(not(target_arch = "x86_64"))]
const TRIPLE: &str = "aarch64-unknown-linux-gnu";

/// What makes the compiler count branches and compared numbers, as libFuzzer reads them.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=16",
    "-Zsanitizer=address",
];

/// No single allocation, and no input, takes more: the stores are some hundred kilobytes. The address space
/// that a store reserves is none of it.
const LIMITS: &[&str] = &["-malloc_limit_mb=512", "-rss_limit_mb=4096", "-timeout=30"];

/// Fuzzes each target, or the one named, for so many seconds, two at a time; gives the last line.
pub(crate) fn run(options: &[&str]) -> Result<Option<String>> {
    const USAGE: &str = "fuzz [--seconds N] [--target T]";
    let (mut seconds, mut only) = (60, None);
    let mut options = options;
    while let [option, value, rest @ ..] = options {
        match *option {
            "--seconds" => seconds = value.parse().map_err(|_| USAGE)?,
            "--target" => only = Some(*value),
            other => return Err(format!("fuzz has no option {other}")),
        }
        options = rest;
    }
    if !options.is_empty() {
        return Err(USAGE.to_owned());
    }
    let targets: Vec<&str> = TARGETS
        .iter()
        .copied()
        .filter(|t| only.is_none_or(|o| o == *t))
        .collect();
    if targets.is_empty() {
        return Err(format!("the targets are {}", TARGETS.join(", ")));
    }
    build()?;
    let mut executions = 0;
    let mut findings = Vec::new();
    for pair in targets.chunks(2) {
        let runs: Vec<_> = std::thread::scope(|scope| {
            let runs: Vec<_> = pair
                .iter()
                .map(|name| scope.spawn(|| fuzz(name, seconds)))
                .collect();
            runs.into_iter()
                .map(|run| {
                    run.join()
                        .unwrap_or_else(|_| Err("a run panicked".to_owned()))
                })
                .collect()
        });
        for (name, run) in pair.iter().zip(runs) {
            match run {
                Ok(count) => {
                    println!("{name}: {count} executions in {seconds} s");
                    executions += count;
                }
                Err(finding) => findings.push(format!("{name}: {finding}")),
            }
        }
    }
    for finding in &findings {
        println!("{finding}");
    }
    let line = format!(
        "fuzz: {} targets, {executions} executions, {} findings",
        targets.len(),
        findings.len()
    );
    if findings.is_empty() {
        Ok(Some(line))
    } else {
        Err(line)
    }
}

fn folder() -> PathBuf {
    target().join("fuzz")
}

fn build() -> Result<()> {
    let mut build = cargo(&["build", "--release", "--target", TRIPLE]);
    build
        .current_dir(root().join("tests/fuzz"))
        .env("CARGO_TARGET_DIR", folder())
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        // The flags are not for stable compilers, which take them when this says so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", FLAGS.join(" "));
    match build.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!(
            "the targets cannot be built: {status} (libFuzzer needs a C++ compiler)"
        )),
        Err(error) => Err(format!("cargo could not be started: {error}")),
    }
}

/// Runs one target; gives how many inputs it had, or what it found.
fn fuzz(name: &str, seconds: u64) -> Result<u64> {
    let corpus = folder().join("corpus").join(name);
    let artifacts = folder().join("artifacts").join(name);
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let program = folder().join(TRIPLE).join("release").join(name);
    let kept = root().join("tests/fuzz/corpus").join(name);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut executions = 0;
    loop {
        // 0 would be no limit.
        let rest = end.saturating_duration_since(Instant::now()).as_secs();
        let mut command = Command::new(&program);
        command
            .arg(format!("-max_total_time={}", rest.max(1)))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-print_final_stats=1", "-max_len=4096"])
            .args(LIMITS)
            .arg(&corpus)
            .args(kept.is_dir().then_some(&kept));
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("could not be started: {error}"))?;
        let text = String::from_utf8_lossy(&output.stderr);
        executions += executed(&text).unwrap_or(0);
        if output.status.success() {
            // A run of nothing has shown nothing.
            let count = Some(executions).filter(|count| *count > 0);
            return count.ok_or_else(|| "no input was run".to_owned());
        }
        // The clock goes on while a busy machine lets a process wait: alone, such an input is as fast as others.
        match timed_out(&text) {
            Some(input) if is_fast(&program, input) => {
                println!("{name}: {input} was waited for, and is fast alone");
                if rest == 0 {
                    return Ok(executions);
                }
            }
            _ => {
                let lines: Vec<&str> = text.lines().filter(|line| is_telling(line)).collect();
                let what = shorter(&lines, &artifacts);
                return Err(format!("{}; {what}", output.status));
            }
        }
    }
}

/// The file of an input that took longer than it may.
fn timed_out(text: &str) -> Option<&str> {
    text.contains("ERROR: libFuzzer: timeout").then_some(())?;
    let (_, path) = text.split_once("Test unit written to ")?;
    path.lines().next()
}

/// Whether an input passes in time, in one of three tries.
fn is_fast(program: &Path, input: &str) -> bool {
    let try_it = || {
        let mut command = Command::new(program);
        command.args(LIMITS).arg(input);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    (0..3).any(|_| try_it())
}

fn executed(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.starts_with("stat::number_of_executed_units:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// A line that says what was found or where its input is.
fn is_telling(line: &str) -> bool {
    [
        "panicked at",
        "ERROR:",
        "Test unit written to",
        "wrong: ",
        "lost: ",
    ]
    .iter()
    .any(|word| line.contains(word))
}

fn shorter(lines: &[&str], artifacts: &Path) -> String {
    if lines.is_empty() {
        return format!("see {}", artifacts.display());
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::{executed, is_telling, timed_out};

    #[test]
    fn what_libfuzzer_says() {
        let text = "INFO: x\nstat::number_of_executed_units: 1234\nstat::peak_rss_mb: 5\n";
        assert_eq!(executed(text), Some(1234));
        assert_eq!(executed("nothing"), None);
        let text = "artifact_prefix='/a/'; Test unit written to /a/timeout-1\nBase64: AA==\n";
        assert_eq!(timed_out(text), None);
        let text = format!("==1== ERROR: libFuzzer: timeout after 59 seconds\n{text}");
        assert_eq!(timed_out(&text), Some("/a/timeout-1"));
        assert!(is_telling("thread '<unnamed>' panicked at src/a.rs:1:2:"));
        assert!(!is_telling("INFO: Running with entropic power schedule"));
    }
}
