//! The store at one revision.

use std::ops::RangeInclusive;
use std::sync::Arc;

use revtree_format::{ChangeId, Revision};

use super::events::{Event, Events};
use super::keys::KeyRange;
use super::pins::Pin;
use super::range::{OwnedRecords, Range};
use super::record::Record;
use super::store::Store;
use super::table::Table;
use super::versions::live_at;
use crate::engine::State;
use crate::error::{Error, Result};
use crate::sync::{Ordering, fence};

/// The store at one revision, exact until dropped, also across a compaction. Dropping it is etcd's `End`.
///
/// It pins what is live at its revision, not the history before it: [`Range::at`],
/// [`ReadView::history`] and [`ReadView::changes`] look at the store's compact revision when called.
///
/// With [`Options::view_limit`](crate::Options::view_limit) every read ends with [`Error::ViewExpired`] once the store
/// is so far beyond it, also in the middle of an iteration, of which that is the last item then.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// let view = db.read()?;
/// db.put("a", "2")?;
/// assert_eq!(view.get("a")?.unwrap().value(), b"1");
/// assert_eq!(db.read_at(2)?.get("a")?.unwrap().value(), b"1");
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone)]
pub struct ReadView {
    inner: Arc<Inner>,
}

struct Inner {
    rev: Revision,
    store_rev: Revision,
    state: Arc<State>,
    /// It has ended when the store is above this revision (SPEC.md, X-9).
    until: Option<Revision>,
    pin: Pin,
    // Last: the pin goes before the store does.
    store: Arc<Store>,
}

/// What a function takes that reads from a view or from a transaction.
///
/// etcd wraps a read transaction as a write transaction whose `Put` panics (`NewReadOnlyTxnWrite`); here a
/// function that only reads takes `&dyn View`, and nothing that it has can write.
///
/// ```
/// use revtree::{KeyRange, View};
/// fn total(view: &dyn View) -> revtree::Result<u64> {
///     view.range(KeyRange::prefix("/n/")).count()
/// }
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut txn = db.write()?;
/// txn.put("/n/a", "1")?;
/// assert_eq!((total(&db.read()?)?, total(&txn)?), (0, 1));
/// # Ok::<(), revtree::Error>(())
/// ```
pub trait View {
    /// The key's record, if it is live.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::Closed`].
    fn get(&self, key: &[u8]) -> Result<Option<Record<'_>>>;

    /// A range to be read.
    fn range(&self, keys: KeyRange) -> Range<'_>;

    /// The revision that is read; in a transaction the one at its begin.
    fn rev(&self) -> Revision;
}

impl ReadView {
    /// A view at the current revision, which ends where the options say.
    pub(crate) fn open(store: &Arc<Store>) -> Result<ReadView> {
        Ok(ReadView::current(store)?.limited())
    }

    /// A view at the current revision, which does not end.
    pub(crate) fn current(store: &Arc<Store>) -> Result<ReadView> {
        store.check_open()?;
        let (rev, _) = store.engine.published();
        // The pin first, then what it pins, looked at again: what is seen under the pin stays.
        let pin = store.pins.pin(rev);
        let (rev, state) = store.engine.published();
        Ok(ReadView::new(store, rev, rev, state, pin))
    }

    /// A view, and the store's live compact revision, which is not above it (a commit and a compaction between the
    /// two would make a compacted revision of the current one), and is pinned too: what is needed there stays.
    pub(crate) fn current_and_compact(
        store: &Arc<Store>,
    ) -> Result<(ReadView, Option<Revision>, Pin)> {
        loop {
            let view = ReadView::current(store)?;
            let (compact, pin) = store.pin_compact();
            if compact.is_none_or(|compact| compact <= view.rev()) {
                return Ok((view, compact, pin));
            }
        }
    }

    /// A view at `rev`, which ends where the options say; 0 is the current revision.
    pub(crate) fn at(store: &Arc<Store>, rev: Revision) -> Result<ReadView> {
        if rev.get() == 0 {
            return ReadView::open(store);
        }
        store.check_open()?;
        let pin = store.pins.pin(rev);
        let (current, state) = store.engine.published();
        check_revision(rev, current, state.compact)?;
        Ok(ReadView::new(store, rev, current, state, pin).limited())
    }

    /// Another revision for who holds this view: up to the store's when it was opened (which the writer's
    /// base is at before readers are), not below the compact revision of now. Also of a closed store.
    pub(crate) fn also_at(&self, rev: Revision) -> Result<ReadView> {
        let store = self.store();
        let pin = store.pins.pin(rev);
        check_revision(rev, self.store_rev(), store.engine.compact_rev())?;
        let state = Arc::clone(&self.inner.state);
        let view = ReadView::new(store, rev, self.store_rev(), state, pin);
        Ok(view.until(self.inner.until))
    }

