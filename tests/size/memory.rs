//! Memory, counted by an allocator.
fn main() {}
