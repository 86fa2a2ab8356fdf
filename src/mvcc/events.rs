//! Changes as events: the history of a key, and the changes of a range of revisions.

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use revtree_format::{ChangeId, LeaseId, Position, RecordHead, RecordKind, Revision};

use super::keys::KeyRange;
use super::record::{KeyValue, Record};
use super::store::Store;
use super::versions::{Version, record_at, record_before, version_at};
use super::view::{ReadView, check_revision};
use crate::error::{Error, Result};
use crate::tree::{Direction, LeafCursor, LeafRecords};

/// One change of one key.
///
/// ```
/// use revtree::EventKind;
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// db.delete("a")?;
/// let events: Vec<_> = db.read()?.history("a")?.collect::<Result<_, _>>()?;
/// assert!(events[0].is_create());
/// assert_eq!((events[1].kind, events[1].kv.mod_revision.get()), (EventKind::Delete, 3));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Event {
    /// Which change.
    pub id: ChangeId,
    /// Put or delete.
    pub kind: EventKind,
    /// The key with its new value; in a delete only the key and the revision of the delete.
    pub kv: KeyValue,
    /// What the key was before the revision of this change.
    pub prev: Prev,
}

impl Event {
    /// Whether the change made a key that did not exist (etcd's `IsCreate`).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// db.delete("a")?;
    /// let view = db.read()?;
    /// let creates = view.history("a")?.map(|event| event.map(|event| event.is_create()));
    /// assert_eq!(creates.collect::<Result<Vec<_>, _>>()?, [true, false, false]);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.kv.create_revision == self.kv.mod_revision
    }

    /// Whether the change overwrote a value (etcd's `IsModify`).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// db.delete("a")?;
    /// let view = db.read()?;
    /// let modifies = view.history("a")?.map(|event| event.map(|event| event.is_modify()));
    /// assert_eq!(modifies.collect::<Result<Vec<_>, _>>()?, [false, true, false]); // a delete is neither
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn is_modify(&self) -> bool {
        self.kind == EventKind::Put && !self.is_create()
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        let prev = match &self.prev {
            Prev::Value(kv) => kv.key.len() + kv.value.len(),
            Prev::NotAsked | Prev::None | Prev::Compacted => 0,
        };
        self.kv.key.len() + self.kv.value.len() + prev
    }
}

/// What an event did.
///
/// ```
/// use revtree::EventKind;
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// db.delete("a")?;
/// let last = db.read()?.history("a")?.next_back().unwrap()?;
/// assert_eq!((last.kind, last.kv.value.len()), (EventKind::Delete, 0));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum EventKind {
    /// The key got a value.
    Put,
    /// The key ceased to exist.
    Delete,
}

/// The key's state at the revision before an event's, as in etcd; never silently absent.
///
/// ```
/// use revtree::Prev;
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// db.put("a", "2")?;
/// let last = db.read()?.history("a")?.next_back().unwrap()?;
/// assert!(matches!(last.prev, Prev::Value(kv) if kv.value == "1"));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Prev {
    /// It was not asked for.
    NotAsked,
    /// There was none: the change made the key.
    None,
    /// This.
    Value(KeyValue),
    /// It has been compacted away: possible for events at or below the compact revision only.
    Compacted,
}

/// Events in order, from either end. After an `Err` item (one damaged record) it goes on behind it.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// for value in ["1", "2", "3"] {
///     db.put("a", value)?;
/// }
/// let view = db.read()?;
/// let mut events = view.history("a")?;
/// assert_eq!(events.next_back().unwrap()?.kv.value, "3"); // the newest
/// assert_eq!(events.next().unwrap()?.kv.value, "1"); // the oldest
/// assert_eq!(events.count(), 1);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Debug)]
pub struct Events<'v> {
    view: &'v ReadView,
    /// Pins the revisions that are read, also when the view's own is another.
    _pinned: Option<ReadView>,
    /// The compact revision when this was asked for: what it leaves stays, since it is pinned.
    compact: Option<Revision>,
    of: EventsOf,
    /// The view has, and it was said.
    has_ended: bool,
}

