//! What etcd does, and what it left: the same answers.
//!
//! - `fixtures`: snapshots of real servers answer as those did
//! - `import`: every shape of snapshot, and every kind of damage
//! - `importer`: records given one by one
//! - `vectors`: histories whose hashes a real etcd computed
//! - `snapshot`: files to import, for the others

mod fixtures;
mod import;
mod importer;
mod snapshot;
mod vectors;
