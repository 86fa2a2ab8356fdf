//! Salvaging a store that was changed on purpose: whatever it is, there is a sound store afterwards, or a reason
//! why there is none.

use revtree::Options;

use super::memory::bounded;
use super::open::{changed, typed};
use super::{Input, StoreBytes, folder};

/// The new store may grow to the terabyte of the options' default. It has a word for each 64 KiB of that, whatever
/// the old file says: zeros of the system's that nobody touches.
const ADDRESS_SPACE_WORDS: usize = 72 << 20;

/// Changes a store as the bytes say, and salvages what that gives.
///
/// # Errors
///
/// When the new store does not open, or is not sound, or not what the report says.
pub fn salvage(data: &[u8]) -> Result<(), String> {
    let StoreBytes { bytes, .. } = changed(&mut Input(data));
    let folder = folder()?;
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    std::fs::write(&old, &bytes).map_err(|error| error.to_string())?;
    let salvaged = bounded(bytes.len() + ADDRESS_SPACE_WORDS / 2, || {
        Ok(revtree_salvage::salvage(&old, &new))
    })?;
    let kept = std::fs::read(&old).map_err(|error| error.to_string())?;
    if kept != bytes {
        return Err("wrong: the old store was written".to_owned());
    }
    let Ok(report) = salvaged else {
        return if new.exists() {
            Err("wrong: nothing was salvaged, and yet there is a store".to_owned())
        } else {
            Ok(())
        };
    };
    let wrong = |error: &revtree::Error| format!("wrong: salvaged, and then {error}");
    let db = match Options::new().store_bytes_max(1 << 27).open(&new) {
        Ok(db) => db,
        Err(error) => return typed(&error).and(Err(wrong(&error))),
    };
    let check = db.check().map_err(|error| wrong(&error))?;
    if !check.is_clean() {
        return Err(format!("wrong: salvaged, and then {:?}", check.damage));
    }
    let hash = db.hash_by_rev(0).map_err(|error| wrong(&error))?;
    let found = (db.rev(), db.compact_rev(), hash.hash);
    let told = (report.revision, report.compact, report.hash);
    if found != told {
        return Err(format!("wrong: salvaged {told:?}, and then {found:?}"));
    }
    if check.records != report.records {
        return Err(format!(
            "wrong: salvaged {} records, and then {}",
            report.records, check.records
        ));
    }
    db.close().map_err(|error| wrong(&error))
}
