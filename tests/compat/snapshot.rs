//! Snapshot files in a folder of their own, and what an import makes of them.

use std::path::{Path, PathBuf};

use revtree::{Db, Event, EventKind, ImportReport, KeyRange, KeyValue, Options, Revision};
use tempfile::TempDir;

/// A folder with a snapshot in it.
pub(crate) struct Folder {
    folder: TempDir,
}

impl Folder {
    pub(crate) fn with(snapshot: &[u8]) -> Folder {
        let folder = Folder {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(folder.snapshot(), snapshot).unwrap();
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        self.path().join("snapshot.db")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    pub(crate) fn import(&self) -> revtree::Result<ImportReport> {
        Db::import_etcd(self.snapshot(), self.store(), Options::new())
    }

    pub(crate) fn open(&self) -> Db {
        Db::open(self.store()).unwrap()
    }

    /// The names of all files beside the snapshot.
    pub(crate) fn others(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "snapshot.db").collect()
    }
}

/// Imports a sound snapshot and opens the store.
pub(crate) fn imported(snapshot: &[u8]) -> (Folder, ImportReport, Db) {
    let folder = Folder::with(snapshot);
    let report = folder.import().unwrap();
    assert_eq!(folder.others(), ["store"]);
    let db = folder.open();
    assert!(db.recovery().clean);
    let check = db.check().unwrap();
    assert!(check.is_clean(), "{:?}", check.damage);
    assert_eq!((check.records, check.keys), (report.records, report.keys));
    (folder, report, db)
}

/// All keys at a revision.
pub(crate) fn range_at(db: &Db, rev: u64) -> Vec<KeyValue> {
    let view = db.read().unwrap();
    let range = view.range(KeyRange::all()).at(rev).unwrap();
    assert_eq!(range.count().unwrap(), range.iter().count() as u64);
    range.collect().unwrap().kvs
}

/// All changes from one revision to another.
pub(crate) fn changes(db: &Db, from: u64, to: u64) -> Vec<Event> {
    let view = db.read().unwrap();
    let revs = Revision::new(from)..=Revision::new(to);
    let events = view.changes(KeyRange::all(), revs).unwrap();
    events.map(Result::unwrap).collect()
}

/// What there is to compare of an event.
pub(crate) fn plain(event: &Event) -> (u64, u64, EventKind, KeyValue) {
    let id = event.id;
    (id.main.get(), id.sub, event.kind, event.kv.unpinned())
}

/// Both stores answer the same at every revision from their compact one on.
pub(crate) fn assert_same_answers(found: &Db, expected: &Db, what: &str) {
    assert_eq!(found.rev(), expected.rev(), "{what}");
    assert_eq!(found.compact_rev(), expected.compact_rev(), "{what}");
    let (from, to) = (
        expected.compact_rev().map_or(1, Revision::get).max(1),
        expected.rev().get(),
    );
    for rev in from..=to {
        let range = (range_at(found, rev), range_at(expected, rev));
        assert_eq!(range.0, range.1, "{what}: range at {rev}");
        let hash = (found.hash_by_rev(rev), expected.hash_by_rev(rev));
        assert_eq!(hash.0.unwrap(), hash.1.unwrap(), "{what}: hash at {rev}");
    }
    let events = |db: &Db| changes(db, from, to).iter().map(plain).collect::<Vec<_>>();
    assert_eq!(events(found), events(expected), "{what}: events");
    let mut keys: Vec<_> = changes(expected, from, to)
        .into_iter()
        .map(|event| event.kv.key)
        .collect();
    keys.extend(range_at(expected, from).into_iter().map(|kv| kv.key));
    keys.sort();
    keys.dedup();
    for key in keys {
        let history = |db: &Db| {
            let view = db.read().unwrap();
            let events = view.history(&key).unwrap();
            events
                .map(|event| plain(&event.unwrap()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            history(found),
            history(expected),
            "{what}: history of {key:?}"
        );
    }
}
