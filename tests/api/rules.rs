//! The rules of the public door, a folder for their subjects: each test's first line is its rule.

mod callbacks;
mod closing;
mod errors;
mod handles;
mod limits;
mod ranges;
mod sharing;
mod visibility;
mod watching;
mod writing;

use revtree::{Db, Options};

/// An empty store in memory.
fn memory() -> Db {
    Options::new().open_in_memory().unwrap()
}

/// Returns once this thread of ours waits for something, or has ended. (Linux tells; there is no other
/// way to know from outside that a call waits.)
fn until_asleep(thread: &str) {
    loop {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{thread}/stat")) else {
            return;
        };
        // The state follows the name, which is in parentheses.
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        if state == Some('S') {
            return;
        }
        std::thread::yield_now();
    }
}

/// A thread that runs `call`, once that waits (or has returned).
fn waiting<'s, R: Send + 's>(
    scope: &'s std::thread::Scope<'s, '_>,
    call: impl FnOnce() -> R + Send + 's,
) -> std::thread::ScopedJoinHandle<'s, R> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = scope.spawn(move || {
        let name = std::fs::read_link("/proc/thread-self").unwrap();
        tell.send(name.to_str().unwrap().to_owned()).unwrap();
        call()
    });
    until_asleep(&told.recv().unwrap());
    thread
}
