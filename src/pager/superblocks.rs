//! The four slots at the start of the file: read the newest, refresh it, write the next.

use std::path::Path;

use revtree_format::limits::{BLOCK_BYTES, FORMAT_VERSION, SEGMENTS_START, SUPERBLOCK_SLOTS};
use revtree_format::{
    FormatError, LogHead, Position, Revision, SUPERBLOCK_BYTES, SUPERBLOCK_MAGIC, Superblock,
};

use crate::error::{Error, Result};
use crate::sys::{Disk, Storage};

/// What the slots of a file say.
#[derive(Debug)]
pub(crate) struct Superblocks {
    /// The newest valid one.
    pub(crate) newest: Superblock,
    /// Slots that did not verify.
    pub(crate) bad: u32,
    /// The edition of the next refresh: it says which slot is rewritten first. `None`: there is none.
    pub(crate) next_edition: Option<u32>,
}

impl Superblocks {
    /// Reads all slots and chooses the newest (SPEC.md, C-20).
    pub(crate) fn read(storage: &dyn Storage, path: &Path) -> Result<Superblocks> {
        let len = storage.len().map_err(Error::on("read the file's length"))?;
        if len < SEGMENTS_START {
            return Err(too_short(storage, path, len));
        }
        let mut newest: Option<Superblock> = None;
        let mut bad = 0;
        let mut first_error = None;
        let mut too_new = None;
        let mut refused = None;
        let mut magic_seen = false;
        let mut ages = [None; SUPERBLOCK_SLOTS];
        let mut zeros = [false; SUPERBLOCK_SLOTS];
        for slot in 0..SUPERBLOCK_SLOTS as u64 {
            let offset = slot * BLOCK_BYTES;
            let mut bytes = [0; SUPERBLOCK_BYTES];
            storage
                .read_at(&mut bytes, offset)
                .map_err(|error| read_error(path, error))?;
            match Superblock::parse(&bytes, offset) {
                Ok(superblock) => {
                    magic_seen = true;
                    if let Some(age) = usize::try_from(slot).ok().and_then(|n| ages.get_mut(n)) {
                        *age = Some(superblock.age());
                    }
                    let known = newest.as_ref().unwrap_or(&superblock);
                    if known.store_id != superblock.store_id
                        || known.segment_bytes != superblock.segment_bytes
                    {
                        return Err(Error::Corrupt {
                            offset,
                            what: "superblock of another store",
                            expected: known.segment_bytes.into(),
                            found: superblock.segment_bytes.into(),
                        });
                    }
                    if newest
                        .as_ref()
                        .is_none_or(|newest| newest.age() < superblock.age())
                    {
                        newest = Some(superblock);
                    }
                }
                // Of a pair of slots that no checkpoint has reached yet, unless its twin says otherwise.
                Err(error) if bytes == [0; SUPERBLOCK_BYTES] => {
                    if let Some(zero) = usize::try_from(slot).ok().and_then(|n| zeros.get_mut(n)) {
                        *zero = true;
                    }
                    first_error.get_or_insert(error);
                }
                Err(error) => {
                    bad += 1;
                    magic_seen |= error.what != "superblock magic";
                    if error.what == "superblock format version" {
                        too_new = Some(error.found);
                    } else if !is_damage(&error) {
                        refused.get_or_insert(error);
                    }
                    first_error.get_or_insert(error);
                }
            }
        }
        let pairs = zeros.chunks_exact(2).zip(ages.chunks_exact(2));
        let lost =
            pairs.filter(|(zeros, ages)| zeros.contains(&true) && ages.iter().any(Option::is_some));
        bad += lost.map(|_| 1).sum::<u32>();
        if let Some(found) = too_new {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(Error::FormatTooNew {
                found,
                newest: FORMAT_VERSION,
            });
        }
        // An older slot is no way out: it is older in time, and what came behind it would be overwritten.
        if let Some(error) = refused {
            return Err(error.into());
        }
        match (newest, first_error) {
            (Some(newest), _) => Ok(Superblocks {
                next_edition: next_edition(&newest, &ages),
                newest,
                bad,
            }),
            (None, Some(error)) if magic_seen => Err(error.into()),
            _ => Err(Error::NotAStore {
                path: path.to_path_buf(),
            }),
        }
    }

    /// Writes `next` into the pair of its generation, both slots (C-12). The caller syncs.
    pub(crate) fn write(storage: &dyn Storage, next: &Superblock) -> std::io::Result<()> {
        let bytes = next.encode();
        for slot in pair(next) {
            storage.write_at(&bytes[..], slot)?;
        }
        Ok(())
    }

    /// Rewrites the adopted superblock in its own pair as `next`, one slot after the other, each synced,
    /// so that one good copy is never in flight (C-21). `next` has the edition that was found to be next.
    pub(crate) fn refresh(storage: &dyn Storage, next: &Superblock) -> std::io::Result<()> {
        let bytes = next.encode();
        let mut slots = pair(next);
        if next.edition.is_multiple_of(2) {
            slots.reverse();
        }
        for slot in slots {
            storage.write_at(&bytes[..], slot)?;
            storage.sync_data()?;
        }
        Ok(())
    }
}

