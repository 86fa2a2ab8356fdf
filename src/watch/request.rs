//! What is to be watched, and from where.

use std::sync::Arc;

use revtree_format::Revision;

use crate::mvcc::{AskedPrev, Event, EventKind, KeyRange};

/// Where a watcher begins.
///
/// ```
/// use revtree::{Start, Update};
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// let view = db.read()?;
/// db.put("a", "2")?;
/// // List, then watch from there: nothing is missed in between.
/// let mut stream = db.watch("a", Start::After(view.rev()))?;
/// let response = stream.recv()?;
/// assert!(matches!(&response.update, Update::Events(events) if events.iter().all(|e| e.kv.value == "2")));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With what becomes visible from now on (etcd's start revision 0). In a handle that was opened to read only nothing
    /// ever does: such a watcher is given nothing, also when another process writes.
    Now,
    /// At this revision, literally: legal at the compact revision, where what survives of it is given;
    /// [`Update::Compacted`](crate::Update::Compacted) below it. One that is not there yet is waited for.
    At(Revision),
    /// Behind this revision: what follows a view's [`rev`](crate::ReadView::rev). While the revision behind it is not
    /// there, the watcher waits for the future, and is told of progress when it is, as in etcd.
    After(Revision),
    /// At the oldest revision that is retained: the compact revision, or the first change.
    Oldest,
}

/// A watcher of a stream.
///
/// ```
/// use revtree::{Start, WatchId};
/// let db = revtree::Options::new().open_in_memory()?;
/// let stream = db.watch_stream()?;
/// assert_eq!(stream.watch("a", Start::Now)?, WatchId(0)); // chosen: 0, 1, 2, …
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WatchId(pub i64);

impl WatchId {
    /// The id of the answer to
    /// [`request_progress_all`](crate::WatchControl::request_progress_all); no watcher has it.
    ///
    /// ```
    /// use revtree::{Error, Start, WatchId, WatchRequest};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let request = WatchRequest::new("a", Start::Now).id(WatchId::ALL);
    /// let refused = db.watch_stream()?.watch_with(request);
    /// assert!(matches!(refused, Err(Error::WatcherDuplicateId(WatchId::ALL))));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub const ALL: WatchId = WatchId(-1);
}

/// Which events of its keys a watcher is not given. etcd's `FilterFunc` says true for those to be dropped; here
/// the name says it.
///
/// ```
/// use std::sync::Arc;
/// use revtree::{Event, Filter, Start, Update, WatchRequest};
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut stream = db.watch_stream()?;
/// let heartbeat = Filter::DropIf(Arc::new(|event: &Event| event.kv.value == "heartbeat"));
/// stream.watch_with(WatchRequest::new("a", Start::Now).filter(heartbeat))?;
/// db.put("a", "heartbeat")?;
/// db.put("a", "news")?;
/// let response = stream.recv()?;
/// assert!(matches!(&response.update, Update::Events(e) if e.len() == 1 && response.revision.get() == 3));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Filter {
    /// Puts are dropped.
    NoPut,
    /// Deletes are dropped.
    NoDelete,
    /// Events are dropped for which this says so. It runs in the receiver's thread, without a lock. It may read the
    /// store, also through a handle of its own: where that is the last, whatever ends the watcher closes the store. A
    /// write to the store from it is [`Error::InCallback`](crate::Error::InCallback).
    ///
    /// When it panics, the panic goes on from `recv`, and the next `recv` shows it the same events again, unless the
    /// watcher has been cancelled. When it panics at them for the third time, its watcher ends with
    /// [`Update::Failed`](crate::Update::Failed) and [`Error::FilterPanicked`](crate::Error::FilterPanicked); the others
    /// of the stream go on.
    DropIf(Arc<dyn Fn(&Event) -> bool + Send + Sync>),
}

/// The filters of a watcher.
pub(super) type Filters = Arc<Vec<Filter>>;

impl Filter {
    pub(super) fn keeps(&self, event: &Event) -> bool {
        match self {
            Filter::NoPut => event.kind != EventKind::Put,
            Filter::NoDelete => event.kind != EventKind::Delete,
            Filter::DropIf(drops) => !drops(event),
        }
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Filter::NoPut => "NoPut",
            Filter::NoDelete => "NoDelete",
            Filter::DropIf(_) => "DropIf",
        })
    }
}

