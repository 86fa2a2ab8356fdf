//! One live key: borrowed and checked ([`Record`]), or owned ([`KeyValue`]).

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use revtree_format::{LeaseId, Position, RecordHead, Revision, check_value};

use crate::error::Result;
use crate::pager::{Growing, Medium, Raw};

/// A key with its value and what etcd keeps about it.
///
/// Its `Bytes` may lie in the store's file ([`Record::share`], events): then they keep the file locked
/// and their space from being reclaimed until dropped. Caches keep [`KeyValue::unpinned`] copies.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// let kv = db.get("a")?.unwrap();
/// assert_eq!((&kv.value[..], kv.version, kv.mod_revision.get()), (&b"1"[..], 1, 2));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty in a delete event.
    pub value: Bytes,
    /// The revision of the first put since the key last did not exist.
    pub create_revision: Revision,
    /// The revision of this put.
    pub mod_revision: Revision,
    /// Number of puts since then, this one included.
    pub version: u64,
    /// The lease of this put; [`LeaseId::NONE`] for none.
    pub lease: LeaseId,
}

impl KeyValue {
    /// A key-value of these parts.
    ///
    /// ```
    /// use revtree::{KeyValue, LeaseId};
    /// // Made at revision 4, put twice since, the last time at 9.
    /// let kv = KeyValue::new("a".into(), "v".into(), 4.into(), 9.into(), 3, LeaseId::NONE);
    /// assert_eq!((kv.create_revision.get(), kv.mod_revision.get(), kv.version), (4, 9, 3));
    /// ```
    #[must_use]
    pub fn new(
        key: Bytes,
        value: Bytes,
        create: Revision,
        modified: Revision,
        version: u64,
        lease: LeaseId,
    ) -> KeyValue {
        KeyValue {
            key,
            value,
            create_revision: create,
            mod_revision: modified,
            version,
            lease,
        }
    }

    /// A copy that pins nothing: for caches.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let shared = db.read()?.get("a")?.unwrap().share();
    /// let cached = shared.unpinned();
    /// assert_eq!((&cached, db.stats().shared_handles), (&shared, 1));
    /// drop(shared);
    /// assert_eq!((&cached.value[..], db.stats().shared_handles), (&b"1"[..], 0));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn unpinned(&self) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(&self.key),
            value: Bytes::copy_from_slice(&self.value),
            ..self.clone()
        }
    }
}

/// Counts the shared byte handles of a store: all, and for each unit those whose bytes begin in it.
#[derive(Debug)]
pub(crate) struct SharedHandles {
    all: AtomicU64,
    units: Growing<AtomicU64>,
}

impl Default for SharedHandles {
    fn default() -> SharedHandles {
        SharedHandles {
            all: AtomicU64::new(0),
            units: Growing::new(),
        }
    }
}

impl SharedHandles {
    pub(crate) fn count(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// Whether bytes of unit `index` are held. Whoever lends some has a pin or a guard meanwhile: so a caller that
    /// has seen these end sees what they have lent.
    pub(crate) fn is_held(&self, index: u32) -> bool {
        let unit = self.units.get(index as usize);
        // Acquire: pairs with the Release of `returned`, so what was read is behind us.
        unit.is_some_and(|count| count.load(Ordering::Acquire) > 0)
    }

    fn lent(&self, unit: u32) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.units
            .make(unit as usize)
            .fetch_add(1, Ordering::Relaxed);
    }

    fn returned(&self, unit: u32) {
        if let Some(count) = self.units.get(unit as usize) {
            count.fetch_sub(1, Ordering::Release);
        }
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a store lends to records that it hands out.
#[derive(Clone, Debug)]
pub(crate) struct Lender {
    pub(crate) medium: Arc<Medium>,
    pub(crate) handles: Arc<SharedHandles>,
    /// Keeps the file open and locked while bytes of it are held.
    pub(crate) _keep: Arc<dyn Keep>,
}

/// Whatever has to live as long as shared bytes do.
pub(crate) trait Keep: Send + Sync + std::fmt::Debug {}

/// Bytes of the file that a `Bytes` holds.
#[derive(Debug)]
struct SharedBytes {
    lender: Lender,
    position: Position,
    len: usize,
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        let bytes = self.lender.medium.region.bytes(self.position.0, self.len);
        bytes.expect("bytes that were published stay published while the lender is kept")
    }
}

impl SharedBytes {
    /// The unit in which they begin.
    fn unit(&self) -> u32 {
        let geometry = self.lender.medium.geometry;
        geometry.index_of(self.position).unwrap_or_default()
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        self.lender.handles.returned(self.unit());
    }
}

/// One live key, checked, borrowed from a view or a transaction.
///
/// ```
/// let db = revtree::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// let view = db.read()?;
/// let record = view.get("a")?.unwrap();
/// assert_eq!((record.key(), record.value(), record.version()), (&b"a"[..], &b"1"[..], 1));
/// # Ok::<(), revtree::Error>(())
/// ```
#[derive(Clone)]
pub struct Record<'v> {
    body: Body<'v>,
}

