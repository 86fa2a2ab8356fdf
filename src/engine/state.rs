//! What belongs to a revision besides the keys: consistent index, compact revision, side tables.

use std::sync::Arc;

use bytes::Bytes;
use revtree_format::limits::TABLES_BYTES_MAX;
use revtree_format::{Control, Revision};
use rpds::RedBlackTreeMapSync;

use crate::error::{Error, Result};
use crate::options::Applied;

/// One side table: persistent, so that a view holds it as it was for the price of a pointer.
pub(crate) type TableMap = RedBlackTreeMapSync<Bytes, Bytes>;

/// All side tables by name, and the bytes that they count for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    maps: RedBlackTreeMapSync<Arc<str>, TableMap>,
    bytes: u64,
    /// What the items take that make them again, and no less than the longest of them.
    encoded: u64,
    longest: u64,
    /// Raised by each change: along the line of commits equal numbers mean equal tables.
    version: u64,
}

/// What one commit left, without the keys.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The revision from which on it holds.
    pub(crate) rev: Revision,
    pub(crate) applied: Applied,
    pub(crate) compact: Option<Revision>,
    pub(crate) tables: Tables,
}

impl Tables {
    pub(crate) fn get(&self, name: &str) -> Option<&TableMap> {
        self.maps.get(name)
    }

