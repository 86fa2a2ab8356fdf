//! The feature `metrics`: etcd's names count what etcd counts, through a recorder of our own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use revtree::{DEFAULT_IGNORES, Db, KeyRange, Options};

/// Keeps the newest value of all that is registered.
#[derive(Default)]
struct Kept {
    registered: AtomicU64,
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Durations>>>,
    described: Mutex<BTreeMap<String, Option<Unit>>>,
}

/// The number of values, all of which have to be possible durations.
#[derive(Default)]
struct Durations(AtomicU64);

impl HistogramFn for Durations {
    fn record(&self, value: f64) {
        assert!(value.is_finite() && value >= 0.0, "{value}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Kept {
    fn counter(&self, name: &str) -> u64 {
        self.counters.lock().unwrap()[name].load(Ordering::Relaxed)
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.gauges.lock().unwrap()[name].load(Ordering::Relaxed))
    }

    fn recorded(&self, name: &str) -> u64 {
        self.histograms.lock().unwrap()[name]
            .0
            .load(Ordering::Relaxed)
    }

    /// Ranges, puts, deletes, transactions.
    fn calls(&self) -> [u64; 4] {
        ["range", "put", "delete", "txn"].map(|of| self.counter(&format!("etcd_mvcc_{of}_total")))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        let name = key.as_str().to_owned();
        self.described.lock().unwrap().insert(name, unit);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe_counter(key, unit, text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe_counter(key, unit, text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.registered.fetch_add(1, Ordering::Relaxed);
        let mut counters = self.counters.lock().unwrap();
        let counter = counters.entry(key.name().to_owned()).or_default();
        Counter::from_arc(Arc::clone(counter))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.registered.fetch_add(1, Ordering::Relaxed);
        let mut gauges = self.gauges.lock().unwrap();
        let gauge = gauges.entry(key.name().to_owned()).or_default();
        Gauge::from_arc(Arc::clone(gauge))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.registered.fetch_add(1, Ordering::Relaxed);
        let mut histograms = self.histograms.lock().unwrap();
        let histogram = histograms.entry(key.name().to_owned()).or_default();
        Histogram::from_arc(Arc::clone(histogram))
    }
}

/// A store that tells a recorder of its own.
fn counted(options: Options) -> (Db, Kept) {
    let kept = Kept::default();
    let db = with_local_recorder(&kept, || options.open_in_memory().unwrap());
    (db, kept)
}

#[test]
fn calls_are_counted_as_etcd_counts_them() {
    let (db, kept) = counted(Options::new());
    assert_eq!(kept.calls(), [0, 0, 0, 0]);
    // One-shot calls are no transactions.
    db.put("a", "123").unwrap();
    db.put("b", "").unwrap();
    db.delete("a").unwrap();
    db.delete("a").unwrap();
    db.get("b").unwrap();
    assert_eq!(kept.calls(), [1, 2, 2, 0]);
    assert_eq!(
        kept.gauge("etcd_debugging_mvcc_total_put_size_in_bytes"),
        5.0
    );
    // A range of keys is one delete; more than one call is a transaction.
    let mut txn = db.write().unwrap();
    for key in ["x/1", "x/2", "x/3"] {
        txn.put(key, "1").unwrap();
    }
    txn.delete_range(KeyRange::prefix("x/")).unwrap();
    txn.delete_range("nothing").unwrap();
    assert_eq!(kept.calls(), [1, 2, 2, 0], "before the commit");
    txn.commit().unwrap();
    assert_eq!(kept.calls(), [1, 5, 4, 1]);
    // Views count each get, each range that is read, each count.
    let view = db.read().unwrap();
    view.get("b").unwrap();
    view.range(..).iter().next();
    view.range(..).count().unwrap();
    view.range(..).limit(1).collect().unwrap();
    view.into_range(..).next();
    assert_eq!(kept.calls(), [6, 5, 4, 1]);
    // The reads of a transaction count too, also when it is given up.
    let txn = db.write().unwrap();
    txn.get("b").unwrap();
    txn.range(..).count().unwrap();
    txn.abort();
    assert_eq!(kept.calls(), [8, 5, 4, 1]);
}

#[test]
fn what_is_given_up_is_not_counted() {
    let (db, kept) = counted(Options::new());
    let mut txn = db.write().unwrap();
    txn.put("a", "1").unwrap();
    txn.abort();
    let mut txn = db.write().unwrap();
    txn.put("a", "1").unwrap();
    let savepoint = txn.savepoint();
    txn.put("b", "22").unwrap();
    txn.delete("a").unwrap();
    txn.roll_back_to(savepoint).unwrap();
    txn.put(vec![0; 1 << 17], "too long").unwrap_err();
    txn.commit().unwrap();
    assert_eq!(kept.calls(), [0, 1, 0, 0]);
    assert_eq!(
        kept.gauge("etcd_debugging_mvcc_total_put_size_in_bytes"),
        2.0
    );
}

#[test]
fn gauges_follow_the_store() {
    let (db, kept) = counted(Options::new().store_bytes_max(1 << 30));
    assert_eq!(kept.gauge("etcd_server_quota_backend_bytes"), 1073741824.0);
    let gauges = || {
        ["current_revision", "compact_revision", "keys_total"]
            .map(|of| kept.gauge(&format!("etcd_debugging_mvcc_{of}")))
    };
    assert_eq!(gauges(), [1.0, -1.0, 0.0]);
    db.put("a", "1").unwrap();
    db.put("b", "1").unwrap();
    db.delete("a").unwrap();
    assert_eq!(gauges(), [4.0, -1.0, 1.0]);
    db.compact(3).unwrap();
    assert_eq!(gauges(), [4.0, 3.0, 1.0]);
    let views = || kept.gauge("etcd_mvcc_db_open_read_transactions");
    assert_eq!(views(), 0.0);
    let (one, two) = (db.read().unwrap(), db.read_at(3).unwrap());
    assert_eq!(views(), 2.0);
    drop(one);
    assert_eq!(views(), db.stats().open_views as f64);
    drop(two);
    assert_eq!(views(), 0.0);
    let stats = db.stats();
    let size = kept.gauge("etcd_mvcc_db_total_size_in_bytes");
    let in_use = kept.gauge("etcd_mvcc_db_total_size_in_use_in_bytes");
    assert_eq!(size, stats.file_bytes as f64);
    assert_eq!(size - in_use, stats.free_bytes as f64);
}

#[test]
fn times_are_recorded_once_for_each_call() {
    let (db, kept) = counted(Options::new());
    db.put("a", "1").unwrap();
    db.put("a", "2").unwrap();
    let commits = "etcd_disk_backend_commit_duration_seconds";
    assert_eq!(kept.recorded(commits), db.stats().syncs);
    db.hash(DEFAULT_IGNORES).unwrap();
    db.hash_by_rev(0).unwrap();
    db.hash_by_rev(2).unwrap();
    db.hash_by_rev(9).unwrap_err();
    let snapshot = db.snapshot().unwrap();
    snapshot.write_to(&mut Vec::new()).unwrap();
    db.compact(2).unwrap();
    db.compact(2).unwrap_err();
    for (name, times) in [
        ("etcd_mvcc_hash_duration_seconds", 1),
        ("etcd_mvcc_hash_rev_duration_seconds", 2),
        ("etcd_disk_backend_snapshot_duration_seconds", 1),
        (
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            1,
        ),
    ] {
        assert_eq!(kept.recorded(name), times, "{name}");
    }
}

#[test]
fn an_open_store_asks_the_recorder_for_nothing_more() {
    let (db, kept) = counted(Options::new());
    let registered = kept.registered.load(Ordering::Relaxed);
    with_local_recorder(&kept, || {
        db.put("a", "1").unwrap();
        db.get("a").unwrap();
        db.read().unwrap().get("a").unwrap();
        db.compact(2).unwrap();
    });
    assert_eq!(kept.registered.load(Ordering::Relaxed), registered);
    // Other threads count through the same handles.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| db.get("a").unwrap());
        }
    });
    assert_eq!(kept.counter("etcd_mvcc_range_total"), 4);
}

