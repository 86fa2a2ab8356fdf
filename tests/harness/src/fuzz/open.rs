//! Opening a store that was changed on purpose: all of it is read, checked, written to, closed and opened again.
//!
//! Where the check found nothing and the superblocks are as they were, it must be the same store then; else an
//! error with a type is as good.

use std::fmt::Debug;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use revtree::storage::sim::{Call, SimDisk, SimOptions};
use revtree::{Durability, Error, ReadMode, Revision};

use super::image::{Image, SLOTS};
use super::memory::bounded;
use super::{Input, StoreBytes};
use crate::crash::{History, STORE, Setup, end_process, state_of, writes};
use crate::model::Subject;
use crate::state::State;
use crate::subject::Store;

/// Stores that are changed: histories of so many seeds, each as its process left it, and closed.
const SEEDS: u64 = 8;
/// Operations of a history.
const OPS: usize = 24;
/// The most changes of one input.
const CHANGES_MAX: usize = 12;
/// How often an open, and a check, may read each byte of the file, beside a megabyte.
const OPEN_READS_MAX: u64 = 4;
const CHECK_READS_MAX: u64 = 8;

pub(super) fn bases() -> &'static [Image] {
    static BASES: OnceLock<Vec<Image>> = OnceLock::new();
    BASES.get_or_init(|| (0..SEEDS).flat_map(base).collect())
}

fn base(seed: u64) -> Vec<Image> {
    let setup = Setup {
        durability: Durability::Sync,
        checkpoint_bytes: [1, 4 << 10, 1 << 20][usize::try_from(seed % 3).unwrap_or(0)],
        read_mode: ReadMode::Map,
    };
    let history = History::of(seed, setup, writes(seed, OPS)).expect("a history without a fault");
    let path = std::path::Path::new(STORE);
    let left = history.disk.bytes(path).expect("it has been made");
    let store = setup.open(&history.disk).expect("nothing is damaged");
    store.close().expect("nothing fails");
    let closed = history.disk.bytes(path).expect("it has been made");
    [left, closed].into_iter().filter_map(Image::new).collect()
}

/// Changes a store as the bytes say, and opens what that gives in all ways.
///
/// # Errors
///
/// What a store that opened does that no store may do, and that one way to open it shows something else than
/// another.
pub fn open(data: &[u8]) -> Result<(), String> {
    let StoreBytes { bytes, trusted } = changed(&mut Input(data));
    dumped(&bytes)?;
    opened(&bytes, trusted)
}

/// A store, changed as the bytes say.
pub(super) fn changed(input: &mut Input<'_>) -> StoreBytes {
    let number = usize::from(input.byte()) % bases().len();
    let mut image = bases()[number].clone();
    let (bytes, trusted) = change(&mut image, input);
    StoreBytes { bytes, trusted }
}

