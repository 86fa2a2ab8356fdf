//! etcd's MVCC store as an embeddable crate, on its own storage engine.

#[expect(dead_code, unused_imports, reason = "nothing uses the index yet")]
mod index;
mod sync;
