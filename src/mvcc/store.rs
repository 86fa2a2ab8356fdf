//! One open store: engine, index, and the commit that joins them.

#![expect(
    clippy::disallowed_types,
    reason = "the writing end of the index, and the worker"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use revtree_format::{
    ChangeId, Control, IndexLeaf, LeaseId, Link, NewRecord, Position, RECORD_HEAD_BYTES_MAX,
    RecordKind, Revision,
};

use super::hash::CompactionHashes;
use super::paced::{PacedCleaner, Passes};
use super::pins::{Pin, Pins};
use super::record::{Keep, KeyValue, Lender, Record, SharedHandles};
use super::retired::Retired;
use super::space::CountedSpace;
use super::submitted::Submitted;
use super::turn::TurnHeld;
use super::txn::{Commit, Op, TableOp, WriteTxn, check_lengths};
use super::versions::{RecordKeys, Version, find_newest, live_at, next_skip};
use super::watched::Watched;
use crate::engine::{
    Appender, Awaited, Background, Engine, IndexRun, Room, State, Ticket, Waiting, Worker, lock,
};
use crate::error::{Error, Result};
use crate::index::{IndexWriter, KeyId, KeyIndex, LeafImage, NewKey, pin};
use crate::lessor::{Lessor, NoLessor};
use crate::metrics::Calls;
use crate::options::{Cleaner, Durability};
use crate::sync::{Mutex, Ordering, thread_local};
use crate::sys::Stopwatch;
use crate::trace;

/// An open store. Views, transactions and shared bytes keep it, and with it the file's lock.
pub(crate) struct Store {
    pub(crate) engine: Arc<Engine>,
    pub(crate) index: Arc<KeyIndex>,
    /// The index's one writer; only the holder of the turn locks it, so nobody waits.
    pub(super) writer: Mutex<IndexWriter>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) lender: Lender,
    pub(crate) lessor: Option<Arc<dyn Lessor>>,
    pub(crate) compactions: CompactionHashes,
    pub(super) counted: CountedSpace,
    /// Who may still read what the cleaner has moved away.
    pub(super) retired: Retired,
    /// Held by whoever cleans.
    pub(super) cleaning: Mutex<()>,
    /// `None`: nothing is cleaned but when it is asked for.
    paced: Option<PacedCleaner>,
    watched: OnceLock<Arc<dyn Watched>>,
    /// The thread that syncs for `Batched` and for futures.
    background: Background,
    threads: bool,
}

/// What a store is made of.
pub(crate) struct StoreParts {
    pub(crate) engine: Arc<Engine>,
    pub(crate) index: Arc<KeyIndex>,
    pub(crate) writer: IndexWriter,
    pub(crate) lessor: Option<Arc<dyn Lessor>>,
    pub(crate) threads: bool,
    pub(crate) cleaner: Cleaner,
}

impl Keep for Engine {}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.engine.path)
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// Whether this thread is inside a callback of a store: a write from there would wait for itself.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// What of one key's record must be known to write its next one.
#[derive(Clone, Copy)]
struct Chain {
    id: KeyId,
    /// `None`: the key has no record, and its id is not told yet.
    newest: Option<Newest>,
}

/// A key's newest record.
#[derive(Clone, Copy)]
enum Newest {
    /// Read when the transaction first touched the key.
    Known(Version),
    /// Written by this commit.
    Written(Position),
}

impl Store {
    pub(crate) fn new(parts: StoreParts) -> Arc<Store> {
        let StoreParts {
            engine,
            index,
            writer,
            lessor,
            threads,
            cleaner,
        } = parts;
        let lender = Lender {
            medium: Arc::clone(&engine.medium),
            handles: Arc::new(SharedHandles::default()),
            _keep: Arc::clone(&engine) as Arc<dyn Keep>,
        };
        let paced = match cleaner {
            Cleaner::Paced(options) if threads && !engine.read_only => {
                Some(PacedCleaner::new(options))
            }
            _ => None,
        };
        let pins = Arc::new(Pins::new(engine.metrics.open_views()));
        engine.metrics.keys(|| index.totals().live);
        Arc::new(Store {
            engine,
            index,
            writer: Mutex::new(writer),
            pins,
            lender,
            lessor,
            compactions: CompactionHashes::default(),
            counted: CountedSpace::default(),
            retired: Retired::default(),
            cleaning: Mutex::default(),
            paced,
            watched: OnceLock::new(),
            background: Background::default(),
            threads,
        })
    }

