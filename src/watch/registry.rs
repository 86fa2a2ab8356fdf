//! All streams of a handle, and what the writer tells them.
//!
//! # Thread safety
//! Locks are taken in this order: a stream's state, the engine's append lock, the table, an inbox's queue. The
//! writer never takes the first; a receiver holds none but the first while it reads. What is the user's, filters and
//! wakers, is called, cloned and dropped with none of them.

#![expect(
    clippy::disallowed_types,
    reason = "the table of topics, and who is to be woken: for the writer and for watchers that come or go"
)]

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use revtree_format::Revision;

use super::due::Due;
use super::inbox::{Inbox, Marked};
use super::pace::{Apart, Pace};
use super::state::Room;
use super::stream::Shared;
use super::table::Table;
use super::topic::Topic;
use super::waiting::Waiting;
use crate::engine::Audience;
use crate::error::{Error, Result};
use crate::metrics::WatchMetrics;
use crate::mvcc::{Store, Watched};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, fence, lock};

/// The watchers of a handle; one for all contents that it has after each other.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Topics in the table. Raised and asked for under the append lock.
    topics: AtomicUsize,
    table: Mutex<Table>,
    content: Apart<Mutex<Content>>,
    streams: Mutex<Streams>,
    waiting: Waiting<Topic>,
    pub(super) pace: Apart<Pace>,
    pub(super) counts: Apart<Counts>,
}

/// What streams read.
#[derive(Clone, Debug)]
pub(super) struct Content {
    /// `None`: the store is closed.
    pub(super) store: Option<Arc<Store>>,
    /// The revision that a closed store had.
    last: Revision,
    /// Up to which revision each of the contents before was seen.
    pub(super) ends: Arc<Vec<Revision>>,
}

#[derive(Debug, Default)]
struct Streams {
    by_number: HashMap<u64, Weak<Shared>>,
    made: u64,
    closed: bool,
}

/// Counters with etcd's meaning.
#[derive(Debug)]
pub(super) struct Counts {
    watchers: AtomicU64,
    /// Watchers that catch up with the past.
    catching_up: AtomicU64,
    /// Events received, as [`Registry::report_received`] has been told.
    events: AtomicU64,
    /// Events given to receivers which have not been reported as received.
    pending: AtomicU64,
    metrics: WatchMetrics,
}

impl Counts {
    fn new() -> Counts {
        Counts {
            watchers: AtomicU64::new(0),
            catching_up: AtomicU64::new(0),
            events: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            metrics: WatchMetrics::new(),
        }
    }

    /// A watcher has come, and has to catch up.
    pub(super) fn came(&self) {
        let watchers = self.watchers.fetch_add(1, Ordering::Relaxed) + 1;
        self.metrics.watchers(watchers);
        let catching_up = self.catching_up.fetch_add(1, Ordering::Relaxed) + 1;
        self.metrics.slow(catching_up);
    }

    /// So many watchers have caught up, or gone before they did.
    pub(super) fn caught_up(&self, watchers: u64) {
        let before = self.catching_up.fetch_sub(watchers, Ordering::Relaxed);
        self.metrics.slow(before - watchers);
    }

    /// So many watchers have gone.
    pub(super) fn left(&self, watchers: u64) {
        let before = self.watchers.fetch_sub(watchers, Ordering::Relaxed);
        self.metrics.watchers(before - watchers);
    }

    /// So many events have been given.
    pub(super) fn given(&self, events: u64) {
        let before = self.pending.fetch_add(events, Ordering::Relaxed);
        self.metrics.pending(before + events);
    }

    fn received(&self, events: u64) {
        let less = |pending: u64| Some(pending.saturating_sub(events));
        let pending = &self.pending;
        if let Ok(before) = pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            self.metrics.pending(before.saturating_sub(events));
        }
        self.events.fetch_add(events, Ordering::Relaxed);
        self.metrics.received(events);
    }
}

/// What [`Stats`](crate::Stats) says of watchers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WatchStats {
    pub(crate) streams: u64,
    pub(crate) watchers: u64,
    pub(crate) slow: u64,
    pub(crate) events: u64,
    pub(crate) pending: u64,
}

