//! The limits of the disk: what any engine's puts, syncs and returned space can cost at best.
//!
//! One function a question, each with plain system calls and nothing of a store. Its sibling
//! `raw_memory` asks the memory.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::Result;
use crate::engines::{BATCH_OPS, raw_memory};
use crate::measure::{Histogram, figure, per_second};
use crate::workloads::{Context, RECORD_BYTES};

/// The part of a file that durable appends go round in.
const SYNC_FILE_BYTES: u64 = 64 << 20;
const WRITE_BYTES: u64 = 256 << 10;
const PUNCH_BYTES: u64 = 64 << 20;
/// One durable append, about a record's size and a whole number of words.
const APPEND_BYTES: usize = 640;

/// Asks what the chosen workloads are compared with.
pub(crate) fn run(context: &Context<'_>) -> Result<()> {
    if context.wants("A") {
        batched_appends(context, false)?;
        batched_appends(context, true)?;
        unsynced_writes(context)?;
    }
    if context.wants("A2") {
        durable_appends(context)?;
    }
    if context.wants("F") {
        returned_space(context)?;
    }
    raw_memory::run(context)
}

/// A: records gathered to 256 KiB writes, synced at each 10,000.
fn batched_appends(context: &Context<'_>, fallocated: bool) -> Result<()> {
    let path = context.dir.join("appends");
    let file = File::create(&path)?;
    let records = context.data.put_count();
    let name = if fallocated { "fallocated" } else { "growing" };
    if fallocated {
        fallocate(&file, FallocateFlags::empty(), 0, records * RECORD_BYTES)?;
        file.sync_all()?;
    }
    let buffer = vec![0x5a; usize::try_from(WRITE_BYTES)?];
    let batch = u64::from(BATCH_OPS) * RECORD_BYTES;
    let (start, mut worst) = (Instant::now(), Duration::ZERO);
    let (mut written, mut synced) = (0, 0);
    while written < records * RECORD_BYTES {
        let end = (written + WRITE_BYTES)
            .min(synced + batch)
            .min(records * RECORD_BYTES);
        file.write_all_at(&buffer[..usize::try_from(end - written)?], written)?;
        written = end;
        if written == synced + batch || written == records * RECORD_BYTES {
            let begin = Instant::now();
            file.sync_data()?;
            worst = worst.max(begin.elapsed());
            synced = written;
        }
    }
    let took = start.elapsed();
    let rate = per_second(written, took) / 1e6;
    context.report(
        "A",
        &format!("append_{name}_puts"),
        per_second(records, took),
        "ops/s",
    );
    context.report("A", &format!("append_{name}_MBps"), rate, "MB/s");
    let worst = worst.as_secs_f64() * 1e3;
    context.report("A", &format!("append_{name}_worst_sync"), worst, "ms");
    Ok(fs::remove_file(&path)?)
}

fn unsynced_writes(context: &Context<'_>) -> Result<()> {
    let path = context.dir.join("writes");
    let file = File::create(&path)?;
    let buffer = vec![0x5a; usize::try_from(WRITE_BYTES)?];
    let bytes = context.data.put_count() * RECORD_BYTES / WRITE_BYTES * WRITE_BYTES;
    let start = Instant::now();
    for offset in (0..bytes).step_by(buffer.len()) {
        file.write_all_at(&buffer, offset)?;
    }
    let rate = per_second(bytes, start.elapsed()) / 1e6;
    context.report("A", "pwrite_256K_nosync", rate, "MB/s");
    Ok(fs::remove_file(&path)?)
}

