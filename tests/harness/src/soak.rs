//! A long life under churn: keys overwritten at random, compactions now and then, and the cleaner's thread beside
//! (SPEC.md, K-12).
//!
//! What is live stays the same, so the file and the memory must. Its length before each
//! compaction is noted, and the largest held against the bound; at the end the store is checked, and each key has the value that it was given last.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use revtree::{CheckReport, Db, Durability, Options};

use crate::random::Random;

/// Keys that are overwritten.
const KEYS: u64 = 200_000;
/// Revisions between two compactions.
const COMPACTED_EVERY: u64 = 100_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 512;
/// What the file may have beyond a multiple of what is live: the reserve of K-12, at segments of 4 MiB.
const RESERVE_BYTES: u64 = 22 * (4 << 20);

/// What a life was like.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Summary {
    /// Puts.
    pub puts: u64,
    /// The file at its largest: the larger of its length and its blocks.
    pub file_bytes: u64,
    /// What was live at the end.
    pub live_bytes: u64,
    /// By how many percent the memory that is not the file's grew behind the first tenth.
    pub growth_percent: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            puts,
            file_bytes,
            live_bytes,
            growth_percent,
        } = self;
        let ratio = *file_bytes as f64 / (*live_bytes).max(1) as f64;
        write!(
            f,
            "soak: {puts} puts, file {file_bytes} bytes, live {live_bytes} bytes, ratio {ratio:.2}, \
             rss growth {growth_percent:.1} %"
        )
    }
}

/// Lives through so many puts, in a file of this folder.
///
/// # Errors
/// What was wrong.
pub fn soak(folder: &Path, puts: u64, seed: u64) -> Result<Summary, String> {
    let path = folder.join("store");
    let failed = |error: revtree::Error| error.to_string();
    let durability = Durability::Batched {
        changes: 10_000,
        interval: Duration::from_millis(100),
    };
    let db = Options::new()
        .durability(durability)
        .open(&path)
        .map_err(failed)?;
    let mut random = Random::new(seed);
    let mut newest = vec![0u64; usize::try_from(KEYS).expect("a few")];
    let (mut file_bytes, mut before) = (0, None);
    for n in 1..=puts {
        // First each key once.
        let key = if n <= KEYS { n - 1 } else { random.below(KEYS) };
        db.put(key_of(key), value_of(n)).map_err(failed)?;
        newest[usize::try_from(key).expect("a few")] = n;
        if !n.is_multiple_of(COMPACTED_EVERY) {
            continue;
        }
        file_bytes = file_bytes.max(size(&path)?);
        db.compact(db.rev()).map_err(failed)?;
        if before.is_none() && n >= (puts / 10).max(2 * KEYS) {
            before = Some(memory()?);
        }
    }
    let after = memory()?;
    file_bytes = file_bytes.max(size(&path)?);
    let live_bytes = db.stats().live_bytes;
    check(&db, &newest)?;
    db.close().map_err(failed)?;
    let db = Db::open(&path).map_err(failed)?;
    check(&db, &newest)?;
    let before = before.unwrap_or(after);
    Ok(Summary {
        puts,
        file_bytes,
        live_bytes,
        growth_percent: (after as f64 - before as f64) * 100.0 / before as f64,
    })
}

/// Whether the file kept within its bound, and the memory within its.
///
/// # Errors
/// Which did not.
pub fn judge(summary: &Summary) -> Result<(), String> {
    // What was written since the last compaction is live until the next.
    let history = COMPACTED_EVERY * (VALUE_BYTES as u64 + 128);
    let bound = (summary.live_bytes + history) * 3 / 2 + RESERVE_BYTES;
    if summary.file_bytes > bound {
        return Err(format!(
            "the file had {} bytes, more than {bound}",
            summary.file_bytes
        ));
    }
    if summary.growth_percent > GROWTH_PERCENT_MAX {
        return Err(format!("memory grew by {:.1} %", summary.growth_percent));
    }
    Ok(())
}

/// What the system keeps for a process varies by a few percent.
const GROWTH_PERCENT_MAX: f64 = 10.0;

fn key_of(key: u64) -> String {
    format!("/registry/configmaps/soak/{key:09}")
}

/// A value that says which put wrote it.
fn value_of(n: u64) -> Vec<u8> {
    let mut value = vec![n.to_le_bytes()[0]; VALUE_BYTES];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value
}

fn check(db: &Db, newest: &[u64]) -> Result<(), String> {
    let report: CheckReport = db.check().map_err(|error| error.to_string())?;
    if !report.is_clean() {
        return Err(format!("damage: {:?}", report.damage));
    }
    for (key, n) in (0..).zip(newest) {
        let found = db.get(key_of(key)).map_err(|error| error.to_string())?;
        let expected = (*n > 0).then(|| value_of(*n));
        if found.map(|kv| kv.value.to_vec()) != expected {
            return Err(format!("key {key} has not the value of put {n}"));
        }
    }
    Ok(())
}

fn size(path: &Path) -> Result<u64, String> {
    let data = std::fs::metadata(path).map_err(|error| error.to_string())?;
    Ok(data.len().max(data.blocks() * 512))
}

/// Memory of this process that is no file's, in bytes.
fn memory() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib << 10)
        .ok_or_else(|| "/proc/self/status has no RssAnon".into())
}
