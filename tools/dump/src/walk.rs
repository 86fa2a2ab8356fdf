//! The walk: which part follows which, and what all of them share. Each part is a file of its own and
//! knows only this context.

use std::io;

use revtree_format::{FormatError, Geometry, RootKind, StoreSeed, Superblock};

use crate::damage::Damage;
use crate::item::{Item, Part};
use crate::source::{Failure, ReadAt, Source};
use crate::{blobs, chain, segments, slots, tree};

/// How much a dump shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Also every segment, frame after frame, whether the newest checkpoint leads there or not.
    pub all: bool,
    /// Records and the keys of the index; they are read and checked in any case.
    pub records: bool,
    /// The values of records and of side tables.
    pub values: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            all: false,
            records: true,
            values: false,
        }
    }
}

/// What a dump counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Frames met behind the log head.
    pub log_frames: u64,
    /// Records in them.
    pub log_records: u64,
    /// Branch pages of the tree.
    pub pages: u64,
    /// Leaves of the tree.
    pub leaves: u64,
    /// Records in them.
    pub tree_records: u64,
    /// Things that break a rule, unreadable superblock slots among them.
    pub damage: u64,
}

/// Walks the file and gives each item to `sink`, in the order of the parts.
///
/// # Errors
/// What `bytes` or `sink` answers; damage is no error but an item.
pub fn dump(
    bytes: &dyn ReadAt,
    options: &Options,
    sink: &mut dyn FnMut(&Item) -> io::Result<()>,
) -> io::Result<Summary> {
    let source = Source::new(bytes)?;
    let mut summary = Summary::default();
    let newest = {
        let mut out = Out {
            sink,
            summary: &mut summary,
        };
        slots::walk(source, &mut out)?
    };
    let Some(superblock) = newest else {
        return Ok(summary);
    };
    let geometry = Geometry::new(superblock.segment_bytes);
    let out = Out {
        sink,
        summary: &mut summary,
    };
    let mut walk = Walk {
        source,
        options: *options,
        superblock: &superblock,
        geometry,
        out,
    };
    let table = segments::table(&mut walk)?;
    tree::walk(&mut walk)?;
    for root in &superblock.roots {
        match root.kind {
            RootKind::Tables => blobs::tables(&mut walk, root)?,
            RootKind::Index => blobs::index(&mut walk, root)?,
            _ => {}
        }
    }
    chain::walk(&mut walk)?;
    if options.all {
        segments::all(&mut walk, &table)?;
    }
    Ok(summary)
}

/// Where items go.
pub(crate) struct Out<'a> {
    sink: &'a mut dyn FnMut(&Item) -> io::Result<()>,
    pub(crate) summary: &'a mut Summary,
}

impl Out<'_> {
    pub(crate) fn emit(&mut self, item: &Item) -> io::Result<()> {
        (self.sink)(item)
    }

    pub(crate) fn part(&mut self, part: Part) -> io::Result<()> {
        self.emit(&Item::Part(part))
    }

    pub(crate) fn damage(&mut self, damage: impl Into<Damage>) -> io::Result<()> {
        self.summary.damage += 1;
        self.emit(&Item::Damage(damage.into()))
    }
}

/// What every part of the walk needs.
pub(crate) struct Walk<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) options: Options,
    pub(crate) superblock: &'a Superblock,
    pub(crate) geometry: Geometry,
    pub(crate) out: Out<'a>,
}

impl Walk<'_> {
    /// With what the store's checksums begin.
    pub(crate) fn seed(&self) -> StoreSeed {
        StoreSeed::new(&self.superblock.store_id)
    }

    /// The value, or `None` with its damage told.
    pub(crate) fn tell<T>(&mut self, result: Result<T, Failure>) -> io::Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Damage(damage)) => {
                self.out.damage(damage)?;
                Ok(None)
            }
            Err(Failure::Io(error)) => Err(error),
        }
    }

    /// Tells that `expected` was to be found at `offset`, when it was not.
    pub(crate) fn expect(
        &mut self,
        offset: u64,
        what: &'static str,
        expected: u64,
        found: u64,
    ) -> io::Result<()> {
        if expected != found {
            self.out
                .damage(FormatError::new(offset, what, expected, found))?;
        }
        Ok(())
    }
}

/// The damage in `result` apart from a failing medium.
pub(crate) fn split<T>(result: Result<T, Failure>) -> io::Result<Result<T, Damage>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Failure::Damage(damage)) => Ok(Err(damage.into())),
        Err(Failure::Io(error)) => Err(error),
    }
}