impl Registry {
    /// Of a store that has just been opened.
    pub(crate) fn new(store: &Arc<Store>) -> Arc<Registry> {
        let registry = Arc::new(Registry {
            topics: AtomicUsize::new(0),
            table: Mutex::new(Table::new(&store.engine.medium.store_id)),
            content: Apart(Mutex::new(Content {
                store: Some(Arc::clone(store)),
                last: Revision::default(),
                ends: Arc::default(),
            })),
            streams: Mutex::default(),
            waiting: Waiting::new(),
            pace: Apart(Pace::new()),
            counts: Apart(Counts::new()),
        });
        store.attach_watched(Announcer::new(&registry));
        registry
    }

    /// A number for a new stream, which is listed under it.
    pub(super) fn add_stream(&self, make: impl FnOnce(u64) -> Arc<Shared>) -> Result<Arc<Shared>> {
        let mut streams = lock(&self.streams);
        if streams.closed {
            return Err(Error::Closed);
        }
        let number = streams.made;
        streams.made += 1;
        let stream = make(number);
        streams.by_number.insert(number, Arc::downgrade(&stream));
        self.counts.metrics.streams(streams.by_number.len() as u64);
        Ok(stream)
    }

    pub(super) fn remove_stream(&self, number: u64) {
        let mut streams = lock(&self.streams);
        streams.by_number.remove(&number);
        self.counts.metrics.streams(streams.by_number.len() as u64);
    }

    /// The revision that readers see; of a closed store the last.
    pub(super) fn rev(&self) -> Revision {
        let content = lock(&self.content);
        content
            .store
            .as_ref()
            .map_or(content.last, |store| store.engine.rev())
    }

    pub(super) fn content(&self) -> Content {
        lock(&self.content).clone()
    }

    /// Puts a topic into the table, unless there is one of its shape: that one is given then. `begin` is
    /// called while nothing is committed, with the newest revision that may have changed the topic's keys
    /// without marking it.
    pub(super) fn add_topic(
        &self,
        store: &Store,
        topic: &Arc<Topic>,
        begin: impl FnOnce(Revision),
    ) -> Option<Arc<Topic>> {
        store.engine.between_commits(|accepted| {
            let mut table = lock(&self.table);
            if let Some(found) = table.find(topic) {
                return Some(Arc::clone(found));
            }
            table.insert(Arc::clone(topic));
            // Relaxed: the append lock orders it.
            self.topics.fetch_add(1, Ordering::Relaxed);
            begin(accepted);
            None
        })
    }

    pub(super) fn remove_topic(&self, topic: &Arc<Topic>) {
        let mut table = lock(&self.table);
        if topic.marks().is_aside() {
            return;
        }
        table.remove(topic);
        // The writer may look into the table for nothing once more.
        self.topics.fetch_sub(1, Ordering::Relaxed);
    }

    /// Another content is in place; the old one was seen up to `end`. Called in the writer's turn, before anything
    /// is written to the new one: whether a mark is of the old one could not be told behind that.
    pub(crate) fn restored(self: &Arc<Registry>, store: &Arc<Store>, end: Revision) {
        store.attach_watched(Announcer::new(self));
        let mut content = lock(&self.content);
        content.store = Some(Arc::clone(store));
        Arc::make_mut(&mut content.ends).push(end);
        drop(content);
        self.each_stream(Shared::restored);
    }

    /// Ends all streams: what their receivers have not been given is made, up to a bound, and then no stream
    /// holds the store any more.
    pub(crate) fn close(&self) {
        lock(&self.streams).closed = true;
        let mut room = self.room();
        self.each_stream(|stream| stream.end_with_store(&mut room));
        let mut content = lock(&self.content);
        if let Some(store) = content.store.take() {
            content.last = store.engine.rev();
        }
    }

    /// Called before a compaction, without the writer's turn, since much may be copied: see
    /// [`State::save_from_compaction`](super::state::State). Gives in which content that was done.
    fn save_from_compaction(&self, compact: Revision) -> Option<usize> {
        let content = self.content();
        let number = content.ends.len();
        let engine = &content.store?.engine;
        // One that will be refused takes nothing from anybody.
        let is_above = engine.compact_rev().is_none_or(|before| before < compact);
        if compact > engine.rev() || !is_above {
            return None;
        }
        self.save(compact);
        Some(number)
    }

    /// Called in the writer's turn, when nothing can refuse the compaction any more. What has been written since the
    /// first call lies above `compact`; but another content may have been put in place.
    fn save_again(&self, compact: Revision, saved: Option<usize>) {
        if saved != Some(self.content().ends.len()) {
            self.save(compact);
        }
    }

    fn save(&self, compact: Revision) {
        let mut room = self.room();
        self.each_stream(|stream| stream.save_from_compaction(compact, &mut room));
    }

