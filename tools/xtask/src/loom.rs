//! `cargo xtask loom`: the models of all hand-overs between threads, under loom (F24).
//!
//! Each stands beside the code that it runs, in a file `loom.rs`, and says itself how many preemptions are
//! explored.

use std::process::Command;

use crate::step;
use crate::{Result, cargo, target};

pub(crate) fn run() -> Result<Option<String>> {
    let (outcome, counts) = step::run(models());
    outcome?;
    match counts.passed {
        0 => Err("no model ran".to_owned()),
        passed => Ok(Some(format!("loom: {passed} models explored, 0 failed"))),
    }
}

/// The models need a flag for every crate, so they are built in a folder of their own.
pub(crate) fn models() -> Command {
    let mut command = cargo(&arguments());
    set(&mut command).env("CARGO_TARGET_DIR", target().join("loom"));
    command
}

/// The command, whose last word is the filter.
pub(crate) fn arguments() -> [&'static str; 6] {
    [
        "test",
        "--release",
        "--package",
        "revtree",
        "--lib",
        "loom::",
    ]
}

/// How they are built; what makes a release small is left out, it only makes the build long.
pub(crate) fn set(command: &mut Command) -> &mut Command {
    command
        .env("RUSTFLAGS", "--cfg loom --cfg crossbeam_loom")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
}
