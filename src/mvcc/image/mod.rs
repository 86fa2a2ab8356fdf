//! An image: a complete, dense store file of one revision, made without a file (SPEC.md, S-1 to S-5).
//!
//! The image is what the store's own writer writes when it is fed the retained records in order, then the
//! pages of a checkpoint. There is no second layout: a [`Log`](crate::pager::Log) over storage that keeps
//! nothing goes through it once, which gives its length, the place of every record, and for each segment
//! the few numbers with which a log can be begun there again. Any part of the image is then made by
//! writing its segment once more. That first pass reads all values, since a superblock at the start holds
//! the checksum that ends the chain of all frames.
//!
//! Order in the file: records, chunks of the key index run, then the other pages. The last are kept in
//! memory (branch pages are a three-hundredth of the records); the rest is made on demand.

#![expect(
    clippy::disallowed_types,
    reason = "writing an image out; no read of the store comes here"
)]

mod index;
mod pages;
mod records;
mod retained;

use std::sync::Arc;

use revtree_format::limits::{BLOCK_BYTES, SEGMENTS_START};
use revtree_format::{ChangeId, LeafRun, Position, RecordHead, Revision, SUPERBLOCK_BYTES};

use self::index::IndexFrom;
use self::pages::Pages;
use self::records::{Records, RecordsFrom, Source};
use self::retained::Retained;
use super::store::Store;
use super::superseded::Seen;
use crate::engine::{State, lock};
use crate::error::Result;
use crate::pager::{BlobWriter, ImageLog, Log, Reach, SegmentStart};
use crate::sync::Mutex;
use crate::sys::Window;
use crate::tree::Tree;

/// The plan of an image, and the piece of it made last.
#[derive(Debug)]
pub(crate) struct Image {
    log: ImageLog,
    rev: Revision,
    compact: Option<Revision>,
    /// The source's tree as it was when the image was planned: positions in it name records.
    tree: Tree,
    retained: Retained,
    /// One for each segment with records or index chunks, in order.
    pieces: Vec<Piece>,
    superblock: Box<[u8; SUPERBLOCK_BYTES]>,
    /// The pages behind the last index chunk, and where they begin.
    pages: Vec<u8>,
    pages_at: Position,
    made: Mutex<Option<Made>>,
}

/// A segment of the image.
#[derive(Debug)]
pub(crate) struct Piece {
    start: SegmentStart,
    from: From,
}

/// With what a segment begins.
#[derive(Clone, Debug)]
enum From {
    Record(RecordsFrom),
    Index(IndexFrom),
}

/// The bytes of one piece; behind them it is zero.
#[derive(Clone, Debug)]
struct Made {
    piece: usize,
    bytes: Arc<Vec<u8>>,
}

/// What the first pass collects.
#[derive(Default)]
struct Collected {
    leaves: Vec<LeafRun>,
    index: BlobWriter,
}

/// The records that an image would hold, as they lie in the store. A pin keeps them there.
pub(crate) struct Held {
    tree: Tree,
    retained: Retained,
    compact: Option<Revision>,
}

impl Held {
    /// Those of an image of `store` at `rev` with this compact revision, which is not below the store's.
    pub(crate) fn choose(store: &Store, rev: Revision, compact: Option<Revision>) -> Result<Held> {
        let seen = Seen::now(store);
        let retained = Retained::choose(store, &seen, rev, compact)?;
        Ok(Held {
            tree: seen.tree,
            retained,
            compact,
        })
    }

    /// Shows them in order of revisions, from the first to the last.
    pub(crate) fn each(
        &self,
        store: &Store,
        from: ChangeId,
        to: Revision,
        visit: &mut dyn FnMut(Position, &RecordHead) -> Result<()>,
    ) -> Result<()> {
        let records = Records {
            store,
            tree: &self.tree,
            retained: &self.retained,
            rev: to,
            compact: self.compact,
        };
        let mut source = Source::begin(&records, from)?;
        while let Some((position, head)) = source.next()? {
            visit(position, &head)?;
        }
        Ok(())
    }
}

impl Image {
    /// Lays out the image of `store` at `state`.
    pub(crate) fn plan(store: &Store, state: &State) -> Result<Image> {
        let engine = &store.engine;
        let medium = &engine.medium;
        let log = ImageLog {
            store_id: medium.store_id,
            geometry: medium.geometry,
            opens: engine.opens,
        };
        let seen = Seen::now(store);
        let retained = Retained::choose(store, &seen, state.rev, state.compact)?;
        let mut image = Image {
            log,
            rev: state.rev,
            compact: state.compact,
            tree: seen.tree,
            retained,
            pieces: Vec::new(),
            superblock: Box::new([0; SUPERBLOCK_BYTES]),
            pages: Vec::new(),
            pages_at: Position::NONE,
            made: Mutex::new(None),
        };
        let mut collected = Collected::default();
        let mut start = log.first(Revision::new(1));
        let mut from = From::Record(RecordsFrom {
            id: ChangeId::new(Revision::new(0), 0),
            in_run: false,
        });
        loop {
            let window = Arc::new(Window::closed());
            let mut writer = log.begin(&start, &window, Reach::Pages)?;
            let next = image.write_piece(store, &mut writer, from.clone(), &mut collected)?;
            image.pieces.push(Piece { start, from });
            if let Some(next) = next {
                start = SegmentStart::of(&writer);
                from = next;
                continue;
            }
            // A segment in which there is nothing yet has its header written with the first page.
            image.pages_at = writer.written();
            window.open(image.pages_at.0);
            let pages = Pages {
                image: &log,
                state,
                leaves: collected.leaves,
                index: collected.index,
                pieces: &image.pieces,
            };
            image.superblock = pages.write(&mut writer)?;
            image.pages = window.take();
            return Ok(image);
        }
    }

