//! Ranges of keys: what is asked for ([`Range`]) and the records that come ([`Records`]).

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use revtree_format::{ChangeId, RecordKind, Revision};

use super::keys::KeyRange;
use super::record::{KeyValue, Record};
use super::store::Store;
use super::txn::{Item, WriteTxn};
use super::versions::{RecordKeys, live_at};
use super::view::{ReadView, check_revision};
use crate::error::Result;
use crate::index::Entry;
use crate::tree::{Direction, LeafCursor, LeafRecords};

/// A range to be read; nothing is read before [`Range::iter`], [`Range::count`] or [`Range::collect`].
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// for key in ["a", "b", "c"] {
///     db.put(key, "x")?;
/// }
/// let view = db.read()?;
/// let last: Vec<_> = view.range("a"..="c").reverse().limit(2).iter().collect::<Result<_, _>>()?;
/// assert_eq!(last.iter().map(|r| r.key()).collect::<Vec<_>>(), [b"c", b"b"]);
/// assert_eq!(view.range(..).limit(2).count()?, 3);
/// assert_eq!(view.range(..).at(2)?.count()?, 1);
/// # Ok::<(), revtree::Error>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct Range<'v> {
    source: Source<'v>,
    keys: KeyRange,
    reverse: bool,
    limit: Option<usize>,
    with_values: bool,
}

#[derive(Clone, Debug)]
enum Source<'v> {
    /// The keys at a revision; the second view pins it when it is not the first one's.
    View {
        view: &'v ReadView,
        rev: Revision,
        /// The revision that the reader reports, whatever it reads.
        store_rev: Revision,
        _pinned: Option<ReadView>,
    },
    /// The keys as a transaction sees them.
    Txn(&'v WriteTxn),
}

/// What [`Range::collect`] gives.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// db.put("b", "2")?;
/// let page = db.read()?.range(..).limit(1).collect()?;
/// assert_eq!((page.kvs.len(), page.count, page.more), (1, 2, true));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RangeResult {
    /// The records, copied.
    pub kvs: Vec<KeyValue>,
    /// The store's revision, not the one that was read (etcd's rule).
    pub revision: Revision,
    /// Number of keys in the range, the limit ignored.
    pub count: u64,
    /// Whether the limit cut it.
    pub more: bool,
}

impl Source<'_> {
    fn store(&self) -> &Store {
        match self {
            Source::View { view, .. } => view.store(),
            Source::Txn(txn) => &txn.store,
        }
    }
}

