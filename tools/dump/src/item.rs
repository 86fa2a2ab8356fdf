//! The items of a dump: one for each structure in the file. They own what they show, so that a caller
//! may keep them; how they look is the business of `text` and `json`.

use revtree_format::{
    ChangeId, FrameHeader, Position, RecordHead, RootKind, SegmentEntry, SegmentHeader, Superblock,
};

use crate::damage::Damage;

/// One thing found in the file.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Item {
    /// What the next items belong to.
    Part(Part),
    /// A superblock slot.
    Slot(Box<SlotItem>),
    /// A unit of the segment table, or a segment met by the walk.
    Segment(SegmentItem),
    /// A branch page of the tree.
    Page(PageItem),
    /// A leaf of the tree.
    Leaf(LeafItem),
    /// The directory of a blob.
    Blob(Blob),
    /// The keys of one leaf of the key index run.
    IndexLeaf(IndexLeafItem),
    /// A frame.
    Frame(FrameItem),
    /// A record.
    Record(RecordItem),
    /// A control item.
    Control(ControlItem),
    /// Where the log ends.
    LogEnd(LogEnd),
    /// Something that breaks a rule.
    Damage(Damage),
}

/// A part of the walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Part {
    /// The four slots.
    Superblocks,
    /// The segment table of the newest checkpoint.
    SegmentTable,
    /// The revision tree of the newest checkpoint.
    Tree,
    /// The side tables of the newest checkpoint.
    Tables,
    /// The key index run.
    Index,
    /// The frames behind the newest checkpoint.
    Log,
    /// All frames of all segments.
    Segments,
}

/// A superblock slot.
#[derive(Clone, PartialEq, Debug)]
pub struct SlotItem {
    /// Which of the four.
    pub slot: u64,
    /// Where it begins.
    pub offset: u64,
    /// Its superblock, or why it has none.
    pub superblock: Result<Superblock, Damage>,
    /// Whether it is the newest of the file.
    pub newest: bool,
}

/// A segment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SegmentItem {
    /// Its first unit.
    pub index: u32,
    /// Where it begins.
    pub start: Position,
    /// What the segment table says of it, when it was met there.
    pub entry: Option<SegmentEntry>,
    /// Its header, or why it has none. `None`: not looked at, since it is free.
    pub header: Option<Result<SegmentHeader, Damage>>,
}

/// A branch page.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PageItem {
    /// Its frame.
    pub position: Position,
    /// Use of its segment.
    pub segment_use: u64,
    /// 0: its entries are leaves.
    pub level: u8,
    /// Checkpoint that wrote it.
    pub generation: u64,
    /// Number of entries.
    pub entries: usize,
    /// First record below.
    pub first: ChangeId,
    /// Records below, as its entries say.
    pub records: u64,
}

/// A leaf of the tree.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LeafItem {
    /// Its first record.
    pub first: ChangeId,
    /// Where that begins.
    pub position: Position,
    /// Use of its segment.
    pub segment_use: u64,
    /// Length in bytes.
    pub len: u32,
    /// Number of records.
    pub records: u32,
}

/// A blob's directory.
#[derive(Clone, PartialEq, Debug)]
pub struct Blob {
    /// What it holds; `None` when it was met in the log, where only the superblock's root would tell.
    pub kind: Option<RootKind>,
    /// The directory's frame.
    pub position: Position,
    /// Items in all chunks.
    pub items: u64,
    /// The chunks' frames with the lengths of their bodies.
    pub chunks: Vec<(Position, u32)>,
}

/// A leaf of the key index run.
#[derive(Clone, PartialEq, Debug)]
pub struct IndexLeafItem {
    /// The chunk's frame.
    pub position: Position,
    /// A lower bound of the keys.
    pub separator: Vec<u8>,
    /// What all keys begin with.
    pub prefix: Vec<u8>,
    /// The keys; empty when records are not asked for.
    pub keys: Vec<IndexKey>,
    /// Number of keys.
    pub count: usize,
    /// Number of live keys.
    pub live: usize,
}

/// A key of the index run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexKey {
    /// Eight bytes of the key behind the prefix, padded with zeros.
    pub chunk: [u8; 8],
    /// Upper half of the key's hash.
    pub hash: u32,
    /// Whether it is live.
    pub live: bool,
    /// Its newest record.
    pub position: Position,
}

/// A frame whose header holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FrameItem {
    /// Where its header begins.
    pub position: Position,
    /// Use of its segment.
    pub segment_use: u64,
    /// Its header.
    pub header: FrameHeader,
    /// The header's checksum, which the next frame repeats.
    pub header_crc: u32,
    /// Whether the frame continues the chain from the log head without a gap.
    pub linked: bool,
}

/// A record.
#[derive(Clone, PartialEq, Debug)]
pub struct RecordItem {
    /// Where it begins.
    pub position: Position,
    /// Its head.
    pub head: RecordHead,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value, when values are asked for.
    pub value: Option<Vec<u8>>,
    /// Length in the file, padding included.
    pub len: usize,
}

/// A control item, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ControlItem {
    /// Consistent index and term.
    Applied {
        /// Index.
        index: u64,
        /// Term.
        term: u64,
    },
    /// A side table's entry is set.
    TablePut {
        /// The table.
        table: String,
        /// The key.
        key: Vec<u8>,
        /// The value, when values are asked for.
        value: Option<Vec<u8>>,
        /// Its length.
        value_len: usize,
    },
    /// A side table's entry is removed.
    TableDelete {
        /// The table.
        table: String,
        /// The key.
        key: Vec<u8>,
    },
    /// A side table exists.
    TableCreate {
        /// The table.
        table: String,
    },
    /// The compact revision.
    Compact {
        /// Compact revision.
        revision: u64,
    },
    /// The log goes on in another segment.
    NextSegment {
        /// Its index.
        index: u32,
        /// Its length in segments.
        units: u32,
        /// The number of that use.
        segment_use: u64,
    },
}

/// Where the log ends, and why.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LogEnd {
    /// Where the next frame would begin.
    pub position: Position,
    /// The number that it would have.
    pub sequence: u64,
    /// Use of the segment.
    pub segment_use: u64,
    /// Why what is there is not that frame: the ordinary end of a log.
    pub reason: Damage,
    /// Frames of the chain that were found.
    pub frames: u64,
}
