//! Operations from bytes, beside the oracle, with power cuts between them, or with a call of the disk that fails.

use bytes::Bytes;
use revtree::storage::sim::{Sampled, SimDisk, SimOptions};
use revtree::{Durability, ReadMode};
use revtree_format::LeaseId;

use super::Input;
use crate::answer::Applied;
use crate::apply::{Surroundings, apply};
use crate::crash::{DURABILITIES, Setup, end_process, one_call, state_of};
use crate::keys::Keys;
use crate::model::{Begin, Finish, first_difference};
use crate::op::{Ask, Blob, Eyes, Op, Read, Step, TABLES, When};
use crate::oracle::Oracle;
use crate::subject::Store;

/// Operations of a history in which a call fails: it is run twice, and read again and again.
const FAULTY_OPS_MAX: usize = 48;

/// Does what the bytes say with a store and with the oracle.
///
/// # Errors
///
/// The first answer in which they differ, or a commit that a power cut took.
pub fn ops(data: &[u8]) -> Result<(), String> {
    let mut input = Input(data);
    let how = input.byte();
    let is_faulty = how & 128 != 0;
    let setup = Setup {
        durability: if is_faulty {
            DURABILITIES[usize::from(how >> 2) % DURABILITIES.len()]
        } else {
            Durability::Sync
        },
        checkpoint_bytes: [1, 2 << 10, 1 << 20][usize::from(how) % 3],
        read_mode: if how & 64 == 0 {
            ReadMode::Map
        } else {
            ReadMode::Pread
        },
    };
    if is_faulty {
        return with_a_fault(setup, &mut input);
    }
    let mut disk = SimDisk::new(SimOptions::default());
    let mut store = setup.open(&disk).map_err(|error| error.to_string())?;
    let mut oracle = Oracle::new();
    let mut around = Surroundings::default();
    while !input.is_empty() {
        let Some(op) = op(&mut input) else {
            // A power cut: under `Sync` everything is there.
            let expected = state_of(&mut store)?;
            let cut = disk.image(
                disk.operations(),
                &mut Sampled::new(u64::from(input.byte())),
            );
            end_process(store, &disk);
            disk = cut;
            store = setup
                .open(&disk)
                .map_err(|error| format!("after a power cut: {error}"))?;
            let found = state_of(&mut store)?;
            if found != expected {
                return Err(format!(
                    "lost: {found:?} after a power cut, it was {expected:?}"
                ));
            }
            // What is kept in memory alone is gone, as after a close.
            let happened = apply(&mut oracle, &Op::Reopen, &around);
            around.after(&Op::Reopen, &happened);
            continue;
        };
        around.facts = oracle.numbers();
        let expected = apply(&mut oracle, &op, &around);
        let found = apply(&mut store, &op, &around);
        if let Some(answer) = first_difference::<Store>(&expected, &found) {
            return Err(format!(
                "wrong: {op:?}: expected {:?}, found {:?}",
                expected.get(answer),
                found.get(answer)
            ));
        }
        around.after(&op, &expected);
    }
    end_process(store, &disk);
    Ok(())
}

/// The bytes say which call fails, and how, and what is done.
fn with_a_fault(setup: Setup, input: &mut Input<'_>) -> Result<(), String> {
    let fault = (
        input.byte().into(),
        input.short(),
        usize::from(input.byte()),
    );
    let mut ops = Vec::new();
    while !input.is_empty() && ops.len() < FAULTY_OPS_MAX {
        ops.push(match op(input) {
            Some(Op::Read(Eyes::Now, _)) => Op::Sync,
            Some(Op::Read(..)) => Op::Snapshot(0),
            Some(Op::HashByRev(_)) => Op::Restore(0),
            Some(op) => op,
            None => Op::Hold(input.byte() % 2, None),
        });
    }
    one_call(setup, ops, fault)
}

/// The next operation; `None` for a power cut.
fn op(input: &mut Input<'_>) -> Option<Op> {
    let what = input.byte();
    Some(match what % 16 {
        0..=3 => Op::Put(key(input), value(input)),
        4 => Op::Delete(key(input)),
        5 => Op::DeleteRange(keys(input)),
        6 | 7 => {
            let steps = (0..1 + input.byte() % 6).map(|_| step(input)).collect();
            let finish = [Finish::Commit, Finish::Submit, Finish::Abort, Finish::Drop];
            Op::Txn(Begin::Write, steps, finish[usize::from(input.byte()) % 4])
        }
        8 => Op::Compact(when(input)),
        9 => Op::Reopen,
        10 | 11 => Op::Read(Eyes::At(when(input)), Read::Range(ask(input))),
        12 => Op::Read(Eyes::Now, Read::History(key(input))),
        13 => Op::HashByRev(when(input)),
        14 => Op::Read(Eyes::Now, Read::Count(ask(input))),
        15 if what >= 128 => Op::Reclaim,
        _ => return None,
    })
}

fn step(input: &mut Input<'_>) -> Step {
    match input.byte() % 8 {
        0..=2 => Step::Put(key(input), value(input), LeaseId::NONE),
        3 => Step::Delete(key(input)),
        4 => Step::DeleteRange(keys(input)),
        5 => Step::PutRow(
            TABLES[usize::from(input.byte()) % 4],
            key(input),
            value(input),
        ),
        6 => Step::SetApplied(Applied {
            index: input.byte().into(),
            term: input.byte().into(),
        }),
        _ => Step::Own(Read::Range(ask(input))),
    }
}

/// Few keys, so that they meet: at most two bytes of an alphabet of four.
fn key(input: &mut Input<'_>) -> Bytes {
    let byte = input.byte();
    let letters = [0, b'a', b'b', 0xff];
    let of = |bits: u8| letters[usize::from(bits) % 4];
    let key = [of(byte), of(byte >> 2)];
    Bytes::copy_from_slice(&key[..usize::from(byte >> 4) % 3])
}

fn value(input: &mut Input<'_>) -> Blob {
    let byte = input.byte();
    let len = [0, 1, 40, 700, 5000, 20_000][usize::from(byte) % 6];
    Blob { seed: byte, len }
}

fn keys(input: &mut Input<'_>) -> Keys {
    match input.byte() % 3 {
        0 => Keys::Single(key(input)),
        1 => Keys::All,
        _ => Keys::Prefix(key(input)),
    }
}

fn when(input: &mut Input<'_>) -> When {
    let number = u64::from(input.byte());
    match number % 5 {
        0 => When::Zero,
        1 => When::Back(number / 5),
        2 => When::Ahead(number / 5),
        3 => When::Floor(number / 5),
        _ => When::BelowFloor(number / 5),
    }
}

fn ask(input: &mut Input<'_>) -> Ask {
    let byte = input.byte();
    Ask {
        keys: keys(input),
        at: None,
        limit: (byte & 1 == 1).then_some(usize::from(byte >> 4)),
        reverse: byte & 2 == 2,
        keys_only: byte & 4 == 4,
    }
}
