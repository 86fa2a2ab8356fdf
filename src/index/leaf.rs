//! A leaf: up to 64 keys in order, each as eight bytes and an id.
//!
//! Apart because all comparing with records happens here. A leaf is immutable; changing it makes
//! one or two others. It must not know where it hangs.

use std::cmp::Ordering;
use std::ops::Range;

use super::KeyId;
use super::keys::{Keys, Reader};
use super::place::Sizes;
use super::prefix::{CHUNK_BYTES, chunk, chunk_behind, chunk_shared, shared};

/// A prefix, and the chunks of keys behind it.
type PrefixAndChunks = (Box<[u8]>, Box<[u64]>);

/// *Invariants*: as many chunks as ids, sorted by key; every key begins with `prefix`; `chunks`
/// are the bytes after it; bit `i` of `live` says whether the newest record of entry `i` is a put.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) prefix: Box<[u8]>,
    pub(super) chunks: Box<[u64]>,
    pub(super) ids: Box<[KeyId]>,
    pub(super) live: u64,
}

/// A leaf and the low bound under which it hangs; the first of several takes the place, and the
/// bound, of the one that it replaces.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) separator: Box<[u8]>,
    pub(super) leaf: Leaf,
}

/// On which side of a key the entries count that cannot be read, and so not be compared with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unread {
    Above,
    Below,
}

/// Where a key lies among the entries.
enum Spot<E> {
    /// It is this one.
    Entry(usize),
    /// It is none of them, and belongs before this one.
    Before(usize),
    /// It is or lies beside one of these, none of which can be read.
    Among(Range<usize>, E),
}

