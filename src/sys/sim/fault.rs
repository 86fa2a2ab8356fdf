//! Calls that fail on purpose, and how often each kind was called.
//!
//! Apart from the disk's state because faults belong to the machine, not to what is on the disk: a
//! crash image starts without any. What a fault does to the bytes is decided where the call is.

use std::collections::BTreeMap;
use std::io;

use super::operation::Call;

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct FaultPlan {
    /// The kind of call.
    pub call: Call,
    /// Which of these calls, counted from now: 1 is the next one.
    pub nth: u64,
    /// Does every later one fail too?
    pub sticky: bool,
    /// The system's error number, as `EIO` is 5 and `ENOSPC` is 28.
    pub errno: i32,
    /// Is a part of the work done? Half of the bytes of a write are written, half of an allocation
    /// is made, half of the sectors of a sync reach the disk.
    pub short: bool,
}

impl FaultPlan {
    /// The `nth` call from now fails once, with nothing done.
    pub fn once(call: Call, nth: u64, errno: i32) -> FaultPlan {
        FaultPlan {
            call,
            nth,
            sticky: false,
            errno,
            short: false,
        }
    }

    /// The `nth` call from now and all later ones fail, with nothing done.
    pub fn sticky(call: Call, nth: u64, errno: i32) -> FaultPlan {
        FaultPlan {
            call,
            nth,
            sticky: true,
            errno,
            short: false,
        }
    }

    /// The same, with a part of the work done.
    pub fn short(self) -> FaultPlan {
        FaultPlan {
            short: true,
            ..self
        }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

/// The plans that wait, and the counts.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Vec<FaultPlan>,
    counts: BTreeMap<Call, u64>,
}

impl Faults {
    pub(super) fn add(&mut self, plan: FaultPlan) {
        self.waiting.push(plan);
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn count(&self, call: Call) -> u64 {
        self.counts.get(&call).copied().unwrap_or(0)
    }

    pub(super) fn reset_counts(&mut self) {
        self.counts.clear();
    }

    /// Counts a call, and says whether it fails: by the first plan that is due.
    pub(super) fn enter(&mut self, call: Call) -> Option<FaultPlan> {
        *self.counts.entry(call).or_default() += 1;
        let mut due = None;
        self.waiting.retain_mut(|plan| {
            if plan.call != call {
                return true;
            }
            plan.nth = plan.nth.saturating_sub(1);
            if plan.nth > 0 {
                return true;
            }
            due.get_or_insert(*plan);
            plan.sticky
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fails_the_nth_call_once_or_from_then_on() {
        let mut faults = Faults::default();
        faults.add(FaultPlan::once(Call::WriteAt, 2, 5));
        faults.add(FaultPlan::sticky(Call::SyncData, 1, 28));
        let fails = |faults: &mut Faults, call| faults.enter(call).map(|plan| plan.errno);
        let writes: Vec<_> = (0..4).map(|_| fails(&mut faults, Call::WriteAt)).collect();
        assert_eq!(writes, [None, Some(5), None, None]);
        assert_eq!(fails(&mut faults, Call::SyncAll), None);
        assert_eq!(fails(&mut faults, Call::SyncData), Some(28));
        assert_eq!(fails(&mut faults, Call::SyncData), Some(28));
        assert_eq!(faults.count(Call::WriteAt), 4);
        faults.clear();
        assert_eq!(fails(&mut faults, Call::SyncData), None);
        faults.reset_counts();
        assert_eq!(faults.count(Call::WriteAt), 0);
    }
}
