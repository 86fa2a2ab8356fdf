//! Reads the tables of SPEC.md: fields of structs, and limits.

/// A table of fields.
pub(crate) struct StructTable {
    pub(crate) name: String,
    pub(crate) size: usize,
    /// Name, offset, size.
    pub(crate) fields: Vec<(String, usize, usize)>,
}

/// The text of SPEC.md.
pub(crate) fn text() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../SPEC.md");
    std::fs::read_to_string(path).expect("SPEC.md stands beside the format package")
}

/// The cells of a table's row, without backticks; `None` for other lines.
pub(crate) fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(
        row.split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect(),
    )
}

/// Every table under a heading of the form ``#### `Name` (n bytes)``.
pub(crate) fn struct_tables(spec: &str) -> Vec<StructTable> {
    let mut tables: Vec<StructTable> = Vec::new();
    let mut inside = false;
    for line in spec.lines() {
        if let Some(heading) = line.strip_prefix("#### `") {
            let (name, rest) = heading.split_once("` (").expect("a name in backticks");
            let size = rest.strip_suffix(" bytes)").expect("a size in bytes");
            let size = size.parse().expect("a number of bytes");
            let name = name.to_owned();
            tables.push(StructTable {
                name,
                size,
                fields: Vec::new(),
            });
            inside = true;
        } else if line.starts_with('#') || line.starts_with('*') {
            inside = false;
        } else if inside && let Some(cells) = cells(line) {
            let [offset, size, field, _meaning] = cells.as_slice() else {
                panic!("a row of fields has four cells: {line}");
            };
            let (Ok(offset), Ok(size)) = (offset.parse(), size.parse()) else {
                continue; // the two lines of the table's head
            };
            let table = tables.last_mut().expect("inside a table");
            table.fields.push((field.clone(), offset, size));
        }
    }
    tables
}
