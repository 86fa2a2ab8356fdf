//! The importer: records and rows in, a store out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use revtree_format::limits::{REVISION_MAX, SUB_MAX};
use revtree_format::{ChangeId, Control, LeaseId, RecordHead, RecordKind, Revision};

use super::target::Target;
use crate::error::{Error, Result};
use crate::mvcc::{KeyValue, OpRef, Store, check_lengths, check_name, check_row, open_store};
use crate::options::{Applied, CHECKPOINT_BYTES_DEFAULT, Create, Options};
use crate::sys::Disk;

/// Builds a new store from records with their revisions as given, in ascending order. Nothing is visible
/// before [`finish`](Importer::finish); dropped without it, or after a crash, there is no store.
///
/// A call that is refused has changed nothing: the importer can go on.
///
/// ```
/// use revtree::{Applied, ChangeId, Db, KeyValue, LeaseId, Options, Revision};
/// let dir = tempfile::tempdir().unwrap();
/// let mut importer = Db::importer(dir.path().join("store"), Options::new())?;
/// // A key at its third version, made at revision 4: what was before was compacted away.
/// let kv = KeyValue::new("a".into(), "v".into(), 4.into(), 9.into(), 3, LeaseId::NONE);
/// importer.put(ChangeId::new(Revision::new(9), 0), &kv)?;
/// importer.delete(ChangeId::new(Revision::new(11), 0), b"a")?;
/// importer.table_put("members", b"1", b"localhost")?;
/// let db = importer.finish(Revision::new(20), Some(Revision::new(9)), Applied::default())?;
/// assert_eq!(db.rev().get(), 20);
/// assert_eq!(db.read_at(10)?.get("a")?.unwrap().version(), 3);
/// assert!(db.get("a")?.is_none());
/// # Ok::<(), revtree::Error>(())
/// ```
pub struct Importer {
    store: Arc<Store>,
    target: Target,
    options: Options,
    last: ChangeId,
    taken: Taken,
}

/// What an importer has taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) records: u64,
    /// Keys that live after the newest record.
    pub(super) keys: u64,
    pub(super) rows: u64,
}

/// How a record relates to its key's record before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Follows {
    /// As every reader relies on.
    Checked,
    /// Records between the two are lost.
    Loss,
}

/// A complete store, closed: where it is, and how its importer was to open it.
pub(crate) struct Sealed {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
}

impl Importer {
    /// `Db::importer`.
    pub(crate) fn new(path: &Path, options: Options) -> Result<Importer> {
        if options.read_only {
            return Err(Error::ReadOnly);
        }
        let target = Target::new(options.files(), path)?;
        let building = Options {
            create: Create::New,
            // Memory is bounded by what a checkpoint writes out.
            checkpoint_bytes: options.checkpoint_bytes.min(CHECKPOINT_BYTES_DEFAULT),
            progress: None,
            threads: false,
            // Asked of what is built.
            expect_at_least: Revision::default(),
            ..options.clone()
        };
        let (store, _) = open_store(
            &options.files(),
            target.temporary(),
            target.temporary(),
            &building,
        )?;
        Ok(Importer {
            store,
            target,
            options,
            last: ChangeId::default(),
            taken: Taken::default(),
        })
    }

    /// Adds a put. Its revision, [`KeyValue::mod_revision`], is `id.main`.
    ///
    /// The first record of a key may have any version: what was before it may be compacted away. A later
    /// one goes on with the generation of the record before it, or begins one after a delete.
    ///
    /// ```
    /// use revtree::{ChangeId, Db, Error, KeyValue, LeaseId, Options};
    /// let dir = tempfile::tempdir().unwrap();
    /// let mut importer = Db::importer(dir.path().join("store"), Options::new())?;
    /// let kv = KeyValue::new("a".into(), "v".into(), 9.into(), 9.into(), 1, LeaseId::NONE);
    /// importer.put(ChangeId::new(9.into(), 0), &kv)?;
    /// let again = importer.put(ChangeId::new(9.into(), 0), &kv); // not above the one before
    /// assert!(matches!(again, Err(Error::Import { offset: 1, .. })));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Import`] when `id` is not above the one before, or the fields do not fit it or the key's
    /// record before it; its offset says how many records and rows were taken before.
    /// [`Error::KeyTooLong`], [`Error::ValueTooLong`]; [`Error::NoSpace`], [`Error::StoreFull`],
    /// [`Error::Poisoned`], [`Error::Io`].
    pub fn put(&mut self, id: ChangeId, kv: &KeyValue) -> Result<()> {
        if kv.mod_revision != id.main {
            let (modified, create) = (kv.mod_revision, kv.create_revision);
            return self.refuse(format!(
                "the put {id} says mod revision {modified} (create revision {create})"
            ));
        }
        self.record(id, &OpRef::put(kv))
    }

