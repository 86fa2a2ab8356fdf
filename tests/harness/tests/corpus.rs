//! The inputs that are kept in `tests/fuzz/corpus`, a folder for each target, fed once more: what was a finding, and
//! few others that reach far. Each within its bound of memory (F19).

use std::fs;
use std::path::{Path, PathBuf};

use revtree_harness::fuzz;

#[global_allocator]
static COUNTED: fuzz::memory::Counting = fuzz::memory::Counting;

/// More would not be read by anybody, and not be fed by each push.
const CORPUS_BYTES_MAX: u64 = 512 << 10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

fn files(target: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(target)).expect("each target has a folder");
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(target: &str) {
    assert!(fuzz::memory::is_counted());
    let files = files(target);
    assert!(!files.is_empty());
    for file in files {
        let data = fs::read(&file).unwrap();
        fuzz::feed(target, &data).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    let most = fuzz::memory::most();
    eprintln!("{target}: at most {most} bytes beside twice the file");
}

#[test]
fn open() {
    replay("open");
}

#[test]
fn decode() {
    replay("decode");
}

#[test]
fn import() {
    replay("import");
}

#[test]
fn ops() {
    replay("ops");
}

#[test]
fn salvage() {
    replay("salvage");
}

/// Each folder is that of a target, and all are small.
#[test]
fn nothing_else_is_kept() {
    let mut bytes = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            fuzz::TARGETS.iter().any(|(known, _)| *known == name),
            "{name}"
        );
        for file in files(&name) {
            bytes += fs::metadata(file).unwrap().len();
        }
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}
