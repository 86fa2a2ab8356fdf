//! A: all puts, one a transaction, synced in batches. I: the space they take.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::engines::{Engine, SyncRule};
use crate::measure::{FileSizes, Memory, figure, per_second, written_bytes};
use crate::workloads::Context;
use crate::workloads::puts::Puts;

pub(super) fn run<E: Engine>(context: &Context<'_>) -> Result<()> {
    let dir = context.fresh_dir("store")?;
    let memory_before = Memory::now()?;
    let written_before = written_bytes()?;
    let (engine, puts, took) = fill::<E>(context, &dir)?;
    let revs = figure(puts.count());
    if context.wants("A") {
        let written = figure(written_bytes()? - written_before);
        context.report("A", "puts", per_second(puts.count(), took), "ops/s");
        context.report("A", "put_p99", puts.latencies.quantile_us(990), "us");
        context.report("A", "put_max", puts.latencies.max_us() / 1e3, "ms");
        context.report("A", "max_commit", puts.worst_sync.as_secs_f64() * 1e3, "ms");
        context.report("A", "bytes_written", written / revs, "B/rev");
    }
    let memory = Memory::now()?;
    engine.close()?;
    if context.wants("I") {
        let files = FileSizes::of(&dir)?;
        let index = memory.anonymous.saturating_sub(memory_before.anonymous) * 1024;
        context.report("I", "file_apparent", figure(files.apparent) / revs, "B/rev");
        context.report(
            "I",
            "file_allocated",
            figure(files.allocated) / revs,
            "B/rev",
        );
        context.report("I", "rss", figure(memory.resident) / 1024.0, "MiB");
        context.report("I", "rss_anon", figure(memory.anonymous) / 1024.0, "MiB");
        context.report("I", "peak_rss", figure(memory.peak) / 1024.0, "MiB");
        context.report(
            "I",
            "anon_per_key",
            figure(index) / f64::from(context.scale.keys),
            "B/key",
        );
    }
    Ok(())
}

/// Loads a new store; it, its puts, and how long they took with the last sync.
pub(super) fn fill<'d, E: Engine>(
    context: &Context<'d>,
    dir: &Path,
) -> Result<(E, Puts<'d>, Duration)> {
    let engine = E::open(dir, SyncRule::Batched)?;
    let mut puts = Puts::load(context.data);
    let start = Instant::now();
    engine.write(1, &mut puts)?;
    let took = start.elapsed();
    if engine.rev() != context.data.loaded_rev() {
        return Err(format!("loaded to revision {}", engine.rev()).into());
    }
    Ok((engine, puts, took))
}
