//! Importing a snapshot of etcd that was changed on purpose.

use revtree::{Db, Error, Options};
use revtree_test_bbolt::{Options as Written, vector_a, write as write_bbolt};

use super::Input;

/// Imports a snapshot, changed as the bytes say, and reads what that gives.
///
/// # Errors
///
/// When the import ends in another way than with a store or a typed error.
pub fn import(data: &[u8]) -> Result<(), String> {
    let mut input = Input(data);
    let options = Written {
        page_bytes: 1024 << (input.byte() % 3),
        elements_max: [None, Some(2), Some(5)][usize::from(input.byte()) % 3],
        inline: input.byte() % 2 == 0,
        // The SHA-256 would refuse every change.
        hash: false,
        ..Written::default()
    };
    let mut bytes = write_bbolt(&options, &vector_a().contents())
        .file()
        .to_vec();
    let whole = input.is_empty();
    while !input.is_empty() {
        let at = (input.short() << 8 | usize::from(input.byte())) % bytes.len();
        let value = input.byte();
        match input.byte() % 4 {
            0 => bytes[at] = value,
            1 => bytes[at] ^= 1 << (value % 8),
            2 => bytes[at..]
                .iter_mut()
                .take(8)
                .for_each(|byte| *byte = value),
            _ => bytes.truncate(at.max(1)),
        }
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (snapshot, store) = (folder.path().join("snapshot"), folder.path().join("store"));
    std::fs::write(&snapshot, &bytes).map_err(|error| error.to_string())?;
    let options = || {
        Options::new()
            .segment_bytes(64 << 10)
            .store_bytes_max(1 << 26)
    };
    match Db::import_etcd(&snapshot, &store, options()) {
        Ok(_) => {}
        Err(Error::Import { .. } | Error::Corrupt { .. } | Error::NotAStore { .. }) if !whole => {
            return if store.exists() {
                Err("an import that failed has left a store".to_owned())
            } else {
                Ok(())
            };
        }
        Err(error) => return Err(format!("the import says {error:?}")),
    }
    let db = options()
        .open(&store)
        .map_err(|error| format!("imported, and {error}"))?;
    let view = db.read().map_err(|error| error.to_string())?;
    for record in view.range(..) {
        record.map_err(|error| format!("imported, and a record {error}"))?;
    }
    db.hash_by_rev(0)
        .map_err(|error| format!("imported, and the hash {error}"))?;
    let report = db
        .check()
        .map_err(|error| format!("imported, and the check {error}"))?;
    if report.is_clean() {
        Ok(())
    } else {
        Err(format!("imported, and the check finds {:?}", report.damage))
    }
}
