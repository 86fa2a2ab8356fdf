//! `cargo xtask supply`: what the crate is made of besides its own code (F34).
//!
//! Read off `Cargo.lock` and `cargo tree`, without a network: every package comes from the registry
//! with a checksum, none is one that an advisory names, licences are those that our users can live
//! with, and the engine itself stays small: few direct dependencies, none of them C, none twice.
//! `deny.toml` says the same to `cargo deny`, which also reads the advisory database of the day.

use std::collections::BTreeMap;

use crate::{Result, cargo, root};

/// Direct dependencies that an embedder gets without asking for a feature. Their reasons are beside
/// them in `Cargo.toml` and in DESIGN's list; the format crate is our own.
const DIRECT_MAX: usize = 12;

/// Advisories that a version in the lock file must be behind, read in RustSec on 2026-08-21; a package
/// without a good version is not maintained any more.
const ADVISORIES: &[(&str, Option<[u64; 3]>, &str)] = &[
    ("bincode", None, "RUSTSEC-2025-0141"),
    ("crossbeam-channel", Some([0, 5, 15]), "RUSTSEC-2025-0024"),
    ("crossbeam-deque", Some([0, 8, 1]), "RUSTSEC-2021-0093"),
    ("crossbeam-epoch", Some([0, 9, 20]), "RUSTSEC-2026-0204"),
    ("memmap", None, "RUSTSEC-2020-0077"),
    ("memmap2", Some([0, 9, 11]), "RUSTSEC-2026-0186"),
];

/// Licences of which a package must offer one, or ask for several.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that build or link C, C++ or assembler; a name that ends in `-sys` does as well, but for
/// `linux-raw-sys`, which is numbers only.
const BUILDS_C: &[&str] = &["bindgen", "cc", "cmake", "pkg-config", "vcpkg"];

/// One package of the lock file.
#[derive(Debug, Default)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    has_checksum: bool,
}

/// Says what breaks a rule.
pub(crate) fn run() -> Result<()> {
    let lock = root().join("Cargo.lock");
    let text = std::fs::read_to_string(&lock).map_err(|e| format!("{}: {e}", lock.display()))?;
    let packages = packages(&text);
    let mut complaints = of_lock(&packages);
    let direct = tree(&["--depth", "1", "--edges", "normal"])?;
    let whole = tree(&["--all-features", "--edges", "normal,build"])?;
    let tools = tree(&[
        "--workspace",
        "--all-features",
        "--edges",
        "normal,build,dev",
    ])?;
    complaints.extend(of_engine(&direct, &whole));
    complaints.extend(of_licences(&tools));
    for line in &complaints {
        println!("{line}");
    }
    let outside = |packages: &Tree| packages.keys().filter(|p| !is_ours(p)).count();
    println!(
        "supply: {} packages locked; the engine has {} direct dependencies, {} in all with every feature",
        packages.len(),
        outside(&direct),
        outside(&whole)
    );
    match complaints.len() {
        0 => Ok(()),
        n => Err(format!("{n} complaints about dependencies")),
    }
}

fn is_ours(package: &str) -> bool {
    package.starts_with("revtree")
}

fn packages(lock: &str) -> Vec<Package> {
    let mut packages: Vec<Package> = Vec::new();
    for line in lock.lines() {
        if line == "[[package]]" {
            packages.push(Package::default());
        }
        let (Some(package), Some((name, value))) = (packages.last_mut(), line.split_once(" = "))
        else {
            continue;
        };
        let value = value.trim_matches('"').to_owned();
        match name {
            "name" => package.name = value,
            "version" => package.version = value,
            "source" => package.source = Some(value),
            "checksum" => package.has_checksum = true,
            _ => {}
        }
    }
    packages
}

/// Where packages come from, and which versions must not be among them.
fn of_lock(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        let Package { name, version, .. } = package;
        match &package.source {
            // A package of the workspace.
            None => {}
            Some(source) if !source.starts_with("registry+") => {
                complaints.push(format!("{name} {version} comes from {source}"));
            }
            Some(_) if !package.has_checksum => {
                complaints.push(format!("{name} {version} has no checksum"));
            }
            Some(_) => {}
        }
        for (named, good, advisory) in ADVISORIES {
            let is_good = good.is_some_and(|good| number(version) >= good);
            if named == name && !is_good {
                complaints.push(format!("{name} {version}: see {advisory}"));
            }
        }
    }
    complaints
}