impl<'v> Range<'v> {
    pub(crate) fn of_view(view: &'v ReadView, keys: KeyRange) -> Range<'v> {
        let source = Source::View {
            view,
            rev: view.rev(),
            store_rev: view.store_rev(),
            _pinned: None,
        };
        Range {
            source,
            keys,
            reverse: false,
            limit: None,
            with_values: true,
        }
    }

    pub(crate) fn of_txn(txn: &'v WriteTxn, keys: KeyRange) -> Range<'v> {
        let source = Source::Txn(txn);
        Range {
            source,
            keys,
            reverse: false,
            limit: None,
            with_values: true,
        }
    }

    /// The same range at another revision; 0 is the view's own. In a transaction that has changes the
    /// revision after its begin is legal.
    ///
    /// # Errors
    /// [`Error::FutureRevision`](crate::Error::FutureRevision) above the view's
    /// [`store_rev`](ReadView::store_rev), [`Error::Compacted`](crate::Error::Compacted) below the store's
    /// compact revision of now.
    pub fn at(mut self, rev: impl Into<Revision>) -> Result<Range<'v>> {
        let rev = rev.into();
        if rev.get() == 0 {
            return Ok(self);
        }
        match &self.source {
            Source::View {
                view, store_rev, ..
            } => {
                let view: &'v ReadView = view;
                check_revision(rev, view.store_rev(), view.store().engine.compact_rev())?;
                let pinned = ReadView::pinned(view.store(), rev)?;
                self.source = Source::View {
                    view,
                    rev,
                    store_rev: *store_rev,
                    _pinned: Some(pinned),
                };
            }
            Source::Txn(txn) => {
                let txn: &'v WriteTxn = txn;
                let base = txn.base_ref();
                let current = txn.read_rev();
                check_revision(rev, current, base.store().engine.compact_rev())?;
                if rev < current || current == txn.rev() {
                    let pinned = ReadView::of_state(base.store(), base.state().clone());
                    self.source = Source::View {
                        view: base,
                        rev,
                        store_rev: current,
                        _pinned: Some(pinned),
                    };
                }
            }
        }
        Ok(self)
    }

    /// In descending order of keys.
    pub fn reverse(mut self) -> Self {
        self.reverse = !self.reverse;
        self
    }

    /// Only the first so many in the direction chosen; 0 is none.
    pub fn limit(mut self, keys: usize) -> Self {
        self.limit = Some(keys);
        self
    }

    /// Values are not read: [`Record::value`] is empty, everything else is right.
    pub fn keys_only(mut self) -> Self {
        self.with_values = false;
        self
    }

    /// The records, read as they are asked for.
    pub fn iter(&self) -> Records<'v> {
        self.source.store().engine.metrics.read();
        let scan = match &self.source {
            Source::View { view, rev, .. } => {
                let scan = Scan::new(&self.keys, *rev, self.reverse);
                RecordsOf::View {
                    store: view.store(),
                    scan,
                }
            }
            Source::Txn(txn) => match txn.items(&self.keys, self.reverse, self.limit) {
                Ok(items) => RecordsOf::Txn {
                    txn,
                    items: items.into(),
                },
                Err(error) => RecordsOf::Failed(Some(error)),
            },
        };
        Records {
            of: scan,
            left: self.limit,
            with_values: self.with_values,
            held: None,
        }
    }

    /// Number of keys in the range, the limit ignored. O(log n) at the current revision.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt), [`Error::Io`](crate::Error::Io).
    pub fn count(&self) -> Result<u64> {
        self.source.store().engine.metrics.read();
        self.total()
    }

    fn total(&self) -> Result<u64> {
        match &self.source {
            Source::View { view, rev, .. } => count_at(view.store(), &self.keys, *rev),
            Source::Txn(txn) => txn.count(&self.keys),
        }
    }

    /// Reads and copies all, with the total count.
    ///
    /// # Errors
    /// The first error of a record, [`Error::Corrupt`](crate::Error::Corrupt) or
    /// [`Error::Io`](crate::Error::Io).
    pub fn collect(&self) -> Result<RangeResult> {
        let mut kvs = Vec::new();
        for record in self.iter() {
            kvs.push(record?.to_key_value());
        }
        let count = match self.limit {
            Some(limit) if kvs.len() >= limit => self.total()?,
            _ => kvs.len() as u64,
        };
        let revision = match &self.source {
            Source::View { store_rev, .. } => *store_rev,
            Source::Txn(txn) => txn.read_rev(),
        };
        let more = count > kvs.len() as u64;
        Ok(RangeResult {
            kvs,
            revision,
            count,
            more,
        })
    }
}

impl<'v> IntoIterator for Range<'v> {
    type Item = Result<Record<'v>>;
    type IntoIter = Records<'v>;

    fn into_iter(self) -> Records<'v> {
        self.iter()
    }
}

impl<'v> IntoIterator for &Range<'v> {
    type Item = Result<Record<'v>>;
    type IntoIter = Records<'v>;

    fn into_iter(self) -> Records<'v> {
        self.iter()
    }
}

