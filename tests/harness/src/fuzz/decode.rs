//! Every parser of the format crate, on bytes as they are and on a structure of a store that was changed, with
//! its checksum repaired first; what is accepted is written again as it was, where SPEC.md has one way to write
//! it.

use revtree_format::etcd::{KeyValue, Lease, Meta, RevisionKey};
use revtree_format::{
    BranchPage, Controls, Directory, FRAME_HEADER_BYTES, FrameHeader, FrameKind, IndexLeaf, Place,
    Position, SEGMENT_HEADER_BYTES, SUPERBLOCK_BYTES, SegmentHeader, StoreSeed, Superblock,
    check_segments, check_value, head_and_key_len, parse_record, parse_segments,
};

use super::Input;
use super::image::SLOTS;
use super::open::{bases, write};
use super::repair::repaired;

/// The most changes of one structure.
const CHANGES_MAX: usize = 8;

/// Parses the bytes as everything, and once more as changes to a structure of a store.
///
/// # Errors
///
/// When what was parsed is written in another way.
pub fn decode(data: &[u8]) -> Result<(), String> {
    let alone_id = [7; 16];
    let alone = Place {
        seed: StoreSeed::new(&alone_id),
        segment_use: 1 << 32,
        position: Position(1 << 20),
    };
    parsed(data, &alone_id, alone)?;
    etcd(data)?;
    let mut input = Input(data);
    let image = &bases()[usize::from(input.byte()) % bases().len()];
    let (which, part) = (input.short(), input.byte());
    let frame = image.frames.get(which % image.frames.len().max(1));
    let (at, len, segment_use) = match (part % 6, frame) {
        (0, _) | (_, None) => (SLOTS[which % SLOTS.len()], SUPERBLOCK_BYTES, 0),
        (1, _) => {
            let segment = image.segments[which % image.segments.len()];
            (segment, SEGMENT_HEADER_BYTES, 0)
        }
        (2, Some(spot)) => (
            spot.position,
            FRAME_HEADER_BYTES + spot.body_len,
            spot.segment_use,
        ),
        // Behind the records: control items.
        (3, Some(spot)) if matches!(spot.kind, FrameKind::Records | FrameKind::Run) => {
            let at = spot.position + FRAME_HEADER_BYTES + spot.records_len;
            (at, spot.body_len - spot.records_len, spot.segment_use)
        }
        (_, Some(spot)) => (
            spot.position + FRAME_HEADER_BYTES,
            spot.body_len,
            spot.segment_use,
        ),
    };
    let mut piece = image.bytes.get(at..at + len).unwrap_or_default().to_vec();
    let mut changes = 0;
    while !input.is_empty() && changes < CHANGES_MAX {
        // Mostly near the front, where the fields are.
        let place = input.short();
        let span = if place % 4 == 0 { len } else { len.min(128) };
        let at = place / 4 % span.max(1);
        write(&mut piece, at, input.byte(), input.short());
        changes += 1;
    }
    let place = Place {
        seed: StoreSeed::new(&image.store_id),
        segment_use,
        position: Position(at as u64),
    };
    parsed(&piece, &image.store_id, place)
}

