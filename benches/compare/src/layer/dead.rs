//! What a compaction deletes: found in the index in key order, taken in revision order.
//!
//! etcd goes through the store in revision order, and so does the layer: engines delete neighbours
//! faster than what lies scattered over all their pages. Nothing here knows the store.

use std::collections::VecDeque;
use std::mem;
use std::ops::Bound;

use parking_lot::RwLock;

use crate::layer::Index;
use crate::record::Rev;

/// Superseded revisions found or deleted between two looks at the clock while compacting.
const COMPACT_CHUNK: usize = 500;
/// Revisions that one bucket stands for.
const BUCKET_REVS: u64 = 4096;

/// Superseded revisions, sorted bucket by bucket so that no put waits for all of it.
pub(super) struct Dead {
    floor: u64,
    /// The last key looked at; `None` at the beginning.
    looked_at: Option<Box<[u8]>>,
    is_complete: bool,
    found: u64,
    buckets: VecDeque<Vec<Rev>>,
}

impl Dead {
    pub(super) fn new(floor: u64) -> Dead {
        let buckets = (0..=floor / BUCKET_REVS).map(|_| Vec::new()).collect();
        Dead {
            floor,
            looked_at: None,
            is_complete: false,
            found: 0,
            buckets,
        }
    }

    /// Whether the index was gone through to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Revisions found so far.
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    /// Takes about `COMPACT_CHUNK` superseded revisions out of the index.
    pub(super) fn find_chunk(&mut self, index: &RwLock<Index>) {
        let until = self.found + COMPACT_CHUNK as u64;
        let start = self.looked_at.take();
        let start = start.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut index = index.write();
        for (key, versions) in index.range_mut::<[u8], _>((start, Bound::Unbounded)) {
            let old = versions
                .revs
                .partition_point(|rev| rev.main() <= self.floor);
            for rev in versions.revs.drain(..old.saturating_sub(1)) {
                self.add(rev);
            }
            if self.found >= until {
                self.looked_at = Some(key.clone());
                return;
            }
        }
        self.is_complete = true;
    }

    fn add(&mut self, rev: Rev) {
        let bucket = usize::try_from(rev.main() / BUCKET_REVS).expect("one of those made");
        self.buckets[bucket].push(rev);
        self.found += 1;
    }

    /// The next revisions to delete; none when all are taken.
    pub(super) fn take_chunk(&mut self) -> Vec<Rev> {
        while let Some(bucket) = self.buckets.front_mut() {
            if bucket.is_empty() {
                self.buckets.pop_front();
                continue;
            }
            // Sorted on the first chunk, and cheap to find sorted on the next.
            bucket.sort_unstable();
            let rest = bucket.split_off(COMPACT_CHUNK.min(bucket.len()));
            return mem::replace(bucket, rest);
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::add_version;

    #[test]
    fn all_but_the_newest_at_the_floor_die_in_revision_order() {
        let index = RwLock::new(Index::new());
        // Key k has the revisions k, k + 1000, … up to 9999; the floor cuts the last ones off.
        for main in 0..10_000 {
            let key = (main % 1000u64).to_be_bytes();
            add_version(&mut index.write(), &key, Rev::new(main, 0));
        }
        let mut dead = Dead::new(8_999);
        while !dead.is_complete() {
            dead.find_chunk(&index);
        }
        let mut taken = Vec::new();
        loop {
            let chunk = dead.take_chunk();
            if chunk.is_empty() {
                break;
            }
            taken.extend(chunk);
        }
        assert_eq!(dead.found(), 8_000);
        assert!(
            taken
                .iter()
                .copied()
                .eq((0..8_000).map(|main| Rev::new(main, 0)))
        );
        assert!(
            index
                .read()
                .values()
                .all(|versions| versions.revs.len() == 2)
        );
    }
}
