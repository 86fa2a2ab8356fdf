//! F: four of five revisions compacted away beside a writer of 1000 a second and a reader at full speed.
//!
//! Peers delete the superseded revisions in chunks between the puts that are due, so their `wall`
//! ends when the last is deleted. revtree's `wall` is the call to `compact`, after which reads
//! below the revision are refused; `background` is when nothing is left to do. Latencies are those
//! of the whole time, and those of the idle store stand beside them.

use std::time::{Duration, Instant};

use crate::Result;
use crate::data::key;
use crate::engines::Engine;
use crate::measure::{FileSizes, figure};
use crate::workloads::Context;
use crate::workloads::load::fill;
use crate::workloads::mixed::{beside, random_gets};
use crate::workloads::puts::Puts;

const PACE: Duration = Duration::from_millis(1);

pub(super) fn run<E: Engine>(context: &Context<'_>) -> Result<()> {
    let dir = context.fresh_dir("compact")?;
    let scratch = context.fresh_dir("scratch")?;
    let (mut engine, _, _) = fill::<E>(context, &dir)?;
    let megabytes = |bytes: u64| figure(bytes) / 1e6;
    let size = || FileSizes::of(&dir).map(|sizes| megabytes(sizes.allocated));

    let mut idle = Puts::paced(context.data, 0xf0, PACE, Some(context.scale.idle));
    let reader = |stop: &_| random_gets(context.data, &engine, stop);
    let (_, idle_gets) = beside(|| engine.write(1, &mut idle), reader)?;
    context.report("F", "idle_put_p99", idle.latencies.quantile_us(990), "us");
    context.report("F", "idle_get_p999", idle_gets.quantile_us(999), "us");
    context.report("F", "size_before", size()?, "MB");

    let mut puts = Puts::paced(context.data, 0xf, PACE, None);
    let mut compacted = None;
    let compact = || {
        compacted = Some(engine.compact(&mut puts)?);
        Ok(())
    };
    let reader = |stop: &_| random_gets(context.data, &engine, stop);
    let (_, gets) = beside(compact, reader)?;
    let compacted = compacted.ok_or("the compaction did not run")?;
    context.report("F", "wall", compacted.call.as_secs_f64(), "s");
    context.report("F", "background", compacted.all.as_secs_f64(), "s");
    if let Some(deleted) = compacted.deleted {
        context.report("F", "deleted", figure(deleted), "revs");
    }
    context.report("F", "puts_during", figure(puts.count()), "ops");
    context.report("F", "put_p99", puts.latencies.quantile_us(990), "us");
    context.report("F", "put_max", puts.latencies.max_us(), "us");
    context.report("F", "get_p999", gets.quantile_us(999), "us");
    context.report("F", "get_max", gets.max_us(), "us");
    context.report("F", "size_after_delete", size()?, "MB");

    let start = Instant::now();
    if let Some(left) = engine.reclaim(&dir, &scratch)? {
        context.report("F", "reclaim", start.elapsed().as_secs_f64(), "s");
        context.report("F", "size_after_reclaim", megabytes(left), "MB");
    }
    verify(context, &engine)?;
    engine.close()
}

/// The live keys are all there, each with a value of its own.
fn verify<E: Engine>(context: &Context<'_>, engine: &E) -> Result<()> {
    let keys = context.data.key_count();
    if engine.count()? != u64::from(keys) {
        return Err("compacting lost keys".into());
    }
    for id in 0..keys {
        let found = engine.get(&key(id), None, |value| {
            context.data.check(id, value).map(|_| ())
        })?;
        if !found {
            return Err(format!("compacting lost key {id}").into());
        }
    }
    Ok(())
}
