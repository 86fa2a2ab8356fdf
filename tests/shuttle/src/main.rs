//! `cargo xtask shuttle`: whole stores on a simulated disk, their threads in an order that shuttle chooses (F24, F25).
//!
//! Loom explores all orders and all values of one hand-over; here the engine runs as it is, with all its
//! hand-overs at once, in orders drawn by chance, and every atomic is sequentially consistent. A schedule in
//! which everybody waits is a lost wake-up and fails.
//!
//! * `story`: what a schedule's threads did and saw, and the check of it at the end.
//! * `scenarios`: what runs beside what; `watching`: those with watchers.
//!
//! Half of the schedules of each scenario are random walks, half are by PCT, which finds what needs few
//! preemptions at the right places. The same seed and number give the same schedules; the one that failed is
//! printed and can be run alone.

#[cfg(shuttle)]
mod run;
#[cfg(shuttle)]
mod scenarios;
#[cfg(shuttle)]
mod story;
#[cfg(shuttle)]
mod watching;

#[cfg(shuttle)]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(shuttle))]
fn main() {
    eprintln!("this needs a flag for the whole build: cargo xtask shuttle");
    std::process::exit(2);
}
