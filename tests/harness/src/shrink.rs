//! Makes a list smaller for as long as it still fails: without some of its items, then with simpler ones.
//!
//! What the items are (operations of a history, writes that a power cut left) and what failing is, others know.

/// The smallest list that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shrunk<T> {
    pub(crate) items: Vec<T>,
    /// How often it was tried.
    pub(crate) runs: usize,
}

/// Makes `items`, which fail, smaller, in at most so many runs; a list that is not yet minimal is still shown.
///
/// `simpler` gives what may stand in an item's place, the boldest first, and nothing that is not simpler: else
/// this goes on until there are no runs left. `fails` runs a list and says how many of its first items matter,
/// if it fails as before.
pub(crate) fn shrink<T: Clone>(
    items: &[T],
    runs_max: usize,
    simpler: impl Fn(&T) -> Vec<T>,
    fails: impl FnMut(&[T]) -> Option<usize>,
) -> Shrunk<T> {
    let mut search = Search {
        best: items.to_vec(),
        runs: 0,
        runs_max,
        fails,
    };
    search.leave_out(items.len() / 2);
    // A simpler item may make another one needless.
    while search.simplify(&simpler) {
        search.leave_out(1);
    }
    Shrunk {
        items: search.best,
        runs: search.runs,
    }
}

struct Search<T, F> {
    best: Vec<T>,
    runs: usize,
    runs_max: usize,
    fails: F,
}

impl<T: Clone, F: FnMut(&[T]) -> Option<usize>> Search<T, F> {
    /// Whether this list fails too; then it is the best, without what does not matter at its end.
    fn take(&mut self, mut items: Vec<T>) -> bool {
        if self.runs == self.runs_max {
            return false;
        }
        self.runs += 1;
        let Some(matter) = (self.fails)(&items) else {
            return false;
        };
        items.truncate(matter);
        self.best = items;
        true
    }

    /// Leaves out pieces that get smaller, then single items for as long as that helps.
    fn leave_out(&mut self, mut piece: usize) {
        piece = piece.max(1);
        while piece > 0 {
            let before = self.best.len();
            let mut from = 0;
            while from < self.best.len() {
                let to = self.best.len().min(from + piece);
                let rest = [&self.best[..from], &self.best[to..]].concat();
                if !self.take(rest) {
                    from = to;
                }
            }
            if piece > 1 || self.best.len() == before {
                piece /= 2;
            }
        }
    }

    /// Puts simpler items in their places; says whether that helped.
    fn simplify(&mut self, simpler: impl Fn(&T) -> Vec<T>) -> bool {
        let mut helped = false;
        let mut place = 0;
        while place < self.best.len() {
            let found = simpler(&self.best[place]).into_iter().any(|item| {
                let mut items = self.best.clone();
                items[place] = item;
                self.take(items)
            });
            helped |= found;
            // What is simpler may have something simpler still.
            place += usize::from(!found);
        }
        helped
    }
}

#[cfg(test)]
mod tests {
    use super::{Shrunk, shrink};

    /// Smaller numbers are simpler.
    fn smaller(n: &u32) -> Vec<u32> {
        [0, 1, n / 2, n.saturating_sub(1)]
            .into_iter()
            .filter(|smaller| smaller < n)
            .collect()
    }

    /// Of many items those are left that are needed, in their order, and as simple as can be.
    #[test]
    fn finds_what_is_needed() {
        let items: Vec<u32> = (0..200).collect();
        // A number of at least 30, and behind it an odd one.
        let fails = |items: &[u32]| {
            let first = items.iter().position(|n| *n >= 30)?;
            let second = items[first..].iter().skip(1).position(|n| n % 2 == 1)?;
            Some(first + second + 2)
        };
        let shrunk = shrink(&items, 2000, smaller, fails);
        assert_eq!(shrunk.items, [30, 1]);
        assert!(shrunk.runs < 200, "{}", shrunk.runs);
    }

    /// What follows the failure is left out without a run of its own; what fails without anything is empty.
    #[test]
    fn cuts_what_follows() {
        let fails = |items: &[u32]| items.iter().position(|n| *n == 1).map(|n| n + 1);
        assert_eq!(shrink(&[1, 2, 3], 2, smaller, fails).items, [1]);
        assert!(
            shrink(&[1, 2, 3], 100, smaller, |_| Some(0))
                .items
                .is_empty()
        );
    }

    /// It ends when it may run no more, with something that fails, and tries nothing twice where all is needed.
    #[test]
    fn has_a_bound() {
        let items = [7; 64];
        let fails = |items: &[u32]| (items.len() > 3).then_some(items.len());
        let Shrunk { items, runs } = shrink(&items, 2, smaller, fails);
        assert_eq!((items.len(), runs), (32, 2));
        let all = |items: &[u32]| (items.len() == 8).then_some(8);
        let Shrunk { items, runs } = shrink(&[0; 8], 100, smaller, all);
        assert_eq!((items, runs), (vec![0; 8], 2 + 4 + 8));
    }
}
