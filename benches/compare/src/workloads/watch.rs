//! H: watchers. No peer has any, so figures of etcd's own store, called in process on the same machine and data,
//! stand beside them as they were recorded (`ETCD`).
//!
//! | | |
//! |---|---|
//! | H0 | from the call of a put to its event, 2000 puts a second |
//! | H1 | one watcher of everything, the writer at full speed |
//! | H2 | 10,000 watchers, each of a key of its own |
//! | H3 | 1,000 watchers of one key; an event counts for each watcher that it reaches |
//! | H4 | catching up from revision 1, beside a writer of 1000 puts a second |
//! | HI | what idle watchers cost a writer at full speed, and slow receivers a fast one |
//! | HM | memory and time of a watcher that nothing happens to |
//!
//! Receivers check what they are given: revisions ascend, and at the end nothing is missing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use revtree::{Db, Durability, KeyRange, Options, Start, Update, WatchStream};

use crate::Result;
use crate::data::{Data, KEY_BYTES, VALUE_BYTES, key};
use crate::engines::{BATCH_AGE, BATCH_OPS};
use crate::measure::{Histogram, Memory, figure, per_second};
use crate::workloads::{Context, WATCHING};

/// Medians of etcd's main branch in process (c34dc7e), as recorded: workload, metric, unit, figure.
pub(crate) const ETCD: &[(&str, &str, &str, f64)] = &[
    ("H0", "latency_p50", "us", 56.6),
    ("H0", "latency_p99", "us", 314.0),
    ("H1", "events", "events/s", 2719.0),
    ("H1", "puts_watched", "ops/s", 36_502.0),
    ("H1", "writer_kept", "ratio", 0.397),
    ("H2", "events_1_stream", "events/s", 47_634.0),
    ("H2", "events_100_streams", "events/s", 70_694.0),
    ("H3", "events_1_stream", "events/s", 2_732_691.0),
    ("H3", "events_100_streams", "events/s", 3_028_853.0),
    ("H4", "events", "events/s", 500.0),
    ("H4", "put_max", "us", 1_427_000.0),
    ("HM", "own_keys", "B", 562.0),
    ("HM", "own_keys_made", "watchers/s", 555_349.0),
    ("HM", "one_key", "B", 288.0),
];

/// Every key of the data begins so.
const ALL: &str = "/registry/";

pub(super) fn run(context: &Context<'_>, is_of: impl Fn(&str) -> bool) -> Result<()> {
    let watch = Watch { context };
    let wanted = |name: &&&str| is_of(name) && context.wants(name);
    for workload in WATCHING.iter().filter(wanted) {
        match *workload {
            "H0" => watch.latency()?,
            "H1" => watch.one_of_all()?,
            "H2" => watch.own_keys()?,
            "H3" => watch.one_key()?,
            "H4" => watch.catch_up()?,
            "HI" => watch.idle()?,
            "HM" => watch.memory()?,
            other => return Err(format!("no workload {other}").into()),
        }
    }
    Ok(())
}

struct Watch<'a> {
    context: &'a Context<'a>,
}

