//! `campaign model`, `campaign crash`, `campaign faults`, `campaign kill`: histories of one seed after the other.

use std::process::ExitCode;

use revtree_harness::campaign::{Kind, Tally, main as campaign};
use revtree_harness::{Store, crash, damage, fuzz, generate, kill, run};

/// Inputs of the fuzzer have a bound on memory.
#[global_allocator]
static COUNTED: fuzz::memory::Counting = fuzz::memory::Counting;

fn main() -> ExitCode {
    // This program is also the process that `campaign kill` kills.
    kill::live_if_told();
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
            history: &|seed| crash::crash(seed).map(images),
        },
        Kind {
            name: "worlds",
            unit: "worlds",
            units: crash::WORLDS_MAX,
            history: &|number| match number {
                0..crash::WORLDS_MAX => crash::world(number).map(world),
                _ => Err(format!("there are {} small worlds", crash::WORLDS_MAX)),
            },
        },
        Kind {
            name: "damage",
            unit: "parts",
            units: damage::PARTS_MAX,
            history: &|part| {
                let cases = damage::damage(part)?;
                Ok(Tally {
                    units: 1,
                    runs: cases,
                    ..Tally::default()
                })
            },
        },
        Kind {
            name: "fuzz",
            unit: "inputs",
            units: 100_000,
            history: &|seed| fuzz::fuzz(seed).map(Tally::from),
        },
        Kind {
            name: "faults",
            unit: "histories",
            units: 100,
            history: &faults,
        },
        Kind {
            name: "kill",
            unit: "times",
            units: 200,
            history: &kill::kill,
        },
    ])
}

/// What a crashed history had.
fn images(summary: crash::CrashSummary) -> Tally {
    Tally {
        units: summary.images,
        kinds: summary.kinds,
        ..Tally::default()
    }
}

/// What a small world had.
fn world(summary: crash::CrashSummary) -> Tally {
    Tally {
        units: 1,
        runs: summary.images,
        ..images(summary)
    }
}

/// A short history with each of its calls failing in each way, and a long one with some.
fn faults(seed: u64) -> Result<Tally, String> {
    let (every, some) = (crash::every_call(seed)?, crash::some_calls(seed)?);
    let mut kinds = every.kinds;
    for (kind, count) in some.kinds {
        *kinds.entry(kind).or_default() += count;
    }
    Ok(Tally {
        units: 1,
        kinds,
        runs: every.runs + some.runs,
        ..Tally::default()
    })
}

/// A thousand operations beside the oracle.
fn model(seed: u64) -> Result<Tally, String> {
    let stats = run(seed, &generate(seed, 1000), || Store::for_seed(seed));
    stats
        .map(|stats| stats.ops.into())
        .map_err(|difference| difference.to_string())
}
