#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hopvine_fuzz::eureka_xml(data));
