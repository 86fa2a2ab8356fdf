//! What watchers of one stream share that want the same keys in the same way.

use std::cmp::Ordering;
use std::sync::Arc;

use super::inbox::{Inbox, Marked, Marks};
use crate::mvcc::{AskedPrev, KeyRange};

/// Which keys, and how events of them are to be read: watchers that agree in it share their reading.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    pub(super) keys: KeyRange,
    pub(super) prev: AskedPrev,
    /// Bytes of a batch.
    pub(super) bytes_max: u32,
}

/// A shape in a stream: known to the writer, once its watchers have caught up.
#[derive(Debug)]
pub(super) struct Topic {
    shape: Shape,
    /// Where it stands in its stream's list.
    pub(super) index: u32,
    marks: Marks,
    inbox: Arc<Inbox<Topic>>,
}

impl Topic {
    pub(super) fn new(shape: Shape, index: u32, inbox: Arc<Inbox<Topic>>) -> Topic {
        Topic {
            shape,
            index,
            marks: Marks::default(),
            inbox,
        }
    }

    pub(super) fn keys(&self) -> &KeyRange {
        &self.shape.keys
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What tells its stream from others that live.
    pub(super) fn stream(&self) -> usize {
        Arc::as_ptr(&self.inbox).addr()
    }

    pub(super) fn inbox(&self) -> &Arc<Inbox<Topic>> {
        &self.inbox
    }

    /// Among topics of the same keys: a stream has one of each shape.
    pub(super) fn order(&self, other: &Topic) -> Ordering {
        let place = |topic: &Topic| {
            let prev = topic.shape.prev == AskedPrev::Yes;
            (topic.stream(), prev, topic.shape.bytes_max)
        };
        place(self).cmp(&place(other))
    }
}

impl Marked for Topic {
    fn marks(&self) -> &Marks {
        &self.marks
    }
}
