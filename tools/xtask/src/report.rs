//! `cargo xtask report`: `docs/RELIABILITY-REPORT.md`, made of two lists.
//!
//! `tests/promises.toml` names for each fault of the model the promise, the campaigns and the tests that
//! show it, what CI is to run, and what is not reached. `docs/reliability-runs.tsv` holds what campaigns
//! printed: the report takes new lines there from the folder of the build, so runs of several sessions and
//! commits add up. With `--check` nothing is written: each test that is named must exist, and the page
//! must be what the lists make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::runs::{self, CAMPAIGNS, Run};
use crate::tables::{self, Table};
use crate::{Result, root, test_binary};

const PROMISES: &str = "tests/promises.toml";
const RUNS: &str = "docs/reliability-runs.tsv";
const PAGE: &str = "docs/RELIABILITY-REPORT.md";

/// Takes up new runs and writes the page.
pub(crate) fn write() -> Result<()> {
    let promises = promises()?;
    let mut known = read_runs()?;
    let new = std::fs::read_to_string(runs::file()).unwrap_or_default();
    let before = known.len();
    // A run with changes that no commit has cannot be repeated.
    let new = runs::parse(&new)?
        .into_iter()
        .filter(|run| !run.commit.ends_with('+'));
    known.extend(new.filter(|run| !known.contains(run)).collect::<Vec<_>>());
    let lines: String = known.iter().map(|run| format!("{run}\n")).collect();
    put(RUNS, &lines)?;
    put(PAGE, &page(&promises, &known))?;
    println!(
        "report: {} faults, {} runs, {} of them new",
        promises.len(),
        known.len(),
        known.len() - before
    );
    Ok(())
}

/// Says what the page claims without ground.
pub(crate) fn check() -> Result<()> {
    let promises = promises()?;
    let runs = read_runs()?;
    let found = std::fs::read_to_string(root().join(PAGE)).unwrap_or_default();
    if found != page(&promises, &runs) {
        return Err(format!(
            "{PAGE} is not what the lists make: run `cargo xtask report`"
        ));
    }
    let named: BTreeSet<&str> = promises.iter().flat_map(|p| words(p, "tests")).collect();
    let binaries: BTreeSet<&str> = named
        .iter()
        .filter_map(|test| Some(test.split_once("::")?.0))
        .collect();
    let mut there = BTreeSet::new();
    for binary in binaries {
        there.extend(tests_of(binary)?);
    }
    let missing: Vec<&str> = named
        .iter()
        .filter(|test| !there.contains(**test))
        .copied()
        .collect();
    for test in &missing {
        println!("{test}: there is no such test");
    }
    println!(
        "report: {} faults, {} tests named, {} runs",
        promises.len(),
        named.len(),
        runs.len()
    );
    match missing.len() {
        0 => Ok(()),
        n => Err(format!("{n} tests are named that do not exist")),
    }
}

fn put(file: &str, text: &str) -> Result<()> {
    let path = root().join(file);
    let folder = path.parent().ok_or("the file has no folder")?;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| format!("{file}: {error}"))
}

fn read_runs() -> Result<Vec<Run>> {
    let text = std::fs::read_to_string(root().join(RUNS)).unwrap_or_default();
    runs::parse(&text).map_err(|error| format!("{RUNS}, {error}"))
}

/// The list of faults, each with all that it must have.
fn promises() -> Result<Vec<Table>> {
    let promises = tables::read(PROMISES, "fault")?;
    let mut ids = BTreeSet::new();
    for promise in &promises {
        let wrong = |what: &str| Err(format!("{PROMISES}: {what}: {promise:?}"));
        for field in ["id", "fault", "promise"] {
            if !promise.contains_key(field) {
                return wrong(&format!("no {field}"));
            }
        }
        if !ids.insert(&promise["id"]) {
            return wrong("twice");
        }
        if words(promise, "campaigns").any(|name| !CAMPAIGNS.contains(&name)) {
            return wrong("an unknown campaign");
        }
        let is_shown = promise.contains_key("campaigns")
            || promise.contains_key("tests")
            || promise.contains_key("gate");
        if is_shown == promise.contains_key("later") {
            return wrong("either it is shown by something, or it comes later");
        }
    }
    Ok(promises)
}

/// The words of a field that lists some.
fn words<'t>(table: &'t Table, field: &str) -> impl Iterator<Item = &'t str> {
    table
        .get(field)
        .into_iter()
        .flat_map(|text| text.split(", "))
}