    /// Fills one segment. Gives with what the next one begins; `None` behind the last index chunk.
    fn write_piece(
        &self,
        store: &Store,
        log: &mut Log,
        from: From,
        collected: &mut Collected,
    ) -> Result<Option<From>> {
        let records = Records {
            store,
            tree: &self.tree,
            retained: &self.retained,
            rev: self.rev,
            compact: self.compact,
        };
        let index_from = match from {
            From::Record(from) => {
                let leaves = &mut collected.leaves;
                let next = records.write(log, from, &mut |id, source, appended| {
                    self.retained.set_place(source, appended.position);
                    match leaves.last_mut() {
                        Some(leaf) if !appended.begins_leaf => {
                            leaf.len += appended.len;
                            leaf.records += 1;
                        }
                        _ => leaves.push(LeafRun {
                            first: id,
                            position: appended.position,
                            segment_use: appended.segment_use,
                            len: appended.len,
                            records: 1,
                        }),
                    }
                })?;
                if let Some(next) = next {
                    return Ok(Some(From::Record(next)));
                }
                None
            }
            From::Index(from) => from,
        };
        log.raise_revision(self.rev);
        let next = records.write_index(log, index_from, &mut collected.index)?;
        Ok(next.map(From::Index))
    }

    /// Length of the image in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.pages_at.0 + self.pages.len() as u64
    }

    /// Fills `buf` from `offset`; gives how much there was, 0 at the end.
    pub(crate) fn read_at(&self, store: &Store, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            let rest = &mut buf[done..];
            let read = if at < SEGMENTS_START {
                let slot = usize::try_from(at % BLOCK_BYTES).expect("below a block");
                copy(rest, &self.superblock[slot..], u64::MAX)
            } else if let Some(in_pages) = at.checked_sub(self.pages_at.0) {
                let in_pages = usize::try_from(in_pages).unwrap_or(usize::MAX);
                let read = copy(
                    rest,
                    self.pages.get(in_pages..).unwrap_or_default(),
                    u64::MAX,
                );
                if read == 0 {
                    break;
                }
                read
            } else {
                self.read_piece(store, rest, at)?
            };
            done += read;
        }
        Ok(done)
    }

    /// Reads from the one piece that holds `at`.
    fn read_piece(&self, store: &Store, buf: &mut [u8], at: u64) -> Result<usize> {
        let start_of = |piece: &Piece| self.log.geometry.start(piece.start.head.segment).0;
        let number = self
            .pieces
            .partition_point(|piece| start_of(piece) <= at)
            .saturating_sub(1);
        let piece = &self.pieces[number];
        let end = self
            .pieces
            .get(number + 1)
            .map_or(self.pages_at.0, start_of);
        let bytes = self.make(store, number, piece)?;
        let in_piece = usize::try_from(at - start_of(piece)).unwrap_or(usize::MAX);
        let read = copy(buf, bytes.get(in_piece..).unwrap_or_default(), end - at);
        if read > 0 {
            return Ok(read);
        }
        // Behind the closing frame.
        let zeros = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        buf[..zeros].fill(0);
        Ok(zeros)
    }

    /// The bytes of a piece. Two threads may make the same one at a time, and get the same.
    fn make(&self, store: &Store, number: usize, piece: &Piece) -> Result<Arc<Vec<u8>>> {
        if let Some(made) = &*lock(&self.made)
            && made.piece == number
        {
            return Ok(Arc::clone(&made.bytes));
        }
        let start = self.log.geometry.start(piece.start.head.segment).0;
        let window = Arc::new(Window::new(start));
        let mut log = self.log.begin(&piece.start, &window, Reach::NextSegment)?;
        self.write_piece(
            store,
            &mut log,
            piece.from.clone(),
            &mut Collected::default(),
        )?;
        let bytes = Arc::new(window.take());
        *lock(&self.made) = Some(Made {
            piece: number,
            bytes: Arc::clone(&bytes),
        });
        Ok(bytes)
    }
}

/// Copies as much as fits, at most `limit`.
fn copy(to: &mut [u8], from: &[u8], limit: u64) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let len = to.len().min(from.len()).min(limit);
    to[..len].copy_from_slice(&from[..len]);
    len
}
