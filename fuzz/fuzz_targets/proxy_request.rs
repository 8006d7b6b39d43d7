//! Bytes of a client as the name of a subsystem, `proxy:host:port`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared_ssh::fuzz::proxy_request(data));
