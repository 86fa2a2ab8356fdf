//! F1 and F2: what the cleaner behind a compaction costs a writer at full speed, and what it costs where ten times the
//! keys are live. Of revtree alone: peers have no garbage that is cleaned in the background.
//!
//! | | |
//! |---|---|
//! | F1 | puts a second while four of five revisions are cleaned away, and before and behind it |
//! | F2 | the same garbage, of the same keys, in a store with ten times the keys |

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use revtree::{Db, Durability, Options, Outcome};

use crate::Result;
use crate::data::{Random, VALUE_BYTES, key};
use crate::engines::{BATCH_AGE, BATCH_OPS};
use crate::measure::{figure, per_second};
use crate::workloads::Context;

pub(super) fn run(context: &Context<'_>) -> Result<()> {
    if context.wants("F1") {
        beside_a_writer(context)?;
    }
    if context.wants("F2") {
        with_more_keys(context)?;
    }
    Ok(())
}

fn open(dir: &Path) -> Result<Db> {
    let durability = Durability::Batched {
        changes: BATCH_OPS,
        interval: BATCH_AGE,
    };
    let options = Options::new().durability(durability);
    Ok(options.open(dir.join("store.rvt"))?)
}

/// Puts of random keys for as long as is wanted; how many a second.
fn write(db: &Db, keys: u32, seed: u64, goes_on: impl Fn(u64) -> bool) -> Result<f64> {
    let mut random = Random::new(seed);
    let mut value = [7; VALUE_BYTES];
    let start = Instant::now();
    let mut count = 0;
    while goes_on(count) {
        value[..8].copy_from_slice(&count.to_le_bytes());
        db.put(key(random.below(keys)), value)?;
        count += 1;
    }
    Ok(per_second(count, start.elapsed()))
}

fn beside_a_writer(context: &Context<'_>) -> Result<()> {
    let db = open(&context.fresh_dir("clean")?)?;
    let (keys, puts) = (context.data.key_count(), context.data.put_count());
    write(&db, keys, 1, |count| count < puts)?;
    let for_a_while = |time: Duration| {
        let end = Instant::now() + time;
        move |_| Instant::now() < end
    };
    let before = write(&db, keys, 2, for_a_while(context.scale.short))?;
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    let (during, took) = thread::scope(|scope| {
        let compaction = scope.spawn(|| -> Result<Duration> {
            let outcome = db.compact(db.rev()).map(|compaction| compaction.wait());
            let took = start.elapsed();
            is_over.store(true, Ordering::Release);
            match outcome? {
                Outcome::Done => Ok(took),
                other => Err(format!("the compaction was {other:?}").into()),
            }
        });
        let during = write(&db, keys, 3, |_| !is_over.load(Ordering::Acquire));
        let took = compaction.join();
        (during, took.map_err(|_| "the compacting thread panicked"))
    });
    let (during, took) = (during?, took??);
    let after = write(&db, keys, 4, for_a_while(context.scale.short))?;
    let stats = db.stats();
    let kept = during / (before / 2.0 + after / 2.0);
    context.report("F1", "puts_before", before, "ops/s");
    context.report("F1", "puts_during", during, "ops/s");
    context.report("F1", "puts_after", after, "ops/s");
    context.report("F1", "writer_kept", kept, "ratio");
    context.report("F1", "background", took.as_secs_f64(), "s");
    context.report("F1", "delayed", figure(stats.delayed_commits), "ops");
    db.close()?;
    Ok(())
}

fn with_more_keys(context: &Context<'_>) -> Result<()> {
    let few = context.data.key_count() / 10;
    let mut waits = Vec::new();
    for (name, keys) in [("few_keys", few), ("ten_times", 10 * few)] {
        let db = open(&context.fresh_dir(name)?)?;
        for id in 0..keys {
            db.put(key(id), [7; VALUE_BYTES])?;
        }
        // Of the same keys in both.
        let puts = u64::from(few) * 10;
        write(&db, few, 5, |count| count < puts)?;
        let start = Instant::now();
        let compaction = db.compact(db.rev())?;
        let call = start.elapsed();
        if compaction.wait() != Outcome::Done {
            return Err("the compaction was not done".into());
        }
        let wait = start.elapsed().as_secs_f64();
        let report = |metric: &str, value: f64, unit: &str| {
            context.report("F2", &format!("{name}_{metric}"), value, unit);
        };
        let stats = db.stats();
        report("call", call.as_secs_f64() * 1e3, "ms");
        report("background", wait, "s");
        report("copied", figure(stats.copied_bytes) / 1e6, "MB");
        report("cleaned", figure(stats.cleaned_bytes) / 1e6, "MB");
        waits.push(wait);
        db.close()?;
    }
    context.report("F2", "ten_times_over_few", waits[1] / waits[0], "ratio");
    Ok(())
}
