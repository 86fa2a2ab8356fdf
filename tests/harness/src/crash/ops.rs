//! What the histories do that are crashed: what a seed says, and for short ones all that makes calls.

use bytes::Bytes;
use revtree_format::LeaseId;

use crate::answer::Applied;
use crate::generate::generate;
use crate::keys::Keys;
use crate::model::{Begin, Finish};
use crate::op::{Ask, Blob, Eyes, Op, Read, Step, TABLES, When};
use crate::random::Random;

/// The operations of a seed that change something or make it durable, and views and snapshots, held,
/// read and restored among them.
#[must_use]
pub fn writes(seed: u64, count: usize) -> Vec<Op> {
    let matters = |op: &Op| {
        matches!(
            op,
            Op::Put(..)
                | Op::Delete(_)
                | Op::DeleteRange(_)
                | Op::Txn(..)
                | Op::RaiseIndex(_)
                | Op::Compact(_)
                | Op::Hold(..)
                | Op::Read(Eyes::Held(_), _)
                | Op::Release(_)
                | Op::Snapshot(_)
                | Op::Restore(_)
                | Op::Sync
                | Op::Reopen
        )
    };
    let mut random = Random::new(seed ^ 0x5EED);
    // Many worlds know few of them: here every fourth operation is one of these.
    let mut ops: Vec<Op> = generate(seed, count * 8)
        .into_iter()
        .filter(matters)
        .collect();
    ops.truncate(count);
    for (op, number) in ops.iter_mut().zip(1..) {
        match random.below(40) {
            0 | 1 => *op = Op::Reopen,
            2 => *op = Op::Sync,
            3 => *op = Op::Compact(When::Between(128)),
            4 => *op = Op::Hold(0, None),
            5 | 6 => *op = read_held(),
            7 => *op = Op::Snapshot(0),
            8 => *op = Op::Restore(0),
            9 => *op = rows(number),
            _ => {}
        }
    }
    ops
}

/// A short history in which all that makes calls happens: segments fill up, checkpoints and a
/// compaction, rows and the log position, a view held across them, a snapshot saved and restored, the
/// store closed and opened, space reclaimed. `length` more operations are the seed's own.
#[must_use]
pub fn short(seed: u64, length: usize) -> Vec<Op> {
    let mut random = Random::new(seed ^ 0x5047);
    let mut ops = writes(seed, length);
    // In this order, and anywhere between the others. The large values fill a segment.
    let long = |len| Op::Put(Bytes::from_static(b"long"), Blob { len, seed: 7 });
    let fixed = [
        long(25_000),
        Op::Hold(1, None),
        rows(1),
        Op::Snapshot(1),
        long(25_000),
        Op::Compact(When::Back(1)),
        Op::Reopen,
        rows(2),
        Op::Hold(1, None),
        long(25_000),
        Op::Restore(1),
        Op::Read(Eyes::Held(1), everything()),
        Op::Sync,
        long(25_000),
        Op::Compact(When::Back(0)),
        Op::Reclaim,
    ];
    let mut place = 0;
    let count = fixed.len();
    for (number, op) in fixed.into_iter().enumerate() {
        let left = ops.len() - place;
        place += random.index(left / (count - number) * 2 + 1).min(left);
        ops.insert(place, op);
        place += 1;
    }
    ops
}

/// A history in which segments fill up, most of what is in them dies, and the space is reclaimed, with views held
/// across, more compactions than elsewhere, and the store closed and opened.
#[must_use]
pub fn cleaning(seed: u64, count: usize) -> Vec<Op> {
    let mut random = Random::new(seed ^ 0xC1EA);
    let key =
        |random: &mut Random| Bytes::from(vec![b'c', b'0' + random.bits().to_le_bytes()[0] % 8]);
    let value = |random: &mut Random| Blob {
        seed: random.bits().to_le_bytes()[0],
        len: [200, 9_000, 14_000, 20_000][random.index(4)],
    };
    let op = |number: u64| match random.below(24) {
        0..4 => Op::Reclaim,
        4..7 => Op::Compact(When::Back(random.below(4))),
        7 => Op::Delete(key(&mut random)),
        8 => Op::Hold(random.bits().to_le_bytes()[0] % 2, None),
        9 => Op::Release(random.bits().to_le_bytes()[0] % 2),
        10 => read_held(),
        11 => Op::Reopen,
        12 => rows(number),
        13 => {
            let put = |random: &mut Random| Step::Put(key(random), value(random), LeaseId(0));
            let steps = vec![
                put(&mut random),
                Step::Delete(key(&mut random)),
                put(&mut random),
            ];
            Op::Txn(Begin::Write, steps, Finish::Commit)
        }
        _ => Op::Put(key(&mut random), value(&mut random)),
    };
    (1..=count as u64).map(op).collect()
}

/// A commit of a row and a log position, and of no key every second time.
fn rows(number: u64) -> Op {
    let key = Bytes::from(vec![b'r', number.to_le_bytes()[0] % 3]);
    let value = Blob {
        seed: 1,
        len: 3 + u32::from(number.to_le_bytes()[0]),
    };
    let mut steps = vec![
        Step::PutRow(TABLES[0], key.clone(), value),
        Step::DeleteRow(TABLES[1], key.clone()),
        Step::SetApplied(Applied {
            index: number,
            term: 1,
        }),
    ];
    if number % 2 == 1 {
        steps.insert(0, Step::Put(key, value, LeaseId(1)));
    }
    Op::Txn(Begin::Write, steps, Finish::Commit)
}

/// Reads all that the view 0 sees.
fn read_held() -> Op {
    Op::Read(Eyes::Held(0), everything())
}

/// All keys that a reader sees.
pub(super) fn everything() -> Read {
    Read::Range(Ask {
        keys: Keys::All,
        at: None,
        limit: None,
        reverse: false,
        keys_only: false,
    })
}
