//! What a store costs: bytes on disk, and pages and records read for one answer.
//!
//! Memory is measured by a program of its own, `memory.rs`.

mod disk;
mod versions;
