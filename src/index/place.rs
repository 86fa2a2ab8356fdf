//! Where something is in the tree: how many keys lie before it, and which children lead there.
//!
//! Plain values, apart so that leaves, nodes and the searches over them share them.

/// Keys below a node: those whose newest record is a put, and all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sizes {
    pub(super) live: u32,
    pub(super) all: u32,
}

/// The way from the root to a leaf, as child numbers.
pub(super) struct Path {
    steps: [u8; HEIGHT_MAX],
    len: usize,
    /// It leads to the tree's last leaf.
    pub(super) last: bool,
}

impl Sizes {
    pub(super) fn plus(self, other: Sizes) -> Sizes {
        Sizes {
            live: self.live + other.live,
            all: self.all + other.all,
        }
    }
}

impl Path {
    /// At the root, which is the last of its level.
    pub(super) fn new() -> Path {
        Path {
            steps: [0; HEIGHT_MAX],
            len: 0,
            last: true,
        }
    }

    pub(super) fn push(&mut self, step: usize) {
        self.steps[self.len] = u8::try_from(step).expect("at most 64 children");
        self.len += 1;
    }

    /// Inner nodes on the way.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn step(&self, depth: usize) -> usize {
        self.steps[depth].into()
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = usize> {
        self.steps[..self.len].iter().map(|step| usize::from(*step))
    }
}

/// Inner nodes above a leaf at most. A node is split after some 32 children have been added to it, those that have left
/// it again included, and the root is one of its level: so `n` levels need about 32ⁿ insertions, and thirteen are
/// enough for 2⁶⁴; under loom, nodes are small and trees too.
pub(super) const HEIGHT_MAX: usize = 16;
