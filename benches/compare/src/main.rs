//! `compare`: etcd's workloads on revtree and on the engines one would pick instead, in one run.
//!
//! Workloads A to I, each by its own file in `workloads`:
//!
//! | | |
//! |---|---|
//! | A, A2, A3 | puts: synced in batches; each durable, alone and grouped; 100 a transaction |
//! | B, B2 | random gets, current and at an old revision, 1 and 2 threads |
//! | C | ranges of 1000 keys with values; counting all keys |
//! | D | a writer at full speed beside random gets, and beside full ranges (`d2_`) |
//! | E | a hash of the whole history |
//! | F | compaction beside a writer and a reader |
//! | G | open after a clean close, to the first read |
//! | H0 to H4, HI, HM | watchers, beside recorded figures of etcd (`etcd*`) |
//! | I | disk and memory |
//!
//! **Same bytes.** Keys of 35 and values of 512 bytes, each key five times in one random order,
//! from one seed (`data`). Peers store 598 bytes a revision: a 17-byte revision key and a record
//! with etcd's fields (`record`), under one thin layer (`layer`).
//!
//! **Same sync rule.** A, A3, D, F: a sync at each 10,000 puts or 100 ms. A2: before each put
//! returns. LMDB runs `MDB_NOSYNC` with one sync a batch, see `engines/lmdb.rs`.
//!
//! **Same verification.** revtree checks the checksum of what it reads, so the layer stores a
//! CRC-32C with each record and checks it on every read; for every engine the bench then checks
//! that the value belongs to its key and, where nothing wrote since the load, to the one put that
//! must be found. Counts, range lengths and revisions are checked; a wrong answer ends the run.
//!
//! **Own processes.** Each engine's pass runs in processes of its own, so memory and written bytes
//! are its own and nobody inherits another's heap. Engines take turns at each stage of a pass, so
//! that a bad moment of the machine hits one stage of one pass; figures are medians over the
//! passes. All is hot in the page cache: each store's files are read once before they are opened.
//!
//! Ratios are turned so that above 1 means revtree is better.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

mod data;
mod engines;
mod layer;
mod machine;
mod measure;
mod record;
mod report;
mod run;
mod workloads;

use data::Data;
use engines::ENGINES;
use layer::Layer;
use report::Sample;
use workloads::{Context, Scale, Stage, WORKLOADS};

/// Whatever fails ends the run with its sentence.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const SEED: u64 = 0x7265_7674_7265_6531;

/// Runs the workloads and prints one table with ratios.
#[derive(Parser)]
#[command(name = "compare")]
pub(crate) struct Args {
    /// A fifth of the keys and short runs: under two minutes
    #[arg(long)]
    quick: bool,
    /// Only these workloads
    #[arg(long, value_delimiter = ',', value_name = "A,B,…", value_parser = WORKLOADS.to_vec())]
    only: Vec<String>,
    /// Only these engines
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    engines: Vec<String>,
    /// Runs of everything; figures are medians over them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..100))]
    passes: Option<u32>,
    /// Writes the medians to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the stores go; a directory made in it is removed at the end [default: beside the build]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Runs one stage of one engine in this process, as the parent asks for it.
    #[arg(long, hide = true, value_enum, requires = "dir")]
    stage: Option<Stage>,
}

impl Args {
    fn scale(&self) -> Scale {
        let mut scale = if self.quick {
            Scale::QUICK
        } else {
            Scale::FULL
        };
        scale.passes = self.passes.unwrap_or(scale.passes);
        scale
    }

    fn workloads(&self) -> BTreeSet<String> {
        let all = WORKLOADS.iter().map(|&name| name.to_owned());
        if self.only.is_empty() {
            all.collect()
        } else {
            self.only.iter().cloned().collect()
        }
    }

    /// The engines to run, the raw limits last.
    fn engines(&self) -> Result<Vec<String>> {
        let known = || ENGINES.iter().copied().chain(["raw"]).map(str::to_owned);
        if let Some(name) = self
            .engines
            .iter()
            .find(|&name| known().all(|engine| engine != *name))
        {
            let known: Vec<String> = known().collect();
            return Err(format!("no engine {name}, only {}", known.join(", ")).into());
        }
        let chosen = |name: &String| self.engines.is_empty() || self.engines.contains(name);
        Ok(known().filter(chosen).collect())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.stage {
        Some(stage) => worker(&args, stage),
        None => run::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One stage of one engine; figures go to standard output as lines.
fn worker(args: &Args, stage: Stage) -> Result<()> {
    let [engine] = args.engines.as_slice() else {
        return Err("a stage is of one engine".into());
    };
    let dir: &Path = args.dir.as_deref().ok_or("a stage has a directory")?;
    let scale = args.scale();
    let data = Data::new(SEED, scale.keys, scale.revs_per_key);
    let report = |workload: &str, metric: &str, value: f64, unit: &str| {
        let [engine, workload, metric, unit] =
            [engine.as_str(), workload, metric, unit].map(str::to_owned);
        println!(
            "{}",
            Sample {
                engine,
                workload,
                metric,
                unit,
                value
            }
            .to_line()
        );
    };
    let context = Context {
        data: &data,
        scale: &scale,
        only: &args.workloads(),
        dir: dir.to_owned(),
        report: &report,
    };
    match engine.as_str() {
        "redb" => workloads::run::<Layer<engines::redb::Redb>>(stage, &context),
        "lmdb" => workloads::run::<Layer<engines::lmdb::Lmdb>>(stage, &context),
        "fjall" => workloads::run::<Layer<engines::fjall::Fjall>>(stage, &context),
        #[cfg(feature = "revtree")]
        "revtree" => workloads::run::<engines::revtree::Revtree>(stage, &context),
        "raw" => engines::raw::run(&context),
        other => Err(format!("no engine {other}").into()),
    }
}
