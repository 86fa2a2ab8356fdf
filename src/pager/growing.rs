//! A list that grows at its end while others read it: chunks that never move, each twice the last.
//!
//! # Thread safety
//! Any thread may read or make an element; a chunk is made once (`OnceLock`), and elements synchronise
//! themselves, so `T` is made of atomics.

use std::sync::OnceLock;

/// Elements in the first chunk; fewer under loom, which tracks each.
const FIRST_CHUNK: usize = if cfg!(any(loom, shuttle)) { 2 } else { 256 };
/// 256 × (2^24 − 1) elements are more than any list here can have.
const CHUNKS: usize = 24;

/// A growing list of `T`.
#[derive(Debug)]
pub(crate) struct Growing<T> {
    chunks: [OnceLock<Box<[T]>>; CHUNKS],
}

impl<T: Default> Growing<T> {
    pub(crate) const fn new() -> Growing<T> {
        Growing {
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }

    /// Element `n`, if its chunk has been made.
    pub(crate) fn get(&self, n: usize) -> Option<&T> {
        let (chunk, at) = place(n);
        self.chunks.get(chunk)?.get()?.get(at)
    }

    /// Element `n`; its chunk is made when it is missing.
    ///
    /// # Panics
    /// Beyond the last chunk.
    pub(crate) fn make(&self, n: usize) -> &T {
        let (chunk, at) = place(n);
        let make = || (0..FIRST_CHUNK << chunk).map(|_| T::default()).collect();
        &self.chunks[chunk].get_or_init(make)[at]
    }
}

/// Chunk and place in it of element `n`.
fn place(n: usize) -> (usize, usize) {
    let chunk = (n / FIRST_CHUNK + 1).ilog2() as usize;
    (chunk, n - FIRST_CHUNK * ((1 << chunk) - 1))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Growing;

    #[test]
    fn elements_keep_their_places_while_the_list_grows() {
        let list = Growing::<AtomicU64>::new();
        assert!(list.get(0).is_none());
        for n in 0..5000 {
            list.make(n).store(n as u64 + 1, Ordering::Relaxed);
        }
        for n in 0..5000 {
            assert_eq!(
                list.get(n).map(|e| e.load(Ordering::Relaxed)),
                Some(n as u64 + 1)
            );
        }
        assert!(list.get(1 << 40).is_none());
    }
}
