//! The separators of an inner node: which child a key belongs to.
//!
//! Apart because nodes share them: a change below an inner node copies its child pointers, but
//! the separators only if a child was split. They are never looked up through records.

use super::prefix::{chunk, shared};

/// Sorted byte strings. Child `i` holds the keys from separator `i - 1` on and below separator `i`.
#[derive(Debug)]
pub(super) struct Separators {
    /// Shared by all of them.
    prefix: Box<[u8]>,
    /// The first eight bytes after the prefix, which mostly decide, and lie together.
    chunks: Box<[u64]>,
    /// Where each one's remaining bytes end in `bytes`.
    ends: Box<[u32]>,
    bytes: Box<[u8]>,
}

impl Separators {
    /// At most [`super::node::FANOUT`] strings of at most 65,535 bytes, so that `u32` suffices.
    pub(super) fn new(list: &[Box<[u8]>]) -> Separators {
        // Of sorted strings the first and the last would do. Each is asked, because a crafted index run
        // can bring about a split that leaves them unsorted; that must not cut beyond a string's end.
        let prefix = match list {
            [] => &[][..],
            [first, rest @ ..] => {
                let shared = rest.iter().map(|other| shared(first, other)).min();
                &first[..shared.unwrap_or(first.len())]
            }
        };
        let chunks = list
            .iter()
            .map(|separator| chunk(&separator[prefix.len()..]))
            .collect();
        let mut ends = Vec::with_capacity(list.len());
        let total: usize = list
            .iter()
            .map(|separator| separator.len() - prefix.len())
            .sum();
        let mut bytes = Vec::with_capacity(total);
        for separator in list {
            bytes.extend_from_slice(&separator[prefix.len()..]);
            ends.push(u32::try_from(bytes.len()).expect("64 strings of 65,535 bytes fit"));
        }
        Separators {
            prefix: prefix.into(),
            chunks,
            ends: ends.into(),
            bytes: bytes.into(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The child that `key` belongs to: the number of separators at or below it.
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            return if *key < *self.prefix { 0 } else { self.len() };
        };
        let chunk = chunk(rest);
        let mut low = self.chunks.partition_point(|other| *other < chunk);
        let equal = self.chunks[low..]
            .iter()
            .take_while(|other| **other == chunk)
            .count();
        let mut high = low + equal;
        while low < high {
            let middle = (low + high) / 2;
            if self.rest(middle) <= rest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The separator in full.
    pub(super) fn get(&self, at: usize) -> Box<[u8]> {
        [&*self.prefix, self.rest(at)].concat().into()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Separators>()
            + self.prefix.len()
            + size_of_val(&*self.chunks)
            + size_of_val(&*self.ends)
            + self.bytes.len()
            + ARC_COUNTS
    }

    fn rest(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start as usize..self.ends[at] as usize]
    }
}

/// The two counters in front of what an `Arc` holds.
const ARC_COUNTS: usize = 2 * size_of::<usize>();

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A file may claim an index run whose entries name records of other keys. Where its chunks tie, a
    /// split takes the separator from those records, and it can lie out of order: shorter than what the
    /// first and the last share. Cutting it there panicked, where the split may have freed nodes that the draft
    /// still links.
    #[test]
    fn separators_out_of_order_are_kept_whole() {
        let list: [Box<[u8]>; 3] = [(*b"aaaa1").into(), (*b"b").into(), (*b"aaaa2").into()];
        let separators = Separators::new(&list);
        for (at, separator) in list.iter().enumerate() {
            assert_eq!(separators.get(at), *separator);
        }
        assert!(separators.child_of(b"aaaa1") <= separators.len());
    }
}
