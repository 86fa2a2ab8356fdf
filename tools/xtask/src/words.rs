//! Words that may stand in few places: `unsafe`, locks on the read path, the clock, the environment.

use crate::Result;
use crate::source::{self, Source, has_word};

/// The files that may contain `unsafe`. One that no longer does must leave the list.
const UNSAFE: &[&str] = &[
    "benches/compare/src/engines/lmdb.rs",
    "benches/compare/src/engines/raw_memory.rs",
    "src/index/map.rs",
    "src/index/node.rs",
    "src/index/tests/memory.rs",
    "src/mvcc/retired.rs",
    "tests/harness/src/kill/shutdown.rs",
    "tests/harness/src/fuzz/memory.rs",
    "tests/harness/src/kill/starve.rs",
    "tests/size/memory.rs",
    "src/sys/extent.rs",
    "src/sys/region.rs",
    "src/sys/syscall.rs",
];

/// The folders that `unsafe` is looked for in: all that hold Rust.
const ALL: &[&str] = &["benches", "examples", "format", "src", "tests", "tools"];

/// A word, where it must not stand, and where below that it may.
struct Rule {
    words: &'static [&'static str],
    within: &'static [&'static str],
    except: &'static [&'static str],
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        words: &["Mutex", "RwLock", "Condvar", "parking_lot", "lock"],
        // All that a get, a range, a history and their walk over the tree pass through. Clippy's
        // `disallowed_types` sees a type under any name, but not a lock of somebody else that is only taken.
        within: &[
            "src/index/",
            "src/mvcc/events.rs",
            "src/mvcc/keys.rs",
            "src/mvcc/pins.rs",
            "src/mvcc/range.rs",
            "src/mvcc/record.rs",
            "src/mvcc/versions.rs",
            "src/mvcc/view.rs",
            "src/pager/growing.rs",
            "src/pager/medium.rs",
            "src/tree/",
        ],
        except: &[
            "src/index/tests.rs",
            "src/index/tests/",
            "src/index/loom.rs",
            "src/tree/loom.rs",
        ],
        reason: "reads never wait",
    },
    Rule {
        words: &["Instant", "SystemTime"],
        within: &["src/", "format/src/"],
        except: &["src/sys/clock.rs"],
        reason: "time comes through the clock of `sys`",
    },
    Rule {
        words: &["std::env", "env::var", "std::net", "process::Command"],
        within: &["src/", "format/src/"],
        except: &[],
        reason: "the engine reads no environment, opens no connection and starts no process",
    },
    Rule {
        words: &["std::fs", "std::thread", "rayon", "Mutex"],
        within: &["format/src/"],
        except: &[],
        reason: "`format` has neither I/O nor threads",
    },
];

/// What breaks a rule, one line each.
pub(crate) fn complaints() -> Result<Vec<String>> {
    let mut sources = Vec::new();
    for folder in ALL {
        if crate::root().join(folder).is_dir() {
            sources.extend(source::below(folder)?);
        }
    }
    let mut complaints = unsafe_code(&sources);
    complaints.extend(sources.iter().flat_map(words));
    Ok(complaints)
}

fn unsafe_code(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let line = source.lines().find(|(_, line)| has_word(line, "unsafe"));
        let listed = UNSAFE.contains(&source.path.as_str());
        match line {
            // This page and its neighbours name the word in order to find it.
            Some((line, _)) if !listed && !source.path.starts_with("tools/xtask/") => {
                complaints.push(format!(
                    "{}:{line}: `unsafe` is not for this file",
                    source.path
                ));
            }
            None if listed => {
                complaints.push(format!(
                    "{}: has no `unsafe`: take it off the list",
                    source.path
                ));
            }
            _ => {}
        }
    }
    for path in UNSAFE {
        if !sources.iter().any(|source| source.path == *path) {
            complaints.push(format!("{path}: is gone: take it off the list"));
        }
    }
    complaints
}

fn words(source: &Source) -> Vec<String> {
    let begins = |paths: &[&str]| paths.iter().any(|path| source.path.starts_with(path));
    let rules = RULES
        .iter()
        .filter(|rule| begins(rule.within) && !begins(rule.except));
    let mut complaints = Vec::new();
    for rule in rules {
        for (line, text) in source.lines() {
            if let Some(word) = rule.words.iter().find(|word| has_word(text, word)) {
                complaints.push(format!("{}:{line}: `{word}`: {}", source.path, rule.reason));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::{Source, UNSAFE, unsafe_code, words};

    /// A word in the wrong place is found, in the right place or in a comment it is not.
    #[test]
    fn words_in_the_wrong_place() {
        for (path, text, expected) in [
            ("src/index/map.rs", "use std::sync::Mutex;", 1),
            ("src/mvcc/view.rs", "lock: RwLock<()>,", 1),
            ("src/mvcc/range.rs", "lock: Mutex<()>,", 1),
            ("src/pager/medium.rs", "lock: Mutex<()>,", 1),
            ("src/mvcc/writer.rs", "lock: RwLock<()>,", 0),
            ("src/index/tests.rs", "lock: RwLock<()>,", 0),
            ("src/index/map.rs", "// no Mutex here", 0),
            ("src/tree/cursor.rs", "let held = lock(&engine.sync);", 1),
            ("src/sys/clock.rs", "Instant::now()", 0),
            ("src/tree/leaf.rs", "std::time::Instant::now()", 1),
            ("src/engine/open.rs", "std::env::var(\"X\")", 1),
            ("format/src/record.rs", "std::fs::read(path)", 1),
        ] {
            assert_eq!(
                words(&Source::new(path, text)).len(),
                expected,
                "{path}: {text}"
            );
        }
    }

    /// The list of files is exact: no other file, and none too many.
    #[test]
    fn unsafe_stands_where_it_is_listed() {
        let block = "    unsafe { read(pointer) }";
        let mut sources: Vec<Source> = UNSAFE.iter().map(|path| Source::new(path, block)).collect();
        assert!(unsafe_code(&sources).is_empty());
        sources.push(Source::new("src/db.rs", block));
        assert_eq!(unsafe_code(&sources).len(), 1);
        sources.pop();
        sources[0] = Source::new(UNSAFE[0], "#![expect(unsafe_code)]");
        assert_eq!(unsafe_code(&sources).len(), 1);
        sources.remove(0);
        assert_eq!(unsafe_code(&sources).len(), 1);
    }
}
