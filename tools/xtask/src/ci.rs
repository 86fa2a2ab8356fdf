//! `cargo xtask ci`: everything that CI does, on one page.
//!
//! The workspace is built once with all features in the profile `dev` (a little optimised, see
//! `Cargo.toml`), and tests, programs and examples run from that build. Only loom's models are built
//! apart, since they need a flag for all crates, and the library once more without features; shuttle's
//! stores, which would need another such build, run in `cargo xtask long`.
//! That each feature stands alone is looked at by clippy, which compiles nothing to the end; what it
//! does is tested with the rest.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::step::Steps;
use crate::{Result, cargo, conformance, layers, loom, planted, report, root, supply, target};

/// Selects the same packages and features in each step, so that nothing is built twice.
const ALL: [&str; 2] = ["--workspace", "--all-features"];

/// The features of `revtree`, each alone, and none: everything else here has all of them.
const ALONE: [&str; 5] = ["", "serde", "metrics", "tracing", "unstable-storage"];

/// Histories and operations of the campaigns: some minutes on two cores.
const CRASH_IMAGES: &str = "1000000";
/// The same in histories of several threads: half a minute.
const THREAD_IMAGES: &str = "100000";
/// Histories of several threads without a crash: a quarter of a minute.
const THREAD_HISTORIES: &str = "15000";
/// Histories of watchers, most of them of one thread: less than a minute.
const WATCH_HISTORIES: &str = "5000";
/// Small worlds of one and two transactions, each in three setups: all there are.
const WORLDS: &str = "168";
/// All that is done to the first store, and samples of the others and of the lengths: half a minute.
const DAMAGE_PARTS: &str = "135";
/// Inputs by chance for the fuzzer's targets: a minute.
const FUZZ_INPUTS: &str = "60000";
/// A tenth of what `long` does: some twenty seconds.
const SOAK_PUTS: &str = "2000000";
const FAULT_HISTORIES: &str = "72";
const MODEL_OPS: &str = "1000000";
/// Kills of a writing process: less than a minute.
const KILLS: &str = "2000";
/// Power cuts of each filesystem, runs with a failing system call, runs with a failing allocation: half a
/// minute in all.
const CUTS: &str = "300";
const CALLS: &str = "500";
/// Two short lives, each of whose system calls fails or ends the process: a quarter of a minute.
const CALL_PARTS: &str = "8";
const ALLOCATIONS: &str = "1000";