#[derive(Debug)]
enum EventsOf {
    /// Records of one key, oldest first.
    Key(VecDeque<Position>),
    /// Records of a range of revisions, found leaf by leaf.
    Changes(Box<Changes>),
    Nothing,
}

#[derive(Debug)]
struct Changes {
    keys: KeyRange,
    compact: Option<Revision>,
    /// What has not been looked at yet: from the first to before the second.
    from: ChangeId,
    to: ChangeId,
    front: VecDeque<Result<Version>>,
    back: VecDeque<Result<Version>>,
}

impl<'v> Events<'v> {
    /// What is retained of a key up to the view's revision.
    pub(crate) fn of_key(view: &'v ReadView, key: &[u8]) -> Result<Events<'v>> {
        let store = view.store();
        let (pinned, compact) = loop {
            let compact = store.engine.compact_rev();
            check_revision(view.rev(), view.store_rev(), compact)?;
            match view.also_at(compact.unwrap_or(Revision::new(1))) {
                Ok(pinned) => break (pinned, compact),
                // It has just been raised: looked at again.
                Err(Error::Compacted { .. }) => {}
                Err(error) => return Err(error),
            }
        };
        let mut positions = VecDeque::new();
        if let Some((_, newest)) = store.find(key)? {
            let tree = &store.engine.tree;
            let mut at = record_at(tree, newest, view.rev(), compact)?;
            let mut newest_at_compact = true;
            while let Some((position, head)) = at {
                let retained = match compact {
                    Some(compact) if head.id.main <= compact => {
                        let newest = std::mem::replace(&mut newest_at_compact, false);
                        survives(&head, compact, newest)
                    }
                    _ => true,
                };
                if retained {
                    positions.push_front(position);
                }
                if compact.is_some_and(|compact| head.id.main < compact) {
                    break;
                }
                at = record_before(tree, (position, head), compact)?;
            }
        }
        Ok(Events {
            view,
            _pinned: Some(pinned),
            compact,
            of: EventsOf::Key(positions),
            has_ended: false,
        })
    }

    /// The changes of a range of keys at revisions `revs`.
    pub(crate) fn of_range(
        view: &'v ReadView,
        keys: KeyRange,
        revs: RangeInclusive<Revision>,
    ) -> Result<Events<'v>> {
        let store = view.store();
        let (from, to) = (*revs.start(), *revs.end());
        if from > to {
            return Ok(Events {
                view,
                _pinned: None,
                compact: None,
                of: EventsOf::Nothing,
                has_ended: false,
            });
        }
        let compact = store.engine.compact_rev();
        check_revision(to, view.store_rev(), None)?;
        check_revision(from, view.store_rev(), compact)?;
        let pinned = view.also_at(from.max(Revision::new(1)))?;
        let changes = Changes {
            keys,
            compact,
            from: ChangeId::new(from, 0),
            to: ChangeId::new(to.next(), 0),
            front: VecDeque::new(),
            back: VecDeque::new(),
        };
        Ok(Events {
            view,
            _pinned: Some(pinned),
            compact,
            of: EventsOf::Changes(Box::new(changes)),
            has_ended: false,
        })
    }

    /// One change.
    pub(crate) fn of_change(view: &ReadView, id: ChangeId) -> Result<Event> {
        let store = view.store();
        let compact = store.engine.compact_rev();
        let missing = Error::RevisionNotFound(id);
        if id.main > view.rev() {
            return Err(missing);
        }
        let Some(position) = store.engine.tree.find(id)? else {
            return Err(missing);
        };
        let head = store.engine.medium.head(position)?;
        if !is_retained(store, &(position, head), compact)? {
            return Err(missing);
        }
        event_at(store, position, compact)
    }