    /// Names and tables in ascending order of name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &TableMap)> {
        self.maps.iter().map(|(name, map)| (&**name, map))
    }

    /// What counts against the limit of all tables.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the items that make them again, as a checkpoint writes them.
    pub(crate) fn encoded_bytes(&self) -> u64 {
        self.encoded
    }

    /// No item that makes them again is longer; what was replaced or deleted since the open counts.
    pub(crate) fn longest_item(&self) -> u64 {
        self.longest
    }

    pub(crate) fn create(&mut self, name: &str) {
        if self.maps.get(name).is_none() {
            self.version += 1;
            self.encoded += create_bytes(name);
            self.bytes += name.len() as u64;
            self.maps.insert_mut(name.into(), TableMap::new_sync());
        }
    }

    /// Sets an entry; nothing changes when the limit of all tables would be passed.
    pub(crate) fn put(&mut self, name: &str, key: Bytes, value: Bytes) -> Result<()> {
        let mut map = self
            .maps
            .get(name)
            .cloned()
            .unwrap_or_else(TableMap::new_sync);
        let (new_table, new_encoded) = if self.maps.get(name).is_none() {
            (name.len() as u64, create_bytes(name))
        } else {
            (0, 0)
        };
        let (old, old_encoded) = map.get(&key).map_or((0, 0), |old| {
            ((key.len() + old.len()) as u64, put_bytes(name, &key, old))
        });
        let bytes = self.bytes + new_table + (key.len() + value.len()) as u64 - old;
        if bytes > TABLES_BYTES_MAX {
            return Err(Error::LimitReached {
                what: "side tables",
                max: TABLES_BYTES_MAX,
            });
        }
        let encoded = put_bytes(name, &key, &value);
        self.encoded += new_encoded + encoded;
        self.longest = self.longest.max(encoded);
        self.encoded -= old_encoded;
        map.insert_mut(key, value);
        self.version += 1;
        self.bytes = bytes;
        self.maps.insert_mut(name.into(), map);
        Ok(())
    }

    pub(crate) fn delete(&mut self, name: &str, key: &[u8]) -> bool {
        let Some(map) = self.maps.get(name) else {
            return false;
        };
        let Some(old) = map.get(key) else {
            return false;
        };
        self.version += 1;
        self.bytes -= (key.len() + old.len()) as u64;
        self.encoded -= put_bytes(name, key, old);
        let map = map.remove(key);
        self.maps.insert_mut(name.into(), map);
        true
    }

    /// Applies one control item that is about tables.
    pub(crate) fn apply(&mut self, item: &Control<'_>) -> Result<()> {
        match *item {
            Control::TableCreate { table } => self.create(table),
            Control::TablePut { table, key, value } => {
                self.put(
                    table,
                    Bytes::copy_from_slice(key),
                    Bytes::copy_from_slice(value),
                )?;
            }
            Control::TableDelete { table, key } => {
                self.delete(table, key);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether both are the same, for two states of one line of commits.
    pub(crate) fn same(&self, other: &Tables) -> bool {
        self.version == other.version
    }
}

fn create_bytes(table: &str) -> u64 {
    Control::TableCreate { table }.encoded_len() as u64
}

fn put_bytes(table: &str, key: &[u8], value: &[u8]) -> u64 {
    Control::TablePut { table, key, value }.encoded_len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that L-6 limits, counted anew.
    fn recount(tables: &Tables) -> u64 {
        let row = |(key, value): (&Bytes, &Bytes)| key.len() + value.len();
        let rows = |map: &TableMap| map.iter().map(row).sum::<usize>();
        let table = |(name, map): (&str, &TableMap)| name.len() + rows(map);
        tables.iter().map(table).sum::<usize>() as u64
    }

    /// The bytes of the items that make the tables again.
    fn encoded(tables: &Tables) -> u64 {
        let mut items = Vec::new();
        for (table, map) in tables.iter() {
            Control::TableCreate { table }.encode(&mut items);
            for (key, value) in map {
                Control::TablePut { table, key, value }.encode(&mut items);
            }
        }
        items.len() as u64
    }

    /// L-6: a table counts with its name, a row with key and value; a row that is replaced or deleted no longer
    /// counts. B-62, B-63: a replayed item does what the call did, and each change is one.
    #[test]
    fn tables_count_what_they_hold() {
        let put = |table, key, value| Control::TablePut { table, key, value };
        let delete = |table, key| Control::TableDelete { table, key };
        let steps: [(Control<'_>, u64, bool); 11] = [
            (Control::TableCreate { table: "lease" }, 5, true),
            (Control::TableCreate { table: "lease" }, 5, false),
            (put("lease", b"key", b"value"), 13, true),
            (put("meta", b"term", b"7"), 22, true),
            (put("lease", b"key", b"longer value"), 29, true),
            (put("lease", b"", b""), 29, true),
            (delete("lease", b"ke"), 29, false),
            (delete("none", b"key"), 29, false),
            (delete("lease", b"key"), 14, true),
            (delete("meta", b"term"), 9, true),
            (Control::TableCreate { table: "x" }, 10, true),
        ];
        let mut tables = Tables::default();
        for (item, bytes, changes) in steps {
            let before = tables.clone();
            tables.apply(&item).unwrap();
            assert_eq!(tables.bytes(), bytes, "{item:?}");
            assert_eq!(recount(&tables), bytes, "{item:?}");
            assert_eq!(tables.encoded_bytes(), encoded(&tables), "{item:?}");
            assert_eq!(!tables.same(&before), changes, "{item:?}");
        }
        let names: Vec<&str> = tables.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["lease", "meta", "x"]);
    }

    /// L-6: what fills the limit to the last byte is taken, one byte more is refused and changes nothing; a row
    /// that takes the place of another counts for the difference.
    #[test]
    fn tables_end_at_their_limit() {
        let value = |len: u64| Bytes::from(vec![0; usize::try_from(len).unwrap()]);
        let key = || Bytes::from_static(b"key");
        let mut tables = Tables::default();
        tables.put("t", key(), value(TABLES_BYTES_MAX - 4)).unwrap();
        assert_eq!(tables.bytes(), TABLES_BYTES_MAX);
        let full = tables.clone();
        let refused = |result| {
            matches!(
                result,
                Err(Error::LimitReached {
                    max: TABLES_BYTES_MAX,
                    ..
                })
            )
        };
        assert!(refused(tables.put("t", Bytes::new(), value(1))));
        assert!(refused(tables.put("u", Bytes::new(), Bytes::new())));
        assert!(refused(tables.put("t", key(), value(TABLES_BYTES_MAX - 3))));
        assert!(tables.same(&full));
        tables.put("t", key(), value(TABLES_BYTES_MAX - 4)).unwrap();
        assert_eq!(tables.bytes(), TABLES_BYTES_MAX);
    }
}
