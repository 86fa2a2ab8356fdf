//! The project's own commands: `cargo xtask ci` does everything that CI does.
//!
//! * [`ci`]: the steps of CI.
//! * [`step`]: how a step is run, timed and counted.
//! * [`layers`], [`words`], [`examples`], on [`source`]: rules that are read off the sources: which folder
//!   may use which, where `unsafe`, locks and clocks may stand, and that each public item has an example.
//! * [`supply`]: rules for dependencies.
//! * [`fuzz`]: libFuzzer on the harness's targets.
//! * [`loom`]: models of hand-overs between threads.
//! * [`shuttle`]: whole stores in chosen orders of their threads.
//! * [`sanitize`]: tests under Miri and the sanitizers.
//! * [`planted`]: bugs made on purpose, and which test finds each.
//! * [`report`], on [`runs`]: what campaigns printed, and the page that is made of it.
//! * [`conformance`], on [`tables`]: etcd's tests and ours that show the same.
//!
//! It has no dependencies, so that the first thing a newcomer runs is built in a second.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Instant;

mod ci;
mod conformance;
mod examples;
mod fuzz;
mod layers;
mod loom;
mod mutants;
mod planted;
mod report;
mod runs;
mod sanitize;
mod shuttle;
mod source;
mod step;
mod supply;
mod tables;
mod words;

