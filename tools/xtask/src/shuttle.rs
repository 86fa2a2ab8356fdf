//! `cargo xtask shuttle`: whole stores whose threads run in an order that shuttle chooses (F24, F25).
//!
//! What runs beside what stands in `tests/shuttle`, and so does what a schedule is checked for.

use std::process::Command;

use crate::step;
use crate::{Result, cargo, target};

pub(crate) fn run(options: &[&str]) -> Result<()> {
    step::run(build()).0?;
    step::run(schedules(options)).0
}

/// A flag for every crate, so they are built in a folder of their own. Schedules are short: what makes them
/// fast takes longer to build than it saves.
pub(crate) fn build() -> Command {
    let mut command = cargo(&["build", "--package", "revtree-test-shuttle"]);
    command
        .env("RUSTFLAGS", "--cfg shuttle")
        .env("CARGO_TARGET_DIR", folder())
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    command
}

/// Runs what was built. Its last line goes on record as that of the campaign that its first word names.
pub(crate) fn schedules(options: &[&str]) -> Command {
    let mut command = Command::new(folder().join("debug/revtree-test-shuttle"));
    command.arg("shuttle").args(options);
    command
}

fn folder() -> std::path::PathBuf {
    target().join("shuttle")
}
