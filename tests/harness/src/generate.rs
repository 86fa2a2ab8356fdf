//! Random histories from a seed.
//!
//! Each seed first draws its own world (see [`Swarm`]): which operations occur at all, which keys
//! there are, how long values and transactions are. Histories in which everything happens a
//! little find less than histories in which a few things happen much.

use revtree_format::{LeaseId, Revision};

use crate::answer::Applied;
use crate::hash::{DEFAULT_IGNORES, IgnoreKey};
use crate::model::{Begin, Expect, Finish};
use crate::op::{Ask, Blob, Eyes, Op, Read, Step, TABLES, When};
use crate::random::Random;

mod space;
mod swarm;

pub use swarm::Swarm;

/// What the whole-store hash leaves out, by turns; the last names a row of another table.
const IGNORES: [&[IgnoreKey]; 3] = [
    &[],
    DEFAULT_IGNORES,
    &[IgnoreKey {
        table: "lease",
        key: b"a",
    }],
];

/// Leases that histories use: none, etcd's of the golden vector, one of ten varint bytes.
const LEASES: [LeaseId; 4] = [
    LeaseId(0),
    LeaseId(1),
    LeaseId(7_587_862_094_443),
    LeaseId(-3),
];

/// The history of `seed`, with `count` operations, of which in some worlds one in a hundred reclaims space. Those are
/// drawn apart: but for them it is the history that [`generate`] gives.
#[must_use]
pub fn generate_with_reclaims(seed: u64, count: usize) -> Vec<Op> {
    let mut random = Random::new(seed ^ 0x5EC1_A13D);
    let mut ops = generate(seed, count);
    if random.once_in(2) {
        for op in &mut ops {
            if random.once_in(100) {
                *op = Op::Reclaim;
            }
        }
    }
    ops
}

/// The history of `seed`, with `count` operations. Nothing in it reclaims space.
#[must_use]
pub fn generate(seed: u64, count: usize) -> Vec<Op> {
    let mut random = Random::new(seed);
    let swarm = Swarm::draw(&mut random);
    let mut generator = Generator {
        random,
        swarm,
        index: 0,
        term: 1,
    };
    (0..count).map(|_| generator.op()).collect()
}

/// The seeds of a test: the one that `REVTREE_SEED` names, else `count` from `first` on.
///
/// # Panics
///
/// If the variable is not a number.
#[must_use]
pub fn seeds(first: u64, count: u64) -> Vec<u64> {
    match std::env::var("REVTREE_SEED") {
        Ok(seed) => vec![seed.trim().parse().expect("REVTREE_SEED is a number")],
        Err(_) => (first..first + count).collect(),
    }
}

struct Generator {
    random: Random,
    swarm: Swarm,
    /// The highest log index and term given out; a stale one is below, with term 0.
    index: u64,
    term: u64,
}

impl Generator {
    fn op(&mut self) -> Op {
        let swarm = &self.swarm;
        let weights = [
            swarm.puts,
            swarm.deletes,
            swarm.range_deletes,
            swarm.txns,
            swarm.applied,
            swarm.compactions,
            swarm.reads / 4,
            swarm.reads,
            swarm.hashes,
            swarm.hashes,
            swarm.hashes,
            swarm.views,
            swarm.views / 2,
            swarm.snapshots,
            swarm.snapshots / 2,
            swarm.reopens,
            swarm.reopens,
            swarm.states,
        ];
        match self.weighted(&weights) {
            0 => Op::Put(self.new_key(), self.blob()),
            1 => Op::Delete(self.key()),
            2 => Op::DeleteRange(self.swarm.keys.keys(&mut self.random)),
            3 => self.txn(),
            4 => Op::RaiseIndex(self.index().index),
            5 => Op::Compact(self.compact_when()),
            6 => Op::Peek(self.key()),
            7 => Op::Read(self.eyes(), self.read()),
            8 => Op::HashByRev(self.when()),
            9 => Op::CompactionHashes,
            10 => Op::Hash(IGNORES[self.random.index(IGNORES.len())]),
            11 => {
                let at = self.random.once_in(2).then(|| self.when());
                Op::Hold(self.slot(), at)
            }
            12 => Op::Release(self.slot()),
            13 => Op::Snapshot(self.slot()),
            14 => Op::Restore(self.slot()),
            15 => Op::Sync,
            16 => Op::Reopen,
            _ => Op::State,
        }
    }

