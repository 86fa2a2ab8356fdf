//! The list of etcd's tests (`tests/compat/conformance.toml`) is complete in itself, and names no
//! test of ours that its module does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules of the integration test binary `compat`.
const MODULES: [&str; 10] = [
    "kv",
    "kvstore",
    "compaction",
    "hash",
    "index",
    "backend",
    "integration",
    "import",
    "snapshots",
    "watch",
];

type Case = BTreeMap<String, String>;

fn compat_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compat")
}

/// The file is a list of tables with one-line strings: the only part of TOML that it uses.
fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(compat_folder().join("conformance.toml")).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if line == "[[case]]" {
            cases.push(Case::new());
            continue;
        }
        let (name, value) = line.split_once(" = ").expect("name = value");
        let value = value
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'))
            .expect("a string");
        let before = cases
            .last_mut()
            .unwrap()
            .insert(name.to_owned(), value.to_owned());
        assert_eq!(before, None, "{name} twice in a case");
    }
    cases
}

/// Every case has a name of its own, a source, and what its status asks for, nothing else.
#[test]
fn every_case_is_decided() {
    let mut names = BTreeSet::new();
    for case in cases() {
        let name = &case["name"];
        assert!(names.insert(name.clone()), "{name} is listed twice");
        let fields: Vec<&str> = case.keys().map(String::as_str).collect();
        match case["status"].as_str() {
            "shown" => assert_eq!(fields, ["name", "source", "status", "test"], "{name}"),
            "not-applicable" => {
                assert_eq!(fields, ["name", "reason", "source", "status"], "{name}");
                assert!(case["reason"].len() > 60, "{name}: that is no reason");
            }
            other => panic!("{name} has status {other}"),
        }
    }
    // One more or less is a change of what is shown, to be made here too: a case that is lost would
    // otherwise not be missed by anybody.
    assert_eq!(names.len(), 164, "cases of the list");
}

/// The paths in a case: its test, and the tests that a reason leans on.
fn paths(case: &Case) -> Vec<String> {
    let text = [case.get("test"), case.get("reason")].map(|part| part.map_or("", String::as_str));
    let path = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':');
    text.iter()
        .flat_map(|text| text.split(path))
        .filter(|word| word.starts_with("compat::"))
        .map(str::to_owned)
        .collect()
}

/// Each case has a test of its own in a known module.
#[test]
fn every_named_test_exists() {
    let mut tests = BTreeSet::new();
    for case in cases() {
        let name = &case["name"];
        if let Some(test) = case.get("test") {
            assert!(tests.insert(test.clone()), "{test} is named twice");
        }
        for path in paths(&case) {
            let parts: Vec<&str> = path.split("::").collect();
            let [_, module, within @ .., test] = &parts[..] else {
                panic!("{name}: the path {path}")
            };
            assert!(MODULES.contains(module), "{name}: the module of {path}");
            let file = std::iter::once(module).chain(within).copied();
            let file: PathBuf = compat_folder().join(file.collect::<PathBuf>());
            let Ok(source) = std::fs::read_to_string(file.with_extension("rs")) else {
                panic!("{name}: there is no module of {path}");
            };
            assert!(
                source.contains(&format!("fn {test}()")),
                "{name}: there is no {path}"
            );
        }
    }
}
