#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hopvine_fuzz::b3_multi(data));
