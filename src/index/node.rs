#![expect(
    unsafe_code,
    reason = "nodes are replaced under readers and freed by epoch"
)]
//! The tree's nodes: how they are linked, published, replaced and freed.
//!
//! Apart because of its unsafe code. It knows counts and child numbers; what is in a leaf, and
//! which child a key belongs to, it leaves to others.
//!
//! *Thread safety*: a [`Tree`] is read by any thread through [`Tree::read`], under a [`Guard`].
//! It has one [`Draft`], made together with it, in which the next version is prepared.
//!
//! *Invariants*
//! 1. Every node is linked from exactly one place in the current version, in the draft, or in both
//!    (once each); a replaced one perhaps from older versions also.
//! 2. A node whose `batch` is the draft's is *fresh*: linked from the draft alone, seen by no
//!    reader, so the draft may change it or free it at once. Every other node never changes.
//! 3. The ancestors of a fresh node are fresh.
//! 4. A node that is not fresh and not in the draft any more is in `retired`. With the next
//!    version it becomes unreachable for new readers, and it is freed when the pins of then are
//!    gone. Whoever reached a node under a pin, or through the draft, may thus follow its links.

use std::ptr::NonNull;
use std::sync::Arc;

use revtree_format::Revision;

use super::epoch::{Guard, pin};
use super::leaf::{Leaf, Piece};
use super::meter::Meter;
use super::place::{HEIGHT_MAX, Path, Sizes};
use super::separators::Separators;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// The readers' side.
pub(super) struct Tree {
    current: AtomicPtr<Version>,
    meter: Meter,
}

/// The writer's side: the next version in the making.
pub(super) struct Draft {
    tree: Arc<Tree>,
    root: Child,
    batch: u64,
    retired: Vec<Link>,
    /// Empty but while a leaf is replaced: the nodes that are out of the draft then.
    gone: Vec<Link>,
    changed: bool,
    /// Bytes retired since they were last handed to all threads.
    unflushed: usize,
}

/// One published state of the tree, which lasts from one revision to another.
pub(super) struct Version {
    revision: AtomicU64,
    root: Child,
}

pub(super) struct Node {
    batch: u64,
    body: Body,
    #[cfg(loom)]
    canary: super::canary::Canary,
}

pub(super) enum Body {
    Leaf(Leaf),
    Inner(Inner),
}

pub(super) struct Inner {
    separators: Arc<Separators>,
    children: Box<[Child]>,
}

#[derive(Clone, Copy)]
struct Child {
    link: Link,
    sizes: Sizes,
}

#[derive(Clone, Copy)]
struct Link(NonNull<Node>);

// SAFETY: a link is only followed or freed as the invariants allow, from whichever thread; a node
// has no tie to the thread that made it.
unsafe impl Send for Link {}

// SAFETY: as above; nodes that several threads can reach are immutable.
unsafe impl Sync for Link {}

impl Tree {
    /// A tree of these leaves, in order, and the draft of its next version. None: an empty tree.
    pub(super) fn new(leaves: Vec<Piece>, revision: Revision, meter: Meter) -> (Arc<Tree>, Draft) {
        let mut level: Vec<(Box<[u8]>, Child)> = leaves
            .into_iter()
            .map(|piece| {
                (
                    piece.separator,
                    Child::new(Body::Leaf(piece.leaf), 0, &meter),
                )
            })
            .collect();
        while level.len() > 1 {
            level = parents(level, 0, &meter);
        }
        let root = match level.pop() {
            Some((_, root)) => root,
            None => Child::new(Body::Leaf(Leaf::empty()), 0, &meter),
        };
        let current = AtomicPtr::new(Version::allocate(revision, root, &meter));
        let tree = Arc::new(Tree { current, meter });
        let draft = Draft {
            tree: Arc::clone(&tree),
            root,
            batch: 1,
            retired: Vec::new(),
            gone: Vec::new(),
            changed: false,
            unflushed: 0,
        };
        (tree, draft)
    }

    /// The current version.
    pub(super) fn read<'g>(&'g self, _guard: &'g Guard) -> &'g Version {
        // Acquire: pairs with the Release in `Draft::publish`; the nodes are visible.
        let version = self.current.load(Ordering::Acquire);
        // SAFETY: never null; by invariant 4 alive for the pin's lifetime, unless the tree itself
        // is dropped, which is borrowed as long.
        unsafe { &*version }
    }
}

impl Version {
    fn allocate(revision: Revision, root: Child, meter: &Meter) -> *mut Version {
        meter.add(size_of::<Version>());
        Box::into_raw(Box::new(Version {
            revision: AtomicU64::new(revision.get()),
            root,
        }))
    }

