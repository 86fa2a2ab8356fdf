//! A store of which something is damaged: every single bit of 64 KiB, blocks that are zero, that are other blocks of
//! the store or those of another store, and bytes behind its end (F8, F9, F13).
//!
//! The store was closed, so nothing of it may be missing. Whatever is damaged, each key reads as it was or its
//! read is an error that says where; and where the damage lies in bytes that are needed, somebody says so: the
//! open, what it found, or the check. Needed are, of this store with one checkpoint, the slots of the newest
//! superblock, the pages, and all frames up to the last that holds a record, hints and padding of records too;
//! not the slots of the superblock before, nor what lies between the frames (K-5).

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{Db, Durability, Error, ReadMode};
use revtree_format::limits::SUPERBLOCK_SLOTS;
use revtree_format::{FrameKind, LeaseId};

use crate::answer::Applied;
use crate::crash::{STORE, Setup, end_process, state_of};
use crate::fuzz::{Image, Spot};
use crate::model::{Begin, Finish, Subject};
use crate::op::{Blob, Op, Step, TABLES};
use crate::state::State;

/// Bits of one part.
const PART_BITS: usize = 4096;
/// The block by which disks forget and mistake.
const BLOCK: usize = 4096;
/// Parts that are bits, of a store of 64 KiB; one more has the blocks.
pub const PARTS_MAX: u64 = (64 << 10) * 8 / PART_BITS as u64 + 1;

const SETUP: Setup = Setup {
    durability: Durability::Sync,
    checkpoint_bytes: 1 << 20,
    read_mode: ReadMode::Map,
};

/// What is damaged.
struct Intact {
    bytes: Vec<u8>,
    state: State,
    keys: Vec<(Bytes, Option<revtree::KeyValue>)>,
    needed: Vec<Range<usize>>,
}

fn subject() -> &'static Intact {
    static SUBJECT: OnceLock<Intact> = OnceLock::new();
    SUBJECT.get_or_init(|| make(0))
}

/// A store of the same shape, whose values and id are others.
fn other_store() -> &'static Intact {
    static OTHER: OnceLock<Intact> = OnceLock::new();
    OTHER.get_or_init(|| make(1))
}

/// A store of more than 64 KiB: generations, deletes, leases, rows, a long value, one of each kind of page.
fn make(number: u8) -> Intact {
    let seed = 1 + number;
    let disk = SimDisk::new(SimOptions {
        seed: number.into(),
        ..SimOptions::default()
    });
    let mut store = SETUP.open(&disk).expect("nothing fails");
    let key = |n: u8| Bytes::from(vec![b'k', n]);
    let mut around = crate::apply::Surroundings::default();
    let mut ops = Vec::new();
    for n in 0..24 {
        let value = Blob {
            seed: n ^ seed,
            len: 150 * u32::from(n % 5),
        };
        ops.push(Op::Put(key(n % 7), value));
        if n % 6 == 5 {
            ops.push(Op::Delete(key(n % 7)));
        }
    }
    ops.push(Op::Txn(
        Begin::Write,
        vec![
            Step::Put(key(3), Blob { seed, len: 12 }, LeaseId(7)),
            Step::PutRow(TABLES[0], key(1), Blob { seed, len: 40 }),
            Step::SetApplied(Applied { index: 9, term: 2 }),
        ],
        Finish::Commit,
    ));
    for op in &ops {
        let done = crate::apply::apply(&mut store, op, &around);
        around.after(op, &done);
    }
    let long = Blob { seed, len: 3000 }.bytes();
    store
        .put(&Bytes::from_static(b"long"), &long)
        .expect("nothing fails");
    let state = state_of(&mut store).expect("nothing is damaged");
    let keys = (0..7)
        .map(key)
        .chain([Bytes::from_static(b"long"), Bytes::from_static(b"none")]);
    let keys = keys
        .map(|key| {
            let found = store.db().get(&key).expect("nothing is damaged");
            (key, found)
        })
        .collect();
    store.close().expect("nothing fails");
    let bytes = disk.bytes(Path::new(STORE)).expect("it has been made");
    let image = Image::new(bytes.clone()).expect("it is whole");
    let needed = needed(&image);
    Intact {
        bytes,
        state,
        keys,
        needed,
    }
}

/// The newest superblock, segment headers, pages, and the frames up to the last one with a record.
fn needed(image: &Image) -> Vec<Range<usize>> {
    let mut needed: Vec<_> = std::iter::once(2 * BLOCK..4 * BLOCK).collect();
    needed.extend(image.segments.iter().map(|at| *at..*at + 64));
    let end = |frame: &Spot| frame.position + 64 + frame.body_len;
    let with_records = |frame: &&Spot| frame.records_len > 0;
    for frame in &image.frames {
        let segment_use = frame.segment_use;
        let in_segment = image
            .frames
            .iter()
            .filter(|one| one.segment_use == segment_use);
        let last = in_segment.filter(with_records).map(end).max();
        if frame.kind != FrameKind::Records || last.is_some_and(|last| frame.position < last) {
            needed.push(frame.position..end(frame));
        }
    }
    needed
}