/// A file that ends inside its slots is what is left of a store if one of them begins as a slot does (C-20).
fn too_short(storage: &dyn Storage, path: &Path, len: u64) -> Error {
    let magic = SUPERBLOCK_MAGIC.to_le_bytes();
    for slot in 0..SUPERBLOCK_SLOTS as u64 {
        let mut found = [0; 8];
        let offset = slot * BLOCK_BYTES;
        if offset + found.len() as u64 > len {
            break;
        }
        match storage.read_at(&mut found, offset) {
            Ok(()) if found == magic => {
                return Error::Corrupt {
                    offset: len,
                    what: "length of the file",
                    expected: SEGMENTS_START,
                    found: len,
                };
            }
            Ok(()) => {}
            Err(error) => return read_error(path, error),
        }
    }
    Error::NotAStore {
        path: path.to_path_buf(),
    }
}

/// A directory can be opened, and has a length.
fn read_error(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::IsADirectory => Error::NotAStore {
            path: path.to_path_buf(),
        },
        _ => Error::io("read a superblock", error),
    }
}

/// Whether a slot that does not parse is torn or rotten: its checksums do not hold. One whose checksums
/// hold was written so, by a later version or on purpose, and refuses the file (V-3, V-5, V-6).
fn is_damage(error: &FormatError) -> bool {
    matches!(
        error.what,
        "superblock magic" | "superblock CRC-32" | "superblock CRC-32C"
    )
}

/// Where the two slots of a generation lie.
fn pair(superblock: &Superblock) -> [u64; 2] {
    let first = superblock.generation % 2 * 2 * BLOCK_BYTES;
    [first, first + BLOCK_BYTES]
}

/// The edition that the refresh of `newest` writes, by what the slots hold: odd ones write the first
/// slot of the pair first, even ones the second.
///
/// What a slot holds may be in the page cache alone: the refresh that wrote it was killed, or its sync
/// failed. So the slot that was written last is rewritten first; the other was synced before that.
/// Rewritten in the other order, both would be in flight at once, and a power cut could take both.
///
/// * The editions differ, or one slot does not hold the generation: a refresh or a checkpoint ended
///   between the two. The newer was written last; one that is damaged is no loss.
/// * They are equal: the edition itself says which was written last, and the one above it has the
///   other order.
fn next_edition(newest: &Superblock, ages: &[Option<Age>; SUPERBLOCK_SLOTS]) -> Option<u32> {
    let first = usize::from(newest.generation % 2 == 1) * 2;
    let [first, second] = [first, first + 1].map(|slot| {
        let age = ages.get(slot).copied().flatten();
        age.filter(|(_, generation, _)| *generation == newest.generation)
    });
    let next = newest.edition.checked_add(1)?;
    let first_is_due = match (first, second) {
        (Some(first), Some(second)) if first == second => return Some(next),
        // The loser of two checkpoints of one generation (B-2): no loss either.
        (Some((opens, _, edition)), Some(second)) if edition == second.2 => opens < second.0,
        (Some(first), Some(second)) => first > second,
        (first, _) => first.is_none(),
    };
    if first_is_due == next.is_multiple_of(2) {
        next.checked_add(1)
    } else {
        Some(next)
    }
}

/// See [`Superblock::age`].
type Age = (u32, u64, u32);

/// Makes the file of an empty store at `path`: under another name first, synced, then renamed, so that
/// a crash leaves a store or nothing (C-1). Its id is drawn, unless it is given. `false` when somebody else was first.
pub(crate) fn create(
    disk: &dyn Disk,
    path: &Path,
    segment_bytes: u32,
    identity: Option<([u8; 16], u32)>,
) -> Result<bool> {
    let random = disk.entropy().map_err(Error::on("draw the store's id"))?;
    let (store_id, opens) = identity.unwrap_or((random, 0));
    let superblock = Superblock {
        opens,
        ..of_empty_store(store_id, segment_bytes)
    };
    // A name that no other creator uses: two of them must not write into one file.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:08x}.new", crc32c::crc32c(&random)));
    let temporary = Path::new(&name);
    let file = disk
        .create_new(temporary)
        .map_err(Error::on("create the store"))?;
    let built = fill(&*file, &superblock).and_then(|()| match disk.rename_new(temporary, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(temporary).map(|()| false)
        }
        Ok(()) => disk.sync_directory(path).map(|()| true),
        Err(error) => Err(error),
    });
    if built.is_err() {
        // It may have got its name: then it is not there under this one.
        let _ = disk.remove(temporary);
    }
    built.map_err(Error::on("create the store"))
}

/// What stands in the slots of a store in which nothing has happened.
pub(super) fn of_empty_store(store_id: [u8; 16], segment_bytes: u32) -> Superblock {
    Superblock {
        store_id,
        generation: 0,
        edition: 0,
        opens: 0,
        segment_bytes,
        head: LogHead {
            position: Position(SEGMENTS_START),
            sequence: 1,
            segment_use: 0,
            segment: 0,
            prev_crc: 0,
        },
        revision: Revision::new(1),
        compact_revision: None,
        applied_index: 0,
        applied_term: 0,
        records: 0,
        segment_count: 0,
        roots: Vec::new(),
    }
}

/// Writes the file of an empty store, durable but for its name.
fn fill(file: &dyn Storage, superblock: &Superblock) -> std::io::Result<()> {
    file.allocate(0, SEGMENTS_START)?;
    let bytes = superblock.encode();
    for slot in pair(superblock) {
        file.write_at(&bytes[..], slot)?;
    }
    file.sync_all()
}
