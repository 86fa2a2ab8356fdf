//! What is said when a store and the oracle disagree: enough to replay it by hand.

use std::fmt;

use crate::op::Op;
use crate::outcome::Outcome;

/// The first answer in which they differ.
#[derive(Clone, PartialEq, Eq)]
pub struct Difference {
    /// The seed of the history.
    pub seed: u64,
    /// The place of the operation in it, from 0.
    pub number: usize,
    /// The operation.
    pub op: Op,
    /// Which of its answers, from 0: a transaction has one per step, and more.
    pub answer: usize,
    /// The oracle's answer; `None` if it gave fewer.
    pub expected: Option<Outcome>,
    /// The store's answer; `None` if it gave fewer.
    pub found: Option<Outcome>,
    /// A small history that ends in a difference too.
    pub shrunk: Vec<Op>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: operation {}, answer {}",
            self.seed, self.number, self.answer
        )?;
        writeln!(f, "  operation: {:?}", self.op)?;
        match (&self.expected, &self.found) {
            (Some(expected), Some(found)) => {
                writeln!(f, "  expected:  {expected:?}")?;
                writeln!(f, "  found:     {found:?}")?;
            }
            (expected, found) => {
                writeln!(f, "  expected:  {expected:?} (one side gave fewer answers)")?;
                writeln!(f, "  found:     {found:?}")?;
            }
        }
        writeln!(
            f,
            "  replay with REVTREE_SEED={}; a shorter history:",
            self.seed
        )?;
        for op in &self.shrunk {
            writeln!(f, "    {op:?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Difference {
    /// As displayed, so that `expect` and `unwrap` in tests print it readably.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        fmt::Display::fmt(self, f)
    }
}
