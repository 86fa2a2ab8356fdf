//! Commits into the store: each becomes one transaction.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use revtree::{Applied, Db, Error, WriteTxn};

use super::git::{Blobs, Change, Entry, Git, PLAIN};
use super::{BLOB_BYTES_MAX, COMMIT, PATH_BYTES_MAX, mode_key};

/// What was loaded, and what could not be.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) commits: u64,
    /// Commits that changed nothing, and so made no revision.
    pub(crate) empty: u64,
    pub(crate) puts: u64,
    pub(crate) deletes: u64,
    pub(crate) bytes: u64,
    /// Paths and blobs over the limits of the store, which stay out.
    pub(crate) too_large: u64,
    /// Commits that are too large for one transaction, and were given several.
    pub(crate) split: u64,
    pub(crate) took: Duration,
}

/// Applies the commits that the store does not have yet. The store's consistent index says how many
/// it has, so a load that was killed goes on where the store ends.
pub(crate) fn load(db: &Db, git: &Git, commits: &[String]) -> Result<Loaded> {
    let had = usize::try_from(db.consistent_index().index)?;
    ensure!(
        had <= commits.len(),
        "the store is ahead of this history: {had} commits"
    );
    if let Some(newest) = db.get(COMMIT)? {
        let known = commits[..had]
            .iter()
            .any(|id| id.as_bytes() == newest.value);
        ensure!(known, "the store holds another history than this one");
    }
    let bar = ProgressBar::new(commits.len() as u64).with_position(had as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} commits  {per_sec}  {eta} left",
    )?);
    let began = Instant::now();
    let mut loaded = Loaded::default();
    let mut blobs = git.blobs()?;
    let mut changes = git.changes(commits, had, None)?;
    for (index, commit) in (1..).zip(commits).skip(had) {
        let changes = changes
            .next_commit()?
            .context("git knows fewer commits than it listed")?;
        apply(db, index, commit, &changes, &mut blobs, &mut loaded)
            .with_context(|| format!("commit {commit}"))?;
        bar.inc(1);
    }
    db.sync()?;
    bar.finish_and_clear();
    loaded.took = began.elapsed();
    Ok(loaded)
}

fn apply(
    db: &Db,
    index: u64,
    commit: &str,
    changes: &[Change],
    blobs: &mut Blobs,
    loaded: &mut Loaded,
) -> Result<()> {
    let mut pieces = Pieces {
        db,
        txn: Some(db.write()?),
        split: false,
    };
    for change in changes {
        if change.path.len() > PATH_BYTES_MAX {
            loaded.too_large += 1;
            continue;
        }
        content(&mut pieces, change, blobs, loaded)?;
        mode(&mut pieces, change, loaded)?;
    }
    loaded.commits += 1;
    loaded.split += u64::from(pieces.split);
    if changes.is_empty() {
        loaded.empty += 1;
    } else {
        pieces.put(COMMIT.as_bytes(), commit.as_bytes())?;
    }
    // The position goes into the commit of the data, so both survive a crash or neither does.
    let mut txn = pieces.txn.take().context("a transaction is open")?;
    txn.set_applied(Applied { index, term: 0 });
    txn.commit()?;
    Ok(())
}

/// The value of the path, when the commit changed it.
fn content(
    pieces: &mut Pieces<'_>,
    change: &Change,
    blobs: &mut Blobs,
    loaded: &mut Loaded,
) -> Result<()> {
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    let Some(after) = after else {
        return pieces.delete(&change.path, loaded);
    };
    if before.is_some_and(|b| b.id == after.id && b.is_submodule() == after.is_submodule()) {
        return Ok(());
    }
    let value = if after.is_submodule() {
        Ok(after.id.as_bytes().to_vec())
    } else {
        blobs.read(&after.id, BLOB_BYTES_MAX)?
    };
    let Ok(value) = value else {
        loaded.too_large += 1;
        return pieces.delete(&change.path, loaded);
    };
    pieces.put(&change.path, &value)?;
    loaded.puts += 1;
    loaded.bytes += value.len() as u64;
    Ok(())
}

/// The mode beside the path, when the commit changed it. Plain files have none.
fn mode(pieces: &mut Pieces<'_>, change: &Change, loaded: &mut Loaded) -> Result<()> {
    let mode = |entry: Option<&Entry>| {
        entry
            .map(|entry| entry.mode.clone())
            .filter(|mode| mode != PLAIN)
    };
    let (before, after) = (mode(change.before.as_ref()), mode(change.after.as_ref()));
    match after {
        _ if before == after => Ok(()),
        None => pieces.delete(&mode_key(&change.path), loaded),
        Some(mode) => {
            loaded.puts += 1;
            pieces.put(&mode_key(&change.path), mode.as_bytes())
        }
    }
}

/// The transaction of a commit; a second one when the first is full.
struct Pieces<'a> {
    db: &'a Db,
    txn: Option<WriteTxn>,
    split: bool,
}

impl Pieces<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.change(|txn| txn.put(key, value).map(drop))
    }

    fn delete(&mut self, key: &[u8], loaded: &mut Loaded) -> Result<()> {
        let mut deleted = 0;
        self.change(|txn| {
            deleted = txn.delete(key)?.count;
            Ok(())
        })?;
        loaded.deletes += deleted;
        Ok(())
    }

    /// A failed change leaves the transaction as it was, so it can be committed and the change made
    /// again in the next one.
    fn change(
        &mut self,
        mut change: impl FnMut(&mut WriteTxn) -> revtree::Result<()>,
    ) -> Result<()> {
        let txn = self.txn.as_mut().context("a transaction is open")?;
        match change(txn) {
            Err(Error::TransactionTooLarge { .. }) => {
                if let Some(full) = self.txn.take() {
                    full.commit()?;
                }
                self.split = true;
                change(self.txn.insert(self.db.write()?))?;
            }
            other => other?,
        }
        Ok(())
    }
}
