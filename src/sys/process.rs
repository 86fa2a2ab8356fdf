//! What the system says about this process, and the threads that it gives.

use std::error::Error;
use std::io;
use std::sync::OnceLock;

/// Memory of the process in RAM in bytes; 0 where the system does not say.
pub(crate) fn memory_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * super::syscall::page_size()
}

/// Starts the threads that loading, hashing and checking share, unless there are some.
///
/// They are `rayon`'s, which panics at its first use, and at each later one, when the system gives it no thread. So
/// it is asked here, once, where the answer can be given back.
///
/// # Errors
///
/// The system's answer, for as long as the process lives: `rayon` does not ask again.
pub(crate) fn start_threads() -> io::Result<()> {
    static REFUSED: OnceLock<Option<i32>> = OnceLock::new();
    if rayon::current_thread_index().is_some() {
        return Ok(());
    }
    let refused = REFUSED.get_or_init(|| {
        let error = rayon::ThreadPoolBuilder::new().build_global().err()?;
        // Without a cause it says that somebody else has started them.
        let cause = error.source()?.downcast_ref::<io::Error>()?;
        Some(cause.raw_os_error().unwrap_or(EAGAIN))
    });
    refused.map_or(Ok(()), |errno: i32| {
        Err(io::Error::from_raw_os_error(errno))
    })
}

/// Not now: what a system without threads left says.
const EAGAIN: i32 = 11;
