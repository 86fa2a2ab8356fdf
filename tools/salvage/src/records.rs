//! The records of the frames that count. In a whole frame all of them; in a damaged one those that
//! verify alone (SPEC.md, B-41), as far as their place is certain.
//!
//! A record's checksum knows store, use and place, so a block of another store or of another place
//! gives nothing. But a value may look like a record, made by someone who knew where it would lie: behind
//! a damaged head the walk goes on only where all that follows fits the frame's own count.

use revtree_format::{
    ChangeId, FrameKind, Place, Position, RecordHead, RecordKind, Revision, StoreSeed, check_value,
    parse_record,
};

use super::chain::Chain;
use super::report::Loss;
use super::scan::Frame;
use super::source::Source;

/// A record that verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// Which change it is.
    pub(crate) id: ChangeId,
    /// The frame's sequence: the newest copy counts; 0 in a run, whose frames have numbers of their own.
    sequence: u64,
    /// Where it lies.
    pub(crate) place: Place,
    /// Its length.
    pub(crate) len: usize,
}

/// A record that has to be written: one that was found, or the delete that a later put proves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// As it is found.
    Found(Spot),
    /// The delete that the record at this place follows.
    Rebuilt(ChangeId, Spot),
}

impl Change {
    /// Whether it was found in this frame.
    pub(crate) fn is_in(&self, frame: &Frame) -> bool {
        matches!(self, Change::Found(spot) if spot.sequence == frame.header.sequence)
    }

    /// Which change it is.
    pub(crate) fn id(&self) -> ChangeId {
        match self {
            Change::Found(spot) => spot.id,
            Change::Rebuilt(id, _) => *id,
        }
    }
}

/// What the frames gave.
#[derive(Default)]
pub(crate) struct Records {
    /// Changes in their order, each once.
    pub(crate) changes: Vec<Change>,
    /// What is lost, by damaged frame.
    pub(crate) losses: Vec<Loss>,
}

impl Records {
    /// How many records up to a revision were found.
    pub(crate) fn found_up_to(&self, rev: Revision) -> u64 {
        let end = self.changes.partition_point(|one| one.id().main <= rev);
        let found = |change: &&Change| matches!(change, Change::Found(_));
        self.changes[..end].iter().filter(found).count() as u64
    }

    /// Whether every revision of a range has a change.
    pub(crate) fn has_all(&self, from: Revision, to: Revision) -> bool {
        let begin = self.changes.partition_point(|one| one.id().main < from);
        let mut next = from;
        for change in &self.changes[begin..] {
            if next > to || change.id().main > next {
                break;
            }
            next = change.id().main.next();
        }
        next > to
    }
}

/// Collects them.
pub(crate) fn collect(source: &Source, seed: StoreSeed, chain: &Chain) -> Records {
    let mut found = Vec::new();
    let mut deletes = Vec::new();
    let mut losses = Vec::new();
    let mut before = Revision::default();
    let mut walk = |frame: &Frame, before: Revision| {
        let mut walk = Walk::new(frame, seed, before);
        let body = frame.body(source).or_else(|| {
            // The file ends inside of it.
            let left = source.len().saturating_sub(frame.body_at().0);
            source.bytes(frame.body_at().0, usize::try_from(left).ok()?)
        });
        walk.body(&body.unwrap_or_default());
        walk.finish(&mut losses);
        deletes.extend(walk.deletes);
        found.extend(walk.found);
    };
    for frame in &chain.frames {
        if frame.header.kind == FrameKind::Records {
            walk(frame, before);
        }
        before = frame.header.revision;
    }
    for frame in &chain.runs {
        walk(frame, Revision::default());
    }
    found.sort_by_key(|spot: &Spot| (spot.id, std::cmp::Reverse(spot.sequence)));
    found.dedup_by_key(|spot| spot.id);
    let has = |id: &ChangeId| {
        let found = found.binary_search_by_key(id, |spot| spot.id);
        found.is_ok()
    };
    // What a copy of the record has saved is not lost.
    losses.retain(|loss| !matches!(loss, Loss::Record { id: Some(id), .. } if has(id)));
    deletes.retain(|(id, _): &(ChangeId, Spot)| !has(id));
    let mut changes: Vec<Change> = deletes
        .into_iter()
        .map(|(id, by)| Change::Rebuilt(id, by))
        .collect();
    changes.extend(found.into_iter().map(Change::Found));
    changes.sort_by_key(Change::id);
    changes.dedup_by_key(|change| change.id());
    Records { changes, losses }
}

/// Bytes of a body that no record fills.
#[derive(Clone, Copy)]
struct Hole {
    from: usize,
    /// The record there, when its head tells.
    id: Option<ChangeId>,
}

struct Walk<'a> {
    frame: &'a Frame,
    seed: StoreSeed,
    /// The store's revision before the frame.
    before: Revision,
    found: Vec<Spot>,
    /// Deletes that records of this frame prove: each with the record.
    deletes: Vec<(ChangeId, Spot)>,
    holes: Vec<Hole>,
}