/// The tests of a binary, as `binary::path`.
fn tests_of(binary: &str) -> Result<Vec<String>> {
    let output = test_binary(binary, "--list")?;
    if !output.status.success() {
        return Err(format!("the tests of {binary} cannot be listed"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(paths.map(|path| format!("{binary}::{path}")).collect())
}

/// The page from the two lists.
fn page(promises: &[Table], runs: &[Run]) -> String {
    let totals = by_campaign(runs);
    let later = promises.iter().filter(|p| p.contains_key("later")).count();
    let partly = promises.iter().filter(|p| {
        p.contains_key("missing") || words(p, "campaigns").any(|name| !totals.contains_key(name))
    });
    let partly = partly.count();
    let mut page = format!(
        "# Reliability report\n\n\
         Made by `cargo xtask report` from `{PROMISES}` and `{RUNS}`; do not edit it. Each campaign is\n\
         deterministic from its seed unless it says otherwise; `REVTREE_SEED=n` replays one.\n\n\
         {} faults: {} shown, {partly} with something not reached or no run on record, {later} that come with what \
         they belong to.\n\n",
        promises.len(),
        promises.len() - partly - later,
    );
    page += "## Campaigns\n\nWhat was counted, added up over all runs on record, and the largest run.\n\n\
             | campaign | runs | in all | the largest run | commit | seconds |\n|---|---|---|---|---|---|\n";
    for (name, runs) in &totals {
        let all: u64 = runs.iter().map(|run| count(&run.line)).sum();
        let Some(largest) = runs.iter().max_by_key(|run| count(&run.line)) else {
            continue;
        };
        let Run {
            line,
            commit,
            seconds,
            command,
            ..
        } = largest;
        let _ = writeln!(
            page,
            "| {name} | {} | {} | `{command}`: {} | {commit} | {seconds} |",
            runs.len(),
            grouped(all),
            cell(line)
        );
    }
    page += "\n## Faults\n";
    for promise in promises {
        let _ = writeln!(
            page,
            "\n### {}: {}\n\n{}\n",
            promise["id"], promise["fault"], promise["promise"]
        );
        for name in words(promise, "campaigns") {
            let all: u64 = totals
                .get(name)
                .into_iter()
                .flatten()
                .map(|run| count(&run.line))
                .sum();
            let command = runs::command_of(name);
            let _ = writeln!(
                page,
                "* `cargo xtask {command}`: {} on record",
                grouped(all)
            );
        }
        for test in words(promise, "tests") {
            let _ = writeln!(page, "* test `{test}`");
        }
        for (field, says) in [
            ("gate", "gate"),
            ("ci", "in CI"),
            ("missing", "not reached"),
            ("later", "comes with"),
        ] {
            if let Some(text) = promise.get(field) {
                let _ = writeln!(page, "* {says}: {text}");
            }
        }
    }
    page
}

fn by_campaign(runs: &[Run]) -> BTreeMap<&str, Vec<&Run>> {
    let mut campaigns: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        campaigns.entry(run.campaign()).or_default().push(run);
    }
    campaigns
}

/// The first number of a last line: what its campaign counts.
fn count(line: &str) -> u64 {
    let mut words = line.split([' ', ',']);
    words.find_map(|word| word.parse().ok()).unwrap_or(0)
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let places = (0..digits.len()).rev();
    let pairs = digits.chars().zip(places);
    pairs.fold(String::new(), |mut text, (digit, left)| {
        text.push(digit);
        if left > 0 && left % 3 == 0 {
            text.push(',');
        }
        text
    })
}

/// Text within a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::{count, grouped, page, promises};
    use crate::runs;
    use crate::tables;

    /// The list as it is holds together.
    #[test]
    fn the_list_is_whole() {
        assert!(promises().unwrap().len() >= 35);
    }

    /// Runs of a campaign add up, and what is not reached is said.
    #[test]
    fn a_page() {
        let promises = tables::parse(
            "[[fault]]\nid = \"F1\"\nfault = \"Torn\"\npromise = \"None lost.\"\ncampaigns = \"crash\"\nmissing = \"1 G\"\n",
            "fault",
        );
        let line = "d\tc\tcrash\t3\tcrash: 5000 images, 0 lost\n";
        let runs = runs::parse(&format!("{line}{line}")).unwrap();
        let page = page(&promises.unwrap(), &runs);
        for part in [
            "0 shown, 1 with",
            "| crash | 2 | 10,000 |",
            "### F1: Torn",
            "10,000 on record",
            "* not reached: 1 G",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(count("crash: 50000 images, 0 lost"), 50_000);
        assert_eq!(count("fuzz: none"), 0);
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