    /// What may be kept for receivers that have not come, beside what is.
    fn room(&self) -> Room {
        let mut kept = 0;
        self.each_stream(|stream| kept += stream.kept());
        Room::beside(kept)
    }

    /// A stream is to be stirred when this revision is visible, whatever it changes. `false`: it is already.
    pub(super) fn wait_for(&self, inbox: &Arc<Inbox<Topic>>, rev: Revision) -> bool {
        self.waiting.list(inbox, rev);
        self.rev() < rev
    }

    /// Stirs the streams that wait for what has just become visible; each says again, when it looks, what it
    /// waits for. The caller has fenced behind what has become visible.
    fn stir_waiting(&self, visible: Revision) {
        let waiting = self.waiting.take(visible);
        waiting.iter().for_each(|inbox| inbox.stir_fenced());
    }

    fn each_stream(&self, mut visit: impl FnMut(&Shared)) {
        let streams: Vec<Arc<Shared>> = {
            let streams = lock(&self.streams);
            streams
                .by_number
                .values()
                .filter_map(Weak::upgrade)
                .collect()
        };
        streams.iter().for_each(|stream| visit(stream));
    }

    /// etcd's `ReportEventReceived`.
    pub(crate) fn report_received(&self, events: u64) {
        self.counts.received(events);
    }

    pub(crate) fn stats(&self) -> WatchStats {
        let mut stats = WatchStats {
            watchers: self.counts.watchers.load(Ordering::Relaxed),
            events: self.counts.events.load(Ordering::Relaxed),
            pending: self.counts.pending.load(Ordering::Relaxed),
            ..WatchStats::default()
        };
        self.each_stream(|stream| {
            stats.streams += 1;
            stats.slow += stream.slow();
        });
        stats
    }
}

/// Tells the streams what happens to one content.
#[derive(Debug)]
struct Announcer {
    registry: Arc<Registry>,
    /// Streams that the open commit has marked.
    told: Mutex<Vec<Arc<Inbox<Topic>>>>,
    /// Streams to be stirred when a revision is visible.
    due: Due<Arc<Inbox<Topic>>>,
}

impl Announcer {
    fn new(registry: &Arc<Registry>) -> Arc<Announcer> {
        Arc::new(Announcer {
            registry: Arc::clone(registry),
            told: Mutex::default(),
            due: Due::new(),
        })
    }
}

impl Watched for Announcer {
    fn is_any(&self) -> bool {
        self.registry.topics.load(Ordering::Relaxed) > 0
    }

    fn mark(&self, rev: Revision, key: &[u8]) {
        let mut table = lock(&self.registry.table);
        let mut told = None;
        let mut far_behind = Vec::new();
        table.containing(key, |topic| {
            let mark = topic.inbox().mark(topic, rev);
            if mark.is_told {
                let told = told.get_or_insert_with(|| lock(&self.told));
                told.push(Arc::clone(topic.inbox()));
            }
            if mark.is_far_behind {
                far_behind.push(Arc::clone(topic));
            }
        });
        for topic in far_behind {
            table.remove(&topic);
            topic.inbox().put_aside(&topic, rev);
            self.registry.topics.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn save_from_compaction(&self, rev: Revision) -> Option<usize> {
        self.registry.save_from_compaction(rev)
    }

    fn save_again(&self, rev: Revision, saved: Option<usize>) {
        self.registry.save_again(rev, saved);
    }

    fn accepted(&self, rev: Revision, visible: &dyn Fn() -> Revision) {
        let mut told = std::mem::take(&mut *lock(&self.told));
        let is_visible = visible() >= rev;
        if is_visible {
            // Behind what has become visible, for all who are stirred.
            fence(Ordering::SeqCst);
            self.registry.stir_waiting(rev);
        }
        if told.is_empty() {
            return;
        }
        if is_visible {
            told.iter().for_each(|inbox| inbox.stir_fenced());
            told.clear();
            // Only for its memory: the writer's turn is ours.
            *lock(&self.told) = told;
            return;
        }
        let visible = self.due.list(rev, told.into_iter(), visible);
        visible.iter().for_each(|(_, inbox)| inbox.stir());
    }
}

impl Audience for Announcer {
    fn published(&self, rev: Revision) {
        let visible = self.due.take(rev);
        fence(Ordering::SeqCst);
        visible.iter().for_each(|(_, inbox)| inbox.stir_fenced());
        self.registry.stir_waiting(rev);
    }
}
