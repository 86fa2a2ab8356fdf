//! `cargo xtask layers`: the arrows between the folders of `src`, read off the `crate::` paths.
//!
//! `db → watch → mvcc → (index, engine)`, `engine → tree → pager → sys → format`, `index → format`.
//! A layer uses layers below it, never above, never a sibling. `error`, `options`, `lessor`,
//! `sync`, `metrics` and `trace` are pages that several layers share; what they use of upper layers are the names of
//! public types. A name that `lib.rs` exports (`crate::KeyValue`) counts as the folder it comes
//! from.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{self, Source};
use crate::{Result, examples, words};

/// Who may use whom. Who is not listed may use nothing; `lib.rs` alone may use all.
const ARROWS: &[(&str, &[&str])] = &[
    ("sys", &["sync"]),
    ("sync", &[]),
    ("index", &["sync"]),
    ("pager", &["sync", "sys", "error"]),
    ("tree", &["pager", "sync", "sys", "error"]),
    (
        "engine",
        &[
            "tree", "pager", "sync", "sys", "error", "options", "metrics", "trace",
        ],
    ),
    (
        "mvcc",
        &[
            "index", "engine", "tree", "pager", "sys", "error", "options", "lessor", "sync",
            "metrics", "trace",
        ],
    ),
    (
        "import",
        &[
            "mvcc", "index", "engine", "tree", "pager", "sys", "error", "options",
        ],
    ),
    (
        "watch",
        &["mvcc", "engine", "sys", "error", "sync", "metrics"],
    ),
    (
        "db",
        &[
            "watch", "import", "stats", "mvcc", "index", "engine", "tree", "pager", "sys", "error",
            "options", "lessor", "sync", "trace",
        ],
    ),
    ("cookbook", &["db", "mvcc", "error", "options", "lessor"]),
    (
        "stats",
        &[
            "watch", "mvcc", "index", "engine", "tree", "pager", "sys", "error", "options", "sync",
        ],
    ),
    // They are told numbers; what they may know below is how time is taken.
    ("metrics", &["sys"]),
    ("trace", &["sys"]),
    // A conflict carries the record found, and an id says which watcher.
    ("error", &["mvcc", "watch"]),
    // `Options::open` gives a `Db`.
    ("options", &["db", "error", "lessor", "sys"]),
    // A lessor is given a `WeakDb`.
    ("lessor", &["db"]),
];

/// Prints every arrow and every word that should not be, and every example that should.
pub(crate) fn run() -> Result<()> {
    let sources = source::below("src")?;
    let mut complaints = arrows(&sources);
    complaints.extend(words::complaints()?);
    complaints.extend(examples::complaints()?);
    for complaint in &complaints {
        println!("{complaint}");
    }
    println!(
        "layers: {} files of src, {} complaints",
        sources.len(),
        complaints.len()
    );
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(format!("{} complaints", complaints.len()))
    }
}

/// The arrows that [`ARROWS`] does not have.
fn arrows(sources: &[Source]) -> Vec<String> {
    let folders: BTreeSet<&str> = sources.iter().map(|source| folder(&source.path)).collect();
    let exports = sources
        .iter()
        .find(|source| source.path == "src/lib.rs")
        .map(|lib| exports(&lib.code, &folders))
        .unwrap_or_default();
    let mut complaints = Vec::new();
    for source in sources {
        let from = folder(&source.path);
        if from == "lib" {
            continue;
        }
        let allowed = ARROWS
            .iter()
            .find(|arrow| arrow.0 == from)
            .map_or(&[][..], |arrow| arrow.1);
        for (line, name) in uses(source) {
            let to = exports
                .get(name.as_str())
                .map_or(name.as_str(), String::as_str);
            if to != from && !allowed.contains(&to) {
                complaints.push(format!("{}:{line}: {from} may not use {to}", source.path));
            }
        }
    }
    complaints
}

/// The folder or page of `src` that a file belongs to.
fn folder(path: &str) -> &str {
    let path = path.strip_prefix("src/").unwrap_or(path);
    path.split('/')
        .next()
        .unwrap_or(path)
        .trim_end_matches(".rs")
}

