//! The public door, rule by rule.

mod basic;
