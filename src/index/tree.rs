//! Order: finding places in the tree, counting and walking by rank.
//!
//! Apart from the nodes because it is all safe code, and from the leaves because it crosses them.
//! It must not know about hashes, nor which revision a version belongs to.

use std::ops::Bound;

use super::KeyId;
use super::keys::{Keys, Reader};
use super::leaf::{Leaf, Piece, Unread};
use super::node::{Body, Draft, Node};
use super::place::{Path, Sizes};

/// How many entries lie between two bounds, and where: entries number `from..to` of the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: Sizes,
    pub(super) to: Sizes,
}

/// The entries within the bounds, those too of which that cannot be told because they cannot be
/// read, with the reason; an empty span if the bounds cross.
pub(super) fn span<K: Keys>(
    root: &Node,
    sizes: Sizes,
    lower: Bound<&[u8]>,
    upper: Bound<&[u8]>,
    reader: &Reader<'_, K>,
) -> (Span, Option<K::Error>) {
    let mut doubt = None;
    let mut below = |key, through, unread| rank(root, key, through, unread, reader, &mut doubt);
    let from = match lower {
        Bound::Unbounded => Sizes::default(),
        Bound::Included(key) => below(key, false, Unread::Above),
        Bound::Excluded(key) => below(key, true, Unread::Above),
    };
    let to = match upper {
        Bound::Unbounded => sizes,
        Bound::Included(key) => below(key, true, Unread::Below),
        Bound::Excluded(key) => below(key, false, Unread::Below),
    };
    let to = if to.all < from.all { from } else { to };
    (Span { from, to }, doubt)
}

/// Visits entries number `from..to` in order, or in reverse.
pub(super) fn walk(node: &Node, from: u32, to: u32, reverse: bool, visit: &mut impl FnMut(KeyId)) {
    let inner = match node.body() {
        Body::Leaf(leaf) => {
            let ids = leaf.ids[from as usize..to as usize].iter().copied();
            if reverse {
                ids.rev().for_each(visit);
            } else {
                ids.for_each(visit);
            }
            return;
        }
        Body::Inner(inner) => inner,
    };
    let mut below = |number: usize, start: u32| {
        let end = start + inner.sizes_of(number).all;
        if start < to && from < end {
            let (from, to) = (from.max(start) - start, to.min(end) - start);
            walk(inner.child(number), from, to, reverse, visit);
        }
    };
    if reverse {
        let mut start = inner.sizes_before(inner.len()).all;
        for number in (0..inner.len()).rev() {
            start -= inner.sizes_of(number).all;
            below(number, start);
        }
    } else {
        let mut start = 0;
        for number in 0..inner.len() {
            below(number, start);
            start += inner.sizes_of(number).all;
        }
    }
}

/// Visits every leaf with its low bound, in order.
pub(super) fn each_leaf(node: &Node, low: Box<[u8]>, visit: &mut impl FnMut(Box<[u8]>, &Leaf)) {
    match node.body() {
        Body::Leaf(leaf) => visit(low, leaf),
        Body::Inner(inner) => {
            each_leaf(inner.child(0), low, visit);
            for number in 1..inner.len() {
                each_leaf(
                    inner.child(number),
                    inner.separators().get(number - 1),
                    visit,
                );
            }
        }
    }
}

/// Adds a key that is absent. Whatever can fail is done before the draft is touched.
pub(super) fn insert<K: Keys>(
    draft: &mut Draft,
    key: &[u8],
    id: KeyId,
    live: bool,
    reader: &Reader<'_, K>,
) -> Result<(), K::Error> {
    let (path, leaf) = locate(draft.root(), key);
    let pieces = leaf.with(key, id, live, path.last, reader)?;
    draft.replace(&path, pieces);
    Ok(())
}

/// Makes a key live or dead. Reads no record: within its leaf the id is enough.
pub(super) fn set_live(draft: &mut Draft, key: &[u8], id: KeyId, live: bool) {
    let (path, leaf) = locate(draft.root(), key);
    let at = leaf.ids.iter().position(|other| *other == id);
    let at = at.expect("the caller passes the key of the id");
    if leaf.is_live(at) != live {
        let leaf = leaf.with_live(at, live);
        draft.replace(
            &path,
            vec![Piece {
                separator: [].into(),
                leaf,
            }],
        );
    }
}

/// Takes a key out. Reads no record: within its leaf the id is enough.
pub(super) fn remove(draft: &mut Draft, key: &[u8], id: KeyId) {
    let (path, leaf) = locate(draft.root(), key);
    let at = leaf.ids.iter().position(|other| *other == id);
    let leaf = leaf.without(at.expect("the caller passes the key of the id"));
    let separator = [].into();
    let piece = (leaf.len() > 0).then_some(Piece { separator, leaf });
    draft.replace(&path, piece.into_iter().collect());
}

/// Live entries and all entries below `key`, or up to it if `through`.
fn rank<K: Keys>(
    root: &Node,
    key: &[u8],
    through: bool,
    unread: Unread,
    reader: &Reader<'_, K>,
    doubt: &mut Option<K::Error>,
) -> Sizes {
    let mut before = Sizes::default();
    let mut node = root;
    loop {
        match node.body() {
            Body::Inner(inner) => {
                let at = inner.separators().child_of(key);
                before = before.plus(inner.sizes_before(at));
                node = inner.child(at);
            }
            Body::Leaf(leaf) => {
                let at = leaf.rank(key, through, unread, reader, doubt);
                return before.plus(leaf.sizes_before(at));
            }
        }
    }
}

/// The leaf that `key` belongs to, and the way to it.
fn locate<'n>(root: &'n Node, key: &[u8]) -> (Path, &'n Leaf) {
    let mut path = Path::new();
    let mut node = root;
    loop {
        match node.body() {
            Body::Leaf(leaf) => return (path, leaf),
            Body::Inner(inner) => {
                let at = inner.separators().child_of(key);
                path.push(at);
                path.last &= at + 1 == inner.len();
                node = inner.child(at);
            }
        }
    }
}
