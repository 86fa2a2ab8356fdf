//! The simulated disk at one moment: what is durable, what is cached, what is on its way.
//!
//! One function, [`Model::apply`], moves it on by an operation. The running disk uses it, and so
//! does the replay up to a crash, so the two cannot disagree. Apart because it takes no decision:
//! which pending bytes survive is the choice of whoever makes an image.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::content::{Content, SECTOR_BYTES, Sector};
use super::choice::{Choice, PendingSector};
use super::operation::{Inode, Operation, directory_of};
use super::random::Random;

/// All files and names.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    files: BTreeMap<Inode, SimInode>,
    /// Names as the running system sees them.
    names: BTreeMap<PathBuf, Inode>,
    durable_names: BTreeMap<PathBuf, Inode>,
    /// For each directory, in order, the changes of names that no sync has covered.
    pending_names: BTreeMap<PathBuf, Vec<Operation>>,
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct SimInode {
    /// What reads see.
    pub(super) cached: Content,
    /// What is on the disk for certain. May hold bytes behind its length, for a longer length that
    /// is pending.
    durable: Content,
    /// Sectors that are dirty: written, and not covered by any sync, not even by a failed one.
    pending: BTreeMap<u64, DirtySector>,
    /// Lengths that the file has had since the durable one, in order.
    pending_lens: Vec<u64>,
    /// Allocations that are not durable.
    pending_space: Vec<(u64, u64)>,
    /// The end of what has been written: reading that needs a length no less.
    written_end: u64,
}

/// A sector on its way to the disk.
#[derive(Clone, Debug)]
struct DirtySector {
    /// What it held after each write since the last sync; any of them may have reached the disk.
    versions: Vec<Arc<Sector>>,
    /// The bytes that those writes wrote.
    written: Range<usize>,
}

impl Model {
    pub(super) fn inode(&self, path: &Path) -> Option<Inode> {
        self.names.get(path).copied()
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.names.keys().cloned().collect()
    }

    pub(super) fn file(&self, inode: Inode) -> &SimInode {
        self.files.get(&inode).expect("files are never forgotten")
    }

    /// A number that no file has.
    pub(super) fn next_inode(&self) -> Inode {
        self.files.last_key_value().map_or(1, |(&last, _)| last + 1)
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        let named: BTreeSet<_> = self.names.values().collect();
        named
            .into_iter()
            .map(|&inode| self.file(inode).cached.allocated_bytes())
            .sum()
    }

    /// Sectors that a crash now may leave old or new, where that makes a difference.
    pub(super) fn pending_sectors(&self) -> usize {
        let changed = |file: &SimInode| {
            let sectors = file.pending.iter();
            sectors
                .filter(|(sector, dirty)| dirty.changes(&file.durable.sector(**sector)))
                .count()
        };
        self.files.values().map(changed).sum()
    }