/// The three numbers of a version; what is no number counts as 0.
fn number(version: &str) -> [u64; 3] {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// Packages by name and version, each with its licence.
type Tree = BTreeMap<String, String>;

/// What `cargo tree` shows of the crate, or of what the arguments name.
fn tree(arguments: &[&str]) -> Result<Tree> {
    let mut command = cargo(&["tree", "--prefix", "none", "--format", "{p}|{l}"]);
    if !arguments.contains(&"--workspace") {
        command.args(["--package", "revtree"]);
    }
    let output = command
        .args(arguments)
        .output()
        .map_err(|error| format!("cargo tree could not be started: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines like `name v1.2.3 (proc-macro)|MIT`, of which the same package may have several.
fn parse(text: &str) -> Tree {
    let lines = text.lines().filter_map(|line| {
        let (package, licence) = line.trim_end_matches(" (*)").split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.trim_start_matches('v'));
        Some((format!("{name} {version}"), licence.to_owned()))
    });
    lines.collect()
}

/// The engine's own rules: few, no C, none in two versions (macros are not linked and do not count).
fn of_engine(direct: &Tree, whole: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    let outside = direct.keys().filter(|p| !is_ours(p)).count();
    if outside > DIRECT_MAX {
        complaints.push(format!(
            "{outside} direct dependencies, {DIRECT_MAX} are allowed"
        ));
    }
    let mut versions: BTreeMap<&str, &str> = BTreeMap::new();
    for package in whole.keys() {
        let (name, version) = package.split_once(' ').unwrap_or((package, ""));
        let is_c = BUILDS_C.contains(&name) || name.ends_with("-sys") && name != "linux-raw-sys";
        if is_c {
            complaints.push(format!("{package} builds or links C"));
        }
        let only_builds = name == "syn";
        if let Some(other) = versions.insert(name, version).filter(|_| !only_builds) {
            complaints.push(format!("{name} is there as {other} and as {version}"));
        }
    }
    complaints
}

/// Each package offers a licence of the list, and asks for none outside it.
fn of_licences(packages: &Tree) -> Vec<String> {
    let complaints = packages.iter().filter(|(_, licence)| !is_allowed(licence));
    complaints
        .map(|(package, licence)| format!("{package}: licence {licence:?}"))
        .collect()
}

/// SPDX expressions as they occur: alternatives, of which one must do, and in brackets or between
/// `AND` what is asked for together.
fn is_allowed(licence: &str) -> bool {
    let together: Vec<&str> = licence.split(" AND ").collect();
    together.iter().all(|part| {
        let part = part.trim_matches(['(', ')']);
        part.split(" OR ")
            .flat_map(|alternatives| alternatives.split('/'))
            .any(|one| LICENCES.contains(&one.split(" WITH ").next().unwrap_or(one).trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::{is_allowed, number, of_engine, of_lock, packages, parse};

    const LOCK: &str = "\
version = 4

[[package]]
name = \"memmap2\"
version = \"0.9.12\"
source = \"registry+https://example.org\"
checksum = \"83\"

[[package]]
name = \"revtree\"
version = \"0.1.0\"
dependencies = [
 \"memmap2\",
]
";

    /// A lock file as it should be, and one thing wrong at a time.
    #[test]
    fn the_lock_file() {
        let complaints = |text: &str| of_lock(&packages(text));
        assert_eq!(complaints(LOCK), [""; 0]);
        for (from, to, says) in [
            ("0.9.12", "0.9.10", "RUSTSEC-2026-0186"),
            (
                "memmap2\"\nversion",
                "memmap\"\nversion",
                "RUSTSEC-2020-0077",
            ),
            ("registry+", "git+", "comes from git+"),
            ("checksum", "check", "no checksum"),
        ] {
            let wrong = LOCK.replacen(from, to, 1);
            assert_ne!(wrong, LOCK);
            let found = complaints(&wrong);
            assert!(found.len() == 1 && found[0].contains(says), "{found:?}");
        }
    }

    /// C, a second version and one dependency too many are seen.
    #[test]
    fn the_engine() {
        let direct = parse("revtree v0.1.0 (x)|MIT\na v1.0.0|MIT\n");
        let whole = parse("a v1.0.0|MIT\na v1.0.0|MIT (*)\nlinux-raw-sys v0.1.0|MIT\n");
        assert_eq!(of_engine(&direct, &whole), [""; 0]);
        let whole = parse("a v1.0.0|MIT\na v2.0.0|MIT\nlmdb-sys v0.1.0|MIT\ncc v1.0.0|MIT\n");
        assert_eq!(of_engine(&direct, &whole).len(), 3);
        let many: String = (0..13).map(|n| format!("p{n} v1.0.0|MIT\n")).collect();
        assert_eq!(of_engine(&parse(&many), &direct).len(), 1);
    }

    /// Alternatives need one licence of ours, what is asked for together all of them.
    #[test]
    fn licences() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 OR GPL-2.0-only",
            "Apache-2.0 WITH LLVM-exception OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MITx"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(number("0.9.20") > number("0.9.3"));
        assert_eq!(number("1.2.3-rc.1+x"), [1, 2, 3]);
    }
}
