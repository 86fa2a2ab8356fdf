//! Models of the writer's turn, of pins and of marks, explored by loom.
//!
//! Loom does not switch threads between the store that gives a turn and the `unpark` behind it, and an `unpark`
//! orders; so these models do not tell a Release there from a Relaxed. What they find is a turn given twice, or
//! to nobody.

use std::sync::Arc;

use revtree_format::{ChangeId, Geometry, LeafRun, Position, Revision};

use super::marks::RecordMarks;
use super::pins::{Pinned, Pins};
use super::turn::Turn;
use crate::metrics::OpenViews;
use crate::sync::{AtomicU64, Ordering, fence, model, thread};

/// One more, as only who is alone and sees what the last one did may do it.
fn count_alone(counter: &AtomicU64) {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before + 1, Ordering::Relaxed);
}

/// One holder at a time, each sees what the last one wrote, and nobody waits for ever.
#[test]
fn turns_come_one_by_one() {
    model(3, || {
        let (turn, counter) = (Arc::new(Turn::default()), Arc::new(AtomicU64::new(0)));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (turn, counter) = (Arc::clone(&turn), Arc::clone(&counter));
                thread::spawn(move || {
                    let held = turn.take();
                    count_alone(&counter);
                    drop(held);
                })
            })
            .collect();
        let held = turn.take();
        count_alone(&counter);
        drop(held);
        for writer in writers {
            writer.join().expect("no assertion in it");
        }
        drop(turn.try_take().expect("nobody has it"));
        assert_eq!(counter.load(Ordering::Relaxed), 3);
    });
}

/// Who does not wait takes the turn only when nobody has it and nobody was given it.
#[test]
fn a_turn_given_is_not_free() {
    model(3, || {
        let (turn, counter) = (Arc::new(Turn::default()), Arc::new(AtomicU64::new(0)));
        let held = turn.take();
        let waiting = {
            let (turn, counter) = (Arc::clone(&turn), Arc::clone(&counter));
            thread::spawn(move || {
                let held = turn.take();
                count_alone(&counter);
                drop(held);
            })
        };
        let trying = {
            let (turn, counter) = (Arc::clone(&turn), Arc::clone(&counter));
            thread::spawn(move || {
                let held = turn.try_take();
                if held.is_some() {
                    count_alone(&counter);
                }
                u64::from(held.is_some())
            })
        };
        count_alone(&counter);
        drop(held);
        waiting.join().expect("no assertion in it");
        let taken = trying.join().expect("no assertion in it");
        assert_eq!(counter.load(Ordering::Relaxed), 2 + taken);
    });
}

/// Who does not want the turn any more leaves the line, or passes on what it has been given just then: nobody waits
/// for ever, and the turn is free at the end.
#[test]
fn who_gives_up_the_turn_passes_it_on() {
    model(3, || {
        let (turn, counter) = (Arc::new(Turn::default()), Arc::new(AtomicU64::new(0)));
        let ended = Arc::new(AtomicU64::new(0));
        let held = turn.take();
        let fickle = {
            let (turn, ended) = (Arc::clone(&turn), Arc::clone(&ended));
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                let wanted = || ended.load(Ordering::Acquire) == 0;
                if let Some(_held) = turn.take_while(wanted) {
                    count_alone(&counter);
                    return 1;
                }
                0
            })
        };
        let patient = {
            let (turn, counter) = (Arc::clone(&turn), Arc::clone(&counter));
            thread::spawn(move || {
                let _held = turn.take();
                count_alone(&counter);
            })
        };
        ended.store(1, Ordering::Release);
        fickle.thread().unpark();
        drop(held);
        patient.join().expect("no assertion in it");
        let taken = fickle.join().expect("no assertion in it");
        assert_eq!(counter.load(Ordering::Relaxed), 1 + taken);
        drop(turn.try_take().expect("nobody has it"));
    });
}

/// Pins of which the first slots are made: loom does not see what a `OnceLock` hands over.
fn pins() -> Arc<Pins> {
    let pins = Arc::new(Pins::new(OpenViews));
    drop(pins.pin(Revision::new(1)));
    pins
}

/// who frees below the compact revision sees the pin, or who pinned sees the new compact revision;
/// whatever order the compact revision itself is stored and loaded with.
#[test]
fn a_pin_or_the_compact_revision_is_seen() {
    model(3, || {
        let (pins, compact) = (pins(), Arc::new(AtomicU64::new(0)));
        let view = {
            let (pins, compact) = (Arc::clone(&pins), Arc::clone(&compact));
            thread::spawn(move || {
                let pin = pins.pin(Revision::new(3));
                let refused = compact.load(Ordering::Relaxed) > 3;
                (pin, refused)
            })
        };
        compact.store(5, Ordering::Relaxed);
        let oldest = pins.look(Revision::new(5)).oldest;
        let (pin, refused) = view.join().expect("no assertion in it");
        assert!(refused || oldest == Some(Revision::new(3)));
        drop(pin);
        assert_eq!(pins.look(Revision::new(9)), Pinned::default());
    });
}