    fn read(&mut self, back: bool) -> Option<Result<Event>> {
        let store = self.view.store();
        let position = match &mut self.of {
            EventsOf::Nothing => None,
            EventsOf::Key(positions) if back => positions.pop_back().map(Ok),
            EventsOf::Key(positions) => positions.pop_front().map(Ok),
            EventsOf::Changes(changes) => {
                let found = changes.next(store, back);
                found.map(|found| found.map(|(position, _)| position))
            }
        };
        let event = position.map(|position| event_at(store, position?, self.compact));
        self.view.next_whole(event, &mut self.has_ended)
    }
}

impl Iterator for Events<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read(false)
    }
}

impl DoubleEndedIterator for Events<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.read(true)
    }
}

impl FusedIterator for Events<'_> {}

impl Changes {
    fn next(&mut self, store: &Arc<Store>, back: bool) -> Option<Result<Version>> {
        loop {
            let near = if back { &self.back } else { &self.front };
            if near.is_empty() && self.from < self.to {
                if let Err(error) = self.fetch(store, back) {
                    // Without its page nothing more can be found.
                    self.from = self.to;
                    return Some(Err(error));
                }
                continue;
            }
            return if back {
                self.back.pop_back().or_else(|| self.front.pop_back())
            } else {
                self.front.pop_front().or_else(|| self.back.pop_front())
            };
        }
    }

    /// Looks at the next leaf from the front or the back; moves `from` or `to` over it.
    fn fetch(&mut self, store: &Arc<Store>, back: bool) -> Result<()> {
        let tree = &store.engine.tree;
        let (at, direction) = if back {
            (before(self.to), Direction::Backward)
        } else {
            (self.from, Direction::Forward)
        };
        let mut cursor = LeafCursor::seek(tree, at, direction)?;
        let mut found = VecDeque::new();
        let (from, to) = (self.from, self.to);
        while found.is_empty() && self.from < self.to {
            let leaf = cursor.next()?;
            let Some(leaf) = leaf.filter(|leaf| back || leaf.first < to) else {
                self.from = to;
                break;
            };
            // Behind the last record of the leaf that is looked at.
            let mut behind = Some(leaf.first);
            for record in LeafRecords::new(tree.medium(), leaf) {
                let (position, head) = match record {
                    Ok(record) => record,
                    Err(error) => {
                        // What is behind the damaged record in this leaf cannot be found.
                        found.push_back(Err(error));
                        behind = None;
                        break;
                    }
                };
                if head.id >= to {
                    behind = Some(to);
                    break;
                }
                behind = Some(ChangeId::new(head.id.main, head.id.sub + 1));
                if head.id >= from {
                    match self.wanted(store, position, &head) {
                        Ok(true) => found.push_back(Ok((position, head))),
                        Ok(false) => {}
                        Err(error) => found.push_back(Err(error)),
                    }
                }
            }
            if back {
                self.to = leaf.first.max(from);
            } else {
                self.from = match behind {
                    Some(behind) => behind.max(from),
                    None => match cursor.next() {
                        Ok(next) => next.map_or(to, |leaf| leaf.first.min(to)),
                        Err(error) => {
                            found.push_back(Err(error));
                            to
                        }
                    },
                };
            }
            // What has been given is never looked at again: so a walk ends, whatever pages say.
            let moved = if back { self.to < to } else { self.from > from };
            if !moved && !found.is_empty() {
                found.push_back(Err(Error::Corrupt {
                    offset: leaf.position.0,
                    what: "order of leaves",
                    expected: from.main.get(),
                    found: leaf.first.main.get(),
                }));
                self.from = self.to;
            }
        }
        if back {
            self.back = found;
        } else {
            self.front = found;
        }
        Ok(())
    }

    fn wanted(&self, store: &Arc<Store>, position: Position, head: &RecordHead) -> Result<bool> {
        if !store
            .engine
            .medium
            .with_head(position, |_, key| self.keys.contains(key))?
        {
            return Ok(false);
        }
        is_retained(store, &(position, *head), self.compact)
    }
}

/// The id just before `id`.
fn before(id: ChangeId) -> ChangeId {
    match id.sub.checked_sub(1) {
        Some(sub) => ChangeId::new(id.main, sub),
        None => ChangeId::new(Revision::new(id.main.get().saturating_sub(1)), u64::MAX),
    }
}

