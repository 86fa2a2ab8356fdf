//! Lists that people write and commands read: tables of one-line strings, all of TOML that they use.

use std::collections::BTreeMap;

use crate::{Result, root};

/// The fields of one table.
pub(crate) type Table = BTreeMap<String, String>;

/// Reads the tables `[[name]]` of a file of the workspace.
pub(crate) fn read(file: &str, name: &str) -> Result<Vec<Table>> {
    let path = root().join(file);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text, name).map_err(|error| format!("{file}, {error}"))
}

/// The same from the text.
pub(crate) fn parse(text: &str, name: &str) -> Result<Vec<Table>> {
    let head = format!("[[{name}]]");
    let mut tables: Vec<Table> = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == head {
            tables.push(Table::new());
            continue;
        }
        let field = line
            .split_once(" = ")
            .and_then(|(name, value)| Some((name, value.strip_prefix('"')?.strip_suffix('"')?)));
        let (Some((name, value)), Some(table)) = (field, tables.last_mut()) else {
            return Err(format!("line {number}: not `name = \"text\"`"));
        };
        if table.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("line {number}: {name} twice in a table"));
        }
    }
    Ok(tables)
}
