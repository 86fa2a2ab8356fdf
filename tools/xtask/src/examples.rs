//! Each public item of `revtree` has an example of its own: what `lib.rs` exports, and the `pub` items of
//! the impl blocks of these types.
//!
//! Read off the lines as rustfmt leaves them: an item or an `impl` begins in the first column, what is in
//! it four columns further on, and `}` in the first column ends it. It says nothing of what an example
//! shows; that it compiles and holds is for the doc tests.

use std::collections::BTreeSet;

use crate::Result;
use crate::source::{self, Source};

/// Items without an example of their own, and why. An entry that excuses nothing must leave the list.
const EXCEPT: &[(&str, &str)] = &[
    (
        "Lessor::",
        "a callback means nothing alone: the trait's example implements one",
    ),
    (
        "View::",
        "the calls are those of `ReadView`: the trait's example is about who may be asked",
    ),
];

/// The items that lack an example, one line each.
pub(crate) fn complaints() -> Result<Vec<String>> {
    let mut sources = source::below("src")?;
    sources.extend(source::below("format/src")?);
    Ok(check(&sources, EXCEPT))
}

fn check(sources: &[Source], except: &[(&str, &str)]) -> Vec<String> {
    let Some(lib) = sources.iter().find(|source| source.path == "src/lib.rs") else {
        return vec!["src/lib.rs: is gone".to_owned()];
    };
    let door = Door::of(lib);
    let mut complaints = Vec::new();
    let mut shown = BTreeSet::new();
    let mut excused = BTreeSet::new();
    for source in sources {
        let names = door.names(&source.path);
        for item in items(source, names) {
            shown.insert(item.name.clone());
            if item.has_example {
                continue;
            }
            match except.iter().find(|(name, _)| item.name.starts_with(name)) {
                Some((name, _)) => {
                    excused.insert(*name);
                }
                None => complaints.push(format!(
                    "{}:{}: `{}` is public and has no example",
                    source.path, item.line, item.name
                )),
            }
        }
    }
    // What is exported and not found is written in a way that this page does not read.
    for name in door.of_src.iter().chain(&door.of_format) {
        if !shown.contains(name) {
            complaints.push(format!(
                "src/lib.rs: `{name}` is exported and was not found"
            ));
        }
    }
    for (name, _) in except {
        if !excused.contains(name) {
            complaints.push(format!(
                "`{name}` needs no exception: take it off the list of examples.rs"
            ));
        }
    }
    complaints
}

/// The names that `lib.rs` exports at its root, by the crate that they are written in. What a module of
/// `lib.rs` exports is behind a feature, and no promise.
#[derive(Debug, Default)]
struct Door {
    of_src: BTreeSet<String>,
    of_format: BTreeSet<String>,
}

impl Door {
    fn of(lib: &Source) -> Door {
        let mut door = Door::default();
        let code = format!("\n{}", lib.code);
        for statement in code.split("\npub use ").skip(1) {
            let statement = statement.split(';').next().unwrap_or(statement);
            let (from, list) = statement.split_once("::").unwrap_or(("", statement));
            let names = match from {
                "revtree_format" => &mut door.of_format,
                _ => &mut door.of_src,
            };
            let exported = list.split(|c: char| !is_word(c));
            let exported = exported.filter(|name| name.starts_with(char::is_uppercase));
            names.extend(exported.map(str::to_owned));
        }
        door
    }

    fn names(&self, path: &str) -> &BTreeSet<String> {
        match path.strip_prefix("format/") {
            Some(_) => &self.of_format,
            None => &self.of_src,
        }
    }
}

/// A public item.
#[derive(Debug)]
struct Item {
    line: usize,
    /// `Db`, or `Db::open` for what is in it.
    name: String,
    has_example: bool,
}

