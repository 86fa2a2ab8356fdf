//! How items look to people: a line each, indented by what they belong to, positions in hexadecimal.

use std::fmt;

use revtree_format::{LeaseId, RecordKind, RootKind, SegmentHeader, SegmentState, Superblock};

use crate::bytes::readable;
use crate::item::{
    Blob, ControlItem, FrameItem, IndexLeafItem, Item, LeafItem, LogEnd, PageItem, Part,
    RecordItem, SegmentItem, SlotItem,
};

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Part(part) => part.fmt(f),
            Item::Slot(slot) => slot.fmt(f),
            Item::Segment(segment) => segment.fmt(f),
            Item::Page(page) => page.fmt(f),
            Item::Leaf(leaf) => leaf.fmt(f),
            Item::Blob(blob) => blob.fmt(f),
            Item::IndexLeaf(leaf) => leaf.fmt(f),
            Item::Frame(frame) => frame.fmt(f),
            Item::Record(record) => record.fmt(f),
            Item::Control(control) => control.fmt(f),
            Item::LogEnd(end) => end.fmt(f),
            Item::Damage(damage) => write!(f, "damage: {damage}"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Superblocks => "superblocks",
            Part::SegmentTable => "segment table",
            Part::Tree => "tree",
            Part::Tables => "side tables",
            Part::Index => "key index",
            Part::Log => "log",
            Part::Segments => "segments",
        })
    }
}

impl fmt::Display for SlotItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  slot {} at {:#x}: ", self.slot, self.offset)?;
        let superblock = match &self.superblock {
            Ok(superblock) => superblock,
            Err(damage) => return write!(f, "bad: {damage}"),
        };
        let Superblock {
            generation,
            edition,
            opens,
            revision,
            ..
        } = superblock;
        write!(
            f,
            "generation {generation} edition {edition} opens {opens} revision {revision}"
        )?;
        if !self.newest {
            return Ok(());
        }
        let compact = superblock
            .compact_revision
            .map_or(-1, |rev| i128::from(rev.get()));
        let head = superblock.head;
        write!(f, " (newest)\n    store id ")?;
        superblock
            .store_id
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(
            f,
            ", segments of {} bytes, {} in the table",
            superblock.segment_bytes, superblock.segment_count
        )?;
        write!(
            f,
            "\n    compact revision {compact}, applied index {} term {}",
            superblock.applied_index, superblock.applied_term
        )?;
        write!(
            f,
            "\n    log head at {} sequence {} segment {} use {:#x}, frame before {:#010x}",
            head.position, head.sequence, head.segment, head.segment_use, head.prev_crc
        )?;
        for root in &superblock.roots {
            write!(
                f,
                "\n    root {} at {} use {:#x} len {}",
                kind_name(root.kind),
                root.page.position,
                root.page.segment_use,
                root.page.body_len
            )?;
            match root.kind {
                RootKind::Tree => {
                    write!(f, " levels {} records {}", root.levels, superblock.records)?;
                    if root.detail > 0 {
                        write!(f, " cleaned up to {}", root.detail)?;
                    }
                }
                RootKind::Index => write!(f, " revision {}", root.detail)?,
                RootKind::Segments if root.detail > 0 => {
                    write!(f, " dead bytes counted up to {}", root.detail)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for SegmentItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  segment {} at {}", self.index, self.start)?;
        if let Some(entry) = self.entry {
            match (entry.state, entry.units) {
                (SegmentState::Free, _) => write!(f, ": free")?,
                (_, 0) => write!(f, ": part of the long segment before")?,
                (state, units) => {
                    let (name, segment_use) = (state_name(state), entry.segment_use);
                    write!(f, ": {name}, units {units}, use {segment_use:#x}")?;
                    if entry.dead > 0 {
                        let percent = f64::from(entry.dead) * 100.0 / f64::from(u16::MAX);
                        write!(f, ", {percent:.1} % dead")?;
                    }
                }
            }
        }
        match self.header {
            None => Ok(()),
            Some(Err(damage)) => write!(f, ", header bad: {damage}"),
            Some(Ok(SegmentHeader {
                segment_use,
                units,
                first_sequence,
                ..
            })) => write!(
                f,
                ", header use {segment_use:#x} units {units} first sequence {first_sequence}"
            ),
        }
    }
}

impl fmt::Display for PageItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PageItem {
            position,
            segment_use,
            level,
            generation,
            entries,
            first,
            records,
        } = self;
        write!(
            f,
            "  page at {position} use {segment_use:#x}: level {level} generation {generation} \
             entries {entries} records {records} first {first}"
        )
    }
}

