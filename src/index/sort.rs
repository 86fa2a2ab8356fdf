//! Sorting records by key when the keys are in the records and memory is for eight bytes of each.
//!
//! Apart because it is an algorithm of its own, used once per rebuild. A comparison sort would read
//! two records for each comparison; this one reads each record once a round, as an MSD radix sort
//! with digits of eight bytes does: cut a digit from each key, sort by it, and go on with the
//! groups that it does not tell apart. Bytes that a whole group shares are skipped.

use rayon::prelude::*;
use revtree_format::Position;

use super::keys::Keys;
use super::prefix::{CHUNK_BYTES, chunk, shared};

/// A record to be sorted, with what the index wants to know about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) position: Position,
    digit: u64,
    pub(super) hash: u32,
    /// Bytes of the key from the digit on, 9 for more than 8. Tells `"ab"` from `"ab\0"`.
    rest: u8,
    pub(super) live: bool,
}

impl Item {
    pub(super) fn new(position: Position, hash: u32, live: bool) -> Item {
        Item {
            position,
            digit: 0,
            hash,
            rest: 0,
            live,
        }
    }
}

/// Sorts items, whose keys differ, by key.
pub(super) fn by_key<K: Keys<Error: Send> + Sync>(
    items: &mut [Item],
    keys: &K,
) -> Result<(), K::Error> {
    // Rounds instead of recursion: long keys could make thousands of levels.
    let mut groups = vec![items];
    while !groups.is_empty() {
        let next: Vec<Vec<_>> = groups
            .into_par_iter()
            .map(|group| split(group, keys))
            .collect::<Result<_, K::Error>>()?;
        groups = next.into_iter().flatten().collect();
    }
    Ok(())
}

/// Sorts a group by the first eight bytes that its keys do not all share; returns the groups within
/// it that remain to be sorted.
fn split<'i, K: Keys<Error: Send> + Sync>(
    group: &'i mut [Item],
    keys: &K,
) -> Result<Vec<&'i mut [Item]>, K::Error> {
    let [first, .., last] = &*group else {
        return Ok(Vec::new());
    };
    // Guess from two keys what all of them share; if that is too much, the next pass is right.
    let mut common = keys.with_key(first.position, <[u8]>::to_vec)?;
    common.truncate(keys.with_key(last.position, |key| shared(&common, key))?);
    loop {
        let least = cut_digits(group, &common, keys)?;
        if least >= common.len() {
            break;
        }
        common.truncate(least);
    }
    group.par_sort_unstable_by_key(|item| (item.digit, item.rest));
    let alike = |a: &Item, b: &Item| a.digit == b.digit && a.rest == b.rest;
    Ok(group
        .chunk_by_mut(alike)
        .filter(|alike| alike.len() > 1 && usize::from(alike[0].rest) > CHUNK_BYTES)
        .collect())
}

/// Cuts the digit behind `common` from each key; returns how much of `common` all of them share.
fn cut_digits<K: Keys<Error: Send> + Sync>(
    group: &mut [Item],
    common: &[u8],
    keys: &K,
) -> Result<usize, K::Error> {
    let cut_some = |items: &mut [Item]| {
        items.iter().for_each(|item| keys.prefetch(item.position));
        let mut least = common.len();
        for item in items {
            keys.with_key(item.position, |key| match key.strip_prefix(common) {
                Some(rest) => {
                    item.digit = chunk(rest);
                    item.rest = u8::try_from(rest.len()).unwrap_or(u8::MAX).min(9);
                }
                None => least = least.min(shared(common, key)),
            })?;
        }
        Ok(least)
    };
    let least = group.par_chunks_mut(READ_AHEAD).map(cut_some);
    least.try_reduce(|| common.len(), |a, b| Ok(a.min(b)))
}

/// Records asked for ahead of reading them.
const READ_AHEAD: usize = 64;
