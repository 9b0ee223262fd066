#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hopvine_fuzz::grpc_timeout(data));
