//! What the tests share: a walk over everything, pages that count, and seeded numbers.

use std::cell::Cell;

use revtree_format::etcd::{Bbolt, EtcdError, Pages, SnapshotLayout};

/// The name of a bucket with its pairs.
pub(crate) type Walked = Vec<(Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>)>;

/// All buckets with all pairs.
pub(crate) fn walk<P: Pages>(pages: P) -> Result<Walked, P::Error> {
    let database = Bbolt::open(pages)?;
    let mut walked = Vec::new();
    for bucket in database.buckets()? {
        let mut pairs = Vec::new();
        let mut cursor = database.cursor(&bucket);
        while let Some(pair) = cursor.next()? {
            pairs.push((pair.key.to_vec(), pair.value.to_vec()));
        }
        assert!(cursor.next()?.is_none(), "the end is the end");
        walked.push((bucket.name().to_vec(), pairs));
    }
    Ok(walked)
}

/// The pairs of one bucket; none if it is not there.
pub(crate) fn pairs_of(walked: &Walked, name: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    walked
        .iter()
        .find(|bucket| bucket.0 == name)
        .map(|bucket| bucket.1.clone())
        .unwrap_or_default()
}

/// A snapshot file without its hash.
pub(crate) fn database_of(file: &[u8]) -> &[u8] {
    let layout = SnapshotLayout::of(file.len() as u64).expect("a snapshot");
    &file[..usize::try_from(layout.database_bytes).expect("fits, as the file does")]
}

/// Pages as a reader of a file would give them, owned, which counts what it was asked for.
pub(crate) struct Counted<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) asked: &'a Cell<u64>,
}

impl Pages for Counted<'_> {
    type Bytes = Vec<u8>;
    type Error = EtcdError;

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, EtcdError> {
        self.asked.set(self.asked.get() + len as u64);
        assert!(
            offset + len as u64 <= self.size(),
            "asked for {len} bytes at {offset}"
        );
        self.bytes.read(offset, len).map(<[u8]>::to_vec)
    }
}

/// Numbers from a seed (xorshift).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}