/// Records in key order, or in reverse. After an `Err` item (one damaged record) it goes on behind it.
#[derive(Debug)]
pub struct Records<'v> {
    of: RecordsOf<'v>,
    /// How many the limit still allows; `None`: there is no limit.
    left: Option<usize>,
    with_values: bool,
    /// With a limit and reading from the back: the records up to the limit.
    held: Option<VecDeque<Result<Record<'v>>>>,
}

#[derive(Debug)]
enum RecordsOf<'v> {
    View {
        store: &'v Arc<Store>,
        scan: Scan,
    },
    Txn {
        txn: &'v WriteTxn,
        items: VecDeque<Item>,
    },
    Failed(Option<crate::Error>),
}

impl<'v> Records<'v> {
    fn read(&mut self, back: bool) -> Option<Result<Record<'v>>> {
        let with_values = self.with_values;
        match &mut self.of {
            RecordsOf::View { store, scan } => {
                let store: &'v Arc<Store> = store;
                let found = scan.next(store, back)?;
                Some(found.and_then(|(position, head)| {
                    Record::read(&store.lender, position, head, with_values)
                }))
            }
            RecordsOf::Txn { txn, items } => {
                let txn: &'v WriteTxn = txn;
                let item = if back {
                    items.pop_back()
                } else {
                    items.pop_front()
                }?;
                Some(txn.read_item(&item, with_values))
            }
            RecordsOf::Failed(error) => error.take().map(Err),
        }
    }
}

impl<'v> Iterator for Records<'v> {
    type Item = Result<Record<'v>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(held) = &mut self.held {
            return held.pop_front();
        }
        if self.left == Some(0) {
            return None;
        }
        let record = self.read(false)?;
        self.left = self.left.map(|left| left - 1);
        Some(record)
    }
}

impl DoubleEndedIterator for Records<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.left.is_none() {
            return self.read(true);
        }
        // Where the limit cuts is known only once the records before it have been read.
        if self.held.is_none() {
            let held = self.by_ref().collect();
            self.held = Some(held);
        }
        self.held.as_mut().and_then(VecDeque::pop_back)
    }
}

impl FusedIterator for Records<'_> {}

/// The records of a range, owned, with the view that they are read from.
#[derive(Debug)]
pub struct OwnedRecords {
    view: ReadView,
    scan: Scan,
}

impl OwnedRecords {
    pub(crate) fn new(view: ReadView, keys: KeyRange) -> OwnedRecords {
        view.store().engine.metrics.read();
        let scan = Scan::new(&keys, view.rev(), false);
        OwnedRecords { view, scan }
    }

    fn read(&mut self, back: bool) -> Option<Result<KeyValue>> {
        let store = self.view.store();
        let found = self.scan.next(store, back)?;
        Some(found.and_then(|(position, head)| {
            Record::read(&store.lender, position, head, true).map(|record| record.share())
        }))
    }
}

impl Iterator for OwnedRecords {
    type Item = Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read(false)
    }
}

impl DoubleEndedIterator for OwnedRecords {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.read(true)
    }
}

impl FusedIterator for OwnedRecords {}

/// Walks the live keys of a range at a revision, from both ends. The index is asked for chunks of keys,
/// so that its epoch is never pinned between two items.
#[derive(Debug)]
pub(crate) struct Scan {
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    rev: Revision,
    reverse: bool,
    /// Keys fetched at the low end, ascending, and at the high end, ascending.
    low: VecDeque<Entry>,
    high: VecDeque<Entry>,
    /// Nothing is left between the bounds.
    drained: bool,
}

/// Keys asked for at a time.
const CHUNK_KEYS: usize = 128;

impl Scan {
    pub(crate) fn new(keys: &KeyRange, rev: Revision, reverse: bool) -> Scan {
        let (lower, upper) = keys.bounds();
        Scan {
            lower: lower.map(<[u8]>::to_vec),
            upper: upper.map(<[u8]>::to_vec),
            rev,
            reverse,
            low: VecDeque::new(),
            high: VecDeque::new(),
            drained: keys.is_empty(),
        }
    }

