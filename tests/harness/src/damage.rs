//! Stores of which something is damaged: every single bit of 64 KiB of one, blocks that are zero, that are other
//! blocks of the store or those of another store, and bits by chance of stores of other shapes; lengths at which it is
//! cut, bytes and whole stores behind its end, and slots that are lost (F8, F9, F11, F12, F13).
//!
//! A store that was closed lacks nothing. Whatever is damaged, each key reads as it was or its read is an error that
//! says where: in the slot, the segment's header or the frame in which the damage lies. Damage in a record is none of
//! other keys, which read on. Of the first store, which has one checkpoint, it is known which bytes are needed: then
//! somebody tells of their damage: the open, what it found, or the check. Needed are the slots of the newest
//! superblock, the pages, and all frames up to the last that holds a record, hints and padding of records too;
//! not the slots of the superblock before, nor what lies between the frames (K-5).
//!
//! Parts have numbers: those of the first store come first, then a sample of all others, then all others complete.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{Db, Error};
use revtree_format::limits::SUPERBLOCK_SLOTS;

use crate::crash::{STORE, end_process, state_of};
use crate::random::Random;

mod ends;
mod shapes;

use shapes::{Intact, SHAPES};

/// Bits of one part.
const PART_BITS: usize = 4096;
/// The block by which disks forget and mistake.
const BLOCK: usize = 4096;
/// Parts that are bits, of a store of 64 KiB; one more has the blocks.
const FIRST_PARTS: u64 = (64 << 10) * 8 / PART_BITS as u64 + 1;
/// The shapes besides the two small ones.
const OTHERS: u64 = SHAPES.len() as u64 - 2;
/// The parts that are run first: samples of the other shapes, and of the lengths.
const SAMPLES_MAX: u64 = FIRST_PARTS + OTHERS + 1;
/// Each other shape is done in so many parts, and so are the lengths.
const SHARES: u64 = 16;
/// All parts.
pub const PARTS_MAX: u64 = SAMPLES_MAX + OTHERS * SHARES + SHARES;
/// Of the bytes of another shape about so many have a bit changed in a sample.
const SAMPLED: u64 = 600;
/// Of the lengths one in so many is a sample.
const LENGTHS_IN: u64 = 32;

fn shape(n: usize) -> &'static Intact {
    static MADE: [OnceLock<Intact>; SHAPES.len()] = [const { OnceLock::new() }; SHAPES.len()];
    let (name, make) = SHAPES[n];
    let made = MADE[n].get_or_init(make);
    assert!(
        made.bytes.len() > 64 << 10,
        "{name}: {} bytes",
        made.bytes.len()
    );
    made
}

/// Damages the stores in the ways of this part; gives how many there were.
///
/// # Errors
///
/// The first damage that is served or that nobody tells.
pub fn damage(part: u64) -> Result<u64, String> {
    let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    if part < FIRST_PARTS - 1 {
        return bits(shape(0), place(part) * PART_BITS);
    }
    if part < FIRST_PARTS {
        return Ok(blocks(shape(0))? + ends::slots(shape(0))?);
    }
    let sample = part - FIRST_PARTS;
    if sample < OTHERS {
        let which = place(sample) + 2;
        let mut random = Random::new(part);
        let subject = shape(which);
        let one_in = subject.bytes.len() as u64 / SAMPLED;
        let tried = bytes(which, || random.once_in(one_in))?;
        return Ok(tried + zeros(subject)? + ends::slots(subject)? + ends::behind(subject)?);
    }
    if sample == OTHERS {
        let mut random = Random::new(part);
        return ends::lengths(|_| random.once_in(LENGTHS_IN));
    }
    let complete = part - SAMPLES_MAX;
    let (which, share) = (complete / SHARES, complete % SHARES);
    if which < OTHERS {
        let mut n = 0;
        return bytes(place(which) + 2, || {
            n += 1;
            n % SHARES == share
        });
    }
    ends::lengths(|len| len as u64 % SHARES == share)
}