/// The public items of a file that have one of these names, or are in something that has.
fn items(source: &Source, door: &BTreeSet<String>) -> Vec<Item> {
    let mut found = Vec::new();
    // Of what an impl block or trait is open, and whether all in it is as public as itself.
    let mut within: Option<(String, bool)> = None;
    let mut docs = Docs::default();
    for (line, text) in (1..).zip(source.text.lines()) {
        if docs.take(text) {
            continue;
        }
        let has_example = docs.end();
        let mut push = |name: String| {
            found.push(Item {
                line,
                name,
                has_example,
            });
        };
        if let Some(inner) = text.strip_prefix("    ") {
            let Some((outer, is_trait)) = &within else {
                continue;
            };
            let declared = if *is_trait {
                Some(inner)
            } else {
                inner.strip_prefix("pub ")
            };
            if let Some(name) = declared.and_then(name_of) {
                push(format!("{outer}::{name}"));
            }
        } else if text == "}" {
            within = None;
        } else if let Some(of) = self_type(text) {
            let is_open = text.ends_with('{') && door.contains(of);
            within = is_open.then(|| (of.to_owned(), false));
        } else if let Some(declared) = text.strip_prefix("pub ")
            && let Some(name) = name_of(declared)
            && door.contains(name)
        {
            push(name.to_owned());
            let is_trait = declared.starts_with("trait ") && text.ends_with('{');
            within = is_trait.then(|| (name.to_owned(), true));
        }
    }
    found
}

/// The lines above an item: its documentation and attributes.
#[derive(Debug, Default)]
struct Docs {
    has_example: bool,
    in_fence: bool,
    in_attribute: bool,
}

impl Docs {
    /// Takes the line if it belongs to what is above an item.
    fn take(&mut self, line: &str) -> bool {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            if let Some(words) = text.trim().strip_prefix("```") {
                self.in_fence = !self.in_fence;
                self.has_example |= self.in_fence && is_tested(words);
            }
            return true;
        }
        if self.in_attribute || line.starts_with("#[") {
            self.in_attribute = !line.ends_with(']');
            return true;
        }
        false
    }

    /// Whether there was an example; what follows is above another item.
    fn end(&mut self) -> bool {
        std::mem::take(self).has_example
    }
}

/// Whether rustdoc compiles a block that begins with these words.
fn is_tested(words: &str) -> bool {
    const TESTED: &[&str] = &["", "rust", "no_run", "should_panic", "compile_fail"];
    words.split(',').all(|word| TESTED.contains(&word.trim()))
}

/// The type of an inherent impl block that begins here: of `impl<'v> Range<'v> {` the `Range`.
fn self_type(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("impl")?;
    let rest = match rest.strip_prefix('<') {
        Some(generics) => generics.split_once("> ")?.1,
        None => rest.strip_prefix(' ')?,
    };
    // What implements a trait is documented there.
    (!rest.contains(" for ")).then(|| first_word(rest))
}

