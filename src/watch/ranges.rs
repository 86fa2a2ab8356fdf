//! Ranges of keys that are watched: which of them contain a key (SPEC.md, W-4).
//!
//! A treap over the starts of the ranges, each node with the greatest end below it: a search leaves out what
//! begins behind the key, and what ends before it. O(log n + found) for ranges that are not nested many deep.
//! Priorities come from a counter that is mixed, so shapes do not depend on what users choose as keys in which
//! order.

use std::cmp::Ordering;
use std::ops::Bound;

use super::topic::Topic;
use std::sync::Arc;

/// All watched ranges, each with its topics.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    root: Link,
    made: u64,
}

type Link = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    topic: Arc<Topic>,
    priority: u64,
    /// The topic among those below, its own too, whose range ends last.
    last: Arc<Topic>,
    left: Link,
    right: Link,
}

/// Where a range ends; `None`: nowhere.
fn end_of(topic: &Topic) -> Option<&[u8]> {
    match topic.keys().bounds().1 {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

fn start_of(topic: &Topic) -> &[u8] {
    match topic.keys().bounds().0 {
        Bound::Included(key) | Bound::Excluded(key) => key,
        Bound::Unbounded => &[],
    }
}

fn ends_later(one: &Topic, other: &Topic) -> bool {
    match (end_of(one), end_of(other)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

/// Starts first, then ends; equal ranges by who watches, so that each topic has its place.
fn order(one: &Topic, other: &Topic) -> Ordering {
    let ends = || match (end_of(one), end_of(other)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => one.cmp(other),
    };
    let starts = start_of(one).cmp(start_of(other));
    starts.then_with(ends).then_with(|| one.order(other))
}

impl Ranges {
    /// Calls `visit` with each topic whose range contains `key`.
    pub(super) fn containing(&self, key: &[u8], visit: &mut impl FnMut(&Arc<Topic>)) {
        visit_containing(&self.root, key, visit);
    }

    pub(super) fn insert(&mut self, topic: Arc<Topic>) {
        self.made += 1;
        let node = Box::new(Node {
            priority: mix(self.made),
            last: Arc::clone(&topic),
            topic,
            left: None,
            right: None,
        });
        let root = self.root.take();
        self.root = Some(insert(root, node));
    }

    pub(super) fn remove(&mut self, topic: &Topic) {
        let root = self.root.take();
        self.root = remove(root, topic);
    }

    /// The topic that is equal to `topic` by [`Topic::order`] and its range.
    pub(super) fn find(&self, topic: &Topic) -> Option<&Arc<Topic>> {
        let mut at = self.root.as_deref()?;
        loop {
            at = match order(topic, &at.topic) {
                Ordering::Equal => return Some(&at.topic),
                Ordering::Less => at.left.as_deref()?,
                Ordering::Greater => at.right.as_deref()?,
            };
        }
    }
}

fn visit_containing(link: &Link, key: &[u8], visit: &mut impl FnMut(&Arc<Topic>)) {
    let Some(node) = link else { return };
    if end_of(&node.last).is_some_and(|end| end <= key) {
        return;
    }
    visit_containing(&node.left, key, visit);
    if start_of(&node.topic) > key {
        return;
    }
    if end_of(&node.topic).is_none_or(|end| key < end) {
        visit(&node.topic);
    }
    visit_containing(&node.right, key, visit);
}

/// splitmix64.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Node {
    fn update(&mut self) {
        let mut last = &self.topic;
        for below in [&self.left, &self.right].into_iter().flatten() {
            if ends_later(&below.last, last) {
                last = &below.last;
            }
        }
        if !Arc::ptr_eq(last, &self.last) {
            self.last = Arc::clone(last);
        }
    }
}

fn insert(link: Link, mut node: Box<Node>) -> Box<Node> {
    let Some(mut at) = link else { return node };
    if node.priority > at.priority {
        let (left, right) = split(Some(at), &node.topic);
        (node.left, node.right) = (left, right);
        node.update();
        return node;
    }
    if order(&node.topic, &at.topic) == Ordering::Less {
        at.left = Some(insert(at.left.take(), node));
    } else {
        at.right = Some(insert(at.right.take(), node));
    }
    at.update();
    at
}

/// What lies before `topic`, and what behind it.
fn split(link: Link, topic: &Topic) -> (Link, Link) {
    let Some(mut at) = link else {
        return (None, None);
    };
    if order(&at.topic, topic) == Ordering::Less {
        let (before, behind) = split(at.right.take(), topic);
        at.right = before;
        at.update();
        (Some(at), behind)
    } else {
        let (before, behind) = split(at.left.take(), topic);
        at.left = behind;
        at.update();
        (before, Some(at))
    }
}

fn join(before: Link, behind: Link) -> Link {
    match (before, behind) {
        (None, link) | (link, None) => link,
        (Some(mut one), Some(mut other)) => Some(if one.priority > other.priority {
            one.right = join(one.right.take(), Some(other));
            one.update();
            one
        } else {
            other.left = join(Some(one), other.left.take());
            other.update();
            other
        }),
    }
}

fn remove(link: Link, topic: &Topic) -> Link {
    let mut at = link?;
    match order(topic, &at.topic) {
        Ordering::Equal => return join(at.left.take(), at.right.take()),
        Ordering::Less => at.left = remove(at.left.take(), topic),
        Ordering::Greater => at.right = remove(at.right.take(), topic),
    }
    at.update();
    Some(at)
}

#[cfg(test)]
impl Ranges {
    pub(super) fn depth(&self) -> usize {
        fn below(link: &Link) -> usize {
            let deeper = |node: &Node| 1 + below(&node.left).max(below(&node.right));
            link.as_deref().map_or(0, deeper)
        }
        below(&self.root)
    }
}
