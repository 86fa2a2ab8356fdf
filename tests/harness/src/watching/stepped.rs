//! One thread that does one thing after the other: the seed brings all of it back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream as _;
use revtree::storage::MemoryDisk;
use revtree::storage::sim::{Cut, SimDisk, SimOptions};
use revtree::{Db, Durability, Error, Options, WatchId, WatchStream};
use revtree_format::Revision;

use super::draw;
use super::record::{Asked, Content, Drops, History, Keys, Moment, Op, Start, Update};
use super::store;
use crate::crash::{STORE, Setup, end_process};
use crate::random::Random;

/// Address space of a store.
const STORE_BYTES_MAX: u64 = 1 << 27;
/// A stream that ends with its store gives all that is left while it is less than 4 MiB: far more than so many of our
/// batches.
const LAST_RESPONSES: u64 = 100;
const STREAMS_MAX: usize = 4;

/// Draws and does a history.
///
/// # Errors
///
/// What the store refuses that it may not, with the seed's setup.
pub fn run(seed: u64) -> Result<History, String> {
    let mut random = Random::new(seed ^ 0x57E9);
    let setup = Setup::draw(&mut random);
    let steps = match random.below(8) {
        0 => 150 + random.below(250),
        1 | 2 => 60 + random.below(60),
        _ => 15 + random.below(40),
    };
    let disk = random.once_in(2).then(|| disk(seed));
    let options = match &disk {
        Some(disk) => setup.options(disk),
        None => Options::new()
            .disk(Arc::new(MemoryDisk::new()))
            .durability(setup.durability)
            .segment_bytes(64 << 10)
            .store_bytes_max(STORE_BYTES_MAX)
            .checkpoint_bytes(setup.checkpoint_bytes),
    };
    let db = options.clone().open(STORE).map_err(says("open"))?;
    let mut life = Life {
        random,
        setup,
        options,
        disk,
        db: Some(db),
        history: History {
            contents: vec![Content::default()],
            moments: Vec::new(),
        },
        compact: 0,
        streams: Vec::new(),
        made: 0,
        values: 0,
        time: 0,
        files: Vec::new(),
    };
    life.add_stream()?;
    for _ in 0..steps {
        life.step()?;
        life.look()?;
    }
    life.end()?;
    Ok(life.history)
}

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(SimOptions {
        seed,
        ..SimOptions::default()
    })
}

fn says(what: &str) -> impl Fn(Error) -> String {
    move |error| format!("wrong: {what}: {error}")
}

/// Whether it was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Stream {
    number: usize,
    stream: WatchStream,
    /// Received after each step until there is nothing.
    eager: bool,
    /// Received by polling.
    polled: bool,
    asleep: bool,
    woken: Arc<Flag>,
    /// Watchers that have not been told their end, each with the last revision that it was told.
    watchers: BTreeMap<i64, (Asked, Option<u64>)>,
}

/// A file that may be put in place: where it lies, what is in it, and its compact revision.
struct File {
    path: PathBuf,
    content: Content,
    compact: u64,
}

struct Life {
    random: Random,
    setup: Setup,
    options: Options,
    disk: Option<SimDisk>,
    db: Option<Db>,
    history: History,
    compact: u64,
    streams: Vec<Stream>,
    made: usize,
    values: u64,
    time: u64,
    files: Vec<File>,
}

impl Life {
    fn db(&self) -> &Db {
        self.db.as_ref().expect("open between two steps")
    }

    fn content(&mut self) -> &mut Content {
        self.history.contents.last_mut().expect("there is one")
    }

    fn note(&mut self, moment: Moment) {
        self.history.moments.push(moment);
    }

    fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    fn visible(&self) -> u64 {
        self.db().rev().get()
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..36 => self.write(),
            36..40 => self.db().sync().map(|_| ()).map_err(says("sync")),
            40..56 => self.watch(),
            56..70 => self.receive(),
            70..74 => self.cancel(),
            74..79 => self.ask(),
            79..82 => self.ask_all(),
            82..87 => self.compaction(),
            87..90 => self.save(),
            90..93 => self.restore(),
            93 | 94 => self.other_store(),
            95 | 96 => self.add_stream(),
            97 => self.close_stream(),
            98 => self.reopen(),
            _ => self.crash(),
        }
    }

    /// What has become visible is noted, and given to those who wait for it.
    fn look(&mut self) -> Result<(), String> {
        let visible = self.visible();
        self.note(Moment::Visible(visible));
        for at in 0..self.streams.len() {
            if self.streams[at].eager {
                self.drain(at)?;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), String> {
        self.values += 1;
        let ops = draw::ops(&mut self.random, self.values);
        let changed = self.content().commit(&ops);
        let newest = self.content().newest;
        let rev = match ops.as_slice() {
            [Op::Put(key, value)] if self.random.once_in(2) => {
                self.db().put(key, value).map_err(says("put"))?.get()
            }
            [Op::Delete(Keys::One(key))] if self.random.once_in(2) => {
                let deleted = self.db().delete(key).map_err(says("delete"))?;
                deleted.revision.get()
            }
            _ => {
                let mut txn = self.db().write().map_err(says("write"))?;
                store::write(&mut txn, &ops).map_err(says("write"))?;
                // Not waited for: accepted, and visible when something makes it so.
                if self.random.once_in(3) {
                    txn.submit().map_err(says("submit"))?.revision().get()
                } else {
                    txn.commit().map_err(says("commit"))?.revision.get()
                }
            }
        };
        if rev != newest {
            return Err(format!(
                "wrong: {ops:?} has made {rev}, not {newest}; changed: {changed}"
            ));
        }
        Ok(())
    }

    fn some_stream(&mut self) -> Option<usize> {
        let count = self.streams.len();
        (count > 0).then(|| self.random.index(count))
    }

    fn some_watcher(&mut self, at: usize) -> Option<i64> {
        let ids: Vec<i64> = self.streams[at].watchers.keys().copied().collect();
        (!ids.is_empty()).then(|| *self.random.pick(&ids))
    }

    fn add_stream(&mut self) -> Result<(), String> {
        if self.streams.len() >= STREAMS_MAX {
            return self.close_stream();
        }
        let stream = self.db().watch_stream().map_err(says("watch_stream"))?;
        self.made += 1;
        let polled = self.random.once_in(3);
        self.streams.push(Stream {
            number: self.made,
            stream,
            eager: self.random.once_in(2),
            polled,
            asleep: false,
            woken: Arc::default(),
            watchers: BTreeMap::new(),
        });
        Ok(())
    }

    fn close_stream(&mut self) -> Result<(), String> {
        let Some(at) = self.some_stream() else {
            return self.add_stream();
        };
        let stream = self.streams.swap_remove(at);
        if self.random.once_in(2) {
            stream.stream.close();
            return Ok(());
        }
        // Its receiver is told.
        stream.stream.control().close();
        let number = stream.number;
        let returned = self.tick();
        self.note(Moment::Closed {
            stream: number,
            returned,
        });
        self.streams.push(stream);
        let at = self.streams.len() - 1;
        let more = self.receive_one(at)?;
        self.streams.pop();
        match more {
            Received::End => Ok(()),
            _ => Err("wrong: a closed stream does not end".to_owned()),
        }
    }

    fn watch(&mut self) -> Result<(), String> {
        let Some(at) = self.some_stream() else {
            return self.add_stream();
        };
        let (visible, compact) = (self.visible(), self.compact);
        let asked = draw::asked(&mut self.random, visible, compact);
        // Chosen ids, some of them in use; 0 asks for one to be chosen.
        let id = self.random.once_in(3).then(|| self.random.index(8) as i64);
        self.watch_as(at, &asked, id)
    }

    fn watch_as(&mut self, at: usize, asked: &Asked, id: Option<i64>) -> Result<(), String> {
        let visible = self.visible();
        let added = self.streams[at]
            .stream
            .watch_with(store::request(asked, id));
        let id = match added {
            Ok(id) => id.0,
            Err(Error::WatcherDuplicateId(WatchId(id)))
                if self.streams[at].watchers.contains_key(&id) =>
            {
                return Ok(());
            }
            Err(error) => return Err(format!("wrong: watch {asked:?} as {id:?}: {error}")),
        };
        let stream = &mut self.streams[at];
        stream.watchers.insert(id, (asked.clone(), None));
        let moment = Moment::Watch {
            stream: stream.number,
            id,
            asked: asked.clone(),
            visible: (visible, visible),
            compact: (self.compact, self.compact),
            returned: self.tick(),
        };
        self.note(moment);
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), String> {
        let Some(at) = self.some_stream() else {
            return Ok(());
        };
        let Some(id) = self.some_watcher(at) else {
            return self.watch();
        };
        let began = self.tick();
        match self.streams[at].stream.cancel(WatchId(id)) {
            // It had ended by itself: whoever was told so is told nothing more.
            Ok(()) | Err(Error::Canceled(_)) => {}
            Err(error) => return Err(format!("wrong: cancel {id}: {error}")),
        }
        if !matches!(
            self.streams[at].stream.cancel(WatchId(id)),
            Err(Error::WatcherNotExist(_))
        ) {
            return Err(format!("wrong: {id} was cancelled twice"));
        }
        let stream = self.streams[at].number;
        let time = (began, self.tick());
        self.note(Moment::Cancelled { stream, id, time });
        let (asked, told) = self.streams[at].watchers.remove(&id).expect("it is there");
        // Most go on where they were, under the same id or another.
        let Some(last) = told.filter(|_| !self.random.once_in(3)) else {
            return Ok(());
        };
        let asked = Asked {
            start: Start::After(last),
            ..asked
        };
        let id = self.random.once_in(2).then_some(id);
        self.watch_as(at, &asked, id)
    }

    fn ask(&mut self) -> Result<(), String> {
        let Some(at) = self.some_stream() else {
            return Ok(());
        };
        let Some(id) = self.some_watcher(at) else {
            return self.watch();
        };
        match self.streams[at].stream.request_progress(WatchId(id)) {
            Ok(()) => {
                let (stream, time) = (self.streams[at].number, self.tick());
                self.note(Moment::Ask {
                    stream,
                    id: Some(id),
                    time,
                });
                Ok(())
            }
            Err(Error::Canceled(_)) => Ok(()),
            Err(error) => Err(format!("wrong: request_progress {id}: {error}")),
        }
    }

    fn ask_all(&mut self) -> Result<(), String> {
        let Some(at) = self.some_stream() else {
            return Ok(());
        };
        let asked = self.streams[at].stream.request_progress_all();
        asked.map_err(says("request_progress_all"))?;
        let (stream, time) = (self.streams[at].number, self.tick());
        self.note(Moment::Ask {
            stream,
            id: None,
            time,
        });
        Ok(())
    }

    fn compaction(&mut self) -> Result<(), String> {
        let visible = self.visible();
        let back = if self.random.once_in(2) {
            0
        } else {
            self.random.below(10)
        };
        let rev = visible.saturating_sub(back);
        if rev <= self.compact {
            return Ok(());
        }
        self.note(Moment::Compact(rev));
        self.db()
            .compact(Revision::new(rev))
            .map_err(says("compact"))?;
        self.compact = rev;
        Ok(())
    }

    /// A snapshot is saved, to be put in place later.
    fn save(&mut self) -> Result<(), String> {
        let path = PathBuf::from(format!("saved.{}", self.tick()));
        let snapshot = self.db().snapshot().map_err(says("snapshot"))?;
        snapshot.save(&path).map_err(says("save"))?;
        let content = self.content().at(snapshot.revision().get());
        let compact = self.compact;
        self.files.push(File {
            path,
            content,
            compact,
        });
        Ok(())
    }

    /// Another store, with a history of its own.
    fn other_store(&mut self) -> Result<(), String> {
        let path = PathBuf::from(format!("other.{}", self.tick()));
        let db = self
            .options
            .clone()
            .open(&path)
            .map_err(says("another store"))?;
        let mut content = Content::default();
        for _ in 0..self.random.below(self.visible() * 2 + 4) {
            self.values += 1;
            let ops = draw::ops(&mut self.random, self.values);
            let mut txn = db.write().map_err(says("write"))?;
            store::write(&mut txn, &ops).map_err(says("write"))?;
            txn.commit().map_err(says("commit"))?;
            content.commit(&ops);
        }
        let compact = self.random.below(content.newest + 1);
        let compact = if self.random.once_in(2) { compact } else { 0 };
        if compact > 0 {
            db.compact(Revision::new(compact))
                .map_err(says("compact"))?;
        }
        db.close().map_err(says("close"))?;
        self.files.push(File {
            path,
            content,
            compact,
        });
        self.restore()
    }

    fn restore(&mut self) -> Result<(), String> {
        if self.files.is_empty() {
            return self.save();
        }
        let at = self.random.index(self.files.len());
        let File {
            path,
            content,
            compact,
        } = self.files.swap_remove(at);
        let end = self.visible();
        self.db().restore(&path).map_err(says("restore"))?;
        self.found(&content)?;
        self.note(Moment::Restored { end, compact });
        self.history.contents.push(content);
        self.compact = compact;
        Ok(())
    }

    /// The store has just this content.
    fn found(&self, content: &Content) -> Result<(), String> {
        if self.visible() == content.newest {
            return Ok(());
        }
        Err(format!(
            "wrong: the store is at {}, not at {}",
            self.visible(),
            content.newest
        ))
    }

    /// A close with streams that have not been given all, and another open.
    fn reopen(&mut self) -> Result<(), String> {
        self.close()?;
        let db = self
            .options
            .clone()
            .open(STORE)
            .map_err(says("open again"))?;
        self.db = Some(db);
        let content = self.content().clone();
        self.found(&content)?;
        self.opened(content, true)
    }

    /// All that is accepted is given before the streams' end.
    fn close(&mut self) -> Result<(), String> {
        let newest = self.content().newest;
        let db = self.db.take().expect("open between two steps");
        self.note(Moment::Visible(newest));
        db.close().map_err(says("close"))?;
        for at in 0..self.streams.len() {
            let mut count = 0;
            while let Received::Response = self.receive_one(at)? {
                count += 1;
            }
            if !matches!(self.receive_one(at)?, Received::End) {
                return Err("wrong: a stream does not end with its store".to_owned());
            }
            // Batches of which filters leave nothing count too.
            let stream = &self.streams[at];
            let watchers = stream.watchers.len() as u64;
            let none_drops = stream
                .watchers
                .values()
                .all(|(asked, _)| asked.drops == Drops::Nothing);
            if count < LAST_RESPONSES && none_drops || watchers * newest < LAST_RESPONSES {
                let stream = stream.number;
                self.note(Moment::Dry {
                    stream,
                    visible: newest,
                });
            }
        }
        Ok(())
    }

    fn crash(&mut self) -> Result<(), String> {
        let Some(disk) = &self.disk else {
            return Ok(());
        };
        let cut = Cut::Sampled(self.random.bits());
        let image = if self.random.once_in(4) {
            disk.kill(disk.operations())
        } else {
            disk.image(disk.operations(), &mut *cut.choice())
        };
        self.files.clear();
        let db = self.db.take().expect("open between two steps");
        let old: Vec<Stream> = std::mem::take(&mut self.streams);
        end_process(db, disk);
        self.options = self.setup.options(&image);
        self.disk = Some(image);
        let db = self
            .options
            .clone()
            .open(STORE)
            .map_err(says("open after a crash"))?;
        let rev = db.rev().get();
        self.db = Some(db);
        if rev > self.content().newest {
            return Err(format!("wrong: after a crash there is {rev}"));
        }
        let content = self.content().at(rev);
        self.streams = old;
        self.opened(content, self.setup.durability == Durability::Sync)
    }

    /// The store was opened again: streams are new, and most watchers go on where they were.
    fn opened(&mut self, content: Content, lossless: bool) -> Result<(), String> {
        let rev = content.newest;
        self.history.contents.push(content);
        let compact = self.db().compact_rev().map_or(0, Revision::get);
        if compact != self.compact {
            return Err(format!(
                "wrong: compacted at {compact}, not {}",
                self.compact
            ));
        }
        self.note(Moment::Crashed {
            lossless,
            rev,
            compact,
        });
        self.note(Moment::Visible(rev));
        for old in std::mem::take(&mut self.streams) {
            self.add_stream()?;
            let at = self.streams.len() - 1;
            for (id, (asked, told)) in old.watchers {
                let Some(last) = told.filter(|_| !self.random.once_in(4)) else {
                    continue;
                };
                let asked = Asked {
                    start: Start::After(last),
                    ..asked
                };
                self.watch_as(at, &asked, Some(id))?;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), String> {
        let Some(at) = self.some_stream() else {
            return Ok(());
        };
        for _ in 0..=self.random.below(6) {
            if !matches!(self.receive_one(at)?, Received::Response) {
                break;
            }
        }
        Ok(())
    }

    fn drain(&mut self, at: usize) -> Result<(), String> {
        let visible = self.visible();
        loop {
            match self.receive_one(at)? {
                Received::Response => {}
                Received::Nothing => break,
                Received::End => return Err("wrong: an open stream ends".to_owned()),
            }
        }
        let stream = self.streams[at].number;
        self.note(Moment::Dry { stream, visible });
        Ok(())
    }

    fn receive_one(&mut self, at: usize) -> Result<Received, String> {
        let began = self.tick();
        let panics = self.random.once_in(4);
        let stream = &mut self.streams[at];
        let panicked;
        let received = if stream.polled {
            let was_asleep = std::mem::take(&mut stream.asleep);
            let woken = stream.woken.0.swap(false, Ordering::SeqCst);
            let waker = Waker::from(Arc::clone(&stream.woken));
            let poll = || loop {
                let mut context = Context::from_waker(&waker);
                let polled = Pin::new(&mut stream.stream).poll_next(&mut context);
                // One that gives way is polled again at once.
                if polled.is_ready() || !stream.woken.0.swap(false, Ordering::SeqCst) {
                    return polled;
                }
            };
            let (polled, did) = store::receive(panics, poll);
            panicked = did.then_some(stream.number);
            stream.asleep = polled.is_pending();
            if was_asleep && !woken && polled.is_ready() {
                let stream = stream.number;
                self.note(Moment::Unwoken { stream });
            }
            match polled {
                Poll::Ready(Some(response)) => response,
                Poll::Ready(None) => return Ok(Received::End),
                Poll::Pending => return Ok(Received::Nothing),
            }
        } else {
            let (received, did) = store::receive(panics, || stream.stream.try_recv());
            panicked = did.then_some(stream.number);
            match received {
                Ok(Some(response)) => response,
                Ok(None) => return Ok(Received::Nothing),
                Err(Error::Closed) => return Ok(Received::End),
                Err(error) => return Err(format!("wrong: try_recv: {error}")),
            }
        };
        if let Some(stream) = panicked {
            self.note(Moment::FilterPanicked { stream });
        }
        let (id, revision, update) = store::response(&received);
        let stream = &mut self.streams[at];
        match (&update, stream.watchers.get_mut(&id)) {
            (Update::Compacted(_) | Update::Failed(_), _) => {
                stream.watchers.remove(&id);
            }
            (_, Some((_, told))) => *told = Some(revision.max(told.unwrap_or(0))),
            (_, None) => {}
        }
        let moment = Moment::Given {
            stream: stream.number,
            id,
            revision,
            update,
            time: (began, self.tick()),
        };
        self.note(moment);
        Ok(Received::Response)
    }

    /// Everything that is left is given.
    fn end(&mut self) -> Result<(), String> {
        if self.random.once_in(2) {
            return self.close();
        }
        for at in 0..self.streams.len() {
            self.drain(at)?;
        }
        self.db
            .take()
            .map_or(Ok(()), Db::close)
            .map_err(says("close"))
    }
}

enum Received {
    Response,
    Nothing,
    End,
}