    /// Tells who watches of every change from now on.
    pub(crate) fn attach_watched(&self, watched: Arc<dyn Watched>) {
        let _ = self.engine.audience.set(Arc::clone(&watched) as _);
        let _ = self.watched.set(watched);
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.engine.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Refuses to write from inside a callback.
    pub(crate) fn check_callback() -> Result<()> {
        if IN_CALLBACK.with(Cell::get) {
            Err(Error::InCallback)
        } else {
            Ok(())
        }
    }

    /// Calls the lessor; a write from inside is refused.
    pub(crate) fn in_callback<R>(&self, call: impl FnOnce(&dyn Lessor) -> R) -> R {
        Store::refuse_writes(|| call(self.lessor.as_deref().unwrap_or(&NoLessor)))
    }

    /// Calls what is the user's; a write from inside is refused.
    pub(crate) fn refuse_writes<R>(call: impl FnOnce() -> R) -> R {
        let outer = IN_CALLBACK.with(|inside| inside.replace(true));
        let result = catch_unwind(AssertUnwindSafe(call));
        IN_CALLBACK.with(|inside| inside.set(outer));
        match result {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// The live compact revision, pinned: what is needed there stays.
    pub(crate) fn pin_compact(&self) -> (Option<Revision>, Pin) {
        loop {
            let compact = self.engine.compact_rev();
            // The pin first, then the look: a compaction that does not see the pin has raised the revision by then.
            let pin = self.pins.pin(compact.unwrap_or_default());
            if self.engine.compact_rev() == compact {
                return (compact, pin);
            }
        }
    }

    /// A key's id and newest record.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Option<(KeyId, Version)>> {
        find_newest(&self.index, &self.engine.medium, key)
    }

    /// A key's current value, copied.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<KeyValue>> {
        self.check_open()?;
        self.engine.metrics.read();
        // Without a view nothing but a guard of the epoch keeps what is found where it is.
        let _guard = pin();
        let rev = self.engine.rev();
        let Some((_, newest)) = self.find(key)? else {
            return Ok(None);
        };
        match live_at(&self.engine.tree, newest, rev)? {
            Some((position, head)) => {
                let record = Record::read(&self.lender, position, head, true)?;
                Ok(Some(record.to_key_value()))
            }
            None => Ok(None),
        }
    }

    /// One put as its own transaction, without an overlay.
    pub(crate) fn put(
        self: &Arc<Store>,
        turn: TurnHeld,
        key: &[u8],
        value: &[u8],
    ) -> Result<Revision> {
        check_lengths(key, value)?;
        self.engine.check_writable()?;
        self.wait_for_cleaner();
        // What is found stays where it is until the record behind it has been written.
        let guard = pin();
        let base = self.find(key)?;
        let (ticket, rev) = {
            let most = OpRef::len_max(key, value);
            let mut appender = self.engine.begin(std::iter::once(most), 0, Room::Changes)?;
            let mut state = appender.accepted().clone();
            state.rev = next_revision(state.rev)?;
            let (create, version) = match &base {
                Some((_, (_, head))) if head.kind == RecordKind::Put => {
                    (head.create, head.version.saturating_add(1))
                }
                _ => (state.rev, 1),
            };
            let op = OpRef {
                key,
                kind: RecordKind::Put,
                value,
                lease: LeaseId::NONE,
                create,
                version,
            };
            let id = ChangeId::new(state.rev, 0);
            let mut writer = lock(&self.writer);
            self.append_one(&mut appender, &mut writer, id, &op, base.as_ref())?;
            writer.publish(state.rev);
            drop(writer);
            drop(guard);
            let rev = state.rev;
            let mut calls = Calls::new();
            calls.put(key.len() + value.len());
            let keys = std::iter::once(key);
            let ticket = self.accept(appender, state, keys, self.engine.durability)?;
            self.count(&calls);
            (ticket, rev)
        };
        let known = base.as_ref().and_then(|(_, (_, head))| live_lease(head));
        let told = catch_unwind(AssertUnwindSafe(|| self.tell(key, known, LeaseId::NONE)));
        drop(turn);
        let settled = self.settle(ticket);
        if let Err(panic) = told {
            resume_unwind(panic);
        }
        settled.map(|_| rev)
    }

    /// Commits a transaction: in order and accepted, not awaited.
    pub(crate) fn submit(txn: WriteTxn) -> Result<Submitted> {
        let store = Arc::clone(&txn.store);
        let begin: State = store.engine.accepted()?;
        let applied_changed = txn.applied != begin.applied;
        if txn.ops.is_empty() && txn.table_ops.is_empty() && !applied_changed {
            store.engine.check_writable()?;
            // What it has read may not be visible yet: it is when the commit returns.
            let ticket = store.engine.accepted_ticket(txn.durability)?;
            store.count(&txn.calls);
            let commit = Commit {
                revision: begin.rev,
                changes: 0,
                durable: false,
            };
            return Ok(Submitted::new(store, ticket, commit));
        }
        store.wait_for_cleaner();
        let changes = txn.ops.len() as u64;
        let mut state = State {
            rev: begin.rev,
            applied: txn.applied,
            compact: begin.compact,
            tables: txn.tables.clone(),
        };
        if changes > 0 {
            state.rev = next_revision(begin.rev)?;
        }
        let rev = state.rev;
        let ticket = store.append(&txn, state, applied_changed)?;
        let panic = store.tell_lessor(&txn);
        let commit = Commit {
            revision: rev,
            changes,
            durable: false,
        };
        // The turn ends here: the next transaction builds on this one while its sync goes on.
        drop(txn);
        if let Some(panic) = panic {
            let _ = store.settle(ticket);
            resume_unwind(panic);
        }
        Ok(Submitted::new(store, ticket, commit))
    }

    /// Appends the transaction and swings the index. Every record of before that is needed is read before
    /// the first byte is appended: where one is damaged, nothing has happened.
    fn append(&self, txn: &WriteTxn, state: State, applied_changed: bool) -> Result<Ticket> {
        let most = |op: &Op| OpRef::len_max(&op.key, &op.value);
        let records = txn.ops.iter().map(most);
        let items = txn.table_ops.iter().map(|op| op.as_control().encoded_len());
        let table_bytes = items.clone().sum::<usize>();
        let bytes = records.clone().sum::<usize>() + table_bytes;
        let mut appender = self.engine.begin(
            records.chain(items).chain(std::iter::once(64)),
            table_bytes as u64,
            Room::Changes,
        )?;
        let mut writer = lock(&self.writer);
        let mut chains = self.chains(txn, &mut writer)?;
        appender.begin_transaction(bytes)?;
        appender.set_revision(state.rev);
        for (sub, op) in (0u64..).zip(&txn.ops) {
            let chain = chains
                .get_mut(&op.key[..])
                .expect("every key with an operation is listed");
            self.write_op(
                &mut appender,
                &mut writer,
                ChangeId::new(state.rev, sub),
                &OpRef::of(op),
                chain,
            )?;
        }
        for (key, pending) in &txn.keys {
            let (Some((id, (_, head))), Some(last)) = (&pending.base, pending.last) else {
                continue;
            };
            let live = txn.ops[last].kind == RecordKind::Put;
            if live != (head.kind == RecordKind::Put) {
                writer.set_live(key, *id, live);
            }
        }
        for op in &txn.table_ops {
            appender.control(&op.as_control())?;
        }
        if applied_changed {
            let applied = txn.applied;
            appender.control(&Control::Applied {
                index: applied.index,
                term: applied.term,
            })?;
        }
        writer.publish(state.rev);
        drop(writer);
        let keys = txn.ops.iter().map(|op| &op.key[..]);
        let ticket = self.accept(appender, state, keys, txn.durability)?;
        self.count(&txn.calls);
        Ok(ticket)
    }

    /// What each key of the transaction begins with; keys that there were not get their places.
    fn chains<'t>(
        &self,
        txn: &'t WriteTxn,
        writer: &mut IndexWriter,
    ) -> Result<BTreeMap<&'t [u8], Chain>> {
        let touched = txn.keys.iter();
        let touched =
            touched.filter_map(|(key, pending)| pending.last.map(|op| (key, pending, op)));
        let new = touched
            .clone()
            .filter(|(_, pending, _)| pending.base.is_none());
        let new: Vec<NewKey<'_>> = new
            .map(|(key, _, last)| (&key[..], txn.ops[last].kind == RecordKind::Put))
            .collect();
        let mut ids = self.place(writer, &new)?;
        let chains = touched.map(|(key, pending, _)| {
            let chain = match &pending.base {
                Some((id, version)) => Chain::behind(*id, *version),
                None => Chain::new(ids.next().expect("one for each new key")),
            };
            (&key[..], chain)
        });
        Ok(chains.collect())
    }

    /// Finds the places of new keys in the index; gives their ids.
    fn place(
        &self,
        writer: &mut IndexWriter,
        new: &[NewKey<'_>],
    ) -> Result<impl Iterator<Item = KeyId> + use<>> {
        if new.len() as u64 > writer.keys_left() {
            return Err(Error::LimitReached {
                what: "keys",
                max: self.index.totals().all + writer.keys_left(),
            });
        }
        let ids = writer.place(new, &RecordKeys(&self.engine.medium))?;
        Ok(ids.into_iter())
    }

    /// Appends one record as a transaction of its own, behind the key's newest, `base`.
    pub(super) fn append_one(
        &self,
        appender: &mut Appender<'_>,
        writer: &mut IndexWriter,
        id: ChangeId,
        op: &OpRef<'_>,
        base: Option<&(KeyId, Version)>,
    ) -> Result<()> {
        let live = op.kind == RecordKind::Put;
        let mut chain = match base {
            Some((id, version)) => Chain::behind(*id, *version),
            None => {
                let mut ids = self.place(writer, &[(op.key, live)])?;
                Chain::new(ids.next().expect("one for each new key"))
            }
        };
        appender.begin_transaction(OpRef::len_max(op.key, op.value))?;
        appender.set_revision(id.main);
        self.write_op(appender, writer, id, op, &mut chain)?;
        if let Some((key, (_, head))) = base
            && (head.kind == RecordKind::Put) != live
        {
            writer.set_live(op.key, *key, live);
        }
        Ok(())
    }

    /// Writes one record behind the key's newest and makes it the newest.
    fn write_op(
        &self,
        appender: &mut Appender<'_>,
        writer: &mut IndexWriter,
        id: ChangeId,
        op: &OpRef<'_>,
        chain: &mut Chain,
    ) -> Result<()> {
        let tree = &self.engine.tree;
        let floor = appender.accepted().compact;
        let newest = match chain.newest {
            Some(Newest::Known(version)) => Some(version),
            Some(Newest::Written(position)) => Some((position, self.engine.medium.head(position)?)),
            None => None,
        };
        let (ordinal, prev, skip) = match newest {
            None => (1, None, None),
            Some(newest) => (
                newest.1.ordinal.saturating_add(1),
                Some(Link {
                    id: newest.1.id,
                    hint: newest.0,
                }),
                next_skip(tree, newest, floor),
            ),
        };
        let record = NewRecord {
            kind: op.kind,
            id,
            create: op.create,
            version: op.version,
            lease: op.lease,
            ordinal,
            prev,
            skip,
            key: op.key,
            value: op.value,
        };
        let position = appender.record(&record)?;
        if newest.is_some() {
            writer.swing(chain.id, position);
        } else {
            writer.name(chain.id, op.key, position);
        }
        chain.newest = Some(Newest::Written(position));
        Ok(())
    }

    /// Counts what an accepted commit was asked for.
    fn count(&self, calls: &Calls) {
        let metrics = &self.engine.metrics;
        metrics.committed(calls, || self.index.totals().live);
    }

    /// Accepts what has been appended: changes of these keys.
    fn accept<'k>(
        &self,
        appender: Appender<'_>,
        state: State,
        keys: impl ExactSizeIterator<Item = &'k [u8]>,
        durability: Durability,
    ) -> Result<Ticket> {
        let changes = keys.len() as u64;
        let unsynced = appender.unsynced_changes() + changes;
        let rev = state.rev;
        let watched = self.watched.get().filter(|watched| watched.is_any());
        if let Some(watched) = watched {
            keys.for_each(|key| watched.mark(rev, key));
        }
        let ticket = appender.accept(state, changes, durability)?;
        if let Some(watched) = watched {
            watched.accepted(rev, &|| self.engine.rev());
        }
        if let (true, Durability::Batched { changes: most, .. }) = (ticket.settled, durability) {
            let due = unsynced >= u64::from(most.max(1));
            if self.threads && self.with_worker(|worker| worker.changed(due)) {
                // The thread cannot keep up: the writer waits for it, so that memory stays bounded.
                if unsynced >= u64::from(most.max(1)) * 4 {
                    self.engine.settle_durable(ticket)?;
                }
            } else if due {
                self.engine.settle_durable(ticket)?;
            }
        }
        Ok(ticket)
    }

    /// Calls the thread that syncs; `false` when there is none to be had.
    fn with_worker(&self, call: impl FnOnce(&Worker)) -> bool {
        let interval = match self.engine.durability {
            Durability::Batched { interval, .. } => interval,
            // Nothing but a request wakes it.
            Durability::Sync | Durability::Flushed => Duration::from_secs(3600),
        };
        self.background.call(&self.engine, interval, call)
    }

    /// Waits for what a commit asked for, then does what has become due.
    pub(crate) fn settle(&self, ticket: Ticket) -> Result<bool> {
        let durable = self.engine.settle(ticket);
        self.background.wake();
        if ticket.checkpoint_due {
            // The thread does nothing of its own accord.
            if !self.background.call_running(|worker| worker.changed(true)) {
                // After the acknowledgement: a failure concerns the next write, and poisons then.
                let _ = self.engine.maintain();
            }
        }
        durable
    }

    /// Whether a commit has settled; else the waker is called when that may have changed. `waiting` is what
    /// the last call left, by which this one sees that the sync it asked for has failed.
    pub(crate) fn poll_settled(
        &self,
        ticket: Ticket,
        waiting: &mut Option<Arc<Waiting>>,
        waker: &Waker,
    ) -> Option<Result<bool>> {
        if !self.threads {
            return Some(self.settle(ticket));
        }
        let settling = Settling {
            engine: &self.engine,
            ticket,
        };
        let settled = self.background.look(&settling, waiting, waker);
        let wanted = settled.is_none() || ticket.checkpoint_due;
        if wanted && !self.with_worker(|worker| worker.changed(true)) {
            return Some(self.settle(ticket));
        }
        settled
    }

    /// Tells the lessor what a commit changed, in order. A panic is caught and given back, so that the
    /// commit ends first.
    fn tell_lessor(&self, txn: &WriteTxn) -> Option<Box<dyn std::any::Any + Send>> {
        let mut leases: std::collections::HashMap<&[u8], Option<LeaseId>> =
            std::collections::HashMap::new();
        let mut panic = None;
        for op in &txn.ops {
            let base = || {
                let base = txn.keys.get(&op.key).and_then(|key| key.base.as_ref());
                base.and_then(|(_, (_, head))| live_lease(head))
            };
            let known = leases.entry(&op.key).or_insert_with(base);
            let told = catch_unwind(AssertUnwindSafe(|| self.tell(&op.key, *known, op.lease)));
            if let Err(caught) = told {
                panic.get_or_insert(caught);
            }
            *known = (op.kind == RecordKind::Put).then_some(op.lease);
        }
        panic
    }

    /// One change of a key's lease: detach the old one and attach the new one when they differ. `known` is
    /// the lease of the key's record; `None`: there was no key, and so nothing to ask the lessor for.
    fn tell(&self, key: &[u8], known: Option<LeaseId>, new: LeaseId) {
        self.in_callback(|lessor| {
            let old = known.map_or(LeaseId::NONE, |known| lessor.lease_of(key).unwrap_or(known));
            if old == new {
                return;
            }
            if old != LeaseId::NONE {
                lessor.detach(old, key);
            }
            if new != LeaseId::NONE {
                lessor.attach(new, key);
            }
        });
    }

    /// Attaches every live key that has a lease: after open and restore. A panic goes on when all have been
    /// told.
    pub(crate) fn attach_leases(&self) -> Result<()> {
        let mut panic = None;
        let told = self.leased(|lease, key| {
            let attach = || self.in_callback(|lessor| lessor.attach(lease, key));
            if let Err(caught) = catch_unwind(AssertUnwindSafe(attach)) {
                panic.get_or_insert(caught);
            }
        });
        match panic {
            Some(panic) => resume_unwind(panic),
            None => told,
        }
    }

    /// Shows every live key that has a lease, in key order; none when nobody is to be told, so that keys
    /// need not be read then.
    pub(crate) fn leased(&self, mut visit: impl FnMut(LeaseId, &[u8])) -> Result<()> {
        if self.lessor.is_none() {
            return Ok(());
        }
        let rev = self.engine.rev();
        let _pin = self.pins.pin(rev);
        let mut scan = super::range::Scan::new(&super::keys::KeyRange::all(), rev, false);
        while let Some(found) = scan.next(self, false) {
            let (position, head) = found?;
            if head.lease != LeaseId::NONE {
                let key = super::range::key_of(self, position)?;
                visit(head.lease, &key);
            }
        }
        Ok(())
    }

    /// The compact revision is raised by one small durable commit. `before` is called, without a lock but the
    /// writer's turn, unless the revision is refused.
    pub(crate) fn compact(
        self: &Arc<Store>,
        turn: TurnHeld,
        rev: Revision,
        before: impl FnOnce(),
    ) -> Result<()> {
        trace::span!("compact", revision = rev.get());
        let time = Stopwatch::start();
        self.engine.check_writable()?;
        // In the writer's turn nobody else accepts anything, and what is visible stays so.
        let mut state: State = self.engine.accepted()?;
        let current = self.engine.rev();
        if rev > current {
            return Err(Error::FutureRevision {
                requested: rev,
                current,
            });
        }
        if let Some(compacted) = state.compact.filter(|compacted| rev <= *compacted) {
            drop(turn);
            // It may be accepted and not have happened yet: who is told of it sees it, as all others do
            // from then on.
            self.settle(self.engine.accepted_ticket(self.engine.durability)?)?;
            return Err(Error::Compacted {
                requested: rev,
                compacted,
            });
        }
        before();
        let ticket = {
            let mut appender = self
                .engine
                .begin(std::iter::once(64), 0, Room::Compaction)?;
            let before = state.compact.replace(rev);
            appender.begin_transaction(64)?;
            appender.set_revision(state.rev);
            appender.control(&Control::Compact { revision: rev })?;
            // Before somebody else's sync can make it visible: whoever sees it must find it (H-5).
            self.compactions.add(before, rev);
            appender.accept(state, 0, Durability::Sync)?
        };
        drop(turn);
        self.settle(ticket)?;
        self.engine.metrics.compacted(&time);
        trace::event!(INFO, "compacted");
        self.wake_cleaner();
        Ok(())
    }

    /// How far the cleaner's thread is, if there is one.
    pub(crate) fn passes(&self) -> Option<Passes> {
        self.paced.as_ref().and_then(PacedCleaner::passes)
    }

    /// Goes on with what a close or a crash has interrupted.
    pub(crate) fn resume_cleaning(self: &Arc<Store>) -> Result<()> {
        let Some(paced) = &self.paced else {
            return Ok(());
        };
        let is_counted = Some(self.engine.counted_dead()?) >= self.engine.compact_rev();
        let segment_bytes = self.engine.medium.geometry.segment_bytes();
        if !is_counted || paced.is_worth(self.engine.used_bytes()?, segment_bytes) {
            paced.wake(self);
        }
        Ok(())
    }

    /// Something may be dead that was not.
    pub(crate) fn wake_cleaner(self: &Arc<Store>) {
        if let Some(paced) = &self.paced {
            paced.wake(self);
        }
    }

    /// Where garbage comes faster than it is cleaned, whoever makes it waits a little.
    fn wait_for_cleaner(&self) {
        let appended = || self.engine.appended().unwrap_or_default();
        let segment_bytes = self.engine.medium.geometry.segment_bytes();
        if let Some(paced) = &self.paced
            && paced.is_behind(appended, segment_bytes)
        {
            self.engine.counters.delayed.fetch_add(1, Ordering::Relaxed);
            paced.wait_for_it();
        }
    }

    /// Ends the threads, if there are any; none is made any more, nor a checkpoint begun in passing.
    pub(crate) fn end_worker(&self) {
        self.background.end(&*self.engine);
        if let Some(paced) = &self.paced {
            paced.end();
        }
    }

    /// Number of shared byte handles.
    pub(crate) fn shared_handles(&self) -> u64 {
        self.lender.handles.count()
    }
}

