//! The watchers of one topic: mostly one, which then takes no memory of its own.

/// Ids in no order.
#[derive(Debug, Default)]
pub(super) enum Members {
    #[default]
    Nobody,
    One(i64),
    #[expect(
        clippy::box_collection,
        reason = "the words of a vector would be taken from every topic of one watcher"
    )]
    Many(Box<Vec<i64>>),
}

impl Members {
    /// Adds one, and gives its place.
    pub(super) fn push(&mut self, id: i64) -> u32 {
        let place = self.as_slice().len();
        match self {
            Members::Nobody => *self = Members::One(id),
            Members::One(first) => *self = Members::Many(Box::new(vec![*first, id])),
            Members::Many(ids) => ids.push(id),
        }
        u32::try_from(place).expect("a watcher takes more than a byte")
    }

    /// Removes the one at `place`; gives who has its place now.
    pub(super) fn remove(&mut self, place: u32) -> Option<i64> {
        let place = place as usize;
        match self {
            Members::Many(ids) => {
                ids.swap_remove(place);
                ids.get(place).copied()
            }
            Members::One(_) | Members::Nobody => {
                *self = Members::Nobody;
                None
            }
        }
    }

    pub(super) fn as_slice(&self) -> &[i64] {
        match self {
            Members::Nobody => &[],
            Members::One(id) => std::slice::from_ref(id),
            Members::Many(ids) => ids,
        }
    }
}
