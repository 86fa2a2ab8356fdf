//! The index as plain data, leaf by leaf: what a run on disk holds, and the way back.
//!
//! Apart because the run's bytes are somebody else's business; here is only what they mean. Coming
//! back reads no record, and trusts nothing that it can check without one.

use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;
use revtree_format::{Position, Revision};
use siphasher::sip::SipHasher13;

use super::heads::Heads;
use super::leaf::{ENTRIES, Leaf, Piece, between};
use super::map::Map;
use super::meter::Meter;
use super::node::Tree;
use super::prefix::{chunk, shared};
use super::writer::KEYS_MAX;
use super::{IndexWriter, KeyId, KeyIndex, pin, tree, upper};

/// A leaf of the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LeafImage {
    /// Keys of this leaf are not below it, those of the leaf before are. Empty for the first.
    pub(crate) separator: Vec<u8>,
    /// All keys of this leaf begin with it.
    pub(crate) prefix: Vec<u8>,
    /// In key order.
    pub(crate) entries: Vec<EntryImage>,
}

/// A key in a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryImage {
    /// Eight bytes of the key after the leaf's prefix, big-endian, zeros behind its end.
    pub(crate) chunk: u64,
    /// The upper half of the key's hash.
    pub(crate) hash: u32,
    /// The newest record is a put.
    pub(crate) live: bool,
    /// The newest record.
    pub(crate) position: Position,
}

/// A key and what an index says of it: for leaves that are made from keys in order.
#[derive(Clone, Debug)]
pub(crate) struct KeyedEntry {
    pub(crate) key: Vec<u8>,
    /// [`KeyIndex::hash`] of the key.
    pub(crate) hash: u64,
    /// The newest record is a put.
    pub(crate) live: bool,
    /// The newest record.
    pub(crate) position: Position,
}

impl LeafImage {
    /// Entries of a full leaf.
    pub(crate) const ENTRIES: usize = ENTRIES;

    /// The leaf of these keys, which ascend; `before` is the last key of the leaf before it.
    pub(crate) fn of(before: Option<&[u8]>, keys: &[KeyedEntry]) -> LeafImage {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
            return LeafImage {
                separator: Vec::new(),
                prefix: Vec::new(),
                entries: Vec::new(),
            };
        };
        let prefix = shared(&first.key, &last.key);
        let entry = |entry: &KeyedEntry| EntryImage {
            chunk: chunk(entry.key.get(prefix..).unwrap_or_default()),
            hash: upper(entry.hash),
            live: entry.live,
            position: entry.position,
        };
        LeafImage {
            separator: before.map_or(Vec::new(), |before| between(before, &first.key).into()),
            prefix: first.key[..prefix].to_vec(),
            entries: keys.iter().map(entry).collect(),
        }
    }
}

/// Why a list of leaves cannot be an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ImageFault {
    /// More keys than an index holds.
    TooManyKeys,
    /// A leaf, by number, with no entry or too many, with entries out of order or nowhere.
    Entries(usize),
    /// A leaf, by number, whose low bound does not separate it from the leaf before it.
    Separator(usize),
}

impl fmt::Display for ImageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageFault::TooManyKeys => write!(f, "more keys than an index holds"),
            ImageFault::Entries(leaf) => write!(f, "bad entries in leaf {leaf} of the key index"),
            ImageFault::Separator(leaf) => {
                write!(f, "bad low bound of leaf {leaf} of the key index")
            }
        }
    }
}

impl std::error::Error for ImageFault {}

/// An index of these leaves, which counts up to `revision`.
///
/// # Errors
///
/// If the leaves contradict each other. What only the records could tell is not noticed here: a
/// hash, a position or a chunk of another key.
pub(crate) fn from_leaves(
    secret: [u8; 16],
    revision: Revision,
    leaves: Vec<LeafImage>,
) -> Result<(Arc<KeyIndex>, IndexWriter), ImageFault> {
    check(&leaves)?;
    // Ids are given in key order, so each leaf's begin where those of the leaves before it end.
    let mut first = Vec::with_capacity(leaves.len());
    let mut total = 0_usize;
    for leaf in &leaves {
        first.push(total);
        total += leaf.entries.len();
    }
    let next = u32::try_from(total).ok().filter(|keys| *keys <= KEYS_MAX);
    let next = next.ok_or(ImageFault::TooManyKeys)?;

    let meter = Meter::default();
    let heads = Heads::new(meter.clone());
    let (map, mut map_writer) = Map::with_room(total, meter.clone());
    map_writer.fill(total, |slot| fill_slots(&leaves, &first, slot));
    let mut pieces = Vec::with_capacity(leaves.len());
    let leaves = leaves.into_par_iter().zip(first);
    leaves
        .map(|(leaf, first)| piece(leaf, first, &heads))
        .collect_into_vec(&mut pieces);
    let (tree, draft) = Tree::new(pieces, revision, meter.clone());
    let hasher = SipHasher13::new_with_key(&secret);
    let index = Arc::new(KeyIndex {
        hasher,
        heads,
        map,
        tree,
        meter,
    });
    let writer = IndexWriter::new(Arc::clone(&index), map_writer, draft, next);
    Ok((index, writer))
}

