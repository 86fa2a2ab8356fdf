//! `watch STORE`: changes as they are made, also by another process, as `tail -f` shows lines.
//!
//! The store is opened to read, what is new is taken, and it is closed again before anything is printed: so
//! the writer is never kept from its space by who reads our output. Where one open ended the next goes on.
//! A file that takes the store's place is followed from where that stood, as watchers are behind a restore; where it
//! stands further back a line on stderr says so.
//! Between them the file is only looked at: every write is a `pwrite`, which the system notes in its times. An open
//! reads the log that no checkpoint has saved yet, which may be much: so it is left alone for as long as the last open
//! took, and at most half of a core is used beside a writer that goes on.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use revtree::{Event, KeyRange, Revision};

use crate::failure::{Failure, Result};
use crate::keys::KeyFormat;
use crate::output::Output;
use crate::store::Store;

/// What `watch` takes.
#[derive(Args)]
pub(crate) struct Watch {
    /// The store file.
    store: PathBuf,
    /// These keys; without KEY and --prefix all.
    #[arg(value_name = "KEY")]
    keys: Vec<OsString>,
    /// And all keys that begin with this. May be given several times.
    #[arg(long = "prefix", value_name = "PREFIX")]
    prefixes: Vec<OsString>,
    /// The first revision, also one that is not there yet; 0 and by default: what is new.
    #[arg(long, value_name = "REVISION")]
    rev: Option<u64>,
    /// End behind what is there, instead of waiting for more.
    #[arg(long, requires = "rev")]
    once: bool,
}

/// Bytes of events that are taken at once, with their keys and values, and a revision more.
const CHUNK_BYTES: usize = 8 << 20;
/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_millis(50);
/// The times of a file are coarse, and one is noted before the bytes are there: a file that has been written
/// to just before an open is opened once more when it has been left alone for so long.
const QUIET: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

impl Watch {
    /// Prints changes until nobody reads them any more.
    pub(crate) fn run(&self, keys: KeyFormat, output: &mut Output) -> Result {
        let wanted = self.wanted(keys)?;
        let mut next = self.rev.filter(|rev| *rev > 0).map(Revision::new);
        let mut before = None;
        loop {
            let seen = Seen::of(&self.store)?;
            let is_another = before.replace(seen.stamp.file()) != Some(seen.stamp.file());
            let began = Instant::now();
            let chunk = Chunk::take(&self.store, &wanted, next)?;
            let took = began.elapsed();
            if let Some(next) = next
                && is_another
                && chunk.rev.next() < next
            {
                let (store, rev) = (self.store.display(), chunk.rev);
                eprintln!("{store}: stands at revision {rev}; waiting for revision {next}");
            }
            next = Some(chunk.next);
            output.events(chunk.events)?;
            if chunk.more {
                continue;
            }
            if self.once {
                return Ok(());
            }
            output.finish()?;
            seen.wait_for_more(&self.store, took, output)?;
        }
    }

    fn wanted(&self, format: KeyFormat) -> Result<Vec<KeyRange>> {
        let keys = self
            .keys
            .iter()
            .map(|key| Ok(KeyRange::single(format.parse(key)?)));
        let prefixes = self.prefixes.iter();
        let prefixes = prefixes.map(|prefix| Ok(KeyRange::prefix(format.parse(prefix)?)));
        keys.chain(prefixes).collect()
    }
}

/// What one open gives: whole revisions.
struct Chunk {
    /// Events, and records that cannot be read.
    events: Vec<revtree::Result<Event>>,
    /// The store's revision.
    rev: Revision,
    /// Where the next one begins.
    next: Revision,
    /// Whether there is more already.
    more: bool,
}

impl Chunk {
    /// Takes what is there from `from` on; without it nothing, and the next begins with what is new.
    fn take(path: &Path, wanted: &[KeyRange], from: Option<Revision>) -> Result<Chunk> {
        let store = Store::to_follow(path)?;
        let view = store.view(None)?;
        let mut chunk = Chunk {
            events: Vec::new(),
            rev: view.rev(),
            next: from.unwrap_or(view.rev().next()),
            more: false,
        };
        let from = chunk.next;
        if let Some(compacted) = view.first_rev().filter(|compacted| from < *compacted) {
            return Err(Failure::file(
                path,
                &format_args!(
                    "the changes from revision {from} on are gone, the store has been compacted at \
                     {compacted}; go on with --rev {compacted}"
                ),
            ));
        }
        // A store whose writer was killed may show less than before, until it is opened for writing again.
        if from > view.rev() {
            return Ok(chunk);
        }
        chunk.next = view.rev().next();
        let keys = match wanted {
            [only] => only.clone(),
            _ => KeyRange::all(),
        };
        let is_wanted = |event: &Event| {
            wanted.is_empty() || wanted.iter().any(|keys| keys.contains(&event.kv.key))
        };
        let mut bytes = 0;
        let mut last = None;
        for event in store.told(view.changes(keys, from..=view.rev()))? {
            if let Ok(event) = &event {
                let rev = event.id.main;
                if bytes >= CHUNK_BYTES && last != Some(rev) {
                    (chunk.next, chunk.more) = (rev, true);
                    break;
                }
                last = Some(rev);
                if !is_wanted(event) {
                    continue;
                }
                bytes += event.kv.key.len() + event.kv.value.len() + size_of::<Event>();
            }
            chunk.events.push(event);
        }
        Ok(chunk)
    }
}

/// A file as it was before an open.
struct Seen {
    stamp: Stamp,
    at: SystemTime,
}

/// What changes with every write, and where another file takes its place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    file: u64,
    modified: SystemTime,
}

impl Seen {
    fn of(path: &Path) -> Result<Seen> {
        Ok(Seen {
            at: SystemTime::now(),
            stamp: Stamp::of(path)?,
        })
    }

    /// Returns when there may be more than an open behind this look has shown, which took so long.
    fn wait_for_more(&self, path: &Path, took: Duration, output: &Output) -> Result {
        let settled = QUIET.map(|quiet| self.stamp.modified + quiet);
        let mut wait = INTERVAL.max(took);
        loop {
            output.wait(std::mem::replace(&mut wait, INTERVAL))?;
            let now = SystemTime::now();
            let has_settled = |settled: &SystemTime| self.at < *settled && *settled <= now;
            if Stamp::of(path)? != self.stamp || settled.iter().any(has_settled) {
                return Ok(());
            }
        }
    }
}

impl Stamp {
    /// Which file it is.
    fn file(&self) -> (u64, u64) {
        (self.device, self.file)
    }

    fn of(path: &Path) -> Result<Stamp> {
        let told = |error| Failure::file(path, &error);
        let file = std::fs::metadata(path).map_err(told)?;
        Ok(Stamp {
            device: file.dev(),
            file: file.ino(),
            modified: file.modified().map_err(told)?,
        })
    }
}
