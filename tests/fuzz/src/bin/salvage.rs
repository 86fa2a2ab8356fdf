//! The target `salvage` of the harness under libFuzzer.
#![no_main]

/// An input has a bound on memory.
#[global_allocator]
static COUNTED: revtree_harness::fuzz::memory::Counting = revtree_harness::fuzz::memory::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(error) = revtree_harness::fuzz::feed("salvage", data) {
        panic!("{error}");
    }
});
