//! What both connections have in common: algorithms, windows, and how a peer's text is shown.

use std::borrow::Cow;
use std::sync::Arc;

use russh::client::Config;
use russh::keys::ssh_key::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, SshId, cipher, compression};

/// Window of a channel; large enough for a long fat link, small enough to have a few hundred.
const WINDOW: u32 = 2 * 1024 * 1024;

/// The longest text of a peer that is shown.
const MAX_PEER_TEXT: usize = 1024;

/// Host certificates only, hardware ciphers first, no compression.
pub(crate) fn client_config() -> Arc<Config> {
    let certificates = [
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ];
    let preferred = Preferred {
        host_key_certificates: Cow::Owned(certificates.to_vec()),
        // Offered so that a host without a certificate gets as far as our refusal, which says why.
        key: Cow::Owned(certificates.to_vec()),
        cipher: Cow::Borrowed(&[
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_128_CTR,
        ]),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::DEFAULT
    };
    Arc::new(Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-Gatehouse_",
            env!("CARGO_PKG_VERSION")
        ))),
        window_size: WINDOW,
        preferred,
        nodelay: true,
        ..Config::default()
    })
}

/// A peer's text, fit for a terminal: no control characters, not long.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.trim().chars() {
        if out.len() + c.len_utf8() > MAX_PEER_TEXT {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\t' => out.push(' '),
            '\r' => {}
            c if c.is_control() || is_direction_mark(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Marks that turn the direction of text, and with it its meaning.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(
            printable("\x1b]0;title\x07no\u{202e}gnp\r\nend\n"),
            "\u{fffd}]0;title\u{fffd}no\u{fffd}gnp end"
        );
    }

    #[test]
    fn long_texts_are_cut() {
        assert!(printable(&"é".repeat(5000)).len() <= super::MAX_PEER_TEXT + '…'.len_utf8());
    }
}
