//! SSH key pairs: Ed25519, wiped when dropped.

use crate::{PkiError, ssh_key};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey};
use zeroize::{Zeroize, Zeroizing};

/// An SSH key pair.
#[derive(Clone)]
pub struct KeyPair {
    private: PrivateKey,
    public_line: String,
}

impl KeyPair {
    /// Makes a new Ed25519 key.
    pub fn generate() -> Result<Self, PkiError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        aws_lc_rs::rand::fill(seed.as_mut()).map_err(|_| PkiError::Generate)?;
        let data = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
        seed.zeroize();
        Self::new(PrivateKey::new(data, "").map_err(|_| PkiError::Generate)?)
    }

    /// Wraps a key that is not encrypted.
    pub fn new(private: PrivateKey) -> Result<Self, PkiError> {
        if private.is_encrypted() {
            return Err(PkiError::PrivateKey);
        }
        let public = PublicKey::new(private.public_key().key_data().clone(), "");
        let public_line = public.to_openssh().map_err(|_| PkiError::PublicKey)?;
        Ok(Self { private, public_line })
    }

    /// Reads an unencrypted private key in OpenSSH's PEM form.
    pub fn from_openssh_pem(pem: &str) -> Result<Self, PkiError> {
        Self::new(PrivateKey::from_openssh(pem).map_err(|_| PkiError::PrivateKey)?)
    }

    /// The private key in OpenSSH's PEM form; whoever stores it gives the file mode 0600.
    pub fn to_openssh_private_pem(&self) -> Result<Zeroizing<String>, PkiError> {
        self.private.to_openssh(LineEnding::LF).map_err(|_| PkiError::EncodeKey)
    }

    /// The private key, for whoever signs with it.
    pub fn private(&self) -> &PrivateKey {
        &self.private
    }

    /// The public key.
    pub fn public(&self) -> &PublicKey {
        self.private.public_key()
    }

    /// The public key as one line, `TYPE BASE64`, without a comment.
    pub fn public_openssh(&self) -> String {
        self.public_line.clone()
    }

    /// The public key's SHA-256 fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        self.private.fingerprint(HashAlg::Sha256).to_string()
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public_line).finish_non_exhaustive()
    }
}

/// Fills a new array with random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PkiError::Generate)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_no_secret_in_debug() {
        let key = KeyPair::generate().unwrap();
        let pem = key.to_openssh_private_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        let again = KeyPair::from_openssh_pem(&pem).unwrap();
        assert_eq!(again.public_openssh(), key.public_openssh());
        assert!(key.public_openssh().starts_with("ssh-ed25519 AAAA"));
        assert_eq!(key.public_openssh().split(' ').count(), 2);
        let debug = format!("{key:?}");
        let seed = key.private().key_data().ed25519().unwrap().private.to_bytes();
        assert!(!debug.contains(&hex::encode(seed)) && !debug.contains("PRIVATE KEY"));
        assert!(debug.contains(&key.public_openssh()));
    }

    #[test]
    fn unreadable_keys_are_refused_without_quoting_them() {
        for text in [
            "",
            "secret",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n",
        ] {
            assert_eq!(
                KeyPair::from_openssh_pem(text).unwrap_err().to_string(),
                "private key is not readable"
            );
        }
    }
}