/// Bytes of a batch where a request does not say.
const BATCH_BYTES: u32 = 1 << 20;

/// A watcher to be added.
///
/// ```
/// use revtree::{Filter, KeyRange, Start, WatchId, WatchRequest};
/// let db = revtree::Options::new().open_in_memory()?;
/// let stream = db.watch_stream()?;
/// let pods = WatchRequest::new(KeyRange::prefix("/pods/"), Start::Oldest).prev_kv().filter(Filter::NoPut);
/// assert_eq!(stream.watch_with(pods.id(WatchId(7)))?, WatchId(7));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WatchRequest {
    pub(super) keys: KeyRange,
    pub(super) start: Start,
    pub(super) id: Option<WatchId>,
    pub(super) prev: AskedPrev,
    pub(super) filters: Option<Filters>,
    pub(super) bytes_max: u32,
}

impl WatchRequest {
    /// All events of these keys, without previous values, under an id that is chosen.
    ///
    /// ```
    /// use revtree::{Start, WatchRequest};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.watch_stream()?.watch_with(WatchRequest::new("a".."b", Start::Now))?;
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn new(keys: impl Into<KeyRange>, start: Start) -> WatchRequest {
        WatchRequest {
            keys: keys.into(),
            start,
            id: None,
            prev: AskedPrev::No,
            filters: None,
            bytes_max: BATCH_BYTES,
        }
    }

    /// The watcher's id, 1 or more; 0 asks for one to be chosen, as in etcd.
    ///
    /// ```
    /// use revtree::{Error, Start, WatchId, WatchRequest};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let stream = db.watch_stream()?;
    /// let request = WatchRequest::new("a", Start::Now).id(WatchId(1));
    /// stream.watch_with(request.clone())?;
    /// assert!(matches!(stream.watch_with(request), Err(Error::WatcherDuplicateId(WatchId(1)))));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn id(self, id: WatchId) -> WatchRequest {
        WatchRequest {
            id: Some(id).filter(|id| id.0 != 0),
            ..self
        }
    }

    /// Events say what their key was before.
    ///
    /// ```
    /// use revtree::{Prev, Start, Update, WatchRequest};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let mut stream = db.watch_stream()?;
    /// stream.watch_with(WatchRequest::new("a", Start::Now).prev_kv())?;
    /// db.put("a", "2")?;
    /// let Update::Events(events) = stream.recv()?.update else { unreachable!() };
    /// assert!(matches!(&events.iter().next().unwrap().prev, Prev::Value(kv) if kv.value == "1"));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn prev_kv(self) -> WatchRequest {
        WatchRequest {
            prev: AskedPrev::Yes,
            ..self
        }
    }

    /// One more filter: what any of them drops is not given.
    ///
    /// ```
    /// use revtree::{EventKind, Filter, Start, Update, WatchRequest};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut stream = db.watch_stream()?;
    /// stream.watch_with(WatchRequest::new("a", Start::Now).filter(Filter::NoPut))?;
    /// db.put("a", "1")?;
    /// db.delete("a")?;
    /// let Update::Events(events) = stream.recv()?.update else { unreachable!() };
    /// assert!(events.iter().all(|event| event.kind == EventKind::Delete));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> WatchRequest {
        let filters = self.filters.get_or_insert_default();
        Arc::make_mut(filters).push(filter);
        self
    }

    /// The most bytes of keys and values in one response, in whole revisions: a larger one comes alone, so with 0
    /// each does. 1 MiB where this is not said.
    ///
    /// ```
    /// use revtree::{Start, Update, WatchRequest};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// let mut stream = db.watch_stream()?;
    /// stream.watch_with(WatchRequest::new("a", Start::Oldest).batch_bytes_max(1))?;
    /// let response = stream.recv()?;
    /// assert!(matches!(&response.update, Update::Events(events) if events.len() == 1));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn batch_bytes_max(self, bytes: usize) -> WatchRequest {
        WatchRequest {
            bytes_max: u32::try_from(bytes).unwrap_or(u32::MAX),
            ..self
        }
    }
}
