//! Importing a snapshot of etcd that was changed on purpose.

use revtree::{Db, Error, Options, ReadView};
use revtree_format::etcd::{
    Bbolt, Damage, EtcdError, HashKv, Meta, MetaBucket, Pair, RevisionKey, bucket,
};
use revtree_test_bbolt::{Options as Written, vector_a, write as write_bbolt};

use super::memory::bounded;
use super::{Input, folder};

/// Imports a snapshot, changed as the bytes say, and reads what that gives.
///
/// # Errors
///
/// When the import ends in another way than with a store that has what the snapshot has, or a typed error.
pub fn import(data: &[u8]) -> Result<(), String> {
    let mut input = Input(data);
    let page_bytes = 1024 << (input.byte() % 3);
    let options = Written {
        page_bytes,
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
    // What the meta pages say is believed; else nobody would get behind them.
    seal_meta(&mut bytes, 0);
    seal_meta(&mut bytes, page_bytes);
    let folder = folder()?;
    let (snapshot, store) = (folder.path().join("snapshot"), folder.path().join("store"));
    std::fs::write(&snapshot, &bytes).map_err(|error| error.to_string())?;
    let options = || {
        Options::new()
            .segment_bytes(64 << 10)
            .store_bytes_max(1 << 26)
    };
    let imported = bounded(bytes.len(), || {
        Ok(Db::import_etcd(&snapshot, &store, options()))
    })?;
    match imported {
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
    if !report.is_clean() {
        return Err(format!(
            "wrong: imported, and the check finds {:?}",
            report.damage
        ));
    }
    let source = Bbolt::open(bytes.as_slice())
        .map_err(|error| format!("wrong: imported, and the snapshot: {error}"))?;
    compare(&db, &view, &source).map_err(|error| format!("wrong: imported, and {error}"))
}

/// The store has the source's rows, and its hash where etcd had compacted nothing.
fn compare(db: &Db, view: &ReadView, source: &Bbolt<&[u8]>) -> Result<(), String> {
    let text = |error: EtcdError| format!("the snapshot: {error}");
    let mut expected = HashKv::new();
    let mut meta = MetaBucket::default();
    for bucket in source.buckets().map_err(text)? {
        let mut pairs = source.cursor(&bucket);
        let mut rows = Vec::new();
        while let Some(Pair { key, value, .. }) = pairs.next().map_err(text)? {
            if bucket.name() == bucket::KEY {
                // Without a value it is no record, but the mark of a bumped snapshot; a tombstone of the empty
                // key has none either.
                if !value.is_empty() || RevisionKey::parse(key).map_err(text)?.is_tombstone {
                    expected.pair(key, value);
                }
                continue;
            }
            if bucket.name() == bucket::META {
                meta.accept(key, value).map_err(text)?;
            }
            rows.push((key.to_vec(), value.to_vec()));
        }
        if bucket.name() != bucket::KEY {
            let name = String::from_utf8_lossy(bucket.name());
            let mut found = Vec::new();
            for row in view.table(&name).iter() {
                let (key, value) = row.map_err(|error| error.to_string())?;
                found.push((key.to_vec(), value.to_vec()));
            }
            if found != rows {
                return Err(format!("the rows of {name}: {found:?}, not {rows:?}"));
            }
        }
    }
    if meta.compact_revision() != db.compact_rev() {
        let compacted = (meta.compact_revision(), db.compact_rev());
        return Err(format!("the compact revisions are {compacted:?}"));
    }
    let found = db.hash_by_rev(0).map_err(|error| error.to_string())?.hash;
    if db.compact_rev().is_none() && found != expected.finish() {
        return Err(format!("the hash {found}, not {}", expected.finish()));
    }
    Ok(())
}

/// Repairs the checksum of the meta page that begins here, if one does.
pub(super) fn seal_meta(bytes: &mut [u8], at: usize) {
    let Some(page) = bytes.get_mut(at..) else {
        return;
    };
    if let Err(EtcdError {
        offset,
        what: Damage::MetaChecksum { expected, .. },
    }) = Meta::parse(page, 0)
        && let Some(field) = usize::try_from(offset)
            .ok()
            .and_then(|at| page.get_mut(at..at + 8))
    {
        field.copy_from_slice(&expected.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use crate::fuzz::feed;

    #[test]
    fn a_whole_snapshot_in_every_shape() {
        for page in 0..3 {
            for elements in 0..3 {
                for inline in 0..2 {
                    feed("import", &[page, elements, inline]).unwrap();
                }
            }
        }
    }
}
