//! The Rust sources as the rules of `layers`, `words` and `examples` see them: code without comments,
//! and the whole.

use std::path::Path;

use crate::Result;

/// One source file.
pub(crate) struct Source {
    /// From the folder of the workspace, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// Its lines, without comments.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = text
            .lines()
            .map(without_comment)
            .collect::<Vec<_>>()
            .join("\n");
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
        }
    }

    /// The lines, from 1 on.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }
}

/// The line up to `//`. A string that holds `//` is cut too, which hides nothing that we look for
/// before it.
fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// Whether `word` stands in the line as a word of its own.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(joins) && !line[at + word.len()..].starts_with(joins))
}

/// Every `.rs` file below a folder of the workspace, by path.
pub(crate) fn below(folder: &str) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    walk(&crate::root().join(folder), folder, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(folder: &Path, shown: &str, found: &mut Vec<Source>) -> Result<()> {
    let failed = |error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let shown = format!("{shown}/{name}");
        if path.is_dir() {
            if name != "target" {
                walk(&path, &shown, found)?;
            }
        } else if name.ends_with(".rs") {
            found.push(Source::new(
                &shown,
                &std::fs::read_to_string(&path).map_err(failed)?,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Source, has_word};

    /// Words in comments and inside other words are not meant.
    #[test]
    fn words_are_whole_and_in_code() {
        assert!(has_word("    unsafe { x }", "unsafe"));
        assert!(has_word("unsafe", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
        assert!(!has_word("let is_unsafe = 1;", "unsafe"));
        let source = Source::new("a.rs", "//! unsafe\nlet a = 1; // unsafe\n");
        assert!(source.lines().all(|(_, line)| !has_word(line, "unsafe")));
    }
}
