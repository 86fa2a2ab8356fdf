//! The key index run of an image, in key order as of its revision (SPEC.md, B-90 to B-92).
//!
//! The source's index is of now; the image's is of the image's revision. So it is not dumped: each key is
//! looked at at that revision, and is left out when the image has no record of it.

use std::ops::Bound;

use revtree_format::{FrameKind, RecordKind};

use super::records::Records;
use crate::error::Result;
use crate::index::{KeyedEntry, LeafImage};
use crate::mvcc::store::to_format;
use crate::mvcc::versions::{RecordKeys, record_at};
use crate::pager::{BlobWriter, Log};

/// Behind which key a chunk begins; `None`: with the first one.
pub(super) type IndexFrom = Option<Vec<u8>>;

impl Records<'_> {
    /// Appends chunks of the run from `from` on. Gives the key with which the next segment begins; `None`:
    /// that was the last one.
    pub(super) fn write_index(
        &self,
        log: &mut Log,
        from: IndexFrom,
        blob: &mut BlobWriter,
    ) -> Result<Option<IndexFrom>> {
        let own = log.head().segment_use;
        let mut keys = Keys {
            records: *self,
            after: from.clone(),
            fetched: Vec::new().into_iter(),
            more: true,
        };
        let mut before = from;
        loop {
            let start = before.clone();
            let (mut count, mut body) = (0, Vec::new());
            while body.len() < log.chunk_bytes() {
                let mut leaf = Vec::with_capacity(LeafImage::ENTRIES);
                while leaf.len() < LeafImage::ENTRIES
                    && let Some(entry) = keys.next()?
                {
                    leaf.push(entry);
                }
                let Some(last) = leaf.last() else {
                    break;
                };
                let next = last.key.clone();
                to_format(LeafImage::of(before.as_deref(), &leaf)).encode(&mut body);
                count += leaf.len() as u64;
                before = Some(next);
            }
            if count == 0 {
                return Ok(None);
            }
            log.keep_together(body.len() + revtree_format::FRAME_HEADER_BYTES)?;
            if log.head().segment_use != own {
                return Ok(Some(start));
            }
            blob.chunk(count, &body, |kind: FrameKind, body: &[u8]| {
                log.append_page(kind, body)
            })?;
        }
    }
}

/// The keys of the image in order.
struct Keys<'a> {
    records: Records<'a>,
    after: Option<Vec<u8>>,
    fetched: std::vec::IntoIter<crate::index::Entry>,
    more: bool,
}

impl Keys<'_> {
    fn next(&mut self) -> Result<Option<KeyedEntry>> {
        let Records {
            store,
            retained,
            rev,
            compact,
            ..
        } = self.records;
        let medium = &store.engine.medium;
        loop {
            let Some(entry) = self.fetched.next() else {
                if !self.more {
                    return Ok(None);
                }
                self.fetch()?;
                continue;
            };
            let newest = (entry.position, medium.head(entry.position)?);
            // The index is of now, and leads to records that came after the image's tree.
            let tree = &store.engine.tree;
            let Some((position, head)) = record_at(tree, newest, rev, compact)? else {
                continue;
            };
            let position = self.records.in_tree(position, &head)?;
            let Some(place) = retained.place(position) else {
                continue;
            };
            let key = medium.with_head(position, |_, key| key.to_vec())?;
            return Ok(Some(KeyedEntry {
                hash: store.index.hash(&key),
                key,
                live: head.kind == RecordKind::Put,
                position: place,
            }));
        }
    }

    fn fetch(&mut self) -> Result<()> {
        let store = self.records.store;
        let medium = &store.engine.medium;
        let lower = match &self.after {
            Some(after) => Bound::Excluded(&after[..]),
            None => Bound::Unbounded,
        };
        let mut chunk = Vec::new();
        let keys = RecordKeys(medium);
        let unbounded = Bound::Unbounded;
        self.more = store
            .index
            .chunk(lower, unbounded, false, KEYS_AT_A_TIME, &keys, &mut chunk);
        if let Some(last) = chunk.last() {
            self.after = Some(medium.with_head(last.position, |_, key| key.to_vec())?);
        }
        self.fetched = chunk.into_iter();
        Ok(())
    }
}

/// Keys asked of the index at a time.
const KEYS_AT_A_TIME: usize = 256;