/// A2: one write and one flush, into blocks in each state that a file can have them.
fn durable_appends(context: &Context<'_>) -> Result<()> {
    let path = context.dir.join("durable");
    let small = [0x5a; APPEND_BYTES];
    let file = File::create(&path)?;
    synced_writes(context, "sync_growing_640B", &file, &small, 1)?;

    let file = File::create(&path)?;
    fallocate(&file, FallocateFlags::empty(), 0, SYNC_FILE_BYTES)?;
    file.sync_all()?;
    synced_writes(context, "sync_fallocated_640B", &file, &small, 1)?;

    let start = Instant::now();
    let file = zeroed_file(&path)?;
    context.report(
        "A2",
        "prezero_64MiB",
        start.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    synced_writes(context, "sync_prezeroed_640B", &file, &small, 1)?;
    synced_writes(context, "sync_prezeroed_4K", &file, &[0x5a; 4096], 1)?;
    synced_writes(context, "sync_prezeroed_64K", &file, &[0x5a; 65536], 1)?;
    synced_writes(context, "two_syncs", &file, &small, 2)?;

    let open = |flags: OFlags| {
        OpenOptions::new()
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
    };
    synced_writes(
        context,
        "odsync_prezeroed_640B",
        &open(OFlags::DSYNC)?,
        &small,
        0,
    )?;
    // O_DIRECT wants aligned memory; not every file system has it.
    if let Ok(file) = open(OFlags::DSYNC | OFlags::DIRECT) {
        let page = MmapMut::map_anon(4096)?;
        synced_writes(context, "odirect_dsync_4K", &file, &page, 0)?;
    }
    Ok(fs::remove_file(&path)?)
}

fn zeroed_file(path: &Path) -> Result<File> {
    let file = File::create(path)?;
    let zeroes = vec![0; 1 << 20];
    for offset in (0..SYNC_FILE_BYTES).step_by(zeroes.len()) {
        file.write_all_at(&zeroes, offset)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Appends `bytes` round and round with `syncs` syncs each: the data's and, for two, a head's at
/// the start of the file, as engines with a separate meta page do.
fn synced_writes(
    context: &Context<'_>,
    name: &str,
    file: &File,
    bytes: &[u8],
    syncs: u32,
) -> Result<()> {
    let mut latencies = Histogram::new();
    let start = Instant::now();
    let (mut begin, mut offset) = (start, 4096);
    while begin - start < context.scale.durable / 4 {
        file.write_all_at(bytes, offset)?;
        if syncs > 0 {
            file.sync_data()?;
        }
        if syncs > 1 {
            file.write_all_at(&bytes[..120], 0)?;
            file.sync_data()?;
        }
        offset += bytes.len() as u64;
        if offset + bytes.len() as u64 > SYNC_FILE_BYTES {
            offset = 4096;
        }
        let now = Instant::now();
        latencies.record(now - begin);
        begin = now;
    }
    context.report(
        "A2",
        name,
        per_second(latencies.total(), begin - start),
        "ops/s",
    );
    context.report(
        "A2",
        &format!("{name}_p50"),
        latencies.quantile_us(500),
        "us",
    );
    context.report(
        "A2",
        &format!("{name}_p99"),
        latencies.quantile_us(990),
        "us",
    );
    Ok(())
}

/// F: holes punched and a file removed.
fn returned_space(context: &Context<'_>) -> Result<()> {
    let path = context.dir.join("space");
    let file = File::create(&path)?;
    let bytes = (context.data.put_count() * RECORD_BYTES).max(2 * PUNCH_BYTES);
    let buffer = vec![0x5a; 1 << 20];
    for offset in (0..bytes).step_by(buffer.len()) {
        file.write_all_at(&buffer, offset)?;
    }
    file.sync_all()?;
    let punch = |offset: u64, bytes: u64| -> Result<Duration> {
        let start = Instant::now();
        fallocate(
            &file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset,
            bytes,
        )?;
        Ok(start.elapsed())
    };
    context.report(
        "F",
        "punch_64MiB",
        punch(0, PUNCH_BYTES)?.as_secs_f64() * 1e3,
        "ms",
    );
    let holes = 100;
    let mut took = Duration::ZERO;
    for hole in 0..holes {
        took += punch(PUNCH_BYTES + hole * 64 * 1024, 4096)?;
    }
    context.report(
        "F",
        "punch_4K",
        took.as_secs_f64() * 1e6 / figure(holes),
        "us",
    );
    drop(file);
    let start = Instant::now();
    fs::remove_file(&path)?;
    context.report(
        "F",
        "unlink_load",
        start.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    Ok(())
}
