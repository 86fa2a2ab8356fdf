//! What is in a file: named buckets of pairs, and the changes that etcd's tools make to them.

use std::collections::BTreeMap;

use crate::history::{main_of, revision_key};

/// The pairs of a bucket.
pub type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Named buckets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    buckets: BTreeMap<Vec<u8>, Pairs>,
}

/// The buckets that etcd 3.5 creates.
const ETCD_BUCKETS: [&str; 10] = [
    "alarm",
    "auth",
    "authRoles",
    "authUsers",
    "cluster",
    "key",
    "lease",
    "members",
    "members_removed",
    "meta",
];

impl Contents {
    /// No buckets.
    #[must_use]
    pub fn new() -> Contents {
        Contents::default()
    }

    /// The buckets of an etcd 3.5 with one member, which applied 17 log entries in term 2.
    #[must_use]
    pub fn etcd() -> Contents {
        let mut contents = Contents::new();
        for name in ETCD_BUCKETS {
            contents.create(name);
        }
        contents.put("auth", b"authEnabled", &[0]);
        contents.put("auth", b"authRevision", &1u64.to_be_bytes());
        contents.put("cluster", b"clusterVersion", b"3.5.0");
        contents.put(
            "members",
            b"8e9e05c52164694d",
            br#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#,
        );
        contents.put(
            "meta",
            b"confState",
            br#"{"voters":[10276657743932975437]}"#,
        );
        contents.put("meta", b"consistent_index", &17u64.to_be_bytes());
        contents.put("meta", b"term", &2u64.to_be_bytes());
        contents
    }

    /// Creates a bucket, empty if it is new.
    pub fn create(&mut self, bucket: &str) {
        self.buckets.entry(bucket.into()).or_default();
    }

    /// Puts a pair into a bucket, which is created if it is new.
    pub fn put(&mut self, bucket: &str, key: &[u8], value: &[u8]) {
        self.buckets
            .entry(bucket.into())
            .or_default()
            .insert(key.to_vec(), value.to_vec());
    }

    /// The buckets by name.
    pub fn buckets(&self) -> impl Iterator<Item = (&[u8], &Pairs)> {
        self.buckets
            .iter()
            .map(|(name, pairs)| (name.as_slice(), pairs))
    }

    /// The pairs of a bucket; none if there is no such bucket.
    pub fn pairs(&self, bucket: &str) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.buckets
            .get(bucket.as_bytes())
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// What `snapshot restore --bump-revision --mark-compacted` adds: a record without a value
    /// `by` revisions above the last one, and a compaction at it that is yet to be done.
    ///
    /// Returns the new revision.
    pub fn bump_revision(&mut self, by: u64) -> u64 {
        let latest = self.pairs("key").last().map_or(1, |(key, _)| main_of(key));
        let bumped = latest + by;
        self.put("key", &revision_key(bumped, 0, false), b"");
        self.schedule_compaction(bumped);
        bumped
    }

    /// A compaction at `revision` that was accepted and is not finished: the records below it are
    /// still there.
    pub fn schedule_compaction(&mut self, revision: u64) {
        self.put(
            "meta",
            b"scheduledCompactRev",
            &revision_key(revision, 0, false),
        );
    }

    /// A compaction at `revision` that is finished.
    pub fn finish_compaction(&mut self, revision: u64) {
        self.schedule_compaction(revision);
        self.put(
            "meta",
            b"finishedCompactRev",
            &revision_key(revision, 0, false),
        );
    }
}
