//! Histories of several threads on one store, each call with its moments, checked as a whole.
//!
//! * [`record`]: calls and answers as plain values.
//! * [`replay`], `order`, [`check`](mod@check): what such a history must be. They know nothing of the store.
//! * [`run`](mod@run): threads on a store that make one. It is short, so that many different ones are had.

use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::{Db, Durability, Options};

use crate::campaign::Tally;
use crate::crash::{STORE, Setup, end_process};
use crate::random::Random;

pub mod check;
mod order;
pub mod record;
#[cfg(test)]
mod refusals;
pub mod replay;
pub mod run;

pub use check::{Checked, Rule, Wrong, check};
pub use record::Entry;
pub use replay::Replay;
pub use run::{Plan, run};

/// Calls of one history.
const CALLS: usize = 64;

/// Said where a seed is.
pub(crate) const ORDER: &str = "  the seed brings back what each thread asks, not which came first";

/// Runs a history of a seed and checks it.
///
/// # Errors
///
/// What it breaks, and the whole history: the seed brings back the calls, not the order in which the
/// machine does them.
pub fn histories(seed: u64) -> Result<Tally, String> {
    let mut random = Random::new(seed ^ 0x4157_0217);
    let setup = Setup::draw(&mut random);
    let threads = 2 + random.index(5);
    let writers = 1 + random.index(threads - 1);
    let plan = Plan {
        writers,
        readers: threads - writers,
        calls: CALLS / threads,
        keys: 2 + random.index(7),
        value_bytes_max: 300,
    };
    let history = if random.once_in(3) {
        in_memory(setup.durability, plan, seed)
    } else {
        on_disk(setup, plan, seed)
    };
    let history = history.map_err(|error| format!("the store cannot be made: {error}"))?;
    if let Some(failed) = history.iter().find(|entry| entry.failed()) {
        return Err(format!("wrong: nothing was to fail: {failed:?}"));
    }
    let checked = check(&history).map_err(|wrong| {
        let text = record::text(&history);
        format!("wrong: {wrong}\n{setup:?}, {plan:?}\n{text}\n{ORDER}")
    })?;
    let began = |f: fn(&Entry) -> bool| history.iter().filter(|entry| f(entry)).count() as u64;
    Ok(Tally {
        units: 1,
        operations: history.len() as u64,
        kinds: [
            ("calls began beside another one", checked.overlapping),
            (
                "calls made a revision",
                began(|entry| entry.changed().is_some()),
            ),
            ("compactions", began(is_compaction)),
        ]
        .into(),
        ..Tally::default()
    })
}

fn is_compaction(entry: &Entry) -> bool {
    matches!(
        (&entry.call, &entry.answer),
        (record::Call::Compact(_), record::Answer::Done(_))
    )
}

fn in_memory(durability: Durability, plan: Plan, seed: u64) -> revtree::Result<Vec<Entry>> {
    let db = Options::new().durability(durability).open_in_memory()?;
    let history = run(&db, durability, plan, seed, &|| 0);
    db.close()?;
    Ok(history)
}

fn on_disk(setup: Setup, plan: Plan, seed: u64) -> revtree::Result<Vec<Entry>> {
    let disk = disk(seed);
    let db = open(setup, &disk)?;
    let history = run(&db, setup.durability, plan, seed, &|| 0);
    end_process(db, &disk);
    Ok(history)
}

/// A disk whose syncs let other threads go on.
pub(crate) fn disk(seed: u64) -> SimDisk {
    SimDisk::new(SimOptions {
        seed,
        yields: true,
        ..SimOptions::default()
    })
}

/// Opens the store on this disk, or makes it.
pub(crate) fn open(setup: Setup, disk: &SimDisk) -> revtree::Result<Db> {
    setup.options(disk).open(STORE)
}
