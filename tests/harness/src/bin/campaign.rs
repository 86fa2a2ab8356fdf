//! `campaign model`, `campaign crash`, `campaign faults`, `campaign kill` and others: histories of one seed after the other.

use std::process::ExitCode;

use revtree_harness::campaign::{Kind, Tally, main as campaign};
use revtree_harness::kill::FileSystem;
use revtree_harness::{
    Store, crash, damage, fuzz, generate_with_reclaims, histories, kill, run, watching,
};

/// Inputs of `campaign fuzz` have a bound on memory, and the processes of `campaign memory` run out of it.
#[global_allocator]
static ALLOCATOR: kill::Allocator<fuzz::memory::Counting> = kill::Allocator(fuzz::memory::Counting);

fn main() -> ExitCode {
    // This program is also the process that `campaign kill` kills.
    kill::live_if_told();
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut fs = FileSystem::Ext4;
    if let Some(at) = arguments.iter().position(|word| word == "--fs") {
        let Some(named) = arguments
            .get(at + 1)
            .and_then(|name| FileSystem::named(name))
        else {
            eprintln!("--fs ext4 or --fs xfs");
            return ExitCode::FAILURE;
        };
        fs = named;
        arguments.drain(at..at + 2);
    }
    let command = arguments.first().map_or("", String::as_str);
    let possible = match command {
        "power" => {
            kill::with_own_mounts();
            kill::power_can_be_cut(fs)
        }
        "inject" | "calls" => kill::calls_can_fail(),
        _ => Ok(()),
    };
    if let Err(why) = possible {
        // Not the campaign's name first: what was skipped goes on no record.
        println!("SKIPPED: {command}: {why}");
        return ExitCode::SUCCESS;
    }
    let kinds = [
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
            name: "crash-threads",
            unit: "images",
            units: 20_000,
            history: &crash::threads,
        },
        Kind {
            name: "histories",
            unit: "histories",
            units: 10_000,
            history: &histories::histories,
        },
        Kind {
            name: "watch-check",
            unit: "histories",
            units: 5_000,
            history: &watching::watching,
        },
        Kind {
            name: "kill",
            unit: "times",
            units: 200,
            history: &kill::kill,
        },
        Kind {
            name: "power",
            unit: "cuts",
            units: 300,
            history: &|seed| kill::power(seed, fs),
        },
        Kind {
            name: "inject",
            unit: "runs",
            units: 500,
            history: &kill::inject,
        },
        Kind {
            name: "calls",
            unit: "parts",
            units: kill::CALL_PARTS_MAX,
            history: &kill::calls,
        },
        Kind {
            name: "memory",
            unit: "runs",
            units: 1000,
            history: &kill::memory,
        },
    ];
    campaign(&kinds, &arguments)
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
    let stats = run(seed, &generate_with_reclaims(seed, 1000), || {
        Store::for_seed(seed)
    });
    stats
        .map(|stats| stats.ops.into())
        .map_err(|difference| difference.to_string())
}
