//! What the mirrored tests share: stores, histories at given revisions, and records as plain rows.
//!
//! It knows nothing of any one test of etcd.

use revtree::{
    ChangeId, Db, Error, Event, EventKind, KeyRange, KeyValue, LeaseId, Options, RangeResult,
    Result, Revision,
};

/// An empty store in memory.
pub(crate) fn memory() -> Db {
    Options::new().open_in_memory().unwrap()
}

/// A key with everything etcd keeps about it: key, value, create and mod revision, version, lease.
pub(crate) type Row = (String, String, u64, u64, u64, i64);

/// The row of these parts.
pub(crate) fn row(key: &str, value: &str, create: u64, modified: u64, version: u64) -> Row {
    (
        key.to_owned(),
        value.to_owned(),
        create,
        modified,
        version,
        0,
    )
}

/// The same with a lease.
pub(crate) fn leased(row: Row, lease: i64) -> Row {
    let (key, value, create, modified, version, _) = row;
    (key, value, create, modified, version, lease)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A record as a row.
pub(crate) fn row_of(kv: &KeyValue) -> Row {
    (
        text(&kv.key),
        text(&kv.value),
        kv.create_revision.get(),
        kv.mod_revision.get(),
        kv.version,
        kv.lease.0,
    )
}

/// All records of a result as rows.
pub(crate) fn rows(result: &RangeResult) -> Vec<Row> {
    result.kvs.iter().map(row_of).collect()
}

/// The keys of a result.
pub(crate) fn keys(result: &RangeResult) -> Vec<String> {
    result.kvs.iter().map(|kv| text(&kv.key)).collect()
}

/// Whether a call of etcd's test goes to the store or through a write transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Through {
    Store,
    Txn,
}

/// etcd's `Range(key, end, RangeOptions{Rev, Limit})`: 0 is the current revision, and no limit.
/// (Negative numbers, which etcd takes for 0, cannot be said here.)
pub(crate) fn range(
    db: &Db,
    through: Through,
    keys: KeyRange,
    rev: u64,
    limit: usize,
) -> Result<RangeResult> {
    let asked = |range: revtree::Range<'_>| {
        let range = range.at(rev)?;
        match limit {
            0 => range.collect(),
            limit => range.limit(limit).collect(),
        }
    };
    match through {
        Through::Store => asked(db.read()?.range(keys)),
        Through::Txn => asked(db.write()?.range(keys)),
    }
}

/// etcd's `Put(key, value, lease)`.
pub(crate) fn put(db: &Db, through: Through, key: &str, value: &str, lease: i64) -> Revision {
    match (through, lease) {
        (Through::Store, 0) => db.put(key, value).unwrap(),
        _ => {
            let mut txn = db.write().unwrap();
            let rev = txn.put_with_lease(key, value, LeaseId(lease)).unwrap();
            assert_eq!(txn.commit().unwrap().revision, rev);
            rev
        }
    }
}

/// etcd's `DeleteRange(key, end)`: number of keys and revision.
pub(crate) fn delete(db: &Db, through: Through, keys: KeyRange) -> (u64, u64) {
    let deleted = match through {
        Through::Store => db.delete_range(keys).unwrap(),
        Through::Txn => {
            let mut txn = db.write().unwrap();
            let deleted = txn.delete_range(keys).unwrap();
            assert_eq!(txn.commit().unwrap().revision, deleted.revision);
            deleted
        }
    };
    (deleted.count, deleted.revision.get())
}

/// One change of a scripted transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    Put(&'a str, &'a str),
    Delete(&'a str),
}

/// A key that no test asks for: it brings a store to a revision.
pub(crate) const FILLER: &str = "\u{10FFFF}filler";

/// Commits these changes together, exactly at `rev`; revisions before it that are free go to
/// [`FILLER`].
pub(crate) fn commit_at(db: &Db, rev: u64, changes: &[Change<'_>]) {
    assert!(db.rev().get() < rev, "revision {rev} has been used");
    while db.rev().get() < rev - 1 {
        db.put(FILLER, "").unwrap();
    }
    let mut txn = db.write().unwrap();
    for change in changes {
        match *change {
            Change::Put(key, value) => {
                txn.put(key, value).unwrap();
            }
            Change::Delete(key) => assert_eq!(txn.delete(key).unwrap().count, 1, "{key}"),
        }
    }
    assert_eq!(txn.commit().unwrap().revision.get(), rev);
}

/// One key at a revision: mod revision, create revision and version; `None` when it does not exist.
pub(crate) fn at(db: &Db, key: &str, rev: u64) -> Result<Option<(u64, u64, u64)>> {
    let view = db.read_at(rev)?;
    let found = view.get(key)?.map(|record| {
        (
            record.mod_revision().get(),
            record.create_revision().get(),
            record.version(),
        )
    });
    Ok(found)
}

/// An event as text: `+` or `-` for put and delete, main and sub: `+6.1`, `-7.0`.
pub(crate) fn change_of(event: &Event) -> String {
    let ChangeId { main, sub } = event.id;
    let sign = if event.kind == EventKind::Put {
        '+'
    } else {
        '-'
    };
    format!("{sign}{}.{sub}", main.get())
}

/// What the store still has of a key, oldest first.
pub(crate) fn history(db: &Db, key: &str) -> Vec<String> {
    let view = db.read().unwrap();
    let events = view.history(key).unwrap();
    events.map(|event| change_of(&event.unwrap())).collect()
}

/// What the store still has of all keys but [`FILLER`], in the order of revisions.
pub(crate) fn retained(db: &Db) -> Vec<String> {
    let view = db.read().unwrap();
    let first = db.compact_rev().unwrap_or_default();
    // Of what lies before the compact revision each key's own history tells.
    let mut found = Vec::new();
    for record in view.range(..).at(first.max(Revision::new(1))).unwrap() {
        let record = record.unwrap();
        if record.mod_revision() < first {
            found.push((record.mod_revision(), record.key().to_vec()));
        }
    }
    let mut all = Vec::new();
    for (_, key) in &found {
        let event = view.history(key).unwrap().next().unwrap().unwrap();
        all.push(event);
    }
    for event in view.changes(.., first..=view.rev()).unwrap() {
        all.push(event.unwrap());
    }
    all.sort_by_key(|event| event.id);
    all.retain(|event| event.kv.key != FILLER);
    all.iter().map(change_of).collect()
}

/// The error of a call, in a word.
pub(crate) fn refusal<T>(result: Result<T>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(Error::Compacted { .. }) => "compacted",
        Err(Error::FutureRevision { .. }) => "future",
        Err(other) => panic!("unexpected: {other}"),
    }
}

/// A small generator for tests that need many different operations: the seed decides all of them.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound` (splitmix64).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}
