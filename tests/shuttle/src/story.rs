//! What the threads of one schedule did and saw, and the check at its end.
//!
//! Revisions give the total order: the commits are replayed in it on a plain map, and all that was seen is
//! compared with the map at its revision. What somebody relied on (an answer, a view under `Sync`, a durable
//! revision) is a [`Promise`]: a power cut at this moment, with the least that may be left, must keep it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use revtree::storage::sim::{Mask, SimDisk, SimOptions};
use revtree::{Db, Durability, Error, KeyValue, Options, ReadView, Result, Revision};
use shuttle::rand::Rng;

/// A change: a put of a value, or a deletion of a key that is there. [`ENTRY`] is not a key but an entry of a
/// side table, which has no revisions of its own.
pub(crate) type Change = (&'static str, Option<String>);

/// What a side table has one of.
pub(crate) const ENTRY: &str = "@entry";
const TABLE: &str = "table";

/// A key's create revision, mod revision, version and value.
type State = (u64, u64, u64, String);
pub(crate) type Content = BTreeMap<String, State>;

/// One schedule's store, on its disk.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) disk: SimDisk,
    pub(crate) durability: Durability,
    /// How much log before a checkpoint.
    pub(crate) checkpoint_bytes: u64,
    /// Never held where another thread could run.
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    commits: Vec<(u64, Vec<Change>)>,
    /// Commits of which nobody knows whether they are kept.
    unknown: Vec<(u64, Vec<Change>)>,
    seen: Vec<(u64, Content)>,
    /// What a watcher of everything was given from the beginning to the end.
    given: Option<Vec<(u64, String, Option<String>)>>,
    /// Of a power cut.
    promises: Vec<Promise>,
    /// Of a kill, which leaves all that was written.
    written: Vec<Promise>,
    /// Of compact revisions.
    compactions: Vec<Promise>,
    /// The newest revision whose commit has returned.
    returned: u64,
}

/// After so many operations of the disk, somebody relies on this revision.
#[derive(Clone, Copy)]
struct Promise {
    operations: u64,
    rev: u64,
}

impl Story {
    pub(crate) fn new(durability: Durability) -> Story {
        let options = SimOptions {
            yields: true,
            ..SimOptions::default()
        };
        Story {
            disk: SimDisk::new(options),
            durability,
            checkpoint_bytes: 64 << 20,
            told: Arc::default(),
        }
    }

    /// With a checkpoint after every commit that is not beside one.
    pub(crate) fn with_checkpoints(mut self) -> Story {
        self.checkpoint_bytes = 1;
        self
    }

    pub(crate) fn open(&self) -> Db {
        self.open_on(&self.disk).expect("a store opens")
    }

