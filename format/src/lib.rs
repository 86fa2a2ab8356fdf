//! The bytes of a revtree store, as `SPEC.md` describes them: types and checked parsers.
//!
//! Nothing here reads a file, takes a lock or contains `unsafe`; a parser is given a slice and
//! answers with a value or with an error that says what was wrong and where.

pub mod etcd;
mod ids;

pub use ids::{ChangeId, LeaseId, Position, Revision};
