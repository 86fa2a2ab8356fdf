//! Writers, receivers and those who add and cancel, each on a thread of its own.
//!
//! The seed says what each asks; which comes first is up to the machine. So moments are put into an order that
//! forbids nothing that was possible: what may be seen from a call on stands where it began, what may not be seen
//! from then on where it had returned, and what a receiver had where it had returned.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_core::Stream as _;
use revtree::{Db, Error, WatchControl, WatchId, WatchStream};
use revtree_format::Revision;

use super::draw;
use super::record::{Asked, Content, Drops, History, Keys, Moment, Op, Start, Update};
use super::store;
use crate::crash::Setup;
use crate::histories::{disk, open};
use crate::random::Random;

/// Put last by the main thread, and watched by each stream: behind it nothing comes.
const LAST: &str = "~last";
/// Who has not been woken in this time has been forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// How many of what.
#[derive(Clone, Copy, Debug)]
struct Plan {
    writers: usize,
    /// Commits of each.
    commits: u64,
    /// Streams, each with a receiver.
    receivers: usize,
    /// Watchers that each stream has from the beginning.
    watchers: usize,
    /// Watchers that are added, and mostly cancelled, while others write.
    comings: usize,
    compactions: bool,
}

impl Plan {
    fn draw(random: &mut Random) -> Plan {
        let (watchers, commits) = match random.below(160) {
            0 => (3000, 30),
            1..5 => (300, 60),
            _ => (1 + random.index(8), 20 + random.below(60)),
        };
        Plan {
            writers: 1 + random.index(2),
            commits,
            receivers: 1 + random.index(4),
            watchers,
            comings: random.index(20),
            compactions: random.once_in(2),
        }
    }
}

/// How a receiver receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// It waits.
    Waits,
    /// It waits, and is busy for a while now and then.
    Slow,
    /// It is polled, and sleeps until its waker is called.
    Polls,
    /// It does nothing until the writers have come to their end.
    Dead,
}

/// What all threads share.
struct Shared<'d> {
    db: &'d Db,
    time: AtomicU64,
    /// Writers that have not come to their end.
    writing: AtomicUsize,
    moments: Mutex<Vec<(u64, Moment)>>,
    commits: Mutex<BTreeMap<u64, Vec<Op>>>,
    failed: Mutex<Option<String>>,
    values: AtomicU64,
}

/// Draws and does a history.
///
/// # Errors
///
/// What the store refuses that it may not, or who was not woken.
pub fn run(seed: u64) -> Result<History, String> {
    let mut random = Random::new(seed ^ 0x7472_6561);
    let setup = Setup::draw(&mut random);
    let plan = Plan::draw(&mut random);
    let failed = |error: Error| format!("wrong: the store cannot be made: {error}");
    let db = if random.once_in(2) {
        open(setup, &disk(seed)).map_err(failed)?
    } else {
        let options = revtree::Options::new().durability(setup.durability);
        options.open_in_memory().map_err(failed)?
    };
    let shared = Shared {
        db: &db,
        time: AtomicU64::new(1),
        writing: AtomicUsize::new(plan.writers),
        moments: Mutex::default(),
        commits: Mutex::default(),
        failed: Mutex::default(),
        values: AtomicU64::new(0),
    };
    let outcome = shared.live(plan, &mut random);
    let Shared {
        moments,
        commits,
        failed,
        ..
    } = shared;
    outcome.map_err(|why| format!("{why}\n{setup:?}, {plan:?}"))?;
    if let Some(why) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(format!("{why}\n{setup:?}, {plan:?}"));
    }
    db.close()
        .map_err(|error| format!("wrong: close: {error}"))?;
    let mut content = Content::default();
    for (rev, ops) in commits.into_inner().unwrap_or_else(PoisonError::into_inner) {
        if !content.commit(&ops) || content.newest != rev {
            return Err(format!(
                "wrong: {ops:?} has made {rev}, behind {}",
                content.newest
            ));
        }
    }
    let mut moments = moments.into_inner().unwrap_or_else(PoisonError::into_inner);
    moments.sort_by_key(|(time, _)| *time);
    Ok(History {
        contents: vec![content],
        moments: moments.into_iter().map(|(_, moment)| moment).collect(),
    })
}