/// The list in the head of `src/metrics.rs` is what is there, each described.
#[test]
fn the_list_is_complete() {
    let (_db, kept) = counted(Options::new());
    let mut names: Vec<String> = Vec::new();
    names.extend(kept.counters.lock().unwrap().keys().cloned());
    names.extend(kept.gauges.lock().unwrap().keys().cloned());
    names.extend(kept.histograms.lock().unwrap().keys().cloned());
    names.sort();
    let page = include_str!("../../src/metrics.rs");
    let mut listed: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .filter_map(|line| line.split('`').next())
        .map(str::to_owned)
        .collect();
    listed.sort();
    assert_eq!(names, listed);
    let described: Vec<String> = kept.described.lock().unwrap().keys().cloned().collect();
    assert_eq!(described, listed);
}

/// Streams and watchers as they come and go, events as they are given and reported.
#[test]
fn watchers_are_counted() {
    use revtree::{Start, Update};
    let (db, kept) = counted(Options::new());
    with_local_recorder(&kept, || {
        let gauges = || {
            let names = ["watch_stream", "watcher", "slow_watcher", "pending_events"];
            names.map(|of| kept.gauge(&format!("etcd_debugging_mvcc_{of}_total")))
        };
        db.put("a", "1").unwrap();
        let mut stream = db.watch_stream().unwrap();
        let id = stream.watch("a", Start::Now).unwrap();
        stream.watch("a", Start::Oldest).unwrap();
        assert_eq!(gauges(), [1.0, 2.0, 1.0, 0.0]);
        let Update::Events(events) = stream.recv().unwrap().update else {
            panic!("there is an event to catch up with");
        };
        assert!(stream.try_recv().unwrap().is_none());
        assert_eq!(gauges(), [1.0, 2.0, 0.0, 1.0]);
        db.report_events_received(events.len() as u64);
        assert_eq!(kept.counter("etcd_debugging_mvcc_events_total"), 1);
        stream.cancel(id).unwrap();
        assert_eq!(gauges(), [1.0, 1.0, 0.0, 0.0]);
        drop(stream);
        assert_eq!(gauges(), [0.0; 4]);
    });
}
