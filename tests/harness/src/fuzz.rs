//! What a fuzzer feeds: bytes that become a damaged store, a snapshot of etcd, or operations (F19).
//!
//! Each target is a function of bytes alone, so a finding is replayed by giving them again. A store's bytes are
//! not fed as they are: a checksum would refuse nearly all of them. [`mod@open`] reads the bytes as changes to a
//! store that was made from a seed, and repairs all checksums afterwards, so that what lies behind them is
//! reached. Nothing may panic, loop or ask for memory without bound; what opens must read the same twice.
//!
//! The package `tests/fuzz` gives these functions to libFuzzer; the campaign `fuzz` feeds bytes by chance.

pub mod decode;
mod image;
pub mod import;
pub mod memory;
pub mod open;
pub mod ops;
pub mod repair;
pub mod salvage;

pub(crate) use image::{Image, Spot};

use crate::random::Random;

/// A target: its name, and what is done with bytes.
pub type Target = (&'static str, fn(&[u8]) -> Result<(), String>);

/// All targets.
pub const TARGETS: &[Target] = &[
    ("open", open::open),
    ("decode", decode::decode),
    ("import", import::import),
    ("ops", ops::ops),
    ("salvage", salvage::salvage),
];

/// Feeds bytes to the target of this name; nothing else is fed meanwhile where memory is counted.
///
/// # Errors
///
/// What the target says is wrong.
///
/// # Panics
///
/// If there is no such target.
pub fn feed(name: &str, data: &[u8]) -> Result<(), String> {
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a target of the list");
    memory::alone(|| target(data))
}

/// Feeds each target bytes that a seed says.
///
/// # Errors
///
/// What a target says is wrong, with its name and the bytes.
pub fn fuzz(seed: u64) -> Result<u64, String> {
    for (name, _) in TARGETS {
        let bytes = bytes_of(name, seed);
        feed(name, &bytes).map_err(|error| format!("{error}\n  target {name}, bytes {bytes:?}"))?;
    }
    Ok(TARGETS.len() as u64)
}

/// The bytes that a seed says for a target.
#[must_use]
pub fn bytes_of(name: &str, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ u64::from(name.as_bytes()[0]) << 56);
    (0..8 + random.index(64))
        .map(|_| random.bits().to_le_bytes()[0])
        .collect()
}

/// A store that was changed.
struct StoreBytes {
    bytes: Vec<u8>,
    /// Whether the superblocks still say where the log goes on: it is written there, and what a crafted head
    /// points at is lost.
    trusted: bool,
}

/// A folder for what has to be a file; in memory where there is such a place, since syncs are all that it would
/// wait for.
fn folder() -> Result<tempfile::TempDir, String> {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.map_err(|error| error.to_string())
}

/// Takes what it needs from the front of the bytes; zeros behind their end, so that any are a whole input.
#[derive(Debug)]
struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }
}
