//! Bytes of a peer as agent messages and as a request to sign.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared_ssh::fuzz::agent(data));
