//! The limits of the memory: misses, copies, checksums, and what reaching a file's pages costs.
#![expect(unsafe_code, reason = "a file's pages are timed through a map of it")]

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use memmap2::{Advice, Mmap, MmapMut};

use crate::Result;
use crate::data::Random;
use crate::measure::{figure, per_second};
use crate::workloads::Context;

/// Far beyond any cache.
const BYTES: usize = 512 << 20;
const COPY_BYTES: usize = 256 << 20;
const RECORD: usize = 600;
const PAGE: usize = 4096;
const PROBES: u64 = 1_000_000;

/// Asks what B and E are compared with.
pub(crate) fn run(context: &Context<'_>) -> Result<()> {
    if !context.wants("B") && !context.wants("E") {
        return Ok(());
    }
    let memory = filled(MmapMut::map_anon(BYTES)?);
    if context.wants("E") {
        copies(context, &memory);
        checksums(context, &memory)?;
    }
    if context.wants("B") {
        context.report("B", "random_600B_copy", copy_nanos(&memory), "ns");
        context.report("B", "random_miss", miss_nanos(&memory), "ns");
        let huge = MmapMut::map_anon(BYTES)?;
        huge.advise(Advice::HugePage)?;
        context.report(
            "B",
            "random_miss_hugepages",
            miss_nanos(&filled(huge)),
            "ns",
        );
        file_pages(context, &memory)?;
    }
    Ok(())
}

fn filled(mut memory: MmapMut) -> MmapMut {
    let mut random = Random::new(1);
    for word in memory.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    memory
}

fn megabytes_per_second(bytes: usize, took: Duration) -> f64 {
    per_second(bytes as u64, took) / 1e6
}

fn copies(context: &Context<'_>, memory: &[u8]) {
    let mut copy = vec![1; COPY_BYTES];
    let start = Instant::now();
    copy.copy_from_slice(&memory[..COPY_BYTES]);
    black_box(&copy);
    let rate = megabytes_per_second(COPY_BYTES, start.elapsed());
    context.report("E", "memcpy_256MiB", rate, "MB/s");
}

fn checksums(context: &Context<'_>, memory: &[u8]) -> Result<()> {
    let start = Instant::now();
    black_box(crc32fast::hash(memory));
    let rate = megabytes_per_second(BYTES, start.elapsed());
    context.report("E", "crc32fast_bulk_1t", rate, "MB/s");

    let start = Instant::now();
    thread::scope(|scope| {
        for half in memory.chunks(BYTES / 2) {
            scope.spawn(|| black_box(crc32fast::hash(half)));
        }
    });
    let rate = megabytes_per_second(BYTES, start.elapsed());
    context.report("E", "crc32fast_bulk_2t", rate, "MB/s");

    for (name, hash) in [
        (
            "crc32fast_600B_records",
            crc32fast::hash as fn(&[u8]) -> u32,
        ),
        ("crc32c_600B_records", crc32c::crc32c),
    ] {
        let start = Instant::now();
        for record in memory.chunks_exact(RECORD) {
            black_box(hash(record));
        }
        let rate = megabytes_per_second(BYTES, start.elapsed());
        context.report("E", name, rate, "MB/s");
    }
    Ok(())
}

/// A place for a record somewhere in `BYTES`.
fn place(random: &mut Random) -> usize {
    let records = u32::try_from(BYTES / RECORD).expect("fewer than 2^32");
    random.below(records) as usize * RECORD
}

fn nanos_each(took: Duration, count: u64) -> f64 {
    took.as_secs_f64() * 1e9 / figure(count)
}

fn copy_nanos(memory: &[u8]) -> f64 {
    let mut random = Random::new(2);
    let mut record = [0; RECORD];
    let start = Instant::now();
    for _ in 0..PROBES {
        let at = place(&mut random);
        record.copy_from_slice(&memory[at..at + RECORD]);
        black_box(&record);
    }
    nanos_each(start.elapsed(), PROBES)
}

/// Loads that depend on each other, so that none can begin before the last has ended.
fn miss_nanos(memory: &[u8]) -> f64 {
    let mut random = Random::new(3);
    let mut last = 0;
    let start = Instant::now();
    for _ in 0..PROBES {
        let at = (place(&mut random) + usize::from(last & 1) * 64) % (BYTES - 64);
        last = black_box(memory[at]);
    }
    nanos_each(start.elapsed(), PROBES)
}

/// Records of a file in the page cache: by faults, populated, by positioned reads.
fn file_pages(context: &Context<'_>, memory: &[u8]) -> Result<()> {
    let path = context.dir.join("pages");
    fs::write(&path, memory)?;
    let file = File::open(&path)?;
    let pages = (BYTES / PAGE) as u64;

    // SAFETY: this process made the file in its own directory and changes it no more.
    let map = unsafe { Mmap::map(&file) }?;
    let start = Instant::now();
    for page in map.chunks_exact(PAGE) {
        black_box(page[0]);
    }
    context.report(
        "B",
        "mmap_fault_seq_per4K",
        nanos_each(start.elapsed(), pages),
        "ns",
    );
    context.report("B", "mmap_600B_copy", copy_nanos(&map), "ns");

    // SAFETY: as above.
    let map = unsafe { Mmap::map(&file) }?;
    let start = Instant::now();
    if map.advise(Advice::PopulateRead).is_ok() {
        context.report(
            "B",
            "populate_read_per4K",
            nanos_each(start.elapsed(), pages),
            "ns",
        );
    }

    let mut random = Random::new(4);
    let mut record = [0; RECORD];
    let start = Instant::now();
    for _ in 0..PROBES / 4 {
        file.read_exact_at(&mut record, place(&mut random) as u64)?;
        black_box(&record);
    }
    context.report(
        "B",
        "pread_600B_cached",
        nanos_each(start.elapsed(), PROBES / 4),
        "ns",
    );
    Ok(fs::remove_file(&path)?)
}
