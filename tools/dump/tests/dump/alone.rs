//! The dump is the proof that SPEC.md suffices, so it may not lean on the engine.

use std::process::Command;

/// Goal: of the project's crates the dump depends on the format alone.
#[test]
fn the_dump_needs_only_the_format_crate() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--package",
            "revtree-dump",
            "--edges",
            "normal",
        ])
        .args(["--prefix", "none", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).expect("cargo prints text");
    let mut ours: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("revtree"))
        .collect();
    ours.dedup();
    assert_eq!(ours, ["revtree-dump", "revtree-format"]);
}