    /// The next live record from the front, or from the back.
    pub(crate) fn next(
        &mut self,
        store: &Store,
        back: bool,
    ) -> Option<Result<super::versions::Version>> {
        loop {
            let entry = match self.entry(store, back != self.reverse) {
                Ok(Some(entry)) => entry,
                Ok(None) => return None,
                Err(error) => {
                    self.drained = true;
                    return Some(Err(error));
                }
            };
            let medium = &store.engine.medium;
            let found = medium
                .head(entry.position)
                .and_then(|head| live_at(&store.engine.tree, (entry.position, head), self.rev));
            match found {
                Ok(Some(version)) => return Some(Ok(version)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn entry(&mut self, store: &Store, high_end: bool) -> Result<Option<Entry>> {
        let near = if high_end { &self.high } else { &self.low };
        if near.is_empty() && !self.drained {
            self.fetch(store, high_end)?;
        }
        Ok(if high_end {
            self.high.pop_back().or_else(|| self.low.pop_back())
        } else {
            self.low.pop_front().or_else(|| self.high.pop_front())
        })
    }

    fn fetch(&mut self, store: &Store, high_end: bool) -> Result<()> {
        let keys = RecordKeys(&store.engine.medium);
        let mut chunk = Vec::new();
        let more = store.index.chunk(
            self.lower.as_ref().map(Vec::as_slice),
            self.upper.as_ref().map(Vec::as_slice),
            high_end,
            CHUNK_KEYS,
            &keys,
            &mut chunk,
        )?;
        self.drained = !more;
        if let (true, Some(last)) = (more, chunk.last()) {
            let key = store
                .engine
                .medium
                .with_head(last.position, |_, key| key.to_vec())?;
            if high_end {
                self.upper = Bound::Excluded(key);
            } else {
                self.lower = Bound::Excluded(key);
            }
        }
        if high_end {
            self.high = chunk.into_iter().rev().collect();
        } else {
            self.low = chunk.into();
        }
        Ok(())
    }
}

/// Number of live keys of a range at a revision: the tree's count at its own revision, corrected by what
/// changed since, or a walk when that is less work (R-12).
pub(crate) fn count_at(store: &Store, keys: &KeyRange, rev: Revision) -> Result<u64> {
    if keys.is_empty() {
        return Ok(0);
    }
    let (lower, upper) = keys.bounds();
    let records = RecordKeys(&store.engine.medium);
    let counted = store.index.count(lower, upper, &records)?;
    if counted.revision <= rev {
        return Ok(counted.live);
    }
    let behind = counted.revision.get() - rev.get();
    if behind > counted.all {
        let mut scan = Scan::new(keys, rev, false);
        let mut count = 0;
        while let Some(found) = scan.next(store, false) {
            found?;
            count += 1;
        }
        return Ok(count);
    }
    let (mut made, mut ended) = (0, 0);
    let tree = &store.engine.tree;
    let mut cursor = LeafCursor::seek(tree, ChangeId::new(rev.next(), 0), Direction::Forward)?;
    'leaves: while let Some(leaf) = cursor.next()? {
        for record in LeafRecords::new(tree.medium(), leaf) {
            let (position, head) = record?;
            if head.id.main > counted.revision {
                break 'leaves;
            }
            let counts = head.id.main > rev
                && tree
                    .medium()
                    .with_head(position, |_, key| keys.contains(key))?;
            match head.kind {
                RecordKind::Put if counts && head.version == 1 => made += 1,
                RecordKind::Tombstone if counts => ended += 1,
                _ => {}
            }
        }
    }
    Ok((counted.live + ended).saturating_sub(made))
}

/// The key of a record.
pub(crate) fn key_of(store: &Store, position: revtree_format::Position) -> Result<Bytes> {
    store
        .engine
        .medium
        .with_head(position, |_, key| Bytes::copy_from_slice(key))
}
