//! The process as its parent sees it: started, heard, killed, and how it ended.
//!
//! It is this program again, under a tracer where one is to act in it.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use super::CHILD;
use super::plan::{Campaign, End, Life};

/// Whether there is a tracer that may trace.
pub(super) static TRACER: LazyLock<bool> = LazyLock::new(|| {
    let mut tracer = Command::new("strace");
    tracer.args(["-qq", "-o", "/dev/null", "true"]);
    quiet(&mut tracer)
        .status()
        .is_ok_and(|status| status.success())
});

/// A started process; killed when it is dropped.
pub(super) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(super) fn start(
        seed: u64,
        number: u64,
        life: &Life,
        store: &Path,
    ) -> Result<Process, String> {
        let failed = |error| format!("the process cannot be started: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = match life.end {
            End::Trace { name, nth, fault } if *TRACER => {
                let mut tracer = Command::new("strace");
                tracer.args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e"]);
                tracer.arg(format!("trace={name}"));
                tracer.args(["-e", &fault.injection(name, nth)]);
                let elsewhere = ["openat", "mmap", "pread64", "statx"].contains(&name);
                if life.campaign == Campaign::Inject && elsewhere {
                    // What is around the store, such as the program's own libraries, does not fail.
                    for path in files(store) {
                        tracer.arg("-P").arg(path);
                    }
                }
                tracer.arg(program);
                tracer
            }
            _ => Command::new(program),
        };
        let campaign = life.campaign.name();
        command.env(
            CHILD,
            format!("{campaign} {seed} {number} {}", store.display()),
        );
        quiet(&mut command).stdout(Stdio::piped());
        if life.campaign == Campaign::Starve {
            // It ends with a message each time, and looking up the names of a trace takes longer than the life.
            command.env("RUST_BACKTRACE", "0");
        } else {
            command.stderr(Stdio::inherit());
        }
        let mut child = command.spawn().map_err(failed)?;
        let lines = child.stdout.take().map(BufReader::new).map(BufRead::lines);
        let lines = lines.ok_or("the process has no pipe")?;
        Ok(Process { child, lines })
    }

    pub(super) fn next(&mut self) -> Result<Option<String>, String> {
        let line = self.lines.next().transpose();
        line.map_err(|error| format!("the pipe cannot be read: {error}"))
    }

    pub(super) fn kill(&mut self) -> Result<(), String> {
        let killed = self.child.kill();
        killed.map_err(|error| format!("the process cannot be killed: {error}"))
    }

    /// It must have died by SIGKILL, whoever sent it, or by what else may end such a life.
    pub(super) fn died(&mut self, life: &Life) -> Result<i32, String> {
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match status.signal() {
            Some(signal) if life.ends_by(signal) => Ok(signal),
            _ => Err(format!("wrong: the process was not killed: {status}")),
        }
    }
}

/// The store's file, what is saved beside it, and their folder.
fn files(store: &Path) -> [PathBuf; 3] {
    let mut saved = store.as_os_str().to_owned();
    saved.push(".saved");
    let folder = store.parent().unwrap_or(store).to_owned();
    [store.to_owned(), saved.into(), folder]
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}