    pub(crate) fn open_on(&self, disk: &SimDisk) -> Result<Db> {
        Options::new()
            .disk(Arc::new(disk.clone()))
            .durability(self.durability)
            .segment_bytes(64 << 10)
            .store_bytes_max(1 << 20)
            .checkpoint_bytes(self.checkpoint_bytes)
            .open("store")
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What somebody relies on from now on.
    fn promise(&self, rev: u64) -> Promise {
        let operations = self.disk.operations();
        Promise { operations, rev }
    }

    /// A put as a transaction of its own.
    pub(crate) fn put(&self, db: &Db, key: &'static str, value: &str) -> Result<Revision> {
        let answer = db.put(key, value);
        let durable = self.durability == Durability::Sync;
        self.answered(vec![(key, Some(value.to_owned()))], durable, &answer);
        answer
    }

    /// A transaction, which reads what the commits before it have left.
    pub(crate) fn commit(&self, db: &Db, changes: Vec<Change>) -> Result<Revision> {
        let mut txn = db.write()?;
        let base = txn.rev().get();
        make(&mut txn, &changes)?;
        let answer = txn.commit();
        let durable = answer.as_ref().is_ok_and(|commit| commit.durable);
        let answer = answer.map(|commit| commit.revision);
        self.answered(changes, durable, &answer);
        if let Ok(rev) = answer {
            assert_eq!(rev.get(), base + 1, "somebody wrote inside a transaction");
        }
        answer
    }

    /// What a commit's caller is told.
    pub(crate) fn answered(&self, changes: Vec<Change>, durable: bool, answer: &Result<Revision>) {
        let mut told = self.told();
        match answer {
            Ok(rev) => {
                told.commits.push((rev.get(), changes));
                told.returned = told.returned.max(rev.get());
                let promise = self.promise(rev.get());
                if durable {
                    told.promises.push(promise);
                }
                if !matches!(self.durability, Durability::Batched { .. }) {
                    told.written.push(promise);
                }
            }
            Err(Error::CommitUnknown { revision, .. }) => {
                told.unknown.push((revision.get(), changes));
            }
            Err(_) => {}
        }
    }

    /// A view, which shows at least what was returned before, and under `Sync` nothing that a power cut takes.
    pub(crate) fn view(&self, db: &Db) -> Result<ReadView> {
        let before = self.told().returned;
        let view = db.read()?;
        let rev = view.rev().get();
        assert!(rev >= before, "a view at {rev} after a commit of {before}");
        if self.durability == Durability::Sync {
            let promise = self.promise(rev);
            self.told().promises.push(promise);
        }
        Ok(view)
    }

    /// Reads all of a view, to be compared at the end.
    pub(crate) fn look(&self, view: &ReadView) {
        let seen = content(view);
        self.told().seen.push((view.rev().get(), seen));
    }

    /// Everything that was accepted is made durable.
    pub(crate) fn sync(&self, db: &Db) -> Result<Revision> {
        let rev = db.sync()?;
        assert!(db.durable_rev() >= rev, "a sync that is not durable");
        let promise = self.promise(rev.get());
        self.told().promises.push(promise);
        Ok(rev)
    }

    /// A close has returned: all that was answered before is on the disk.
    pub(crate) fn closed(&self) {
        let mut told = self.told();
        let promise = self.promise(told.returned);
        told.promises.push(promise);
    }

    /// An event of this revision has been given, and all before it.
    pub(crate) fn durable_at(&self, rev: u64) {
        let promise = self.promise(rev);
        self.told().promises.push(promise);
    }

    /// All that a watcher of everything was given.
    pub(crate) fn given(&self, events: Vec<(u64, String, Option<String>)>) {
        self.told().given = Some(events);
    }

    /// What the store says is durable.
    pub(crate) fn durable(&self, db: &Db) {
        let promise = self.promise(db.durable_rev().get());
        self.told().promises.push(promise);
    }

    /// A compaction; who is told of one sees it.
    pub(crate) fn compact(&self, db: &Db, rev: u64) {
        match db.compact(rev) {
            Ok(_) => {}
            Err(Error::Compacted { compacted, .. }) => assert!(compacted.get() >= rev),
            Err(Error::FutureRevision { .. }) => return,
            Err(error) => panic!("{error}"),
        }
        let promise = self.promise(rev);
        self.told().compactions.push(promise);
        assert!(db.compact_rev() >= Some(Revision::new(rev)));
        assert!(matches!(db.read_at(rev - 1), Err(Error::Compacted { .. })) || rev == 1);
    }

    /// What all commits that were answered leave, after a check of everything seen on the way.
    pub(crate) fn replay(&self) -> BTreeMap<u64, Content> {
        let mut told = self.told();
        told.commits.sort();
        let mut states = BTreeMap::from([(1, Content::new())]);
        let mut content = Content::new();
        let mut unknown = std::mem::take(&mut told.unknown);
        unknown.sort();
        for (rev, changes) in told.commits.iter().chain(&unknown) {
            assert!(
                states.contains_key(&(rev - 1)) && !states.contains_key(rev),
                "revision {rev} after {:?}",
                states.keys().next_back()
            );
            for (key, value) in changes {
                let (create, version) = match content.get(*key) {
                    Some((create, _, version, _)) => (*create, version + 1),
                    None => (*rev, 1),
                };
                let state = match value {
                    Some(value) if *key == ENTRY => Some((0, 0, 0, value.clone())),
                    Some(value) => Some((create, *rev, version, value.clone())),
                    None => None,
                };
                match state {
                    Some(value) => content.insert((*key).to_owned(), value),
                    None => content.remove(*key),
                };
            }
            states.insert(*rev, content.clone());
        }
        told.unknown = unknown;
        if let Some(given) = &told.given {
            let changes = told.commits.iter().flat_map(|(rev, changes)| {
                let of = |(key, value): &Change| (*rev, (*key).to_owned(), value.clone());
                changes.iter().map(of)
            });
            assert_eq!(*given, changes.collect::<Vec<_>>(), "a watcher of all");
        }
        for (rev, seen) in &told.seen {
            assert_eq!(Some(seen), states.get(rev), "what a view at {rev} shows");
        }
        states
    }

    /// Closes the store. What a crash just before leaves is no less than what was answered.
    pub(crate) fn close(&self, db: Db) {
        let end = self.promise(self.told().returned);
        db.close().expect("closed");
        let states = self.replay();
        let mut images = vec![self.disk.kill(end.operations)];
        if self.durability == Durability::Sync {
            images.push(self.after_power_cut(end.operations));
        }
        if !matches!(self.durability, Durability::Batched { .. }) {
            for image in images {
                let kept = self.check_image(&image, &states).rev().get();
                assert!(
                    kept >= end.rev,
                    "{} was answered, a crash leaves {kept}",
                    end.rev
                );
            }
        }
        self.check();
    }

    /// The check at the end: what was seen, what a power cut at any promise leaves, and, with the store closed,
    /// what it opens with.
    pub(crate) fn check(&self) {
        let states = self.replay();
        self.check_crashes(&states);
        let db = self.open();
        let rev = db.rev().get();
        assert!(rev >= self.told().returned, "a close that loses commits");
        self.check_content(&db, &states);
    }

    /// What may be gone behind a promise: all that a power cut takes, or with a kill nothing that was written.
    pub(crate) fn check_crashes(&self, states: &BTreeMap<u64, Content>) {
        let (promises, written, compactions) = {
            let mut told = self.told();
            (
                one_of(&mut told.promises),
                one_of(&mut told.written),
                one_of(&mut told.compactions),
            )
        };
        if let Some(Promise { operations, rev }) = promises {
            let kept = self
                .check_image(&self.after_power_cut(operations), states)
                .rev();
            assert!(
                kept.get() >= rev,
                "{rev} was relied on, a power cut leaves {kept}"
            );
        }
        if let Some(Promise { operations, rev }) = written {
            let kept = self.check_image(&self.disk.kill(operations), states).rev();
            assert!(kept.get() >= rev, "{rev} was written, a kill leaves {kept}");
        }
        if let Some(Promise { operations, rev }) = compactions {
            let db = self.check_image(&self.after_power_cut(operations), states);
            let kept = db.compact_rev();
            assert!(
                kept >= Some(Revision::new(rev)),
                "compacted at {rev}, a power cut leaves {kept:?}"
            );
        }
    }

    /// The disk after a power cut that takes all it may.
    pub(crate) fn after_power_cut(&self, operations: u64) -> SimDisk {
        let mut least = Mask::new(Vec::new(), false, false);
        self.disk.image(operations, &mut least)
    }

    fn check_image(&self, image: &SimDisk, states: &BTreeMap<u64, Content>) -> Db {
        let db = self.open_on(image).expect("a store opens after a crash");
        self.check_content(&db, states);
        db
    }

    fn check_content(&self, db: &Db, states: &BTreeMap<u64, Content>) {
        let view = db.read().expect("open");
        let rev = view.rev().get();
        assert_eq!(Some(&content(&view)), states.get(&rev), "content at {rev}");
    }
}

/// Takes one of the promises: the first of some revision. One in each schedule is enough, as there are many
/// schedules.
fn one_of(promises: &mut Vec<Promise>) -> Option<Promise> {
    let mut firsts = std::mem::take(promises);
    firsts.sort_by_key(|promise| (promise.rev, promise.operations));
    firsts.dedup_by_key(|promise| promise.rev);
    let last = firsts.len().checked_sub(1)?;
    let chosen = shuttle::rand::thread_rng().gen_range(0..=last);
    Some(firsts.swap_remove(chosen))
}

/// Makes the changes in a transaction.
pub(crate) fn make(txn: &mut revtree::WriteTxn, changes: &[Change]) -> Result<()> {
    for (key, value) in changes {
        match value {
            Some(value) if *key == ENTRY => txn.table(TABLE)?.put(b"entry", value.as_bytes())?,
            Some(value) => drop(txn.put(key, value)?),
            None => drop(txn.delete(key)?),
        }
    }
    Ok(())
}

pub(crate) fn content(view: &ReadView) -> Content {
    let records = view.range(..).collect().expect("a view reads");
    let mut content: Content = records.kvs.iter().map(state).collect();
    let entry = view.table(TABLE).get(b"entry").expect("a view reads");
    if let Some(entry) = entry {
        let text = String::from_utf8_lossy(&entry).into_owned();
        content.insert(ENTRY.to_owned(), (0, 0, 0, text));
    }
    content
}

fn state(kv: &KeyValue) -> (String, State) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let state = (
        kv.create_revision.get(),
        kv.mod_revision.get(),
        kv.version,
        text(&kv.value),
    );
    (text(&kv.key), state)
}
