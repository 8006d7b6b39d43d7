//! Bytes as a first packet and as both directions of a PostgreSQL connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared_wire::postgres::fuzz::postgres(data));