/// A commit that a task waits for.
struct Settling<'s> {
    engine: &'s Engine,
    ticket: Ticket,
}

impl Awaited for Settling<'_> {
    type Outcome = Result<bool>;

    fn look(&self) -> Option<Result<bool>> {
        self.engine.settled(self.ticket)
    }

    fn failed(&self, error: Error) -> Result<bool> {
        Err(self.ticket.unknown(error))
    }
}

impl IndexRun for Store {
    fn dump(&self, visit: &mut dyn FnMut(&IndexLeaf) -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        self.index.leaves(|leaf| {
            if result.is_ok() {
                result = visit(&to_format(leaf));
            }
        });
        result
    }
}

/// A leaf of the index as it goes into the file.
pub(crate) fn to_format(leaf: LeafImage) -> IndexLeaf {
    let entries = leaf.entries.iter().map(|entry| revtree_format::IndexEntry {
        chunk: entry.chunk,
        hash: entry.hash,
        live: entry.live,
        position: entry.position,
    });
    IndexLeaf {
        separator: leaf.separator,
        prefix: leaf.prefix,
        entries: entries.collect(),
    }
}

impl Chain {
    /// Of a key that has been placed.
    fn new(id: KeyId) -> Chain {
        Chain { id, newest: None }
    }

    /// Of a key whose newest record is known.
    fn behind(id: KeyId, newest: Version) -> Chain {
        Chain {
            id,
            newest: Some(Newest::Known(newest)),
        }
    }
}