/// The changed bytes, and whether the superblocks still say where the log goes on: it is written there, and
/// what a crafted head points at is lost.
fn change(image: &mut Image, input: &mut Input<'_>) -> (Vec<u8>, bool) {
    let mut trusted = true;
    let mut raw = Vec::new();
    let mut len = image.bytes.len();
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        let (place, which, within) = (input.byte() % 8, input.short(), input.short());
        let frame = image.frames.get(which % image.frames.len().max(1)).copied();
        match (place, frame) {
            // The same in every slot: else an older one would be adopted.
            (0, _) => {
                trusted = false;
                let (how, value) = (input.byte(), input.short());
                for slot in SLOTS {
                    write(&mut image.bytes, slot + 16 + within % 768, how, value);
                }
            }
            (1, Some(spot)) => {
                write(
                    &mut image.bytes,
                    spot.position + 16 + within % 48,
                    input.byte(),
                    input.short(),
                );
            }
            (2, Some(spot)) => {
                let at = spot.position + 64 + within % spot.body_len.max(1);
                write(&mut image.bytes, at, input.byte(), input.short());
            }
            (3, Some(spot)) => {
                let at = spot.position + 64 + within % spot.body_len.clamp(1, 64);
                write(&mut image.bytes, at, input.byte(), input.short());
            }
            (4, _) => {
                let segment = image.segments.get(which % image.segments.len().max(1));
                let at = segment.map_or(0, |segment| segment + 8 + within % 56);
                write(&mut image.bytes, at, input.byte(), input.short());
            }
            // Behind the repair: what a disk does, and not who writes a file on purpose.
            (5, _) => raw.push((which << 8 ^ within, input.byte(), input.short())),
            (6, _) => len = (which << 4).min(image.bytes.len()),
            _ => {
                // One frame's bytes in another's place.
                let other = image
                    .frames
                    .get(within % image.frames.len().max(1))
                    .copied();
                if let (Some(from), Some(to)) = (frame, other) {
                    let len = from.body_len.min(to.body_len) + 64;
                    let bytes = image.bytes.get(from.position..from.position + len);
                    let bytes = bytes.map(<[u8]>::to_vec).unwrap_or_default();
                    if let Some(place) = image.bytes.get_mut(to.position..to.position + bytes.len())
                    {
                        place.copy_from_slice(&bytes);
                    }
                }
            }
        }
    }
    image.seal();
    let mut bytes = image.bytes.clone();
    for (at, how, value) in raw {
        let at = at % bytes.len().max(1);
        write(&mut bytes, at, how, value);
    }
    bytes.truncate(len);
    (bytes, trusted)
}

/// Writes a number of one to eight bytes: one of the ends of its type, one beside what is there, or any.
pub(super) fn write(bytes: &mut [u8], at: usize, how: u8, value: usize) {
    let width = [1, 2, 4, 8][usize::from(how) % 4];
    let Some(field) = bytes.get_mut(at..(at + width).min(at.max(bytes.len()))) else {
        return;
    };
    let mut old = [0; 8];
    old[..field.len()].copy_from_slice(field);
    let old = u64::from_le_bytes(old);
    let value = value as u64;
    let new = match how / 4 % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => i64::MAX as u64,
        3 => old.wrapping_add(1),
        4 => old.wrapping_sub(1),
        5 => old ^ 1 << (value % 64),
        6 => old.wrapping_add(value * 8),
        _ => value,
    };
    let len = field.len();
    field.copy_from_slice(&new.to_le_bytes()[..len]);
}

fn dumped(bytes: &[u8]) -> Result<(), String> {
    let told = revtree_dump::dump(&bytes, &revtree_dump::Options::default(), &mut |item| {
        // Printing is what may panic.
        let _ = (item.to_string(), item.to_json());
        Ok(())
    });
    told.map(|_| ())
        .map_err(|error| format!("the dump says {error}"))
}

/// What a store shows to who asks for everything; an error by its kind, where it has one.
#[derive(PartialEq, Eq, Debug)]
struct Shown {
    rev: Revision,
    /// What it knows not to be durable, or not to be whole, is not shown.
    dropped: u64,
    /// If all of it can be read: what is read of a damaged record depends on the way.
    state: Option<State>,
    hash: Result<u32, String>,
    by_rev: Result<u32, String>,
    clean: Result<bool, String>,
}

impl Shown {
    fn of(store: &mut Store) -> Shown {
        let state = state_of(store).ok();
        let (hash, by_rev) = (store.db().hash(&[]), store.db().hash_by_rev(0));
        let report = store.db().check();
        let _ = store.db().stats();
        for event in state.iter().flat_map(|state| &state.events) {
            let _ = store.db().read().and_then(|view| {
                let events = view.history(&event.kv.key)?;
                events.for_each(drop);
                Ok(())
            });
        }
        Shown {
            rev: store.db().rev(),
            dropped: store.db().recovery().bytes_dropped,
            state,
            hash: hash.map(|hash| hash.hash).map_err(|error| kind(&error)),
            by_rev: by_rev.map(|hash| hash.hash).map_err(|error| kind(&error)),
            clean: report
                .map(|report| report.is_clean())
                .map_err(|error| kind(&error)),
        }
    }
}

