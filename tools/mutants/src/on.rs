//! Which mutant this process runs: put into the woven crates.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const UNKNOWN: u32 = u32::MAX;
const COVER: u32 = u32::MAX - 1;
const NONE: u32 = u32::MAX - 2;

static ACTIVE: AtomicU32 = AtomicU32::new(UNKNOWN);
static MET: [AtomicBool; 1 << 15] = [const { AtomicBool::new(false) }; 1 << 15];
static MET_FILE: OnceLock<File> = OnceLock::new();

/// Whether the mutant of this number is to run.
#[inline(always)]
#[must_use]
pub fn on(number: u32) -> bool {
    let active = ACTIVE.load(Ordering::Relaxed);
    active == number || (active >= COVER && slow(number))
}

#[cold]
#[inline(never)]
fn slow(number: u32) -> bool {
    if ACTIVE.load(Ordering::Relaxed) == UNKNOWN {
        let wanted = std::env::var("MUTANT").unwrap_or_default();
        let active = if let Ok(path) = std::env::var("MUTANTS_MET") {
            let mut append = File::options();
            let _ = MET_FILE.set(append.append(true).create(true).open(path).unwrap());
            COVER
        } else {
            wanted.parse().unwrap_or(NONE)
        };
        ACTIVE.store(active, Ordering::Relaxed);
    }
    let active = ACTIVE.load(Ordering::Relaxed);
    if active == COVER && !MET[number as usize].swap(true, Ordering::Relaxed) {
        // In one write and without an allocation: processes share the file, tests count allocations.
        let mut line = *b"       \n";
        let mut rest = number;
        for digit in line[..7].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap();
            rest /= 10;
        }
        if let Some(mut file) = MET_FILE.get() {
            let _ = file.write_all(&line);
        }
    }
    active == number
}
