//! The project's own commands: `cargo xtask ci` and its parts.
fn main() {}