/// The name that a declaration gives: of `const fn new(n: u64)` the `new`.
fn name_of(declaration: &str) -> Option<&str> {
    const QUALIFIERS: &[&str] = &["async ", "unsafe ", "const "];
    const KINDS: &[&str] = &[
        "fn ", "struct ", "enum ", "trait ", "type ", "union ", "static ",
    ];
    let mut rest = declaration;
    loop {
        if let Some(named) = KINDS.iter().find_map(|kind| rest.strip_prefix(kind)) {
            return Some(first_word(named));
        }
        let qualifier = QUALIFIERS.iter().find(|word| rest.starts_with(**word))?;
        let behind = &rest[qualifier.len()..];
        // A `const` that is no function is a constant.
        if *qualifier == "const " && first_word(behind).starts_with(char::is_uppercase) {
            return Some(first_word(behind));
        }
        rest = behind;
    }
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::{Source, check, complaints, is_tested, name_of, self_type};

    const LIB: &str = "\
pub use db::{Db};
pub use revtree_format::Revision;
pub mod storage {
    pub use crate::sys::Disk;
}
";

    /// `db.rs` with this in it, between what is found always.
    fn found(text: &str, except: &[(&str, &str)]) -> Vec<String> {
        let shown = "/// A.\n///\n/// ```\n/// a();\n/// ```\n";
        check(
            &[
                Source::new("src/lib.rs", LIB),
                Source::new("src/db.rs", &format!("{shown}pub struct Db;\n\n{text}")),
                Source::new(
                    "format/src/ids.rs",
                    &format!("{shown}pub struct Revision(u64);\n"),
                ),
            ],
            except,
        )
    }

    /// The door as it is has all its examples.
    #[test]
    fn the_door_has_its_examples() {
        assert_eq!(complaints().unwrap(), [""; 0]);
    }

    /// What is public and has no example of its own is found, whatever stands around it.
    #[test]
    fn what_has_no_example_is_found() {
        for (text, expected) in [
            ("impl Db {\n    /// A.\n    pub fn a() {}\n}", 1),
            (
                "impl<'v> Db<'v> {\n    /// A.\n    pub const A: u8 = 0;\n}",
                1,
            ),
            (
                "impl Db {\n    pub const fn a() {}\n\n    pub fn b() {}\n}",
                2,
            ),
            (
                "impl Db {\n    /// ```\n    /// ```\n    pub fn a() {}\n}",
                0,
            ),
            (
                "impl Db {\n    /// ```\n    /// ```\n    #[expect(\n        a,\n    )]\n    pub fn a() {}\n}",
                0,
            ),
            // Another item's example, one that is not compiled, one that ends where it begins.
            (
                "impl Db {\n    /// ```\n    /// ```\n    pub fn a() {}\n    pub fn b() {}\n}",
                1,
            ),
            (
                "impl Db {\n    /// ```text\n    /// ```\n    pub fn a() {}\n}",
                1,
            ),
            (
                "impl Db {\n    /// ```ignore\n    /// ```\n    pub fn a() {}\n}",
                1,
            ),
            // Not of the door.
            ("impl Db {\n    pub(crate) fn a() {}\n    fn b() {}\n}", 0),
            ("impl Shared {\n    pub fn a() {}\n}", 0),
            ("impl Clone for Db {\n    fn clone(&self) {}\n}", 0),
            ("pub struct Disk;\n\npub struct Revision;", 0),
            (
                "impl Db {\n    fn a() {\n        pub fn b() {}\n    }\n}",
                0,
            ),
        ] {
            assert_eq!(found(text, &[]).len(), expected, "{text}");
        }
    }

    /// A trait's methods are as public as it is.
    #[test]
    fn methods_of_a_trait_count() {
        let lib = Source::new("src/lib.rs", "pub use a::View;\n");
        let text = "/// ```\n/// ```\npub trait View: Send {\n    fn a();\n}\n\nfn b() {}\n";
        let of_trait = check(&[lib, Source::new("src/a.rs", text)], &[]);
        assert_eq!(
            of_trait,
            ["src/a.rs:4: `View::a` is public and has no example"]
        );
    }

    /// An exception excuses what it names, and only while there is something to excuse.
    #[test]
    fn exceptions_are_exact() {
        let except = [("Db::a", "as we say")];
        let without = "impl Db {\n    pub fn a() {}\n}";
        assert_eq!(found(without, &except).len(), 0);
        let with = "impl Db {\n    /// ```\n    /// ```\n    pub fn a() {}\n}";
        assert_eq!(found(with, &except).len(), 1);
    }

    /// An exported name that is not declared as this page reads it is no item without complaints.
    #[test]
    fn what_cannot_be_read_is_said() {
        let lib = Source::new("src/lib.rs", "pub use db::{Db, Unheard};\n");
        let complaints = check(&[lib], &[]);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
    }

    /// The pieces of a line.
    #[test]
    fn lines_are_taken_apart() {
        assert_eq!(self_type("impl Db {"), Some("Db"));
        assert_eq!(self_type("impl<'v> Range<'v> {"), Some("Range"));
        assert_eq!(self_type("impl<T: Into<u8>> Of<T> {"), Some("Of"));
        assert_eq!(self_type("impl From<u64> for Revision {"), None);
        assert_eq!(name_of("const fn new(n: u64)"), Some("new"));
        assert_eq!(name_of("const NONE: Revision = 0;"), Some("NONE"));
        assert_eq!(name_of("type Result<T> = T;"), Some("Result"));
        assert_eq!(name_of("mod storage {"), None);
        assert_eq!(name_of("use a::b;"), None);
        assert!(is_tested("") && is_tested("no_run") && !is_tested("text"));
        assert!(!is_tested("rust,ignore"));
    }
}
