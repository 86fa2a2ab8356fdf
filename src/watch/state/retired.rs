//! Watchers that ended by themselves, and have been told: their ids answer once that it was so.

use std::collections::{BTreeMap, HashMap};

/// The last of them are known: a stream whose watchers end again and again does not grow by it.
const KNOWN: usize = if cfg!(debug_assertions) {
    1 << 12
} else {
    1 << 16
};

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Retired {
    by_id: HashMap<i64, u64>,
    /// In the order in which they ended.
    order: BTreeMap<u64, i64>,
    count: u64,
}

impl Retired {
    pub(super) fn add(&mut self, id: i64) {
        self.remove(id);
        self.count += 1;
        self.by_id.insert(id, self.count);
        self.order.insert(self.count, id);
        if self.order.len() > KNOWN
            && let Some((_, first)) = self.order.pop_first()
        {
            self.by_id.remove(&first);
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, id: i64) -> bool {
        let place = self.by_id.remove(&id);
        place.is_some_and(|place| self.order.remove(&place).is_some())
    }

    pub(super) fn has(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last are known, each once.
    #[test]
    fn the_last_are_known() {
        let mut retired = Retired::default();
        let known = i64::try_from(KNOWN).unwrap();
        for id in (0..3).chain(0..known + 1) {
            retired.add(id);
        }
        assert_eq!((retired.by_id.len(), retired.order.len()), (KNOWN, KNOWN));
        assert_eq!([0, 1, known].map(|id| retired.has(id)), [false, true, true]);
        assert_eq!([1, 1, 0].map(|id| retired.remove(id)), [true, false, false]);
        assert_eq!(retired.order.len(), KNOWN - 1);
    }
}