    /// Lengths and names that a crash now may lose or keep.
    pub(super) fn pending_metadata(&self) -> usize {
        let lens = self
            .files
            .values()
            .filter(|file| !file.pending_lens.is_empty())
            .count();
        lens + self.pending_names.len()
    }

    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { path, inode } => {
                self.files.insert(*inode, SimInode::default());
                self.change_names(path, operation);
            }
            Operation::Rename { from: path, .. } | Operation::Remove { path } => {
                self.change_names(path, operation);
            }
            Operation::SyncDirectory { directory } => {
                for change in self.pending_names.remove(directory).unwrap_or_default() {
                    change_name(&mut self.durable_names, &change);
                }
            }
            Operation::Write {
                inode,
                offset,
                bytes,
            } => {
                self.file_mut(*inode).write(bytes, *offset);
            }
            Operation::SetLen { inode, len } => self.file_mut(*inode).set_len(*len),
            Operation::Allocate { inode, offset, len } => {
                self.file_mut(*inode).allocate(*offset, *len);
            }
            Operation::Punch { inode, offset, len } => self.file_mut(*inode).punch(*offset, *len),
            Operation::Sync { inode, all } => self.file_mut(*inode).sync(*all),
            Operation::SyncFailed { inode, reached } => {
                self.file_mut(*inode).fail_sync(*reached);
            }
            Operation::Replace {
                path,
                inode,
                content,
            } => {
                self.files
                    .insert(*inode, SimInode::durable(content.clone()));
                self.names.insert(path.clone(), *inode);
                self.durable_names.insert(path.clone(), *inode);
            }
        }
    }

    /// The disk after a power cut now. Names of a directory survive up to some change and not
    /// beyond it, as every filesystem with a journal keeps their order; all else is free.
    pub(super) fn after_power_cut(
        &self,
        choice: &mut dyn Choice,
        power_safe_overwrite: bool,
    ) -> Model {
        let crashed = self.files.iter().map(|(&inode, file)| {
            (
                inode,
                SimInode::durable(file.after_power_cut(inode, choice, power_safe_overwrite)),
            )
        });
        let files = crashed.collect();
        let mut names = self.durable_names.clone();
        for changes in self.pending_names.values() {
            let kept = choice.names(changes.len()).min(changes.len());
            for change in &changes[..kept] {
                change_name(&mut names, change);
            }
        }
        Model {
            files,
            durable_names: names.clone(),
            names,
            pending_names: BTreeMap::new(),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> &mut SimInode {
        self.files
            .get_mut(&inode)
            .expect("files are never forgotten")
    }

    fn change_names(&mut self, path: &Path, operation: &Operation) {
        change_name(&mut self.names, operation);
        self.pending_names
            .entry(directory_of(path))
            .or_default()
            .push(operation.clone());
    }
}

fn change_name(names: &mut BTreeMap<PathBuf, Inode>, operation: &Operation) {
    match operation {
        Operation::Create { path, inode } => {
            names.insert(path.clone(), *inode);
        }
        Operation::Rename { from, to } => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Operation::Remove { path } => {
            names.remove(path);
        }
        _ => unreachable!("changes no name"),
    }
}

impl SimInode {
    /// A file of which nothing is pending.
    fn durable(content: Content) -> SimInode {
        let written_end = content.len();
        SimInode {
            cached: content.clone(),
            durable: content,
            written_end,
            ..SimInode::default()
        }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let before = self.cached.len();
        self.cached.write(bytes, offset);
        self.note_len(before);
        let end = offset + bytes.len() as u64;
        if !bytes.is_empty() {
            self.written_end = self.written_end.max(end);
        }
        for sector in sectors(offset, end) {
            self.note_sector(sector, offset, end);
        }
    }

    fn set_len(&mut self, len: u64) {
        let before = self.cached.len();
        let cut = self.cached.sectors_with_bytes(len, before);
        self.cached.set_len(len);
        self.note_len(before);
        self.written_end = self.written_end.min(len);
        for sector in cut {
            self.note_sector(sector, len, before);
        }
    }

    fn allocate(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        let before = self.cached.len();
        if end > before {
            self.cached.set_len(end);
            self.note_len(before);
        }
        self.cached.reserve(offset, len);
        self.pending_space.push((offset, len));
    }

    fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.cached.len());
        let punched = self.cached.sectors_with_bytes(offset, end);
        self.cached.punch(offset, len);
        for sector in punched {
            self.note_sector(sector, offset, end);
        }
    }

    /// The sector now holds what the cache holds, by a change of the bytes `offset..end`.
    fn note_sector(&mut self, sector: u64, offset: u64, end: u64) {
        let start = sector * SECTOR_BYTES as u64;
        let within = |at: u64| {
            let at = at.clamp(start, start + SECTOR_BYTES as u64) - start;
            usize::try_from(at).expect("no more than a sector")
        };
        let (from, to) = (within(offset), within(end));
        let dirty = self.pending.entry(sector).or_insert_with(|| DirtySector {
            versions: Vec::new(),
            written: from..to,
        });
        dirty.written = dirty.written.start.min(from)..dirty.written.end.max(to);
        dirty.versions.push(Arc::new(self.cached.sector(sector)));
    }

    fn note_len(&mut self, before: u64) {
        if self.cached.len() != before {
            self.pending_lens.push(self.cached.len());
        }
    }

    fn sync(&mut self, all: bool) {
        for (sector, dirty) in std::mem::take(&mut self.pending) {
            self.durable.put_sector(sector, dirty.last());
        }
        let len = self.cached.len();
        let needed = if all || len < self.durable.len() {
            len
        } else {
            self.durable.len().max(self.written_end)
        };
        self.durable.set_len(needed);
        self.pending_lens.clear();
        if needed != len {
            self.pending_lens.push(len);
        }
        for (offset, len) in std::mem::take(&mut self.pending_space) {
            self.durable.reserve(offset, len);
        }
    }

    /// The system tried to write the dirty sectors, could not, and calls them clean: they stay in
    /// the cache, and no later sync knows of them. Lengths stay pending, as the journal keeps them.
    fn fail_sync(&mut self, reached: Option<u64>) {
        let mut random = reached.map(Random::new);
        for (sector, dirty) in std::mem::take(&mut self.pending) {
            if random.as_mut().is_some_and(|random| random.below(2) == 0) {
                self.durable.put_sector(sector, dirty.last());
            }
        }
    }

    fn after_power_cut(
        &self,
        inode: Inode,
        choice: &mut dyn Choice,
        power_safe_overwrite: bool,
    ) -> Content {
        let mut content = self.durable.clone();
        for (&sector, dirty) in &self.pending {
            let old = self.durable.sector(sector);
            let pending = PendingSector {
                file: inode,
                sector,
                versions: dirty.versions.len(),
                changes: dirty.changes(&old),
            };
            let garbage = if power_safe_overwrite {
                dirty.written.clone()
            } else {
                0..SECTOR_BYTES
            };
            let survival = choice.sector(&pending);
            if let Some(bytes) = survival.bytes(&old, &dirty.versions, garbage) {
                content.put_sector(sector, &bytes);
            }
        }
        if !self.pending_lens.is_empty() {
            let chosen = choice.length(inode, self.pending_lens.len());
            let len = match chosen.min(self.pending_lens.len()) {
                0 => self.durable.len(),
                nth => self.pending_lens[nth - 1],
            };
            content.set_len(len);
        } else {
            content.set_len(self.durable.len());
        }
        content
    }
}

impl DirtySector {
    fn changes(&self, old: &Sector) -> bool {
        self.versions.iter().any(|version| **version != *old)
    }

    fn last(&self) -> &Sector {
        self.versions.last().expect("made with its first version")
    }
}

/// The sectors that a range of bytes touches.
fn sectors(offset: u64, end: u64) -> Range<u64> {
    offset / SECTOR_BYTES as u64..end.div_ceil(SECTOR_BYTES as u64)
}
