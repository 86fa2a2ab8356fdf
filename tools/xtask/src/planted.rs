//! `cargo xtask planted`: are the tests blind? (F35)
//!
//! Each file of `tests/planted` is a patch that breaks one rule of SPEC.md as an engineer would by mistake. It is
//! applied to a copy of HEAD, built, and has to be found by a failing assertion or checker of the tests that
//! CI runs, at CI's seeds: a build that fails, and a run that does not end, find nothing. The head of
//! a patch names what finds it fastest; if that does not, everything else is tried.
//!
//! `--check` only looks whether each patch applies and names a rule that there is: that is CI's part, and
//! keeps the patches alive.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{Result, loom, root, target};

const PATCHES: &str = "tests/planted";

/// What may find a bug, the fastest first. Campaigns begin at CI's first seed and are shorter than CI's.
const FINDERS: &[&str] = &[
    "format",
    "campaign model",
    "campaign crash",
    "campaign histories",
    "campaign crash-threads",
    "lib",
    "test api",
    "test sim",
    "test compat",
    "test conc",
    "campaign watch-check",
    "campaign faults",
    "campaign kill",
    "test size",
    "loom",
];

/// The campaigns that run here, with their sizes.
const CAMPAIGNS: &[(&str, &[&str])] = &[
    ("model", &["--ops", "300000"]),
    ("crash", &["--images", "300000"]),
    ("crash-threads", &["--images", "100000"]),
    ("histories", &["--histories", "30000"]),
    ("worlds", &["--worlds", "168"]),
    ("watch-check", &["--histories", "2000"]),
    ("faults", &["--histories", "8"]),
    ("kill", &["--times", "200"]),
];

/// A run that takes longer has found nothing.
const SECONDS_MAX: &str = "600";

/// One planted bug.
struct Patch {
    name: String,
    text: String,
}

impl Patch {
    /// A line of its head.
    fn field(&self, name: &str) -> Result<&str> {
        let head = self.text.lines().take_while(|line| !line.is_empty());
        let mut fields = head.filter_map(|line| line.split_once(": "));
        let found = fields.find(|(field, _)| *field == name);
        found
            .map(|(_, value)| value)
            .ok_or_else(|| format!("{}: no {name} in its head", self.name))
    }
}

/// Runs all, or those whose number or name is given; gives the last line.
pub(crate) fn run(only: &[&str]) -> Result<Option<String>> {
    let patches = patches()?;
    let wanted = |patch: &&Patch| only.is_empty() || only.iter().any(|w| patch.name.contains(w));
    let patches: Vec<&Patch> = patches.iter().filter(wanted).collect();
    check_heads(&patches)?;
    let copy = Copy::of_head()?;
    let mut found = 0;
    if only.is_empty() {
        println!("without a bug");
        let mut finders: Vec<&str> = patches.iter().flat_map(|p| p.field("Found-by")).collect();
        finders.sort_unstable();
        finders.dedup();
        for finder in finders {
            match copy.run(finder)? {
                Verdict::Green => {}
                Verdict::Broken => return Err(format!("{finder} does not end well without a bug")),
                Verdict::Found(what) => {
                    let says = format!("{finder} finds {what} in what no patch has changed");
                    return Err(says);
                }
            }
        }
    }
    for patch in &patches {
        copy.apply(patch)?;
        let verdict = copy.find(patch);
        copy.restore()?;
        match verdict {
            Ok(Some((finder, what))) => {
                found += 1;
                println!("{}: found by {finder}: {what}", patch.name);
            }
            Ok(None) => println!("{}: NOT FOUND", patch.name),
            // The others are tried all the same: an hour is not to be lost for one that code has moved away from.
            Err(why) => println!("{}: NOT TRIED: {why}", patch.name),
        }
    }
    let line = format!("planted: {found} of {} found", patches.len());
    if found == patches.len() {
        Ok(Some(line))
    } else {
        Err(line)
    }
}

