//! What an importer appends: records that come with their ids, table rows, and the end that names the
//! store's revision (SPEC.md, I-1 to I-4).
//!
//! Apart from `store` because nothing here is a transaction of the door: no turn, no lessor, no sync,
//! and ranges see none of it before the end. The records are written as any other is. Whether ids and
//! fields may be so is the importer's to check.

use std::time::Duration;

use revtree_format::{ChangeId, Control, Revision};

use super::store::{OpRef, Store};
use super::versions::Version;
use crate::engine::{Ticket, lock};
use crate::error::Result;
use crate::index::KeyId;
use crate::options::{Applied, Durability};
use crate::pager::Room;

/// Nothing waits for a sync: what a crash leaves of an import has no name.
const UNSYNCED: Durability = Durability::Batched {
    changes: u32::MAX,
    interval: Duration::MAX,
};

/// Room for the two control items of the end.
const END_BYTES: usize = 64;

impl Store {
    /// Appends a record with the id that it is given, behind the key's newest, `base`.
    pub(crate) fn append_given(
        &self,
        id: ChangeId,
        op: &OpRef<'_>,
        base: Option<&(KeyId, Version)>,
    ) -> Result<()> {
        let most = OpRef::len_max(op.key, op.value);
        let mut appender = self.engine.begin(std::iter::once(most), 0, Room::Changes)?;
        let mut state = appender.accepted().clone();
        state.rev = id.main;
        let mut writer = lock(&self.writer);
        self.append_one(&mut appender, &mut writer, id, op, base)?;
        drop(writer);
        let ticket = appender.accept(state, 1, UNSYNCED)?;
        self.after_given(ticket)
    }

    /// Appends a control item about side tables.
    pub(crate) fn append_given_item(&self, item: &Control<'_>) -> Result<()> {
        let len = item.encoded_len();
        let mut appender = self
            .engine
            .begin(std::iter::once(len), len as u64, Room::Changes)?;
        let mut state = appender.accepted().clone();
        state.tables.apply(item)?;
        appender.begin_transaction(len)?;
        appender.set_revision(state.rev);
        appender.control(item)?;
        let ticket = appender.accept(state, 0, UNSYNCED)?;
        self.after_given(ticket)
    }

    /// Names the revision that the store is at, and what belongs to it; then closes the engine, which
    /// makes everything durable.
    pub(crate) fn end_given(
        &self,
        rev: Revision,
        compact: Option<Revision>,
        applied: Applied,
    ) -> Result<()> {
        let mut appender = self
            .engine
            .begin(std::iter::once(END_BYTES), 0, Room::Changes)?;
        let mut state = appender.accepted().clone();
        (state.rev, state.compact, state.applied) = (rev, compact, applied);
        appender.begin_transaction(END_BYTES)?;
        appender.set_revision(rev);
        // The frame that carries the revision has this item at least.
        appender.control(&Control::Applied {
            index: applied.index,
            term: applied.term,
        })?;
        if let Some(revision) = compact {
            appender.control(&Control::Compact { revision })?;
        }
        lock(&self.writer).publish(rev);
        appender.accept(state, 0, UNSYNCED)?;
        self.engine.close(self)
    }

    /// A checkpoint now and then bounds what is held in memory until it is durable.
    fn after_given(&self, ticket: Ticket) -> Result<()> {
        if ticket.checkpoint_due {
            self.engine.maintain()?;
        }
        Ok(())
    }
}