/// Damages the store in the ways of this part; gives how many there were.
///
/// # Errors
///
/// The first damage that is served or that nobody tells.
pub fn damage(part: u64) -> Result<u64, String> {
    let subject = subject();
    let part = usize::try_from(part).unwrap_or(usize::MAX);
    if part + 1 < usize::try_from(PARTS_MAX).unwrap_or(0) {
        return bits(subject, part * PART_BITS);
    }
    blocks(subject)
}

/// Each bit of this part, of those that the store has.
fn bits(subject: &Intact, first: usize) -> Result<u64, String> {
    let mut cases = 0;
    for bit in first..(first + PART_BITS).min(subject.bytes.len() * 8) {
        let mut bytes = subject.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let needed = subject
            .needed
            .iter()
            .any(|range| range.contains(&(bit / 8)));
        damaged(subject, &bytes, needed).map_err(|error| {
            format!(
                "{error}\n  bit {} of byte {:#x} is another",
                bit % 8,
                bit / 8
            )
        })?;
        cases += 1;
    }
    Ok(cases)
}

/// Blocks that are zero, and bytes behind the end.
fn blocks(subject: &Intact) -> Result<u64, String> {
    let count = subject.bytes.len() / BLOCK;
    let block = |n: usize| n * BLOCK..(n + 1) * BLOCK;
    let mut cases = 0;
    let mut tried = |bytes: &[u8], place: usize, what: String| {
        cases += 1;
        let changed = subject.needed.iter().any(|range| {
            let (start, end) = (range.start.max(place), range.end.min(place + BLOCK));
            start < end && bytes.get(start..end) != subject.bytes.get(start..end)
        });
        damaged(subject, bytes, changed).map_err(|error| format!("{error}\n  {what}"))
    };
    for n in 0..count {
        let mut bytes = subject.bytes.clone();
        bytes[block(n)].fill(0);
        tried(&bytes, n * BLOCK, format!("block {n} is zero"))?;
    }
    let other = &other_store().bytes;
    for n in 0..count {
        for m in 0..count {
            let mut bytes = subject.bytes.clone();
            bytes[block(n)].copy_from_slice(&subject.bytes[block(m)]);
            // A slot in the place of another is what a crash between the two leaves.
            let is_slot = n < SUPERBLOCK_SLOTS && m < SUPERBLOCK_SLOTS;
            let place = if is_slot {
                usize::MAX - BLOCK
            } else {
                n * BLOCK
            };
            tried(&bytes, place, format!("block {n} is block {m}"))?;
        }
        for m in [n, n + 1].into_iter().filter(|m| *m < other.len() / BLOCK) {
            let mut bytes = subject.bytes.clone();
            bytes[block(n)].copy_from_slice(&other[block(m)]);
            tried(
                &bytes,
                n * BLOCK,
                format!("block {n} is another store's block {m}"),
            )?;
        }
    }
    for len in [1, 8, 511, 4096, 70_000] {
        for kind in 0..3 {
            let mut bytes = subject.bytes.clone();
            let more = (0..len).map(|n| match kind {
                0 => 0,
                1 => (n * 151 % 256_usize).to_le_bytes()[0],
                _ => subject.bytes[(4 * BLOCK + n) % subject.bytes.len()],
            });
            bytes.extend(more);
            tried(
                &bytes,
                usize::MAX - BLOCK,
                format!("{len} bytes of kind {kind} behind the end"),
            )?;
        }
    }
    Ok(cases)
}

/// Opens what is damaged: nothing wrong is served, and what is `needed` is told.
fn damaged(subject: &Intact, bytes: &[u8], needed: bool) -> Result<(), String> {
    let disk = SimDisk::new(SimOptions::default());
    disk.put_bytes(Path::new(STORE), bytes);
    let mut store = match SETUP.open(&disk) {
        Ok(store) => store,
        Err(error) => return typed(&error),
    };
    for (key, expected) in &subject.keys {
        right(store.db(), key, expected.as_ref())?;
    }
    match state_of(&mut store) {
        Ok(state) if state == subject.state => {}
        Ok(state) => return Err(format!("wrong: it shows {state:?}")),
        Err(error) if error.contains("Corrupt") => {}
        Err(error) => return Err(format!("wrong: it says {error}")),
    }
    let told = store.db().recovery().superblocks_bad > 0
        || !store
            .db()
            .check()
            .map_err(|error| format!("wrong: the check says {error}"))?
            .is_clean();
    end_process(store, &disk);
    if needed && !told {
        return Err("wrong: nobody tells of it".to_owned());
    }
    Ok(())
}

fn right(db: &Db, key: &Bytes, expected: Option<&revtree::KeyValue>) -> Result<(), String> {
    match db.get(key) {
        Ok(found) if found.as_ref() == expected => Ok(()),
        Ok(found) => Err(format!("wrong: {key:?} is {found:?}")),
        Err(error) => typed(&error),
    }
}

fn typed(error: &Error) -> Result<(), String> {
    match error {
        Error::Corrupt { .. } | Error::NotAStore { .. } | Error::FormatTooNew { .. } => Ok(()),
        other => Err(format!("wrong: it says {other:?}")),
    }
}
