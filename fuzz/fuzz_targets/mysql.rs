//! Bytes of both sides of a MySQL connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared_wire::mysql::fuzz::mysql(data));
