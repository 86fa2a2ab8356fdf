//! The bytes of a revtree store, as `SPEC.md` describes them: types and checked parsers.
//!
//! Nothing here reads a file, takes a lock or contains `unsafe`; a parser is given a slice and
//! answers with a value or with a [`FormatError`] that says what was wrong and where. Where the
//! pieces lie in a file: [`Superblock`] slots at its start, then segments ([`Geometry`],
//! [`SegmentHeader`]) full of frames ([`FrameHeader`]), whose bodies are records ([`parse_record`])
//! and control items ([`Controls`]), branch pages ([`BranchPage`]) or chunks of blobs ([`Directory`],
//! [`parse_segments`], [`IndexLeaf`]). Beside the store file: increments of backups ([`IncrementBlock`]).

mod blob;
mod branch;
mod control;
mod error;
pub mod etcd;
mod frame;
mod ids;
mod increment;
pub mod limits;
mod place;
mod record;
mod segment;
mod superblock;

pub use blob::{
    ChunkRefBytes, Directory, DirectoryHeaderBytes, INDEX_LEAF_ENTRIES_MAX, IndexEntry,
    IndexEntryBytes, IndexLeaf, IndexLeafBytes, SegmentEntry, SegmentEntryBytes, SegmentState,
    check_segments, encode_segments, parse_segments,
};
pub use branch::{
    BRANCH_ENTRY_BYTES, BRANCH_HEADER_BYTES, BranchEntries, BranchEntryBytes, BranchHeaderBytes,
    BranchPage, Child, LeafRun,
};
pub use control::{
    AppliedBytes, CONTROL_HEADER_BYTES, CompactBytes, Control, ControlHeaderBytes, Controls,
    NextSegmentBytes, TableItemBytes,
};
pub use error::FormatError;
pub use frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FrameFlags, FrameHeader, FrameHeaderBytes, FrameKind,
};
pub use ids::{ChangeId, LeaseId, Position, Revision};
pub use increment::{
    INCREMENT_BLOCK_BYTES, INCREMENT_MAGIC, INCREMENT_VERSION, IncrementBlock, IncrementBlockBytes,
    IncrementEnd, IncrementEndBytes, IncrementHead, IncrementHeadBytes, IncrementKeptBytes,
    IncrementKind, IncrementRecord, IncrementRecordBytes, encode_kept, parse_kept,
};
pub use place::{Place, StoreSeed};
pub use record::{
    Link, NewRecord, RECORD_HEAD_BYTES, RECORD_HEAD_BYTES_MAX, RecordHead, RecordHeadBytes,
    RecordKind, RecordSkipBytes, RecordSubsBytes, RecordWideBytes, check_value, head_and_key_len,
    parse_record, set_hints, skip_jump,
};
pub use segment::{
    Geometry, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SegmentHeader, SegmentHeaderBytes, SegmentKind,
};
pub use superblock::{
    LogHead, PageRef, Root, RootBytes, RootKind, SUPERBLOCK_BYTES, SUPERBLOCK_MAGIC, Superblock,
    SuperblockBytes,
};
