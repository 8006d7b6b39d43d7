//! Bytes of a file as a recording, and as the output of a terminal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shared_recording::fuzz::recording(data);
    shared_recording::fuzz::output(data);
});
