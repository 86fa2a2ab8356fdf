//! `cargo xtask miri`, `asan`, `tsan`: the tests under what sees undefined behaviour, bad memory and races (F24).
//!
//! Each is a run of tests that exist, built with a flag. A stable compiler takes the sanitizers' flags when it
//! is told that it may; Miri comes with a nightly one, and where there is none that is said aloud. What Miri
//! cannot run (a file that is mapped) it leaves out: the index and the format are pure memory.

use std::process::{Command, Stdio};

use crate::step;
use crate::{Result, cargo, target};

#[cfg(target_arch = "x86_64")]
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
#[cfg(not(target_arch = "x86_64"))]
const TRIPLE: &str = "aarch64-unknown-linux-gnu";

/// Tests under AddressSanitizer: those of the lock-free index and of memory that changes its backing, and all
/// that the door hands out.
const ASAN: &[&str] = &["--lib", "--test", "api", "--test", "sim"];
/// Tests of threads.
const TSAN: &[&str] = &["--lib", "--test", "conc"];

/// The format's tests but those that read and write text (SPEC.md's tables, the golden files) for most of their
/// time, and those of etcd's files.
const FORMAT: &[&str] = &[
    "-p",
    "revtree-format",
    "--lib",
    "--test",
    "frames",
    "--test",
    "pages",
    "--test",
    "records",
    "--test",
    "superblock",
];

/// The index's tests and the format's under Miri, with tree borrows: the epochs' crate is not clean under the
/// older rule.
pub(crate) fn miri() -> Result<Option<String>> {
    if !has_nightly() {
        println!("miri: skipped: there is no nightly toolchain here");
        return Ok(None);
    }
    let mut install = Command::new("rustup");
    install.args([
        "component",
        "add",
        "--toolchain",
        "nightly",
        "miri",
        "rust-src",
    ]);
    step::run(install).0?;
    let flags = "-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-ignore-leaks";
    let mut passed = 0;
    for tests in [
        &[
            "-p",
            "revtree",
            "--features",
            "unstable-storage",
            "--lib",
            "index::",
        ][..],
        FORMAT,
    ] {
        let mut miri = Command::new("cargo");
        miri.args(["+nightly", "miri", "test"])
            .args(tests)
            .current_dir(crate::root())
            .env("MIRIFLAGS", flags)
            .env("CARGO_TARGET_DIR", target().join("miri"))
            // Set for the toolchain that runs us.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO");
        passed += count(miri)?;
    }
    Ok(Some(format!("miri: {passed} tests passed, 0 failed")))
}

/// Tests with AddressSanitizer.
pub(crate) fn asan() -> Result<Option<String>> {
    let mut tests = cargo(&[
        "test",
        "-p",
        "revtree",
        "--all-features",
        "--target",
        TRIPLE,
    ]);
    tests.args(ASAN);
    sanitized(&mut tests, "address");
    let passed = count(tests)?;
    Ok(Some(format!("asan: {passed} tests passed, 0 failed")))
}

/// Tests with ThreadSanitizer, which needs the standard library built with it too.
pub(crate) fn tsan() -> Result<Option<String>> {
    let mut install = Command::new("rustup");
    install.args(["component", "add", "rust-src"]);
    step::run(install).0?;
    let mut tests = cargo(&["test", "-Zbuild-std", "-p", "revtree", "--all-features"]);
    tests.args(["--target", TRIPLE]).args(TSAN);
    sanitized(&mut tests, "thread");
    let passed = count(tests)?;
    Ok(Some(format!("tsan: {passed} tests passed, 0 failed")))
}

fn sanitized(tests: &mut Command, sanitizer: &str) {
    tests
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", format!("-Zsanitizer={sanitizer}"))
        .env("CARGO_TARGET_DIR", target().join(sanitizer));
}

fn count(tests: Command) -> Result<u64> {
    let (outcome, counts) = step::run(tests);
    outcome?;
    match counts.passed {
        0 => Err("no test ran".to_owned()),
        passed => Ok(passed),
    }
}

fn has_nightly() -> bool {
    Command::new("rustc")
        .args(["+nightly", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_remove("RUSTUP_TOOLCHAIN")
        .status()
        .is_ok_and(|status| status.success())
}
