//! A2: puts that are on disk when they return, alone and from many threads at once.
//!
//! The disk's own speed wanders, so slices of the engine's puts alternate with slices of raw
//! appends, each synced, into zeroed blocks of a file in the same directory. `of_raw` is the median
//! of the ratios of neighbouring slices, which noise that lasts longer than a slice does not move.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::data::{Data, FIRST_EXTRA_PUT, Random, VALUE_BYTES, key};
use crate::engines::{Engine, SyncRule};
use crate::measure::{Histogram, figure, median, per_second, written_bytes};
use crate::workloads::{Context, RECORD_BYTES};

/// One turn of the engine, then one of the raw disk.
const SLICE: Duration = Duration::from_millis(50);
const RAW_FILE_BYTES: u64 = 16 << 20;
const GROUPS: &[u64] = &[8, 32, 128];

/// Gives the store back under the batched rule.
pub(super) fn run<E: Engine>(context: &Context<'_>, dir: &Path, engine: E) -> Result<E> {
    if !context.wants("A2") {
        return Ok(engine);
    }
    engine.close()?;
    let engine = E::open(dir, SyncRule::Durable)?;
    let mut raw = RawAppends::new(&context.dir.join("raw-appends"))?;
    alone(context, &engine, &mut raw)?;
    for &threads in GROUPS {
        group(context, &engine, threads)?;
    }
    engine.close()?;
    E::open(dir, SyncRule::Batched)
}

fn alone<E: Engine>(context: &Context<'_>, engine: &E, raw: &mut RawAppends) -> Result<()> {
    let mut puts = RandomPuts::new(context.data, 0);
    let (mut latencies, mut raw_latencies) = (Histogram::new(), Histogram::new());
    let (mut took, mut raw_took, mut written) = (Duration::ZERO, Duration::ZERO, 0);
    let mut ratios = Vec::new();
    while took + raw_took < context.scale.durable {
        let written_before = written_bytes()?;
        let ours = slice(&mut latencies, || puts.put(engine))?;
        written += written_bytes()? - written_before;
        let disk = slice(&mut raw_latencies, || raw.append())?;
        ratios.push(ours.rate() / disk.rate());
        took += ours.took;
        raw_took += disk.took;
    }
    context.report(
        "A2",
        "durable_puts",
        per_second(latencies.total(), took),
        "ops/s",
    );
    context.report(
        "A2",
        "raw_beside",
        per_second(raw_latencies.total(), raw_took),
        "ops/s",
    );
    context.report("A2", "of_raw", median(ratios), "ratio");
    context.report("A2", "p50", latencies.quantile_us(500), "us");
    context.report("A2", "p99", latencies.quantile_us(990), "us");
    let written = figure(written) / figure(latencies.total());
    context.report("A2", "bytes_written", written, "B/put");
    Ok(())
}

/// What happened in one slice.
struct Slice {
    count: u64,
    took: Duration,
}

impl Slice {
    fn rate(&self) -> f64 {
        per_second(self.count, self.took)
    }
}

/// Repeats `write` for a slice of time.
fn slice(latencies: &mut Histogram, mut write: impl FnMut() -> Result<()>) -> Result<Slice> {
    let start = Instant::now();
    let (mut begin, mut count) = (start, 0);
    while begin - start < SLICE {
        write()?;
        let now = Instant::now();
        latencies.record(now - begin);
        begin = now;
        count += 1;
    }
    Ok(Slice {
        count,
        took: begin - start,
    })
}

/// Threads that each wait for their own put; an engine that cannot group serialises them.
fn group<E: Engine>(context: &Context<'_>, engine: &E, threads: u64) -> Result<()> {
    let stop = AtomicBool::new(false);
    let work = |thread: u64| -> Result<u64> {
        let mut puts = RandomPuts::new(context.data, 1000 + thread);
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            puts.put(engine)?;
            count += 1;
        }
        Ok(count)
    };
    let start = Instant::now();
    let work = &work;
    let (count, took) = thread::scope(|scope| -> Result<(u64, Duration)> {
        let workers: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        thread::sleep(context.scale.durable / 4);
        stop.store(true, Ordering::Relaxed);
        let mut count = 0;
        for worker in workers {
            count += worker.join().map_err(|_| "a writing thread panicked")??;
        }
        Ok((count, start.elapsed()))
    })?;
    context.report(
        "A2",
        &format!("group_{threads}"),
        per_second(count, took),
        "ops/s",
    );
    Ok(())
}

struct RandomPuts<'d> {
    data: &'d Data,
    random: Random,
    number: u64,
    value: [u8; VALUE_BYTES],
}

impl<'d> RandomPuts<'d> {
    fn new(data: &'d Data, seed: u64) -> RandomPuts<'d> {
        let number = FIRST_EXTRA_PUT + (seed << 24);
        RandomPuts {
            data,
            random: Random::new(seed),
            number,
            value: [0; VALUE_BYTES],
        }
    }

    fn put<E: Engine>(&mut self, engine: &E) -> Result<()> {
        let id = self.random.below(self.data.key_count());
        self.number += 1;
        self.data.value(id, self.number, &mut self.value);
        engine.put_durable(&key(id), &self.value)
    }
}

/// Appends as large as a peer's record, each with its sync.
struct RawAppends {
    file: File,
    offset: u64,
}

impl RawAppends {
    fn new(path: &Path) -> Result<RawAppends> {
        let file = File::create(path)?;
        let zeroes = vec![0; 1 << 20];
        for offset in (0..RAW_FILE_BYTES).step_by(zeroes.len()) {
            file.write_all_at(&zeroes, offset)?;
        }
        file.sync_all()?;
        Ok(RawAppends { file, offset: 0 })
    }

    fn append(&mut self) -> Result<()> {
        if self.offset + RECORD_BYTES > RAW_FILE_BYTES {
            self.offset = 0;
        }
        self.file.write_all_at(&[0x5a; 598], self.offset)?;
        self.file.sync_data()?;
        self.offset += RECORD_BYTES;
        Ok(())
    }
}