impl<'a> Walk<'a> {
    fn new(frame: &'a Frame, seed: StoreSeed, before: Revision) -> Walk<'a> {
        Walk {
            frame,
            seed,
            before,
            found: Vec::new(),
            deletes: Vec::new(),
            holes: Vec::new(),
        }
    }

    fn body(&mut self, body: &[u8]) {
        let end = (self.frame.header.records_len as usize).min(body.len());
        let records = &body[..end];
        let mut at = 0;
        while at < end {
            match self.head(records, at) {
                Some(head) => {
                    self.record(records, at, &head);
                    at += head.record_len();
                }
                None => {
                    let next = self.behind_damage(records, at);
                    self.lost(at);
                    at = next;
                }
            }
        }
        let all = self.frame.header.records_len as usize;
        if end < all {
            self.lost(end);
        }
    }

    /// A head that verifies at `at` and fits the frame.
    fn head(&self, records: &[u8], at: usize) -> Option<RecordHead> {
        let raw = &records[at..];
        let (head, _) = parse_record(raw, self.place(at)).ok()?;
        let last = self.found.last().map(|last| last.id);
        let fits = head.record_len() <= raw.len()
            && head.kind != RecordKind::Stub
            && last.is_none_or(|last| last < head.id)
            && head.id.main <= self.frame.header.revision;
        fits.then_some(head)
    }

    /// Takes the record, if its value verifies.
    fn record(&mut self, records: &[u8], at: usize, head: &RecordHead) {
        let raw = &records[at..at + head.record_len()];
        let value = &raw[head.value_at()..head.value_at() + head.value_len as usize];
        if check_value(head, value, self.position(at)).is_err() {
            self.holes.push(Hole {
                from: at,
                id: Some(head.id),
            });
            return;
        }
        let spot = Spot {
            id: head.id,
            sequence: match self.frame.header.kind {
                FrameKind::Run => 0,
                _ => self.frame.header.sequence,
            },
            place: self.place(at),
            len: raw.len(),
        };
        self.found.push(spot);
        // A put that begins a generation, or whose generation began later than the record before it,
        // follows a delete, and names it (B-43, B-45).
        if let Some(prev) = head.prev
            && head.kind == RecordKind::Put
            && (head.version == 1 || prev.id.main < head.create)
        {
            self.deletes.push((prev.id, spot));
        }
    }

    /// Where the walk goes on behind a damaged head: at the first record from which an unbroken row
    /// leads to the end and, with one record lost, the count is the frame's; else at the end.
    fn behind_damage(&self, records: &[u8], at: usize) -> usize {
        let first = self.first_main();
        let have = self.found.len() + self.holes.len();
        let count = self.frame.header.record_count as usize;
        let mut tries = TRIES_MAX;
        let mut candidate = at + 8;
        while candidate < records.len() && tries > 0 {
            // The revision first: it costs no checksum.
            let main = records
                .get(candidate + 16..)
                .and_then(<[u8]>::first_chunk)
                .map_or(0, |bytes| u64::from_le_bytes(*bytes));
            if main >= first && main <= self.frame.header.revision.get() {
                tries -= 1;
                let row = self.row(records, candidate);
                if row.is_some_and(|row| have + row < count) {
                    return candidate;
                }
            }
            candidate += 8;
        }
        records.len()
    }

    /// The number of records in a row from `at` to the end. Damaged values break no row.
    fn row(&self, records: &[u8], mut at: usize) -> Option<usize> {
        let mut last = None;
        let mut count = 0;
        while at < records.len() {
            let head = self.head(records, at)?;
            if last.is_some_and(|last| last >= head.id) {
                return None;
            }
            last = Some(head.id);
            at += head.record_len();
            count += 1;
        }
        Some(count)
    }

    fn first_main(&self) -> u64 {
        let last = self.found.last().map(|last| last.id.main);
        last.unwrap_or(self.before).get()
    }

    /// Notes that nothing was had from these bytes.
    fn lost(&mut self, from: usize) {
        self.holes.push(Hole { from, id: None });
    }

    /// Tells what is missing.
    fn finish(&mut self, losses: &mut Vec<Loss>) {
        let header = self.frame.header;
        let mut missing = u64::from(header.record_count).saturating_sub(self.found.len() as u64);
        for hole in &self.holes {
            let Some(id) = hole.id else { continue };
            missing = missing.saturating_sub(1);
            losses.push(Loss::Record {
                offset: self.position(hole.from).0,
                id: Some(id),
            });
        }
        if missing > 0 {
            let first = self.before.next().min(header.revision);
            losses.push(Loss::Records {
                offset: self.frame.position.0,
                count: missing,
                from: first,
                to: header.revision,
            });
        }
    }

    fn position(&self, at: usize) -> Position {
        self.frame.body_at().plus(at as u64)
    }

    fn place(&self, at: usize) -> Place {
        Place {
            seed: self.seed,
            segment_use: self.frame.segment_use,
            position: self.position(at),
        }
    }
}

/// How many places behind a damaged head are looked at closely: each may cost a walk over the frame.
const TRIES_MAX: usize = 4096;
