//! etcd's MVCC store as an embeddable crate, on its own storage engine.
