//! A small store cut at every length, and each of its bytes changed: every answer is the right one or a
//! typed error; nothing panics, and an open shows an older state only where A-6 allows it.

use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{Db, Durability, Error, Options, Result, Revision};

const STORE: &str = "store";
const KEYS: [&str; 4] = ["a", "b", "c", "never put"];
/// No damage is found without the bytes around it: a block is what is written together.
const BLOCK: usize = 4096;

fn open(disk: &SimDisk) -> Result<Db> {
    let durability = Durability::Batched {
        changes: 1000,
        interval: Duration::from_secs(1000),
    };
    Options::new()
        .disk(Arc::new(disk.clone()))
        .durability(durability)
        .segment_bytes(64 << 10)
        .store_bytes_max(1 << 20)
        .open(STORE)
}

/// What tells one state of the history from all others.
type Name = (Revision, Option<Revision>, u64);

fn name(db: &Db) -> Name {
    (db.rev(), db.compact_rev(), db.consistent_index().index)
}

/// Every question that the store can be asked, with its answer as text.
fn answers(db: &Db) -> Vec<Result<String>> {
    fn text<T: Debug>(answer: Result<T>) -> Result<String> {
        answer.map(|answer| format!("{answer:?}"))
    }
    let mut answers = Vec::new();
    let view = match db.read() {
        Ok(view) => view,
        Err(error) => return vec![Err(error)],
    };
    let rows: Vec<_> = view.table("rows").iter().collect();
    answers.push(text(Ok(rows)));
    let first = db.compact_rev().unwrap_or(Revision::new(1));
    for rev in first.get()..=db.rev().get() {
        let at = db.read_at(rev);
        answers.push(text(at.and_then(|view| view.range(..).collect())));
    }
    for key in KEYS {
        answers.push(text(db.get(key)));
        let history = view
            .history(key)
            .and_then(Iterator::collect::<Result<Vec<_>>>);
        answers.push(text(history));
    }
    answers.push(text(view.range(..).reverse().keys_only().collect()));
    answers.push(text(view.range("a".."c").count()));
    let changes = view.changes(.., first..=view.rev());
    answers.push(text(changes.and_then(Iterator::collect::<Result<Vec<_>>>)));
    answers.push(text(db.hash_by_rev(0)));
    answers.push(text(db.hash(&[])));
    answers
}

/// One state of the history: after a sync, so that all of it came by one write.
struct State {
    name: Name,
    answers: Vec<String>,
    /// Where its last byte in the log lies that is not zero.
    end: usize,
}

/// The file of a store, and the states that it went through.
struct Small {
    closed: bool,
    bytes: Vec<u8>,
    states: Vec<State>,
}

/// The last byte that is not zero.
fn end_of(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |n| n + 1)
}

impl Small {
    fn new(closed: bool) -> Small {
        let disk = SimDisk::new(SimOptions::default());
        let db = open(&disk).unwrap();
        let mut states = Vec::new();
        let mut keep = |db: &Db| {
            db.sync().unwrap();
            let answers = answers(db).into_iter().map(Result::unwrap).collect();
            let end = end_of(&disk.bytes(Path::new(STORE)).unwrap());
            let name = name(db);
            states.push(State { name, answers, end });
        };
        let commit = |index: u64, changes: &[(&str, Option<&str>)]| {
            let mut txn = db.write().unwrap();
            for (key, value) in changes {
                match value {
                    Some(value) => drop(txn.put(key, value).unwrap()),
                    None => drop(txn.delete(key).unwrap()),
                }
            }
            txn.table("rows")
                .unwrap()
                .put(b"last", &index.to_be_bytes())
                .unwrap();
            txn.set_applied(revtree::Applied { index, term: 1 });
            txn.commit().unwrap();
        };
        keep(&db);
        commit(1, &[("a", Some("one")), ("b", Some(""))]);
        commit(2, &[("a", Some("two")), ("c", Some("the first of c"))]);
        keep(&db);
        commit(3, &[("b", None)]);
        commit(
            4,
            &[
                ("c", Some("second")),
                ("b", Some("again")),
                ("b", Some("and again")),
            ],
        );
        commit(5, &[]);
        keep(&db);
        db.compact(3).unwrap();
        keep(&db);
        commit(6, &[("a", None), ("c", Some("third"))]);
        keep(&db);
        if closed {
            db.close().unwrap();
        } else {
            // What a kill leaves.
            let killed = disk.kill(disk.operations());
            drop(db);
            let mut bytes = killed.bytes(Path::new(STORE)).unwrap();
            // Of the space behind the log a few blocks are as good as all.
            bytes.truncate(end_of(&bytes).next_multiple_of(BLOCK) + 3 * BLOCK);
            return Small {
                closed,
                bytes,
                states,
            };
        }
        let bytes = disk.bytes(Path::new(STORE)).unwrap();
        Small {
            closed,
            bytes,
            states,
        }
    }