    /// A view of an accepted state that may not be published yet, for the writer.
    pub(crate) fn of_state(store: &Arc<Store>, state: State) -> ReadView {
        let rev = state.rev;
        let pin = store.pins.pin(rev);
        ReadView::new(store, rev, rev, Arc::new(state), pin)
    }

    fn new(
        store: &Arc<Store>,
        rev: Revision,
        store_rev: Revision,
        state: Arc<State>,
        pin: Pin,
    ) -> ReadView {
        let store = Arc::clone(store);
        ReadView {
            inner: Arc::new(Inner {
                rev,
                store_rev,
                state,
                until: None,
                pin,
                store,
            }),
        }
    }

    /// Ends where the options say.
    fn limited(self) -> ReadView {
        let limit = self.store().view_limit;
        let until = limit.map(|limit| Revision::new(self.store_rev().get().saturating_add(limit)));
        self.until(until)
    }

    /// Ends when the store is above this revision; for one that has just been made.
    fn until(mut self, until: Option<Revision>) -> ReadView {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.until = until;
            if let Some(until) = until {
                inner.pin.end_behind(until);
            }
        }
        self
    }

    /// Whether the view has not ended. What was read before this call is right where it has not: whoever cleans away
    /// what only ended views need has seen a revision by which they have, and who meets that sees it behind the fence
    /// (X-9).
    pub(crate) fn check_limit(&self) -> Result<()> {
        let Some(until) = self.inner.until else {
            return Ok(());
        };
        fence(Ordering::Acquire);
        if self.store().engine.rev() > until {
            return Err(Error::ViewExpired {
                revision: self.rev(),
            });
        }
        Ok(())
    }

    /// What has been read, unless the view has ended: then it may be anything.
    pub(crate) fn whole<T>(&self, read: Result<T>) -> Result<T> {
        self.check_limit()?;
        read
    }

    /// The same for the next item of an iteration, whose end would be wrong too: where the view has ended, it is said
    /// once.
    pub(crate) fn next_whole<T>(
        &self,
        item: Option<Result<T>>,
        has_ended: &mut bool,
    ) -> Option<Result<T>> {
        if *has_ended {
            return None;
        }
        match self.check_limit() {
            Ok(()) => item,
            Err(expired) => {
                *has_ended = true;
                Some(Err(expired))
            }
        }
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    pub(crate) fn state(&self) -> &State {
        &self.inner.state
    }

    /// The revision that it reads.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// let view = db.read_at(2)?;
    /// assert_eq!((view.rev().get(), view.store_rev().get()), (2, 3));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn rev(&self) -> Revision {
        self.inner.rev
    }

    /// The store's revision when the view was opened (etcd's `Rev`).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let view = db.read_at(1)?;
    /// let rev = db.put("a", "1")?;
    /// assert_eq!(view.store_rev().get(), 1); // as it was
    /// assert_eq!(db.read_at(1)?.store_rev(), rev); // how far `Range::at` of this view may go
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn store_rev(&self) -> Revision {
        self.inner.store_rev
    }

    /// The compact revision when the view was opened; `None`: never compacted (etcd's −1).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let view = db.read()?;
    /// let rev = db.put("a", "1")?;
    /// db.compact(rev)?;
    /// assert_eq!((view.first_rev(), db.read()?.first_rev()), (None, Some(rev)));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn first_rev(&self) -> Option<Revision> {
        self.inner.state.compact
    }

    /// The key's record, if it is live at [`ReadView::rev`].
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let view = db.read()?;
    /// db.delete("a")?;
    /// assert_eq!(view.get("a")?.unwrap().value(), b"1");
    /// assert!(view.get("b")?.is_none());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the record is damaged, [`Error::Io`], [`Error::ViewExpired`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Record<'_>>> {
        self.inner.store.engine.metrics.read();
        self.whole(self.get_at(key.as_ref(), self.rev()))
    }

    pub(crate) fn get_at(&self, key: &[u8], rev: Revision) -> Result<Option<Record<'_>>> {
        let store = &self.inner.store;
        let Some((_, newest)) = store.find(key)? else {
            return Ok(None);
        };
        match live_at(&store.engine.tree, newest, rev)? {
            Some((position, head)) => Record::read(&store.lender, position, head, true).map(Some),
            None => Ok(None),
        }
    }

    /// A range of keys to be read.
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// for key in ["a", "b", "c"] {
    ///     db.put(key, "x")?;
    /// }
    /// let view = db.read()?;
    /// assert_eq!(view.range("a".."c").count()?, 2);
    /// assert_eq!(view.range("b").count()?, 1); // one key
    /// assert_eq!(view.range(KeyRange::prefix("")).count()?, 3);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn range(&self, keys: impl Into<KeyRange>) -> Range<'_> {
        Range::of_view(self, keys.into())
    }

    /// The records of a range, owned: for response bodies and tasks.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let records = db.read()?.into_range(..);
    /// let keys = std::thread::spawn(move || records.map(|kv| kv.unwrap().key).collect::<Vec<_>>());
    /// assert_eq!(keys.join().unwrap(), ["a"]);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn into_range(self, keys: impl Into<KeyRange>) -> OwnedRecords {
        OwnedRecords::new(self, keys.into())
    }

    /// Every retained change of one key up to [`ReadView::rev`], oldest first, with deletes.
    ///
    /// After a compaction at C these are the changes above C, and what survives at C: the newest put at or
    /// before it, and a delete at C itself.
    ///
    /// ```
    /// use revtree::EventKind::{Delete, Put};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("b", "x")?;
    /// db.delete("a")?;
    /// let view = db.read()?;
    /// let events: Vec<_> = view.history("a")?.collect::<Result<_, _>>()?;
    /// let seen: Vec<_> = events.iter().map(|event| (event.id.main.get(), event.kind)).collect();
    /// assert_eq!(seen, [(2, Put), (4, Delete)]);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Compacted`] when the store has been compacted beyond this view's revision,
    /// [`Error::ViewExpired`], [`Error::Corrupt`], [`Error::Io`].
    pub fn history(&self, key: impl AsRef<[u8]>) -> Result<Events<'_>> {
        self.whole(Events::of_key(self, key.as_ref()))
    }

    /// Every change of these keys at revisions from the first to the last, in order.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// for (key, value) in [("a", "1"), ("x", "1"), ("a", "2"), ("b", "1")] {
    ///     db.put(key, value)?;
    /// }
    /// let view = db.read()?;
    /// let revs = 3.into()..=view.rev(); // since revision 3
    /// let events: Vec<_> = view.changes("a".."m", revs)?.collect::<Result<_, _>>()?;
    /// assert_eq!(events.iter().map(|event| &event.kv.key[..]).collect::<Vec<_>>(), [b"a", b"b"]);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::FutureRevision`] when the last is above [`ReadView::store_rev`], [`Error::Compacted`] when
    /// the first is below the store's compact revision, [`Error::ViewExpired`], [`Error::Corrupt`], [`Error::Io`].
    pub fn changes(
        &self,
        keys: impl Into<KeyRange>,
        revs: RangeInclusive<Revision>,
    ) -> Result<Events<'_>> {
        self.whole(Events::of_range(self, keys.into(), revs))
    }

    /// The change with this id.
    ///
    /// ```
    /// use revtree::{ChangeId, Error};
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put("a", "1")?;
    /// txn.put("b", "2")?;
    /// let rev = txn.commit()?.revision;
    /// let view = db.read()?;
    /// assert_eq!(view.change(ChangeId::new(rev, 1))?.kv.key, "b"); // the second of its transaction
    /// assert!(matches!(view.change(ChangeId::new(rev, 2)), Err(Error::RevisionNotFound(_))));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RevisionNotFound`] when nothing was written there (or it is compacted away),
    /// [`Error::ViewExpired`], [`Error::Corrupt`], [`Error::Io`].
    pub fn change(&self, id: ChangeId) -> Result<Event> {
        self.whole(Events::of_change(self, id))
    }

    /// A side table as it was when the view was opened: they have no versions. A table that does not
    /// exist is empty.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.table("raft")?.put(b"vote", b"3")?;
    /// txn.commit()?;
    /// let view = db.read_at(1)?;
    /// assert_eq!(view.table("raft").get(b"vote")?.unwrap(), "3"); // no versions: not as it was at 1
    /// assert_eq!(view.table("unheard of").iter().len(), 0);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn table(&self, name: &str) -> Table<'_> {
        Table::new(self.inner.state.tables.get(name))
    }

    /// The names of the side tables, ascending.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.table("raft")?;
    /// txn.table("auth")?;
    /// txn.commit()?;
    /// assert_eq!(db.read()?.tables().collect::<Vec<_>>(), ["auth", "raft"]);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.inner.state.tables.iter().map(|(name, _)| name)
    }
}

impl View for ReadView {
    fn get(&self, key: &[u8]) -> Result<Option<Record<'_>>> {
        ReadView::get(self, key)
    }

    fn range(&self, keys: KeyRange) -> Range<'_> {
        ReadView::range(self, keys)
    }

    fn rev(&self) -> Revision {
        ReadView::rev(self)
    }
}

impl std::fmt::Debug for ReadView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadView")
            .field("rev", &self.rev())
            .field("store_rev", &self.store_rev())
            .field("first_rev", &self.first_rev())
            .finish_non_exhaustive()
    }
}

/// etcd's rule for an explicit revision: the future first, then what is compacted.
pub(crate) fn check_revision(
    rev: Revision,
    current: Revision,
    compact: Option<Revision>,
) -> Result<()> {
    if rev > current {
        return Err(Error::FutureRevision {
            requested: rev,
            current,
        });
    }
    match compact {
        Some(compacted) if rev < compacted => Err(Error::Compacted {
            requested: rev,
            compacted,
        }),
        _ => Ok(()),
    }
}
