//! A small store cut at every length, and each of its bytes changed: the right data or a typed error,
//! never a panic, never anything else.

use std::path::Path;

use revtree::Durability;
use revtree::storage::sim::{SimDisk, SimOptions};
use revtree_harness::crash::{STORE, Setup, end_process, state_of};
use revtree_harness::model::Subject;
use revtree_harness::{State, Store};

const SETUP: Setup = Setup {
    durability: Durability::Sync,
    checkpoint_bytes: 1 << 20,
};

/// The file of a store, and the states that it went through.
fn small_store(closed: bool) -> (Vec<u8>, Vec<State>) {
    let disk = SimDisk::new(SimOptions::default());
    let mut store = SETUP.open(&disk).unwrap();
    let mut states = vec![store.state().unwrap()];
    for n in 0..12_u8 {
        let key = vec![b'a' + n % 3].into();
        match n {
            5 => drop(store.delete(&key).unwrap()),
            9 => store.compact(revtree::Revision::new(4)).unwrap(),
            _ => drop(
                store
                    .put(&key, &vec![n; usize::from(n) * 3].into())
                    .unwrap(),
            ),
        }
        states.push(store.state().unwrap());
    }
    if closed {
        store.close().unwrap();
    } else {
        end_process(store, &disk);
    }
    (disk.bytes(Path::new(STORE)).unwrap(), states)
}

/// Opens a file and reads all of it, which must show one of these states; says whether it could be read.
fn check(bytes: &[u8], states: &[State], what: &str) -> bool {
    let disk = SimDisk::new(SimOptions::default());
    disk.put_bytes(Path::new(STORE), bytes);
    let read = || -> Option<State> {
        let mut store: Store = SETUP.open(&disk).ok()?;
        let state = state_of(&mut store);
        // Reads that go by links and by the tree, too.
        for key in [b"a", b"b", b"c"] {
            let key = bytes::Bytes::from_static(key);
            let _ = store.history(revtree_harness::model::Reader::Now, &key);
        }
        end_process(store, &disk);
        state.ok()
    };
    let Some(state) = read() else { return false };
    assert!(states.contains(&state), "{what}: {state:?}");
    true
}

/// The last state of a file that was closed. Of any other one some more: of one that was cut nothing tells
/// which commits are missing, and of a damaged one the last commit looks like a torn end; the others
/// had been synced, as later frames say.
fn allowed(states: &[State], closed: bool, cut: bool) -> &[State] {
    match (closed, cut) {
        (true, _) => &states[states.len() - 1..],
        (false, false) => &states[states.len() - 2..],
        (false, true) => states,
    }
}

#[test]
fn every_length() {
    for closed in [true, false] {
        let (bytes, states) = small_store(closed);
        let allowed = allowed(&states, closed, true);
        assert!(check(&bytes, allowed, "whole"));
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let mut read = 0;
        for len in (0..=end).chain([end + 1, bytes.len()]) {
            // In the slots, where nothing is between their contents, some lengths are enough.
            if len < 16 << 10 && len % 97 > 1 {
                continue;
            }
            let cut = &bytes[..len.min(bytes.len())];
            read += usize::from(check(cut, allowed, &format!("cut at {len}")));
        }
        // What closing wrote last is what makes it whole; before that every end looks like a crash.
        assert!(closed || read > end / 2, "{read} of {end} could be read");
    }
}

#[test]
fn every_byte() {
    for closed in [true, false] {
        let (mut bytes, states) = small_store(closed);
        let allowed = allowed(&states, closed, false);
        assert!(check(&bytes, allowed, "whole"));
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let (mut tried, mut read) = (0, 0);
        for place in 0..end {
            // Zeros far from anything are many and alike.
            let near = &bytes[place.saturating_sub(64)..(place + 64).min(end)];
            if near.iter().all(|byte| *byte == 0) && place % 61 != 0 {
                continue;
            }
            let flipped = 1_u8 << (place % 8);
            bytes[place] ^= flipped;
            let what = format!("bit {flipped:#x} of byte {place}, closed: {closed}");
            tried += 1;
            read += usize::from(check(&bytes, allowed, &what));
            bytes[place] ^= flipped;
        }
        eprintln!("closed: {closed}: {read} of {tried} damaged files could be read");
        // Twins of superblocks, zeros and hints are many: an open that refused everything would be seen.
        assert!(read > tried / 4, "{read} of {tried} could be read");
    }
}
