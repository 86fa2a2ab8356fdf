//! The process as its parent sees it: started, heard, killed, and how it ended.
//!
//! It is this program again, under a tracer where one is to act in it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};

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
    lines: Receiver<String>,
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
        let pipe = child.stdout.take().ok_or("the process has no pipe")?;
        let (heard, lines) = channel();
        // A thread of its own, so that one can ask what has been said until now.
        std::thread::spawn(move || {
            let said = BufReader::new(pipe).lines().map_while(Result::ok);
            said.take_while(|line| heard.send(line.clone()).is_ok())
                .for_each(drop);
        });
        Ok(Process { child, lines })
    }

    /// The next line; `None` once it has ended.
    pub(super) fn next(&mut self) -> Option<String> {
        self.lines.recv().ok()
    }

    /// What it has said and nobody has asked for yet, without waiting for more.
    pub(super) fn said(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
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
