//! The reference model of the store, and the random histories that are run against it.
//!
//! Code map, in reading order:
//!
//! * [`keys`], [`answer`]: the plain values that a store is asked with and answers with.
//! * [`oracle`]: the model: a map from key to all its changes. It is slow, short and in memory.
//! * [`encoding`], [`hash`]: etcd's record bytes and the hashes over them.
//! * [`state`]: everything that can be observed at one moment, for crash tests.
//! * [`op`], [`random`], [`mod@generate`]: operations as data, made from a seed.
//! * [`model`], [`outcome`], [`mod@apply`]: what a store under test must offer, and the runner that
//!   compares it with the oracle.
//! * [`campaign`]: many seeds on all cores, from the command line.
//! * [`subject`]: the real store behind that trait.
//! * [`mod@crash`]: histories on a simulated disk, crashed at every operation, or with calls that fail.
//! * [`mod@histories`]: several threads on one store, and a checker of what they saw.
//! * [`mod@watching`]: watchers, and a checker of what they were told.
//! * [`mod@damage`]: every bit of a store, lost blocks, bytes behind the end.
//! * [`mod@fuzz`]: what a fuzzer feeds, as functions of bytes.
//! * [`mod@kill`]: a process that writes to real files and is killed, again and again.
//! * [`mod@soak`]: a long life under churn, in a file that must not grow.
//! * `difference`, `shrink` and `simpler`: what is said when they differ, and the smallest history for it.
//!
//! Invariants: the oracle never calls the crate it judges (only `revtree-format`, for its numbers);
//! nothing here reads a clock or a random source: a seed says everything (`REVTREE_SEED` names one),
//! but for the moment at which a process is killed from outside, for which of several threads comes first,
//! and for how fast a campaign was.

pub mod answer;
pub mod apply;
pub mod campaign;
pub mod crash;
pub mod damage;
pub mod difference;
pub mod encoding;
pub mod fuzz;
pub mod generate;
pub mod hash;
pub mod histories;
pub mod keys;
pub mod kill;
pub mod model;
pub mod op;
pub mod oracle;
pub mod outcome;
mod quiet;
pub mod random;
mod shrink;
mod simpler;
pub mod soak;
pub mod state;
pub mod subject;
pub mod watching;

pub use answer::{Answer, Kv, Refusal};
pub use difference::Difference;
pub use generate::{generate, generate_with_reclaims, seeds};
pub use keys::Keys;
pub use model::{Reader, Stats, Subject, run};
pub use oracle::Oracle;
pub use state::State;
pub use subject::Store;
