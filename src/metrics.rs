//! The feature `metrics`: what etcd's `mvcc` and `backend` packages count, under etcd's names, through the
//! facade crate `metrics`. Without the feature all of this is empty, and no clock is read for it.
//!
//! Apart so that the layers say what happened (`read`, `committed`, `synced`) and only this page knows
//! names. It must not know what the layers are: it is given numbers.
//!
//! A store asks the recorder for its handles once, when it is opened or restored: a get then costs one
//! call through a handle and allocates nothing. So the recorder has to be installed before the store is
//! opened. Stores of one process share the names: counters add up, and a gauge shows the store that
//! wrote it last.
//!
//! | name | kind | what |
//! |---|---|---|
//! | `etcd_mvcc_range_total` | counter | gets, and ranges read or counted, of views and of transactions |
//! | `etcd_mvcc_put_total` | counter | puts of committed transactions |
//! | `etcd_mvcc_delete_total` | counter | deletes of committed transactions, a range of keys as one |
//! | `etcd_mvcc_txn_total` | counter | committed transactions with more than one put or delete |
//! | `etcd_debugging_mvcc_total_put_size_in_bytes` | gauge | keys and values of these puts |
//! | `etcd_debugging_mvcc_keys_total` | gauge | keys that exist |
//! | `etcd_debugging_mvcc_current_revision` | gauge | the revision that readers see |
//! | `etcd_debugging_mvcc_compact_revision` | gauge | the compact revision; −1 before any |
//! | `etcd_mvcc_db_open_read_transactions` | gauge | views, transactions and iterators that pin a revision |
//! | `etcd_mvcc_db_total_size_in_bytes` | gauge | length of the file |
//! | `etcd_mvcc_db_total_size_in_use_in_bytes` | gauge | the same without free segments |
//! | `etcd_server_quota_backend_bytes` | gauge | how large the file may become |
//! | `etcd_debugging_mvcc_watch_stream_total` | gauge | streams of watchers |
//! | `etcd_debugging_mvcc_watcher_total` | gauge | watchers |
//! | `etcd_debugging_mvcc_slow_watcher_total` | gauge | watchers that still catch up with the past |
//! | `etcd_debugging_mvcc_pending_events_total` | gauge | events given and not reported as received |
//! | `etcd_debugging_mvcc_events_total` | counter | events reported as received |
//! | `etcd_disk_backend_commit_duration_seconds` | histogram | writing and syncing one group of commits |
//! | `etcd_disk_backend_snapshot_duration_seconds` | histogram | writing or saving a snapshot |
//! | `etcd_mvcc_hash_duration_seconds` | histogram | `Db::hash` |
//! | `etcd_mvcc_hash_rev_duration_seconds` | histogram | `Db::hash_by_rev` |
//! | `etcd_debugging_mvcc_db_compaction_total_duration_milliseconds` | histogram | `Db::compact` |
//!
//! Where it differs from etcd: reads do not make a transaction count for `txn_total`; what was rolled
//! back to a savepoint is not counted. The sizes are written at an open, after each sync and checkpoint.
//! A watcher is a cursor, so one that falls behind after it was in step is not counted as slow, as a full channel
//! is in etcd; `Stats::slow_watchers` counts these too.
//! Not there, because there is nothing to count: etcd's names for the pauses and keys of a compaction in the
//! background, for defragmentation, for bbolt's rebalance and spill; and `db_compaction_last`, since the engine
//! knows no dates.

#[cfg(not(feature = "metrics"))]
pub(crate) use off::{Calls, Metrics, OpenViews, WatchMetrics};
#[cfg(feature = "metrics")]
pub(crate) use on::{Calls, Metrics, OpenViews, WatchMetrics};

#[cfg(feature = "metrics")]
mod on {
    use std::fmt;

    use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
    use revtree_format::Revision;

    use crate::sys::Stopwatch;

