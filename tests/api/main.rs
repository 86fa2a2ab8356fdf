//! The public door, rule by rule.

mod basic;
mod damage;
mod restore;
mod rules;
mod snapshot;
