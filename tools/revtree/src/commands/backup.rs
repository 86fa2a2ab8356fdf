//! `backup STORE OUT [--since FILE]`: all of a store, or what an earlier backup lacks.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use revtree::{Revision, Snapshot};
use revtree_format::{INCREMENT_BLOCK_BYTES, INCREMENT_MAGIC, IncrementBlock, IncrementHead};

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::Spinner;
use crate::store::Store;

/// What `backup` takes.
#[derive(Args)]
pub(crate) struct Backup {
    /// The store file; another process may write to it meanwhile.
    store: PathBuf,
    /// The file that is made, where there must be none.
    out: PathBuf,
    /// An earlier backup, all of a store or an increment: only what has come since is written.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
}

impl Backup {
    /// Writes the backup, and prints what it goes from and to.
    pub(crate) fn run(&self, output: &mut Output) -> Result {
        let earlier = match &self.since {
            Some(file) => Some(revision_of(file)?),
            None => None,
        };
        let store = Store::to_read(&self.store)?;
        let snapshot = store.told(store.db.snapshot())?;
        let refused = |error: std::io::Error| Failure::file(&self.out, &error);
        let file = File::create_new(&self.out).map_err(refused)?;
        let spinner = Spinner::new("backing up");
        let written = self.write(&store, &snapshot, earlier, &file);
        drop(spinner);
        if written.is_err() {
            // Half a backup is none; what cannot be removed is refused when it is used.
            let _ = std::fs::remove_file(&self.out);
        }
        let mut fields = vec![
            ("revision", snapshot.revision().get().into()),
            ("bytes", written?.into()),
        ];
        if let Some(earlier) = earlier {
            fields.insert(0, ("earlier_revision", earlier.get().into()));
        }
        output.numbers(&fields)
    }

    fn write(
        &self,
        store: &Store,
        snapshot: &Snapshot,
        earlier: Option<Revision>,
        file: &File,
    ) -> Result<u64> {
        let to = BufWriter::new(file);
        let bytes = match earlier {
            Some(earlier) => snapshot.write_since(earlier, to),
            None => snapshot.write_to(to),
        };
        let bytes = store.told(bytes)?;
        file.sync_all()
            .map_err(|error| Failure::file(&self.out, &error))?;
        Ok(bytes)
    }
}

/// The revision at which a store is that has been made of a backup.
fn revision_of(path: &Path) -> Result<Revision> {
    let refused = |error: std::io::Error| Failure::file(path, &error);
    let mut file = File::open(path).map_err(refused)?;
    let mut header = [0; INCREMENT_BLOCK_BYTES];
    let read = file.read_exact(&mut header);
    if read.is_err() || !header.starts_with(&INCREMENT_MAGIC.to_le_bytes()) {
        return Ok(Store::to_read(path)?.db.rev());
    }
    let head = (|| {
        let block = IncrementBlock::parse(&header, 0, 0)?;
        let mut body = Vec::new();
        // What cannot be read is missed by the check.
        let _ = file.by_ref().take(block.len.into()).read_to_end(&mut body);
        block.check(&header, 0, &body, 0)?;
        IncrementHead::parse(&body, header.len() as u64)
    })();
    let head = head.map_err(|error| Failure::file(path, &error))?;
    Ok(head.revision)
}