impl Shared<'_> {
    fn tick(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, time: u64, moment: Moment) {
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.push((time, moment));
    }

    /// Whoever fails first is told of.
    fn fail(&self, why: String) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(why);
    }

    fn live(&self, plan: Plan, random: &mut Random) -> Result<(), String> {
        let mut streams = Vec::new();
        for number in 0..plan.receivers {
            let made = self.db.watch_stream();
            let stream = made.map_err(|error| format!("wrong: watch_stream: {error}"))?;
            let control = stream.control();
            // Ids are chosen: this one is 0, and none is used again.
            let last = Asked {
                keys: Keys::One(LAST.to_owned()),
                start: Start::Now,
                prev: false,
                drops: Drops::Nothing,
                bytes_max: 1 << 20,
            };
            self.watch(number, &control, &last);
            for _ in 0..plan.watchers {
                let asked = self.asked(random);
                self.watch(number, &control, &asked);
            }
            let hows = [
                How::Waits,
                How::Waits,
                How::Slow,
                How::Polls,
                How::Polls,
                How::Dead,
            ];
            streams.push((number, stream, *random.pick(&hows)));
        }
        let controls: Vec<WatchControl> = streams
            .iter()
            .map(|(_, stream, _)| stream.control())
            .collect();
        thread::scope(|scope| {
            for _ in 0..plan.writers {
                let random = Random::new(random.bits());
                scope.spawn(move || self.writes(plan, random));
            }
            for (number, stream, how) in streams {
                let random = Random::new(random.bits());
                scope.spawn(move || self.receives(number, stream, how, random));
            }
            let random = Random::new(random.bits());
            let coming = scope.spawn(move || self.comes_and_goes(plan, &controls, random));
            let _ = coming.join();
            while self.writing.load(Ordering::SeqCst) > 0 {
                thread::yield_now();
            }
            let put = Op::Put(LAST.to_owned(), String::new());
            self.commit(vec![put]);
        });
        Ok(())
    }

    fn asked(&self, random: &mut Random) -> Asked {
        let compact = self.compact();
        draw::asked(random, self.db.rev().get(), compact)
    }

    fn compact(&self) -> u64 {
        self.db.compact_rev().map_or(0, Revision::get)
    }

    fn watch(&self, stream: usize, control: &WatchControl, asked: &Asked) -> Option<i64> {
        let (compact, before, began) = (self.compact(), self.db.rev().get(), self.tick());
        match control.watch_with(store::request(asked, None)) {
            Ok(WatchId(id)) => {
                let moment = Moment::Watch {
                    stream,
                    id,
                    asked: asked.clone(),
                    visible: (before, self.db.rev().get()),
                    compact: (compact, self.compact()),
                    returned: self.tick(),
                };
                self.note(began, moment);
                Some(id)
            }
            Err(error) => {
                self.fail(format!("wrong: watch {asked:?}: {error}"));
                None
            }
        }
    }

    /// Whether it was there.
    fn cancel(&self, stream: usize, control: &WatchControl, id: i64) -> bool {
        let began = self.tick();
        match control.cancel(WatchId(id)) {
            // Its receiver may have cancelled it, or the other thread.
            Err(Error::WatcherNotExist(_)) => {}
            Ok(()) | Err(Error::Canceled(_)) => {
                let time = (began, self.tick());
                self.note(began, Moment::Cancelled { stream, id, time });
                return true;
            }
            Err(error) => self.fail(format!("wrong: cancel {id}: {error}")),
        }
        false
    }

    /// Does a transaction, and keeps it under its revision.
    fn commit(&self, ops: Vec<Op>) {
        let began = self.tick();
        let commit = || {
            let mut txn = self.db.write()?;
            store::write(&mut txn, &ops)?;
            txn.commit()
        };
        match commit() {
            Ok(commit) if commit.changes > 0 => {
                let rev = commit.revision.get();
                self.note(began, Moment::Visible(rev));
                let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
                commits.insert(rev, ops);
            }
            Ok(_) => {}
            Err(error) => self.fail(format!("wrong: commit: {error}")),
        }
    }

    fn writes(&self, plan: Plan, mut random: Random) {
        for _ in 0..plan.commits {
            if plan.compactions && random.once_in(12) {
                let rev = self.db.rev().get().saturating_sub(random.below(10));
                let began = self.tick();
                // Another one may have come first.
                if rev > 1 && self.db.compact(Revision::new(rev)).is_ok() {
                    self.note(began, Moment::Compact(rev));
                }
            }
            let nth = self.values.fetch_add(1, Ordering::Relaxed);
            self.commit(draw::ops(&mut random, nth));
            if random.once_in(8) {
                thread::yield_now();
            }
        }
        self.writing.fetch_sub(1, Ordering::SeqCst);
    }

    fn comes_and_goes(&self, plan: Plan, controls: &[WatchControl], mut random: Random) {
        let mut there = Vec::new();
        for _ in 0..plan.comings {
            let stream = random.index(controls.len());
            let control = &controls[stream];
            match random.below(8) {
                0..4 => {
                    let asked = self.asked(&mut random);
                    there.extend(self.watch(stream, control, &asked).map(|id| (stream, id)));
                }
                4 | 5 if !there.is_empty() => {
                    let (stream, id) = there.swap_remove(random.index(there.len()));
                    self.cancel(stream, &controls[stream], id);
                }
                6 => {
                    let time = self.tick();
                    if control.request_progress_all().is_ok() {
                        self.note(
                            time,
                            Moment::Ask {
                                stream,
                                id: None,
                                time,
                            },
                        );
                    }
                }
                _ if !there.is_empty() => {
                    let (stream, id) = *random.pick(&there);
                    let time = self.tick();
                    if controls[stream].request_progress(WatchId(id)).is_ok() {
                        self.note(
                            time,
                            Moment::Ask {
                                stream,
                                id: Some(id),
                                time,
                            },
                        );
                    }
                }
                _ => {}
            }
            if random.once_in(3) {
                thread::sleep(Duration::from_micros(random.below(200)));
            }
        }
    }

    fn receives(&self, number: usize, mut stream: WatchStream, how: How, mut random: Random) {
        let control = stream.control();
        let woken = Arc::new(Woken {
            thread: thread::current(),
            called: AtomicBool::new(false),
        });
        let mut watchers: BTreeMap<i64, u64> = BTreeMap::new();
        let mut is_last = false;
        if how == How::Dead {
            while self.writing.load(Ordering::SeqCst) > 0 {
                thread::sleep(Duration::from_micros(100));
            }
        }
        loop {
            let began = self.tick();
            let visible = self.db.rev().get();
            let (received, panicked) = store::receive(random.once_in(4), || match how {
                _ if is_last => stream.try_recv(),
                How::Polls => polled(&mut stream, &woken),
                How::Waits | How::Slow | How::Dead => stream.recv_timeout(FORGOTTEN),
            });
            if panicked {
                let stream = number;
                self.note(self.tick(), Moment::FilterPanicked { stream });
            }
            let response = match received {
                Ok(Some(response)) => response,
                Ok(None) if is_last => {
                    let stream = number;
                    self.note(self.tick(), Moment::Dry { stream, visible });
                    return;
                }
                Ok(None) => {
                    return self.fail(format!(
                        "wrong: the receiver of {number}, {how:?}, was not woken"
                    ));
                }
                Err(error) => return self.fail(format!("wrong: receive: {error}")),
            };
            let (id, revision, update) = store::response(&response);
            is_last |= id == 0 && matches!(update, Update::Events(_));
            if matches!(update, Update::Events(_)) && id > 0 {
                watchers.insert(id, revision);
            }
            let returned = self.tick();
            let moment = Moment::Given {
                stream: number,
                id,
                revision,
                update,
                time: (began, returned),
            };
            self.note(returned, moment);
            if how == How::Slow && random.once_in(6) {
                thread::sleep(Duration::from_micros(random.below(500)));
            }
            // A receiver that gives up, and goes on where it was.
            if random.once_in(30)
                && let Some((id, told)) = watchers.pop_first()
            {
                let asked = self.asked(&mut random);
                let asked = Asked {
                    start: Start::After(told),
                    ..asked
                };
                if self.cancel(number, &control, id) {
                    self.watch(number, &control, &asked);
                }
            }
        }
    }
}

/// A waker made by hand.
struct Woken {
    thread: Thread,
    called: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.called.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Polls, and sleeps until the waker is called.
fn polled(
    stream: &mut WatchStream,
    woken: &Arc<Woken>,
) -> revtree::Result<Option<revtree::WatchResponse>> {
    let waker = Waker::from(Arc::clone(woken));
    let end = Instant::now() + FORGOTTEN;
    loop {
        match Pin::new(&mut *stream).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(response)) => return Ok(Some(response)),
            Poll::Ready(None) => return Err(Error::Closed),
            Poll::Pending => {}
        }
        while !woken.called.swap(false, Ordering::SeqCst) {
            if Instant::now() >= end {
                return Ok(None);
            }
            thread::park_timeout(FORGOTTEN);
        }
    }
}