impl Watch<'_> {
    fn data(&self) -> &Data {
        self.context.data
    }

    fn report(&self, workload: &str, metric: &str, value: f64, unit: &str) {
        self.context.report(workload, metric, value, unit);
    }

    fn store(&self, name: &str) -> Result<Db> {
        open(&self.context.fresh_dir(name)?)
    }

    /// Puts of a run at full speed.
    fn puts(&self) -> u64 {
        self.data().put_count()
    }

    fn latency(&self) -> Result<()> {
        let db = self.store("h0")?;
        let mut stream = db.watch(KeyRange::prefix(ALL), Start::Now)?;
        let base = Instant::now();
        let since = |base: &Instant| u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let receiver = thread::spawn(move || {
            let mut latencies = Histogram::new();
            for response in &mut stream {
                let now = since(&base);
                if let Update::Events(events) = response.update {
                    for event in &events {
                        let sent = event.kv.value[..8].try_into().map_or(0, u64::from_le_bytes);
                        latencies.record(Duration::from_nanos(now.saturating_sub(sent)));
                    }
                }
            }
            latencies
        });
        let pace = Duration::from_micros(500);
        let puts = self.context.scale.short.as_micros() / pace.as_micros();
        let mut value = [7; VALUE_BYTES];
        let mut due = Instant::now();
        for n in 0..u32::try_from(puts)? {
            due += pace;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            value[..8].copy_from_slice(&since(&base).to_le_bytes());
            db.put(key(n % self.data().key_count()), value)?;
        }
        db.close()?;
        let latencies = receiver.join().map_err(|_| "the receiver panicked")?;
        if latencies.total() != u64::try_from(puts)? {
            return Err(format!("{} of {puts} events", latencies.total()).into());
        }
        self.report("H0", "latency_p50", latencies.quantile_us(500), "us");
        self.report("H0", "latency_p99", latencies.quantile_us(990), "us");
        Ok(())
    }

    fn one_of_all(&self) -> Result<()> {
        let alone = self.write(&self.store("h1_alone")?, |id| id)?;
        let db = self.store("h1")?;
        let mut stream = db.watch(KeyRange::prefix(ALL), Start::Now)?;
        let (puts, last) = (self.puts(), 1 + self.puts());
        let start = Instant::now();
        let (written, read) = thread::scope(|scope| {
            let receiver =
                scope.spawn(move || receive(&mut stream, last).map(|n| (n, start.elapsed())));
            let written = self.write(&db, |id| id);
            (written, receiver.join())
        });
        let (written, (events, took)) = (written?, read.map_err(|_| "the receiver panicked")??);
        if events != puts {
            return Err(format!("{events} of {puts} events").into());
        }
        self.report("H1", "events", per_second(events, took), "events/s");
        self.report("H1", "puts_alone", alone, "ops/s");
        self.report("H1", "puts_watched", written, "ops/s");
        self.report("H1", "writer_kept", written / alone, "ratio");
        Ok(())
    }

    fn own_keys(&self) -> Result<()> {
        for streams in [1, 100] {
            let keys = 10_000.min(self.data().key_count());
            let rate = self.fan_out("h2", streams, keys, move |id| id % keys)?;
            let metric = ["events_1_stream", "events_100_streams"][usize::from(streams > 1)];
            self.report("H2", metric, rate, "events/s");
        }
        Ok(())
    }

    fn one_key(&self) -> Result<()> {
        for streams in [1, 100] {
            let rate = self.fan_out("h3", streams, 1000, |_| 0)?;
            let metric = ["events_1_stream", "events_100_streams"][usize::from(streams > 1)];
            self.report("H3", metric, rate, "events/s");
        }
        Ok(())
    }

    /// So many watchers in streams with a thread each, watcher `n` of the key that `key_of` says; puts at
    /// full speed to all keys that are watched. Events received a second.
    fn fan_out(
        &self,
        name: &str,
        streams: u32,
        watchers: u32,
        key_of: impl Fn(u32) -> u32,
    ) -> Result<f64> {
        let db = self.store(name)?;
        let mut receivers = Vec::new();
        for n in 0..streams {
            let stream = db.watch_stream()?;
            for watcher in (n..watchers).step_by(usize::try_from(streams)?) {
                stream.watch(&key(key_of(watcher))[..], Start::Now)?;
            }
            receivers.push(stream);
        }
        let received = AtomicU64::new(0);
        let one_key = key_of(0) == key_of(1);
        // Every put reaches the watchers of its key, so fewer are enough where there are many.
        let puts = self.puts() / if one_key { 10 } else { 1 };
        let expected = if one_key {
            puts * u64::from(watchers)
        } else {
            puts
        };
        let start = Instant::now();
        let took = thread::scope(|scope| -> Result<Duration> {
            for stream in &mut receivers {
                let received = &received;
                scope.spawn(move || {
                    for response in stream {
                        if let Update::Events(events) = response.update {
                            received.fetch_add(events.len() as u64, Ordering::Relaxed);
                        }
                    }
                });
            }
            for n in 0..puts {
                let id = key_of(u32::try_from(n % u64::from(watchers))?);
                db.put(key(id), [7; VALUE_BYTES])?;
            }
            // A close gives no more than a bound: wait for the last event first.
            while received.load(Ordering::Relaxed) < expected {
                if start.elapsed() > Duration::from_secs(120) {
                    break;
                }
                thread::sleep(Duration::from_micros(100));
            }
            let took = start.elapsed();
            db.clone().close()?;
            Ok(took)
        })?;
        let received = received.into_inner();
        if received != expected {
            return Err(format!("{received} of {expected} events").into());
        }
        Ok(per_second(received, took))
    }

    fn catch_up(&self) -> Result<()> {
        let db = self.store("h4")?;
        self.write(&db, |id| id)?;
        let last = db.rev().get();
        let over = AtomicBool::new(false);
        let mut stream = db.watch(KeyRange::prefix(ALL), Start::Oldest)?;
        let start = Instant::now();
        let (read, puts) = thread::scope(|scope| {
            let over = &over;
            let receiver = scope.spawn(move || {
                let read = receive(&mut stream, last).map(|events| (events, start.elapsed()));
                over.store(true, Ordering::Release);
                read
            });
            let mut latencies = Histogram::new();
            let mut written = Ok(());
            while !over.load(Ordering::Acquire) && written.is_ok() {
                let start = Instant::now();
                written = db.put(key(0), [7; VALUE_BYTES]).map(drop);
                latencies.record(start.elapsed());
                thread::sleep(Duration::from_millis(1));
            }
            (receiver.join(), written.map(|()| latencies))
        });
        let ((events, took), puts) = (read.map_err(|_| "the receiver panicked")??, puts?);
        if events < last - 1 {
            return Err(format!("{events} of {} events", last - 1).into());
        }
        self.report("H4", "events", per_second(events, took), "events/s");
        self.report("H4", "put_max", puts.max_us(), "us");
        Ok(())
    }

    fn idle(&self) -> Result<()> {
        let mut alone = 0.0;
        for (watchers, metric) in [(0, "kept_0"), (1000, "kept_1k"), (100_000, "kept_100k")] {
            let db = self.store("hi")?;
            let stream = db.watch_stream()?;
            for n in 0..watchers {
                stream.watch(format!("/idle/ns-{:04}/pod-{n:08}", n % 1000), Start::Now)?;
            }
            let rate = self.write(&db, |id| id)?;
            if watchers == 0 {
                alone = rate;
            } else {
                self.report("HI", metric, rate / alone, "ratio");
            }
        }
        let mut fast_alone = 0.0;
        for slow in [0, 64] {
            let db = self.store("hs")?;
            let streams = (0..slow).map(|_| db.watch(KeyRange::prefix(ALL), Start::Now));
            let mut slow_streams = streams.collect::<revtree::Result<Vec<WatchStream>>>()?;
            let mut fast = db.watch(KeyRange::prefix(ALL), Start::Now)?;
            let last = 1 + self.puts();
            let over = AtomicBool::new(false);
            let start = Instant::now();
            let rate = thread::scope(|scope| -> Result<f64> {
                let over = &over;
                let receiver = scope.spawn(move || {
                    receive(&mut fast, last).map(|n| per_second(n, start.elapsed()))
                });
                scope.spawn(move || {
                    // Each takes a response, of at most a thousand revisions, about once a second.
                    while !over.load(Ordering::Acquire) && !slow_streams.is_empty() {
                        for stream in &mut slow_streams {
                            thread::sleep(Duration::from_millis(16));
                            let _ = stream.try_recv();
                        }
                    }
                });
                let written = self.write(&db, |id| id);
                let rate = receiver.join().map_err(|_| "the receiver panicked")?;
                over.store(true, Ordering::Release);
                written?;
                rate
            })?;
            if slow == 0 {
                fast_alone = rate;
            } else {
                self.report("HI", "beside_64_slow", rate / fast_alone, "ratio");
            }
        }
        Ok(())
    }

    fn memory(&self) -> Result<()> {
        let watchers = 100_000;
        // Until the end: memory that is given back would be taken again unseen.
        let mut kept = Vec::new();
        for (metric, made, own) in [
            ("own_keys", Some("own_keys_made"), true),
            ("one_key", None, false),
        ] {
            let db = self.store("hm")?;
            let stream = db.watch_stream()?;
            let before = Memory::now()?.anonymous;
            let start = Instant::now();
            for n in 0..watchers {
                stream.watch(&key(if own { n } else { 0 })[..], Start::Now)?;
            }
            let took = start.elapsed();
            let grown = Memory::now()?.anonymous.saturating_sub(before) * 1024;
            self.report("HM", metric, figure(grown) / f64::from(watchers), "B");
            if let Some(made) = made {
                self.report(
                    "HM",
                    made,
                    per_second(u64::from(watchers), took),
                    "watchers/s",
                );
            }
            kept.push((db, stream));
        }
        Ok(())
    }

    /// All puts of the data at full speed, in rounds over the keys; puts a second.
    fn write(&self, db: &Db, key_of: impl Fn(u32) -> u32) -> Result<f64> {
        let mut value = [7; VALUE_BYTES];
        let start = Instant::now();
        for n in 0..self.puts() {
            let id = u32::try_from(n % u64::from(self.data().key_count()))?;
            value[..8].copy_from_slice(&n.to_le_bytes());
            db.put(key(key_of(id)), value)?;
        }
        Ok(per_second(self.puts(), start.elapsed()))
    }
}

fn open(dir: &Path) -> Result<Db> {
    let durability = Durability::Batched {
        changes: BATCH_OPS,
        interval: BATCH_AGE,
    };
    Ok(Options::new()
        .durability(durability)
        .open(dir.join("store.rvt"))?)
}

/// Receives until an event of revision `last`; how many events.
fn receive(stream: &mut WatchStream, last: u64) -> Result<u64> {
    let (mut events, mut before) = (0, 0);
    for response in stream {
        let Update::Events(batch) = response.update else {
            return Err(format!("instead of events: {:?}", response.update).into());
        };
        for event in &batch {
            let rev = event.id.main.get();
            if rev <= before || event.kv.key.len() != KEY_BYTES {
                return Err(format!("revision {rev} behind {before}").into());
            }
            before = rev;
            events += 1;
        }
        if before >= last {
            return Ok(events);
        }
    }
    Err(format!("the stream ended at revision {before}").into())
}
