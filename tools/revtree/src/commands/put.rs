//! `put STORE KEY VALUE`: one key, one commit.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use revtree::{Error, LeaseId};
use revtree_format::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::failure::{Failure, Result};
use crate::keys::KeyFormat;
use crate::output::Output;
use crate::store::Store;

/// What `put` takes.
#[derive(Args)]
pub(crate) struct Put {
    /// The store file; made when it is not there.
    store: PathBuf,
    /// The key.
    key: OsString,
    /// The value; `-`: all of stdin.
    #[arg(allow_hyphen_values = true)]
    value: OsString,
    /// The lease that the key is attached to.
    #[arg(
        long,
        value_name = "ID",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    lease: i64,
}

impl Put {
    /// Puts the key and prints the revision made.
    pub(crate) fn run(&self, keys: KeyFormat, output: &mut Output) -> Result {
        let key = keys.parse(&self.key)?;
        let value = self.value()?;
        // Before the open, which may make the file: what is refused leaves nothing behind.
        if let Some(error) = too_long(&key, &value) {
            return Err(Failure::store(&self.store, &error));
        }
        let store = Store::to_put(&self.store)?;
        let mut txn = store.told(store.db.write())?;
        store.told(txn.put_with_lease(&key, &value, LeaseId(self.lease)))?;
        let commit = store.told(txn.commit())?;
        store.close()?;
        output.numbers(&[("revision", commit.revision.get().into())])
    }

    fn value(&self) -> Result<Vec<u8>> {
        if self.value != OsStr::new("-") {
            return Ok(self.value.as_bytes().to_vec());
        }
        // One byte more than a value may have is enough to refuse it.
        let mut value = Vec::new();
        let mut input = std::io::stdin().lock().take(VALUE_BYTES_MAX as u64 + 1);
        let read = input.read_to_end(&mut value);
        read.map_err(|error| Failure::Refused(format!("cannot read stdin: {error}")))?;
        Ok(value)
    }
}

/// What the store would say of a key or value beyond its limit.
fn too_long(key: &[u8], value: &[u8]) -> Option<Error> {
    let (key_len, value_len) = (key.len() as u64, value.len() as u64);
    if key.len() > KEY_BYTES_MAX {
        return Some(Error::KeyTooLong {
            len: key_len,
            max: KEY_BYTES_MAX as u64,
        });
    }
    if value.len() > VALUE_BYTES_MAX {
        return Some(Error::ValueTooLong {
            len: value_len,
            max: VALUE_BYTES_MAX as u64,
        });
    }
    None
}