/// Two views never share a slot, so the end of one leaves the other pinned; and what a view read is behind
/// whoever no longer sees its pin.
#[test]
fn pins_end_one_by_one() {
    model(3, || {
        let (pins, reading) = (pins(), Arc::new(AtomicU64::new(0)));
        let first = pins.pin(Revision::new(7));
        let reader = {
            let (pins, reading) = (Arc::clone(&pins), Arc::clone(&reading));
            thread::spawn(move || {
                let pin = pins.pin(Revision::new(3));
                reading.store(1, Ordering::Release);
                let pinned = pins.look(Revision::new(9));
                assert!((1..=2).contains(&pinned.pins));
                assert_eq!(pinned.oldest, Some(Revision::new(3)));
                reading.store(2, Ordering::Relaxed);
                drop(pin);
            })
        };
        drop(first);
        let begun = reading.load(Ordering::Acquire) > 0;
        if begun && pins.look(Revision::new(9)) == Pinned::default() {
            assert_eq!(reading.load(Ordering::Relaxed), 2);
        }
        reader.join().expect("the reader's assertions hold");
        assert_eq!(pins.look(Revision::new(9)), Pinned::default());
    });
}

/// Records marked by several threads in one word are all marked.
#[test]
fn marks_of_two_threads() {
    model(3, || {
        let mut marks = RecordMarks::new(Geometry::new(64 << 10));
        let start = 64 << 10;
        marks.cover(&LeafRun {
            first: ChangeId::new(Revision::new(2), 0),
            position: Position(start),
            segment_use: 1,
            len: 32,
            records: 4,
        });
        let marks = Arc::new(marks);
        let other = {
            let marks = Arc::clone(&marks);
            thread::spawn(move || {
                marks.set(Position(start));
                marks.set(Position(start + 16));
            })
        };
        marks.set(Position(start + 8));
        marks.set(Position(start + 24));
        other.join().expect("no assertion in it");
        let marks = Arc::into_inner(marks).expect("the other thread has ended");
        assert_eq!(marks.number().count(), 4);
    });
}

/// Nothing is used again under who found the old way to it: the cleaner sees its pin, or it finds the new way. Also
/// where the place of a pin was another's before.
#[test]
fn no_way_leads_to_what_is_used_again() {
    model(3, || {
        let pins = Arc::new(Pins::new(OpenViews));
        drop(pins.pin(Revision::new(1)));
        // 0: the old way; 1: the new one.
        let way = Arc::new(AtomicU64::new(0));
        let used_again = Arc::new(AtomicU64::new(0));
        let reader = {
            let (pins, way, used_again) =
                (Arc::clone(&pins), Arc::clone(&way), Arc::clone(&used_again));
            thread::spawn(move || {
                for rev in [3, 4] {
                    let pin = pins.pin(Revision::new(rev));
                    if way.load(Ordering::Relaxed) == 0 {
                        assert_eq!(used_again.load(Ordering::Relaxed), 0);
                    }
                    drop(pin);
                }
            })
        };
        way.store(1, Ordering::Relaxed);
        let era = pins.begin_era();
        if pins.are_since(era) {
            used_again.store(1, Ordering::Relaxed);
        }
        reader.join().expect("no assertion in it failed");
        assert!(pins.are_since(era));
    });
}

/// who frees what only an ended view needs, and that view: either it reads what was there, or it is refused, or it
/// sees behind the read that it has ended. Its place was that of a view that had ended before.
#[test]
fn an_ended_view_knows_it_behind_its_read() {
    model(3, || {
        let pins = Arc::new(Pins::new(OpenViews));
        let before = pins.pin(Revision::new(1));
        before.end_behind(Revision::new(1));
        drop(before);
        let (current, compact) = (Arc::new(AtomicU64::new(3)), Arc::new(AtomicU64::new(0)));
        // 1: what the view needs is gone.
        let gone = Arc::new(AtomicU64::new(0));
        let reader = {
            let (pins, gone) = (Arc::clone(&pins), Arc::clone(&gone));
            let (current, compact) = (Arc::clone(&current), Arc::clone(&compact));
            thread::spawn(move || {
                let pin = pins.pin(Revision::new(3));
                let refused = compact.load(Ordering::Relaxed) > 3;
                pin.end_behind(Revision::new(4));
                let found = gone.load(Ordering::Relaxed) == 0;
                fence(Ordering::Acquire);
                let ended = current.load(Ordering::Relaxed) > 4;
                assert!(found || refused || ended);
            })
        };
        compact.store(4, Ordering::Relaxed);
        current.store(5, Ordering::Relaxed);
        let pinned = pins.look(Revision::new(current.load(Ordering::Relaxed)));
        if pinned.oldest.is_none() {
            gone.store(1, Ordering::Relaxed);
        }
        reader.join().expect("no assertion in it failed");
    });
}
