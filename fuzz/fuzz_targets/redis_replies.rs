//! What a server of Redis sends, however it is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared_wire::redis::fuzz::redis_replies(data));
