//! PEM (RFC 7468): writing; reading is done by rustls-pki-types.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Writes one PEM block, lines of 64 characters.
pub fn pem_encode(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Exact size at once, so that no copy of a private key is left behind by growing.
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject as _;

    #[test]
    fn what_is_written_is_read() {
        for length in [0usize, 1, 47, 48, 49, 96, 1000] {
            let der = vec![0x5au8; length];
            let pem = pem_encode("CERTIFICATE", &der);
            assert!(pem.lines().all(|line| line.len() <= 64));
            let read = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            assert_eq!(read.as_ref(), der);
        }
    }
}
