//! What a store knows besides its records: revisions, consistent index, side tables. From the
//! superblocks, the newest whole page of the side tables, and the control items of whole frames.

use std::collections::BTreeMap;

use revtree::Applied;
use revtree_format::{Control, Controls, FrameKind, Revision, RootKind, Superblock};

use super::chain::{Chain, Gap, Pages};
use super::identity::Identity;
use super::report::Loss;
use super::scan::Frame;
use super::source::Source;

/// Side tables: each with its rows.
pub(crate) type Tables = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// The state at the log's end, as far as it can be had.
#[derive(Default)]
pub(crate) struct State {
    /// The store's revision.
    pub(crate) revision: Revision,
    /// Its compact revision.
    pub(crate) compact: Option<Revision>,
    /// Consistent index and term.
    pub(crate) applied: Applied,
    /// Side tables.
    pub(crate) tables: Tables,
    /// The page that the tables begin with.
    pub(crate) tables_from: Option<u64>,
    /// Control items before this sequence do not matter: a checkpoint holds what they said.
    settled: u64,
    /// Frames with control items that are damaged.
    pub(crate) losses: Vec<Loss>,
}

impl State {
    /// Whether all that missing frames may have said besides records is known.
    pub(crate) fn is_settled(&self, gap: &Gap) -> bool {
        gap.to < self.settled
    }
}

/// Reads it.
pub(crate) fn read(source: &Source, identity: &Identity, chain: &Chain) -> State {
    let mut state = State {
        revision: Revision::new(1),
        ..State::default()
    };
    for superblock in &identity.superblocks {
        state.revision = state.revision.max(superblock.revision);
        state.compact = state.compact.max(superblock.compact_revision);
        state.apply(Applied {
            index: superblock.applied_index,
            term: superblock.applied_term,
        });
    }
    let base = newest_tables(source, chain);
    let base_at = base.as_ref().map(|(index, _)| *index);
    if let Some(newest) = identity.superblocks.first() {
        state.settled = settled_by(newest, chain, base_at);
    }
    let mut first = 0;
    if let Some((index, tables)) = base {
        first = run_around(&chain.frames, index);
        state.tables_from = Some(chain.frames[index].position.0);
        state.tables = tables;
    }
    for (index, frame) in chain.frames.iter().enumerate() {
        state.revision = state.revision.max(frame.header.revision);
        if frame.header.kind == FrameKind::Records {
            state.items(source, frame, index >= first);
        }
    }
    state
}

impl State {
    /// The control items of a frame. They have no checksum but the frame's.
    fn items(&mut self, source: &Source, frame: &Frame, with_tables: bool) {
        let header = frame.header;
        if header.body_len == header.records_len || header.flags.last_in_segment {
            return;
        }
        let Some(body) = frame.body(source).filter(|_| frame.whole) else {
            if header.sequence >= self.settled {
                let offset = frame.position.0;
                self.losses.push(Loss::Items { offset });
            }
            return;
        };
        let at = header.records_len as usize;
        let offset = frame.body_at().plus(at as u64).0;
        for item in Controls::new(&body[at..], offset).flatten() {
            match item {
                Control::Applied { index, term } => self.apply(Applied { index, term }),
                Control::Compact { revision } => {
                    self.compact = self.compact.max(Some(revision));
                }
                _ if with_tables => change(&mut self.tables, &item),
                _ => {}
            }
        }
    }

    /// The writer never lowers the index (B-61).
    fn apply(&mut self, applied: Applied) {
        if applied.index >= self.applied.index {
            self.applied = applied;
        }
    }
}

/// From which sequence on frames say what the newest superblock does not.
fn settled_by(newest: &Superblock, chain: &Chain, base: Option<usize>) -> u64 {
    let base = base.map(|index| chain.frames[index]);
    let has_tables = match newest.root(RootKind::Tables) {
        None => true,
        Some(root) => base.is_some_and(|frame| {
            frame.position == root.page.position && frame.segment_use == root.page.segment_use
                || frame.header.sequence >= newest.head.sequence
        }),
    };
    if has_tables { newest.head.sequence } else { 0 }
}

/// Where the unbroken row of frames begins that leads to this one. All that its items say may be said
/// again to the tables that the page holds: what was said last is then still said last.
fn run_around(frames: &[Frame], index: usize) -> usize {
    let mut first = index;
    while first > 0 {
        let before = &frames[first - 1];
        let follows = before.header.sequence.saturating_add(1) == frames[first].header.sequence;
        if !follows || before.header.kind == FrameKind::Records && !before.whole {
            break;
        }
        first -= 1;
    }
    first
}

/// The newest whole page of side tables: its place in the chain, and what it holds. A directory does
/// not say what it lists; rows of tables in their order are nothing else (B-88).
fn newest_tables(source: &Source, chain: &Chain) -> Option<(usize, Tables)> {
    let pages = Pages::of(&chain.frames);
    for (index, frame) in chain.frames.iter().enumerate().rev() {
        if frame.header.kind != FrameKind::Directory || !frame.whole {
            continue;
        }
        let Some(chunks) = pages.chunks(source, frame) else {
            continue;
        };
        let mut tables = Tables::new();
        let mut items = 0;
        let are_rows = chunks.bodies.iter().all(|(body, chunk)| {
            Controls::new(body, chunk.body_at().0).all(|item| {
                items += 1;
                item.is_ok_and(|item| {
                    let row =
                        matches!(item, Control::TablePut { .. } | Control::TableCreate { .. });
                    change(&mut tables, &item);
                    row
                })
            })
        });
        if are_rows && items > 0 && items == chunks.items {
            return Some((index, tables));
        }
    }
    None
}

fn change(tables: &mut Tables, item: &Control<'_>) {
    match *item {
        Control::TableCreate { table } => {
            tables.entry(table.to_owned()).or_default();
        }
        Control::TablePut { table, key, value } => {
            let rows = tables.entry(table.to_owned()).or_default();
            rows.insert(key.to_vec(), value.to_vec());
        }
        Control::TableDelete { table, key } => {
            if let Some(rows) = tables.get_mut(table) {
                rows.remove(key);
            }
        }
        _ => {}
    }
}
