#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hopvine_fuzz::endpoint_file_toml(data));
