//! Magic numbers and checksums put right by what a parser says it expected.
//!
//! No rule of a checksum is repeated here: the parser itself names the number that it wants, so this works for
//! whatever is covered. What stands behind the checksums is then parsed as if a writer had written it.

use revtree_format::FormatError;

/// Where a field lies that only seals, and how many bytes it has.
fn field(what: &str) -> Option<(usize, usize)> {
    Some(match what {
        "superblock magic" => (0, 8),
        "superblock CRC-32" => (8, 4),
        "superblock CRC-32C" => (12, 4),
        "segment magic" | "frame magic" | "record head CRC" => (0, 4),
        "segment header CRC" | "frame header CRC" | "record value CRC" => (4, 4),
        "frame body CRC" => (8, 4),
        _ => return None,
    })
}

/// Repairs the structure that begins these bytes until the parser wants nothing but what they say; gives its
/// last word.
///
/// # Errors
///
/// What the parser says of more than magic numbers and checksums.
pub fn repaired<T>(
    bytes: &mut [u8],
    parse: impl Fn(&[u8]) -> Result<T, FormatError>,
) -> Result<T, FormatError> {
    // A structure has a magic number and two checksums at most.
    for _ in 0..3 {
        let error = match parse(bytes) {
            Err(error) => error,
            parsed => return parsed,
        };
        let Some((at, width)) = field(error.what) else {
            return Err(error);
        };
        let Some(place) = bytes.get_mut(at..at + width) else {
            return Err(error);
        };
        place.copy_from_slice(&error.expected.to_le_bytes()[..width]);
    }
    parse(bytes)
}

#[cfg(test)]
mod tests {
    use revtree_format::{SUPERBLOCK_BYTES, SegmentHeader, Superblock};

    use super::repaired;

    /// What is refused behind a repair is refused for what it says, not for a checksum.
    #[test]
    fn zeros_are_refused_for_what_they_say() {
        let mut zeros = [0; SUPERBLOCK_BYTES];
        let error = repaired(&mut zeros, |raw| Superblock::parse(raw, 0)).unwrap_err();
        assert_eq!(error.what, "superblock segment size");
        let mut zeros = [0; 64];
        let parse = |raw: &[u8]| SegmentHeader::parse(raw, &[7; 16], 0);
        let error = repaired(&mut zeros, parse).unwrap_err();
        assert_eq!(error.what, "segment kind");
    }
}
