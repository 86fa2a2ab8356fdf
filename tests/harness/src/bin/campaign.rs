//! `campaign model`: random histories on the real store beside the model, seed after seed.
//!
//! Segments and checkpoints take turns in size with the seed, so that the log turns over often.

use std::process::ExitCode;

use revtree_harness::campaign::{Kind, main as run_one_of};
use revtree_harness::subject::Store;
use revtree_harness::{generate, run};

/// Operations of one history.
const OPS: usize = 2_000;

fn main() -> ExitCode {
    run_one_of(&[Kind {
        name: "model",
        unit: "ops",
        units: 1_000_000,
        history: &model,
    }])
}

fn model(seed: u64) -> Result<u64, String> {
    let segment_bytes = [64 << 10, 256 << 10, 4 << 20][usize::try_from(seed % 3).unwrap_or(0)];
    let checkpoint_bytes = [32 << 10, 1 << 20][usize::try_from(seed / 3 % 2).unwrap_or(0)];
    let new = || Store::in_memory(segment_bytes, checkpoint_bytes);
    let stats = run(seed, &generate(seed, OPS), new);
    stats
        .map(|stats| stats.ops)
        .map_err(|difference| difference.to_string())
}
