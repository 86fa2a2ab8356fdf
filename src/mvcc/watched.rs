//! Who is told of changes: the seam to the watchers above.

use revtree_format::Revision;

use crate::engine::Audience;

/// Told of each commit in two steps, by the holder of the writer's turn (SPEC.md, W-3).
pub(crate) trait Watched: Audience {
    /// Whether anybody watches anything: one load.
    fn is_any(&self) -> bool;

    /// This key changes at `rev`, which nobody sees yet: under the append lock.
    fn mark(&self, rev: Revision, key: &[u8]);

    /// There may be a compaction at `rev`: what has not been given yet can be saved from it. Without a lock, nor the
    /// writer's turn, since much may be copied. Gives in which content that was done.
    fn save_from_compaction(&self, rev: Revision) -> Option<usize>;

    /// Nothing can refuse the compaction any more, and this is what was given before the turn was taken.
    fn save_again(&self, rev: Revision, saved: Option<usize>);

    /// `rev`, of which all keys have been marked, is accepted: without a lock. Readers see up to what `visible` answers.
    fn accepted(&self, rev: Revision, visible: &dyn Fn() -> Revision);
}
