//! What it asserts: `rust/testkit/src/readers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gradient_testkit::readers::check("codec_changes", bytes));
