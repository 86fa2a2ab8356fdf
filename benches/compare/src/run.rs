//! The run as a whole: passes, engines in turn, a process for each stage, the table at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::Instant;

use crate::report::{Report, Sample};
use crate::workloads::{RECORD_BYTES, Stage};
#[cfg(feature = "revtree")]
use crate::workloads::{WATCHING, watch::ETCD};
use crate::{Args, Result, machine};

/// A directory that goes when this does.
struct TempDir(PathBuf);

impl TempDir {
    fn new(parent: &Path) -> Result<TempDir> {
        let dir = parent.join(format!("compare-{}", process::id()));
        fs::create_dir_all(&dir)?;
        Ok(TempDir(dir))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("compare: {} stays: {error}", self.0.display());
        }
    }
}

/// Runs everything asked for and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let scale = args.scale();
    let engines = args.engines()?;
    let parent = match &args.dir {
        Some(dir) => dir.clone(),
        None => beside_the_build()?,
    };
    let dir = TempDir::new(&parent)?;
    print!("{}", machine::describe(&dir.0)?);
    println!(
        "{} keys of 35 bytes, {} revisions each, values of 512 bytes ({RECORD_BYTES} bytes a revision); passes: {}\n",
        scale.keys, scale.revs_per_key, scale.passes
    );
    let mut samples = Vec::new();
    for pass in 0..scale.passes {
        eprintln!(
            "pass {} of {} after {:.0?}",
            pass + 1,
            scale.passes,
            start.elapsed()
        );
        // Another engine begins each pass, so that no one always meets the same state of the disk.
        let turn = usize::try_from(pass)? % engines.len();
        let in_turn: Vec<&String> = engines[turn..].iter().chain(&engines[..turn]).collect();
        for stage in Stage::of(&args.workloads()) {
            for engine in in_turn.iter().filter(|engine| stage.is_of(engine)) {
                samples.extend(run_stage(args, engine, stage, &dir.0)?);
            }
        }
        for engine in &engines {
            let dir = dir.0.join(engine);
            if dir.exists() {
                fs::remove_dir_all(dir)?;
            }
        }
    }
    #[cfg_attr(
        not(feature = "revtree"),
        expect(unused_mut, reason = "another column comes with revtree only")
    )]
    let mut columns = engines;
    #[cfg(feature = "revtree")]
    if samples
        .iter()
        .any(|sample| WATCHING.contains(&&*sample.workload))
    {
        columns.push(ETCD_RECORDED.to_owned());
        samples.extend(recorded(&samples));
    }
    let report = Report::of(&samples);
    print!("{}", report.table(&columns));
    println!(
        "\nmedians; ratios above 1: revtree is better; {:.0?} in all",
        start.elapsed()
    );
    if let Some(file) = &args.json {
        fs::write(file, report.json_lines())?;
    }
    Ok(())
}

/// The column of figures that were not measured in this run.
#[cfg(feature = "revtree")]
const ETCD_RECORDED: &str = "etcd*";

/// What was recorded of etcd for the workloads that have been run.
#[cfg(feature = "revtree")]
fn recorded(samples: &[Sample]) -> Vec<Sample> {
    let was_run = |workload: &str| samples.iter().any(|sample| sample.workload == workload);
    let known = ETCD.iter().filter(|(workload, ..)| was_run(workload));
    let sample = |(workload, metric, unit, value): &(&str, &str, &str, f64)| Sample {
        engine: ETCD_RECORDED.to_owned(),
        workload: (*workload).to_owned(),
        metric: (*metric).to_owned(),
        unit: (*unit).to_owned(),
        value: *value,
    };
    known.map(sample).collect()
}

/// One stage of one engine, in a process and a directory of its own; its figures.
fn run_stage(args: &Args, engine: &str, stage: Stage, dir: &Path) -> Result<Vec<Sample>> {
    let dir = dir.join(engine);
    fs::create_dir_all(&dir)?;
    let workloads: Vec<String> = args.workloads().into_iter().collect();
    let mut worker = Command::new(std::env::current_exe()?);
    worker.args(["--engines", engine, "--only", &workloads.join(",")]);
    worker
        .arg("--stage")
        .arg(format!("{stage:?}").to_lowercase());
    worker.arg("--dir").arg(&dir);
    if args.quick {
        worker.arg("--quick");
    }
    let output = worker
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{engine}: stage {stage:?} failed").into());
    }
    String::from_utf8(output.stdout)?
        .lines()
        .map(Sample::from_line)
        .collect()
}

/// The directory above the program's: the target directory, which has room and is a real disk.
fn beside_the_build() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent);
    Ok(target.ok_or("the program lies in no directory")?.to_owned())
}
