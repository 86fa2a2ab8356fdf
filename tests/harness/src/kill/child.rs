//! The process that is killed: it applies the log on several threads and tells what it acknowledges.
//!
//! A line is one write to a pipe, below the size that a pipe takes at once; what was told, no kill
//! takes back. It never ends by itself but for an error, which it tells, too; an error that the end of its
//! life can bring is told, and then it opens the store again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use revtree::{Applied, Commit, Db, Error, WriteTxn};

use super::disk::{KillDisk, die, has_power};
use super::entry::{After, Entry, NUMBER, Step, TABLE};
use super::plan::{Campaign, End, Life};
use super::starve::{has_starved, starve};

/// After so long it is stuck, which the parent must hear of: far more than any life takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lives the life of that number on the store; ends by a kill.
pub(super) fn live(campaign: Campaign, seed: u64, number: u64, store: &Path) -> ! {
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        say("failed: it is stuck");
        die();
    });
    let life = Life::draw(campaign, seed, number);
    if campaign == Campaign::Each {
        // What the store does in parallel stays on this thread, whose calls the tracer counts.
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1);
        let _ = alone.use_current_thread().build_global();
    }
    let kill = match life.end {
        End::Call { call, side, nth } => Some((call, side, nth)),
        _ => None,
    };
    let folder = store.parent().filter(|_| campaign == Campaign::Power);
    let power = folder.map(|folder| {
        // Cut before it was born.
        File::open(folder).unwrap_or_else(|_| die())
    });
    let disk = KillDisk::new(kill, power);
    let child = Child {
        seed,
        life,
        store: store.to_owned(),
        gate: RwLock::new(()),
    };
    say("born");
    if let End::Starve { nth, sticky } = child.life.end {
        starve(nth, sticky);
    }
    let mut met = false;
    for stage in 0..child.life.stages {
        if let Err(error) = child.stage(stage, &disk) {
            child.tell(&error);
            met = true;
        }
    }
    say(if met || has_starved() {
        "met"
    } else {
        "spared"
    });
    match child.life.end {
        // The parent still wants to see the lock; then it kills.
        End::Parent { .. } => loop {
            std::thread::park();
        },
        _ => die(),
    }
}

