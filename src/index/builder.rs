//! Building the index anew from a scan of the log, when no run of it is on disk.
//!
//! Apart because it holds other things than the index does: per key only hash and newest position,
//! by hash and in parallel, and the order at the very end.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use rayon::prelude::*;
use revtree_format::{Position, Revision};

use super::image::{EntryImage, ImageFault, LeafImage, from_leaves};
use super::keys::Keys;
use super::leaf::{ENTRIES, between};
use super::prefix::{chunk, shared};
use super::sort::{Item, by_key};
use super::{IndexWriter, KeyIndex, upper};

/// A record that the scan has met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanned {
    /// [`KeyIndex::hash`] of its key, by the same secret.
    pub(crate) hash: u64,
    pub(crate) position: Position,
    /// It is a put.
    pub(crate) live: bool,
}

/// The newest record of each key so far.
pub(crate) struct Builder {
    parts: Vec<Part>,
}

/// Why an index could not be built.
#[derive(Debug)]
pub(crate) enum BuildFault<E> {
    /// A key could not be read.
    Keys(E),
    /// The result was refused: more keys than an index holds, or records that changed while they
    /// were read.
    Image(ImageFault),
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            parts: (0..PARTS).map(|_| Part::default()).collect(),
        }
    }

    /// Takes the next records of the scan, in revision order: a later record of a key replaces an
    /// earlier one. Keys are compared if all 64 bits of their hashes agree, and only then.
    ///
    /// # Errors
    ///
    /// If a record cannot be read; the builder is of no use then.
    pub(crate) fn absorb<K: Keys<Error: Send> + Sync>(
        &mut self,
        wave: Vec<Scanned>,
        keys: &K,
    ) -> Result<(), K::Error> {
        let mut parted: Vec<Vec<Scanned>> = vec![Vec::new(); PARTS];
        for scanned in wave {
            parted[part_of(scanned.hash)].push(scanned);
        }
        let parts = self.parts.par_iter_mut().zip(parted);
        parts.try_for_each(|(part, wave)| part.absorb(&wave, keys))
    }

    /// Sorts the keys and builds the index, with full leaves, as the state of `revision`.
    ///
    /// # Errors
    ///
    /// If a record cannot be read, or there are too many keys.
    pub(crate) fn finish<K: Keys<Error: Send> + Sync>(
        self,
        secret: [u8; 16],
        revision: Revision,
        keys: &K,
    ) -> Result<(Arc<KeyIndex>, IndexWriter), BuildFault<K::Error>> {
        let mut items: Vec<Item> = self
            .parts
            .into_par_iter()
            .flat_map_iter(Part::items)
            .collect();
        by_key(&mut items, keys).map_err(BuildFault::Keys)?;
        let leaves = (0..items.len().div_ceil(ENTRIES)).into_par_iter();
        let leaves = leaves.map(|number| leaf(&items, number * ENTRIES, keys));
        let leaves = leaves.collect::<Result<_, _>>().map_err(BuildFault::Keys)?;
        drop(items);
        from_leaves(secret, revision, leaves).map_err(BuildFault::Image)
    }
}

/// The leaf whose first entry is item number `start`.
fn leaf<K: Keys>(items: &[Item], start: usize, keys: &K) -> Result<LeafImage, K::Error> {
    let own = &items[start..items.len().min(start + ENTRIES)];
    own.iter().for_each(|item| keys.prefetch(item.position));
    let mut prefix = keys.with_key(own[0].position, <[u8]>::to_vec)?;
    let separator = match start.checked_sub(1) {
        None => Vec::new(),
        Some(before) => {
            let first = &prefix;
            keys.with_key(items[before].position, |key| between(key, first))?
                .into()
        }
    };
    prefix.truncate(keys.with_key(own[own.len() - 1].position, |key| shared(&prefix, key))?);
    let entry = |item: &Item| {
        let cut = |key: &[u8]| chunk(key.get(prefix.len()..).unwrap_or_default());
        let chunk = keys.with_key(item.position, cut)?;
        let Item {
            position,
            hash,
            live,
            ..
        } = *item;
        Ok(EntryImage {
            chunk,
            hash,
            live,
            position,
        })
    };
    let entries = own.iter().map(entry).collect::<Result<_, _>>()?;
    Ok(LeafImage {
        separator,
        prefix,
        entries,
    })
}

/// The keys of some hashes; several parts so that several threads can work.
#[derive(Default)]
struct Part {
    newest: HashMap<u64, Newest, BuildHasherDefault<AsItIs>>,
    /// Keys whose whole hash another key had before them. Expect none.
    others: Vec<(u64, Newest)>,
}

#[derive(Clone, Copy)]
struct Newest {
    position: Position,
    live: bool,
}

impl Part {
    fn absorb<K: Keys>(&mut self, wave: &[Scanned], keys: &K) -> Result<(), K::Error> {
        // First ask for everything that the comparisons will read, then compare.
        for scanned in wave {
            if let Some(newest) = self.newest.get(&scanned.hash) {
                keys.prefetch(newest.position);
                keys.prefetch(scanned.position);
            }
        }
        wave.iter()
            .try_for_each(|scanned| self.take(*scanned, keys))
    }

    fn take<K: Keys>(&mut self, scanned: Scanned, keys: &K) -> Result<(), K::Error> {
        let Scanned {
            hash,
            position,
            live,
        } = scanned;
        let new = Newest { position, live };
        let same =
            |old: &Newest| keys.with_key(old.position, |a| keys.with_key(position, |b| a == b))?;
        let Some(newest) = self.newest.get_mut(&hash) else {
            self.newest.insert(hash, new);
            return Ok(());
        };
        if same(newest)? {
            *newest = new;
            return Ok(());
        }
        for (_, other) in self.others.iter_mut().filter(|(other, _)| *other == hash) {
            if same(other)? {
                *other = new;
                return Ok(());
            }
        }
        self.others.push((hash, new));
        Ok(())
    }

    fn items(self) -> impl Iterator<Item = Item> {
        let item =
            |(hash, newest): (u64, Newest)| Item::new(newest.position, upper(hash), newest.live);
        self.newest.into_iter().chain(self.others).map(item)
    }
}

/// A hash as its own hash: it is keyed and mixed already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// By bits of the middle: the standard map uses those of both ends.
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

const PARTS: usize = 64;