#[derive(Clone)]
enum Body<'v> {
    /// A record of the file.
    Stored {
        head: RecordHead,
        position: Position,
        bytes: Stored<'v>,
        lender: &'v Lender,
    },
    /// A put of an open transaction.
    Pending {
        kv: KeyValue,
        with_value: bool,
        borrowed: PhantomData<&'v ()>,
    },
}

#[derive(Clone)]
enum Stored<'v> {
    Borrowed(&'v [u8]),
    Copied(Bytes),
}

impl<'v> Record<'v> {
    /// Reads and checks the record whose head has been read at `position`.
    pub(crate) fn read(
        lender: &'v Lender,
        position: Position,
        head: RecordHead,
        with_value: bool,
    ) -> Result<Record<'v>> {
        let value_len = if with_value {
            head.value_len as usize
        } else {
            0
        };
        let raw = lender.medium.bytes(position, head.value_at() + value_len)?;
        if with_value {
            check_value(&head, &raw[head.value_at()..], position)?;
        }
        let bytes = match raw {
            Raw::Borrowed(bytes) => Stored::Borrowed(bytes),
            Raw::Copied(bytes) => Stored::Copied(bytes.into()),
        };
        Ok(Record {
            body: Body::Stored {
                head,
                position,
                bytes,
                lender,
            },
        })
    }

    /// A put that is not committed yet.
    pub(crate) fn pending(kv: KeyValue, with_value: bool) -> Record<'v> {
        Record {
            body: Body::Pending {
                kv,
                with_value,
                borrowed: PhantomData,
            },
        }
    }

    /// The key.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("/pods/a", "x")?;
    /// let view = db.read()?;
    /// let first = view.range("/pods/"..).iter().next().unwrap()?;
    /// assert_eq!(first.key().strip_prefix(b"/pods/"), Some(&b"a"[..]));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match &self.body {
            Body::Stored { head, bytes, .. } => &bytes[head.key_at.into()..head.value_at()],
            Body::Pending { kv, .. } => &kv.key,
        }
    }

    /// The value; empty when only keys were asked for.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("n", "41")?;
    /// let view = db.read()?;
    /// let n: u64 = std::str::from_utf8(view.get("n")?.unwrap().value()).unwrap().parse().unwrap();
    /// assert_eq!(n + 1, 42);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn value(&self) -> &[u8] {
        match &self.body {
            Body::Stored { head, bytes, .. } => &bytes[head.value_at()..],
            Body::Pending {
                kv,
                with_value: true,
                ..
            } => &kv.value,
            Body::Pending { .. } => &[],
        }
    }

    /// Length of the value in bytes, also when only keys were asked for.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "12345")?;
    /// let view = db.read()?;
    /// let record = view.range(..).keys_only().iter().next().unwrap()?;
    /// assert_eq!((record.value(), record.value_len()), (&b""[..], 5));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn value_len(&self) -> usize {
        match &self.body {
            Body::Stored { head, .. } => head.value_len as usize,
            Body::Pending { kv, .. } => kv.value.len(),
        }
    }

    /// The revision of the first put since the key last did not exist (etcd's `create_revision`).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// for value in ["1", "2"] {
    ///     db.put("a", value)?;
    /// }
    /// assert_eq!(db.read()?.get("a")?.unwrap().create_revision().get(), 2);
    /// db.delete("a")?;
    /// db.put("a", "3")?;
    /// assert_eq!(db.read()?.get("a")?.unwrap().create_revision().get(), 5); // made anew
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn create_revision(&self) -> Revision {
        match &self.body {
            Body::Stored { head, .. } => head.create,
            Body::Pending { kv, .. } => kv.create_revision,
        }
    }

    /// The revision of this put (etcd's `mod_revision`).
    ///
    /// ```
    /// use revtree::Expect;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let seen = db.read()?.get("a")?.unwrap().mod_revision();
    /// db.put("a", "2")?; // somebody was faster
    /// assert!(db.write()?.require("a", Expect::ModRevision(seen)).is_err());
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn mod_revision(&self) -> Revision {
        match &self.body {
            Body::Stored { head, .. } => head.id.main,
            Body::Pending { kv, .. } => kv.mod_revision,
        }
    }

    /// Number of puts since the key last did not exist, this one included (etcd's `version`).
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// db.put("a", "2")?;
    /// assert_eq!(db.read()?.get("a")?.unwrap().version(), 2);
    /// db.delete("a")?;
    /// db.put("a", "3")?;
    /// assert_eq!(db.read()?.get("a")?.unwrap().version(), 1); // counted anew
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn version(&self) -> u64 {
        match &self.body {
            Body::Stored { head, .. } => head.version,
            Body::Pending { kv, .. } => kv.version,
        }
    }

    /// The lease of this put; [`LeaseId::NONE`] for none. A put without one takes the key's lease away
    /// (etcd's rule).
    ///
    /// ```
    /// use revtree::LeaseId;
    /// let db = revtree::Options::new().open_in_memory()?;
    /// let mut txn = db.write()?;
    /// txn.put_with_lease("a", "1", LeaseId(7))?;
    /// txn.commit()?;
    /// assert_eq!(db.read()?.get("a")?.unwrap().lease(), LeaseId(7));
    /// db.put("a", "2")?;
    /// assert_eq!(db.read()?.get("a")?.unwrap().lease(), LeaseId::NONE); // each put has its own
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        match &self.body {
            Body::Stored { head, .. } => head.lease,
            Body::Pending { kv, .. } => kv.lease,
        }
    }

    /// Key and value without a copy: the bytes stay in the store's file, and keep it locked and their
    /// space from being reclaimed until the last of them is dropped. For short lives; a cache keeps
    /// [`Record::to_key_value`].
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let kv = db.read()?.get("a")?.unwrap().share(); // outlives view and record
    /// assert_eq!((&kv.value[..], db.stats().shared_handles), (&b"1"[..], 1));
    /// drop(kv);
    /// assert_eq!(db.stats().shared_handles, 0);
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn share(&self) -> KeyValue {
        match &self.body {
            Body::Stored {
                head,
                position,
                bytes,
                lender,
                ..
            } => {
                let all = match bytes {
                    Stored::Copied(all) => all.clone(),
                    Stored::Borrowed(all) => {
                        let shared = SharedBytes {
                            lender: (*lender).clone(),
                            position: *position,
                            len: all.len(),
                        };
                        lender.handles.lent(shared.unit());
                        Bytes::from_owner(shared)
                    }
                };
                let key = all.slice(head.key_at.into()..head.value_at());
                self.key_value(key, all.slice(head.value_at()..))
            }
            Body::Pending { .. } => self.to_key_value(),
        }
    }

    /// A copy that pins nothing.
    ///
    /// ```
    /// let db = revtree::Options::new().open_in_memory()?;
    /// db.put("a", "1")?;
    /// let kv = db.read()?.get("a")?.unwrap().to_key_value();
    /// db.close()?;
    /// assert_eq!((&kv.key[..], &kv.value[..]), (&b"a"[..], &b"1"[..]));
    /// # Ok::<(), revtree::Error>(())
    /// ```
    #[must_use]
    pub fn to_key_value(&self) -> KeyValue {
        // One allocation for both.
        let mut all = Vec::with_capacity(self.key().len() + self.value().len());
        all.extend_from_slice(self.key());
        all.extend_from_slice(self.value());
        let all = Bytes::from(all);
        let key = all.slice(..self.key().len());
        self.key_value(key, all.slice(self.key().len()..))
    }

    fn key_value(&self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            value,
            create_revision: self.create_revision(),
            mod_revision: self.mod_revision(),
            version: self.version(),
            lease: self.lease(),
        }
    }
}

impl std::ops::Deref for Stored<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Stored::Borrowed(bytes) => bytes,
            Stored::Copied(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("key", &format_args!("\"{}\"", self.key().escape_ascii()))
            .field("value_len", &self.value_len())
            .field("create_revision", &self.create_revision())
            .field("mod_revision", &self.mod_revision())
            .field("version", &self.version())
            .field("lease", &self.lease())
            .finish()
    }
}
