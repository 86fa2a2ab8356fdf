//! From a key's newest record to the one that counts at a revision (SPEC.md, R-4 to R-9).
//!
//! Invariant (D-10 of the design): a link to something that compaction may have dropped is never
//! followed. At R ≥ C everything with main > R is there, and so is the newest put ≤ R; a link whose
//! target is missing is therefore damage, always.

use std::cell::Cell;

use revtree_format::{Link, Position, RecordHead, RecordKind, Revision, skip_jump};

use crate::error::{Error, Result};
use crate::index::{KeyId, KeyIndex, Keys};
use crate::pager::Medium;
use crate::tree::Tree;

/// Reads keys for the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordKeys<'a>(pub(crate) &'a Medium);

impl Keys for RecordKeys<'_> {
    type Error = Error;

    fn with_key<R>(&self, position: Position, with: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.0.with_head(position, |_, key| with(key))
    }

    fn prefetch(&self, position: Position) {
        self.0.prefetch(position);
    }
}

/// Reads keys for a lookup, and keeps the head that was read last: of the key that was found.
struct FindKeys<'a> {
    medium: &'a Medium,
    last: Cell<Option<RecordHead>>,
}

impl Keys for FindKeys<'_> {
    type Error = Error;

    fn with_key<R>(&self, position: Position, with: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.medium.with_head(position, |head, key| {
            self.last.set(Some(*head));
            with(key)
        })
    }
}

/// A key's id and its newest record; the record is read and checked once.
pub(crate) fn find_newest(
    index: &KeyIndex,
    medium: &Medium,
    key: &[u8],
) -> Result<Option<(KeyId, Version)>> {
    let keys = FindKeys {
        medium,
        last: Cell::new(None),
    };
    let Some((id, position)) = index.find(key, &keys)? else {
        return Ok(None);
    };
    let head = match keys.last.get() {
        Some(head) => head,
        None => medium.head(position)?,
    };
    Ok(Some((id, (position, head))))
}

/// A record of a key: where it is, and its checked head.
pub(crate) type Version = (Position, RecordHead);

/// The record that a link in the record at `from` leads to: by the hint, or by the tree.
pub(crate) fn follow(tree: &Tree, from: Position, link: Link) -> Result<Version> {
    locate(tree, from, link)?.ok_or(Error::Corrupt {
        offset: from.0,
        what: "link to an earlier version that is missing",
        expected: link.id.main.get(),
        found: 0,
    })
}

/// The same, where the record may have been compacted away.
pub(crate) fn locate(tree: &Tree, from: Position, link: Link) -> Result<Option<Version>> {
    let medium = tree.medium();
    if let Some(version) = by_hint(medium, from, link) {
        return Ok(Some(version));
    }
    match tree.find(link.id)? {
        Some(position) => Ok(Some((position, medium.head(position)?))),
        None => Ok(None),
    }
}

/// The record that a link in the record at `from` leads to, where its hint still does.
pub(crate) fn by_hint(medium: &Medium, from: Position, link: Link) -> Option<Version> {
    if link.hint == Position::NONE || !medium.is_hint_valid(from, link.hint) {
        return None;
    }
    let head = medium.head(link.hint).ok()?;
    (head.id == link.id).then_some((link.hint, head))
}

/// The newest record at or before `rev` of the key whose newest record is `newest`; a tombstone too.
pub(crate) fn version_at(tree: &Tree, newest: Version, rev: Revision) -> Result<Option<Version>> {
    let (mut position, mut head) = newest;
    while head.id.main > rev {
        let Some(prev) = head.prev else {
            return Ok(None);
        };
        if head.kind == RecordKind::Put && head.version == 1 && prev.id.main <= rev {
            // The generation began here: before it was a tombstone, or what compaction dropped.
            return Ok(None);
        }
        let link = head.skip.filter(|skip| skip.id.main > rev).unwrap_or(prev);
        (position, head) = follow(tree, position, link)?;
    }
    Ok(Some((position, head)))
}