    /// A revision up to which this version counts: nothing changed in the tree between it and the
    /// one that made the version.
    pub(super) fn revision(&self) -> Revision {
        // Acquire: pairs with the Release in `Draft::publish`.
        Revision::new(self.revision.load(Ordering::Acquire))
    }

    pub(super) fn sizes(&self) -> Sizes {
        self.root.sizes
    }

    pub(super) fn root(&self) -> &Node {
        self.root.node()
    }
}

impl Draft {
    pub(super) fn root(&self) -> &Node {
        self.root.node()
    }

    /// Puts leaves in the place of the one at `path`: one, several or none.
    pub(super) fn replace(&mut self, path: &Path, mut pieces: Vec<Piece>) {
        let spine = self.spine(path);
        let batch = self.batch;
        let child = |leaf| Child::new(Body::Leaf(leaf), batch, &self.tree.meter);
        let mut risen = if pieces.len() == 1 {
            Risen::One(child(pieces.remove(0).leaf))
        } else {
            let pieces = pieces.into_iter();
            Risen::Many(
                pieces
                    .map(|piece| (piece.separator, child(piece.leaf)))
                    .collect(),
            )
        };
        // Let go of at the end, when nothing links them any more: a panic on the way leaks them, and frees
        // nothing that the draft still has.
        let mut gone = std::mem::take(&mut self.gone);
        gone.push(spine[path.len()]);
        for depth in (0..path.len()).rev() {
            let at = path.step(depth);
            risen = match risen {
                Risen::One(child) => {
                    let (child, replaced) = self.exchange(spine[depth], at, child);
                    gone.extend(replaced);
                    Risen::One(child)
                }
                Risen::Many(children) => {
                    gone.push(spine[depth]);
                    self.splice(spine[depth], at, children, path.last)
                }
            };
        }
        self.root = match risen {
            Risen::One(child) => child,
            Risen::Many(children) if children.is_empty() => {
                Child::new(Body::Leaf(Leaf::empty()), batch, &self.tree.meter)
            }
            Risen::Many(children) => {
                let (separators, children) = apart(children);
                Child::new(
                    Body::Inner(Inner::new(&separators, children, &self.tree.meter)),
                    batch,
                    &self.tree.meter,
                )
            }
        };
        // A root of one child is that child.
        while let Body::Inner(inner) = &self.root.link.node().body
            && let [child] = *inner.children
        {
            gone.push(self.root.link);
            self.root = child;
        }
        self.changed = true;
        for node in gone.drain(..) {
            self.release(node);
        }
        self.gone = gone;
    }

    /// Makes the draft the current version, which counts up to `revision`.
    pub(super) fn publish(&mut self, revision: Revision) {
        let current = self.tree.current.load(Ordering::Relaxed);
        if !self.changed {
            // SAFETY: the current version; only this draft replaces and retires it.
            let current = unsafe { &*current };
            // Release: pairs with the Acquire in `Version::revision`.
            current.revision.store(revision.get(), Ordering::Release);
            return;
        }
        let meter = &self.tree.meter;
        let guard = pin();
        let new = Version::allocate(revision, self.root, meter);
        // Release: pairs with the Acquire in `Tree::read`.
        let version = self.tree.current.swap(new, Ordering::AcqRel);
        let nodes = std::mem::take(&mut self.retired);
        self.unflushed += nodes.iter().map(|link| link.node().bytes()).sum::<usize>();
        let (retired, meter) = (Retired { version, nodes }, meter.clone());
        // Unreachable since the exchange; pins from before it are waited for.
        guard.defer(move || retired.free(&meter));
        if self.unflushed > UNFLUSHED_BYTES_MAX {
            guard.flush();
            self.unflushed = 0;
        }
        self.batch += 1;
        self.changed = false;
    }

    /// Takes back every change since the last publish.
    pub(super) fn reset(&mut self) {
        self.discard(self.root.link);
        let current = self.tree.current.load(Ordering::Relaxed);
        // SAFETY: the current version; only this draft replaces and retires it.
        self.root = unsafe { &*current }.root;
        // The current version links them still.
        self.retired.clear();
        self.changed = false;
    }

    /// The nodes on the path, the leaf last. Panics on a path of another tree before anything is
    /// changed.
    fn spine(&self, path: &Path) -> [Link; HEIGHT_MAX + 1] {
        let mut spine = [self.root.link; HEIGHT_MAX + 1];
        for (depth, step) in path.steps().enumerate() {
            let Body::Inner(inner) = &spine[depth].node().body else {
                panic!("path too long")
            };
            spine[depth + 1] = inner.children[step].link;
        }
        assert!(
            matches!(spine[path.len()].node().body, Body::Leaf(_)),
            "path too short"
        );
        spine
    }

