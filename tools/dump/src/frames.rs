//! One frame: its header, its body, and what the body holds.

use std::io;

use revtree_format::{
    BranchPage, Control, Controls, Directory, FRAME_HEADER_BYTES, FormatError, FrameHeader,
    FrameKind, PageRef, Place, Position, RecordHead, StoreSeed, check_value, parse_record,
};

use crate::damage::Damage;
use crate::item::{Blob, ControlItem, FrameItem, Item, PageItem, RecordItem};
use crate::source::{Failure, Source};
use crate::walk::Walk;

/// Where a closing frame says that the log goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextSegment {
    pub(crate) index: u32,
    pub(crate) units: u32,
    pub(crate) segment_use: u64,
}

/// The frame header at `position` of a segment in use `segment_use`.
pub(crate) fn header(
    source: Source<'_>,
    store_id: &[u8; 16],
    segment_use: u64,
    position: Position,
) -> Result<FrameItem, Failure> {
    let raw = source.exact(position.0, FRAME_HEADER_BYTES)?;
    let place = Place {
        seed: StoreSeed::new(store_id),
        segment_use,
        position,
    };
    let (header, header_crc) = FrameHeader::parse(&raw, place)?;
    Ok(FrameItem {
        position,
        segment_use,
        header,
        header_crc,
        linked: true,
    })
}

/// The body of `frame`; its checksum is the caller's to check.
pub(crate) fn body(source: Source<'_>, frame: &FrameItem) -> Result<Vec<u8>, Failure> {
    source.exact(body_at(frame).0, frame.header.body_len as usize)
}

fn body_at(frame: &FrameItem) -> Position {
    frame.position.plus(FRAME_HEADER_BYTES as u64)
}

/// The body of the page that `page` names, checked against all that its parent says.
pub(crate) fn page(
    source: Source<'_>,
    store_id: &[u8; 16],
    page: &PageRef,
    kind: FrameKind,
) -> Result<Vec<u8>, Failure> {
    let frame = header(source, store_id, page.segment_use, page.position)?;
    let same = |what, expected: u64, found: u64| {
        if expected == found {
            return Ok(());
        }
        Err(FormatError::new(page.position.0, what, expected, found))
    };
    same("page kind", kind as u64, frame.header.kind as u64)?;
    same(
        "page length",
        page.body_len.into(),
        frame.header.body_len.into(),
    )?;
    same(
        "page checksum in its parent",
        page.body_crc.into(),
        frame.header.body_crc.into(),
    )?;
    let body = body(source, &frame)?;
    frame.header.check_body(&body, page.position)?;
    Ok(body)
}

/// Shows a branch page.
pub(crate) fn page_item(page: &BranchPage, position: Position, segment_use: u64) -> PageItem {
    PageItem {
        position,
        segment_use,
        level: page.level,
        generation: page.generation,
        entries: match &page.entries {
            revtree_format::BranchEntries::Leaves(leaves) => leaves.len(),
            revtree_format::BranchEntries::Children(children) => children.len(),
        },
        first: page.first().unwrap_or_default(),
        records: page.records(),
    }
}

