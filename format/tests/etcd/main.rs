//! The etcd side of the format, through its public door.
//!
//! - `recorded`: what real servers wrote and answered
//! - `shapes`: every shape of file that bbolt can write
//! - `damage`, `elements`: each kind of damage is found, where it is
//! - `hostile`: no bytes make the reader panic, loop or read without end
//! - `records`: encodings of revision keys, records and leases
//! - `hash`: `HashKV` by etcd's rules gives etcd's numbers

#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads out of bounds has failed"
)]

mod damage;
mod elements;
mod hash;
mod hostile;
mod recorded;
mod records;
mod shapes;
mod support;