/// What ends a command: a sentence for the last line.
pub(crate) type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "\
cargo xtask <command>

  ci                              everything that CI does
  layers                          the arrows between folders, where `unsafe` may stand, examples
  supply                          dependencies: where from, which licence, which advisory, how many
  conformance                     etcd's tests: what is shown, what does not apply
  crash [--images N] [--seed S]   power cuts at random places of random histories
  crash-threads [--images N] [--seed S]
                                  the same in histories of several threads, and of what they were told
  worlds [--worlds N] [--seed S]  all that power cuts leave of all histories of up to four transactions
  damage [--parts N]              every bit of a store of 64 KiB, lost blocks, bytes behind the end; then bytes of
                                  stores of other shapes, and all lengths
  faults [--histories N] [--seed S]
                                  every call of short histories fails, and some of long ones
  histories [--histories N] [--seed S]
                                  several threads on one store, and a check of all that each saw
  watch-check [--histories N] [--seed S]
                                  watchers, slow, dead and very many, and a check of all that each was told
  soak [--puts N] [--seed S]      a long life under churn, in a file and in memory that must not grow
  model [--ops N] [--seed S]      random histories beside the reference model
  kill [--times N] [--seed S]     kill -9 on a process that writes, at random moments and in every call
  power [--cuts N] [--fs ext4|xfs] [--seed S]
                                  real power cuts under a process that writes, on a filesystem in a file
  inject [--runs N] [--seed S]    system calls of a process that writes fail, or it is killed inside them
  calls [--parts N]               the same for each single system call on the files of short and longer lives
  memory [--runs N] [--seed S]    allocations of a process that writes fail
  long                            all campaigns, sanitizers, fuzzing, two processes and the tests that CI ignores,
                                  at the size of a night
  mutants [--area format|log|index|mvcc|watch] [--sample N] [--seed S] [--seconds N] [--again]
                                  are the tests blind? small changes to the code, which they have to notice
  fuzz [--seconds N] [--target T] crafted stores, snapshots and operations under libFuzzer
  loom                            models of all hand-overs between threads
  shuttle [--schedules N] [--seed S] [--only SCENARIO] [--replay SCHEDULE]
                                  whole stores, their threads in orders drawn by chance
  miri, asan, tsan                tests under what sees undefined behaviour, bad memory and races
  planted [NAME …] [--check]      bugs planted on purpose, each to be found by CI's tests
  report [--check]                docs/RELIABILITY-REPORT.md from the campaigns' last lines
  bench [--quick] [--only A,B] [--json FILE]
                                  beside redb, LMDB and fjall
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = arguments.split_first() else {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let outcome = match (command.as_str(), rest.as_slice()) {
        ("help" | "--help" | "-h", _) => {
            print!("{USAGE}");
            Ok(())
        }
        ("ci", []) => ci::run(),
        ("layers", []) => layers::run(),
        ("fuzz", options) => recorded(command, options, || fuzz::run(options)),
        ("planted", ["--check"]) => planted::check(),
        ("planted", only) => recorded(command, only, || planted::run(only)),
        ("loom", []) => recorded(command, &[], loom::run),
        ("shuttle", options) => shuttle::run(options),
        ("miri", []) => recorded(command, &[], sanitize::miri),
        ("asan", []) => recorded(command, &[], sanitize::asan),
        ("tsan", []) => recorded(command, &[], sanitize::tsan),
        ("report", []) => report::write(),
        ("report", ["--check"]) => report::check(),
        ("supply", []) => supply::run(),
        ("conformance", []) => conformance::run(),
        (
            "crash" | "crash-threads" | "worlds" | "damage" | "faults" | "histories"
            | "watch-check" | "model" | "kill" | "power" | "inject" | "calls" | "memory",
            options,
        ) => campaign(command, options),
        ("soak", options) => soak(options),
        ("long", []) => campaign("crash", &["--images", "5000000"])
            .and_then(|()| campaign("crash-threads", &["--images", "10000000"]))
            .and_then(|()| campaign("worlds", &[]))
            .and_then(|()| campaign("damage", &[]))
            .and_then(|()| campaign("faults", &["--histories", "1000"]))
            .and_then(|()| campaign("histories", &["--histories", "5000000"]))
            .and_then(|()| campaign("watch-check", &["--histories", "1000000"]))
            .and_then(|()| campaign("model", &["--ops", "100000000"]))
            .and_then(|()| campaign("kill", &["--times", "20000"]))
            .and_then(|()| campaign("power", &["--fs", "ext4", "--cuts", "20000"]))
            .and_then(|()| campaign("power", &["--fs", "xfs", "--cuts", "10000"]))
            .and_then(|()| campaign("inject", &["--runs", "20000"]))
            .and_then(|()| campaign("calls", &[]))
            .and_then(|()| campaign("memory", &["--runs", "50000"]))
            .and_then(|()| recorded("loom", &[], loom::run))
            .and_then(|()| shuttle::run(&["--schedules", "200000"]))
            .and_then(|()| recorded("miri", &[], sanitize::miri))
            .and_then(|()| recorded("asan", &[], sanitize::asan))
            .and_then(|()| recorded("tsan", &[], sanitize::tsan))
            .and_then(|()| recorded("fuzz", &AN_HOUR, || fuzz::run(&AN_HOUR)))
            .and_then(|()| soak(&[]))
            .and_then(|()| beside_a_writer())
            .and_then(|()| ignored()),
        ("mutants", options) => recorded("mutants", options, || mutants::run(options)),
        ("bench", options) => bench(options),
        _ => Err(format!("no such command\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("xtask: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// For each target of the fuzzer.
const AN_HOUR: [&str; 2] = ["--seconds", "3600"];

/// Runs a command of this program that gives its last line: printed, and on record as those of the harness's
/// campaigns. `None`: it was skipped, which has shown nothing.
fn recorded(
    command: &str,
    options: &[&str],
    run: impl FnOnce() -> Result<Option<String>>,
) -> Result<()> {
    let began = Instant::now();
    if let Some(line) = run()? {
        println!("{line}");
        let typed = [&[command], options].concat().join(" ");
        runs::write_down(&typed, began.elapsed(), &line);
    }
    Ok(())
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("tools/xtask lies two folders below the workspace")
        .to_owned()
}

/// Where cargo builds: the folder of this program's own build, two above it.
pub(crate) fn target() -> PathBuf {
    let ours = std::env::current_exe().ok();
    ours.as_deref()
        .and_then(|path| path.ancestors().nth(2))
        .map_or_else(|| root().join("target"), Path::to_owned)
}

/// A cargo command in the workspace: the cargo that runs us, or the one on the path.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    command
}

/// The harness's `campaign` program: random histories for as long as it is told.
fn campaign(kind: &str, options: &[&str]) -> Result<()> {
    let mut command = cargo(&[
        "run",
        "--quiet",
        "--release",
        "--package",
        "revtree-harness",
    ]);
    command
        .args(["--bin", "campaign", "--", kind])
        .args(options);
    succeed(command, kind)
}

/// The harness's `soak` program: keys overwritten for a long time.
fn soak(options: &[&str]) -> Result<()> {
    let mut command = cargo(&["run", "--quiet", "--release", "--package"]);
    command
        .args(["revtree-harness", "--bin", "soak", "--"])
        .args(options);
    succeed(command, "soak")
}

/// The tests of several processes, for a minute each.
fn beside_a_writer() -> Result<()> {
    let mut command = cargo(&[
        "test",
        "--release",
        "--package",
        "revtree",
        "--test",
        "conc",
    ]);
    command
        .args(["--", "--nocapture", "a_reader_opens_again"])
        .env("REVTREE_TEST_SCALE", "7");
    succeed(command, "processes")
}

/// The tests that are too long for CI.
fn ignored() -> Result<()> {
    let mut command = cargo(&["test", "--release", "--package", "revtree"]);
    command
        .args(["--all-features", "--tests", "--", "--nocapture"])
        .arg("--ignored");
    succeed(command, "ignored tests")
}

fn bench(options: &[&str]) -> Result<()> {
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "revtree-bench"]);
    command
        .args(["--features", "revtree", "--bin", "compare", "--"])
        .args(options);
    succeed(command, "bench")
}

/// The tests of a binary, run or listed: the same packages and features as the tests of `ci`, so that nothing is
/// built again.
pub(crate) fn test_binary(binary: &str, option: &str) -> Result<Output> {
    let mut command = cargo(&["test", "--workspace", "--all-features"]);
    command
        .args(["--test", binary, "--", option])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    command
        .output()
        .map_err(|error| format!("cargo test could not be started: {error}"))
}

fn succeed(command: Command, what: &str) -> Result<()> {
    let (outcome, _) = step::run(command);
    outcome.map_err(|why| format!("{what}: {why}"))
}
