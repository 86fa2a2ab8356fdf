//! The keys of a range as an open transaction sees them: its own changes laid over the state at its begin,
//! from both ends, read as they are asked for.

use std::cmp::Ordering;
use std::collections::btree_map;
use std::ops::Bound;

use bytes::Bytes;
use revtree_format::{Position, RecordHead, RecordKind};

use super::keys::KeyRange;
use super::range::{Scan, key_of};
use super::txn::{PendingKey, WriteTxn};
use super::versions::Version;
use crate::error::Result;

/// A key of a range, as a transaction sees it.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Base(Position, RecordHead),
    Pending(usize),
}

/// Merges the live keys at the begin with those that the transaction has touched.
#[derive(Debug)]
pub(crate) struct Overlay<'v> {
    txn: &'v WriteTxn,
    reverse: bool,
    scan: Scan,
    touched: btree_map::Range<'v, Bytes, PendingKey>,
    /// What was read of both at the low end and at the high end, and not given yet.
    base_ahead: [Option<Result<(Bytes, Version)>>; 2],
    touched_ahead: [Option<(&'v Bytes, usize)>; 2],
}

impl<'v> Overlay<'v> {
    pub(crate) fn new(txn: &'v WriteTxn, keys: &KeyRange, reverse: bool) -> Overlay<'v> {
        let bounds = if keys.is_empty() {
            (Bound::Included(&[][..]), Bound::Excluded(&[][..]))
        } else {
            keys.bounds()
        };
        Overlay {
            txn,
            reverse,
            scan: Scan::new(keys, txn.rev(), false),
            touched: txn.keys.range::<[u8], _>(bounds),
            base_ahead: [None, None],
            touched_ahead: [None, None],
        }
    }

    /// The next key from the front, or from the back; an error for each record that cannot be read.
    pub(crate) fn next(&mut self, back: bool) -> Option<Result<Item>> {
        let high = back != self.reverse;
        loop {
            let (base, touched) = (self.look_at_base(high), self.look_at_touched(high));
            let order = match (&self.base_ahead[base], &self.touched_ahead[touched]) {
                (None, None) => return None,
                (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(Ok((base, _))), Some((key, _))) if high => (*key).cmp(base),
                (Some(Ok((base, _))), Some((key, _))) => base.cmp(key),
            };
            if order.is_lt() {
                let stored = |(_, (position, head))| Item::Base(position, head);
                return self.base_ahead[base].take().map(|found| found.map(stored));
            }
            if order.is_eq() {
                self.base_ahead[base] = None;
            }
            if let Some((_, op)) = self.touched_ahead[touched].take()
                && self.txn.ops[op].kind == RecordKind::Put
            {
                return Some(Ok(Item::Pending(op)));
            }
        }
    }

    /// Looks one key ahead; gives the end at which it stands: the other one once nothing lies between.
    fn look_at_base(&mut self, high: bool) -> usize {
        let (near, far) = (usize::from(high), usize::from(!high));
        if self.base_ahead[near].is_none() {
            let store = &self.txn.store;
            let found = self.scan.next(store, high);
            self.base_ahead[near] =
                found.map(|found| found.and_then(|base| Ok((key_of(store, base.0)?, base))));
        }
        if self.base_ahead[near].is_some() {
            near
        } else {
            far
        }
    }

    fn look_at_touched(&mut self, high: bool) -> usize {
        let (near, far) = (usize::from(high), usize::from(!high));
        while self.touched_ahead[near].is_none() {
            let next = if high {
                self.touched.next_back()
            } else {
                self.touched.next()
            };
            let Some((key, pending)) = next else {
                return far;
            };
            self.touched_ahead[near] = pending.last.map(|op| (key, op));
        }
        near
    }
}