/// Whether each patch applies to what is checked out, and its head is whole.
pub(crate) fn check() -> Result<()> {
    let patches = patches()?;
    check_heads(&patches.iter().collect::<Vec<_>>())?;
    let mut wrong = 0;
    for patch in &patches {
        let output = git(&root(), &["apply", "--check", &path(&patch.name)])?;
        if !output.status.success() {
            wrong += 1;
            println!(
                "{}: {}",
                patch.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    println!(
        "{} planted bugs, {} of them apply",
        patches.len(),
        patches.len() - wrong
    );
    match wrong {
        0 => Ok(()),
        n => Err(format!("{n} patches do not apply")),
    }
}

fn path(name: &str) -> String {
    format!("{PATCHES}/{name}.patch")
}

fn patches() -> Result<Vec<Patch>> {
    let folder = root().join(PATCHES);
    let failed = |error| format!("{}: {error}", folder.display());
    let mut patches = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if file.extension().is_some_and(|end| end == "patch") {
            let text = std::fs::read_to_string(&file).map_err(failed)?;
            patches.push(Patch { name, text });
        }
    }
    patches.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(patches)
}

/// The head of each names a rule that SPEC.md has, a class, a reason and a finder.
fn check_heads(patches: &[&Patch]) -> Result<()> {
    let spec =
        std::fs::read_to_string(root().join("SPEC.md")).map_err(|e| format!("SPEC.md: {e}"))?;
    for patch in patches {
        let rule = patch.field("Rule")?;
        if !spec.contains(&format!("**{rule}**")) && !spec.contains(&format!("| {rule} |")) {
            return Err(format!("{}: SPEC.md has no rule {rule}", patch.name));
        }
        patch.field("Why")?;
        if !["ordering", "etcd", "redb"].contains(&patch.field("Class")?) {
            return Err(format!("{}: an unknown class", patch.name));
        }
        let finder = patch.field("Found-by")?;
        if !FINDERS.iter().any(|known| finder.starts_with(known)) && finder != "campaign worlds" {
            return Err(format!("{}: nothing is called {finder}", patch.name));
        }
    }
    Ok(())
}

/// What a run of tests says of a bug.
enum Verdict {
    Found(String),
    /// Everything passed.
    Green,
    /// It failed without an assertion or a checker, or did not end: that finds nothing.
    Broken,
}

/// A clone of HEAD with a build of its own, which the next patch finds nearly done.
struct Copy {
    tree: PathBuf,
    build: PathBuf,
}

impl Copy {
    fn of_head() -> Result<Copy> {
        let folder = target().join("planted");
        let (tree, build) = (folder.join("tree"), folder.join("build"));
        let _ = std::fs::remove_dir_all(&tree);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let from = root().to_string_lossy().into_owned();
        let to = tree.to_string_lossy().into_owned();
        let output = git(&folder, &["clone", "--quiet", "--shared", &from, &to])?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(Copy { tree, build })
    }

    fn apply(&self, patch: &Patch) -> Result<()> {
        let output = git(&self.tree, &["apply", &path(&patch.name)])?;
        if output.status.success() {
            Ok(())
        } else {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("{} does not apply: {why}", patch.name))
        }
    }

    fn restore(&self) -> Result<()> {
        let output = git(&self.tree, &["checkout", "--quiet", "--", "."])?;
        if output.status.success() {
            Ok(())
        } else {
            Err("the copy cannot be restored".to_owned())
        }
    }

    /// What finds the bug that has been applied: what its head names, else the first of all.
    fn find(&self, patch: &Patch) -> Result<Option<(String, String)>> {
        let named = patch.field("Found-by")?;
        let others = FINDERS.iter().filter(|finder| **finder != named);
        for finder in std::iter::once(&named).chain(others) {
            if let Verdict::Found(what) = self.run(finder)? {
                return Ok(Some(((*finder).to_owned(), what)));
            }
        }
        Ok(None)
    }

    fn run(&self, finder: &str) -> Result<Verdict> {
        let words: Vec<&str> = finder.split(' ').collect();
        let package = ["-p", "revtree", "--all-features"];
        let (build, run): (Vec<&str>, Vec<&str>) = match words.as_slice() {
            ["campaign", name] => {
                let sizes = CAMPAIGNS.iter().find(|(known, _)| known == name);
                let (_, sizes) = sizes.ok_or_else(|| format!("no campaign {name}"))?;
                let program = ["-q", "-p", "revtree-harness", "--bin", "campaign"];
                let run = [&["run"], &program[..], &["--", name], sizes].concat();
                ([&["build"], &program[..]].concat(), run)
            }
            ["format"] => tests(&["-p", "revtree-format", "--tests"], &[]),
            ["lib"] => tests(&[&package[..], &["--lib"]].concat(), &[]),
            ["test", binary, filter @ ..] => {
                tests(&[&package[..], &["--test", binary]].concat(), filter)
            }
            ["loom", filter @ ..] => return self.run_models(filter),
            _ => return Err(format!("nothing is called {finder}")),
        };
        let (mut build, mut run) = (self.cargo(&build), self.cargo(&run));
        for command in [&mut build, &mut run] {
            // Built for each patch and run for a moment: building is what takes the time.
            command
                .env("CARGO_TARGET_DIR", &self.build)
                .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
                .env("CARGO_PROFILE_DEV_DEBUG", "0");
        }
        self.verdict(build, run)
    }

    /// The models of hand-overs between threads, which need a build of their own.
    fn run_models(&self, filter: &[&str]) -> Result<Verdict> {
        let models = loom::arguments();
        let build = [&models[..], &["--no-run"]].concat();
        // The last of them is a filter already, and the harness runs what any lets through.
        let run = match filter {
            [] => models.to_vec(),
            filter => [&models[..models.len() - 1], &["--"], filter].concat(),
        };
        let (mut build, mut run) = (self.cargo(&build), self.cargo(&run));
        for command in [&mut build, &mut run] {
            loom::set(command).env("CARGO_TARGET_DIR", self.build.join("loom"));
        }
        self.verdict(build, run)
    }

    fn verdict(&self, build: Command, run: Command) -> Result<Verdict> {
        let built = output(build)?;
        if !built.status.success() {
            let errors = String::from_utf8_lossy(&built.stderr).into_owned();
            return Err(format!("it does not compile\n{errors}"));
        }
        let output = output(run)?;
        if output.status.success() {
            return Ok(Verdict::Green);
        }
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        Ok(failure(&out, &err).map_or(Verdict::Broken, Verdict::Found))
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", SECONDS_MAX])
            .arg(cargo)
            .args(arguments)
            .current_dir(&self.tree)
            .stdin(std::process::Stdio::null());
        command
    }
}

fn output(mut command: Command) -> Result<Output> {
    command
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))
}