/// Runs all steps, also behind one that fails, and sums up in a last line.
pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::new();
    for component in ["fmt", "clippy"] {
        if !works(cargo(&[component, "--version"])) {
            let mut install = Command::new("rustup");
            let name = if component == "fmt" {
                "rustfmt"
            } else {
                component
            };
            install.args(["component", "add", name]);
            steps.command(&format!("install {name}"), install);
        }
    }
    steps.call("layers, where unsafe may stand, and examples", layers::run);
    steps.call("dependencies", supply::run);
    steps.call("planted bugs apply", planted::check);
    steps.command("rustfmt", cargo(&["fmt", "--all", "--check"]));
    steps.command(
        "clippy",
        of_all("clippy", &["--all-targets", "--", "-D", "warnings"]),
    );
    for feature in ALONE {
        let title = match feature {
            "" => "clippy without features".to_owned(),
            feature => format!("clippy with {feature} alone"),
        };
        steps.command(&title, clippy_alone(feature));
    }
    let mut doc = of_all("doc", &["--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    steps.command("rustdoc", doc);

    // Programs first: tests of the tool start them.
    let built = steps.command("build", of_all("build", &["--bins", "--examples"]));
    if works(cargo(&["nextest", "--version"])) {
        let mut tests = cargo(&["nextest", "run", "--no-fail-fast", "--status-level", "slow"]);
        tests.args(ALL);
        steps.tests("tests", tests);
    } else {
        steps.tests("tests", of_all("test", &["--tests", "--no-fail-fast"]));
    }
    // What a user gets who asks for no feature does the same.
    let door = cargo(&["test", "--package", "revtree", "--test", "api"]);
    steps.tests("tests of the door without features", door);
    steps.tests("doc tests", of_all("test", &["--doc", "--no-fail-fast"]));
    steps.call("conformance", conformance::run);
    steps.call("report", report::check);
    if built {
        run_programs(&mut steps);
    }
    steps.tests("loom models of the hand-overs", loom::models());
    steps.finish()
}

/// A cargo command over all packages with all features.
fn of_all(command: &str, arguments: &[&str]) -> Command {
    let mut cargo = cargo(&[command]);
    cargo.args(ALL).args(arguments);
    cargo
}

/// Clippy over the library with one feature; without its tests, which turn `unstable-storage` on.
fn clippy_alone(feature: &str) -> Command {
    let mut cargo = cargo(&["clippy", "--package", "revtree", "--lib"]);
    cargo.args(["--features", feature, "--", "-D", "warnings"]);
    cargo
}

fn works(mut command: Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The programs that were built: campaigns, the tool, the examples.
fn run_programs(steps: &mut Steps) {
    let built = target().join("debug");
    let campaign = |arguments: &[&str]| program(&built.join("campaign"), arguments);
    steps.command("power cuts", campaign(&["crash", "--images", CRASH_IMAGES]));
    let images = ["crash-threads", "--images", THREAD_IMAGES];
    steps.command("power cuts under threads", campaign(&images));
    steps.command("small worlds", campaign(&["worlds", "--worlds", WORLDS]));
    let failing = ["faults", "--histories", FAULT_HISTORIES];
    let threads = ["histories", "--histories", THREAD_HISTORIES];
    steps.command("damage", campaign(&["damage", "--parts", DAMAGE_PARTS]));
    steps.command(
        "crafted inputs",
        campaign(&["fuzz", "--inputs", FUZZ_INPUTS]),
    );
    steps.command("failing calls", campaign(&failing));
    steps.command("threads", campaign(&threads));
    let watchers = ["watch-check", "--histories", WATCH_HISTORIES];
    steps.command("watchers", campaign(&watchers));
    steps.command("random histories", campaign(&["model", "--ops", MODEL_OPS]));
    let soak = program(&built.join("soak"), &["--puts", SOAK_PUTS]);
    steps.command("a long life under churn", soak);
    steps.command("killed processes", campaign(&["kill", "--times", KILLS]));
    have("strace", "strace");
    steps.command(
        "failing system calls",
        campaign(&["inject", "--runs", CALLS]),
    );
    let calls = ["calls", "--parts", CALL_PARTS];
    steps.command("each system call of a life", campaign(&calls));
    steps.command("no memory", campaign(&["memory", "--runs", ALLOCATIONS]));
    have("mkfs.ext4", "e2fsprogs");
    have("mkfs.xfs", "xfsprogs");
    for fs in ["ext4", "xfs"] {
        let cuts = campaign(&["power", "--fs", fs, "--cuts", CUTS]);
        steps.command(&format!("real power cuts under {fs}"), cuts);
    }
    steps.call("tool", || tool(&built.join("revtree")));
    match examples() {
        Ok(names) => {
            for name in names {
                let path = built.join("examples").join(&name);
                steps.command(&format!("example {name}"), program(&path, &[]));
            }
            // Once more on a repository with one of each thing that is odd.
            let odd = program(&built.join("examples/git_history"), &["--made"]);
            steps.command("example git_history --made", odd);
            // And from a folder below the top of the checkout, where paths could count from another place.
            let mut below = program(&built.join("examples/git_history"), &[]);
            below.current_dir(root().join("src"));
            steps.command("example git_history in a folder below", below);
            shallow(steps, &built.join("examples/git_history"));
        }
        Err(why) => {
            steps.call("examples", || Err(why));
        }
    }
}

/// Installs a package for a program that is not there, where one may. Without it the campaign says that it was
/// skipped, which is no failure.
fn have(program: &str, package: &str) {
    let mut version = Command::new(program);
    version.arg("-V");
    if works(version) {
        return;
    }
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        works(apt)
    };
    let install = ["install", "--yes", "--no-install-recommends", package];
    if apt(&install) || (apt(&["update"]) && apt(&install)) {
        println!("{package} was installed");
    } else {
        println!("{package} cannot be installed here");
    }
}

/// The main example on what most services that build a checkout have: a clone of the last commit alone.
fn shallow(steps: &mut Steps, git_history: &Path) {
    if !root().join(".git").exists() {
        return;
    }
    let clone = target().join("shallow");
    let _ = std::fs::remove_dir_all(&clone);
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--no-checkout", "--depth", "1"]);
    git.arg(format!("file://{}", root().display())).arg(&clone);
    if steps.command("clone one commit", git) {
        let mut example = program(git_history, &[]);
        example.arg(&clone);
        steps.command("example git_history on one commit", example);
    }
}

/// Two puts, a compaction, the rest of the history, a check and a dump: each command on the file
/// that the one before left.
fn tool(revtree: &Path) -> Result<()> {
    let store = target().join("tool.rvt");
    let store = store.to_str().ok_or("the path of the build is not UTF-8")?;
    let _ = std::fs::remove_file(store);
    for (arguments, expected) in [
        (&["put", store, "color", "red"][..], None),
        (&["put", store, "color", "blue"], None),
        (&["get", store, "color", "--rev", "2"], Some("red")),
        (&["compact", store, "3"], None),
        (&["get", store, "color"], Some("blue")),
        (&["history", store, "color"], Some("3")),
        (&["check", store], None),
        (&["dump", store], Some("superblock")),
    ] {
        let says =
            |what: &dyn std::fmt::Display| format!("revtree {}: {what}", arguments.join(" "));
        let output = program(revtree, arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| says(&error))?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("$ revtree {}\n{}", arguments.join(" "), text.trim_end());
        if !output.status.success() {
            return Err(says(&String::from_utf8_lossy(&output.stderr)));
        }
        if let Some(expected) = expected.filter(|expected| !text.contains(expected)) {
            return Err(says(&format!("no {expected:?} in what it prints")));
        }
    }
    std::fs::remove_file(store).map_err(|error| format!("{store}: {error}"))
}

fn program(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).current_dir(root());
    command
}

/// The examples' names: files and folders of `examples`.
fn examples() -> Result<Vec<String>> {
    let folder = root().join("examples");
    let failed = |error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_program =
            path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").is_file();
        if let (true, Some(name)) = (is_program, path.file_stem()) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
