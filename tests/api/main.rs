//! The public door, rule by rule.

mod basic;
mod restore;
mod rules;
mod snapshot;
