//! etcd's own tests of its storage, one by one, at revtree's public door.
//!
//! `conformance.toml` lists them all. Each test here says in its first line which one it mirrors and
//! what that one pins; where etcd is wrong, it says what is shown instead.

mod backend;
mod compaction;
mod hash;
mod index;
mod integration;
mod kv;
mod kvstore;
mod support;
