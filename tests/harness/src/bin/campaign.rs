//! `campaign model`, `campaign crash`, `campaign faults`: histories of one seed after the other.

use std::process::ExitCode;

use revtree_harness::campaign::{Kind, main as campaign};
use revtree_harness::{Store, crash, generate, run};

fn main() -> ExitCode {
    campaign(&[
        Kind {
            name: "model",
            unit: "ops",
            units: 1_000_000,
            history: &model,
        },
        Kind {
            name: "crash",
            unit: "images",
            units: 100_000,
            history: &|seed| crash::crash(seed).map(|summary| summary.images),
        },
        Kind {
            name: "faults",
            unit: "runs",
            units: 5_000,
            history: &|seed| crash::faults(seed).map(|summary| summary.images),
        },
    ])
}

/// A thousand operations beside the oracle.
fn model(seed: u64) -> Result<u64, String> {
    let stats = run(seed, &generate(seed, 1000), || Store::for_seed(seed));
    stats
        .map(|stats| stats.ops)
        .map_err(|difference| difference.to_string())
}