    /// The inner node with another child number `at`; and the node itself, if a copy takes its place.
    fn exchange(&mut self, node: Link, at: usize, child: Child) -> (Child, Option<Link>) {
        let Body::Inner(inner) = &node.node().body else {
            unreachable!("spine checked it")
        };
        if node.node().batch == self.batch {
            let mut node_ptr = node.0;
            // SAFETY: fresh: the draft alone can reach it, and `self` is borrowed mutably; the
            // shared reference above is not used after this.
            let node_mut = unsafe { node_ptr.as_mut() };
            let Body::Inner(inner) = &mut node_mut.body else {
                unreachable!("seen above")
            };
            inner.children[at] = child;
            let same = Child {
                link: node,
                sizes: inner.sizes(),
            };
            return (same, None);
        }
        let mut children = inner.children.clone();
        children[at] = child;
        let separators = Arc::clone(&inner.separators);
        let copy = Body::Inner(Inner {
            separators,
            children,
        });
        let copy = Child::new(copy, self.batch, &self.tree.meter);
        (copy, Some(node))
    }

    /// The inner node with several children, or none, in the place of number `at`; in two if that is too
    /// many, and nothing if none are left. `last` as in [`Path`]. The node itself is out of the draft then.
    fn splice(&self, node: Link, at: usize, new: Vec<(Box<[u8]>, Child)>, last: bool) -> Risen {
        let Body::Inner(inner) = &node.node().body else {
            unreachable!("spine checked it")
        };
        let mut children: Vec<(Box<[u8]>, Child)> = Vec::with_capacity(FANOUT + 1);
        for (number, child) in inner.children.iter().enumerate() {
            let separator = if number == 0 {
                [].into()
            } else {
                inner.separators.get(number - 1)
            };
            children.push((separator, *child));
        }
        let low = std::mem::take(&mut children[at].0);
        let none_new = new.is_empty();
        children.splice(at..=at, new);
        if children.is_empty() {
            return Risen::Many(Vec::new());
        }
        // Where one has left, the keys below its low bound's successor belong to the one before it; the first of a
        // node takes the node's bound.
        if at == 0 || !none_new {
            children[at].0 = low;
        }
        let (batch, meter) = (self.batch, &self.tree.meter);
        let inner = |children| {
            let (separators, children) = apart(children);
            Child::new(
                Body::Inner(Inner::new(&separators, children, meter)),
                batch,
                meter,
            )
        };
        if children.len() <= FANOUT {
            return Risen::One(inner(children));
        }
        let cut = if last {
            children.len() - 1
        } else {
            children.len() / 2
        };
        let right = children.split_off(cut);
        let separator = right[0].0.clone();
        Risen::Many(vec![
            ([].into(), inner(children)),
            (separator, inner(right)),
        ])
    }

    /// Lets go of a node that has just left the draft.
    fn release(&mut self, node: Link) {
        if node.node().batch == self.batch {
            // SAFETY: fresh, so the draft's was the only link, and it is gone.
            unsafe { node.free(&self.tree.meter) };
        } else {
            self.retired.push(node);
        }
    }

    /// Frees the fresh nodes of a draft that is given up.
    fn discard(&self, node: Link) {
        if node.node().batch != self.batch {
            return;
        }
        if let Body::Inner(inner) = &node.node().body {
            inner
                .children
                .iter()
                .for_each(|child| self.discard(child.link));
        }
        // SAFETY: fresh, and its only link was the draft's, which gives it up.
        unsafe { node.free(&self.tree.meter) };
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.discard(self.root.link);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // The draft holds the tree, so it is gone, and its fresh nodes with it.
        let version = self.current.load(Ordering::Acquire);
        // SAFETY: never null; nobody else can reach the tree any more.
        let root = unsafe { &*version }.root.link;
        let mut nodes = vec![root];
        let mut next = 0;
        while let Some(link) = nodes.get(next).copied() {
            if let Body::Inner(inner) = &link.node().body {
                nodes.extend(inner.children.iter().map(|child| child.link));
            }
            next += 1;
        }
        Retired { version, nodes }.free(&self.meter);
    }
}

impl Node {
    pub(super) fn body(&self) -> &Body {
        #[cfg(loom)]
        self.canary.check();
        &self.body
    }

    fn bytes(&self) -> usize {
        size_of::<Node>()
            + match &self.body {
                Body::Leaf(leaf) => leaf.bytes(),
                Body::Inner(inner) => size_of_val(&*inner.children),
            }
    }
}

