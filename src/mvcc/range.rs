//! Ranges of keys: what is asked for ([`Range`]) and the records that come ([`Records`]).

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::ops::Bound;

use bytes::Bytes;
use revtree_format::{ChangeId, Position, RecordHead, RecordKind, Revision};

use super::keys::KeyRange;
use super::overlay::Overlay;
use super::record::{KeyValue, Record};
use super::store::Store;
use super::txn::WriteTxn;
use super::versions::{RecordKeys, live_at, locate};
use super::view::{ReadView, check_revision};
use crate::error::Result;
use crate::index::Entry;
use crate::tree::{Direction, LeafCursor, LeafRecords, Tree};

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
    reader: Reader<'v>,
    /// Another revision than the reader's own, pinned.
    at: Option<ReadView>,
    keys: KeyRange,
    reverse: bool,
    limit: Option<usize>,
    with_values: bool,
}

/// Who reads.
#[derive(Clone, Copy, Debug)]
enum Reader<'v> {
    View(&'v ReadView),
    Txn(&'v WriteTxn),
}

/// What is read.
enum Source<'v> {
    /// The keys at a revision.
    View(Revision),
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

impl<'v> Range<'v> {
    pub(crate) fn of_view(view: &'v ReadView, keys: KeyRange) -> Range<'v> {
        Range::new(Reader::View(view), keys)
    }

    pub(crate) fn of_txn(txn: &'v WriteTxn, keys: KeyRange) -> Range<'v> {
        Range::new(Reader::Txn(txn), keys)
    }

    fn new(reader: Reader<'v>, keys: KeyRange) -> Range<'v> {
        Range {
            reader,
            at: None,
            keys,
            reverse: false,
            limit: None,
            with_values: true,
        }
    }

    /// The same range at another revision; 0 is the view's own. In a transaction that has changes the
    /// revision after its begin is legal.
    ///
    /// ```
    /// use revtree::Error;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("b", "2")?;
    /// let view = db.read()?;
    /// assert_eq!((view.range(..).count()?, view.range(..).at(2)?.count()?), (2, 1));
    /// assert!(matches!(view.range(..).at(9), Err(Error::FutureRevision { .. })));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::FutureRevision`](crate::Error::FutureRevision) above the view's
    /// [`store_rev`](ReadView::store_rev), [`Error::Compacted`](crate::Error::Compacted) below the store's
    /// compact revision of now, [`Error::ViewExpired`](crate::Error::ViewExpired).
    pub fn at(mut self, rev: impl Into<Revision>) -> Result<Range<'v>> {
        let rev = rev.into();
        self.at = None;
        let own = match self.reader {
            Reader::View(_) => false,
            // Its own changes are seen at the revision that they will have only.
            Reader::Txn(txn) => rev == txn.read_rev() && rev > txn.rev(),
        };
        if rev.get() != 0 && !own {
            let view = self.view();
            view.check_limit()?;
            let compact = view.store().engine.compact_rev();
            check_revision(rev, self.store_rev(), compact)?;
            self.at = Some(view.also_at(rev)?);
        }
        Ok(self)
    }

    /// The view that is read, or that the transaction was begun on.
    fn view(&self) -> &'v ReadView {
        match self.reader {
            Reader::View(view) => view,
            Reader::Txn(txn) => txn.base_ref(),
        }
    }

    /// The revision that the reader reports, whatever it reads.
    fn store_rev(&self) -> Revision {
        match self.reader {
            Reader::View(view) => view.store_rev(),
            Reader::Txn(txn) => txn.read_rev(),
        }
    }

    fn source(&self) -> Source<'v> {
        match (self.reader, &self.at) {
            (_, Some(at)) => Source::View(at.rev()),
            (Reader::View(view), None) => Source::View(view.rev()),
            (Reader::Txn(txn), None) => Source::Txn(txn),
        }
    }

    /// In descending order of keys.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// for key in ["/log/1", "/log/2"] {
    ///     db.put(key, "x")?;
    /// }
    /// let view = db.read()?;
    /// let last = view.range("/log/"..).reverse().iter().next().unwrap()?;
    /// assert_eq!(last.key(), b"/log/2");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn reverse(mut self) -> Self {
        self.reverse = !self.reverse;
        self
    }

    /// Only the first so many in the direction chosen; 0 gives no record, where etcd's `Limit` 0 gives all.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// for key in ["a", "b", "c"] {
    ///     db.put(key, "x")?;
    /// }
    /// let page = db.read()?.range(..).limit(2).collect()?;
    /// assert_eq!((page.kvs.len(), page.count, page.more), (2, 3, true));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn limit(mut self, keys: usize) -> Self {
        self.limit = Some(keys);
        self
    }

    /// Values are not read: [`Record::value`] is empty, everything else is right.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "a long value")?;
    /// let kv = db.read()?.range(..).keys_only().collect()?.kvs.remove(0);
    /// assert_eq!((&kv.key[..], kv.value.len(), kv.mod_revision.get()), (&b"a"[..], 0, 2));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn keys_only(mut self) -> Self {
        self.with_values = false;
        self
    }

    /// The records, read as they are asked for.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// for key in ["a", "b"] {
    ///     db.put(key, "x")?;
    /// }
    /// let view = db.read()?;
    /// let mut keys = Vec::new();
    /// for record in view.range("a"..="z").iter() {
    ///     keys.push(record?.key().to_vec());
    /// }
    /// assert_eq!(keys, [b"a", b"b"]);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    pub fn iter(&self) -> Records<'v> {
        self.view().store().engine.metrics.read();
        let of = match self.source() {
            Source::View(rev) => RecordsOf::View {
                view: self.view(),
                _at: self.at.clone(),
                scan: Scan::new(&self.keys, rev, self.reverse),
            },
            Source::Txn(txn) => RecordsOf::Txn {
                txn,
                overlay: Box::new(Overlay::new(txn, &self.keys, self.reverse)),
            },
        };
        Records {
            of,
            left: self.limit,
            with_values: self.with_values,
            held: None,
            has_ended: false,
        }
    }

    /// Number of keys in the range, the limit ignored (etcd's `Count`). O(log n) at the current revision, where a
    /// key whose record is damaged counts too. One that a bound would have to be compared with is
    /// [`Error::Corrupt`](crate::Error::Corrupt) at every revision.
    ///
    /// ```
    /// use revtree::KeyRange;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// for key in ["/pods/a", "/pods/b", "/nodes/a"] {
    ///     db.put(key, "x")?;
    /// }
    /// assert_eq!(db.read()?.range(KeyRange::prefix("/pods/")).limit(1).count()?, 2);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ViewExpired`](crate::Error::ViewExpired), [`Error::Corrupt`](crate::Error::Corrupt),
    /// [`Error::Io`](crate::Error::Io).
    pub fn count(&self) -> Result<u64> {
        self.view().store().engine.metrics.read();
        self.total()
    }

    fn total(&self) -> Result<u64> {
        match self.source() {
            Source::View(rev) => {
                let count = count_at(self.view().store(), &self.keys, rev);
                self.view().whole(count)
            }
            Source::Txn(txn) => txn.count(&self.keys),
        }
    }

    /// Reads and copies all, with the total count.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// let then = db.read()?.range(..).at(2)?.collect()?;
    /// assert_eq!((&then.kvs[0].value[..], then.revision.get()), (&b"1"[..], 3)); // the store is at 3
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// The first error of a record, [`Error::Corrupt`](crate::Error::Corrupt) or
    /// [`Error::Io`](crate::Error::Io); [`Error::ViewExpired`](crate::Error::ViewExpired).
    pub fn collect(&self) -> Result<RangeResult> {
        let mut kvs = Vec::new();
        for record in self.iter() {
            kvs.push(record?.to_key_value());
        }
        let count = match self.limit {
            Some(limit) if kvs.len() >= limit => self.total()?,
            _ => kvs.len() as u64,
        };
        let more = count > kvs.len() as u64;
        Ok(RangeResult {
            kvs,
            revision: self.store_rev(),
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
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// for key in ["a", "b", "c"] {
///     db.put(key, "x")?;
/// }
/// let view = db.read()?;
/// let mut records = view.range(..).iter();
/// assert_eq!(records.next().unwrap()?.key(), b"a");
/// assert_eq!(records.next_back().unwrap()?.key(), b"c"); // from both ends
/// assert_eq!(records.count(), 1);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Debug)]
pub struct Records<'v> {
    of: RecordsOf<'v>,
    /// How many the limit still allows; `None`: there is no limit.
    left: Option<usize>,
    with_values: bool,
    /// With a limit and reading from the back: the records up to the limit.
    held: Option<VecDeque<Result<Record<'v>>>>,
    /// The view has, and it was said.
    has_ended: bool,
}

#[derive(Debug)]
enum RecordsOf<'v> {
    View {
        view: &'v ReadView,
        /// Pins the revision that is read, where it is not the view's.
        _at: Option<ReadView>,
        scan: Scan,
    },
    Txn {
        txn: &'v WriteTxn,
        overlay: Box<Overlay<'v>>,
    },
}

impl<'v> Records<'v> {
    fn read(&mut self, back: bool) -> Option<Result<Record<'v>>> {
        let with_values = self.with_values;
        match &mut self.of {
            RecordsOf::View { view, scan, .. } => {
                let view: &'v ReadView = view;
                let store = view.store();
                let found = scan.next(store, back).map(|found| {
                    let (position, head) = found?;
                    Record::read(&store.lender, position, head, with_values)
                });
                view.next_whole(found, &mut self.has_ended)
            }
            RecordsOf::Txn { txn, overlay } => {
                let txn: &'v WriteTxn = txn;
                let item = overlay.next(back)?;
                Some(item.and_then(|item| txn.read_item(&item, with_values)))
            }
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
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// let records = db.read()?.into_range(..);
/// db.put("a", "2")?; // the records are those of their view
/// let values = std::thread::spawn(|| records.map(|kv| Ok(kv?.value)).collect::<revtree::Result<Vec<_>>>());
/// assert_eq!(values.join().unwrap()?, ["1"]);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Debug)]
pub struct OwnedRecords {
    view: ReadView,
    scan: Scan,
    /// The view has, and it was said.
    has_ended: bool,
}

impl OwnedRecords {
    pub(crate) fn new(view: ReadView, keys: KeyRange) -> OwnedRecords {
        view.store().engine.metrics.read();
        let scan = Scan::new(&keys, view.rev(), false);
        OwnedRecords {
            view,
            scan,
            has_ended: false,
        }
    }

    fn read(&mut self, back: bool) -> Option<Result<KeyValue>> {
        let store = self.view.store();
        let found = self.scan.next(store, back).map(|found| {
            let (position, head) = found?;
            Record::read(&store.lender, position, head, true).map(|record| record.share())
        });
        self.view.next_whole(found, &mut self.has_ended)
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
            let entry = self.entry(store, back != self.reverse)?;
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

    fn entry(&mut self, store: &Store, high_end: bool) -> Option<Entry> {
        let near = if high_end { &self.high } else { &self.low };
        if near.is_empty() && !self.drained {
            self.fetch(store, high_end);
        }
        if high_end {
            self.high.pop_back().or_else(|| self.low.pop_back())
        } else {
            self.low.pop_front().or_else(|| self.high.pop_front())
        }
    }

    fn fetch(&mut self, store: &Store, high_end: bool) {
        let keys = RecordKeys(&store.engine.medium);
        let mut chunk = Vec::new();
        let mut wanted = CHUNK_KEYS;
        loop {
            chunk.clear();
            let more = store.index.chunk(
                self.lower.as_ref().map(Vec::as_slice),
                self.upper.as_ref().map(Vec::as_slice),
                high_end,
                wanted,
                &keys,
                &mut chunk,
            );
            self.drained = !more;
            if self.drained {
                break;
            }
            // The next chunk begins behind the last key that can be read: damaged ones come again there.
            let mut readable = chunk.iter().enumerate().rev().filter_map(|(n, entry)| {
                let medium = &store.engine.medium;
                let key = medium.with_head(entry.position, |_, key| key.to_vec());
                key.ok().map(|key| (n, key))
            });
            if let Some((last, key)) = readable.next() {
                chunk.truncate(last + 1);
                if high_end {
                    self.upper = Bound::Excluded(key);
                } else {
                    self.lower = Bound::Excluded(key);
                }
                break;
            }
            wanted *= 2;
        }
        if high_end {
            self.high = chunk.into_iter().rev().collect();
        } else {
            self.low = chunk.into();
        }
    }
}

/// Number of live keys of a range at a revision: the tree's count at its own revision, corrected by what
/// changed since, or a walk when that is less work.
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
            if counts {
                let lives = head.kind == RecordKind::Put;
                match (lived_before(tree, position, &head)?, lives) {
                    (false, true) => made += 1,
                    (true, false) => ended += 1,
                    _ => {}
                }
            }
        }
    }
    Ok((counted.live + ended).saturating_sub(made))
}

/// Whether the key lived just before this record of it. Mostly the record itself says so; but an imported
/// life may begin with any version, and a delete may follow a delete (I-2, I-3).
fn lived_before(tree: &Tree, position: Position, head: &RecordHead) -> Result<bool> {
    let Some(prev) = head.prev else {
        return Ok(false);
    };
    if head.kind == RecordKind::Put {
        // A put before it lies at or above the create revision, a delete at or below.
        let (create, before) = (head.create, prev.id.main);
        if head.version == 1 || before < create {
            return Ok(false);
        }
        if before > create {
            return Ok(true);
        }
    }
    // A record that compaction may have dropped is a delete: a put is kept until something follows it.
    let before = locate(tree, position, prev)?;
    Ok(before.is_some_and(|(_, head)| head.kind == RecordKind::Put))
}

/// The key of a record.
pub(crate) fn key_of(store: &Store, position: Position) -> Result<Bytes> {
    store
        .engine
        .medium
        .with_head(position, |_, key| Bytes::copy_from_slice(key))
}
