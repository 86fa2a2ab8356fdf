//! What is read off while a workload runs: latencies, and the process's own counters.
//!
//! The counters come from `/proc/self`, so a workload that states memory or written bytes runs in
//! a process of its own (see `run`). Nothing here knows engines.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::Result;

/// Buckets of one power of two; a quantile is off by less than 1.6 %.
const SUB_BUCKETS: u64 = 64;
const SUB_BUCKET_BITS: u32 = 6;
const BUCKETS: usize = 64 * 60;

/// Latencies in nanoseconds, counted in buckets that grow with the value.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram {
            counts: vec![0; BUCKETS],
            total: 0,
            max: 0,
        }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = nanos(latency);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The latency that `permille` of a thousand do not exceed, in microseconds.
    pub(crate) fn quantile_us(&self, permille: u64) -> f64 {
        let rank = (self.total * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, &count) in (0..).zip(&self.counts) {
            seen += count;
            if seen >= rank {
                return to_us(bucket_middle(index).min(self.max));
            }
        }
        self.max_us()
    }

    pub(crate) fn max_us(&self) -> f64 {
        to_us(self.max)
    }
}

fn bucket(nanos: u64) -> usize {
    let index = if nanos < 2 * SUB_BUCKETS {
        nanos
    } else {
        let shift = nanos.ilog2() - SUB_BUCKET_BITS;
        u64::from(shift) * SUB_BUCKETS + (nanos >> shift)
    };
    usize::try_from(index).expect("59 groups of 64 buckets at most")
}

fn bucket_middle(index: u64) -> u64 {
    if index < 2 * SUB_BUCKETS {
        return index;
    }
    let shift = index / SUB_BUCKETS - 1;
    let low = (index % SUB_BUCKETS + SUB_BUCKETS) << shift;
    low + (1 << shift) / 2
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn to_us(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn figure(count: u64) -> f64 {
    count as f64
}

/// `count` things in `time`, for a second.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    figure(count) / time.as_secs_f64()
}

/// The middle of `values`, of which there is at least one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// Bytes that this process caused to be sent to the disk.
///
/// The kernel counts dirtied folios, which is right for appends and too much for overwrites.
pub(crate) fn written_bytes() -> Result<u64> {
    field(&fs::read_to_string("/proc/self/io")?, "write_bytes:")
}

/// Memory of this process in KiB.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Without mapped file pages, which the kernel can take back.
    pub(crate) anonymous: u64,
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn now() -> Result<Memory> {
        let status = fs::read_to_string("/proc/self/status")?;
        Ok(Memory {
            resident: field(&status, "VmRSS:")?,
            anonymous: field(&status, "RssAnon:")?,
            peak: field(&status, "VmHWM:")?,
        })
    }
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number
        .ok_or_else(|| format!("the kernel states no {name}"))?
        .parse()?)
}

/// Sizes of the files below a path.
#[derive(Clone, Copy, Default)]
pub(crate) struct FileSizes {
    pub(crate) apparent: u64,
    pub(crate) allocated: u64,
}

impl FileSizes {
    pub(crate) fn of(path: &Path) -> Result<FileSizes> {
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.is_dir() {
            return Ok(FileSizes {
                apparent: metadata.len(),
                allocated: metadata.blocks() * 512,
            });
        }
        let mut sum = FileSizes::default();
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            // An engine's worker may remove a file between the listing and the look at it.
            let Ok(sizes) = FileSizes::of(&path) else {
                continue;
            };
            sum.apparent += sizes.apparent;
            sum.allocated += sizes.allocated;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_hold_their_middle() {
        let mut last = 0;
        for shift in 0..60 {
            for nanos in [1u64 << shift, (1 << shift) + (1 << shift) / 3] {
                let index = bucket(nanos);
                assert!(index >= last);
                last = index;
                assert_eq!(bucket(bucket_middle(index as u64)), index);
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert!((median(vec![9.0, 1.0, 5.0]) - 5.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn quantiles_of_a_known_set() {
        let mut histogram = Histogram::new();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        for (permille, expected) in [(500, 500.0), (990, 990.0), (999, 999.0)] {
            let found = histogram.quantile_us(permille);
            assert!(
                (found / expected - 1.0f64).abs() < 0.02,
                "{permille}: {found}"
            );
        }
        assert!((histogram.max_us() - 1000.0).abs() < 1e-9);
    }
}
