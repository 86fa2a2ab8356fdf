//! What a receiver is given.

use std::sync::Arc;

use revtree_format::Revision;

use super::request::WatchId;
use crate::error::Error;
use crate::mvcc::{Event, KeyValue, Prev};

/// One thing that a watcher is told.
///
/// ```
/// use revtree::{Start, Update, WatchId};
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut stream = db.watch("a", Start::Now)?;
/// let rev = db.put("a", "1")?;
/// let response = stream.recv()?;
/// assert_eq!((response.id, response.revision), (WatchId(0), rev));
/// assert!(matches!(response.update, Update::Events(_)));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchResponse {
    /// The watcher; [`WatchId::ALL`] answers for all of the stream.
    pub id: WatchId,
    /// Up to here the watcher has been given everything, with this response: what `Start::After` takes when it
    /// is to go on later. At or above the last event's. 0 with [`Update::Compacted`], as in etcd.
    pub revision: Revision,
    /// What it is told.
    pub update: Update,
}

/// What a watcher is told. `Compacted` and `Failed` are its last; the stream lives on.
///
/// ```
/// use revtree::{Start, Update};
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// db.put("a", "2")?;
/// db.compact(3)?;
/// let mut stream = db.watch("a", Start::At(2.into()))?;
/// let update = stream.recv()?.update;
/// assert!(matches!(update, Update::Compacted { compact_revision } if compact_revision.get() == 3));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Update {
    /// Changes, in whole revisions.
    Events(EventBatch),
    /// There is nothing up to the response's revision that has not been given.
    Progress,
    /// What the watcher needs next has been compacted away: list again, and watch from there.
    Compacted {
        /// The store's compact revision.
        compact_revision: Revision,
    },
    /// A record that the watcher needs next is damaged; or its filter panics at what comes next
    /// ([`Error::FilterPanicked`]).
    Failed(Error),
}

/// Events of whole revisions, in order; shared between watchers of the same keys.
///
/// ```
/// use revtree::{Start, Update};
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut stream = db.watch("a".."c", Start::Now)?;
/// let mut txn = db.write()?;
/// txn.put("a", "1")?;
/// txn.put("b", "2")?;
/// txn.commit()?;
/// let Update::Events(events) = stream.recv()?.update else { unreachable!() };
/// assert_eq!(events.len(), 2); // both of the revision
/// assert_eq!(events.iter().map(|event| &event.kv.value[..]).collect::<Vec<_>>(), [b"1", b"2"]);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EventBatch {
    all: Arc<Vec<Event>>,
    /// What of it is this batch's: from here on.
    from: usize,
}

impl EventBatch {
    pub(super) fn new(events: Vec<Event>) -> EventBatch {
        EventBatch {
            all: Arc::new(events),
            from: 0,
        }
    }

    /// What is at or behind a revision.
    pub(super) fn since(&self, from: Revision) -> EventBatch {
        let events = self.as_slice();
        let skip = match events.first() {
            Some(first) if first.id.main < from => {
                events.partition_point(|event| event.id.main < from)
            }
            _ => 0,
        };
        EventBatch {
            all: Arc::clone(&self.all),
            from: self.from + skip,
        }
    }

    /// Those that are kept.
    pub(super) fn filtered(&self, mut keep: impl FnMut(&Event) -> bool) -> EventBatch {
        let kept: Vec<bool> = self.iter().map(&mut keep).collect();
        if kept.iter().all(|keep| *keep) {
            return self.clone();
        }
        let events = self.iter().zip(kept).filter(|(_, keep)| *keep);
        EventBatch::new(events.map(|(event, _)| event.clone()).collect())
    }

    fn as_slice(&self) -> &[Event] {
        &self.all[self.from..]
    }

    /// The events.
    ///
    /// ```
    /// use revtree::{Start, Update};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let Update::Events(events) = db.watch("a", Start::Oldest)?.recv()?.update else { unreachable!() };
    /// assert!(events.iter().all(revtree::Event::is_create));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.as_slice().iter()
    }

    /// Number of events.
    ///
    /// ```
    /// use revtree::{Start, Update};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// let Update::Events(events) = db.watch("a", Start::Oldest)?.recv()?.update else { unreachable!() };
    /// assert_eq!(events.len(), 2);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none; a response's batch has some.
    ///
    /// ```
    /// use revtree::{Start, Update};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let Update::Events(events) = db.watch("a", Start::Oldest)?.recv()?.update else { unreachable!() };
    /// assert!(!events.is_empty());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// A copy that keeps nothing of the store.
    ///
    /// ```
    /// use revtree::{Start, Update};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let Update::Events(events) = db.watch("a", Start::Oldest)?.recv()?.update else { unreachable!() };
    /// let kept = events.unpinned();
    /// drop(events);
    /// assert_eq!((db.stats().shared_handles, kept.len()), (0, 1));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn unpinned(&self) -> EventBatch {
        let unpinned = |kv: &KeyValue| kv.unpinned();
        let events = self.iter().map(|event| Event {
            kv: unpinned(&event.kv),
            prev: match &event.prev {
                Prev::Value(kv) => Prev::Value(unpinned(kv)),
                other => other.clone(),
            },
            ..event.clone()
        });
        EventBatch::new(events.collect())
    }

    pub(super) fn bytes(&self) -> usize {
        self.iter().map(Event::bytes).sum()
    }
}

impl<'b> IntoIterator for &'b EventBatch {
    type Item = &'b Event;
    type IntoIter = std::slice::Iter<'b, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