fn say(line: &str) {
    if !has_power() && !line.starts_with("try") {
        return;
    }
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

struct Child {
    seed: u64,
    life: Life,
    store: PathBuf,
    /// Shared by whoever writes; whoever restores has it alone.
    gate: RwLock<()>,
}

impl Child {
    /// Opens, applies entries, closes; the last time it stays open.
    fn stage(&self, stage: u64, disk: &KillDisk) -> Result<(), Error> {
        let db = self.life.open(Arc::new(disk.clone()), &self.store)?;
        say(&format!("open {}", db.rev()));
        let row = db.read()?.table(TABLE).get(NUMBER)?;
        say(&format!("at {}", number_of(row.as_deref())));
        let _ = db.stats();
        let last = AtomicU64::new(u64::MAX);
        let failed = OnceLock::new();
        let work = || {
            if let Err(error) = self.work(&db, &last) {
                self.tell(&error);
                // The others may find that they go on, or not.
                last.store(0, Ordering::SeqCst);
                let _ = failed.set(error);
            }
        };
        if self.life.campaign == Campaign::Each {
            // On this thread, whose calls the tracer counts.
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..self.life.threads {
                    scope.spawn(work);
                }
            });
        }
        if let Some(error) = failed.into_inner() {
            // What failed is over: reads go on, and what they show is the whole of some entry.
            self.read(&db)?;
            let _ = db.close();
            return Err(error);
        }
        if stage + 1 < self.life.stages {
            db.close()
        } else {
            // Open until the process ends, as after a kill.
            std::mem::forget(db);
            Ok(())
        }
    }

    /// Says which error a call gave: one that the life's end can bring, or the end of the campaign.
    fn tell(&self, error: &Error) {
        if self.life.tolerates(error) {
            say(&format!("error {}", error.kind() as u64));
        } else {
            say(&format!("failed: {error} ({error:?})"));
            die();
        }
    }

    /// Reads all keys.
    fn read(&self, db: &Db) -> Result<(), Error> {
        let view = db.read()?;
        view.table(TABLE).get(NUMBER)?;
        for kv in view.range(..) {
            kv?;
        }
        Ok(())
    }

    /// Applies one entry after the other, beside the other threads, up to the last of this stage.
    fn work(&self, db: &Db, last: &AtomicU64) -> Result<(), Error> {
        loop {
            let shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            let mut txn = db.write()?;
            let number = 1 + last_entry(&mut txn)?;
            let first = last.fetch_min(number + self.life.entries, Ordering::SeqCst);
            if number >= first.min(number + self.life.entries) {
                return Ok(());
            }
            let rev = txn.rev().next();
            let entry = Entry::of(self.seed, number, rev.get());
            if entry.aborted {
                // Of this nothing may be left; then the turn is somebody's, perhaps ours.
                fill(&mut txn, &entry)?;
                txn.abort();
                txn = db.write()?;
                if last_entry(&mut txn)? + 1 != number {
                    continue;
                }
            }
            fill(&mut txn, &entry)?;
            if entry.sync {
                txn.require_sync();
            }
            let expected = if makes_revision(&entry) {
                rev
            } else {
                txn.rev()
            };
            let Commit { revision, .. } = txn.commit()?;
            if revision != expected {
                say(&format!("failed: entry {number} got revision {revision}"));
                die();
            }
            self.acknowledge(db, &entry)?;
            self.afterwards(db, &entry)?;
            drop(shared);
            if self.life.restores
                && (entry.after == After::Restore || entry.number % self.life.restores_every() == 3)
            {
                self.restore(db)?;
            }
        }
    }

    /// Tells the entry, once it survives a kill.
    fn acknowledge(&self, db: &Db, entry: &Entry) -> Result<(), Error> {
        if !self.life.survives() && !entry.sync {
            if !entry.number.is_multiple_of(8) {
                return Ok(());
            }
            db.sync()?;
        }
        say(&format!("ack {}", entry.number));
        Ok(())
    }

    fn afterwards(&self, db: &Db, entry: &Entry) -> Result<(), Error> {
        match entry.after {
            After::Nothing | After::Restore => {}
            After::Raise => {
                db.raise_consistent_index(2 * entry.number + 1)?;
                if self.life.survives() {
                    say(&format!("raised {}", entry.number));
                }
            }
            After::Compact(before) => {
                let rev = db.rev().get().saturating_sub(before);
                say(&format!("try {rev}"));
                match db.compact(rev) {
                    Ok(_) => say(&format!("compacted {rev}")),
                    Err(Error::Compacted { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Replaces the content by a snapshot of it, which must not lack what somebody was told meanwhile.
    fn restore(&self, db: &Db) -> Result<(), Error> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut path = self.store.clone().into_os_string();
        path.push(".saved");
        db.snapshot()?.save(&path)?;
        db.restore(&path).map(drop)
    }
}

/// The number of the newest entry that the transaction sees.
fn last_entry(txn: &mut WriteTxn) -> Result<u64, Error> {
    let row = txn.table(TABLE)?.get(NUMBER)?;
    Ok(number_of(row.as_deref()))
}

/// What the row says; 0 before any entry. A row that says nothing becomes a wrong entry of the parent's.
fn number_of(row: Option<&[u8]>) -> u64 {
    let number = row.and_then(|row| row.try_into().ok());
    number.map_or(0, u64::from_be_bytes)
}

fn makes_revision(entry: &Entry) -> bool {
    let mut steps = entry.steps.iter();
    steps.any(|step| matches!(step, Step::Put(..)))
}

fn fill(txn: &mut WriteTxn, entry: &Entry) -> Result<(), Error> {
    for step in &entry.steps {
        match step {
            Step::Put(key, value) => {
                txn.put(key, value)?;
            }
            Step::Delete(key) => {
                txn.delete(key)?;
            }
            Step::DeleteRange(from, to) => {
                txn.delete_range(revtree::KeyRange::between(from, to))?;
            }
            Step::Row(table, key, value) => txn.table(table)?.put(key, value)?,
            Step::NoRow(table, key) => {
                txn.table(table)?.delete(key)?;
            }
        }
    }
    let applied = entry.applied();
    txn.set_applied(Applied {
        index: applied.index,
        term: applied.term,
    });
    Ok(())
}