/// The first name of each path that begins at the root, with its line: of `crate::a::B` the `a`, of
/// `crate::{a::B, c}` both, of `super::a` in a page of the root the `a` too.
fn uses(source: &Source) -> Vec<(usize, String)> {
    let parts: Vec<&str> = source.path.split('/').collect();
    let file_is_folder = usize::from(source.path.ends_with("/mod.rs"));
    let depth = parts.len() - 1 - file_is_folder;
    let supers = "super::".repeat(depth);
    let inner = "super::".repeat(depth + 1);
    let mut found = Vec::new();
    for root in ["crate::", supers.as_str()] {
        for (at, _) in source.code.match_indices(root) {
            let before = &source.code[..at];
            let joined = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            // `pub(in crate::a)` uses nothing, and a longer chain of `super` is an inner module's.
            if joined || before.ends_with("super::") || before.ends_with("in ") {
                continue;
            }
            if root != "crate::" && source.code[at..].starts_with(&inner) {
                continue;
            }
            let line = before.matches('\n').count() + 1;
            for name in first_names(&source.code[at + root.len()..]) {
                // Up from a folder, only names of other folders tell the root from a module between.
                if root == "crate::" || ARROWS.iter().any(|arrow| arrow.0 == name) {
                    found.push((line, name));
                }
            }
        }
    }
    found
}

/// The first name of a path, or of each path of a group in braces.
fn first_names(path: &str) -> Vec<String> {
    let name = |path: &str| -> String {
        path.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let mut names = Vec::new();
    let (mut depth, mut begins) = (0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                names.push(name(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

/// The names that `lib.rs` exports from its folders, each with its folder.
fn exports(lib: &str, folders: &BTreeSet<&str>) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for statement in lib.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else {
            continue;
        };
        let path = path.trim_start_matches("crate::");
        let Some(folder) = folders
            .iter()
            .find(|folder| path.starts_with(&format!("{folder}::")))
        else {
            continue;
        };
        let joins = |c: char| !(c.is_alphanumeric() || c == '_');
        for name in path
            .split(joins)
            .filter(|name| name.starts_with(char::is_uppercase))
        {
            exports.insert(name.to_owned(), (*folder).to_owned());
        }
    }
    exports
}

#[cfg(test)]
mod tests {
    use super::{Source, arrows, first_names, run};

    /// The tree as it is keeps the rules.
    #[test]
    fn the_sources_keep_the_layers() {
        run().unwrap();
    }

    fn complaints(path: &str, text: &str) -> usize {
        let lib = "mod db;\nmod mvcc;\npub use mvcc::{KeyValue, Record};\npub use db::Db;\n";
        arrows(&[
            Source::new("src/lib.rs", lib),
            Source::new("src/db.rs", ""),
            Source::new("src/mvcc/mod.rs", ""),
            Source::new(path, text),
        ])
        .len()
    }

    /// Each way to write an arrow is seen, upward ones are refused, and others are not.
    #[test]
    fn upward_arrows_are_refused() {
        for (path, text, expected) in [
            ("src/engine/open.rs", "use crate::pager::Log;", 0),
            ("src/engine/open.rs", "use crate::mvcc::Record;", 1),
            ("src/engine/open.rs", "use crate::engine::State;", 0),
            ("src/engine/open.rs", "use crate::Record;", 1),
            ("src/engine/open.rs", "let x: crate::db::Db = y;", 1),
            ("src/engine/open.rs", "pub(in crate::mvcc) fn f() {}", 0),
            ("src/engine/open.rs", "// use crate::mvcc::Record;", 0),
            ("src/engine/open.rs", "use super::super::mvcc::Record;", 1),
            ("src/engine/open.rs", "use super::mvcc;", 0),
            ("src/engine/mod.rs", "use super::mvcc::Record;", 1),
            (
                "src/engine/open.rs",
                "use crate::{error::Error,\n    index::{A, B}, tree::T};",
                1,
            ),
            ("src/index/map.rs", "use crate::engine::Engine;", 1),
            ("src/tree/leaf.rs", "use crate::engine::Engine;", 1),
            ("src/error.rs", "use crate::KeyValue;", 0),
            ("src/unheard_of.rs", "use crate::sys::Disk;", 1),
        ] {
            assert_eq!(complaints(path, text), expected, "{path}: {text}");
        }
    }

    /// Groups may be nested.
    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(first_names("a::B;"), ["a"]);
        assert_eq!(first_names("{a::{B, c::D}, e, F as G}; h"), ["a", "e", "F"]);
    }
}