/// One bit of each of the bytes that are chosen, another one from byte to byte.
fn bytes(which: usize, mut chosen: impl FnMut() -> bool) -> Result<u64, String> {
    let subject = shape(which);
    let mut cases = 0;
    let places = (0..shapes::end_of(&subject.bytes)).filter(|_| chosen());
    for place in places {
        let mut bytes = subject.bytes.clone();
        bytes[place] ^= 1 << (place % 8);
        damaged(subject, &bytes, Some(place), false).map_err(|error| {
            let (name, _) = SHAPES[which];
            format!("{error}\n  of {name}, a bit of byte {place:#x} is another")
        })?;
        cases += 1;
    }
    Ok(cases)
}

/// Blocks that are zero.
fn zeros(subject: &Intact) -> Result<u64, String> {
    let mut cases = 0;
    for block in (0..shapes::end_of(&subject.bytes)).step_by(BLOCK) {
        let mut bytes = subject.bytes.clone();
        let end = bytes.len().min(block + BLOCK);
        bytes[block..end].fill(0);
        damaged(subject, &bytes, None, false)
            .map_err(|error| format!("{error}\n  the block at {block:#x} is zero"))?;
        cases += 1;
    }
    Ok(cases)
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
        damaged(subject, &bytes, Some(bit / 8), needed).map_err(|error| {
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
        damaged(subject, bytes, None, changed).map_err(|error| format!("{error}\n  {what}"))
    };
    for n in 0..count {
        let mut bytes = subject.bytes.clone();
        bytes[block(n)].fill(0);
        tried(&bytes, n * BLOCK, format!("block {n} is zero"))?;
    }
    let other = &shape(1).bytes;
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

/// Opens what is damaged: nothing wrong is served, and what is `needed` is told. Where one `place` is damaged, errors
/// name the structure that it lies in, and keys whose records it is not in are read.
fn damaged(
    subject: &Intact,
    bytes: &[u8],
    place: Option<usize>,
    needed: bool,
) -> Result<(), String> {
    let disk = SimDisk::new(SimOptions::default());
    disk.put_bytes(Path::new(STORE), bytes);
    let mut store = match subject.setup.open(&disk) {
        Ok(store) => store,
        Err(error) => return typed(subject, &error, place),
    };
    let state = state_of(&mut store);
    let is_before = place.is_none_or(|place| subject.is_in_doubt(place))
        && (subject.before.iter()).any(|(before, _)| state.as_ref() == Ok(before));
    if !is_before {
        let record = place.and_then(|place| subject.record_at(place));
        for (key, expected) in &subject.keys {
            let is_other = record.is_some_and(|damaged| damaged != key);
            right(
                subject,
                store.db(),
                (key, expected.as_ref()),
                place,
                is_other,
            )?;
        }
    }
    match state {
        Ok(state) if state == subject.state || is_before => {}
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

fn right(
    subject: &Intact,
    db: &Db,
    (key, expected): (&Bytes, Option<&revtree::KeyValue>),
    place: Option<usize>,
    is_other: bool,
) -> Result<(), String> {
    match db.get(key) {
        Ok(found) if found.as_ref() == expected => Ok(()),
        Ok(found) => Err(format!("wrong: {key:?} is {found:?}")),
        Err(error) if is_other => Err(format!(
            "wrong: the damage is in another key's record, and yet {key:?} says {error:?}"
        )),
        Err(error) => typed(subject, &error, place),
    }
}

/// An error that says that the file is damaged, and where.
fn typed(subject: &Intact, error: &Error, place: Option<usize>) -> Result<(), String> {
    match (error, place) {
        (Error::Corrupt { offset, .. }, Some(place)) => {
            let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
            match subject.structure_at(place) {
                Some(structure) if !structure.contains(&offset) => Err(format!(
                    "wrong: damaged is {structure:x?}, and {error:?} is said"
                )),
                _ => Ok(()),
            }
        }
        (Error::Corrupt { .. } | Error::NotAStore { .. } | Error::FormatTooNew { .. }, _) => Ok(()),
        (other, _) => Err(format!("wrong: it says {other:?}")),
    }
}
