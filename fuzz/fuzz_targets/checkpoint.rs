//! Bytes as a checkpoint, as a seal, and as a recording to verify.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared_recording::fuzz::checkpoint(data));
