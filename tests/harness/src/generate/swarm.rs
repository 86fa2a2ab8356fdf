//! The world of one seed: which operations occur in it, and how often.

use crate::generate::space::{KeySpace, Values};
use crate::random::Random;

/// Weights of operations, 0 for those that do not occur, and the kinds of keys and values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    missing_docs,
    reason = "each field is a weight named for its operations"
)]
pub struct Swarm {
    pub keys: KeySpace,
    pub values: Values,
    pub puts: u64,
    pub deletes: u64,
    pub range_deletes: u64,
    pub txns: u64,
    /// The most steps of a transaction.
    pub txn_steps_max: usize,
    /// Transactions may end without a commit.
    pub aborts: bool,
    pub savepoints: u64,
    pub tables: u64,
    pub applied: u64,
    pub compactions: u64,
    /// Compactions come close to the current revision.
    pub compacts_near: bool,
    pub reads: u64,
    pub hashes: u64,
    pub views: u64,
    pub snapshots: u64,
    pub reopens: u64,
    pub states: u64,
    /// Keys of the greatest length, and longer, are put.
    pub long_keys: bool,
}

impl Swarm {
    /// Some world. Puts always occur; what costs much (hashes and states read everything) is rare.
    #[must_use]
    pub fn draw(random: &mut Random) -> Swarm {
        let mut some = |weights: [u64; 4]| *random.pick(&weights);
        Swarm {
            puts: some([300, 300, 600, 100]),
            deletes: some([0, 50, 100, 300]),
            range_deletes: some([0, 0, 20, 60]),
            txns: some([0, 100, 200, 400]),
            aborts: some([0, 1, 1, 1]) == 1,
            savepoints: some([0, 0, 30, 100]),
            tables: some([0, 0, 30, 100]),
            applied: some([0, 0, 20, 60]),
            compactions: some([0, 10, 30, 80]),
            compacts_near: some([0, 0, 1, 1]) == 1,
            reads: some([200, 400, 400, 800]),
            hashes: some([0, 4, 8, 16]),
            views: some([0, 10, 20, 40]),
            snapshots: some([0, 0, 4, 8]),
            reopens: some([0, 1, 2, 8]),
            states: some([0, 1, 2, 4]),
            txn_steps_max: *random.pick(&[1, 4, 12, 40]),
            long_keys: random.once_in(10),
            keys: KeySpace::draw(random),
            values: Values::draw(random),
        }
    }
}
