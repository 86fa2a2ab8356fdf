//! Zeros written ahead of the log, so that a small group's sync has data to write and nothing else
//! (SPEC.md, C-32).
//!
//! A block that is allocated but was never written is marked so in the filesystem's own tree, and the
//! sync that follows its first write commits that mark's removal too: a second wait for the disk. A
//! group of a few blocks pays it in full. So one of them now and then writes zeros over the next part
//! of the allocated space, and its sync carries the marks of all the groups that will lie there.
//!
//! Why it is safe: the zeros lie behind everything that has been appended, where the file reads as
//! zeros anyway or holds what no superblock and no frame before the log's end leads to. They are
//! issued before any later write to the same blocks, and cover no block with a frame that has been
//! adopted or that a sync of this open has covered. A log that resumes takes all behind its head as
//! never written.
//!
//! A large group has its marks' cost spread over its own bytes, and would only write everything twice.

use std::io;

use revtree_format::limits::BLOCK_BYTES;
use revtree_format::{Geometry, Position};

use crate::sys::Storage;

/// The longest part that is zeroed at once: rare enough to stay out of a commit's 99th percentile.
const PART_BYTES_MAX: u64 = 1 << 20;

/// Groups up to here are small: they wait for the disk, not for its bandwidth.
const SMALL_GROUP_BYTES: u64 = 64 << 10;

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// How far the active segment's blocks have been written, with zeros or with frames.
#[derive(Debug)]
pub(super) struct Ahead {
    written: Position,
    part: u64,
}

impl Ahead {
    /// Nothing at or behind `from` has been written.
    pub(super) fn new(from: Position, geometry: Geometry) -> Ahead {
        Ahead {
            written: from,
            part: (geometry.segment_bytes() / 8).clamp(2 * BLOCK_BYTES, PART_BYTES_MAX),
        }
    }

    /// Never writes anything.
    pub(super) fn off() -> Ahead {
        Ahead {
            written: Position(u64::MAX),
            part: 0,
        }
    }

    /// The log goes on in the segment at `start`; one that is `recycled` was written by its last use.
    pub(super) fn enter(&mut self, start: Position, recycled: bool) {
        self.written = if recycled || self.part == 0 {
            Position(u64::MAX)
        } else {
            start
        };
    }

    /// A group of `bytes` has been written, up to `end`: zeros behind it when it is small and has
    /// reached blocks that were never written, up to `limit` at most.
    pub(super) fn after_group(
        &mut self,
        storage: &dyn Storage,
        bytes: u64,
        end: Position,
        limit: u64,
    ) -> io::Result<()> {
        if end <= self.written {
            return Ok(());
        }
        self.written = end;
        let part = limit.saturating_sub(end.0).min(self.part);
        if bytes > SMALL_GROUP_BYTES || part == 0 {
            return Ok(());
        }
        let zeros = usize::try_from(part)
            .ok()
            .and_then(|part| ZEROS.get(..part));
        storage.write_at(zeros.unwrap_or(&ZEROS), end.0)?;
        self.written = end.plus(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::sys::{Disk, MemoryDisk};

    const PART: u64 = 8192;

    fn file() -> Arc<dyn Storage> {
        let disk = MemoryDisk::new();
        let file = disk.create_new(Path::new("f")).expect("a fresh disk");
        file.write_at(&[0xee; 64 << 10], 0).expect("room");
        file
    }

    fn geometry() -> Geometry {
        Geometry::new(64 << 10)
    }

    fn zeros(file: &dyn Storage) -> Vec<u64> {
        let mut bytes = vec![0; 64 << 10];
        file.read_at(&mut bytes, 0).expect("whole");
        let blocks = (0u64..).zip(bytes.chunks(4096));
        blocks
            .filter(|(_, block)| block.iter().all(|byte| *byte == 0))
            .map(|(block, _)| block)
            .collect()
    }

    #[test]
    fn small_groups_write_zeros_once_a_part() {
        let file = file();
        let mut ahead = Ahead::new(Position(0), geometry());
        ahead
            .after_group(&*file, 4096, Position(4096), 64 << 10)
            .expect("written");
        assert_eq!(zeros(&*file), [1, 2]);
        file.write_at(&[0xee; 4096], 4096).expect("room");
        ahead
            .after_group(&*file, 4096, Position(8192), 64 << 10)
            .expect("written");
        assert_eq!(zeros(&*file), [2], "there are zeros ahead still");
        ahead
            .after_group(&*file, 4096, Position(12288), 64 << 10)
            .expect("written");
        ahead
            .after_group(&*file, 4096, Position(16384), 64 << 10)
            .expect("written");
        assert_eq!(zeros(&*file), [2, 4, 5]);
        ahead.enter(Position(32768), true);
        ahead
            .after_group(&*file, 4096, Position(36864), 64 << 10)
            .expect("written");
        assert_eq!(zeros(&*file), [2, 4, 5], "a recycled segment");
        ahead.enter(Position(40960), false);
        ahead
            .after_group(&*file, 4096, Position(45056), 64 << 10)
            .expect("written");
        assert_eq!(zeros(&*file), [2, 4, 5, 11, 12], "a fresh segment");
    }

    #[test]
    fn nothing_is_written_behind_the_limit_or_after_a_large_group() {
        let file = file();
        let mut ahead = Ahead::new(Position(0), geometry());
        ahead
            .after_group(&*file, 4096, Position(4096), 4096 + PART / 2)
            .expect("written");
        assert_eq!(zeros(&*file), [1]);
        ahead
            .after_group(&*file, 4096, Position(8192), 8192)
            .expect("written");
        assert_eq!(zeros(&*file), [1], "the space ends here");
        let large = SMALL_GROUP_BYTES + 4096;
        ahead
            .after_group(&*file, large, Position(32768), 64 << 10)
            .expect("written");
        assert_eq!(zeros(&*file), [1], "a large group");
    }
}
