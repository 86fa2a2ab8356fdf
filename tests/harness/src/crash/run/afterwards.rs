//! After the faults: what was acknowledged is there.
//!
//! Apart from the run because nothing fails here any more but the power.

use bytes::Bytes;
use revtree::storage::sim::{Mask, Sampled, SimDisk};

use super::Run;
use crate::answer::Refusal;
use crate::crash::history::{Setup, end_process, state_of};
use crate::model::Subject;
use crate::subject::Store;

impl Run<'_> {
    /// The faults are over. First the power fails: what was durable is there. Then, instead, the same
    /// machine opens the file, and after that the power fails: what the open has shown is there, and
    /// what is written from then on.
    pub(in crate::crash) fn afterwards(&mut self) -> Result<(), String> {
        self.disk.clear_faults();
        self.disk.set_capacity(None);
        for _ in 0..CUTS {
            let image = self.cut();
            let mut store = open(self.setup, &image, "after a power cut")?;
            self.find(&mut store, self.durable)?;
            checked(&store, "after a power cut")?;
            end_process(store, &image);
        }
        let mut store = open(self.setup, self.disk, "opened again")?;
        let found = self.find(&mut store, self.same_boot())?;
        checked(&store, "opened again")?;
        for _ in 0..CUTS {
            let image = self.cut();
            let mut store = open(self.setup, &image, "opened, then a power cut")?;
            let again = self.find(&mut store, found)?;
            if again != found {
                return Err(format!(
                    "wrong: state {again} after state {found} was shown by an open"
                ));
            }
            end_process(store, &image);
        }
        self.goes_on(store)
    }

    /// A put is there after a sync and a power cut, and after a close.
    fn goes_on(&mut self, mut store: Store) -> Result<(), String> {
        let (key, value) = (Bytes::from_static(b"after"), Bytes::from_static(b"faults"));
        let wrong = |error: Refusal| format!("wrong: {error:?}");
        store.put(&key, &value).map_err(wrong)?;
        store.sync().map_err(wrong)?;
        let expected = state_of(&mut store)?;
        for _ in 0..CUTS {
            let image = self.cut();
            let mut store = open(self.setup, &image, "written, then a power cut")?;
            let state = state_of(&mut store)?;
            if state != expected {
                return Err(format!("lost: written, then a power cut: {state:?}"));
            }
            end_process(store, &image);
        }
        store.close().map_err(|error| format!("wrong: {error}"))?;
        let mut store = open(self.setup, self.disk, "closed")?;
        if !store.db().recovery().clean || state_of(&mut store)? != expected {
            return Err("wrong: another state after a clean close".to_owned());
        }
        checked(&store, "closed")?;
        store.close().map_err(|error| format!("wrong: {error}"))
    }

    /// A power cut now.
    fn cut(&mut self) -> SimDisk {
        let operation = self.disk.operations();
        let sectors = self.disk.pending(operation);
        let metadata = self.random.once_in(2);
        match self.random.below(4) {
            0 => self.disk.image(
                operation,
                &mut Mask::new(vec![false; sectors], metadata, metadata),
            ),
            1 => self.disk.image(
                operation,
                &mut Mask::new(vec![true; sectors], metadata, metadata),
            ),
            _ => self
                .disk
                .image(operation, &mut Sampled::new(self.random.bits())),
        }
    }
}

/// Power cuts at each of the three moments after a history.
const CUTS: usize = 2;

fn open(setup: Setup, disk: &SimDisk, when: &str) -> Result<Store, String> {
    let opened = setup.open(disk);
    opened.map_err(|error| format!("wrong: {when}: {error}"))
}

/// The check finds nothing.
fn checked(store: &Store, when: &str) -> Result<(), String> {
    match store.db().check() {
        Ok(report) if report.is_clean() => Ok(()),
        Ok(report) => Err(format!("wrong: {when}: {:?}", report.damage)),
        Err(error) => Err(format!("wrong: {when}: the check says {error}")),
    }
}