    /// The handles of one open store.
    pub(crate) struct Metrics {
        ranges: Counter,
        puts: Counter,
        deletes: Counter,
        txns: Counter,
        put_bytes: Gauge,
        keys: Gauge,
        revision: Gauge,
        compact: Gauge,
        views: Gauge,
        size: Gauge,
        size_in_use: Gauge,
        commit: Histogram,
        snapshot: Histogram,
        hash: Histogram,
        hash_rev: Histogram,
        compaction: Histogram,
    }

    /// What a transaction was asked to write.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(crate) struct Calls {
        puts: u64,
        put_bytes: u64,
        deletes: u64,
    }

    /// The number of pinned revisions, for who pins them.
    #[derive(Clone, Debug)]
    pub(crate) struct OpenViews(Gauge);

    /// What watchers change, for all contents of a handle.
    pub(crate) struct WatchMetrics {
        streams: Gauge,
        watchers: Gauge,
        slow: Gauge,
        pending: Gauge,
        events: Counter,
    }

    impl WatchMetrics {
        pub(crate) fn new() -> WatchMetrics {
            WatchMetrics {
                streams: gauge!("etcd_debugging_mvcc_watch_stream_total"),
                watchers: gauge!("etcd_debugging_mvcc_watcher_total"),
                slow: gauge!("etcd_debugging_mvcc_slow_watcher_total"),
                pending: gauge!("etcd_debugging_mvcc_pending_events_total"),
                events: counter!("etcd_debugging_mvcc_events_total"),
            }
        }

        /// There are so many streams.
        pub(crate) fn streams(&self, streams: u64) {
            self.streams.set(streams as f64);
        }

        /// There are so many watchers.
        pub(crate) fn watchers(&self, watchers: u64) {
            self.watchers.set(watchers as f64);
        }

        /// So many watchers catch up.
        pub(crate) fn slow(&self, watchers: u64) {
            self.slow.set(watchers as f64);
        }

        /// So many events have been given and not reported.
        pub(crate) fn pending(&self, events: u64) {
            self.pending.set(events as f64);
        }

        /// So many more events have been reported.
        pub(crate) fn received(&self, events: u64) {
            self.events.increment(events);
        }
    }

    impl fmt::Debug for WatchMetrics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("WatchMetrics").finish_non_exhaustive()
        }
    }

    impl Metrics {
        /// Asks the recorder for the handles; without one they do nothing.
        pub(crate) fn of_store(store_bytes_max: u64) -> Metrics {
            describe();
            gauge!("etcd_server_quota_backend_bytes").set(store_bytes_max as f64);
            let metrics = Metrics {
                ranges: counter!("etcd_mvcc_range_total"),
                puts: counter!("etcd_mvcc_put_total"),
                deletes: counter!("etcd_mvcc_delete_total"),
                txns: counter!("etcd_mvcc_txn_total"),
                put_bytes: gauge!("etcd_debugging_mvcc_total_put_size_in_bytes"),
                keys: gauge!("etcd_debugging_mvcc_keys_total"),
                revision: gauge!("etcd_debugging_mvcc_current_revision"),
                compact: gauge!("etcd_debugging_mvcc_compact_revision"),
                views: gauge!("etcd_mvcc_db_open_read_transactions"),
                size: gauge!("etcd_mvcc_db_total_size_in_bytes"),
                size_in_use: gauge!("etcd_mvcc_db_total_size_in_use_in_bytes"),
                commit: histogram!("etcd_disk_backend_commit_duration_seconds"),
                snapshot: histogram!("etcd_disk_backend_snapshot_duration_seconds"),
                hash: histogram!("etcd_mvcc_hash_duration_seconds"),
                hash_rev: histogram!("etcd_mvcc_hash_rev_duration_seconds"),
                compaction: histogram!(
                    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds"
                ),
            };
            metrics.compact.set(-1);
            metrics
        }

        /// A get, or a range that is read or counted.
        pub(crate) fn read(&self) {
            self.ranges.increment(1);
        }

        /// A commit of what was asked for, after which so many keys exist.
        pub(crate) fn committed(&self, calls: &Calls, keys: impl FnOnce() -> u64) {
            self.puts.increment(calls.puts);
            self.deletes.increment(calls.deletes);
            if calls.puts + calls.deletes > 1 {
                self.txns.increment(1);
            }
            self.put_bytes.increment(calls.put_bytes as f64);
            self.keys(keys);
        }

        /// So many keys exist.
        pub(crate) fn keys(&self, keys: impl FnOnce() -> u64) {
            self.keys.set(keys() as f64);
        }

        /// What readers see from now on.
        pub(crate) fn published(&self, rev: Revision, compact: Option<Revision>) {
            self.revision.set(rev.get() as f64);
            if let Some(compact) = compact {
                self.compact.set(compact.get() as f64);
            }
        }

        /// The file has this length, with so much of it in free segments.
        pub(crate) fn space(&self, file_bytes: u64, free_bytes: u64) {
            self.size.set(file_bytes as f64);
            self.size_in_use
                .set(file_bytes.saturating_sub(free_bytes) as f64);
        }

        /// A group has been written and synced.
        pub(crate) fn synced(&self, time: &Stopwatch) {
            self.commit.record(time.elapsed());
        }

        /// A snapshot has been written.
        pub(crate) fn snapshot(&self, time: &Stopwatch) {
            self.snapshot.record(time.elapsed());
        }

        /// The whole store has been hashed.
        pub(crate) fn hash(&self, time: &Stopwatch) {
            self.hash.record(time.elapsed());
        }

        /// HashKV has been computed.
        pub(crate) fn hash_by_rev(&self, time: &Stopwatch) {
            self.hash_rev.record(time.elapsed());
        }

        /// A compaction is durable.
        pub(crate) fn compacted(&self, time: &Stopwatch) {
            self.compaction.record(time.elapsed().as_secs_f64() * 1e3);
        }

        /// For who pins revisions.
        pub(crate) fn open_views(&self) -> OpenViews {
            OpenViews(self.views.clone())
        }
    }

    impl Calls {
        pub(crate) fn new() -> Calls {
            Calls::default()
        }

        pub(crate) fn put(&mut self, bytes: usize) {
            self.puts += 1;
            self.put_bytes += bytes as u64;
        }

        pub(crate) fn delete(&mut self) {
            self.deletes += 1;
        }
    }

    impl OpenViews {
        pub(crate) fn opened(&self) {
            self.0.increment(1);
        }

        pub(crate) fn closed(&self) {
            self.0.decrement(1);
        }
    }

    impl fmt::Debug for Metrics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Metrics").finish_non_exhaustive()
        }
    }

    /// Tells the recorder units and meanings, as etcd words them where both mean the same.
    fn describe() {
        use metrics::{describe_counter, describe_gauge, describe_histogram};
        describe_counter!("etcd_mvcc_range_total", "Total number of ranges seen.");
        describe_counter!("etcd_mvcc_put_total", "Total number of puts seen.");
        describe_counter!("etcd_mvcc_delete_total", "Total number of deletes seen.");
        describe_counter!("etcd_mvcc_txn_total", "Total number of txns seen.");
        describe_counter!(
            "etcd_debugging_mvcc_events_total",
            "Total number of events received."
        );
        for (name, unit, text) in [
            (
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                Unit::Bytes,
                "Total size of the keys and values put.",
            ),
            (
                "etcd_debugging_mvcc_keys_total",
                Unit::Count,
                "Number of keys.",
            ),
            (
                "etcd_debugging_mvcc_current_revision",
                Unit::Count,
                "Current revision.",
            ),
            (
                "etcd_debugging_mvcc_compact_revision",
                Unit::Count,
                "Revision of the last compaction.",
            ),
            (
                "etcd_debugging_mvcc_watch_stream_total",
                Unit::Count,
                "Number of watch streams.",
            ),
            (
                "etcd_debugging_mvcc_watcher_total",
                Unit::Count,
                "Number of watchers.",
            ),
            (
                "etcd_debugging_mvcc_slow_watcher_total",
                Unit::Count,
                "Number of watchers that catch up with the past.",
            ),
            (
                "etcd_debugging_mvcc_pending_events_total",
                Unit::Count,
                "Number of events given and not reported as received.",
            ),
            (
                "etcd_mvcc_db_open_read_transactions",
                Unit::Count,
                "Number of views, transactions and iterators that pin a revision.",
            ),
            (
                "etcd_mvcc_db_total_size_in_bytes",
                Unit::Bytes,
                "Length of the store's file.",
            ),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                Unit::Bytes,
                "Length of the store's file without its free segments.",
            ),
            (
                "etcd_server_quota_backend_bytes",
                Unit::Bytes,
                "How large the store's file may become.",
            ),
        ] {
            describe_gauge!(name, unit, text);
        }
        for (name, unit, text) in [
            (
                "etcd_disk_backend_commit_duration_seconds",
                Unit::Seconds,
                "Time to write and sync one group of commits.",
            ),
            (
                "etcd_disk_backend_snapshot_duration_seconds",
                Unit::Seconds,
                "Time to write a snapshot.",
            ),
            (
                "etcd_mvcc_hash_duration_seconds",
                Unit::Seconds,
                "Time to hash the whole store.",
            ),
            (
                "etcd_mvcc_hash_rev_duration_seconds",
                Unit::Seconds,
                "Time to hash the keys at a revision.",
            ),
            (
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                Unit::Milliseconds,
                "Time of a compaction.",
            ),
        ] {
            describe_histogram!(name, unit, text);
        }
    }
}

