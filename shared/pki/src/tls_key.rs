//! TLS keys: ECDSA P-256, kept as PKCS#8 and wiped when dropped.

use crate::{PkiError, der, pem_encode};
use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// AlgorithmIdentifier of an EC key on P-256: id-ecPublicKey with prime256v1 (RFC 5480).
const P256_ALGORITHM: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];

/// A private key for TLS.
pub struct TlsKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
}

impl TlsKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, PkiError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| PkiError::Generate)?;
        let private = pair.private_key();
        let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&private)
            .map_err(|_| PkiError::EncodeKey)?;
        let inner = Zeroizing::new(der::tlv(der::OCTET_STRING, sec1.as_ref()));
        let mut content =
            Zeroizing::new(Vec::with_capacity(inner.len() + P256_ALGORITHM.len() + 3));
        content.extend_from_slice(&[0x02, 0x01, 0x00]);
        content.extend_from_slice(&P256_ALGORITHM);
        content.extend_from_slice(&inner);
        let pkcs8 = Zeroizing::new(der::tlv(der::SEQUENCE, &content));
        Ok(Self { pkcs8, pair })
    }

    /// Reads a PKCS#8 key in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::PrivateKey)?;
        let pkcs8 = Zeroizing::new(key.secret_pkcs8_der().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8)
            .map_err(|_| PkiError::PrivateKey)?;
        Ok(Self { pkcs8, pair })
    }

    /// The key as PKCS#8 in PEM; whoever stores it gives the file mode 0600.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem_encode("PRIVATE KEY", &self.pkcs8))
    }

    /// The key in the form rustls takes.
    pub fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }

    /// The public half.
    pub fn public(&self) -> TlsPublicKey {
        TlsPublicKey { spki: self.subject_public_key_info() }
    }
}

impl PublicKeyData for TlsKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self
            .pair
            .sign(&aws_lc_rs::rand::SystemRandom::new(), message)
            .map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl std::fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsKey").finish_non_exhaustive()
    }
}

/// A public key for TLS: its SubjectPublicKeyInfo in DER. Only ECDSA P-256, P-384 and Ed25519.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPublicKey {
    spki: Vec<u8>,
}

impl TlsPublicKey {
    /// Reads a public key in PEM (`PUBLIC KEY`).
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let spki = rustls_pki_types::SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| PkiError::PublicKey)?;
        Self::from_der(spki.as_ref())
    }

    /// Reads a public key in DER.
    pub fn from_der(spki: &[u8]) -> Result<Self, PkiError> {
        let key = Self { spki: spki.to_vec() };
        key.rcgen()?;
        Ok(key)
    }

    /// The key in PEM.
    pub fn to_pem(&self) -> String {
        pem_encode("PUBLIC KEY", &self.spki)
    }

    /// The key in DER.
    pub fn der(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) fn rcgen(&self) -> Result<rcgen::SubjectPublicKeyInfo, PkiError> {
        let spki =
            rcgen::SubjectPublicKeyInfo::from_der(&self.spki).map_err(|_| PkiError::PublicKey)?;
        let known =
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        let algorithm = spki.algorithm();
        if !known.contains(&algorithm) {
            return Err(PkiError::UnsupportedKey(format!("{algorithm:?}")));
        }
        // A point that is not on its curve would be certified and then break every handshake.
        let bytes = spki.der_bytes();
        let readable = match bytes.len() {
            32 => algorithm == &rcgen::PKCS_ED25519,
            65 | 33 => algorithm == &rcgen::PKCS_ECDSA_P256_SHA256,
            97 | 49 => algorithm == &rcgen::PKCS_ECDSA_P384_SHA384,
            _ => false,
        };
        if readable { Ok(spki) } else { Err(PkiError::PublicKey) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let key = TlsKey::generate().unwrap();
        let again = TlsKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(TlsPublicKey::from_pem(&key.public().to_pem()).unwrap(), key.public());
        assert_eq!(format!("{key:?}"), "TlsKey { .. }");
    }

    #[test]
    fn other_keys_are_refused() {
        assert!(matches!(TlsKey::from_pem("x"), Err(PkiError::PrivateKey)));
        assert!(TlsPublicKey::from_pem("x").is_err());
        assert!(TlsPublicKey::from_der(&[0x30, 0]).is_err());
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        assert!(matches!(
            TlsPublicKey::from_pem(&rsa.public_key_pem()),
            Err(PkiError::UnsupportedKey(_))
        ));
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(TlsPublicKey::from_pem(&ed.public_key_pem()).is_ok());
    }
}
