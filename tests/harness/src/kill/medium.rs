//! A filesystem of its own in a file, whose power can be cut.
//!
//! Its disk keeps what reached it: a cut loses what is dirty in memory and what the journal has not
//! written, as a machine's power cut does on a disk that tells the truth. Torn sectors are for the
//! simulated disk.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::process::quiet;
use super::shutdown::shutdown;
use crate::random::Random;

/// Set once the program has mounts of its own.
const OWN_MOUNTS: &str = "REVTREE_OWN_MOUNTS";
/// Where a disk in a file is fast, because nothing syncs it in turn.
const MEMORY: &str = "/dev/shm";
/// The system's number for a disk that does not answer.
const EIO: i32 = 5;

/// What can be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, in each of its three ways to write a journal.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<FileSystem> {
        let all = [FileSystem::Ext4, FileSystem::Xfs];
        all.into_iter().find(|fs| fs.to_string() == name)
    }

    /// The smallest that its tool still makes.
    fn bytes(self) -> u64 {
        match self {
            FileSystem::Ext4 => 64 << 20,
            FileSystem::Xfs => 300 << 20,
        }
    }

    /// Options of a mount.
    fn options(self, random: &mut Random) -> &'static str {
        match self {
            FileSystem::Ext4 => random.pick::<&str>(&[
                "data=ordered",
                "data=ordered,commit=1",
                "data=journal",
                "data=writeback,commit=1000",
            ]),
            FileSystem::Xfs => "",
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        })
    }
}

/// Starts this program again with mounts that nobody else sees and that end with it, however it ends.
/// Returns when it is that program, or when the system does not let us.
pub fn with_own_mounts() {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return;
    }
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]);
        unshare
    };
    let may = quiet(unshare().arg("true")).status();
    if let (true, Ok(program)) = (
        may.is_ok_and(|status| status.success()),
        std::env::current_exe(),
    ) {
        let mut again = unshare();
        again.arg(program).args(std::env::args_os().skip(1));
        let error = again.env(OWN_MOUNTS, "1").exec();
        eprintln!("unshare could not be started: {error}");
    }
}

/// Why power cannot be cut here, if it cannot.
///
/// # Errors
///
/// What is missing, in one line.
pub fn power_can_be_cut(fs: FileSystem) -> Result<(), String> {
    let mut medium = Medium::make(fs, 0)?;
    medium.cut()?;
    medium.mount_again()
}

/// A mounted filesystem; unmounted and gone when it is dropped.
#[derive(Debug)]
pub(super) struct Medium {
    fs: FileSystem,
    options: &'static str,
    dir: TempDir,
    /// Held open, or the system would take it back at each unmount.
    _device: File,
    device: PathBuf,
}

impl Medium {
    /// Makes and mounts one; the options are drawn from the seed.
    pub(super) fn make(fs: FileSystem, seed: u64) -> Result<Medium, String> {
        let failed = |error: io::Error| format!("no disk in a file: {error}");
        let dir = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir());
        let dir = dir.map_err(failed)?;
        let (image, folder) = (dir.path().join("image"), dir.path().join("mounted"));
        let file = File::create_new(&image).map_err(failed)?;
        file.set_len(fs.bytes()).map_err(failed)?;
        std::fs::create_dir(&folder).map_err(failed)?;
        let mut make = Command::new(format!("mkfs.{fs}"));
        make.arg("-q");
        if fs == FileSystem::Ext4 {
            make.args(["-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"]);
        }
        run(make.arg(&image))?;
        let options = fs.options(&mut Random::new(seed));
        let separator = if options.is_empty() { "" } else { "," };
        let mut first = Command::new("mount");
        first.args([
            "-t",
            &fs.to_string(),
            "-o",
            &format!("loop{separator}{options}"),
        ]);
        run(first.arg(&image).arg(&folder))?;
        let unmounted = |error| {
            let _ = unmount(&folder, UnmountFlags::DETACH);
            failed(error)
        };
        let device = device_of(&folder).map_err(unmounted)?;
        let opened = File::open(&device).map_err(unmounted)?;
        Ok(Medium {
            fs,
            options,
            dir,
            _device: opened,
            device,
        })
    }

    /// Where it is mounted.
    pub(super) fn folder(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// Cuts the power, at once; again does nothing more.
    pub(super) fn cut(&self) -> Result<(), String> {
        let cut = File::open(self.folder()).and_then(|folder| shutdown(&folder));
        cut.or_else(|error| match error.raw_os_error() {
            // XFS opens nothing more after a cut.
            Some(EIO) => Ok(()),
            _ => Err(format!("the power cannot be cut: {error}")),
        })
    }

    /// What a machine finds that starts again.
    pub(super) fn mount_again(&mut self) -> Result<(), String> {
        let folder = self.folder();
        // Whoever was killed may still be on its way out.
        let mut tries = 0;
        while let Err(error) = unmount(&folder, UnmountFlags::empty()) {
            tries += 1;
            if tries > 2000 {
                return Err(format!("{} cannot be unmounted: {error}", folder.display()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let options = std::ffi::CString::new(self.options).unwrap_or_default();
        let fs = self.fs.to_string();
        mount(&self.device, &folder, &*fs, MountFlags::empty(), &*options)
            .map_err(|error| format!("{} cannot be mounted: {error}", folder.display()))
    }

    /// Copies what is on it, for whoever looks for the reason.
    pub(super) fn keep(&self, to: &Path) {
        let mut copy = Command::new("cp");
        let _ = run(copy.arg("-a").arg(self.folder()).arg(to));
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        let _ = unmount(self.folder(), UnmountFlags::DETACH);
    }
}

/// The device of a mounted folder.
fn device_of(folder: &Path) -> io::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let folder = folder.to_string_lossy();
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (device, on) = (words.next()?, words.next()?);
        (on == folder).then(|| PathBuf::from(device))
    });
    found.ok_or_else(|| io::Error::other("the mount is not in the list"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output();
    let output = output.map_err(|error| format!("{program} cannot be started: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "{program}: {}",
            said.lines().next().unwrap_or_default()
        ))
    }
}
