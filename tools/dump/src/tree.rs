//! The revision tree of the newest checkpoint: pages from the root down, leaves in order.

use std::collections::HashSet;
use std::io;

use revtree_format::{
    BranchEntries, BranchPage, ChangeId, FrameKind, LeafRun, PageRef, Place, Position, RootKind,
};

use crate::damage::Damage;
use crate::frames;
use crate::item::{Item, LeafItem, Part};
use crate::walk::Walk;

/// A page still to be read, as its parent names it.
struct Pending {
    page: PageRef,
    level: u8,
    /// First record and number of records that the parent claims; the root has no parent entry.
    claim: Option<(ChangeId, u64)>,
}

/// Shows the tree under the newest superblock's root.
pub(crate) fn walk(walk: &mut Walk<'_>) -> io::Result<()> {
    let Some(root) = walk.superblock.root(RootKind::Tree).copied() else {
        return Ok(());
    };
    walk.out.part(Part::Tree)?;
    let Some(level) = root.levels.checked_sub(1) else {
        return walk
            .out
            .damage(Damage::new(root.page.position.0, "tree levels", 1, 0));
    };
    // A page is visited once and a level is below its parent's: so the walk ends, whatever pages say.
    let mut seen: HashSet<Position> = HashSet::new();
    let mut last = None;
    let mut pending = vec![Pending {
        page: root.page,
        level,
        claim: None,
    }];
    while let Some(next) = pending.pop() {
        let at = next.page.position;
        if !seen.insert(at) {
            walk.out
                .damage(Damage::new(at.0, "tree page named twice", 1, 2))?;
            continue;
        }
        let Some(page) = read(walk, &next)? else {
            continue;
        };
        match page.entries {
            BranchEntries::Leaves(leaves) => {
                for run in &leaves {
                    leaf(walk, run, &mut last)?;
                }
            }
            BranchEntries::Children(children) => {
                let below = children.into_iter().rev().map(|child| Pending {
                    page: child.page,
                    level: next.level - 1,
                    claim: Some((child.first, child.records)),
                });
                pending.extend(below);
            }
        }
    }
    let (expected, found) = (walk.superblock.records, walk.out.summary.tree_records);
    walk.expect(
        root.page.position.0,
        "records under the tree",
        expected,
        found,
    )
}

/// One page, shown and checked against its parent's claim; `None` when it cannot be followed.
fn read(walk: &mut Walk<'_>, next: &Pending) -> io::Result<Option<BranchPage>> {
    let at = next.page.position;
    let body = frames::page(
        walk.source,
        &walk.superblock.store_id,
        &next.page,
        FrameKind::Branch,
    );
    let page = body.and_then(|body| Ok(BranchPage::parse(&body, at)?));
    let Some(page) = walk.tell(page)? else {
        return Ok(None);
    };
    walk.out.summary.pages += 1;
    walk.out.emit(&Item::Page(frames::page_item(
        &page,
        at,
        next.page.segment_use,
    )))?;
    if page.level != next.level {
        let wrong = Damage::new(at.0, "page level", next.level.into(), page.level.into());
        walk.out.damage(wrong)?;
        return Ok(None);
    }
    if let Some((first, records)) = next.claim {
        let found = page.first().unwrap_or_default();
        if first != found {
            let wrong = Damage::new(
                at.0,
                "first record of page",
                first.main.get(),
                found.main.get(),
            );
            walk.out.damage(wrong)?;
        }
        walk.expect(at.0, "records below page", records, page.records())?;
    }
    Ok(Some(page))
}

/// One leaf with its records.
fn leaf(walk: &mut Walk<'_>, run: &LeafRun, last: &mut Option<ChangeId>) -> io::Result<()> {
    let LeafRun {
        first,
        position,
        segment_use,
        len,
        records,
    } = *run;
    walk.out.emit(&Item::Leaf(LeafItem {
        first,
        position,
        segment_use,
        len,
        records,
    }))?;
    walk.out.summary.leaves += 1;
    let bytes = walk.source.exact(position.0, len as usize);
    let Some(bytes) = walk.tell(bytes)? else {
        return Ok(());
    };
    let place = Place {
        seed: walk.seed(),
        segment_use,
        position,
    };
    let found = walk.records(&bytes, place)?;
    walk.out.summary.tree_records += found.count;
    walk.expect(position.0, "records in leaf", records.into(), found.count)?;
    if let Some(id) = found.first
        && id != first
    {
        let wrong = Damage::new(
            position.0,
            "first record of leaf",
            first.main.get(),
            id.main.get(),
        );
        walk.out.damage(wrong)?;
    }
    if last.is_some_and(|last| last >= first) {
        let before = last.map_or(0, |last| last.main.get());
        walk.out.damage(Damage::new(
            position.0,
            "order of leaves",
            before,
            first.main.get(),
        ))?;
    }
    *last = found.last.or(*last);
    Ok(())
}