/// How to build these tests, and how to run those that the filter lets through.
fn tests<'a>(package: &[&'a str], filter: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let test = [&["test"], package].concat();
    let build = [&test[..], &["--no-run"]].concat();
    (build, [&test[..], filter].concat())
}

/// The failing test or the sentence of a checker; `None` when the run failed in another way.
fn failure(out: &str, err: &str) -> Option<String> {
    let lines = || out.lines().chain(err.lines());
    let test = lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let checker = lines().find(|line| {
        ["wrong: ", "lost: ", "differ", "expected: ", "panicked at"]
            .iter()
            .any(|word| line.contains(word))
    });
    let sentence = test.or(checker)?;
    Some(sentence.chars().take(160).collect())
}

fn git(folder: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .output()
        .map_err(|error| format!("git could not be started: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{check_heads, failure, patches};

    /// Every patch says what it breaks, and there are as many as were promised.
    #[test]
    fn heads_are_whole() {
        let patches = patches().unwrap();
        assert!(patches.len() >= 40, "{} patches", patches.len());
        check_heads(&patches.iter().collect::<Vec<_>>()).unwrap();
    }

    /// A failing test and a checker's sentence are findings, a compiler's error and silence are none.
    #[test]
    fn findings() {
        let found = failure("test a::b ... ok\ntest a::c ... FAILED\n", "");
        assert_eq!(found.as_deref(), Some("a::c"));
        assert!(failure("", "lost: state 3 is there\n").is_some());
        assert!(failure("", "seed 1: operation 2\n  expected:  Unit(Ok(()))\n").is_some());
        assert!(failure("", "thread 'x' panicked at src/a.rs:1\n").is_some());
        assert_eq!(
            failure("test a ... ok\n", "error: could not compile\n"),
            None
        );
    }
}
