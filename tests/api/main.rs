//! The public door, rule by rule.

mod basic;
mod rules;
