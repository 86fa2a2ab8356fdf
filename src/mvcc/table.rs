//! Side tables: small ordered maps beside the keys, committed in the same frame, without history.

use std::collections::VecDeque;
use std::marker::PhantomData;

use bytes::Bytes;
use revtree_format::limits::{TABLE_KEY_BYTES_MAX, TABLE_NAME_BYTES_MAX, TABLE_VALUE_BYTES_MAX};

use super::txn::WriteTxn;
use crate::engine::TableMap;
use crate::error::{Error, Result};

/// A side table as a view sees it.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut txn = db.write()?;
/// txn.table("raft")?.put(b"vote", b"3")?;
/// txn.commit()?;
/// assert_eq!(db.rev().get(), 1); // a table alone makes no revision
/// assert_eq!(db.read()?.table("raft").get(b"vote")?.unwrap(), "3");
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Table<'v> {
    map: Option<TableMap>,
    borrowed: PhantomData<&'v ()>,
}

impl<'v> Table<'v> {
    pub(crate) fn new(map: Option<&TableMap>) -> Self {
        Table {
            map: map.cloned(),
            borrowed: PhantomData,
        }
    }

    /// The value of a key.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let view = db.read()?;
    /// let mut txn = db.write()?;
    /// txn.table("raft")?.put(b"vote", b"3")?;
    /// txn.commit()?;
    /// assert_eq!(view.table("raft").get(b"vote")?, None); // as it was when the view was opened
    /// assert_eq!(db.read()?.table("raft").get(b"vote")?.unwrap(), "3");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// None at present: tables are held in memory.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.map.as_ref().and_then(|map| map.get(key)).cloned())
    }

    /// All rows in key order.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// for id in [b"2", b"1"] {
    ///     txn.table("members")?.put(id, b"localhost")?;
    /// }
    /// txn.commit()?;
    /// let (last, _) = db.read()?.table("members").iter().next_back().unwrap()?;
    /// assert_eq!(last, "2");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn iter(&self) -> TableIter<'v> {
        let rows = self.map.iter().flat_map(TableMap::iter);
        let rows = rows
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        TableIter {
            rows,
            borrowed: PhantomData,
        }
    }
}

/// The rows of a side table in key order.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut txn = db.write()?;
/// txn.table("t")?.put(b"b", b"2")?;
/// txn.table("t")?.put(b"a", b"1")?;
/// txn.commit()?;
/// let keys: Vec<_> = db.read()?.table("t").iter().map(|row| row.unwrap().0).collect();
/// assert_eq!(keys, ["a", "b"]);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TableIter<'v> {
    rows: VecDeque<(Bytes, Bytes)>,
    borrowed: PhantomData<&'v ()>,
}

impl Iterator for TableIter<'_> {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.pop_front().map(Ok)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.rows.len(), Some(self.rows.len()))
    }
}

impl DoubleEndedIterator for TableIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.rows.pop_back().map(Ok)
    }
}

impl ExactSizeIterator for TableIter<'_> {}
impl std::iter::FusedIterator for TableIter<'_> {}

/// A side table in a write transaction: reads see the transaction's own writes.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// let mut txn = db.write()?;
/// let mut table = txn.table("t")?;
/// table.put(b"a", b"1")?;
/// assert!(table.delete(b"a")?);
/// assert_eq!(table.get(b"a")?, None);
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Debug)]
pub struct TableMut<'t> {
    txn: &'t mut WriteTxn,
    name: String,
}

impl<'t> TableMut<'t> {
    pub(crate) fn new(txn: &'t mut WriteTxn, name: &str) -> TableMut<'t> {
        TableMut {
            txn,
            name: name.to_owned(),
        }
    }

    /// The value of a key.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// let mut table = txn.table("raft")?;
    /// assert_eq!(table.get(b"vote")?, None);
    /// table.put(b"vote", b"3")?;
    /// assert_eq!(table.get(b"vote")?.unwrap(), "3"); // its own write
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// None at present: tables are held in memory.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Table::new(self.txn.tables().get(&self.name)).get(key)
    }

    /// Sets a row.
    ///
    /// ```
    /// use revtree::Error;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.table("raft")?.put(b"vote", b"3")?;
    /// let long = txn.table("raft")?.put(&[0; 65_536], b"");
    /// assert!(matches!(long, Err(Error::KeyTooLong { max: 65_535, .. })));
    /// txn.commit()?;
    /// assert_eq!(db.read()?.table("raft").iter().len(), 1);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::KeyTooLong`], [`Error::ValueTooLong`] by the limits of side tables (65,535 bytes and
    /// 16 MiB), [`Error::LimitReached`] when all tables together would pass 64 MiB,
    /// [`Error::TransactionTooLarge`]. The transaction is as before then.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_row(key, value)?;
        self.txn.table_put(&self.name, key, value)
    }

    /// Removes a row; says whether it was there.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// let mut table = txn.table("members")?;
    /// table.put(b"1", b"localhost")?;
    /// assert!(table.delete(b"1")?);
    /// assert!(!table.delete(b"1")?); // already gone
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TransactionTooLarge`]. The transaction is as before then.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool> {
        self.txn.table_delete(&self.name, key)
    }
}

/// Checks a table's name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > TABLE_NAME_BYTES_MAX {
        let max = TABLE_NAME_BYTES_MAX as u64;
        return Err(Error::LimitReached {
            what: "side table name (1 byte or more)",
            max,
        });
    }
    if name == KEYS_TABLE {
        return Err(Error::LimitReached {
            what: "side table named as the keys are",
            max: 0,
        });
    }
    Ok(())
}

/// The name under which the keys themselves are hashed, as etcd's bucket.
pub(crate) const KEYS_TABLE: &str = "key";

/// Checks a row's lengths.
pub(crate) fn check_row(key: &[u8], value: &[u8]) -> Result<()> {
    let (len, max) = (key.len() as u64, TABLE_KEY_BYTES_MAX as u64);
    if len > max {
        return Err(Error::KeyTooLong { len, max });
    }
    let (len, max) = (value.len() as u64, TABLE_VALUE_BYTES_MAX as u64);
    if len > max {
        return Err(Error::ValueTooLong { len, max });
    }
    Ok(())
}
