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
    /// That difference, which is easier to read than this one.
    pub smaller: Option<Box<Difference>>,
}

/// How much of two long answers is shown around the place from which they differ, in characters.
const SHOWN: usize = 600;

impl Difference {
    /// The same, said of that seed.
    pub(crate) fn with_seed(mut self: Box<Self>, seed: u64) -> Box<Difference> {
        self.seed = seed;
        self.smaller = self.smaller.map(|smaller| smaller.with_seed(seed));
        self
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.seed;
        writeln!(
            f,
            "seed {seed}: operation {}, answer {}",
            self.number, self.answer
        )?;
        writeln!(f, "  operation: {:?}", self.op)?;
        let (expected, found) = (show(self.expected.as_ref()), show(self.found.as_ref()));
        let same = expected
            .chars()
            .zip(found.chars())
            .take_while(|(a, b)| a == b)
            .count();
        let skip = same.saturating_sub(SHOWN / 3);
        writeln!(f, "  expected:  {}", part(&expected, skip))?;
        writeln!(f, "  found:     {}", part(&found, skip))?;
        let Some(smaller) = &self.smaller else {
            return Ok(());
        };
        writeln!(f, "  replay with REVTREE_SEED={seed}; a shorter history:")?;
        for op in &self.shrunk {
            writeln!(f, "    {op:?}")?;
        }
        write!(f, "  which ends so: {smaller}")
    }
}

fn show(outcome: Option<&Outcome>) -> String {
    outcome.map_or("no further answer".to_owned(), |outcome| {
        format!("{outcome:?}")
    })
}

/// The text around the first difference; a state has thousands of characters that agree.
fn part(text: &str, skip: usize) -> String {
    let head = if skip > 0 { "… " } else { "" };
    let part: String = text.chars().skip(skip).take(SHOWN).collect();
    let tail = if text.chars().count() > skip + SHOWN {
        " …"
    } else {
        ""
    };
    format!("{head}{part}{tail}")
}

impl fmt::Debug for Difference {
    /// As displayed, so that `expect` and `unwrap` in tests print it readably.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        fmt::Display::fmt(self, f)
    }
}
