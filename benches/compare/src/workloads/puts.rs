//! Where the puts of all writing workloads come from: an order, a pace, an end.
//!
//! The source also times them, so that every engine's puts are timed from the same side. A paced
//! put's latency counts from when it was due, not from when it was begun (an open loop): what an
//! engine delays by being busy is its latency.

use std::hint::spin_loop;
use std::thread;
use std::time::{Duration, Instant};

use crate::data::{Data, FIRST_EXTRA_PUT, KEY_BYTES, Random, VALUE_BYTES, key};
use crate::engines::Source;
use crate::measure::Histogram;

/// Sleeps end late by about this much; the rest of a wait is spun.
const SLEEP_SLACK: Duration = Duration::from_micros(100);

/// Which key comes next.
enum Order {
    /// The puts of the load, as the data has them.
    Load,
    Random(Random),
    /// All keys in turn with a stride, so that neighbouring puts never meet the same key.
    Strided(u32),
}

/// When the source ends.
enum End {
    Puts(u64),
    At(Instant),
    Never,
}

/// A source of puts and the record of their times.
pub(crate) struct Puts<'d> {
    data: &'d Data,
    order: Order,
    end: End,
    /// Time between two puts that are due; `None`: as fast as the engine takes them.
    pace: Option<Duration>,
    start: Instant,
    count: u64,
    /// When the current put was due or could begin.
    begin: Instant,
    key: [u8; KEY_BYTES],
    value: [u8; VALUE_BYTES],
    pub(crate) latencies: Histogram,
    pub(crate) worst_sync: Duration,
}

impl<'d> Puts<'d> {
    /// The load, once.
    pub(crate) fn load(data: &'d Data) -> Puts<'d> {
        Puts::new(data, Order::Load, End::Puts(data.put_count()), None)
    }

    /// Random keys at full speed for `time`.
    pub(crate) fn random_for(data: &'d Data, seed: u64, time: Duration) -> Puts<'d> {
        Puts::new(
            data,
            Order::Random(Random::new(seed)),
            End::At(Instant::now() + time),
            None,
        )
    }

    /// Every key in turn, at full speed for `time`.
    pub(crate) fn strided_for(data: &'d Data, time: Duration) -> Puts<'d> {
        // A prime above every number of keys here, so the walk meets each key before it repeats.
        Puts::new(
            data,
            Order::Strided(1_000_003),
            End::At(Instant::now() + time),
            None,
        )
    }

    /// Random keys, one each `pace`, for `time` or until the engine stops asking.
    pub(crate) fn paced(
        data: &'d Data,
        seed: u64,
        pace: Duration,
        time: Option<Duration>,
    ) -> Puts<'d> {
        let end = time.map_or(End::Never, |time| End::At(Instant::now() + time));
        Puts::new(data, Order::Random(Random::new(seed)), end, Some(pace))
    }

    fn new(data: &'d Data, order: Order, end: End, pace: Option<Duration>) -> Puts<'d> {
        let now = Instant::now();
        Puts {
            data,
            order,
            end,
            pace,
            start: now,
            count: 0,
            begin: now,
            key: [0; KEY_BYTES],
            value: [0; VALUE_BYTES],
            latencies: Histogram::new(),
            worst_sync: Duration::ZERO,
        }
    }

    /// Puts handed out.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn due(&self, pace: Duration) -> Instant {
        let number = u32::try_from(self.count).expect("a paced source lives for minutes");
        self.start + pace * number
    }

    fn is_over(&self) -> bool {
        match self.end {
            End::Puts(puts) => self.count >= puts,
            End::At(end) => self.begin >= end,
            End::Never => false,
        }
    }
}

impl Source for Puts<'_> {
    fn ready(&mut self) -> bool {
        self.pace
            .is_none_or(|pace| Instant::now() >= self.due(pace))
    }

    fn next(&mut self) -> Option<(&[u8], &[u8])> {
        if self.is_over() {
            return None;
        }
        if let Some(pace) = self.pace {
            self.begin = self.due(pace);
            wait_until(self.begin);
        }
        let (id, put) = match &mut self.order {
            Order::Load => (self.data.key_of_put(self.count), self.count),
            Order::Random(random) => (
                random.below(self.data.key_count()),
                FIRST_EXTRA_PUT + self.count,
            ),
            Order::Strided(stride) => {
                let place = self.count * u64::from(*stride) % u64::from(self.data.key_count());
                (
                    u32::try_from(place).expect("below the keys"),
                    FIRST_EXTRA_PUT + self.count,
                )
            }
        };
        self.count += 1;
        self.key = key(id);
        self.data.value(id, put, &mut self.value);
        Some((&self.key, &self.value))
    }

    fn done(&mut self) {
        let now = Instant::now();
        self.latencies
            .record(now.saturating_duration_since(self.begin));
        self.begin = now;
    }

    fn synced(&mut self, took: Duration) {
        self.worst_sync = self.worst_sync.max(took);
    }
}

/// Waits without being late by a timer's slack.
pub(crate) fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > SLEEP_SLACK {
        thread::sleep(left - SLEEP_SLACK);
    }
    while Instant::now() < due {
        spin_loop();
    }
}