    /// A place in `weights`, each as probable as it is heavy; the last if all are 0.
    fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.random.below(weights.iter().sum());
        for (place, weight) in weights.iter().enumerate() {
            if left < *weight {
                return place;
            }
            left -= weight;
        }
        weights.len() - 1
    }

    fn txn(&mut self) -> Op {
        let begin = match self.random.below(8) {
            0..2 if self.swarm.applied > 0 => Begin::AtIndex(self.index().index),
            2 => Begin::TryWrite,
            _ => Begin::Write,
        };
        let len = 1 + self.random.index(self.swarm.txn_steps_max);
        let mut steps: Vec<Step> = (0..len).map(|_| self.step()).collect();
        // Last, since the door does not say whether a rollback takes it back.
        if self.swarm.applied > 0 && self.random.once_in(3) {
            steps.push(Step::SetApplied(self.index()));
        }
        let finish = match self.random.below(8) {
            0 if self.swarm.aborts => Finish::Abort,
            1 if self.swarm.aborts => Finish::Drop,
            2 | 3 => Finish::Submit,
            _ => Finish::Commit,
        };
        Op::Txn(begin, steps, finish)
    }

    fn step(&mut self) -> Step {
        let swarm = &self.swarm;
        let weights = [
            swarm.puts,
            swarm.deletes,
            swarm.range_deletes,
            swarm.savepoints,
            swarm.savepoints,
            swarm.tables,
            swarm.tables / 2,
            swarm.reads / 8,
            swarm.reads / 8,
            swarm.reads / 16,
            swarm.reads / 16,
            swarm.reads / 32,
        ];
        match self.weighted(&weights) {
            0 => Step::Put(self.new_key(), self.blob(), *self.random.pick(&LEASES)),
            1 => Step::Delete(self.key()),
            2 => Step::DeleteRange(self.swarm.keys.keys(&mut self.random)),
            3 => Step::Savepoint(self.slot()),
            4 => Step::RollBack(self.slot()),
            5 => Step::PutRow(self.table(), self.key(), self.blob()),
            6 => Step::DeleteRow(self.table(), self.key()),
            7 => Step::Own(self.own_read()),
            8 => Step::Require(self.key(), self.expect()),
            9 => match self.random.below(3) {
                0 => Step::Changes,
                1 => Step::Rev,
                _ => Step::TryWrite,
            },
            10 => Step::Base(self.read()),
            _ => Step::Outside(self.read()),
        }
    }

    fn eyes(&mut self) -> Eyes {
        match self.random.below(8) {
            0..3 => Eyes::At(self.when()),
            3..5 if self.swarm.views > 0 => Eyes::Held(self.slot()),
            _ => Eyes::Now,
        }
    }

    fn read(&mut self) -> Read {
        match self.random.below(16) {
            0..3 => Read::Get(self.key()),
            3..7 => Read::Range(self.ask()),
            7..9 => Read::Count(self.ask()),
            9 => Read::BothEnds(self.ask(), self.random.bits()),
            10 | 11 => Read::History(self.key()),
            12 => self.changes(),
            13 => Read::Change(self.when(), self.random.below(4)),
            14 if self.random.once_in(2) => Read::Table(self.table()),
            14 => Read::Row(self.table(), self.key()),
            _ => Read::ViewFacts,
        }
    }

    /// Half of the time between existing revisions, so that there is something to be found.
    fn changes(&mut self) -> Read {
        let keys = self.swarm.keys.keys(&mut self.random);
        if self.random.once_in(2) {
            let from = When::Floor(self.random.below(20));
            return Read::Changes(keys, from, When::Back(self.random.below(3)));
        }
        Read::Changes(keys, self.when(), self.when())
    }

    fn own_read(&mut self) -> Read {
        match self.random.below(5) {
            0 | 1 => Read::Get(self.key()),
            2 => Read::Range(self.ask()),
            3 => Read::Count(self.ask()),
            _ if self.swarm.tables > 0 => Read::Row(self.table(), self.key()),
            _ => Read::BothEnds(self.ask(), self.random.bits()),
        }
    }

    fn ask(&mut self) -> Ask {
        let random = &mut self.random;
        let keys = self.swarm.keys.keys(random);
        let limit = random.once_in(3).then(|| random.index(6));
        let (reverse, keys_only) = (random.once_in(4), random.once_in(4));
        let at = self.random.once_in(3).then(|| self.when());
        Ask {
            keys,
            at,
            limit,
            reverse,
            keys_only,
        }
    }

    /// Mostly readable, sometimes just beyond either end.
    fn when(&mut self) -> When {
        match self.random.below(16) {
            0 => When::Zero,
            1 => When::Ahead(1 + self.random.below(2)),
            2 => When::BelowFloor(1 + self.random.below(3)),
            3..6 => When::Floor(self.random.below(3)),
            6..11 => When::Between(self.byte()),
            _ => When::Back(self.random.below(4)),
        }
    }

    /// Near the current revision, or, in other worlds, near the floor, so that history stays long;
    /// sometimes refused.
    fn compact_when(&mut self) -> When {
        match (self.random.below(12), self.swarm.compacts_near) {
            (0, _) => When::Zero,
            (1, _) => When::Ahead(1),
            (2, _) => When::Floor(0),
            (3 | 4, _) => When::Floor(1 + self.random.below(3)),
            (5, _) => When::Between(self.byte()),
            (_, true) => When::Back(self.random.below(3)),
            (_, false) => When::Between(self.byte() / 4),
        }
    }

    fn expect(&mut self) -> Expect {
        match self.random.below(6) {
            0 => Expect::Missing,
            1 => Expect::Exists,
            2 => Expect::ModRevision(Revision::new(self.random.below(6))),
            3 => Expect::CreateRevision(Revision::new(self.random.below(6))),
            4 => Expect::Version(self.random.below(3)),
            _ => Expect::Value(self.blob().bytes()),
        }
    }

    /// Mostly the next log position; else one that was given out before.
    fn index(&mut self) -> Applied {
        if self.random.once_in(4) {
            return Applied {
                index: self.index.saturating_sub(self.random.below(4)),
                term: 0,
            };
        }
        self.index += 1 + self.random.below(3);
        self.term += u64::from(self.random.once_in(4));
        Applied {
            index: self.index,
            term: self.term,
        }
    }

    fn key(&mut self) -> bytes::Bytes {
        self.swarm.keys.key(&mut self.random)
    }

    /// A key to be put: in some worlds, once in a while, as long as allowed or one too long.
    fn new_key(&mut self) -> bytes::Bytes {
        if self.swarm.long_keys && self.random.once_in(40) {
            return space::long_key(&mut self.random);
        }
        self.key()
    }

    fn blob(&mut self) -> Blob {
        Blob {
            len: self.swarm.values.len(&mut self.random),
            seed: self.byte(),
        }
    }

    fn byte(&mut self) -> u8 {
        self.random.bits().to_le_bytes()[0]
    }

    fn slot(&mut self) -> u8 {
        self.byte() % 3
    }

    fn table(&mut self) -> &'static str {
        TABLES[self.random.index(TABLES.len())]
    }
}