/// Shows every leaf of the current version.
pub(super) fn show(index: &KeyIndex, mut visit: impl FnMut(LeafImage)) {
    let guard = pin();
    let version = index.tree.read(&guard);
    if version.sizes().all == 0 {
        return;
    }
    // Slots know hash and id, leaves only the id: turn the table round. Every id of this version
    // has a slot, since no key is removed while a store is closed; later ones are not in its leaves.
    let mut hashes: Vec<u32> = Vec::new();
    index.map.each(&guard, |hash, id| {
        let at = id.0 as usize;
        if hashes.len() <= at {
            hashes.resize(at + 1, 0);
        }
        hashes[at] = hash;
    });
    tree::each_leaf(version.root(), [].into(), &mut |separator, leaf| {
        let entry = |at: usize| {
            let id = leaf.ids[at];
            EntryImage {
                chunk: leaf.chunks[at],
                hash: hashes[id.0 as usize],
                live: leaf.is_live(at),
                position: index.heads.load(id),
            }
        };
        visit(LeafImage {
            separator: separator.into(),
            prefix: leaf.prefix.to_vec(),
            entries: (0..leaf.len()).map(entry).collect(),
        });
    });
}

/// Enters every key into the table. First by the top bits of the hash, which choose the bucket, so
/// that each thread then works on a part of the table that its cache holds.
fn fill_slots(leaves: &[LeafImage], first: &[usize], slot: &(dyn Fn(u32, KeyId) + Sync)) {
    let parted = leaves
        .par_chunks(LEAVES_AT_ONCE)
        .zip(first.par_chunks(LEAVES_AT_ONCE));
    let parted = parted.map(|(leaves, first)| {
        let mut parts = vec![Vec::new(); 1 << PART_BITS];
        for (leaf, first) in leaves.iter().zip(first) {
            for (entry, number) in leaf.entries.iter().zip(*first..) {
                parts[(entry.hash >> (32 - PART_BITS)) as usize].push((entry.hash, id(number)));
            }
        }
        parts
    });
    let parted: Vec<Vec<Vec<(u32, KeyId)>>> = parted.collect();
    (0..1 << PART_BITS).into_par_iter().for_each(|part: usize| {
        let entries = parted.iter().flat_map(|parts| &parts[part]);
        entries.for_each(|(hash, id)| slot(*hash, *id));
    });
}

/// The leaf, whose keys have the ids from number `first` on; stores their heads.
fn piece(image: LeafImage, first: usize, heads: &Heads) -> Piece {
    for (entry, number) in image.entries.iter().zip(first..) {
        heads.store(id(number), entry.position);
    }
    let ids = (first..first + image.entries.len()).map(id).collect();
    let chunks = image.entries.iter().map(|entry| entry.chunk).collect();
    let live = image
        .entries
        .iter()
        .rev()
        .fold(0, |bits, entry| bits << 1 | u64::from(entry.live));
    let leaf = Leaf {
        prefix: image.prefix.into(),
        chunks,
        ids,
        live,
    };
    Piece {
        separator: image.separator.into(),
        leaf,
    }
}

fn id(number: usize) -> KeyId {
    KeyId(u32::try_from(number).expect("below the total, which was checked"))
}

fn check(leaves: &[LeafImage]) -> Result<(), ImageFault> {
    leaves
        .par_iter()
        .enumerate()
        .try_for_each(|(number, leaf)| {
            let sound = (1..=ENTRIES).contains(&leaf.entries.len())
                && leaf.prefix.len() <= KEY_BYTES_MAX
                && leaf.entries.is_sorted_by_key(|entry| entry.chunk)
                && leaf
                    .entries
                    .iter()
                    .all(|entry| entry.position != Position::NONE);
            if !sound {
                return Err(ImageFault::Entries(number));
            }
            let separates = match number.checked_sub(1) {
                None => leaf.separator.is_empty(),
                Some(before) => separates(&leaves[before], leaf),
            };
            if separates {
                Ok(())
            } else {
                Err(ImageFault::Separator(number))
            }
        })
}

/// Whether the low bound of `right` can lie above every key of `left` and not above any of its
/// own, by what the leaves know of their keys; and whether it lies above the low bound of `left`.
fn separates(left: &LeafImage, right: &LeafImage) -> bool {
    let (Some(last), Some(first)) = (left.entries.last(), right.entries.first()) else {
        return false;
    };
    // Zeros at the end may be padding; without them it is a prefix of the key, so not above it.
    let mut at_least = known(&left.prefix, last.chunk);
    let zeros = (last.chunk.trailing_zeros() / 8) as usize;
    at_least.truncate(at_least.len() - zeros);
    // A key goes on after its known bytes in ways unknown, so only they are compared.
    let begins = known(&right.prefix, first.chunk);
    let bound = &right.separator[..right.separator.len().min(begins.len())];
    right.separator.len() <= KEY_BYTES_MAX
        && left.separator < right.separator
        && at_least < right.separator
        && *bound <= *begins
}

fn known(prefix: &[u8], chunk: u64) -> Vec<u8> {
    [prefix, &chunk.to_be_bytes()].concat()
}

/// A 64th of the table at a time: of a million keys, 256 KiB.
const PART_BITS: u32 = 6;
const LEAVES_AT_ONCE: usize = 1024;
/// The longest key.
const KEY_BYTES_MAX: usize = 65_535;