/// As every structure of a store, each in its place.
fn parsed(data: &[u8], store_id: &[u8; 16], place: Place) -> Result<(), String> {
    let at = place.position;
    let starts = |what: &str, data: &[u8], written: &[u8]| {
        if data.starts_with(written) {
            Ok(())
        } else {
            Err(format!("wrong: {what} is written as {written:?}"))
        }
    };
    let same = |what: &str, written: &[u8]| starts(what, data, written);
    if let Ok(page) = BranchPage::parse(data, at) {
        same("a branch page", &page.encode())?;
    }
    if let Ok(directory) = Directory::parse(data, at) {
        same("a directory", &directory.encode())?;
    }
    if let Ok(entries) = parse_segments(data, at) {
        let _ = check_segments(&entries, at);
        same(
            "a segment table",
            &revtree_format::encode_segments(&entries),
        )?;
    }
    if let Ok(leaves) = IndexLeaf::parse_chunk(data, at) {
        let mut written = Vec::new();
        leaves.iter().for_each(|leaf| leaf.encode(&mut written));
        same("leaves of an index run", &written)?;
    }
    for item in Controls::new(data, at.0) {
        let Ok(item) = item else {
            break;
        };
        let mut written = Vec::new();
        item.encode(&mut written);
        let mut again = Controls::new(&written, at.0);
        if again.next() != Some(Ok(item)) || again.next().is_some() {
            return Err(format!("wrong: {item:?} is written as {written:?}"));
        }
    }
    records(data, place);

    let mut sealed = data.to_vec();
    if repaired(&mut sealed, |raw| FrameHeader::parse(raw, place)).is_ok() {
        // Of a body that is cut off, what is there.
        let _ = repaired(&mut sealed, |raw| {
            let (header, _) = FrameHeader::parse(raw, place)?;
            let body = raw.get(FRAME_HEADER_BYTES..).unwrap_or_default();
            header.check_body(&body[..body.len().min(header.body_len as usize)], at)
        });
        let header = repaired(&mut sealed, |raw| FrameHeader::parse(raw, place));
        let (header, _) = header.map_err(|error| format!("wrong: {error}"))?;
        let (header, _) = header.encode(place);
        starts("a frame's header", &sealed, &header)?;
    }
    let mut sealed = data.to_vec();
    let segment = |raw: &[u8]| SegmentHeader::parse(raw, store_id, at.0);
    if let Ok(header) = repaired(&mut sealed, segment) {
        let written = header.encode(store_id);
        starts("a segment's header", &sealed, &written)?;
    }
    let mut sealed = data.to_vec();
    sealed.resize(data.len().min(SUPERBLOCK_BYTES), 0);
    if let Ok(superblock) = repaired(&mut sealed, |raw| Superblock::parse(raw, at.0)) {
        // Flags that may be unknown are not kept: it is the same superblock, not the same bytes.
        let again = Superblock::parse(&superblock.encode()[..], at.0);
        if again.as_ref() != Ok(&superblock) {
            return Err(format!("wrong: {superblock:?} is read again as {again:?}"));
        }
    }
    Ok(())
}

/// As records, one behind the other.
fn records(data: &[u8], mut place: Place) {
    let mut rest = data.to_vec();
    while !rest.is_empty() {
        let at = place.position;
        let _ = head_and_key_len(&rest, at);
        let Ok((head, _)) = repaired(&mut rest, |raw| {
            parse_record(raw, place).map(|(head, key)| (head, key.len()))
        }) else {
            return;
        };
        if let Some(value) = rest.get(head.value_at()..head.value_at() + head.value_len as usize) {
            let _ = check_value(&head, value, at);
        }
        let len = head.record_len();
        place = place.at(at.plus(len as u64));
        rest.drain(..len.min(rest.len()));
    }
}

/// As what etcd writes.
fn etcd(data: &[u8]) -> Result<(), String> {
    let _ = RevisionKey::parse(data);
    if let Ok(record) = KeyValue::decode(data) {
        // Unknown fields are left out, so it may be shorter; what is written is read as the same.
        let written = record.to_vec();
        if KeyValue::decode(&written).as_ref() != Ok(&record) {
            return Err(format!("wrong: {record:?} is written as {written:?}"));
        }
    }
    let _ = Lease::decode(data);
    let mut meta = data.to_vec();
    super::import::seal_meta(&mut meta, 0);
    let _ = Meta::parse(&meta, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use revtree_format::{FormatError, FrameHeader, Place, Position, StoreSeed};

    use super::super::repair::repaired;
    use super::{bases, decode};

    /// An unchanged structure is parsed for what it is: its place and its store are right.
    #[test]
    fn an_unchanged_structure_needs_no_repair() {
        for image in bases() {
            for spot in &image.frames {
                let place = Place {
                    seed: StoreSeed::new(&image.store_id),
                    segment_use: spot.segment_use,
                    position: Position(spot.position as u64),
                };
                let mut header = image.bytes[spot.position..spot.position + 64].to_vec();
                let parse = |raw: &[u8]| -> Result<_, FormatError> {
                    FrameHeader::parse(raw, place).map(|(header, _)| header.kind)
                };
                assert_eq!(repaired(&mut header, parse), Ok(spot.kind));
                assert_eq!(header, image.bytes[spot.position..spot.position + 64]);
            }
        }
    }

    #[test]
    fn every_structure_unchanged() {
        for base in 0..=255 {
            for which in 0..=255 {
                for part in 0..6 {
                    decode(&[base, 0, which, part]).unwrap();
                }
            }
            if usize::from(base) > bases().len() {
                break;
            }
        }
    }
}
