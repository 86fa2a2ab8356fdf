//! The store beside git: whole trees at chosen commits, and one path through all of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use revtree::{EventKind, KeyRange, ReadView, Revision};

use super::git::{Blobs, Git, Leaf, PLAIN};
use super::{BLOB_BYTES_MAX, COMMIT, PATH_BYTES_MAX, mode_key};

/// At most so many differences are printed.
const SHOWN_MAX: u64 = 20;

/// What was compared so far.
#[derive(Default)]
pub(crate) struct Compared {
    pub(crate) trees: u64,
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
    pub(crate) differences: u64,
}

impl Compared {
    pub(crate) fn differ(&mut self, what: &str) {
        self.differences += 1;
        if self.differences <= SHOWN_MAX {
            eprintln!("DIFFERENT: {what}");
        }
    }
}

/// What git has for a key.
enum Content {
    Blob(String),
    Text(String),
}

/// Compares every path, mode and byte of a commit with the store at its revision.
pub(crate) fn tree(
    view: &ReadView,
    git: &Git,
    commit: &str,
    blobs: &mut Blobs,
    compared: &mut Compared,
) -> Result<()> {
    let mut expected = BTreeMap::new();
    for Leaf { path, entry, size } in git.tree(commit)? {
        if path.len() > PATH_BYTES_MAX {
            continue;
        }
        if entry.mode != PLAIN {
            expected.insert(mode_key(&path), Content::Text(entry.mode.clone()));
        }
        if entry.is_submodule() {
            expected.insert(path, Content::Text(entry.id));
        } else if size.is_some_and(|size| size <= BLOB_BYTES_MAX) {
            expected.insert(path, Content::Blob(entry.id));
        }
    }
    let at = |key: &[u8]| format!("{commit} {}", key.escape_ascii());
    // No path begins with NUL, so this is all but our own key.
    for record in view.range(KeyRange::at_least([1u8])) {
        let record = record?;
        match expected.remove(record.key()) {
            None => compared.differ(&format!("{}: not in git", at(record.key()))),
            Some(content) if *record.value() == *bytes(&content, blobs)? => {}
            Some(_) => compared.differ(&format!("{}: another value", at(record.key()))),
        }
        compared.keys += 1;
        compared.bytes += record.value_len() as u64;
    }
    for key in expected.keys() {
        compared.differ(&format!("{}: not in the store", at(key)));
    }
    compared.trees += 1;
    Ok(())
}

fn bytes(content: &Content, blobs: &mut Blobs) -> Result<Vec<u8>> {
    match content {
        Content::Text(text) => Ok(text.clone().into_bytes()),
        Content::Blob(id) => {
            let blob = blobs.read(id, BLOB_BYTES_MAX)?;
            blob.map_err(|size| anyhow::anyhow!("{id} has {size} bytes, but ls-tree said less"))
        }
    }
}

/// The revision at which each commit can be read, from the history of the key that names them. A
/// commit that changed nothing has that of the one before it; `None`: older than the history kept.
pub(crate) fn revisions(view: &ReadView, commits: &[String]) -> Result<Vec<Option<Revision>>> {
    let mut made = BTreeMap::new();
    for event in view.history(COMMIT)? {
        let event = event?;
        made.insert(event.kv.value.to_vec(), event.id.main);
    }
    let oldest = view.first_rev();
    let mut last = None;
    let revision = |commit: &String| {
        last = made.get(commit.as_bytes()).copied().or(last);
        last.filter(|revision| oldest.is_none_or(|oldest| *revision >= oldest))
    };
    Ok(commits.iter().map(revision).collect())
}

/// The path that was put and deleted most often, and how often.
pub(crate) fn busiest(view: &ReadView) -> Result<Option<(Vec<u8>, u64)>> {
    let from = view.first_rev().unwrap_or(Revision::new(1)).next();
    if from > view.rev() {
        return Ok(None);
    }
    let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for event in view.changes(KeyRange::at_least([1u8]), from..=view.rev())? {
        let key = event?.kv.key;
        if !key.ends_with(&[0]) {
            *counts.entry(key.to_vec()).or_default() += 1;
        }
    }
    Ok(counts.into_iter().max_by_key(|(_, count)| *count))
}

/// Compares a path's whole history with git's; gives one line for each version, oldest first.
pub(crate) fn history(
    view: &ReadView,
    git: &Git,
    commits: &[String],
    path: &[u8],
    compared: &mut Compared,
) -> Result<Vec<String>> {
    let mut blobs = git.blobs()?;
    // What git says: the commits that gave the path another content, with that content.
    let mut expected = Vec::new();
    let mut changes = git.changes(commits, 0, Some(path))?;
    let mut present = false;
    for commit in commits {
        let changes = changes
            .next_commit()?
            .context("git knows fewer commits than it listed")?;
        // A path is asked for, but what lies below a folder of that name comes too.
        for change in changes.into_iter().filter(|change| change.path == path) {
            let is_same = |before: &super::git::Entry| {
                change.after.as_ref().is_some_and(|after| {
                    after.id == before.id && after.is_submodule() == before.is_submodule()
                })
            };
            if change.before.as_ref().is_some_and(is_same) {
                continue;
            }
            let value = match &change.after {
                None => None,
                Some(after) if after.is_submodule() => Some(after.id.clone().into_bytes()),
                Some(after) => blobs.read(&after.id, BLOB_BYTES_MAX)?.ok(),
            };
            if present || value.is_some() {
                present = value.is_some();
                expected.push((commit.as_str(), value));
            }
        }
    }
    // What the store says. A commit in several transactions ends with the one that names it.
    let ends: BTreeMap<Revision, &String> = revisions(view, commits)?
        .into_iter()
        .zip(commits)
        .rev()
        .filter_map(|(r, c)| Some((r?, c)))
        .collect();
    let mut lines = Vec::new();
    let mut expected = expected.into_iter();
    for event in view.history(path)? {
        let event = event?;
        let revision = event.id.main;
        let commit = ends
            .range(revision..)
            .next()
            .map_or("?", |(_, commit)| commit.as_str());
        let value = (event.kind == EventKind::Put).then(|| event.kv.value.to_vec());
        let size = value
            .as_ref()
            .map_or("deleted".to_owned(), |v| format!("{} bytes", v.len()));
        lines.push(format!(
            "revision {revision:>7}  commit {commit:.10}  {size}"
        ));
        if expected.next() != Some((commit, value)) {
            compared.differ(&format!("history of {} at {revision}", path.escape_ascii()));
        }
    }
    if expected.next().is_some() {
        compared.differ(&format!("history of {} ends early", path.escape_ascii()));
    }
    Ok(lines)
}
