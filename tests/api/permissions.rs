//! Who may read the files that we make: the owner alone, and a link in the way is not followed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use revtree::Db;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// A new store and a saved snapshot are private, also where the snapshot takes the name of a file that
/// all may read: it is a new file, and nothing of the old one's permissions is kept.
#[test]
fn files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    fs::write(&copy, "something").unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o666)).unwrap();
    let db = Db::open(&store).unwrap();
    db.put("a", "secret").unwrap();
    db.snapshot().unwrap().save(&copy).unwrap();
    for path in [&store, &copy] {
        assert_eq!(mode(path) & 0o077, 0, "{}", path.display());
    }
}

/// A symbolic link in the place of a snapshot is replaced, so what it points to stays as it was.
#[test]
fn a_snapshot_replaces_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (link, other) = (dir.path().join("copy"), dir.path().join("other"));
    fs::write(&other, "something").unwrap();
    symlink(&other, &link).unwrap();
    let db = Db::open(dir.path().join("store")).unwrap();
    db.put("a", "secret").unwrap();
    db.snapshot().unwrap().save(&link).unwrap();
    assert_eq!(fs::read(&other).unwrap(), b"something");
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
    assert_eq!(mode(&link) & 0o077, 0);
}

/// A link that points nowhere is no place for a new store: the file that it names is not made.
#[test]
fn no_store_is_made_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (link, target) = (dir.path().join("store"), dir.path().join("target"));
    symlink(&target, &link).unwrap();
    Db::open(&link).unwrap_err();
    assert!(!target.exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
