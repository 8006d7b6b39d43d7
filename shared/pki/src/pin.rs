//! The CA pin: SHA-256 of a CA certificate's public key (SubjectPublicKeyInfo in DER).

use crate::PkiError;

/// The pin of one TLS authority, printed as `sha256:` and lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaPin([u8; 32]);

impl CaPin {
    /// The pin of a CA certificate in DER.
    pub fn of(der: &[u8]) -> Result<Self, PkiError> {
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|_| PkiError::X509Read)?;
        if !rest.is_empty() {
            return Err(PkiError::X509Read);
        }
        let hash =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.public_key().raw);
        hash.as_ref().try_into().map(Self).map_err(|_| PkiError::X509Read)
    }
}

/// The pin of a CA certificate in DER, as `tctl status` prints it.
pub fn ca_pin(der: &[u8]) -> Result<String, PkiError> {
    CaPin::of(der).map(|pin| pin.to_string())
}

impl std::fmt::Display for CaPin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl std::str::FromStr for CaPin {
    type Err = PkiError;
    fn from_str(text: &str) -> Result<Self, PkiError> {
        let digits = text.trim().strip_prefix("sha256:").ok_or(PkiError::Pin)?;
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| PkiError::Pin)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints() {
        let pin = CaPin([0xab; 32]);
        assert_eq!(pin.to_string().parse::<CaPin>().unwrap(), pin);
        let upper = format!("sha256:{}", "AB".repeat(32));
        assert_eq!(upper.parse::<CaPin>().unwrap(), pin);
        for bad in [
            "",
            "sha256:",
            "sha256:ab",
            "sha1:abab",
            &format!("sha256:{}", "zz".repeat(32)),
            &"ab".repeat(32),
        ] {
            assert!(bad.parse::<CaPin>().is_err(), "{bad}");
        }
        assert!(matches!(CaPin::of(b"nothing"), Err(PkiError::X509Read)));
    }
}
