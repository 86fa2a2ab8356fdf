//! Every limit of the format, with the reason for its number (SPEC.md, section L).

/// L-1. A key is at most 65,535 bytes: its length is a 16-bit field of the record head.
pub const KEY_BYTES_MAX: usize = 65_535;
/// L-2. A value is at most 256 MiB: it lies contiguously in one long segment, and a frame's length is a
/// 32-bit field with room to spare.
pub const VALUE_BYTES_MAX: usize = 256 << 20;
/// L-3. A transaction makes at most 1,000,000 changes: its index changes become visible together.
pub const TRANSACTION_CHANGES_MAX: u64 = 1_000_000;
/// L-4. A transaction's keys and values are at most 1 GiB: they are held in memory until commit.
pub const TRANSACTION_BYTES_MAX: u64 = 1 << 30;
/// L-5. A store file is at most 16 TiB: the limit of ext4, and 44 bits of a position.
pub const STORE_BYTES_MAX: u64 = 16 << 40;
/// L-6. All side tables together are at most 64 MiB: they live in memory and go whole into a checkpoint.
pub const TABLES_BYTES_MAX: u64 = 64 << 20;
/// L-7. A side table's name is 1 to 255 bytes of UTF-8.
pub const TABLE_NAME_BYTES_MAX: usize = 255;
/// L-8. A side table's key is at most 65,535 bytes, as a key of the store.
pub const TABLE_KEY_BYTES_MAX: usize = 65_535;
/// L-9. A side table's value is at most 16 MiB, so that a chunk that holds one stays small.
pub const TABLE_VALUE_BYTES_MAX: usize = 16 << 20;
/// L-10. The highest revision: etcd's revisions are signed 64-bit, and one is left to say "after".
pub const REVISION_MAX: u64 = i64::MAX as u64 - 1;
/// L-11. Segments are 64 KiB to 64 MiB, a power of two; 4 MiB unless the creator says otherwise.
pub const SEGMENT_BYTES_MIN: u32 = 64 << 10;
/// See [`SEGMENT_BYTES_MIN`].
pub const SEGMENT_BYTES_MAX: u32 = 64 << 20;
/// See [`SEGMENT_BYTES_MIN`].
pub const SEGMENT_BYTES_DEFAULT: u32 = 4 << 20;
/// L-12. The revision tree is at most 8 branch levels high: 128^8 leaves are more than 16 TiB hold.
pub const TREE_LEVELS_MAX: u8 = 8;
/// L-13. A branch page has at most 128 entries (6 KiB): one read, one checksum of about 0.3 µs.
pub const BRANCH_ENTRIES_MAX: usize = 128;
/// L-14. A leaf run ends before the record that would make it longer than 16 KiB: a lookup without a
/// position hint walks at most that much, and a leaf entry of 48 bytes is 0.3 % of it.
pub const LEAF_BYTES_MAX: usize = 16 << 10;
/// L-15. A frame is closed before the record that would make its body longer than 256 KiB: one write of
/// this size does not hold the inode's lock for long.
pub const FRAME_BODY_BYTES: usize = 256 << 10;
/// L-16. A frame's body is at most 300 MiB: one record at its limits with room for its head.
pub const FRAME_BODY_BYTES_MAX: u32 = 300 << 20;
/// L-17. A superblock lists at most 16 roots.
pub const ROOTS_MAX: usize = 16;
/// L-18. A change's place in its transaction fits 32 bits (see L-3).
pub const SUB_MAX: u64 = u32::MAX as u64;

/// The size of a block: what a synced group is padded to, and the size of a superblock slot.
pub const BLOCK_BYTES: u64 = 4096;
/// Number of superblock slots at the start of the file.
pub const SUPERBLOCK_SLOTS: usize = 4;
/// Bytes before the first segment: the superblock slots.
pub const SEGMENTS_START: u64 = BLOCK_BYTES * SUPERBLOCK_SLOTS as u64;
/// The newest format version that this crate reads and the one that it writes.
pub const FORMAT_VERSION: u32 = 1;
