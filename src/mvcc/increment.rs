//! What a backup must add to an earlier one, written out (SPEC.md, S-9 to S-11).
//!
//! The records are those that an image of the same revision would hold; those at or below the earlier revision are
//! named at most, since the other store has them.

use std::io::Write;

use bytes::Bytes;
use revtree_format::limits::FRAME_BODY_BYTES;
use revtree_format::{
    ChangeId, Control, IncrementBlock, IncrementEnd, IncrementHead, IncrementKind, IncrementRecord,
    RecordHead, Revision, encode_kept,
};

use super::image::Held;
use super::record::Record;
use super::store::Store;
use crate::engine::{State, Tables};
use crate::error::{Error, Result};

/// Writes the increment from `earlier` to the revision of `state`, for whose compact revision there is a pin. Gives
/// its length in bytes.
pub(super) fn write_increment(
    store: &Store,
    state: &State,
    earlier: Revision,
    to: impl Write,
) -> Result<u64> {
    if earlier > state.rev {
        return Err(Error::FutureRevision {
            requested: earlier,
            current: state.rev,
        });
    }
    let held = Held::choose(store, state.rev, state.compact)?;
    let mut out = Out {
        to,
        body: Vec::new(),
        block: Vec::new(),
        sequence: 0,
        crc: 0,
        len: 0,
    };
    let mut head = IncrementHead {
        store_id: store.engine.medium.store_id,
        base_crc: 0,
        earlier,
        revision: state.rev,
        compact: state.compact,
        index: state.applied.index,
        term: state.applied.term,
    };
    let is_between = head.compact_between().is_some();
    let (mut sum, mut end) = (BaseSum::default(), IncrementEnd::default());
    held.each(
        store,
        ChangeId::default(),
        earlier,
        &mut |position, record| {
            let medium = &store.engine.medium;
            medium.with_head(position, |_, key| sum.add(record, key))
        },
    )?;
    head.base_crc = sum.get();
    out.body = head.encode();
    out.end_block(IncrementKind::Head)?;
    if is_between {
        held.each(store, ChangeId::default(), earlier, &mut |_, record| {
            end.kept += 1;
            encode_kept(record.id, &mut out.body);
            out.end_long_block(IncrementKind::Kept)
        })?;
        out.end_block(IncrementKind::Kept)?;
    }
    let from = ChangeId::new(earlier.next(), 0);
    held.each(store, from, state.rev, &mut |position, record| {
        end.records += 1;
        let read = Record::read(&store.lender, position, *record, true)?;
        let written = IncrementRecord {
            id: record.id,
            kind: record.kind,
            create: record.create,
            version: record.version,
            lease: record.lease,
            key: read.key(),
            value: read.value(),
        };
        // A long record has a block of its own: two of them would be longer than a block can be.
        if out.body.len() + written.encoded_len() > FRAME_BODY_BYTES {
            out.end_block(IncrementKind::Records)?;
        }
        written.encode(&mut out.body);
        Ok(())
    })?;
    out.end_block(IncrementKind::Records)?;
    end.items = out.tables(&state.tables)?;
    out.body = end.encode();
    out.end_block(IncrementKind::End)?;
    out.to.flush().map_err(Error::on(WRITE))?;
    Ok(out.len)
}

const WRITE: &str = "write the increment";

/// The increment as it is written.
struct Out<W> {
    to: W,
    body: Vec<u8>,
    block: Vec<u8>,
    sequence: u64,
    crc: u32,
    len: u64,
}

impl<W: Write> Out<W> {
    fn end_long_block(&mut self, kind: IncrementKind) -> Result<()> {
        if self.body.len() >= FRAME_BODY_BYTES {
            self.end_block(kind)?;
        }
        Ok(())
    }

    /// Writes what has been gathered, if there is anything.
    fn end_block(&mut self, kind: IncrementKind) -> Result<()> {
        if self.body.is_empty() {
            return Ok(());
        }
        self.block.clear();
        let (sequence, block) = (self.sequence, &mut self.block);
        self.crc = IncrementBlock::encode(kind, sequence, self.crc, &self.body, block);
        self.to.write_all(block).map_err(Error::on(WRITE))?;
        self.len += block.len() as u64;
        self.sequence += 1;
        self.body.clear();
        Ok(())
    }

    /// Writes all side tables; gives the number of items.
    fn tables(&mut self, tables: &Tables) -> Result<u64> {
        let mut items = 0;
        for (table, rows) in tables.iter() {
            items += 1;
            Control::TableCreate { table }.encode(&mut self.body);
            for (key, value) in rows {
                let (key, value): (&Bytes, &Bytes) = (key, value);
                items += 1;
                Control::TablePut { table, key, value }.encode(&mut self.body);
                self.end_long_block(IncrementKind::Tables)?;
            }
            self.end_long_block(IncrementKind::Tables)?;
        }
        self.end_block(IncrementKind::Tables)?;
        Ok(items)
    }
}

/// Checksum of what a store must hold for an increment to fit: of all that stays of it, in order, everything that is
/// in the heads of records, which includes a checksum of each value.
#[derive(Debug, Default)]
pub(crate) struct BaseSum {
    crc: u32,
}

impl BaseSum {
    pub(crate) fn add(&mut self, head: &RecordHead, key: &[u8]) {
        let fields = [
            head.id.main.get(),
            head.id.sub,
            head.create.get(),
            head.version,
            head.lease.0.cast_unsigned(),
            u64::from(head.value_len) << 32 | u64::from(head.value_crc),
            u64::from(head.key_len) << 8 | u64::from(head.kind == revtree_format::RecordKind::Put),
        ];
        for field in fields {
            self.crc = crc32c::crc32c_append(self.crc, &field.to_le_bytes());
        }
        self.crc = crc32c::crc32c_append(self.crc, key);
    }

    pub(crate) fn get(&self) -> u32 {
        self.crc
    }
}
