//! A store and an increment make the next store (SPEC.md, S-12).
//!
//! 1. The first block says whether it is meant for this store as it is.
//! 2. What stays of the store, by the rules of a compaction or by name, goes into a new file.
//! 3. Behind it the records of the increment, and its side tables.
//! 4. The last block says that all has come. Only then the file is complete, and gets its name.
//!
//! Each block is checked before anything in it is believed, and memory grows with the bytes that have come, not with
//! what they say.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use revtree_format::{
    ChangeId, Control, Controls, FormatError, INCREMENT_BLOCK_BYTES, IncrementBlock, IncrementEnd,
    IncrementHead, IncrementKind, IncrementRecord, RecordHead, RecordKind, Revision, parse_kept,
};

use super::importer::{Importer, Sealed};
use crate::error::{Error, Result};
use crate::mvcc::{BaseSum, Held, OpRef, ReadView, Record, Store};
use crate::options::{Applied, Options};

/// Builds at `path` what `store` is with the increment, which ends at the revision that is given back. Nobody else
/// writes to the store meanwhile.
pub(crate) fn add_increment(
    store: &Arc<Store>,
    from: impl Read,
    path: &Path,
    options: Options,
) -> Result<(Sealed, Revision)> {
    let mut blocks = Blocks::new(from);
    // 1.
    let head = match blocks.next()? {
        IncrementKind::Head => IncrementHead::parse(&blocks.body, blocks.body_at).map_err(wrong)?,
        other => return blocks.unexpected(other),
    };
    // Where it lies must stay; what it holds does, since nobody compacts in our turn.
    let view = ReadView::current(store)?;
    check_head(&head, store, view.rev())?;
    let mut end = IncrementEnd::default();
    let mut kept = Vec::new();
    let mut kind = blocks.next()?;
    while kind == IncrementKind::Kept {
        kept.extend(parse_kept(&blocks.body, blocks.body_at).map_err(wrong)?);
        end.kept = kept.len() as u64;
        kind = blocks.next()?;
    }
    let held = match head.compact_between() {
        Some(_) => Held::choose(store, head.earlier, Some(head.earlier))?,
        None if kept.is_empty() => Held::choose(store, head.earlier, head.compact)?,
        None => return blocks.refuse("it names what stays, and no compaction lies between"),
    };
    // 2.
    let chosen = Chosen {
        store,
        held,
        head,
        kept: head.compact_between().map(|_| kept),
    };
    let mut sum = BaseSum::default();
    chosen.each(&mut |record| {
        sum.add(&record.0, record.1.key());
        Ok(())
    })?;
    if sum.get() != head.base_crc {
        return refuse(
            0,
            "the store does not hold what the increment was made for, though its revision is the same",
        );
    }
    let mut importer = Importer::new(path, options)?;
    chosen.each(&mut |(head, record)| {
        let op = OpRef {
            key: record.key(),
            kind: head.kind,
            value: record.value(),
            lease: head.lease,
            create: head.create,
            version: head.version,
        };
        importer.record(head.id, &op)
    })?;
    // 3.
    while kind == IncrementKind::Records {
        end.records += blocks.records(&head, &mut importer)?;
        kind = blocks.next()?;
    }
    while kind == IncrementKind::Tables {
        end.items += blocks.tables(&mut importer)?;
        kind = blocks.next()?;
    }
    // 4.
    if kind != IncrementKind::End {
        return blocks.unexpected(kind);
    }
    end.check(&blocks.body, blocks.body_at).map_err(wrong)?;
    let applied = Applied {
        index: head.index,
        term: head.term,
    };
    let sealed = importer.seal(head.revision, head.compact, applied)?;
    Ok((sealed, head.revision))
}

/// Whether the increment is for this store as it is.
fn check_head(head: &IncrementHead, store: &Store, rev: Revision) -> Result<()> {
    if head.store_id != store.engine.medium.store_id {
        return refuse(0, "the increment is of another store");
    }
    if head.earlier != rev {
        let from = head.earlier;
        let what = format!("the increment goes on from revision {from}, the store is at {rev}");
        return refuse(0, what);
    }
    let compact = store.engine.compact_rev();
    if compact > head.compact {
        return refuse(
            0,
            "the store has been compacted further than the increment's",
        );
    }
    Ok(())
}

/// What stays of the store.
struct Chosen<'s> {
    store: &'s Arc<Store>,
    held: Held,
    head: IncrementHead,
    /// `None`: all that is held.
    kept: Option<Vec<ChangeId>>,
}