/// One change, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct OpRef<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) kind: RecordKind,
    pub(crate) value: &'a [u8],
    pub(crate) lease: LeaseId,
    pub(crate) create: Revision,
    pub(crate) version: u64,
}

impl<'a> OpRef<'a> {
    /// The most bytes that the record of a put or delete takes.
    pub(super) fn len_max(key: &[u8], value: &[u8]) -> usize {
        RECORD_HEAD_BYTES_MAX + key.len() + value.len() + 8
    }

    fn of(op: &'a Op) -> OpRef<'a> {
        OpRef {
            key: &op.key,
            kind: op.kind,
            value: &op.value,
            lease: op.lease,
            create: op.create,
            version: op.version,
        }
    }
}

impl TableOp {
    /// Bytes that it takes in the log.
    pub(crate) fn bytes(&self) -> u64 {
        self.as_control().encoded_len() as u64
    }

    pub(crate) fn as_control(&self) -> Control<'_> {
        match self {
            TableOp::Create(table) => Control::TableCreate { table },
            TableOp::Put(table, key, value) => Control::TablePut { table, key, value },
            TableOp::Delete(table, key) => Control::TableDelete { table, key },
        }
    }
}

/// The lease of a record by which its key lives.
fn live_lease(head: &revtree_format::RecordHead) -> Option<LeaseId> {
    (head.kind == RecordKind::Put).then_some(head.lease)
}

fn next_revision(rev: Revision) -> Result<Revision> {
    let max = revtree_format::limits::REVISION_MAX;
    if rev.get() >= max {
        return Err(Error::LimitReached {
            what: "revision",
            max,
        });
    }
    Ok(rev.next())
}