impl Walk<'_> {
    /// Shows `frame` and what it holds; also when its checksum does not hold, since records have their
    /// own. Gives the number of its records and where the log goes on behind a closing frame.
    pub(crate) fn frame(&mut self, frame: &FrameItem) -> io::Result<(u64, Option<NextSegment>)> {
        self.out.emit(&Item::Frame(*frame))?;
        let body = body(self.source, frame);
        let Some(body) = self.tell(body)? else {
            return Ok((0, None));
        };
        let checked = frame.header.check_body(&body, frame.position);
        self.tell(checked.map_err(Failure::from))?;
        let at = frame.position;
        match frame.header.kind {
            FrameKind::Records | FrameKind::Run => return self.commits(frame, &body),
            FrameKind::Branch => {
                let page = BranchPage::parse(&body, at).map_err(Failure::from);
                if let Some(page) = self.tell(page)? {
                    let item = page_item(&page, at, frame.segment_use);
                    self.out.emit(&Item::Page(item))?;
                }
            }
            FrameKind::Directory => {
                let directory = Directory::parse(&body, at).map_err(Failure::from);
                if let Some(directory) = self.tell(directory)? {
                    self.out
                        .emit(&Item::Blob(blob_item(None, at, &directory)))?;
                }
            }
            // Only its directory's root knows what a chunk is made of.
            FrameKind::Chunk => {}
        }
        Ok((0, None))
    }

    fn commits(
        &mut self,
        frame: &FrameItem,
        body: &[u8],
    ) -> io::Result<(u64, Option<NextSegment>)> {
        let split = (frame.header.records_len as usize).min(body.len());
        let (records, controls) = body.split_at(split);
        let place = Place {
            seed: self.seed(),
            segment_use: frame.segment_use,
            position: body_at(frame),
        };
        let at = place.position;
        let count = self.records(records, place)?.count;
        let expected = frame.header.record_count.into();
        self.expect(frame.position.0, "records in the frame", expected, count)?;
        let next = self.controls(controls, at.0 + split as u64)?;
        if frame.header.flags.last_in_segment && next.is_none() {
            self.expect(frame.position.0, "closing frame with a next segment", 1, 0)?;
        }
        Ok((count, next))
    }

    /// Shows control items; gives the last next-segment item.
    pub(crate) fn controls(&mut self, bytes: &[u8], at: u64) -> io::Result<Option<NextSegment>> {
        let mut next = None;
        for item in Controls::new(bytes, at) {
            let Some(item) = self.tell(item.map_err(Failure::from))? else {
                break;
            };
            if let Control::NextSegment {
                index,
                units,
                segment_use,
            } = item
            {
                next = Some(NextSegment {
                    index,
                    units,
                    segment_use,
                });
            }
            let owned = control_item(&item, self.options.values);
            self.out.emit(&Item::Control(owned))?;
        }
        Ok(next)
    }

    /// Shows the records of `bytes`, which lie at `place`. Behind a damaged record it looks for the next
    /// that verifies.
    pub(crate) fn records(&mut self, bytes: &[u8], place: Place) -> io::Result<Found> {
        let mut found = Found::default();
        let mut offset = 0;
        let mut searching = false;
        let mut budget = SEARCH_BYTES;
        while offset < bytes.len() && budget > 0 {
            let position = place.position.plus(offset as u64);
            let raw = &bytes[offset..];
            match parse_record(raw, place.at(position)) {
                Ok((head, key)) if head.record_len() <= raw.len() => {
                    searching = false;
                    offset += head.record_len();
                    self.record(position, head, key, raw, &mut found)?;
                }
                result => {
                    if !searching {
                        let cut =
                            FormatError::new(position.0, "record length", 0, raw.len() as u64);
                        self.out.damage(result.err().unwrap_or(cut))?;
                    }
                    searching = true;
                    offset += 8;
                    budget -= 8;
                }
            }
        }
        Ok(found)
    }

    fn record(
        &mut self,
        position: Position,
        head: RecordHead,
        key: &[u8],
        raw: &[u8],
        found: &mut Found,
    ) -> io::Result<()> {
        let value_end = head.value_at() + head.value_len as usize;
        let value = &raw[head.value_at()..value_end];
        self.tell(check_value(&head, value, position).map_err(Failure::from))?;
        let padding = &raw[value_end..head.record_len()];
        let zero = padding.iter().all(|byte| *byte == 0);
        self.expect(position.0, "record padding", 0, u64::from(!zero))?;
        if found.last.is_some_and(|last| last >= head.id) {
            let expected = found.last.map_or(0, |last| last.main.get());
            let order = Damage::new(position.0, "record order", expected, head.id.main.get());
            self.out.damage(order)?;
        }
        found.first = found.first.or(Some(head.id));
        found.last = Some(head.id);
        found.count += 1;
        if self.options.records {
            let item = RecordItem {
                position,
                head,
                key: key.to_vec(),
                value: self.options.values.then(|| value.to_vec()),
                len: head.record_len(),
            };
            self.out.emit(&Item::Record(item))?;
        }
        Ok(())
    }
}

/// How far behind damaged records the next good one is looked for. Each step may compute the checksum
/// of a claimed key of 64 KiB, so this bounds a hostile body to half a GiB of checksums.
const SEARCH_BYTES: usize = 64 << 10;

/// The records of a body or leaf.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) count: u64,
    pub(crate) first: Option<revtree_format::ChangeId>,
    pub(crate) last: Option<revtree_format::ChangeId>,
}

/// A directory as an item.
pub(crate) fn blob_item(
    kind: Option<revtree_format::RootKind>,
    position: Position,
    directory: &Directory,
) -> Blob {
    let chunks = directory.chunks.iter();
    let chunks = chunks
        .map(|chunk| (chunk.position, chunk.body_len))
        .collect();
    Blob {
        kind,
        position,
        items: directory.items,
        chunks,
    }
}

fn control_item(item: &Control<'_>, values: bool) -> ControlItem {
    match *item {
        Control::Applied { index, term } => ControlItem::Applied { index, term },
        Control::TablePut { table, key, value } => ControlItem::TablePut {
            table: table.to_owned(),
            key: key.to_vec(),
            value: values.then(|| value.to_vec()),
            value_len: value.len(),
        },
        Control::TableDelete { table, key } => ControlItem::TableDelete {
            table: table.to_owned(),
            key: key.to_vec(),
        },
        Control::TableCreate { table } => ControlItem::TableCreate {
            table: table.to_owned(),
        },
        Control::Compact { revision } => ControlItem::Compact {
            revision: revision.get(),
        },
        Control::NextSegment {
            index,
            units,
            segment_use,
        } => ControlItem::NextSegment {
            index,
            units,
            segment_use,
        },
    }
}
