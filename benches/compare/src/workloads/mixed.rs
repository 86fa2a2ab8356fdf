//! D: one writer at full speed beside one reader, of random gets (D1) or of full ranges (D2).

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{Data, Random, key};
use crate::engines::Engine;
use crate::measure::{Histogram, per_second};
use crate::workloads::Context;
use crate::workloads::puts::Puts;

pub(super) fn run<E: Engine>(context: &Context<'_>, engine: &E) -> Result<()> {
    if !context.wants("D") {
        return Ok(());
    }
    beside_gets(context, engine)?;
    beside_ranges(context, engine)
}

fn beside_gets<E: Engine>(context: &Context<'_>, engine: &E) -> Result<()> {
    let mut puts = Puts::random_for(context.data, 0xd1, context.scale.mixed);
    let start = Instant::now();
    let reader = |stop: &AtomicBool| random_gets(context.data, engine, stop);
    let (wrote, gets) = beside(|| engine.write(1, &mut puts), reader)?;
    context.report(
        "D",
        "gets",
        per_second(gets.total(), start.elapsed()),
        "ops/s",
    );
    context.report("D", "get_p50", gets.quantile_us(500), "us");
    context.report("D", "get_p99", gets.quantile_us(990), "us");
    context.report("D", "get_p999", gets.quantile_us(999), "us");
    context.report("D", "get_max", gets.max_us(), "us");
    report_puts(context, "", &puts, wrote);
    context.report("D", "max_commit", puts.worst_sync.as_secs_f64() * 1e3, "ms");
    Ok(())
}

fn beside_ranges<E: Engine>(context: &Context<'_>, engine: &E) -> Result<()> {
    let mut puts = Puts::random_for(context.data, 0xd2, context.scale.mixed);
    let start = Instant::now();
    let reader = |stop: &AtomicBool| full_ranges(context.data, engine, stop);
    let (wrote, read) = beside(|| engine.write(1, &mut puts), reader)?;
    context.report("D", "d2_range", per_second(read, start.elapsed()), "kv/s");
    report_puts(context, "d2_", &puts, wrote);
    Ok(())
}

fn report_puts(context: &Context<'_>, prefix: &str, puts: &Puts<'_>, took: Duration) {
    let latencies = &puts.latencies;
    context.report(
        "D",
        &format!("{prefix}puts"),
        per_second(puts.count(), took),
        "ops/s",
    );
    context.report(
        "D",
        &format!("{prefix}put_p99"),
        latencies.quantile_us(990),
        "us",
    );
    context.report(
        "D",
        &format!("{prefix}put_p999"),
        latencies.quantile_us(999),
        "us",
    );
    context.report("D", &format!("{prefix}put_max"), latencies.max_us(), "us");
}

/// Runs `write` here while `read` runs in another thread; how long the writer took, and what the
/// reader found.
pub(super) fn beside<T: Send>(
    write: impl FnOnce() -> Result<()>,
    read: impl FnOnce(&AtomicBool) -> Result<T> + Send,
) -> Result<(Duration, T)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(&stop));
        let start = Instant::now();
        let written = write();
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let read = reader.join().map_err(|_| "a reading thread panicked")??;
        written.map(|()| (took, read))
    })
}

/// Gets of random keys until told to stop, at full speed or one each `pace`, timed from the call.
pub(super) fn random_gets<E: Engine>(
    data: &Data,
    engine: &E,
    stop: &AtomicBool,
) -> Result<Histogram> {
    let mut latencies = Histogram::new();
    let mut random = Random::new(0xd);
    while !stop.load(Ordering::Relaxed) {
        let id = random.below(data.key_count());
        let key = key(id);
        let begin = Instant::now();
        if !engine.get(&key, None, |value| data.check(id, value).map(|_| ()))? {
            return Err(format!("key {id} is missing beside the writer").into());
        }
        latencies.record(begin.elapsed());
    }
    Ok(latencies)
}

/// Ranges over all keys until told to stop; the keys read.
fn full_ranges<E: Engine>(data: &Data, engine: &E, stop: &AtomicBool) -> Result<u64> {
    let mut read = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut id = 0;
        engine.range(b"/", b"0", |_, value| {
            data.check(id, value)?;
            id += 1;
            Ok(())
        })?;
        if id != data.key_count() {
            return Err(format!("a full range had {id} keys").into());
        }
        read += u64::from(id);
    }
    Ok(read)
}