/// Says the first thing in which two differ.
fn same(one: &Result<Shown, Error>, other: &Result<Shown, Error>) -> Result<(), String> {
    fn unless<T: PartialEq + Debug>(one: &T, other: &T) -> Result<(), String> {
        if one == other {
            Ok(())
        } else {
            Err(format!("wrong: {one:?} and {other:?}"))
        }
    }
    match (one, other) {
        (Ok(one), Ok(other)) => {
            unless(&one.rev, &other.rev)?;
            unless(&one.clean, &other.clean)?;
            unless(&one.by_rev, &other.by_rev)?;
            unless(&one.hash, &other.hash)?;
            unless(&one.state, &other.state)
        }
        (Err(one), Err(other)) => unless(&kind(one), &kind(other)),
        (Ok(shown), Err(error)) | (Err(error), Ok(shown)) => Err(format!(
            "wrong: {error:?}, and it opens with {:?} damage",
            shown.clean
        )),
    }
}

/// The name of an error's variant.
fn kind(error: &Error) -> String {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

fn setup(read_mode: ReadMode) -> Setup {
    Setup {
        durability: Durability::Sync,
        checkpoint_bytes: 4 << 10,
        read_mode,
    }
}

/// Opens for reading and for writing, by map and by reads, and compares: errors of the same kind, or the same
/// store.
fn opened(bytes: &[u8], trusted: bool) -> Result<(), String> {
    let disk = || {
        let disk = SimDisk::new(SimOptions::default());
        disk.put_bytes(Path::new(STORE), bytes);
        disk
    };
    let mut shown = Vec::new();
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let reader = bounded(bytes.len(), || read(&disk(), read_mode, bytes.len()))?;
        let writer = bounded(bytes.len(), || written(&disk(), read_mode, trusted))?;
        shown.push((reader, writer));
    }
    let [(reader, writer), (other_reader, other_writer)] = &shown[..] else {
        return Err("two ways to read".to_owned());
    };
    same(reader, other_reader)
        .map_err(|error| format!("read-only, by map and by reads: {error}"))?;
    same(writer, other_writer).map_err(|error| format!("by map and by reads: {error}"))?;
    match (reader, writer) {
        // It makes durable what a reader does not know to be.
        (Ok(reader), Ok(writer)) if reader.dropped > 0 && reader.rev <= writer.rev => Ok(()),
        // It writes again what no sync covers, and sees what is damaged in it.
        (Ok(reader), Err(_)) if reader.dropped > 0 || reader.clean != Ok(true) => Ok(()),
        // It needs to know where to write, of which a reader sees nothing.
        (Ok(_), Err(Error::Corrupt { what, .. }))
            if what.contains("segment") || what.contains("log head") =>
        {
            Ok(())
        }
        // Its counters may be at their end, and a segment of the table beyond what it reserves.
        (_, Err(Error::LimitReached { .. } | Error::OutOfMemory { .. })) => Ok(()),
        // It also writes a bad slot again, before the check sees it.
        (Ok(reader), Ok(writer)) if reader.clean == Ok(false) && writer.clean == Ok(true) => {
            if (reader.rev, &reader.state) == (writer.rev, &writer.state) {
                Ok(())
            } else {
                Err(format!("wrong: {:?} and {:?}", reader.state, writer.state))
            }
        }
        _ => same(reader, writer),
    }
    .map_err(|error| format!("read-only and not: {error}"))
}

