//! What the figures were measured on: a figure without its machine is not quoted.

use std::fs;
use std::path::Path;
use std::thread;

use crate::Result;

/// The lock file names the versions that were built in.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// A few lines: processor, memory, kernel, file system of `dir`, versions of the engines.
pub(crate) fn describe(dir: &Path) -> Result<String> {
    let processor = after_colon(&fs::read_to_string("/proc/cpuinfo")?, "model name");
    let memory = after_colon(&fs::read_to_string("/proc/meminfo")?, "MemTotal");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let threads = thread::available_parallelism()?;
    let file_system = file_system(dir)?;
    let versions: Vec<String> = [
        "revtree",
        "redb",
        "heed",
        "lmdb-master-sys",
        "fjall",
        "lsm-tree",
    ]
    .iter()
    .filter_map(|name| Some(format!("{name} {}", version(name)?)))
    .collect();
    let mut text = format!("{processor}, {threads} threads, {memory} memory, ");
    text += &format!(
        "Linux {}, {file_system}\n{}\n",
        kernel.trim(),
        versions.join(", ")
    );
    if file_system == "tmpfs" {
        text += "a tmpfs syncs nothing: A, A2, A3, D and F say little here\n";
    }
    Ok(text)
}

fn after_colon(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(
        || format!("unknown {name}"),
        |(_, value)| value.trim().to_owned(),
    )
}

/// The type of the file system that holds `dir`: the mount with the longest path above it.
fn file_system(dir: &Path) -> Result<String> {
    let dir = fs::canonicalize(dir)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let at = Path::new(mount.split(' ').nth(4)?);
        dir.starts_with(at)
            .then(|| (at.components().count(), source.split(' ').next()))
    });
    let deepest = mounts.max_by_key(|&(depth, _)| depth);
    Ok(deepest
        .and_then(|(_, kind)| kind)
        .unwrap_or("unknown file system")
        .to_owned())
}

fn version(package: &str) -> Option<&'static str> {
    let name = format!("name = \"{package}\"\nversion = \"");
    let (_, rest) = LOCK.split_once(&name)?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_its_version_in_the_lock_file() {
        for package in ["redb", "heed", "fjall"] {
            assert!(
                version(package).is_some_and(|version| version.contains('.')),
                "{package}"
            );
        }
    }
}
