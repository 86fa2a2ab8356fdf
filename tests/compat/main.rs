//! etcd's own tests of its storage, one by one, at revtree's public door; and what etcd leaves behind.
//!
//! `conformance.toml` lists etcd's tests. Each test that mirrors one says in its first line which, and
//! what that one pins; where etcd is wrong, it says what is shown instead. Besides them:
//!
//! - `fixtures`: snapshots of real servers answer as those did
//! - `import`, `damage`: every shape of snapshot, and every kind of damage
//! - `importer`: records given one by one
//! - `vectors`: histories whose hashes a real etcd computed
//! - `watch`: watchers, and the issues of etcd's that concern them
//! - `snapshot`: files to import, for the others

mod backend;
mod compaction;
mod damage;
mod fixtures;
mod hash;
mod import;
mod importer;
mod index;
mod integration;
mod kv;
mod kvstore;
mod snapshot;
mod snapshots;
mod support;
mod vectors;
mod watch;
