//! Keys cut into a shared prefix and eight bytes: what leaves and separators compare by.

/// Length of the longest common prefix.
pub(super) fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first eight bytes as a number that compares like them, with zeros behind the end. Keys
/// that end within them can be equal here and yet differ: `"ab"` and `"ab\0"`.
pub(super) fn chunk(rest: &[u8]) -> u64 {
    match rest.first_chunk::<CHUNK_BYTES>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; CHUNK_BYTES];
            bytes[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(bytes)
        }
    }
}

/// The chunk of a key with `front` before the bytes that `chunk` was cut from.
pub(super) fn chunk_behind(front: &[u8], chunk: u64) -> u64 {
    if front.len() >= CHUNK_BYTES {
        return self::chunk(front);
    }
    self::chunk(front) | chunk >> (8 * front.len())
}

/// How many leading bytes of two chunks agree.
pub(super) fn chunk_shared(a: u64, b: u64) -> usize {
    ((a ^ b).leading_zeros() / 8) as usize
}

/// Bytes of a key that an entry keeps.
pub(super) const CHUNK_BYTES: usize = 8;