/// The same names, which do nothing and take no space.
#[cfg(not(feature = "metrics"))]
mod off {
    use revtree_format::Revision;

    use crate::sys::Stopwatch;

    #[derive(Debug)]
    pub(crate) struct Metrics;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Calls;

    #[derive(Clone, Debug)]
    pub(crate) struct OpenViews;

    #[derive(Debug)]
    pub(crate) struct WatchMetrics;

    impl WatchMetrics {
        pub(crate) fn new() -> WatchMetrics {
            WatchMetrics
        }

        pub(crate) fn streams(&self, _streams: u64) {}

        pub(crate) fn watchers(&self, _watchers: u64) {}

        pub(crate) fn slow(&self, _watchers: u64) {}

        pub(crate) fn pending(&self, _events: u64) {}

        pub(crate) fn received(&self, _events: u64) {}
    }

    impl Metrics {
        pub(crate) fn of_store(_store_bytes_max: u64) -> Metrics {
            Metrics
        }

        pub(crate) fn read(&self) {}

        pub(crate) fn committed(&self, _calls: &Calls, _keys: impl FnOnce() -> u64) {}

        pub(crate) fn keys(&self, _keys: impl FnOnce() -> u64) {}

        pub(crate) fn published(&self, _rev: Revision, _compact: Option<Revision>) {}

        pub(crate) fn space(&self, _file_bytes: u64, _free_bytes: u64) {}

        pub(crate) fn synced(&self, _time: &Stopwatch) {}

        pub(crate) fn snapshot(&self, _time: &Stopwatch) {}

        pub(crate) fn hash(&self, _time: &Stopwatch) {}

        pub(crate) fn hash_by_rev(&self, _time: &Stopwatch) {}

        pub(crate) fn compacted(&self, _time: &Stopwatch) {}

        pub(crate) fn open_views(&self) -> OpenViews {
            OpenViews
        }
    }

    impl Calls {
        pub(crate) fn new() -> Calls {
            Calls
        }

        pub(crate) fn put(&mut self, _bytes: usize) {}

        pub(crate) fn delete(&mut self) {}
    }

    impl OpenViews {
        pub(crate) fn opened(&self) {}

        pub(crate) fn closed(&self) {}
    }
}
