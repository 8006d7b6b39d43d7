//! The one key of an agent, with its one certificate.

use std::sync::Arc;

use russh::keys::signature::Signer;
use russh::keys::ssh_key::encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{Algorithm, Certificate, PrivateKey, Signature};
use zeroize::Zeroizing;

use super::memory;

/// Why a key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The certificate is for another key.
    #[error("certificate is not for this key")]
    Mismatch,
    /// The key is encrypted, in hardware, or of a kind that is not issued.
    #[error("keys of type {0} are not served by this agent")]
    Unsupported(String),
    /// The certificate cannot be encoded.
    #[error("encode certificate")]
    Encode(#[source] russh::keys::ssh_key::Error),
    /// Signing went wrong.
    #[error("sign")]
    Sign(#[source] russh::keys::signature::Error),
}

/// Private key and certificate. The key's memory is locked where that is allowed, and zeroed when it is
/// dropped.
pub struct AgentKey {
    key: Arc<PrivateKey>,
    certificate: Certificate,
    blob: Vec<u8>,
    algorithm: String,
    comment: String,
}

impl std::fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentKey").field("comment", &self.comment).finish_non_exhaustive()
    }
}

impl AgentKey {
    /// Takes an Ed25519 or ECDSA key and the certificate for it.
    pub fn new(
        key: PrivateKey,
        certificate: Certificate,
        comment: impl Into<String>,
    ) -> Result<Self, KeyError> {
        match key.key_data() {
            KeypairData::Ed25519(_) | KeypairData::Ecdsa(_) => {}
            _ => return Err(KeyError::Unsupported(key.algorithm().to_string())),
        }
        if key.public_key().key_data() != certificate.public_key() {
            return Err(KeyError::Mismatch);
        }
        let blob = certificate.to_bytes().map_err(KeyError::Encode)?;
        let algorithm = certificate.algorithm().to_certificate_type();
        let key = Arc::new(key);
        // Ed25519 and ECDSA keys lie in the allocation itself.
        memory::lock(&key);
        Ok(Self { key, certificate, blob, algorithm, comment: comment.into() })
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The certificate as it goes over the wire.
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The certificate's algorithm name, the only one this agent signs under.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// The comment under which the key is listed.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The key, to authenticate with in this process.
    #[must_use]
    pub fn private_key(&self) -> &Arc<PrivateKey> {
        &self.key
    }

    /// Signs, giving the signature blob (algorithm and bytes).
    pub(crate) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature: Signature = self.key.try_sign(data).map_err(KeyError::Sign)?;
        signature.encode_vec().map_err(|error| KeyError::Encode(error.into()))
    }

    /// What follows the certificate when the pair is added to an agent (PROTOCOL.agent).
    pub(crate) fn private_fields(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        use crate::wire::Put;
        match self.key.key_data() {
            KeypairData::Ed25519(pair) => {
                let mut out = Zeroizing::new(Vec::with_capacity(128));
                out.put_string(pair.public.as_ref());
                out.put_string(&*Zeroizing::new(pair.to_bytes()));
                Ok(out)
            }
            KeypairData::Ecdsa(pair) => {
                // The whole private encoding is curve name, point, scalar; a certificate wants the scalar.
                let mut whole = Zeroizing::new(Vec::with_capacity(512));
                pair.encode(&mut *whole).map_err(|error| KeyError::Encode(error.into()))?;
                let mut fields = crate::wire::Fields::new(&whole);
                let scalar = fields
                    .string()
                    .and_then(|_| fields.string())
                    .and_then(|_| fields.string())
                    .map_err(|_| KeyError::Unsupported(self.key.algorithm().to_string()))?;
                let mut out = Zeroizing::new(Vec::with_capacity(128));
                out.put_string(scalar);
                Ok(out)
            }
            _ => Err(KeyError::Unsupported(self.key.algorithm().to_string())),
        }
    }

    /// Whether the signature in a bind may be of this algorithm: SHA-1 proves nothing.
    pub(crate) fn acceptable_host_signature(algorithm: &Algorithm) -> bool {
        !matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa)
    }
}
