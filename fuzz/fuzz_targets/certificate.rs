//! Bytes of a peer as a certificate, SSH or X.509, and as a public key.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared_pki::fuzz::certificate(data));