impl Chosen<'_> {
    fn each(&self, visit: &mut dyn FnMut((RecordHead, &Record<'_>)) -> Result<()>) -> Result<()> {
        let mut kept = self.kept.as_ref().map(|kept| kept.iter().peekable());
        let (store, first) = (&**self.store, ChangeId::default());
        self.held
            .each(store, first, self.head.earlier, &mut |position, head| {
                let stays = match &mut kept {
                    Some(kept) => kept.next_if(|id| **id == head.id).is_some(),
                    None => true,
                };
                if stays {
                    let record = Record::read(&store.lender, position, *head, true)?;
                    visit((*head, &record))?;
                }
                Ok(())
            })?;
        match kept.and_then(|mut kept| kept.next().copied()) {
            Some(id) => refuse(0, format!("change {id} is to stay, and the store lacks it")),
            None => Ok(()),
        }
    }
}

/// The blocks of an increment, one after the other, each checked.
struct Blocks<R> {
    from: R,
    body: Vec<u8>,
    /// Where the body begins.
    body_at: u64,
    /// Where the next block does.
    next_at: u64,
    sequence: u64,
    crc: u32,
}

impl<R: Read> Blocks<R> {
    fn new(from: R) -> Blocks<R> {
        Blocks {
            from,
            body: Vec::new(),
            body_at: 0,
            next_at: 0,
            sequence: 0,
            crc: 0,
        }
    }

    fn next(&mut self) -> Result<IncrementKind> {
        let at = self.next_at;
        let mut header = [0; INCREMENT_BLOCK_BYTES];
        // The reader is the user's, and we have the writer's turn: a write from there would wait for itself.
        let from = &mut self.from;
        Store::refuse_writes(|| from.read_exact(&mut header)).map_err(|error| cut(error, at))?;
        let block = IncrementBlock::parse(&header, self.sequence, at).map_err(wrong)?;
        self.body_at = at + header.len() as u64;
        self.body.clear();
        let mut from = self.from.by_ref().take(block.len.into());
        let body = &mut self.body;
        let read = Store::refuse_writes(|| from.read_to_end(body))
            .map_err(|error| cut(error, self.body_at))?;
        if read as u64 != u64::from(block.len) {
            return refuse(self.body_at + read as u64, TOO_SHORT);
        }
        block
            .check(&header, self.crc, &self.body, at)
            .map_err(wrong)?;
        self.next_at = self.body_at + u64::from(block.len);
        self.sequence += 1;
        self.crc = block.crc;
        Ok(block.kind)
    }

    /// Takes the records of this block; gives their number.
    fn records(&self, head: &IncrementHead, importer: &mut Importer) -> Result<u64> {
        let mut body = &self.body[..];
        let mut records = 0;
        while !body.is_empty() {
            let at = self.body_at + (self.body.len() - body.len()) as u64;
            let record = IncrementRecord::parse(&mut body, at).map_err(wrong)?;
            if record.id.main <= head.earlier || record.id.main > head.revision {
                let id = record.id;
                return refuse(at, format!("change {id} is not of these revisions"));
            }
            let op = match record.kind {
                RecordKind::Put => OpRef {
                    key: record.key,
                    kind: record.kind,
                    value: record.value,
                    lease: record.lease,
                    create: record.create,
                    version: record.version,
                },
                _ => OpRef::tombstone(record.key),
            };
            importer
                .record(record.id, &op)
                .map_err(|error| placed(error, at))?;
            records += 1;
        }
        Ok(records)
    }

    /// Takes the side tables of this block; gives the number of items.
    fn tables(&self, importer: &mut Importer) -> Result<u64> {
        let mut items = 0;
        for item in Controls::new(&self.body, self.body_at) {
            let taken = match item.map_err(wrong)? {
                Control::TableCreate { table } => importer.table_create(table),
                Control::TablePut { table, key, value } => importer.table_put(table, key, value),
                _ => return self.refuse("an item that is not of side tables"),
            };
            taken.map_err(|error| placed(error, self.body_at))?;
            items += 1;
        }
        Ok(items)
    }

    fn unexpected<T>(&self, kind: IncrementKind) -> Result<T> {
        self.refuse(format!("a block that does not belong here: {kind:?}"))
    }

    fn refuse<T>(&self, what: impl Into<String>) -> Result<T> {
        refuse(self.body_at, what)
    }
}

const TOO_SHORT: &str = "the increment ends too early";

fn refuse<T>(offset: u64, what: impl Into<String>) -> Result<T> {
    Err(Error::Import {
        offset,
        what: what.into(),
    })
}

/// What is wrong with the bytes of an increment.
fn wrong(error: FormatError) -> Error {
    let FormatError {
        offset,
        what,
        expected,
        found,
    } = error;
    Error::Import {
        offset,
        what: format!("{what}: expected {expected:#x}, found {found:#x}"),
    }
}

/// What a reader says in place of bytes.
fn cut(error: std::io::Error, at: u64) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return Error::Import {
            offset: at,
            what: TOO_SHORT.into(),
        };
    }
    Error::io("read the increment", error)
}

/// What the importer refuses lies here in the increment.
fn placed(error: Error, at: u64) -> Error {
    match error {
        Error::Import { what, .. } => Error::Import { offset: at, what },
        other => other,
    }
}
