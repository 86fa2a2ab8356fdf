//! B and B2: random gets, current and old. C: ranges with values, and counts.
//!
//! Every answer is known: after the load, which put each key shows at each revision.

use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{Query, Random, key};
use crate::engines::Engine;
use crate::measure::{Histogram, figure, per_second};
use crate::workloads::Context;

/// Queries made before the clock starts; read round and round.
const QUERIES: usize = 1 << 18;
/// Keys of one range.
const RANGE_KEYS: u32 = 1000;

pub(super) fn run<E: Engine>(context: &Context<'_>, engine: &E) -> Result<()> {
    if context.wants("B") {
        let queries = context.data.current_queries(QUERIES);
        gets(context, engine, "B", &queries, |_| None)?;
    }
    if context.wants("B2") {
        let queries = context.data.old_queries(QUERIES);
        gets(context, engine, "B2", &queries, |query| Some(query.rev))?;
    }
    if context.wants("C") {
        ranges(context, engine)?;
        counts(context, engine)?;
    }
    Ok(())
}

fn gets<E: Engine>(
    context: &Context<'_>,
    engine: &E,
    workload: &str,
    queries: &[Query],
    at: fn(&Query) -> Option<u64>,
) -> Result<()> {
    for threads in [1, 2] {
        let (latencies, took) = gets_by(threads, context, engine, queries, at)?;
        let rate = per_second(latencies.total(), took);
        context.report(workload, &format!("gets_{threads}t"), rate, "ops/s");
        for (name, permille) in [("p50", 500), ("p99", 990)] {
            let latency = latencies.quantile_us(permille);
            context.report(workload, &format!("{name}_{threads}t"), latency, "us");
        }
    }
    Ok(())
}

fn gets_by<E: Engine>(
    threads: usize,
    context: &Context<'_>,
    engine: &E,
    queries: &[Query],
    at: fn(&Query) -> Option<u64>,
) -> Result<(Histogram, Duration)> {
    let start = Instant::now();
    let end = start + context.scale.short;
    let work = |thread: usize| -> Result<Histogram> {
        let mut latencies = Histogram::new();
        let mut begin = Instant::now();
        for query in queries
            .iter()
            .cycle()
            .skip(thread * queries.len() / threads)
        {
            let check = |value: &[u8]| context.data.check_put(query.id, query.put, value);
            if !engine.get(&query.key, at(query), check)? {
                return Err(format!("key {} not found at revision {}", query.id, query.rev).into());
            }
            let now = Instant::now();
            latencies.record(now - begin);
            begin = now;
            if now >= end {
                break;
            }
        }
        Ok(latencies)
    };
    let mut latencies = Histogram::new();
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        for worker in workers {
            latencies.merge(&worker.join().map_err(|_| "a reading thread panicked")??);
        }
        Ok(())
    })?;
    Ok((latencies, start.elapsed()))
}

fn ranges<E: Engine>(context: &Context<'_>, engine: &E) -> Result<()> {
    let current = context.data.current_puts();
    let mut random = Random::new(0xc);
    let start = Instant::now();
    let mut read = 0;
    while start.elapsed() < context.scale.short {
        let first = random.below(context.data.key_count() - RANGE_KEYS);
        let mut id = first;
        engine.range(&key(first), &key(first + RANGE_KEYS), |found, value| {
            // The value's tag says which key it belongs to; the key's last digit, that the
            // key is its own.
            if found
                .last()
                .map(|&digit| u32::from(digit.wrapping_sub(b'0')))
                != Some(id % 10)
            {
                return Err(format!("the range's key {id} is another").into());
            }
            context.data.check_put(id, current[id as usize], value)?;
            id += 1;
            Ok(())
        })?;
        if id != first + RANGE_KEYS {
            return Err(format!("a range of {RANGE_KEYS} keys had {}", id - first).into());
        }
        read += u64::from(RANGE_KEYS);
    }
    context.report("C", "range1000", per_second(read, start.elapsed()), "kv/s");
    Ok(())
}

fn counts<E: Engine>(context: &Context<'_>, engine: &E) -> Result<()> {
    let keys = u64::from(context.data.key_count());
    let start = Instant::now();
    let mut counts = 0;
    while start.elapsed() < context.scale.short / 2 {
        let found = engine.count()?;
        if found != keys {
            return Err(format!("counted {found} of {keys} keys").into());
        }
        counts += 1;
    }
    let took = start.elapsed();
    context.report("C", "count_only", per_second(keys * counts, took), "keys/s");
    let micros = took.as_secs_f64() * 1e6 / figure(counts);
    context.report("C", "count_time", micros, "us");
    Ok(())
}
