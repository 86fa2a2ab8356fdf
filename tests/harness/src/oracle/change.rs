//! One change of one key, and which changes of a key a compaction keeps.

use bytes::Bytes;
use revtree_format::{ChangeId, LeaseId, Revision};

use crate::answer::{Event, EventKind, Kv, Prev};

/// A change of a key. A key's changes form its generations: runs of puts with one create revision,
/// each ended by a tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its revision and place.
    pub id: ChangeId,
    /// What was put; `None` is a tombstone.
    pub put: Option<Put>,
}

/// What a put wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// The value.
    pub value: Bytes,
    /// The revision of the first put of the generation.
    pub create: Revision,
    /// Puts in the generation up to here.
    pub version: u64,
    /// The lease given to it.
    pub lease: LeaseId,
}

impl Change {
    /// The record as a reader sees it; `None` for a tombstone.
    #[must_use]
    pub fn live(&self, key: &Bytes) -> Option<Kv> {
        let put = self.put.as_ref()?;
        Some(Kv {
            key: key.clone(),
            value: put.value.clone(),
            create: put.create,
            modified: self.id.main,
            version: put.version,
            lease: put.lease,
        })
    }

    /// The event of this change; a delete carries key and mod revision only.
    #[must_use]
    pub fn event(&self, key: &Bytes, prev: Prev) -> Event {
        let deleted = || Kv {
            key: key.clone(),
            value: Bytes::new(),
            create: Revision::new(0),
            modified: self.id.main,
            version: 0,
            lease: LeaseId::NONE,
        };
        let kind = if self.put.is_some() {
            EventKind::Put
        } else {
            EventKind::Delete
        };
        Event {
            id: self.id,
            kind,
            kv: self.live(key).unwrap_or_else(deleted),
            prev,
        }
    }

    /// Whether it is the put that began its generation's revision: its event has no prev.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.put
            .as_ref()
            .is_some_and(|put| put.create == self.id.main)
    }
}

/// The rule of a compaction: from all changes of a key, in order, those that stay.
pub type Survival = fn(&[Change], Revision) -> Vec<Change>;

/// What survives a compaction at `at`: everything above it, the newest change up to it if that is
/// a put, and every tombstone exactly at it.
///
/// "Newest" is taken over the whole key, so that a delete and a put of one key in the revision
/// `at` leave both the tombstone and the put (etcd loses the put).
#[must_use]
pub fn survivors(changes: &[Change], at: Revision) -> Vec<Change> {
    let newest = changes
        .iter()
        .rfind(|change| change.id.main <= at)
        .map(|change| change.id);
    let stays = |change: &&Change| {
        change.id.main > at
            || (change.put.is_some() && newest == Some(change.id))
            || (change.put.is_none() && change.id.main == at)
    };
    changes.iter().filter(stays).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Histories in short: `2p` is a put at main 2, `3t` a tombstone; what stays at each revision.
    #[test]
    fn table() {
        let parse = |text: &str| -> Vec<Change> {
            let mut sub = 0;
            text.split_whitespace()
                .map(|word| {
                    let (main, kind) = word.split_at(word.len() - 1);
                    sub += 1;
                    let put = (kind == "p").then(|| Put {
                        value: Bytes::new(),
                        create: Revision::new(2),
                        version: 1,
                        lease: LeaseId::NONE,
                    });
                    Change {
                        id: ChangeId::new(Revision::new(main.parse().expect("a number")), sub),
                        put,
                    }
                })
                .collect()
        };
        let check = |history: &str, at: u64, expected: &str| {
            let show = |changes: &[Change]| {
                let words: Vec<String> = changes
                    .iter()
                    .map(|c| format!("{}{}", c.id.main, if c.put.is_some() { 'p' } else { 't' }))
                    .collect();
                words.join(" ")
            };
            let found = survivors(&parse(history), Revision::new(at));
            assert_eq!(show(&found), expected, "{history} compacted at {at}");
        };
        check("2p 3p 5p", 1, "2p 3p 5p");
        check("2p 3p 5p", 2, "2p 3p 5p");
        check("2p 3p 5p", 4, "3p 5p");
        check("2p 3p 5p", 9, "5p");
        check("2p 3t 5p", 3, "3t 5p");
        check("2p 3t 5p", 4, "5p");
        check("2p 3t", 3, "3t");
        check("3t", 4, "");
        check("2p 3t 3p 4p", 3, "3t 3p 4p");
        check("2p 3t 3p 3t", 3, "3t 3t");
        check("2p 3p 3p", 3, "3p");
    }
}
