//! Making a store out of records that exist already (SPEC.md, section 10): given one by one, or read
//! from an etcd snapshot.
//!
//! Above `mvcc`, which appends the records, and below `db`, which opens the result. Nothing here knows
//! how a record or a table row is stored.

mod completed;
mod etcd;
mod importer;
mod increment;
mod report;
mod source;
mod target;
#[cfg(test)]
mod tests;

pub use importer::Importer;
pub use report::ImportReport;

pub(crate) use etcd::import_etcd;
pub(crate) use importer::Sealed;
pub(crate) use increment::add_increment;