    /// Adds a put between which and the key's record before it some are lost, the delete that ended the
    /// generation before among them: for tools that save what is left of a damaged store.
    ///
    /// The lost records are no revision of the key: a read between the two finds the older one.
    /// What [`Importer::put`] takes it takes too.
    ///
    /// ```
    /// use revtree::{Applied, ChangeId, Db, Error, KeyValue, LeaseId, Options};
    /// let dir = tempfile::tempdir().unwrap();
    /// let mut importer = Db::importer(dir.path().join("store"), Options::new())?;
    /// let old = KeyValue::new("a".into(), "old".into(), 2.into(), 2.into(), 1, LeaseId::NONE);
    /// importer.put(ChangeId::new(2.into(), 0), &old)?;
    /// // A delete, and the first put of the generation from 4 on, are lost.
    /// let new = KeyValue::new("a".into(), "new".into(), 4.into(), 5.into(), 2, LeaseId::NONE);
    /// let refused = importer.put(ChangeId::new(5.into(), 0), &new);
    /// assert!(matches!(refused, Err(Error::Import { .. })));
    /// importer.put_after_loss(ChangeId::new(5.into(), 0), &new)?;
    /// let db = importer.finish(5.into(), None, Applied::default())?;
    /// assert_eq!(db.get("a")?.unwrap().create_revision.get(), 4);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Importer::put`]; also for a generation that began before the record before it was written.
    pub fn put_after_loss(&mut self, id: ChangeId, kv: &KeyValue) -> Result<()> {
        let before = self.store.find(&kv.key)?;
        let lost = before.is_some_and(|(_, (_, head))| {
            // A first version behind a put would read as its generation's second.
            head.kind == RecordKind::Put && kv.create_revision > head.id.main && kv.version > 1
        });
        if !lost || kv.mod_revision != id.main {
            return self.put(id, kv);
        }
        self.append(id, &OpRef::put(kv), Follows::Loss)
    }

    /// Adds a delete.
    ///
    /// It may be the first record of its key: what it deleted may be compacted away.
    ///
    /// ```
    /// use revtree::{Applied, ChangeId, Db, EventKind, Options};
    /// let dir = tempfile::tempdir().unwrap();
    /// let mut importer = Db::importer(dir.path().join("store"), Options::new())?;
    /// importer.delete(ChangeId::new(9.into(), 0), b"a")?;
    /// let db = importer.finish(9.into(), Some(9.into()), Applied::default())?;
    /// assert_eq!(db.read()?.history("a")?.next().unwrap()?.kind, EventKind::Delete);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Importer::put`].
    pub fn delete(&mut self, id: ChangeId, key: &[u8]) -> Result<()> {
        self.record(id, &OpRef::tombstone(key))
    }

    /// Sets a row of a side table.
    ///
    /// ```
    /// use revtree::{Applied, Db, Options};
    /// let dir = tempfile::tempdir().unwrap();
    /// let mut importer = Db::importer(dir.path().join("store"), Options::new())?;
    /// importer.table_put("members", b"1", b"localhost")?;
    /// let db = importer.finish(1.into(), None, Applied::default())?;
    /// assert_eq!(db.read()?.table("members").get(b"1")?.unwrap(), "localhost");
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LimitReached`] for the name, or when all tables together would pass 64 MiB;
    /// [`Error::KeyTooLong`], [`Error::ValueTooLong`]; and the errors of writing of [`Importer::put`].
    pub fn table_put(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<()> {
        check_name(table)?;
        check_row(key, value)?;
        self.store
            .append_given_item(&Control::TablePut { table, key, value })?;
        self.taken.rows += 1;
        Ok(())
    }

    /// Makes a side table, which may stay empty.
    ///
    /// ```
    /// use revtree::{Applied, Db, Options};
    /// let dir = tempfile::tempdir().unwrap();
    /// let mut importer = Db::importer(dir.path().join("store"), Options::new())?;
    /// importer.table_create("members")?;
    /// let db = importer.finish(1.into(), None, Applied::default())?;
    /// assert!(db.read()?.tables().eq(["members"]));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Importer::table_put`].
    pub fn table_create(&mut self, table: &str) -> Result<()> {
        check_name(table)?;
        self.store
            .append_given_item(&Control::TableCreate { table })
    }