impl Inner {
    fn new(separators: &[Box<[u8]>], children: Box<[Child]>, meter: &Meter) -> Inner {
        let separators = Separators::new(separators);
        meter.add(separators.bytes());
        Inner {
            separators: Arc::new(separators),
            children,
        }
    }

    pub(super) fn separators(&self) -> &Separators {
        &self.separators
    }

    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    pub(super) fn child(&self, at: usize) -> &Node {
        self.children[at].node()
    }

    pub(super) fn sizes_of(&self, at: usize) -> Sizes {
        self.children[at].sizes
    }

    pub(super) fn sizes_before(&self, at: usize) -> Sizes {
        sum(&self.children[..at])
    }

    fn sizes(&self) -> Sizes {
        sum(&self.children)
    }
}

impl Child {
    fn new(body: Body, batch: u64, meter: &Meter) -> Child {
        let sizes = match &body {
            Body::Leaf(leaf) => leaf.sizes_before(leaf.len()),
            Body::Inner(inner) => inner.sizes(),
        };
        let node = Box::new(Node {
            batch,
            body,
            #[cfg(loom)]
            canary: super::canary::Canary::new(),
        });
        meter.add(node.bytes());
        Child {
            link: Link(NonNull::from(Box::leak(node))),
            sizes,
        }
    }

    fn node(&self) -> &Node {
        self.link.node()
    }
}

impl Link {
    /// Private to this file: called on a link out of a node or version that is itself alive, or on
    /// one that the draft still owns. The reference must not outlive that; the borrow of `self`
    /// sees to it where the link lies in a node.
    fn node(&self) -> &Node {
        // SAFETY: invariant 4.
        unsafe { self.0.as_ref() }
    }

    /// # Safety
    ///
    /// Nobody can reach the node any more, and it has not been freed.
    unsafe fn free(self, meter: &Meter) {
        // SAFETY: made by `Child::new` from a box; the rest is the caller's promise.
        let node = unsafe { Box::from_raw(self.0.as_ptr()) };
        meter.subtract(node.bytes());
        #[cfg(loom)]
        super::canary::bury(node, |node| &node.canary);
        #[cfg(not(loom))]
        if let Body::Inner(inner) = node.body
            && let Some(separators) = Arc::into_inner(inner.separators)
        {
            meter.subtract(separators.bytes());
        }
    }
}

/// What a published version made unreachable.
struct Retired {
    version: *mut Version,
    nodes: Vec<Link>,
}

// SAFETY: it owns what it names, and none of that is tied to a thread.
unsafe impl Send for Retired {}

impl Retired {
    fn free(self, meter: &Meter) {
        for link in self.nodes {
            // SAFETY: retired nodes are freed once, after the pins that could reach them.
            unsafe { link.free(meter) };
        }
        // SAFETY: made by `Version::allocate`, unreachable like its nodes.
        drop(unsafe { Box::from_raw(self.version) });
        meter.subtract(size_of::<Version>());
    }
}

/// What comes up from a level below: a node in the place of one, or several, of which all but the
/// first bring their low bound.
enum Risen {
    One(Child),
    Many(Vec<(Box<[u8]>, Child)>),
}

fn sum(children: &[Child]) -> Sizes {
    children
        .iter()
        .fold(Sizes::default(), |sum, child| sum.plus(child.sizes))
}

/// Separators and children of one node; the first low bound is its parent's business.
fn apart(level: Vec<(Box<[u8]>, Child)>) -> (Vec<Box<[u8]>>, Box<[Child]>) {
    let (mut separators, children): (Vec<_>, Vec<_>) = level.into_iter().unzip();
    separators.remove(0);
    (separators, children.into())
}

/// The level above: as few nodes as possible, equally filled.
fn parents(level: Vec<(Box<[u8]>, Child)>, batch: u64, meter: &Meter) -> Vec<(Box<[u8]>, Child)> {
    let count = level.len().div_ceil(FANOUT);
    let (each, more) = (level.len() / count, level.len() % count);
    let mut rest = level.into_iter();
    let group = |number| {
        let mut group: Vec<_> = rest
            .by_ref()
            .take(each + usize::from(number < more))
            .collect();
        let low = std::mem::take(&mut group[0].0);
        let (separators, children) = apart(group);
        let body = Body::Inner(Inner::new(&separators, children, meter));
        (low, Child::new(body, batch, meter))
    };
    (0..count).map(group).collect()
}

/// Children of an inner node at most.
pub(super) const FANOUT: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };
/// Garbage that one thread may keep to itself; a node copy is a kilobyte, so about fifteen inserts.
/// Under loom none, so that models see it freed.
const UNFLUSHED_BYTES_MAX: usize = if cfg!(any(loom, shuttle)) {
    0
} else {
    64 << 10
};