/// Opens for reading: no byte is written, and not much more is read than is there.
fn read(
    disk: &SimDisk,
    read_mode: ReadMode,
    file_bytes: usize,
) -> Result<Result<Shown, Error>, String> {
    let opened = setup(read_mode).open_read_only(disk, Path::new(STORE));
    let (calls, bytes) = (disk.count(Call::ReadAt), disk.bytes_read());
    let most = OPEN_READS_MAX * file_bytes as u64 + (1 << 20);
    if bytes > most || calls > most / 64 {
        return Err(format!(
            "wrong: an open reads {bytes} bytes of {file_bytes}, in {calls} calls"
        ));
    }
    let shown = match opened {
        Ok(mut store) => {
            let before = disk.bytes_read();
            let _ = store.db().check();
            let bytes = disk.bytes_read() - before;
            if bytes > CHECK_READS_MAX * file_bytes as u64 + (1 << 20) {
                return Err(format!(
                    "wrong: a check reads {bytes} bytes of {file_bytes}"
                ));
            }
            let shown = Shown::of(&mut store);
            let _ = store.close();
            Ok(shown)
        }
        Err(error) => {
            typed(&error)?;
            Err(error)
        }
    };
    Ok(shown)
}

/// Opens for writing, and writes.
fn written(
    disk: &SimDisk,
    read_mode: ReadMode,
    trusted: bool,
) -> Result<Result<Shown, Error>, String> {
    let setup = setup(read_mode);
    let mut store = match setup.open(disk) {
        Ok(store) => store,
        Err(error) => {
            typed(&error)?;
            return Ok(Err(error));
        }
    };
    let shown = Shown::of(&mut store);
    let clean = trusted && shown.clean == Ok(true);
    let (key, value) = (Bytes::from_static(b"after"), Bytes::from_static(b"harm"));
    let put = store.put(&key, &value);
    let after = state_of(&mut store);
    if put.is_err() {
        end_process(store, disk);
        return Ok(Ok(shown));
    }
    if store.close().is_err() {
        return Ok(Ok(shown));
    }
    let mut store = match setup.open(disk) {
        Ok(store) => store,
        Err(error) if clean => return Err(format!("it was clean and closed, and now: {error}")),
        Err(error) => {
            typed(&error)?;
            return Ok(Ok(shown));
        }
    };
    let again = state_of(&mut store);
    if clean && after.is_ok() && again != after {
        return Err(format!(
            "another state after a close: {again:?}, it was {after:?}"
        ));
    }
    end_process(store, disk);
    Ok(Ok(shown))
}

/// Errors that say something of the file.
pub(super) fn typed(error: &Error) -> Result<(), String> {
    match error {
        Error::Corrupt { .. }
        | Error::NotAStore { .. }
        | Error::FormatTooNew { .. }
        | Error::LimitReached { .. }
        | Error::OutOfMemory { .. }
        | Error::StoreFull { .. } => Ok(()),
        other => Err(format!("open says {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::bases;

    /// Sealing what has not been changed changes nothing, and it opens: places and repairs are right.
    #[test]
    fn an_unchanged_store_is_sealed_as_it_was() {
        for base in bases() {
            assert!(!base.frames.is_empty());
            let mut sealed = base.clone();
            sealed.seal();
            for spot in &base.frames {
                let range = spot.position..spot.position + 64 + spot.body_len;
                assert!(sealed.bytes[range.clone()] == base.bytes[range], "{spot:?}");
            }
            crate::fuzz::memory::alone(|| super::opened(&sealed.bytes, true)).unwrap();
        }
    }

    /// What campaigns have found, by seed.
    ///
    /// 195: the superblock named a log head behind the end of its segment in the table, and the open failed with an
    /// error of the system. 895: a branch page led back to a leaf that had been given, and a walk over changes went
    /// on for ever, with memory for all it found. 13816: an entry of a page named a leaf by a revision that its
    /// first record has not; the check saw nothing, and the page that the next checkpoint made of it was refused.
    #[test]
    fn findings_stay_mended() {
        for seed in [195, 895, 13_816] {
            crate::fuzz::fuzz(seed).unwrap();
        }
    }

    #[test]
    fn no_bytes_change_nothing() {
        crate::fuzz::feed("open", &[]).unwrap();
    }
}
