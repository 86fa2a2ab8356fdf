//! The disk after a crash, made from the log of operations.
//!
//! Apart from the running disk: nothing here changes it, apart from the replay that it keeps. A crash
//! *during* an operation needs no image of its own: a write that is interrupted is a write whose
//! sectors have not all arrived, and an interrupted sync is the state before it.

use super::choice::{Choice, Cut, EXHAUSTIVE_SECTORS_MAX, Mask, edge_masks, every_mask};
use super::model::Model;
use super::operation::Operation;
use super::{Machine, SimDisk, SimOptions};

impl SimDisk {
    /// How many operations have been done: crashes can be asked for after 0 to this many.
    pub fn operations(&self) -> u64 {
        self.machine().log.len() as u64
    }

    /// What operation `number` was, counted from 1, in a line.
    pub fn describe(&self, number: u64) -> Option<String> {
        let nth = usize::try_from(number.checked_sub(1)?).ok()?;
        let machine = self.machine();
        Some(match machine.log.get(nth)? {
            Operation::Write {
                inode,
                offset,
                bytes,
            } => {
                format!("write {} bytes at {offset} of file {inode}", bytes.len())
            }
            Operation::Replace { path, .. } => format!("replace {}", path.display()),
            other => format!("{other:?}"),
        })
    }

    /// Forgets the operations so far: the disk as it is now is number 0. For long runs.
    pub fn forget_operations(&self) {
        let mut machine = self.machine();
        machine.log.clear();
        machine.base = machine.now.clone();
        machine.replay = None;
    }

    /// How many sectors a power cut after this operation may leave old or new, so that it can be seen.
    pub fn pending(&self, after_operation: u64) -> usize {
        self.machine().at(after_operation).pending_sectors()
    }

    /// The disk that a power cut after this operation leaves. It has no open file, no lock, no
    /// fault and no pending byte.
    pub fn image(&self, after_operation: u64, choice: &mut dyn Choice) -> SimDisk {
        let options = self.options_after(after_operation);
        let mut machine = self.machine();
        let model = machine.at(after_operation);
        SimDisk::over(
            model.after_power_cut(choice, options.power_safe_overwrite),
            options,
        )
    }

    /// The disk after the process is killed behind this operation: all that it wrote is there, and
    /// what was pending still is, for a power cut to come.
    pub fn kill(&self, after_operation: u64) -> SimDisk {
        let model = self.machine().at(after_operation).clone();
        SimDisk::over(model, self.options_after(after_operation))
    }

    /// The same, killed inside operation `number`, when a write had copied this many of its bytes.
    /// An operation that is no write has not happened.
    pub fn kill_during(&self, number: u64, copied: usize) -> SimDisk {
        let mut machine = self.machine();
        let before = number.saturating_sub(1);
        let mut model = machine.at(before).clone();
        let nth = usize::try_from(before).unwrap_or(usize::MAX);
        if let Some(Operation::Write {
            inode,
            offset,
            bytes,
        }) = machine.log.get(nth)
        {
            let bytes = bytes[..copied.min(bytes.len())].to_vec();
            model.apply(&Operation::Write {
                inode: *inode,
                offset: *offset,
                bytes,
            });
        }
        drop(machine);
        SimDisk::over(model, self.options_after(number))
    }

    /// The disks that a power cut after this operation may leave: all of them if few sectors are
    /// pending, else the corners and `samples` by chance; with few, samples are for garbage and
    /// torn sectors. Each comes with a line that says which it is.
    pub fn images(
        &self,
        after_operation: u64,
        samples: u64,
    ) -> impl Iterator<Item = (String, SimDisk)> {
        self.cuts(after_operation, samples).map(move |cut| {
            let image = self.image(after_operation, &mut *cut.choice());
            (format!("after operation {after_operation}, {cut}"), image)
        })
    }

    /// What makes the disks of [`SimDisk::images`].
    pub fn cuts(&self, after_operation: u64, samples: u64) -> impl Iterator<Item = Cut> + use<> {
        let (sectors, metadata) = {
            let mut machine = self.machine();
            let model = machine.at(after_operation);
            (model.pending_sectors(), model.pending_metadata())
        };
        let masks: Box<dyn Iterator<Item = Mask>> = if sectors <= EXHAUSTIVE_SECTORS_MAX {
            Box::new(every_mask(sectors))
        } else {
            Box::new(edge_masks(sectors))
        };
        // With no length or name pending, four masks in a row say the same.
        let masks = masks.filter(move |mask| metadata > 0 || mask.lengths && mask.names);
        let seeds = if sectors + metadata == 0 { 0 } else { samples };
        let seed = self.options.seed ^ after_operation << 32;
        let sampled = (0..seeds).map(move |nth| Cut::Sampled(seed ^ nth));
        masks.map(Cut::Subset).chain(sampled)
    }

    /// An image draws its own entropy, which follows from the seed too.
    fn options_after(&self, operation: u64) -> SimOptions {
        let seed = self
            .options
            .seed
            .wrapping_mul(31)
            .wrapping_add(operation + 1);
        // Who looks at one is alone with it.
        SimOptions {
            seed,
            yields: false,
            ..self.options
        }
    }
}

impl Machine {
    /// The disk after so many operations.
    ///
    /// # Panics
    ///
    /// If there have not been so many: the test counted wrongly.
    fn at(&mut self, operations: u64) -> &Model {
        let wanted = usize::try_from(operations).unwrap_or(usize::MAX);
        assert!(
            wanted <= self.log.len(),
            "only {} operations were done",
            self.log.len()
        );
        if wanted == self.log.len() {
            return &self.now;
        }
        let (done, mut model) = match self.replay.take() {
            Some((done, model)) if done <= wanted => (done, model),
            _ => (0, self.base.clone()),
        };
        for operation in &self.log[done..wanted] {
            model.apply(operation);
        }
        &self.replay.insert((wanted, model)).1
    }
}