impl Leaf {
    pub(super) fn empty() -> Leaf {
        Leaf {
            prefix: [].into(),
            chunks: [].into(),
            ids: [].into(),
            live: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Bytes outside of the struct itself.
    pub(super) fn bytes(&self) -> usize {
        self.prefix.len() + size_of_val(&*self.chunks) + size_of_val(&*self.ids)
    }

    /// The first `len` entries: those alive, and all.
    pub(super) fn sizes_before(&self, len: usize) -> Sizes {
        let live = (u128::from(self.live) & below(len)).count_ones();
        Sizes {
            live,
            all: u32::try_from(len).expect("at most 64 entries"),
        }
    }

    pub(super) fn is_live(&self, at: usize) -> bool {
        self.live >> at & 1 == 1
    }

    /// A copy in which entry `at` is live or dead.
    pub(super) fn with_live(&self, at: usize, live: bool) -> Leaf {
        let (prefix, chunks, ids) = (self.prefix.clone(), self.chunks.clone(), self.ids.clone());
        Leaf {
            prefix,
            chunks,
            ids,
            live: self.live & !(1 << at) | u64::from(live) << at,
        }
    }

    /// A copy without entry `at`. The prefix stays, since it is that of the others too.
    pub(super) fn without(&self, at: usize) -> Leaf {
        let (mut chunks, mut ids) = (self.chunks.to_vec(), self.ids.to_vec());
        chunks.remove(at);
        ids.remove(at);
        let bits = u128::from(self.live);
        let bits = bits & below(at) | (bits >> 1) & !below(at);
        Leaf {
            prefix: self.prefix.clone(),
            chunks: chunks.into(),
            ids: ids.into(),
            live: low_bits(bits),
        }
    }

    /// How many entries have a key below `key`, or at most `key` if `through`. Those that cannot be
    /// read, and that the others do not tell the side of, are where `unread` says; why one of them cannot
    /// is left in `doubt`.
    pub(super) fn rank<K: Keys>(
        &self,
        key: &[u8],
        through: bool,
        unread: Unread,
        reader: &Reader<'_, K>,
        doubt: &mut Option<K::Error>,
    ) -> usize {
        match self.spot(key, reader) {
            Spot::Entry(at) => at + usize::from(through),
            Spot::Before(at) => at,
            Spot::Among(entries, error) => {
                *doubt = Some(error);
                match unread {
                    Unread::Above => entries.start,
                    Unread::Below => entries.end,
                }
            }
        }
    }

    fn spot<K: Keys>(&self, key: &[u8], reader: &Reader<'_, K>) -> Spot<K::Error> {
        let Range {
            start: mut low,
            end: mut high,
        } = self.ties(key);
        while low < high {
            let middle = (low + high) / 2;
            match reader.compare(self.ids[middle], key) {
                Ok(Ordering::Less) => low = middle + 1,
                Ok(Ordering::Equal) => return Spot::Entry(middle),
                Ok(Ordering::Greater) => high = middle,
                Err(error) => return self.spot_beside(low..high, key, reader, error),
            }
        }
        Spot::Before(low)
    }

    /// The same where an entry of `ties` cannot be read: those that can be are asked one by one, and
    /// as they are in order, the nearest below and above tell the side of all but what lies between.
    fn spot_beside<K: Keys>(
        &self,
        ties: Range<usize>,
        key: &[u8],
        reader: &Reader<'_, K>,
        error: K::Error,
    ) -> Spot<K::Error> {
        let mut between = ties.start..ties.end;
        for at in ties {
            match reader.compare(self.ids[at], key) {
                Ok(Ordering::Less) => between.start = at + 1,
                Ok(Ordering::Equal) => return Spot::Entry(at),
                Ok(Ordering::Greater) => {
                    between.end = at;
                    break;
                }
                Err(_) => {}
            }
        }
        if between.is_empty() {
            Spot::Before(between.start)
        } else {
            Spot::Among(between, error)
        }
    }

    /// This leaf with one entry more, in two if it was full. `key` is absent, and the reader knows
    /// it. `last` says that this is the tree's last leaf: keys that come in order then fill leaves
    /// to the brim instead of leaving them half empty.
    ///
    /// An entry that cannot be read is in the way only where nothing else tells on which side of the
    /// key it lies.
    pub(super) fn with<K: Keys>(
        &self,
        key: &[u8],
        id: KeyId,
        live: bool,
        last: bool,
        reader: &Reader<'_, K>,
    ) -> Result<Vec<Piece>, K::Error> {
        let at = match self.spot(key, reader) {
            Spot::Entry(at) | Spot::Before(at) => at,
            Spot::Among(_, error) => return Err(error),
        };
        let keep = if self.len() == 0 {
            key.len()
        } else {
            shared(&self.prefix, key)
        };
        let front = self.prefix.get(keep..).unwrap_or_default();
        let moved = |chunk: &u64| chunk_behind(front, *chunk);
        let mut chunks = Vec::with_capacity(self.len() + 1);
        chunks.extend(self.chunks[..at].iter().map(moved));
        chunks.push(chunk(&key[keep..]));
        chunks.extend(self.chunks[at..].iter().map(moved));
        let mut ids = Vec::with_capacity(self.len() + 1);
        ids.extend_from_slice(&self.ids[..at]);
        ids.push(id);
        ids.extend_from_slice(&self.ids[at..]);
        let bits = u128::from(self.live);
        let bits = bits & below(at) | u128::from(live) << at | (bits & !below(at)) << 1;

        let whole = Leaf {
            prefix: key[..keep].into(),
            chunks: chunks.into(),
            ids: ids.into(),
            live: low_bits(bits),
        };
        if whole.len() <= ENTRIES {
            return Ok(vec![Piece {
                separator: [].into(),
                leaf: whole,
            }]);
        }
        let cut = if last && at == self.len() {
            at
        } else {
            whole.len() / 2
        };
        let (cut, separator) = whole.cut(cut, reader)?;
        let left = whole.part(0..cut, low_bits(bits & below(cut)), reader);
        let right = whole.part(cut..whole.len(), low_bits(bits >> cut), reader);
        Ok(vec![
            Piece {
                separator: [].into(),
                leaf: left,
            },
            Piece {
                separator,
                leaf: right,
            },
        ])
    }

    /// Entries that their chunk does not tell from `key`; an empty range where it belongs if there
    /// are none.
    fn ties(&self, key: &[u8]) -> Range<usize> {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            let all = if *key < *self.prefix { 0 } else { self.len() };
            return all..all;
        };
        let chunk = chunk(rest);
        let low = self.chunks.partition_point(|other| *other < chunk);
        let equal = self.chunks[low..]
            .iter()
            .take_while(|other| **other == chunk)
            .count();
        low..low + equal
    }

    /// The entries of `range`, with a longer prefix if their chunks tell them badly apart. That
    /// costs a read of each key, so it waits until half a chunk is shared; where one cannot be read,
    /// the prefix stays.
    fn part<K: Keys>(&self, range: Range<usize>, live: u64, reader: &Reader<'_, K>) -> Leaf {
        let (chunks, ids) = (&self.chunks[range.clone()], &self.ids[range]);
        let badly_apart = match (chunks.first(), chunks.last()) {
            (Some(first), Some(last)) => chunk_shared(*first, *last) >= CHUNK_BYTES / 2,
            _ => false,
        };
        let longer = badly_apart.then(|| self.longer_prefix(ids, reader).ok().flatten());
        let (prefix, chunks) = match longer.flatten() {
            Some((prefix, chunks)) => (prefix, chunks),
            None => (self.prefix.clone(), chunks.into()),
        };
        Leaf {
            prefix,
            chunks,
            ids: ids.into(),
            live,
        }
    }

    /// The prefix that these entries, some of this leaf's, share, and their chunks behind it; `None`
    /// if it is no longer than the leaf's.
    fn longer_prefix<K: Keys>(
        &self,
        ids: &[KeyId],
        reader: &Reader<'_, K>,
    ) -> Result<Option<PrefixAndChunks>, K::Error> {
        reader.prefetch(ids);
        let mut prefix = reader.copy(ids[0])?;
        prefix.truncate(reader.with(ids[ids.len() - 1], |key| shared(&prefix, key))?);
        if prefix.len() <= self.prefix.len() {
            return Ok(None);
        }
        let chunk_of = |id: &KeyId| {
            reader.with(*id, |key| {
                chunk(key.get(prefix.len()..).unwrap_or_default())
            })
        };
        let chunks = ids.iter().map(chunk_of).collect::<Result<_, _>>()?;
        Ok(Some((prefix.into(), chunks)))
    }

    /// Where to cut, as near to `wanted` as it can be told what lies between the two sides, and that.
    fn cut<K: Keys>(
        &self,
        wanted: usize,
        reader: &Reader<'_, K>,
    ) -> Result<(usize, Box<[u8]>), K::Error> {
        let refused = match self.separator(wanted, reader) {
            Ok(separator) => return Ok((wanted, separator)),
            Err(error) => error,
        };
        for away in 1..self.len() {
            let sides = [wanted.checked_sub(away), Some(wanted + away)];
            let sides = sides.into_iter().flatten();
            for at in sides.filter(|at| (1..self.len()).contains(at)) {
                if let Ok(separator) = self.separator(at, reader) {
                    return Ok((at, separator));
                }
            }
        }
        Err(refused)
    }

    /// The shortest string above entry `at - 1` and not above entry `at`.
    fn separator<K: Keys>(&self, at: usize, reader: &Reader<'_, K>) -> Result<Box<[u8]>, K::Error> {
        let (left, right) = (self.chunks[at - 1], self.chunks[at]);
        let equal = chunk_shared(left, right);
        if equal < CHUNK_BYTES {
            // The right one's byte here is above the left one's, so it is not zero, so it is not
            // padding: the key really begins with these bytes.
            return Ok([&*self.prefix, &right.to_be_bytes()[..=equal]]
                .concat()
                .into());
        }
        let left = reader.copy(self.ids[at - 1])?;
        reader.with(self.ids[at], |right| between(&left, right))
    }
}

/// The shortest prefix of `right` above `left`.
pub(super) fn between(left: &[u8], right: &[u8]) -> Box<[u8]> {
    right.get(..=shared(left, right)).unwrap_or(right).into()
}

/// A mask of the lowest `len` bits.
fn below(len: usize) -> u128 {
    (1 << len) - 1
}

fn low_bits(bits: u128) -> u64 {
    (bits & 0xffff_ffff_ffff_ffff) as u64
}

/// Entries of a leaf at most: one bit each in `live`.
pub(super) const ENTRIES: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };
