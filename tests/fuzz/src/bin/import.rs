//! The target `import` of the harness under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(error) = revtree_harness::fuzz::import::import(data) {
        panic!("{error}");
    }
});