    /// Opens a file and asks it everything. It must show one of these states, and of that nothing but the
    /// truth; says whether it opened.
    fn check(&self, bytes: &[u8], allowed: Range<usize>, what: &dyn Fn() -> String) -> bool {
        let disk = SimDisk::new(SimOptions::default());
        disk.put_bytes(Path::new(STORE), bytes);
        let db = match open(&disk) {
            Ok(db) => db,
            Err(Error::NotAStore { .. } | Error::Corrupt { .. } | Error::FormatTooNew { .. }) => {
                return false;
            }
            Err(error) => panic!("{}: {error:?}", what()),
        };
        let found = name(&db);
        let state = self.states[allowed]
            .iter()
            .find(|state| state.name == found);
        let Some(state) = state else {
            panic!("{}: {found:?}", what())
        };
        let answers = answers(&db);
        assert_eq!(answers.len(), state.answers.len(), "{}", what());
        for (found, truth) in answers.into_iter().zip(&state.answers) {
            match found {
                Ok(found) => assert_eq!(found, *truth, "{}", what()),
                Err(Error::Corrupt { .. }) => {}
                Err(error) => panic!("{}: {error:?} for {truth}", what()),
            }
        }
        true
    }

    /// Of a file that was closed the last state. Else nothing tells of frames behind the cut: those before it
    /// count, and a frame is there when its last block is.
    fn allowed_cut(&self, len: usize) -> Range<usize> {
        let last = self.states.len() - 1;
        if self.closed {
            return last..last + 1;
        }
        let whole = |end: usize| end.next_multiple_of(BLOCK) <= len;
        let first = self.states.iter().rposition(|state| whole(state.end));
        let end = self.states.iter().rposition(|state| state.end <= len);
        first.unwrap_or(0)..end.map_or(1, |n| n + 1)
    }

    /// The last state. Damage in the last group of a log looks like its torn end: then also the state before
    /// . The groups before it had been synced, as its frames say.
    fn allowed_damage(&self, place: usize) -> Range<usize> {
        let last = self.states.len() - 1;
        let before = self.states[last - 1].end.next_multiple_of(BLOCK);
        let in_doubt = !self.closed && place >= before;
        last - usize::from(in_doubt)..last + 1
    }
}

/// Calls `check` with every number below `end`, on all cores; gives how often it said yes.
fn count(end: usize, check: impl Fn(usize) -> bool + Sync) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let check = &check;
        let part = |first: usize| (first..end).step_by(threads).filter(|n| check(*n)).count();
        let threads: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || part(first)))
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        counts.sum()
    })
}

#[test]
fn every_length() {
    for closed in [true, false] {
        let small = Small::new(closed);
        let len = small.bytes.len();
        assert!(small.check(&small.bytes, small.allowed_damage(0), &|| {
            "whole".to_owned()
        }));
        let opened = count(len + 1, |len| {
            let what = || format!("cut at {len}, closed: {closed}");
            small.check(&small.bytes[..len], small.allowed_cut(len), &what)
        });
        eprintln!("closed: {closed}: {opened} of {len} lengths open");
        // What closing wrote last is what makes it whole; before that every end looks like a crash.
        assert!(closed || opened > small.states[4].end - small.states[0].end);
    }
}

#[test]
fn every_byte() {
    for closed in [true, false] {
        let small = Small::new(closed);
        let len = small.bytes.len();
        for whole in [false, true] {
            let opened = count(len, |place| {
                // One bit of it, and all bits.
                let flipped = if whole { 0xff } else { 1_u8 << (place % 8) };
                let mut bytes = small.bytes.clone();
                bytes[place] ^= flipped;
                let what = || format!("bits {flipped:#x} of byte {place}, closed: {closed}");
                small.check(&bytes, small.allowed_damage(place), &what)
            });
            eprintln!("closed: {closed}: {opened} of {len} damaged files open");
            // Twins of superblocks, zeros and hints are many: refusing everything would be seen.
            assert!(opened > len / 2, "{opened} of {len} could be read");
        }
    }
}
