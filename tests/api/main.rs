//! The public door, rule by rule.

mod basic;
mod damage;
mod increments;
mod links;
#[cfg(feature = "metrics")]
mod metrics;
mod permissions;
#[cfg(feature = "serde")]
mod plain_data;
mod reclaim;
mod restore;
mod retention;
mod rules;
mod snapshot;
mod stats;
#[cfg(feature = "tracing")]
mod tracing;
mod view_limit;
