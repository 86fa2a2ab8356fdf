//! SPEC.md and the code say the same: every field of every on-disk struct, every limit, every rule
//! that the code cites. The lists here are held against the source, so that nothing can be left out.

#[path = "common/spec.rs"]
mod spec;

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::path::Path;

use revtree_format::limits::{
    BLOCK_BYTES, BRANCH_ENTRIES_MAX, FORMAT_VERSION, FRAME_BODY_BYTES, FRAME_BODY_BYTES_MAX,
    KEY_BYTES_MAX, LEAF_BYTES_MAX, REVISION_MAX, ROOTS_MAX, SEGMENT_BYTES_DEFAULT,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_START, STORE_BYTES_MAX, SUB_MAX,
    SUPERBLOCK_SLOTS, TABLE_KEY_BYTES_MAX, TABLE_NAME_BYTES_MAX, TABLE_VALUE_BYTES_MAX,
    TABLES_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_CHANGES_MAX, TREE_LEVELS_MAX,
    VALUE_BYTES_MAX,
};
use revtree_format::{
    AppliedBytes, BranchEntryBytes, BranchHeaderBytes, ChunkRefBytes, CompactBytes,
    ControlHeaderBytes, DirectoryHeaderBytes, FrameHeaderBytes, INDEX_LEAF_ENTRIES_MAX,
    IncrementBlockBytes, IncrementEndBytes, IncrementHeadBytes, IncrementKeptBytes,
    IncrementRecordBytes, IndexEntryBytes, IndexLeafBytes, NextSegmentBytes, RecordHeadBytes,
    RecordSkipBytes, RecordSubsBytes, RecordWideBytes, RootBytes, SegmentEntryBytes,
    SegmentHeaderBytes, SuperblockBytes, TableItemBytes,
};

/// A struct as the compiler lays it out.
struct Layout {
    name: &'static str,
    size: usize,
    fields: Vec<(&'static str, usize, usize)>,
}

fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! layouts {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        vec![$(Layout {
            name: stringify!($name),
            size: size_of::<$name>(),
            fields: vec![$((
                stringify!($field),
                offset_of!($name, $field),
                size_of_field(|s: &$name| &s.$field),
            )),*],
        }),*]
    };
}

fn layouts() -> Vec<Layout> {
    layouts! {
        SuperblockBytes {
            magic, crc32, crc32c, format_version, critical_flags, store_id, generation, edition,
            opens, segment_bytes, branch, head_position, head_sequence, head_use, head_prev_crc,
            head_segment, revision, compact_revision, applied_index, applied_term, records,
            segment_count, root_count, roots, reserved,
        }
        RootBytes { kind, flags, body_len, position, segment_use, body_crc, levels, detail }
        SegmentHeaderBytes {
            magic, crc, segment_use, index, units, kind, reserved, key_id, first_sequence, branch,
            reserved_2, tag,
        }
        FrameHeaderBytes {
            magic, header_crc, body_crc, prev_crc, sequence, synced_up_to, revision, body_len,
            records_len, record_count, opens, kind, flags, codec, branch, logical_len,
        }
        RecordHeadBytes {
            head_crc, value_crc, hint, main, value_len, key_len, flags, version, create_delta,
            prev_delta, ordinal,
        }
        RecordWideBytes { version, create_delta, prev_delta, ordinal }
        RecordSubsBytes { sub, prev_sub }
        RecordSkipBytes { main, sub, reserved, hint }
        ControlHeaderBytes { kind, flags, len }
        AppliedBytes { index, term }
        TableItemBytes { name_len, key_len, value_len }
        CompactBytes { revision, start_len, end_len }
        NextSegmentBytes { segment_use, index, units }
        BranchHeaderBytes { level, reserved, count, reserved_2, generation }
        BranchEntryBytes {
            main, position, segment_use, sub, len, records, crc, codec, reserved,
        }
        DirectoryHeaderBytes { items, chunks, reserved }
        ChunkRefBytes { position, segment_use, body_len, body_crc }
        SegmentEntryBytes { segment_use, units, state, dead, reserved }
        IndexLeafBytes { live, separator_len, prefix_len, count, reserved }
        IndexEntryBytes { chunk, position, hash }
        IncrementBlockBytes { magic, crc, kind, len, sequence }
        IncrementHeadBytes {
            version, base_crc, store_id, earlier, revision, compact, index, term,
        }
        IncrementKeptBytes { main, sub }
        IncrementRecordBytes {
            main, create, version, lease, sub, value_len, key_len, kind,
        }
        IncrementEndBytes { records, kept, items }
    }
}

macro_rules! limits {
    ($($name:ident)*) => {
        BTreeMap::from([$((stringify!($name), u128::from($name as u64))),*])
    };
}

fn limits() -> BTreeMap<&'static str, u128> {
    limits! {
        KEY_BYTES_MAX VALUE_BYTES_MAX TRANSACTION_CHANGES_MAX TRANSACTION_BYTES_MAX
        STORE_BYTES_MAX TABLES_BYTES_MAX TABLE_NAME_BYTES_MAX TABLE_KEY_BYTES_MAX
        TABLE_VALUE_BYTES_MAX REVISION_MAX SEGMENT_BYTES_MIN SEGMENT_BYTES_MAX
        SEGMENT_BYTES_DEFAULT TREE_LEVELS_MAX BRANCH_ENTRIES_MAX LEAF_BYTES_MAX FRAME_BODY_BYTES
        FRAME_BODY_BYTES_MAX ROOTS_MAX SUB_MAX BLOCK_BYTES SUPERBLOCK_SLOTS SEGMENTS_START
        FORMAT_VERSION INDEX_LEAF_ENTRIES_MAX
    }
}

