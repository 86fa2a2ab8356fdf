//! Every parser of the format crate on bytes as they are; what it accepts is written again as it was, where
//! SPEC.md has one way to write it.

use revtree_format::etcd::{KeyValue, Lease, RevisionKey};
use revtree_format::{
    BranchPage, Controls, Directory, FRAME_HEADER_BYTES, FrameHeader, IndexLeaf, Place, Position,
    SUPERBLOCK_BYTES, SegmentHeader, StoreSeed, Superblock, check_segments, check_value,
    head_and_key_len, parse_record, parse_segments,
};

/// Parses the bytes as everything.
///
/// # Errors
///
/// When what was parsed is written in another way.
pub fn decode(data: &[u8]) -> Result<(), String> {
    let at = Position(1 << 20);
    let same = |what: &str, written: &[u8]| {
        if data.starts_with(written) {
            Ok(())
        } else {
            Err(format!("{what} is written as {written:?}"))
        }
    };
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
    }
    let _ = head_and_key_len(data, at);
    let store_id = [7; 16];
    let place = Place {
        seed: StoreSeed::new(&store_id),
        segment_use: 1 << 32,
        position: at,
    };
    if let Ok((head, _)) = parse_record(data, place) {
        let value = data.get(head.value_at()..head.value_at() + head.value_len as usize);
        let _ = value.map(|value| check_value(&head, value, at));
    }
    if let Ok((header, _)) = FrameHeader::parse(data, place) {
        let _ = header.check_body(data.get(FRAME_HEADER_BYTES..).unwrap_or_default(), at);
        same("a frame's header", &header.encode(place).0)?;
    }
    if let Ok(header) = SegmentHeader::parse(data, &store_id, at.0) {
        same("a segment's header", &header.encode(&store_id))?;
    }
    let slot = data.get(..SUPERBLOCK_BYTES).unwrap_or(data);
    if let Ok(superblock) = Superblock::parse(slot, 0) {
        same("a superblock", &superblock.encode()[..])?;
    }
    let _ = RevisionKey::parse(data);
    if let Ok(record) = KeyValue::decode(data) {
        // Unknown fields are left out, so it may be shorter; what is written is read as the same.
        let written = record.to_vec();
        if KeyValue::decode(&written).as_ref() != Ok(&record) {
            return Err(format!("{record:?} is written as {written:?}"));
        }
    }
    let _ = Lease::decode(data);
    Ok(())
}
