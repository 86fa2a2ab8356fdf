//! CRC-32 run backwards, to the state that it began with.
//!
//! A header checksum (B-10, B-20) begins with the store id; all that the rest of
//! it sees of the id are 32 bits of state. So one whole header gives that state back when every
//! superblock is lost, and an id made to reach the same state passes for the lost one in every checksum.
//!
//! Nothing here knows what the bytes mean.

const POLYNOMIAL: u32 = 0xEDB8_8320;

/// The state before `bytes`, of a checksum that ended as `crc` behind them.
pub(crate) fn state_before(crc: u32, bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(!crc, |state, byte| back(state) ^ u32::from(*byte))
}

/// An id whose checksum has this state behind it.
pub(crate) fn id_with_state(state: u32) -> [u8; 16] {
    let mut id = [0; 16];
    let zeros = !crc32_of(&id[..12]);
    // Four bytes are exclusively ored into the state before it moves on by four.
    let wanted = (0..4).fold(state, |state, _| back(state));
    id[12..].copy_from_slice(&(zeros ^ wanted).to_le_bytes());
    id
}

/// The state before a byte of zero.
fn back(state: u32) -> u32 {
    (0..8).fold(state, |state, _| {
        if state >> 31 == 1 {
            (state ^ POLYNOMIAL) << 1 | 1
        } else {
            state << 1
        }
    })
}

fn crc32_of(bytes: &[u8]) -> u32 {
    let state = bytes.iter().fold(u32::MAX, |state, byte| {
        (0..8).fold(state ^ u32::from(*byte), |state, _| {
            let low = state & 1;
            (state >> 1) ^ (POLYNOMIAL * low)
        })
    });
    !state
}

#[cfg(test)]
mod tests {
    use super::{crc32_of, id_with_state, state_before};

    /// Goal: the id that is made passes for any lost one.
    #[test]
    fn a_state_is_found_and_reached_again() {
        for n in 0..=255_u8 {
            let mut id = [0; 16];
            let mut byte = n;
            for place in &mut id {
                byte = byte.wrapping_mul(31).wrapping_add(7);
                *place = byte;
            }
            let rest = [n, 1, 2, 3, n ^ 0x55];
            let crc = crc32_of(&[&id[..], &rest].concat());
            let state = state_before(crc, &rest);
            assert_eq!(state, !crc32_of(&id));
            let other = id_with_state(state);
            assert_eq!(crc32_of(&[&other[..], &rest].concat()), crc);
        }
    }
}