impl fmt::Display for LeafItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeafItem {
            first,
            position,
            segment_use,
            len,
            records,
        } = self;
        write!(
            f,
            "  leaf at {position} use {segment_use:#x}: len {len} records {records} first {first}"
        )
    }
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.kind.map_or("blob", kind_name);
        write!(
            f,
            "  directory of {name} at {}: items {} chunks",
            self.position, self.items
        )?;
        let mut chunks = self.chunks.iter();
        chunks.try_for_each(|(position, len)| write!(f, " {position}+{len}"))
    }
}

impl fmt::Display for IndexLeafItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (separator, prefix) = (readable(&self.separator), readable(&self.prefix));
        write!(
            f,
            "  index leaf in {}: keys {} live {} from \"{separator}\" prefix \"{prefix}\"",
            self.position, self.count, self.live
        )?;
        for key in &self.keys {
            let end = key
                .chunk
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |n| n + 1);
            let state = if key.live { "live" } else { "dead" };
            let chunk = readable(&key.chunk[..end]);
            write!(
                f,
                "\n    \"{chunk}\" hash {:08x} {state} at {}",
                key.hash, key.position
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for FrameItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.header;
        let kind = format!("{:?}", header.kind).to_lowercase();
        write!(
            f,
            "  frame {} at {}: {kind} len {} revision {} synced up to {} open {} crc {:08x}",
            header.sequence,
            self.position,
            header.body_len,
            header.revision,
            header.synced_up_to,
            header.opens,
            self.header_crc
        )?;
        if header.record_count > 0 {
            write!(
                f,
                " records {} ({} bytes)",
                header.record_count, header.records_len
            )?;
        }
        let flags = [
            (header.flags.padded, " padded"),
            (header.flags.continued, " continued"),
            (header.flags.last_in_segment, " last in segment"),
            (!self.linked, " not linked"),
        ];
        flags
            .iter()
            .filter(|(set, _)| *set)
            .try_for_each(|(_, name)| f.write_str(name))
    }
}

impl fmt::Display for RecordItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.head;
        let kind = record_kind(head.kind);
        write!(
            f,
            "    {} at {}: {kind} \"{}\"",
            head.id,
            self.position,
            readable(&self.key)
        )?;
        if let Some(value) = &self.value {
            write!(f, " = \"{}\"", readable(value))?;
        }
        write!(
            f,
            " value {} bytes, ordinal {}",
            head.value_len, head.ordinal
        )?;
        if head.kind == RecordKind::Put {
            write!(f, ", create {} version {}", head.create, head.version)?;
        }
        if head.lease != LeaseId::NONE {
            write!(f, ", lease {}", head.lease.0)?;
        }
        if let Some(prev) = head.prev {
            write!(f, ", previous {} at {}", prev.id, prev.hint)?;
        }
        if let Some(skip) = head.skip {
            write!(f, ", skip {} at {}", skip.id, skip.hint)?;
        }
        Ok(())
    }
}

impl fmt::Display for ControlItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlItem::Applied { index, term } => {
                write!(f, "    applied index {index} term {term}")
            }
            ControlItem::TablePut {
                table,
                key,
                value,
                value_len,
            } => {
                write!(f, "    table {table}: put \"{}\"", readable(key))?;
                if let Some(value) = value {
                    write!(f, " = \"{}\"", readable(value))?;
                }
                write!(f, " value {value_len} bytes")
            }
            ControlItem::TableDelete { table, key } => {
                write!(f, "    table {table}: delete \"{}\"", readable(key))
            }
            ControlItem::TableCreate { table } => write!(f, "    table {table}: create"),
            ControlItem::Compact { revision } => write!(f, "    compact revision {revision}"),
            ControlItem::NextSegment {
                index,
                units,
                segment_use,
            } => {
                write!(
                    f,
                    "    next segment {index} units {units} use {segment_use:#x}"
                )
            }
        }
    }
}

impl fmt::Display for LogEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogEnd {
            position,
            sequence,
            segment_use,
            reason,
            frames,
        } = self;
        write!(
            f,
            "  log ends at {position} use {segment_use:#x} before sequence {sequence} \
             after {frames} frames: {reason}"
        )
    }
}

/// The name of a record's kind, here and in JSON.
pub(crate) fn record_kind(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Put => "put",
        RecordKind::Tombstone => "tombstone",
        RecordKind::Stub => "stub",
    }
}

/// The name of a root's kind, here and in JSON.
pub(crate) fn kind_name(kind: RootKind) -> &'static str {
    match kind {
        RootKind::Tree => "tree",
        RootKind::Segments => "segments",
        RootKind::Tables => "tables",
        RootKind::Index => "index",
        RootKind::Pins => "pins",
        _ => "unknown",
    }
}

/// The name of a segment's state, here and in JSON.
pub(crate) fn state_name(state: SegmentState) -> &'static str {
    match state {
        SegmentState::Free => "free",
        SegmentState::Log => "log",
        SegmentState::Run => "run",
    }
}
