//! `cargo xtask conformance`: each of etcd's tests that we say we show has a test of ours that runs
//! and passes.
//!
//! The list is `tests/compat/conformance.toml`. A test `compat::kv::range` is the function
//! `kv::range` of the integration test binary `compat`. An ignored test counts as missing: it shows
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::tables::{self, Table};
use crate::{Result, test_binary};

const LIST: &str = "tests/compat/conformance.toml";

/// Runs the named tests, and prints how many of etcd's tests they cover.
pub(crate) fn run() -> Result<()> {
    let cases = tables::read(LIST, "case")?;
    let (sums, named) = decided(&cases)?;
    let mut passed = BTreeSet::new();
    let binaries: BTreeSet<&str> = named
        .keys()
        .filter_map(|t| Some(t.split_once("::")?.0))
        .collect();
    for binary in binaries {
        passed.extend(passing(binary)?);
    }
    let missing: Vec<String> = named
        .iter()
        .filter(|(test, _)| !passed.contains::<str>(test))
        .map(|(test, name)| format!("{name}: {test} did not run and pass"))
        .collect();
    for line in &missing {
        println!("{line}");
    }
    println!(
        "conformance: {} shown, {} not applicable",
        sums.shown - missing.len(),
        sums.not_applicable
    );
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("{} tests are missing", missing.len()))
    }
}

#[derive(Default, PartialEq, Eq, Debug)]
struct Sums {
    shown: usize,
    not_applicable: usize,
}

/// Counts the cases by status, and maps each test that is to run to the case that names it.
fn decided(cases: &[Table]) -> Result<(Sums, BTreeMap<&str, &str>)> {
    let mut sums = Sums::default();
    let mut names = BTreeSet::new();
    let mut named = BTreeMap::new();
    for case in cases {
        let field = |field: &str| case.get(field).map(String::as_str);
        let Some(name) = field("name") else {
            return Err(format!("a case has no name: {case:?}"));
        };
        if !names.insert(name) {
            return Err(format!("{name} is listed twice"));
        }
        match (field("status"), field("test"), field("reason")) {
            (Some("shown"), Some(test), None) if test.contains("::") => {
                sums.shown += 1;
                if named.insert(test, name).is_some() {
                    return Err(format!("{test} is named by two cases"));
                }
            }
            (Some("not-applicable"), None, Some(_)) => sums.not_applicable += 1,
            _ => return Err(format!("{name}: its fields do not fit its status")),
        }
    }
    if cases.is_empty() {
        Err("the list is empty".to_owned())
    } else {
        Ok((sums, named))
    }
}

/// Runs a test binary and names the tests that passed, as `binary::path`.
fn passing(binary: &str) -> Result<Vec<String>> {
    let output = test_binary(binary, "--color=never")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        print!("{text}");
    }
    Ok(text
        .lines()
        .filter_map(passed)
        .map(|path| format!("{binary}::{path}"))
        .collect())
}

/// The path in a line like `test kv::range ... ok`.
fn passed(line: &str) -> Option<&str> {
    let path = line.strip_prefix("test ")?.strip_suffix(" ... ok")?;
    Some(path.strip_suffix(" - should panic").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::{Sums, decided, passed};
    use crate::tables::{self, parse};

    const SHOWN: &str = "[[case]]\nname = \"A\"\nstatus = \"shown\"\ntest = \"compat::kv::a\"\n";

    /// The list as it is has no contradiction, and counts add up.
    #[test]
    fn the_list_is_decided() {
        let cases = tables::read(super::LIST, "case").unwrap();
        let (sums, named) = decided(&cases).unwrap();
        assert_eq!(sums.shown, named.len());
        assert_eq!(sums.shown + sums.not_applicable, cases.len());
    }

    /// What cannot be right is refused.
    #[test]
    fn contradictions_are_refused() {
        let cases = parse(SHOWN, "case").unwrap();
        let (sums, named) = decided(&cases).unwrap();
        assert_eq!(
            sums,
            Sums {
                shown: 1,
                ..Sums::default()
            }
        );
        assert_eq!(named["compat::kv::a"], "A");
        for text in [
            String::new(),
            format!("{SHOWN}{SHOWN}"),
            format!("{SHOWN}{}", SHOWN.replace("\"A\"", "\"B\"")),
            SHOWN.replace("shown", "later"),
            SHOWN.replace("name", "nom"),
            SHOWN.replace("[[case]]\n", ""),
            SHOWN.replace("status", "name"),
            SHOWN.replace("compat::kv::a\"", "compat::kv::a"),
        ] {
            let refused =
                parse(&text, "case").and_then(|cases| decided(&cases).map(|(sums, _)| sums));
            assert!(refused.is_err(), "{text}");
        }
    }

    /// Only tests that ran and passed count.
    #[test]
    fn passing_lines() {
        assert_eq!(passed("test kv::range ... ok"), Some("kv::range"));
        assert_eq!(
            passed("test kv::refused - should panic ... ok"),
            Some("kv::refused")
        );
        assert_eq!(passed("test kv::range ... FAILED"), None);
        assert_eq!(passed("test kv::range ... ignored"), None);
        assert_eq!(passed("test result: ok. 1 passed"), None);
    }
}
