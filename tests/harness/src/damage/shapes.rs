//! Stores that are damaged: what they hold, and where their structures lie.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{Durability, KeyValue, ReadMode};
use revtree_format::limits::SUPERBLOCK_SLOTS;
use revtree_format::{FRAME_HEADER_BYTES, FrameKind, LeaseId, SEGMENT_HEADER_BYTES};

use super::BLOCK;
use crate::answer::Applied;
use crate::apply::{Surroundings, apply};
use crate::crash::{STORE, Setup, state_of};
use crate::fuzz::{Image, Spot};
use crate::model::{Begin, Finish, Subject};
use crate::op::{Blob, Op, Step, TABLES, When};
use crate::state::State;
use crate::subject::Store;

/// Keys that are read one by one of each store.
const KEYS_READ: usize = 24;

const SETUP: Setup = Setup {
    durability: Durability::Sync,
    checkpoint_bytes: 1 << 20,
    read_mode: ReadMode::Map,
};

/// What is damaged.
pub(super) struct Intact {
    pub(super) setup: Setup,
    pub(super) bytes: Vec<u8>,
    pub(super) state: State,
    /// The state before, and where damage may bring it back: it looks like a torn end.
    pub(super) before: Option<(State, usize)>,
    pub(super) keys: Vec<(Bytes, Option<KeyValue>)>,
    /// Where damage has to be told; for stores of one checkpoint.
    pub(super) needed: Vec<Range<usize>>,
    /// Slots, headers of segments, frames.
    pub(super) structures: Vec<Range<usize>>,
    /// Records, each with its key.
    pub(super) records: Vec<(Range<usize>, Bytes)>,
}

impl Intact {
    /// Whether damage here may look like a torn end.
    pub(super) fn is_in_doubt(&self, place: usize) -> bool {
        self.before.iter().any(|(_, end)| place >= *end)
    }

    /// The structure in which a byte lies.
    pub(super) fn structure_at(&self, place: usize) -> Option<&Range<usize>> {
        self.structures.iter().find(|range| range.contains(&place))
    }

    /// The key of the record in which a byte lies.
    pub(super) fn record_at(&self, place: usize) -> Option<&Bytes> {
        let found = self
            .records
            .iter()
            .find(|(range, _)| range.contains(&place));
        found.map(|(_, key)| key)
    }
}

