//! Both sides of a file copy, in any order, through an observer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared_transfer::fuzz::transfer(data));