/// What survives a compaction at C of the records at or before it: of each key the newest, if it is a put,
/// and every tombstone at C itself (SEMANTICS §4.2 and §4.5; SPEC.md K-3).
pub(crate) fn survives(head: &RecordHead, compact: Revision, newest: bool) -> bool {
    match head.kind {
        RecordKind::Put => newest,
        RecordKind::Tombstone => head.id.main == compact,
        RecordKind::Stub => false,
    }
}

/// Whether a record is there for who reads history: above the compact revision each is.
pub(crate) fn is_retained(
    store: &Store,
    version: &Version,
    compact: Option<Revision>,
) -> Result<bool> {
    match compact {
        Some(compact) if version.1.id.main <= compact => {
            let newest = is_newest_at(store, version, compact)?;
            Ok(survives(&version.1, compact, newest))
        }
        _ => Ok(true),
    }
}

/// Whether a record is its key's newest at or before `compact`.
fn is_newest_at(store: &Store, (position, head): &Version, compact: Revision) -> Result<bool> {
    let medium = &store.engine.medium;
    let key = medium.with_head(*position, |_, key| key.to_vec())?;
    let Some((_, newest)) = store.find(&key)? else {
        return Ok(false);
    };
    let found = version_at(&store.engine.tree, newest, compact)?;
    Ok(found.is_some_and(|(_, found)| found.id == head.id))
}

/// The event of the record at `position`.
/// `compact`: the compact revision above which it is known what was before.
pub(crate) fn event_at(
    store: &Arc<Store>,
    position: Position,
    compact: Option<Revision>,
) -> Result<Event> {
    let head = store.engine.medium.head(position)?;
    event_of(store, &(position, head), compact, AskedPrev::Yes)
}

/// Whether an event is to say what its key was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AskedPrev {
    Yes,
    No,
}

/// The event of a record whose head has been read.
pub(crate) fn event_of(
    store: &Arc<Store>,
    (position, head): &Version,
    compact: Option<Revision>,
    prev: AskedPrev,
) -> Result<Event> {
    let record = Record::read(&store.lender, *position, *head, true)?;
    let kv = match head.kind {
        RecordKind::Put => record.share(),
        _ => deleted(Bytes::copy_from_slice(record.key()), head.id.main),
    };
    let kind = if head.kind == RecordKind::Put {
        EventKind::Put
    } else {
        EventKind::Delete
    };
    let prev = match prev {
        AskedPrev::Yes => prev_of(store, *position, head, compact)?,
        AskedPrev::No => Prev::NotAsked,
    };
    Ok(Event {
        id: head.id,
        kind,
        kv,
        prev,
    })
}

/// The key-value of a delete event.
pub(crate) fn deleted(key: Bytes, rev: Revision) -> KeyValue {
    KeyValue::new(
        key,
        Bytes::new(),
        Revision::default(),
        rev,
        0,
        LeaseId::NONE,
    )
}

/// The key's state at main − 1.
fn prev_of(
    store: &Arc<Store>,
    position: Position,
    head: &RecordHead,
    compact: Option<Revision>,
) -> Result<Prev> {
    let main = head.id.main;
    if head.kind == RecordKind::Put && head.create == main {
        return Ok(Prev::None);
    }
    if compact.is_some_and(|compact| main <= compact) {
        return Ok(Prev::Compacted);
    }
    let mut at = (position, *head);
    while at.1.id.main >= main {
        // Nothing, or a delete that compaction may have dropped: then a change in the same revision made the key.
        let Some(before) = record_before(&store.engine.tree, at, compact)? else {
            return Ok(Prev::None);
        };
        at = before;
    }
    let (position, head) = at;
    if head.kind != RecordKind::Put {
        return Ok(Prev::None);
    }
    Ok(Prev::Value(
        Record::read(&store.lender, position, head, true)?.share(),
    ))
}
