//! What files and disks show seldom: chains, slots and tables made by hand, one rule at a time.

mod chain;
mod reserve;
mod runs;
mod slots;
mod tail;
mod uses;
