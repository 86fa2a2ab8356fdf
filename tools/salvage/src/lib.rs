//! Saving what is whole of a damaged store into a new one (SPEC.md, C-20), as a story:
//!
//! 1. `source`: the file, locked against writers, never written.
//! 2. `identity`: whose file it is; without superblocks from its segments, by `crc` run backwards.
//! 3. `scan`: all frames that verify alone, wherever they lie.
//! 4. `chain`: those of the log, without what is free, rolled back, or behind its end.
//! 5. `records` and `state`: what the frames hold, and what is missing.
//! 6. `write`: the new store, through the importer; `report`: what became of all.
//!
//! Built on the format crate and the importer alone: no open of the engine sees the damaged file.

mod chain;
mod crc;
mod failure;
mod identity;
mod records;
mod report;
mod scan;
mod source;
mod state;
mod write;

use std::path::Path;

use revtree_format::{FrameKind, Revision, RootKind, StoreSeed, Superblock};

use self::chain::{Chain, Gap};
use self::failure::Result;
use self::identity::Identity;
use self::records::Records;
use self::source::Source;

pub use failure::Refused;
pub use report::{Loss, Report};

/// Saves what is whole of `old` into a new store at `new`.
///
/// # Errors
///
/// When there is nothing to save, or a file cannot be read or made; what is lost is no error, and told by
/// [`Report::losses`].
pub fn salvage(old: &Path, new: &Path) -> Result<Report> {
    if new.symlink_metadata().is_ok() {
        let new = new.display();
        return Err(Refused(format!("{new} exists already")));
    }
    let source = Source::open(old)?;
    let Some(identity) = Identity::find(&source)? else {
        let old = old.display();
        return Err(Refused(format!("{old} has no trace of a revtree store")));
    };
    let found = scan::scan(&source, &identity);
    let chain = chain::choose(&source, &identity, &found);
    let records = records::collect(&source, StoreSeed::new(&identity.store_id), &chain);
    let state = state::read(&source, &identity, &chain);
    let mut report = Report {
        superblocks: identity.superblocks.len() as u64,
        tables_from: state.tables_from,
        frames: (chain.frames.len() + chain.runs.len()) as u64,
        frames_repaired: found.repaired,
        frames_stale: chain.stale,
        segments_repaired: found.headers_lost,
        ..Report::default()
    };
    let counted = chain.frames.iter().chain(&chain.runs);
    for frame in counted.filter(|frame| !frame.whole) {
        report.frames_damaged += 1;
        report.damaged_bytes += u64::from(frame.header.body_len);
    }
    report.lose(records.losses.iter().copied());
    report.lose(state.losses.iter().copied());
    let newest = identity.superblocks.first();
    let dropped_before = newest.map_or(0, |newest| dropped_before(newest, &records));
    for gap in &chain.gaps {
        if gap.to < dropped_before && state.is_settled(gap) {
            continue;
        }
        let revisions = missing(&chain, &records, gap, state.revision);
        if revisions.is_some() || !state.is_settled(gap) {
            report.lose([Loss::Frames {
                first: gap.from,
                last: gap.to,
                revisions,
            }]);
        }
    }
    if chain.behind_end > 0 {
        let frames = chain.behind_end;
        report.lose([Loss::Tail { frames }]);
    }
    write::write(
        &source,
        new,
        identity.segment_bytes,
        &records.changes,
        &state,
        &mut report,
    )?;
    report.unreadable_bytes = source.unreadable_bytes();
    Ok(report)
}

/// The sequence before which frames are missing because the store was cleaned, and for no other reason: all records
/// that the newest tree counts are here; 0 where that cannot be said.
fn dropped_before(newest: &Superblock, records: &Records) -> u64 {
    let is_cleaned = newest
        .root(RootKind::Tree)
        .is_some_and(|root| root.detail > 0);
    if is_cleaned && records.found_up_to(newest.revision) >= newest.records {
        return newest.head.sequence;
    }
    0
}

/// The revisions that missing frames may have held, if not all of them are here.
fn missing(
    chain: &Chain,
    records: &Records,
    gap: &Gap,
    current: Revision,
) -> Option<(Revision, Revision)> {
    let (before, after) = chain.frames.split_at(gap.behind);
    let mut from = Revision::new(2);
    if let Some(last) = before.last() {
        let continued = last.header.flags.continued;
        from = last.header.revision;
        if !continued {
            from = from.next();
        }
    }
    // The next record says where the log went on; a frame without one says what revision it was.
    let mut to = current;
    if let Some(next) = after.first() {
        to = next.header.revision;
        if next.header.kind == FrameKind::Records && next.header.record_count > 0 {
            let start = records.changes.partition_point(|one| one.id().main < from);
            let first = records.changes[start..]
                .iter()
                .take_while(|one| one.id().main <= next.header.revision)
                .find(|one| one.is_in(next));
            if let Some(first) = first {
                let id = first.id();
                // Its transaction may have begun in what is missing.
                to = match id.sub {
                    0 => Revision::new(id.main.get().saturating_sub(1)),
                    _ => id.main,
                };
            }
        }
    }
    (from <= to && !records.has_all(from, to)).then_some((from, to))
}
