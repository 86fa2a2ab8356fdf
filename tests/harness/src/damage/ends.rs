//! Lengths at which a store is cut, what lies behind its end, and slots that are lost.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use revtree::Error;
use revtree::storage::sim::{SimDisk, SimOptions};

use super::shapes::{Intact, Long};
use super::{BLOCK, shape};
use crate::crash::{STORE, end_process, state_of};
use crate::model::Subject;

/// Cuts two stores of 256 KiB, one that was closed and one that was not, at the lengths that are chosen.
pub(super) fn lengths(mut chosen: impl FnMut(usize) -> bool) -> Result<u64, String> {
    static LONG: [OnceLock<Long>; 2] = [const { OnceLock::new() }; 2];
    let mut cases = 0;
    for (long, closed) in LONG.iter().zip([true, false]) {
        let long = long.get_or_init(|| Long::new(closed));
        for len in (0..long.bytes.len()).filter(|len| chosen(*len)) {
            cut(long, len).map_err(|error| format!("{error}\n  cut at {len}, closed: {closed}"))?;
            cases += 1;
        }
    }
    Ok(cases)
}

/// The newest commit that is whole, or an error with a type.
fn cut(long: &Long, len: usize) -> Result<(), String> {
    let disk = SimDisk::new(SimOptions::default());
    disk.put_bytes(Path::new(STORE), &long.bytes[..len]);
    let mut store = match long.setup.open(&disk) {
        Ok(store) => store,
        Err(Error::Corrupt { .. } | Error::NotAStore { .. }) if !long.must_open(len) => {
            return Ok(());
        }
        Err(error) => return Err(format!("wrong: it says {error:?}")),
    };
    let state = match state_of(&mut store) {
        Ok(state) => state,
        Err(error) if error.contains("Corrupt") && !long.must_open(len) => return Ok(()),
        Err(error) => return Err(format!("wrong: {error}")),
    };
    end_process(store, &disk);
    let allowed = long.allowed(len);
    match long.digests[allowed.clone()].contains(&state.digest()) {
        true => Ok(()),
        false => Err(format!(
            "wrong: it is at {}, not one of the states {allowed:?}",
            state.current
        )),
    }
}

/// Large pieces behind the end: garbage, the store itself, and another store. The state is the same, and what is
/// written later over them stays.
pub(super) fn behind(subject: &Intact) -> Result<u64, String> {
    let garbage: Vec<u8> = (0..1_u32 << 20)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let (own, other) = (&subject.bytes, &shape(1).bytes);
    let segment = (64 << 10) - own.len() % (64 << 10);
    let zeros = vec![0; segment];
    let pieces: [(&str, Vec<&[u8]>); 5] = [
        ("a MiB of garbage", vec![&garbage]),
        ("the store again", vec![own]),
        ("the store again, at a segment's start", vec![&zeros, own]),
        ("another store", vec![other]),
        ("another store, at a segment's start", vec![&zeros, other]),
    ];
    for (what, pieces) in &pieces {
        let bytes = [&[&own[..]], &pieces[..]].concat().concat();
        goes_on(subject, &bytes, 24, true)
            .map_err(|error| format!("{error}\n  {what} is behind the end"))?;
    }
    Ok(pieces.len() as u64)
}

/// One slot of each pair that is lost changes nothing: the other one says the same.
pub(super) fn slots(subject: &Intact) -> Result<u64, String> {
    let mut cases = 0;
    for lost in [
        &[0][..],
        &[1],
        &[2],
        &[3],
        &[0, 2],
        &[0, 3],
        &[1, 2],
        &[1, 3],
    ] {
        for kind in 0..3 {
            let mut bytes = subject.bytes.clone();
            for slot in lost {
                let block = &mut bytes[slot * BLOCK..(slot + 1) * BLOCK];
                match kind {
                    0 => block.fill(0),
                    1 => block.iter_mut().for_each(|byte| *byte = !*byte),
                    _ => block[40] ^= 1,
                }
            }
            goes_on(subject, &bytes, 1, false)
                .map_err(|error| format!("{error}\n  without the slots {lost:?}, {kind}"))?;
            cases += 1;
        }
    }
    Ok(cases)
}

/// Opens a store that lacks nothing, writes to it, and opens it again.
fn goes_on(subject: &Intact, bytes: &[u8], puts: u32, is_clean: bool) -> Result<(), String> {
    let disk = SimDisk::new(SimOptions::default());
    disk.put_bytes(Path::new(STORE), bytes);
    let wrong = |error: revtree::Error| format!("wrong: {error:?}");
    let mut store = subject.setup.open(&disk).map_err(wrong)?;
    let state = state_of(&mut store)?;
    if state != subject.state {
        return Err(format!("wrong: it shows {state:?}"));
    }
    let value = Bytes::from(vec![7; 9000]);
    for n in 0..puts {
        let key = Bytes::from(format!("later/{n}"));
        let put = store.put(&key, &value);
        put.map_err(|error| format!("wrong: {error:?}"))?;
    }
    let expected = state_of(&mut store)?;
    store.close().map_err(wrong)?;
    let mut store = subject.setup.open(&disk).map_err(wrong)?;
    if state_of(&mut store)? != expected {
        return Err("wrong: another state after a clean close".to_owned());
    }
    let report = store.db().check().map_err(wrong)?;
    end_process(store, &disk);
    if is_clean && !report.is_clean() {
        return Err(format!("wrong: the check finds {report:?}"));
    }
    Ok(())
}