/// What a store is called, and what makes it.
type Shape = (&'static str, fn() -> Intact);

/// One store after the other; the first two are of one shape with other values and another id.
pub(super) const SHAPES: [Shape; 7] = [
    ("small", || small(0)),
    ("another small one", || small(1)),
    ("long records", long),
    ("recycled segments", recycled),
    ("not closed", not_closed),
    ("a deep tree", deep),
    ("leases, rows and a compaction", mixed),
];

fn key(n: u8) -> Bytes {
    Bytes::from(vec![b'k', n])
}

fn put(n: u8, seed: u8, len: u32) -> Op {
    Op::Put(key(n), Blob { seed, len })
}

/// A store of more than 64 KiB: generations, deletes, leases, rows, a long value, one of each kind of page.
fn small(number: u8) -> Intact {
    let seed = 1 + number;
    let mut ops = Vec::new();
    for n in 0..24 {
        ops.push(put(n % 7, n ^ seed, 150 * u32::from(n % 5)));
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
    ops.push(Op::Put(
        Bytes::from_static(b"long"),
        Blob { seed, len: 3000 },
    ));
    closed(SETUP, number, &ops)
}

/// Values of more than a segment has: records of several units.
fn long() -> Intact {
    let lens = [20_000, 150_000, 70_000, 300, 65_000];
    let ops: Vec<Op> = (0..).zip(lens).map(|(n, len)| put(n, n, len)).collect();
    closed(SETUP, 2, &ops)
}

/// Segments that have been used again.
fn recycled() -> Intact {
    let mut ops = Vec::new();
    for n in 0..48 {
        ops.push(put(n % 3, n, 12_000));
        if n % 6 == 5 {
            ops.extend([Op::Compact(When::Back(0)), Op::Sync]);
        }
    }
    let setup = Setup {
        checkpoint_bytes: 16 << 10,
        ..SETUP
    };
    let made = closed(setup, 3, &ops);
    let image = Image::new(made.bytes.clone()).expect("it is whole");
    let newest = image.frames.iter().map(|frame| frame.segment_use).max();
    assert!(
        newest.is_some_and(|newest| newest > image.segments.len() as u64),
        "no segment was used twice"
    );
    made
}

/// The end of the process came between two commits.
fn not_closed() -> Intact {
    let ops: Vec<Op> = (0..40_u8)
        .map(|n| put(n % 9, n, 100 * u32::from(n % 11)))
        .collect();
    let setup = Setup {
        checkpoint_bytes: 8 << 10,
        ..SETUP
    };
    let (disk, mut store, mut around) = begun(setup, 4);
    work(&mut store, &mut around, &ops);
    let before = state_of(&mut store).expect("nothing is damaged");
    let file = Path::new(STORE);
    let end = end_of(&disk.bytes(file).expect("it has been made"));
    work(&mut store, &mut around, &[put(1, 1, 500)]);
    let (state, keys) = (
        state_of(&mut store).expect("nothing is damaged"),
        read(&store),
    );
    let killed = disk.kill(disk.operations());
    crate::crash::end_process(store, &disk);
    let bytes = killed.bytes(file).expect("it has been made");
    let before = Some((before, end.next_multiple_of(BLOCK)));
    Intact {
        before,
        ..intact(setup, bytes, state, keys)
    }
}

/// Branch pages over branch pages: many small changes with many checkpoints.
fn deep() -> Intact {
    let change = |n: u16| {
        let key = Bytes::from(format!("key/{n:04}"));
        Step::Put(
            key,
            Blob {
                seed: n.to_le_bytes()[0],
                len: 60,
            },
            LeaseId::NONE,
        )
    };
    let ops: Vec<Op> = (0..60)
        .map(|txn| {
            let steps = (0..40).map(|n| change(txn * 40 + n)).collect();
            Op::Txn(Begin::Write, steps, Finish::Commit)
        })
        .collect();
    let setup = Setup {
        checkpoint_bytes: 16 << 10,
        ..SETUP
    };
    closed(setup, 5, &ops)
}

/// Leases and rows of all tables, with a compaction in the middle of generations.
fn mixed() -> Intact {
    let mut ops = Vec::new();
    for n in 0..60_u8 {
        let value = Blob {
            seed: n,
            len: 7 * u32::from(n % 13),
        };
        let row = Bytes::from(vec![b'r', n % 17]);
        let table = TABLES[usize::from(n % 4)];
        let mut steps = vec![
            Step::Put(key(n % 11), value, LeaseId(i64::from(n % 5))),
            Step::PutRow(table, row.clone(), value),
            Step::SetApplied(Applied {
                index: u64::from(n) + 1,
                term: 1,
            }),
        ];
        if n % 7 == 6 {
            steps.extend([Step::Delete(key(n % 10)), Step::DeleteRow(table, row)]);
        }
        ops.push(Op::Txn(Begin::Write, steps, Finish::Commit));
        if n == 40 {
            ops.push(Op::Compact(When::Back(10)));
        }
    }
    closed(SETUP, 6, &ops)
}

fn begun(setup: Setup, seed: u8) -> (SimDisk, Store, Surroundings) {
    let disk = SimDisk::new(SimOptions {
        seed: seed.into(),
        ..SimOptions::default()
    });
    let store = setup.open(&disk).expect("nothing fails");
    (disk, store, Surroundings::default())
}

fn work(store: &mut Store, around: &mut Surroundings, ops: &[Op]) {
    for op in ops {
        around.facts = store.facts().expect("nothing is damaged");
        let done = apply(store, op, around);
        around.after(op, &done);
    }
}

/// A store in which this was done and that was closed.
fn closed(setup: Setup, seed: u8, ops: &[Op]) -> Intact {
    let (disk, mut store, mut around) = begun(setup, seed);
    work(&mut store, &mut around, ops);
    let (state, keys) = (
        state_of(&mut store).expect("nothing is damaged"),
        read(&store),
    );
    store.close().expect("nothing fails");
    let bytes = disk.bytes(Path::new(STORE)).expect("it has been made");
    intact(setup, bytes, state, keys)
}

/// Some keys, and one that is not there.
fn read(store: &Store) -> Vec<(Bytes, Option<KeyValue>)> {
    let view = store.db().read().expect("nothing is damaged");
    let all = view.range(..).collect().expect("nothing is damaged").kvs;
    let step = all.len() / KEYS_READ + 1;
    let some = all.into_iter().step_by(step);
    let some = some.map(|kv| (kv.key.clone(), Some(kv)));
    some.chain([(Bytes::from_static(b"none"), None)]).collect()
}

fn intact(
    setup: Setup,
    bytes: Vec<u8>,
    state: State,
    keys: Vec<(Bytes, Option<KeyValue>)>,
) -> Intact {
    let image = Image::new(bytes.clone()).expect("it is whole");
    let slots = (0..SUPERBLOCK_SLOTS).map(|slot| slot * BLOCK..(slot + 1) * BLOCK);
    let segments = image.segments.iter();
    let segments = segments.map(|at| *at..*at + SEGMENT_HEADER_BYTES);
    let structures = slots.chain(segments).chain(image.frames.iter().map(range));
    Intact {
        setup,
        needed: needed(&image),
        structures: structures.collect(),
        records: image.records(),
        bytes,
        state,
        before: None,
        keys,
    }
}

/// A frame with its header.
fn range(frame: &Spot) -> Range<usize> {
    frame.position..frame.position + FRAME_HEADER_BYTES + frame.body_len
}

/// The last byte that is not zero.
pub(super) fn end_of(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |n| n + 1)
}

/// The newest superblock, segment headers, pages, and the frames up to the last one with a record.
fn needed(image: &Image) -> Vec<Range<usize>> {
    let mut needed: Vec<_> = std::iter::once(2 * BLOCK..4 * BLOCK).collect();
    let segments = image.segments.iter();
    needed.extend(segments.map(|at| *at..*at + SEGMENT_HEADER_BYTES));
    let with_records = |frame: &&Spot| frame.records_len > 0;
    for frame in &image.frames {
        let segment_use = frame.segment_use;
        let in_segment = image
            .frames
            .iter()
            .filter(|one| one.segment_use == segment_use);
        let last = in_segment
            .filter(with_records)
            .map(|one| range(one).end)
            .max();
        if frame.kind != FrameKind::Records || last.is_some_and(|last| frame.position < last) {
            needed.push(range(frame));
        }
    }
    needed
}

/// A store of 256 KiB and more whose states are known, each with where it ends in the log: to be cut.
pub(super) struct Long {
    pub(super) setup: Setup,
    pub(super) bytes: Vec<u8>,
    pub(super) digests: Vec<u64>,
    ends: Vec<usize>,
    closed: bool,
}

impl Long {
    pub(super) fn new(closed: bool) -> Long {
        // The log is longer than what a checkpoint covers; of one that was closed all is covered.
        let setup = Setup {
            checkpoint_bytes: 100 << 10,
            ..SETUP
        };
        let (disk, mut store, mut around) = begun(setup, 7);
        let file = Path::new(STORE);
        let (mut digests, mut ends) = (Vec::new(), Vec::new());
        let mut n = 0;
        while ends.last().is_none_or(|end| *end < 250 << 10) {
            let len = 500 + 700 * u32::from(n % 12);
            work(&mut store, &mut around, &[put(n % 20, n, len)]);
            n += 1;
            let state = state_of(&mut store).expect("nothing is damaged");
            digests.push(state.digest());
            ends.push(end_of(&disk.bytes(file).expect("it has been made")));
        }
        let bytes = if closed {
            store.close().expect("nothing fails");
            disk.bytes(file)
        } else {
            let killed = disk.kill(disk.operations());
            crate::crash::end_process(store, &disk);
            killed.bytes(file)
        };
        Long {
            setup,
            bytes: bytes.expect("it has been made"),
            digests,
            ends,
            closed,
        }
    }

    /// What a file of this length may show. Of one that was closed the last state. Else nothing tells of frames
    /// behind the cut: those before it count, and a frame is there when its last block is.
    pub(super) fn allowed(&self, len: usize) -> Range<usize> {
        let last = self.digests.len() - 1;
        if self.closed {
            return last..last + 1;
        }
        let whole = |end: &usize| end.next_multiple_of(BLOCK) <= len;
        let first = self.ends.iter().rposition(whole).unwrap_or(0);
        let end = self.ends.iter().rposition(|end| *end <= len);
        first..end.map_or(0, |n| n + 1).max(first + 1)
    }

    /// Nothing is missing.
    pub(super) fn must_open(&self, len: usize) -> bool {
        len >= end_of(&self.bytes).next_multiple_of(BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use revtree::Error;
    use revtree::storage::sim::{SimDisk, SimOptions};

    use super::SHAPES;
    use crate::crash::STORE;

    /// What the checks of a damaged store rest on: a bit of a record's value that is another is an error of its key
    /// alone, in the frame that the map of the store has there; and each shape has what it is for.
    #[test]
    fn records_are_where_the_map_has_them() {
        for (name, make) in SHAPES {
            let subject = make();
            let newest = subject.keys.iter().find_map(|(key, found)| {
                let found = found.as_ref().filter(|found| found.value.len() > 8)?;
                let of_key = |record: &&(std::ops::Range<usize>, bytes::Bytes)| record.1 == *key;
                let ends_so = |record: &&(std::ops::Range<usize>, bytes::Bytes)| {
                    subject.bytes[record.0.clone()].ends_with(&found.value)
                };
                let mut records = subject.records.iter().filter(of_key).rev();
                Some((key, records.find(ends_so)?.0.end - 4))
            });
            let (key, place) = newest.expect("a value of some length");
            assert_eq!(subject.record_at(place), Some(key), "{name}");
            let structure = subject.structure_at(place).expect("in a frame");
            let mut bytes = subject.bytes.clone();
            bytes[place] ^= 1;
            let disk = SimDisk::new(SimOptions::default());
            disk.put_bytes(Path::new(STORE), &bytes);
            match subject.setup.open(&disk) {
                Ok(store) => {
                    for (read, expected) in &subject.keys {
                        match store.db().get(read) {
                            Err(Error::Corrupt { offset, .. }) if read == key => {
                                let offset = usize::try_from(offset).unwrap();
                                assert!(structure.contains(&offset), "{name}: {offset}");
                            }
                            found => assert_eq!(&found.unwrap(), expected, "{name}, {read:?}"),
                        }
                    }
                    assert!(store.db().get(key).is_err(), "{name}");
                }
                // Behind the last checkpoint it is the log that is damaged.
                Err(error) => assert!(subject.before.is_some(), "{name}: {error:?}"),
            }
        }
    }
}
