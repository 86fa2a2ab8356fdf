//! A medium that takes no writes: opening to write is refused by name, reading goes on, nothing changes.
//!
//! Through the storage seam, since whoever runs these tests may be allowed to write everywhere.

use std::io;
use std::path::Path;
use std::sync::Arc;

use revtree::storage::sim::{SimDisk, SimOptions};
use revtree::storage::{Access, Disk, Storage};
use revtree::{Create, Error, ErrorKind, Options};

/// A disk that answers so to whoever wants to write, or to everybody.
#[derive(Debug)]
struct Refusing {
    disk: SimDisk,
    answer: io::ErrorKind,
    everybody: bool,
}

impl Refusing {
    fn refuse<T>(&self) -> io::Result<T> {
        Err(self.answer.into())
    }
}

impl Disk for Refusing {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Storage>> {
        match access {
            Access::ReadOnly if !self.everybody => self.disk.open(path, access),
            Access::ReadOnly | Access::ReadWrite => self.refuse(),
        }
    }

    fn create_new(&self, _path: &Path) -> io::Result<Arc<dyn Storage>> {
        self.refuse()
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        self.refuse()
    }

    fn rename_new(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        self.refuse()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        self.refuse()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn sync_directory(&self, path_of_file: &Path) -> io::Result<()> {
        self.disk.sync_directory(path_of_file)
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        self.disk.entropy()
    }
}

#[test]
fn a_medium_that_takes_no_writes() {
    for answer in [
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::PermissionDenied,
    ] {
        let disk = SimDisk::new(SimOptions::default());
        let db = Options::new()
            .disk(Arc::new(disk.clone()))
            .open("store")
            .unwrap();
        db.put("a", "1").unwrap();
        db.close().unwrap();
        let bytes = disk.bytes(Path::new("store"));
        let refusing = Arc::new(Refusing {
            disk: disk.clone(),
            answer,
            everybody: false,
        });
        let options = || Options::new().disk(refusing.clone());
        // One that is there, one that is not, and one that must not be there.
        for (path, create) in [
            ("store", Create::IfMissing),
            ("store", Create::Never),
            ("other", Create::IfMissing),
            ("other", Create::New),
        ] {
            let error = options().create(create).open(path).unwrap_err();
            match (&error, answer) {
                (Error::ReadOnly, io::ErrorKind::ReadOnlyFilesystem) => {
                    assert!(error.to_string().contains("read-only medium"), "{error}");
                    assert_eq!(io::Error::from(error).kind(), answer);
                }
                (Error::Io { cause, .. }, io::ErrorKind::PermissionDenied) => {
                    assert_eq!(
                        (cause.kind(), error.kind()),
                        (answer, ErrorKind::FixMachine)
                    );
                }
                _ => panic!("{path}, {answer}: {error:?}"),
            }
        }
        assert!(disk.bytes(Path::new("store")) == bytes, "it was written");
        assert!(!disk.exists(Path::new("other")).unwrap());
        let db = options().read_only().open("store").unwrap();
        assert_eq!(db.get("a").unwrap().unwrap().value, "1");
        assert!(matches!(db.put("a", "2"), Err(Error::ReadOnly)));
        assert!(db.check().unwrap().is_clean());
        drop(db);
        // Who only wants to read is not told that the medium takes no writes.
        let everybody = Refusing {
            disk,
            answer,
            everybody: true,
        };
        let options = Options::new().disk(Arc::new(everybody)).read_only();
        let error = options.open("store").unwrap_err();
        assert!(
            matches!(&error, Error::Io { what: "open the store", cause } if cause.kind() == answer),
            "{error:?}"
        );
    }
}