/// The source of the store's own format, file by file; etcd's is described elsewhere.
fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the package has a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            assert!(
                path.ends_with("etcd"),
                "a folder that this test passes over"
            );
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file");
        sources.push((path.display().to_string(), text));
    }
    sources
}

/// All Rust files below a folder, which may not exist.
fn rust_files(folder: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            files.push((path.display().to_string(), text));
        }
    }
}

/// Names and fields of all `#[repr(C)]` structs in the source.
fn structs_in_source() -> BTreeMap<String, Vec<String>> {
    let mut structs = BTreeMap::new();
    for (_, text) in sources() {
        for part in text.split("#[repr(C)]\npub struct ").skip(1) {
            let (name, rest) = part.split_once(" {\n").expect("a struct with named fields");
            let (body, _) = rest.split_once("\n}").expect("a struct ends");
            let fields = body
                .lines()
                .filter_map(|line| line.trim().strip_prefix("pub "))
                .map(|field| field.split(':').next().expect("a name").to_owned())
                .collect();
            structs.insert(name.to_owned(), fields);
        }
    }
    structs
}

/// Every struct has its table in SPEC.md with the same fields, offsets and sizes, and no table is left over.
#[test]
fn every_struct_is_as_its_table_says() {
    let tables = spec::struct_tables(&spec::text());
    let layouts = layouts();
    for layout in &layouts {
        let name = layout.name;
        let table = tables.iter().find(|table| table.name == name);
        let table = table.unwrap_or_else(|| panic!("SPEC.md has no table for {name}"));
        assert_eq!(table.size, layout.size, "size of {name}");
        let fields: Vec<_> = layout
            .fields
            .iter()
            .map(|(field, offset, size)| ((*field).to_owned(), *offset, *size))
            .collect();
        assert_eq!(table.fields, fields, "fields of {name}");
        let mut end = 0;
        for (field, offset, size) in &fields {
            assert_eq!(*offset, end, "{name}.{field} follows the field before it");
            end += size;
        }
        assert_eq!(end, layout.size, "{name} has no padding");
    }
    assert_eq!(tables.len(), layouts.len(), "a table for each struct, once");
}

/// The list above holds every on-disk struct of the source with every field.
#[test]
fn no_struct_and_no_field_is_left_out() {
    let listed: BTreeMap<String, Vec<String>> = layouts()
        .iter()
        .map(|layout| {
            let fields = layout.fields.iter().map(|field| field.0.to_owned());
            (layout.name.to_owned(), fields.collect())
        })
        .collect();
    assert_eq!(listed, structs_in_source());
}

/// Every limit stands in SPEC.md with the number that the code has, and under the rule that it cites.
#[test]
fn every_limit_is_as_its_row_says() {
    let text = spec::text();
    let mut rows = BTreeMap::new();
    let mut rules = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| L-")) {
        let cells = spec::cells(line).expect("a row");
        let [rule, name, number, reason] = cells.as_slice() else {
            panic!("a limit's row has four cells: {line}");
        };
        assert!(!reason.is_empty(), "{name} has a reason");
        let number: u128 = number.parse().expect("a number");
        let before = rows.insert(name.clone(), (rule.clone(), number));
        assert!(before.is_none(), "{name} has one row");
        rules.push(rule.trim_start_matches("L-").parse::<u32>().expect("L-n"));
    }
    rules.dedup();
    let expected: Vec<u32> = (1..).take(rules.len()).collect();
    assert_eq!(rules, expected, "rules L-1, L-2, … without gaps");
    for (name, number) in limits() {
        let row = rows
            .get(name)
            .unwrap_or_else(|| panic!("no row for {name}"));
        assert_eq!(row.1, number, "{name}");
    }
    assert_eq!(rows.len(), limits().len(), "no row without a constant");

    let source = sources();
    let (_, source) = source
        .iter()
        .find(|(path, _)| path.ends_with("limits.rs"))
        .expect("limits.rs");
    let mut cited: Option<&str> = None;
    for line in source.lines() {
        if let Some(doc) = line.strip_prefix("/// L-") {
            cited = doc.split('.').next();
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            let name = rest.split(':').next().expect("a name");
            let row = rows
                .get(name)
                .unwrap_or_else(|| panic!("no row for {name}"));
            if let Some(cited) = cited.take() {
                assert_eq!(row.0, format!("L-{cited}"), "rule of {name}");
            }
        }
    }
}

/// A rule that code, tests or SPEC.md itself cite exists, and no rule is given twice.
#[test]
fn every_cited_rule_exists() {
    let text = spec::text();
    let mut rules: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("* **"))
        .filter_map(|line| line.split("**").next())
        .map(str::to_owned)
        .collect();
    let count = rules.len();
    rules.sort();
    rules.dedup();
    assert_eq!(rules.len(), count, "each rule stands once");
    let limit_rows = text.lines().filter(|line| line.starts_with("| L-"));
    rules.extend(limit_rows.map(|line| spec::cells(line).expect("a row").remove(0)));
    let is_rule = |word: &str| {
        word.split_once('-').is_some_and(|(letter, number)| {
            ["V", "L", "B", "C", "R", "K", "H", "S", "I", "X", "A"].contains(&letter)
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let mut cited = 0;
    let mut texts = vec![("SPEC.md".to_owned(), text)];
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in ["format/src", "format/tests", "src", "tests", "tools"] {
        rust_files(&workspace.join(folder), &mut texts);
    }
    for (path, source) in texts {
        let words = source.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        for word in words.filter(|word| is_rule(word)) {
            assert!(rules.iter().any(|rule| rule == word), "{word} in {path}");
            cited += 1;
        }
    }
    assert!(cited > 100, "the source and SPEC.md cite rules: {cited}");
}