/// The key's newest record at or before `rev`, which is not below `compact`; also a delete that a later
/// put hides from [`version_at`], which asks only what lives. `None` when it is not there: the key was not
/// yet, or compaction at `compact` may have dropped it.
pub(crate) fn record_at(
    tree: &Tree,
    newest: Version,
    rev: Revision,
    compact: Option<Revision>,
) -> Result<Option<Version>> {
    let (mut position, mut head) = newest;
    while head.id.main > rev {
        let Some(prev) = head.prev else {
            return Ok(None);
        };
        if prev.id.main <= rev {
            return record_before(tree, (position, head), compact);
        }
        let link = head.skip.filter(|skip| skip.id.main > rev).unwrap_or(prev);
        (position, head) = follow(tree, position, link)?;
    }
    Ok(Some((position, head)))
}

/// The record before this one of the same key; `None` if there is none, or compaction at `compact` may have
/// dropped it: of what is at or below that, the newest put stays, and deletes at `compact` itself (K-3).
/// What must be there and is not is damage.
pub(crate) fn record_before(
    tree: &Tree,
    (position, head): Version,
    compact: Option<Revision>,
) -> Result<Option<Version>> {
    let Some(prev) = head.prev else {
        return Ok(None);
    };
    let (before, floor) = (prev.id.main, compact.unwrap_or_default());
    if head.id.main <= floor {
        // It is not the newest there: only a delete can have stayed.
        return if before == floor {
            locate(tree, position, prev)
        } else {
            Ok(None)
        };
    }
    let is_put = head.kind == RecordKind::Put;
    if before < floor && is_put && (head.version == 1 || before < head.create) {
        // A generation began here, so that was a delete.
        return Ok(None);
    }
    if before < floor && (!is_put || before == head.create) {
        // An imported life may end in two deletes, or begin with another version than the first (I-2, I-3).
        return locate(tree, position, prev);
    }
    follow(tree, position, prev).map(Some)
}

/// The put that counts at `rev`; `None` when the key does not exist then.
pub(crate) fn live_at(tree: &Tree, newest: Version, rev: Revision) -> Result<Option<Version>> {
    let found = version_at(tree, newest, rev)?;
    Ok(found.filter(|(_, head)| head.kind == RecordKind::Put))
}

/// The skip link of a key's next record, whose ordinal is one above that of `last` (B-50).
///
/// It only saves time, so it is left out where a link on the way may lead to what compaction dropped:
/// at or below `floor` nothing is followed (B-52). Nor does damage on the way keep the key from being
/// written.
pub(crate) fn next_skip(tree: &Tree, last: Version, floor: Option<Revision>) -> Option<Link> {
    let (position, head) = last;
    let ordinal = head.ordinal.saturating_add(1);
    let own = |(position, head): &Version| Link {
        id: head.id,
        hint: *position,
    };
    if ordinal <= 8 {
        return None;
    }
    if ordinal % 8 != 0 {
        // The last multiple of 8 below: the last record itself, or where it points.
        return if head.ordinal.is_multiple_of(8) {
            Some(own(&last))
        } else {
            head.skip
        };
    }
    // A new element of the stack over the multiples of 8. Its parent is the element before it.
    let k = ordinal / 8;
    let to_parent = head.skip?;
    if skip_jump(k) == 0 {
        return None;
    }
    if skip_jump(k) == k - 1 {
        return Some(to_parent);
    }
    let dropped = |link: &Link| floor.is_some_and(|floor| link.id.main <= floor);
    if dropped(&to_parent) {
        return None;
    }
    let parent = follow(tree, position, to_parent).ok()?;
    let to_jump = parent.1.skip.filter(|link| !dropped(link))?;
    let jump = follow(tree, parent.0, to_jump).ok()?;
    jump.1.skip
}