    /// Adds a record of either kind.
    pub(super) fn record(&mut self, id: ChangeId, op: &OpRef<'_>) -> Result<()> {
        self.append(id, op, Follows::Checked)
    }

    fn append(&mut self, id: ChangeId, op: &OpRef<'_>, follows: Follows) -> Result<()> {
        self.check_id(id)?;
        check_lengths(op.key, op.value)?;
        let base = self.store.find(op.key)?;
        let before = base.as_ref().map(|(_, (_, head))| head);
        self.check_fields(id, op, before.filter(|_| follows == Follows::Checked))?;
        self.store.append_given(id, op, base.as_ref())?;
        let lived = before.is_some_and(|head| head.kind == RecordKind::Put);
        match (lived, op.kind == RecordKind::Put) {
            (false, true) => self.taken.keys += 1,
            (true, false) => self.taken.keys -= 1,
            _ => {}
        }
        self.last = id;
        self.taken.records += 1;
        Ok(())
    }

    fn check_id(&self, id: ChangeId) -> Result<()> {
        if id.main.get() < 1 || id.main.get() > REVISION_MAX || id.sub > SUB_MAX {
            return self.refuse(format!("{id} is no change of a store"));
        }
        if id <= self.last {
            let last = self.last;
            return self.refuse(format!("change {id} is not above {last}, the one before"));
        }
        Ok(())
    }

    /// Checks what every reader relies on: see `mvcc::versions`.
    fn check_fields(
        &self,
        id: ChangeId,
        op: &OpRef<'_>,
        before: Option<&RecordHead>,
    ) -> Result<()> {
        if op.kind != RecordKind::Put {
            return Ok(());
        }
        let (create, version) = (op.create, op.version);
        let versions = 1..=REVISION_MAX;
        if create.get() < 1 || create > id.main || !versions.contains(&version) {
            return self.refuse(format!(
                "the put {id} cannot have create revision {create} and version {version}"
            ));
        }
        let Some(before) = before else {
            return Ok(());
        };
        // A put goes on with a generation, or a delete ended the one before. A version may be missing,
        // and after a delete also the first: compactions of etcd can lose it (SEMANTICS §4.5).
        let follows = match before.kind {
            RecordKind::Put => create == before.create && version > before.version,
            _ => create >= before.id.main,
        };
        if !follows {
            let (kind, before) = (before.kind, before.id);
            return self.refuse(format!(
                "the put {id} with create revision {create} and version {version} cannot follow \
                 the {} {before} of its key",
                if kind == RecordKind::Put {
                    "put"
                } else {
                    "delete"
                }
            ));
        }
        Ok(())
    }

    fn refuse<T>(&self, what: String) -> Result<T> {
        Err(Error::Import {
            offset: self.taken.records + self.taken.rows,
            what,
        })
    }

    /// What was taken so far.
    pub(super) fn taken(&self) -> Taken {
        self.taken
    }

    /// Completes the store under its name, and leaves it closed.
    pub(crate) fn seal(
        self,
        current: Revision,
        compacted: Option<Revision>,
        applied: Applied,
    ) -> Result<Sealed> {
        let last = self.last.main;
        if current < last || current.get() < 1 || current.get() > REVISION_MAX {
            return self.refuse(format!(
                "{current} cannot be the current revision: the last change is {last}"
            ));
        }
        if let Some(compacted) = compacted.filter(|compacted| *compacted > current) {
            return self.refuse(format!(
                "{compacted} cannot be the compact revision: the current one is {current}"
            ));
        }
        self.store.end_given(current, compacted, applied)?;
        // The lock goes with the store; nobody knows the file's name yet.
        drop(self.store);
        let (disk, path) = self.target.take()?;
        Ok(Sealed {
            disk,
            path,
            options: self.options,
        })
    }
}

impl OpRef<'_> {
    /// A put as `kv` has it.
    fn put(kv: &KeyValue) -> OpRef<'_> {
        OpRef {
            key: &kv.key,
            kind: RecordKind::Put,
            value: &kv.value,
            lease: kv.lease,
            create: kv.create_revision,
            version: kv.version,
        }
    }

    /// A delete of `key`.
    pub(super) fn tombstone(key: &[u8]) -> OpRef<'_> {
        OpRef {
            key,
            kind: RecordKind::Tombstone,
            value: &[],
            lease: LeaseId::NONE,
            create: Revision::default(),
            version: 0,
        }
    }
}

impl std::fmt::Debug for Importer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Importer")
            .field("target", &self.target)
            .field("last", &self.last)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}
